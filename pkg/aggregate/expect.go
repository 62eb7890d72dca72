package aggregate

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// broken is one answer that lacks what was expected.
type broken struct {
	sight   *sight
	missing []string // as the spec spells them
}

// unexpectedAnswers names the regions where a perspective's answer lacks an expected value: one
// finding for wrong answers, one for each way to say that there is nothing. A resolver that could not
// answer at all breaks nothing: that is a finding of its own (rule 12).
func (f *facts) unexpectedAnswers(wanted []string) []*pb.Finding {
	byFailure, served := map[pb.Failure][]broken{}, false
	for v := range f.everyAnswer() {
		switch {
		case v.state == bad && aboutName(v.failure):
			byFailure[v.failure] = append(byFailure[v.failure], broken{v.sight, wanted})
		case v.state == good && v.whole:
			if missing := f.missing(f.askedType(v.at()), wanted, v.values); len(missing) > 0 {
				byFailure[v.failure] = append(byFailure[v.failure], broken{v.sight, missing})
			} else {
				served = true
			}
		}
	}
	behind, zone := f.laggards(wanted), f.zoneServes(wanted)
	var findings []*pb.Finding
	for failure, all := range byFailure {
		e := f.notServed(failure, all)
		switch {
		case len(behind) > 0, !served && !zone:
			e.Blame = pb.Blame_BLAME_ZONE
		case zone:
			e.Blame = pb.Blame_BLAME_RESOLVER
		}
		e.Hint = f.waitHint(wanted, f.lastEnd(all))
		findings = append(findings, e)
	}
	return findings
}

// missing are the expected values that are not in got.
func (f *facts) missing(asked string, wanted, got []string) []string {
	var missing []string
	for _, w := range wanted {
		if !slices.Contains(got, f.canonical(asked, w)) {
			missing = append(missing, w)
		}
	}
	return missing
}

// notServed is answers without what was expected in them.
func (f *facts) notServed(failure pb.Failure, all []broken) *pb.Finding {
	sights := make([]*sight, 0, len(all))
	var missing []string
	for _, b := range all {
		sights = append(sights, b.sight)
		missing = append(missing, b.missing...)
	}
	e := plainFinding(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED)
	e.Regions = collect(sights, func(s *sight) string { return s.agent.region.name })
	e.Agents = agentsOf(sights)
	e.Stage, e.Failure = pb.Stage_STAGE_DNS, failure
	if failure != pb.Failure_FAILURE_NONE {
		e.Failures = []pb.Failure{failure}
	}
	e.Confidence = f.regionwise(sights)
	e.Evidence = evidence(sights, nil)
	e.Summary = f.notServedSummary(e, unique(missing), sights)
	return e
}

// lastEnd is when the last of these answers runs out, as far as it is known.
func (f *facts) lastEnd(all []broken) *timestamppb.Timestamp {
	ends := make([]*timestamppb.Timestamp, 0, len(all))
	for _, b := range all {
		ends = append(ends, f.until(b.sight))
	}
	return latest(ends)
}
