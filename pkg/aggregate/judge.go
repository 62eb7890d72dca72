package aggregate

import (
	"cmp"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Version is the version of the judge; a Verdict carries the one that made it.
const Version = "4"

// Judge says what the results of m mean together. It reads the spec, the policy, the state and the asks
// of m and nothing else of it; an agent's place is the one in its ask. Results of agents that were not asked,
// and of agents whose ask ended without a result (late ones), are ignored. Order and duplicates never
// matter. While m runs, Judge judges what is there. The inputs are not modified.
func Judge(m *pb.Measurement, results []*pb.Result) *pb.Verdict {
	f := gather(m, results)
	findings := slices.Concat(f.nameFindings(), f.reachFindings(), f.certFindings(), f.latencyFindings(), f.vantageFindings(), f.lostPatience())
	f.foretellNames(findings)
	if weak := f.nobodyJudged(); weak != nil && !slices.ContainsFunc(findings, isError) {
		findings = append(findings, weak)
	}
	slices.SortFunc(findings, compareFindings)
	v := &pb.Verdict{Outcome: f.outcome(findings), Findings: findings, Judge: Version}
	fit(v)
	return v
}

// Judged names the regions of m that something is known of, sorted: those where an agent came to an end, good
// or bad, by itself. What Judge does not say of another region is not well; it is not known.
func Judged(m *pb.Measurement, results []*pb.Result) []string {
	return collect(gather(m, results).regions, func(r *region) string {
		if r.judged {
			return r.name
		}
		return ""
	})
}

// outcome is FAIL with any ERROR; otherwise INCONCLUSIVE with too few vantage points or an asked
// region without a judged agent; otherwise OK.
func (f *facts) outcome(findings []*pb.Finding) pb.Outcome {
	weak := !f.everyRegionJudged() || f.doorUnseen()
	for _, finding := range findings {
		if isError(finding) {
			return pb.Outcome_OUTCOME_FAIL
		}
		weak = weak || finding.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE
	}
	if weak {
		return pb.Outcome_OUTCOME_INCONCLUSIVE
	}
	return pb.Outcome_OUTCOME_OK
}

func isError(f *pb.Finding) bool { return f.GetSeverity() == pb.Severity_SEVERITY_ERROR }

// compareFindings puts the worst first; what is left of it makes the order total.
func compareFindings(a, b *pb.Finding) int {
	return cmp.Or(
		cmp.Compare(b.GetSeverity(), a.GetSeverity()),
		cmp.Compare(a.GetCode(), b.GetCode()),
		slices.Compare(a.GetRegions(), b.GetRegions()),
		slices.Compare(a.GetAddresses(), b.GetAddresses()),
		cmp.Compare(a.GetBlock(), b.GetBlock()),
		cmp.Compare(a.GetFailure(), b.GetFailure()),
		slices.Compare(a.GetAgents(), b.GetAgents()),
		cmp.Compare(a.GetSummary(), b.GetSummary()),
	)
}

// Tally counts asks by what became of them. While a measurement runs, asks without an answer yet are
// in Asked alone; once it is closed Asked is the sum of the other four.
func Tally(asks []*pb.Ask) *pb.Ledger {
	l := &pb.Ledger{}
	for _, ask := range asks {
		l.Asked++
		switch ask.GetState() {
		case pb.AskState_ASK_STATE_ANSWERED:
			l.Answered++
		case pb.AskState_ASK_STATE_LOST:
			l.Lost++
		case pb.AskState_ASK_STATE_REFUSED:
			l.Refused++
		case pb.AskState_ASK_STATE_INELIGIBLE:
			l.Ineligible++
		case pb.AskState_ASK_STATE_PENDING, pb.AskState_ASK_STATE_UNSPECIFIED:
		}
	}
	return l
}
