package aggregate

import (
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// perspective names the resolver that a sight of a name rests on (rule 5). An address that means
// something else in each place (loopback, private, link-local) counts once for each region: two
// agents there may or may not share it, and to take them for one claims less.
func (v *sight) perspective() string {
	address := v.at().GetAddress()
	if inside(address) {
		return v.agent.region.name + " " + address
	}
	return address
}

// inside says whether an address is one that the internet has no way to.
func inside(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	ip := ap.Addr().Unmap()
	return err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast())
}

// nameFindings judge the resolution of the target's name.
func (f *facts) nameFindings() []*pb.Finding {
	wanted := f.m.GetSpec().GetDns().GetExpect()
	zone := f.zoneFindings()
	spots := survey(slices.DeleteFunc(slices.Clone(f.names), func(v *sight) bool {
		// What says that there is no such data breaks an expectation; of who has no server left to ask, why is told.
		return len(wanted) > 0 && aboutName(v.failure) || v.state == bad && v.agent.stranded && !aboutName(v.failure) && !wrongData(v.failure)
	}))
	findings := append(zone, f.differ(spots)...)
	shut := only(spots, (*spot).shut)
	if len(wanted) == 0 {
		findings = append(findings, f.differentAnswers()...)
	} else {
		findings = append(findings, f.unexpectedAnswers(wanted)...)
		if numbers := f.propagation(wanted); numbers != nil {
			findings = append(findings, numbers)
		}
	}
	switch {
	case len(shut) == 0:
	case anyOpen(spots):
		findings = append(findings, f.regionalResolution(shut, spots)...)
	case !f.enoughRegions(regionsOf(shut)) && !aboutName(mainFailureOf(shut)) && !wrongData(mainFailureOf(shut)):
		// So few regions' resolvers may be the only ones that cannot; "there is no such name" is an answer
		// of the zone's.
		findings = append(findings, f.loneFailure(shut))
	default:
		findings = append(findings, f.unresolvable(shut))
	}
	return findings
}

// regionalResolution is a name that resolves in some regions and fails in these; one finding for each
// failure.
func (f *facts) regionalResolution(shut, all []*spot) []*pb.Finding {
	var findings []*pb.Finding
	for _, g := range byWay(all, shut) {
		contrast := oksOf(all)
		code := resolutionCode(mainFailureOf(g.spots), pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE)
		r := newFinding(code, g.spots, contrast)
		r.Block, r.Blame = pb.BlockKind_BLOCK_KIND_DNS, pb.Blame_BLAME_RESOLVER
		if code == pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS || code == pb.FindingCode_FINDING_CODE_CNAME_BROKEN {
			// Resolvers that do not validate, or hold an old answer, do not see it; it is the zone's all the same.
			r.Block, r.Blame = pb.BlockKind_BLOCK_KIND_UNSPECIFIED, pb.Blame_BLAME_ZONE
		}
		r.Confidence = f.regionalConfidence(g.spots)
		r.Summary = f.resolutionSummary(r, g.spots, contrast)
		r.Hint = f.resolverHint(r, g.spots)
		findings = append(findings, r)
	}
	return findings
}

// unresolvable is a name that resolves nowhere.
func (f *facts) unresolvable(shut []*spot) *pb.Finding {
	u := newFinding(resolutionCode(mainFailureOf(shut), pb.FindingCode_FINDING_CODE_UNRESOLVABLE), shut, nil)
	u.Blame = pb.Blame_BLAME_ZONE
	if f.namesResolver() && !aboutName(u.GetFailure()) && !wrongData(u.GetFailure()) {
		u.Blame = pb.Blame_BLAME_RESOLVER // The question is about that server.
	}
	u.Confidence = f.confidence(failsOf(shut))
	u.Summary = f.resolutionSummary(u, shut, nil)
	u.Hint = unresolvableHint(u, failsOf(shut))
	return u
}

// mainFailureOf is the most frequent failure of spots.
func mainFailureOf(spots []*spot) pb.Failure {
	_, failure := mainFailure(failsOf(spots))
	return failure
}
