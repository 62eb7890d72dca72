package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// doorRow is what one region sees of a door.
type doorRow struct {
	region string
	mark   mark
	seen   string // open, or in which ways it is shut
	block  string
	agents string // answered of asked
	why    string // nothing is known, or no more
	change string // since the last time; "" if nobody asked
	junit  junitCase
}

// doorRows are what each region sees of the door that a measurement expects something of.
func doorRows(m *pb.Measurement) []doorRow {
	var out []doorRow
	for _, region := range regions(m) {
		out = append(out, doorRowOf(m, region))
	}
	return out
}

// doorRowOf asks the judge about one region alone: what it says then is about nothing else. It is asked
// once more with the door expected open, and once with the door expected shut: what it complains of is
// what was seen.
func doorRowOf(m *pb.Measurement, region string) doorRow {
	own := proto.CloneOf(&pb.Measurement{State: m.GetState(), Spec: m.GetSpec(), Policy: m.GetPolicy()})
	for _, a := range m.GetAsks() {
		if a.GetVantage().GetRegion() == region {
			own.Asks = append(own.Asks, a)
		}
	}
	expect := expected(m.GetSpec())
	row := doorRow{region: Clean(region), mark: markUnknown, agents: answered(own.GetAsks())}
	if aggregate.Judge(own, m.GetResults()).GetOutcome() == pb.Outcome_OUTCOME_OK {
		row.mark = markOK
	}
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetSeverity() == pb.Severity_SEVERITY_ERROR && slices.Contains(f.GetRegions(), region) {
			row.mark = markFail
		}
	}
	open := unexpected(own, m.GetResults(), pb.Reachability_REACHABILITY_BLOCKED)
	shut := unexpected(own, m.GetResults(), pb.Reachability_REACHABILITY_OPEN)
	row.seen, row.block = sayDoor(expect, open, shut)
	if row.mark == markOK && row.seen == "" {
		row.seen = "open" // to an agent that its fellows outvote
	}
	if row.mark == markUnknown {
		row.why = cmp.Or(unknown(m, region), "an address of the name could not be judged from there")
	}
	row.seen = cmp.Or(row.seen, "not known")
	row.junit = doorCase(m, region, expect, row)
	return row
}

// expected is what a spec expects of the way.
func expected(spec *pb.Spec) pb.Reachability {
	return max(spec.GetTcp().GetExpect(), spec.GetTls().GetExpect(), spec.GetHttp().GetExpect())
}

// unexpected are the findings of doors that are not as expect says.
func unexpected(m *pb.Measurement, results []*pb.Result, expect pb.Reachability) (out []*pb.Finding) {
	switch check := m.GetSpec().GetCheck().(type) { // m is the caller's own
	case *pb.Spec_Tcp:
		check.Tcp.Expect = expect
	case *pb.Spec_Tls:
		check.Tls.Expect = expect
	case *pb.Spec_Http:
		check.Http.Expect = expect
	}
	for _, f := range aggregate.Judge(m, results).GetFindings() {
		if f.GetCode() == pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED {
			out = append(out, f)
		}
	}
	return out
}

// sayDoor says how doors are seen, and which blocks these are. An address that is neither wholly open
// nor wholly shut, as behind an alert, counts as what was not expected. Addresses are named where they
// are not all alike.
func sayDoor(expect pb.Reachability, open, shut []*pb.Finding) (seen, block string) {
	if expect == pb.Reachability_REACHABILITY_OPEN {
		open = without(open, shut)
	} else {
		shut = without(shut, open)
	}
	blocks, words := map[string]bool{}, []string(nil)
	for _, f := range slices.Concat(open, shut) {
		what := "open"
		if !slices.Contains(open, f) {
			what = sayShut(f)
			if f.GetBlock() != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
				blocks[aggregate.ShortBlock(f.GetBlock())] = true
			}
		}
		if len(open)+len(shut) > 1 {
			what = Clean(strings.Join(f.GetAddresses(), ", ")) + " " + what
		}
		words = append(words, what)
	}
	return strings.Join(words, "; "), strings.Join(slices.Sorted(maps.Keys(blocks)), ", ")
}

// without are the findings about addresses that no other finding is about.
func without(findings, others []*pb.Finding) []*pb.Finding {
	return slices.DeleteFunc(findings, func(f *pb.Finding) bool {
		return slices.ContainsFunc(others, func(o *pb.Finding) bool { return slices.Equal(f.GetAddresses(), o.GetAddresses()) })
	})
}

// sayShut says in which ways a door is shut. Silence counts beside a control that passed alone.
func sayShut(f *pb.Finding) string {
	var words []string
	for _, failure := range f.GetFailures() {
		switch failure {
		case pb.Failure_FAILURE_TCP_TIMEOUT:
			words = append(words, "silent; control passed")
		case pb.Failure_FAILURE_TLS_TIMEOUT:
			words = append(words, "silent to ClientHello; control passed")
		case pb.Failure_FAILURE_HTTP_TIMEOUT:
			words = append(words, "silent to the request; control passed")
		case pb.Failure_FAILURE_HTTP_STATUS:
			words = append(words, "denied (403 or 451)")
		default:
			words = append(words, aggregate.ShortFailure(failure))
		}
	}
	return strings.Join(words, ", ")
}

// answered is how many of the asked agents answered: "2/2".
func answered(asks []*pb.Ask) string {
	n := 0
	for _, a := range asks {
		if a.GetState() == pb.AskState_ASK_STATE_ANSWERED {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(asks))
}

// since says what changed of the rows since the last time; then has nothing for a new question.
func since(now []doorRow, then map[string]mark) {
	for i, r := range now {
		old, known := then[r.region]
		switch {
		case !known:
			now[i].change = "new"
		case old == r.mark:
			now[i].change = "unchanged"
		case r.mark == markFail:
			now[i].change = "newly broken"
		case r.mark == markOK:
			now[i].change = "newly fixed"
		default:
			now[i].change = "no longer known"
		}
	}
}
