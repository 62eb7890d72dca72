package lab

import (
	"fmt"
	"slices"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// differences says in sentences where what was said is not what was wanted.
func (w want) differences(exit int, m *pb.Measurement) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if exit != w.exit {
		add("exit %d, want %d", exit, w.exit)
	}
	if got := m.GetVerdict().GetOutcome(); got != w.outcome {
		add("outcome %s, want %s", got, w.outcome)
	}
	ledger := &pb.Ledger{Asked: w.asked, Answered: w.asked - w.lost, Lost: w.lost}
	if diff := gocmp.Diff(ledger, m.GetLedger(), protocmp.Transform()); diff != "" {
		add("ledger (-want +got):\n%s", diff)
	}
	got := slices.Clone(m.GetVerdict().GetFindings())
	var first string // what the row's first finding says
	for n, f := range w.findings {
		i := slices.IndexFunc(got, func(g *pb.Finding) bool {
			return g.GetCode() == f.GetCode() && (len(f.GetRegions()) == 0 || slices.Equal(g.GetRegions(), f.GetRegions()))
		})
		if i < 0 { // the same about other regions shows the difference
			i = slices.IndexFunc(got, func(g *pb.Finding) bool { return g.GetCode() == f.GetCode() })
		}
		if i < 0 {
			add("%s is missing", f.GetCode())
			continue
		}
		if diff := gocmp.Diff(f, only(got[i], f), protocmp.Transform()); diff != "" {
			add("%s (-want +got):\n%s", f.GetCode(), diff)
		}
		if n == 0 {
			first = got[i].GetSummary() + " " + got[i].GetHint()
		}
		got = slices.Delete(got, i, i+1)
	}
	for _, f := range got {
		if f.GetSeverity() > pb.Severity_SEVERITY_INFO {
			add("%s %s is said besides: %.300s", f.GetSeverity(), f.GetCode(), f.GetSummary())
		}
	}
	for _, words := range w.mentions {
		if !strings.Contains(first, words) {
			add("the finding does not say %q", words)
		}
	}
	if w.shows != nil {
		wrong = append(wrong, w.shows(m)...)
	}
	return wrong
}

// unseen are the agents of the accused regions that did not see the ICMP error that is wanted, from
// the router's address on their own network.
func (w *world) unseen(want want, m *pb.Measurement) []string {
	if want.icmp == "" {
		return nil
	}
	var wrong []string
	for _, r := range m.GetResults() {
		if !slices.Contains(want.findings[0].GetRegions(), r.GetVantage().GetRegion()) {
			continue
		}
		sender := w.agent(r.GetAgent()).net + ".1"
		if !slices.ContainsFunc(r.GetSteps(), func(s *pb.Step) bool {
			i := s.GetEvidence().GetIcmp()
			return i.GetSender() == sender && fmt.Sprintf("%d/%d", i.GetType(), i.GetCode()) == want.icmp
		}) {
			wrong = append(wrong, fmt.Sprintf("%s: no step shows ICMP %s from %s", r.GetAgent(), want.icmp, sender))
		}
	}
	return wrong
}

// serious are the findings of a severity above INFO.
func serious(m *pb.Measurement) []*pb.Finding {
	var all []*pb.Finding
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetSeverity() > pb.Severity_SEVERITY_INFO {
			all = append(all, f)
		}
	}
	return all
}

// only is a copy of a finding with just the fields that are set in like.
func only(f, like *pb.Finding) *pb.Finding {
	part := proto.CloneOf(f)
	part.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !like.ProtoReflect().Has(field) {
			part.ProtoReflect().Clear(field)
		}
		return true
	})
	return part
}

// falselyAccused counts the findings of severity ERROR that are not wanted, or name a region that
// is not wanted.
func (w want) falselyAccused(m *pb.Measurement) int {
	n := 0
	for _, f := range serious(m) {
		if f.GetSeverity() != pb.Severity_SEVERITY_ERROR {
			continue
		}
		if !slices.ContainsFunc(w.findings, func(f2 *pb.Finding) bool {
			return f2.GetCode() == f.GetCode() && slices.Equal(f2.GetRegions(), f.GetRegions())
		}) {
			n++
		}
	}
	return n
}

// inconsistencies are what must hold of every closed measurement.
func inconsistencies(m *pb.Measurement) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if m.GetState() != pb.State_STATE_FINISHED {
		add("%s, want STATE_FINISHED", m.GetState())
	}
	l := m.GetLedger()
	if l.GetAsked() != l.GetAnswered()+l.GetLost()+l.GetRefused()+l.GetIneligible() {
		add("the ledger does not sum: %v", l)
	}
	if len(m.GetResults()) != int(l.GetAnswered()) {
		add("%d results, but %d agents answered", len(m.GetResults()), l.GetAnswered())
	}
	steps := map[string]int{}
	for _, r := range m.GetResults() {
		steps[r.GetAgent()] = len(r.GetSteps())
	}
	for _, f := range serious(m) {
		if f.GetSummary() == "" {
			add("%s has no summary", f.GetCode())
		}
		if f.GetSeverity() == pb.Severity_SEVERITY_ERROR && (len(f.GetRegions()) == 0 || len(f.GetEvidence()) == 0) {
			add("%s has no regions or no evidence: %v", f.GetCode(), f)
		}
		for _, e := range f.GetEvidence() {
			if int(e.GetStep()) >= steps[e.GetAgent()] {
				add("%s names evidence that is not there: %v", f.GetCode(), e)
			}
		}
	}
	return wrong
}

// shortCode is a finding's code as people read it.
func shortCode(code pb.FindingCode) string {
	return strings.ToLower(strings.TrimPrefix(code.String(), "FINDING_CODE_"))
}

// describe is a verdict in full, and the steps of its results, for a failed test; at most 8 KiB.
func describe(m *pb.Measurement) string {
	var b strings.Builder
	for _, f := range m.GetVerdict().GetFindings() {
		fmt.Fprintf(&b, "  %s %s %v %v: %s\n    hint: %s\n",
			f.GetSeverity(), f.GetCode(), f.GetRegions(), f.GetAddresses(), f.GetSummary(), f.GetHint())
	}
	for _, r := range m.GetResults() {
		fmt.Fprintf(&b, "  %s:\n", r.GetAgent())
		for i, s := range r.GetSteps() {
			fmt.Fprintf(&b, "    %d %s %s %s %s %s %s attempts=%d %s\n", i, s.GetRole(), s.GetKind(), s.GetName(), s.GetAddress(),
				s.GetFailure(), s.GetDuration().AsDuration(), s.GetAttempts(), s.GetEvidence().GetText())
		}
	}
	return b.String()[:min(b.Len(), 8<<10)]
}
