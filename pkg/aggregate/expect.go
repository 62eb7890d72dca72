package aggregate

import (
	"maps"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// unexpected names exactly the regions that break what was expected of a port (rule 11). A region
// whose agents contradict each other is agents_differ where it should be open (rule 7); where it
// should be shut, one connection is enough to show that it is not.
func (f *facts) unexpected(expect pb.Reachability, spots []*spot) []*pb.Finding {
	var findings []*pb.Finding
	if expect == pb.Reachability_REACHABILITY_BLOCKED {
		for _, g := range byOpenAddresses(only(spots, (*spot).open)) {
			findings = append(findings, f.notShut(g, spots))
		}
		return findings
	}
	for _, g := range byWay(spots, only(spots, (*spot).shut)) {
		findings = append(findings, f.notOpen(g, spots))
	}
	return findings
}

// doorUnseen says whether an expectation cannot be called met because an address was left unseen from a
// region that could have seen it: one that none of its agents could judge is neither shut (rule 8) nor
// open (rule 6). Agents without the address's family cannot come to it anyway.
func (f *facts) doorUnseen() bool {
	if f.m.GetSpec().GetTcp().GetExpect() == pb.Reachability_REACHABILITY_UNSPECIFIED {
		return false
	}
	type door struct {
		thing  *thing
		region *region
	}
	seen := map[door]bool{}
	for _, v := range f.reach {
		d := door{v.thing, v.agent.region}
		seen[d] = seen[d] || v.state != unknown || v.at().GetFailure() == pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	}
	return slices.Contains(slices.Collect(maps.Values(seen)), false)
}

// notOpen is shut where it should be open.
func (f *facts) notOpen(g group, all []*spot) *pb.Finding {
	contrast := contrastOf(g.spots, all)
	e := newFinding(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, g.spots, contrast)
	e.Block = g.way.block
	e.Confidence = f.regionalConfidence(g.spots)
	same := only(all, func(s *spot) bool { return slices.Contains(e.GetAddresses(), s.thing.text) })
	switch {
	case anyOpen(same):
		e.Blame = pb.Blame_BLAME_PATH
	case f.enoughRegions(regionsOf(same)):
		e.Blame = pb.Blame_BLAME_TARGET // shut from wherever it was tried
	}
	e.Summary = "expected open: " + f.contrastSummary(e, g.spots, contrast)
	e.Hint = f.blockHint(e, g.spots)
	return e
}

// notShut is open where it should be shut.
func (f *facts) notShut(spots, all []*spot) *pb.Finding {
	oks := oksOf(spots)
	e := plainFinding(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED)
	e.Regions, e.Addresses = regionsOf(spots), addressesOf(spots)
	e.Stage, e.Blame = pb.Stage_STAGE_TCP, pb.Blame_BLAME_TARGET
	e.Evidence = evidence(oks, failsOf(all))
	e.Confidence = f.regionwise(oks)
	e.Summary = "expected blocked: " + join(e.GetRegions()) + inBrackets(sole(oks)) + connects(oks) + " to " + join(e.GetAddresses()) + "."
	e.Hint = "shut " + join(e.GetAddresses()) + " for the addresses of " + f.places(spots) + "."
	return e
}

// byOpenAddresses puts regions together that are open at just the same addresses.
func byOpenAddresses(open []*spot) [][]*spot {
	perRegion := map[*region][]*spot{}
	for _, s := range open {
		perRegion[s.region] = append(perRegion[s.region], s)
	}
	merged := map[string][]*spot{}
	for _, spots := range perRegion {
		k := strings.Join(addressesOf(spots), " ")
		merged[k] = append(merged[k], spots...)
	}
	groups := make([][]*spot, 0, len(merged))
	for _, spots := range merged {
		groups = append(groups, sorted(spots))
	}
	return groups
}

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
	for _, v := range f.answers {
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
	var findings []*pb.Finding
	for failure, all := range byFailure {
		e := f.notServed(failure, all)
		if !served {
			e.Blame = pb.Blame_BLAME_ZONE
		}
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
	e.Hint = "check the record at the zone's own servers; where they serve it, resolvers follow when what they hold runs out."
	return e
}
