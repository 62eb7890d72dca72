package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Changes writes to Err who judged the same results before and who does now, and what that changes.
func (s Screen) Changes(was, now *pb.Verdict) {
	fmt.Fprintf(s.Err, "judged again by judge %s; the verdict on record is %s\n", Clean(now.GetJudge()), whose(was))
	lines := changes(was, now)
	if len(lines) == 0 {
		lines = []string{"nothing changed"}
	}
	for _, line := range lines {
		fmt.Fprintln(s.Err, line)
	}
}

// whose says who made a verdict.
func whose(v *pb.Verdict) string {
	if v == nil {
		return "none"
	}
	return "that of judge " + cmp.Or(Clean(v.GetJudge()), "?")
}

// changes are the differences of two verdicts, a line each: findings that went (-), came (+), or say
// something else (~) of the same regions and addresses.
func changes(was, now *pb.Verdict) (lines []string) {
	if was.GetOutcome() != now.GetOutcome() {
		lines = append(lines, "outcome "+aggregate.ShortOutcome(was.GetOutcome())+" → "+aggregate.ShortOutcome(now.GetOutcome()))
	}
	left := slices.Clone(now.GetFindings())
	for _, old := range was.GetFindings() {
		i := slices.IndexFunc(left, func(f *pb.Finding) bool { return aboutTheSame(old, f) })
		if i < 0 {
			lines = append(lines, "- "+inOneLine(old))
			continue
		}
		if fields := otherFields(old, left[i]); len(fields) > 0 {
			lines = append(lines, "~ "+inOneLine(left[i])+": "+strings.Join(fields, ", "))
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		lines = append(lines, "+ "+inOneLine(f))
	}
	return lines
}

// aboutTheSame says whether two findings state the same of the same regions, addresses and agents.
func aboutTheSame(a, b *pb.Finding) bool {
	return a.GetCode() == b.GetCode() && a.GetStage() == b.GetStage() && slices.Equal(a.GetRegions(), b.GetRegions()) &&
		slices.Equal(a.GetAddresses(), b.GetAddresses()) && slices.Equal(a.GetAgents(), b.GetAgents())
}

// otherFields are the names of the fields that differ, as JSON has them; a short one with both values.
func otherFields(was, now *pb.Finding) (names []string) {
	fields := was.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		before, after := was.ProtoReflect().Get(f), now.ProtoReflect().Get(f)
		switch {
		case before.Equal(after):
		case f.Kind() == protoreflect.EnumKind && !f.IsList():
			value := func(v protoreflect.Value) string {
				return enumWord(f.Enum(), v.Enum())
			}
			names = append(names, f.JSONName()+" "+value(before)+" → "+value(after))
		default:
			names = append(names, f.JSONName())
		}
	}
	return names
}

// enumWord is a value of an enum for people: "high".
func enumWord(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v, zero := d.Values().ByNumber(n), d.Values().ByNumber(0)
	if v == nil || zero == nil {
		return fmt.Sprint(n)
	}
	prefix := strings.TrimSuffix(string(zero.Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}

// inOneLine is the head of a finding.
func inOneLine(f *pb.Finding) string {
	head := proto.CloneOf(f)
	head.Summary, head.Hint = "", ""
	return strings.Join(strings.Fields(strings.Join(finding(head, theme{}, 0), " ")), " ")
}
