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

// inside says whether an address with its port is one that the internet has no way to.
func inside(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	return err == nil && Inside(ap.Addr().Unmap())
}

// nameFindings judge the resolution of the target's name.
func (f *facts) nameFindings() []*pb.Finding {
	wanted := f.m.GetSpec().GetDns().GetExpect()
	findings := f.lameDelegations() // and whom they leave stranded
	spots := survey(slices.DeleteFunc(slices.Clone(f.names), f.toldOtherwise))
	findings = append(findings, f.differ(spots)...)
	if len(wanted) == 0 {
		findings = slices.Concat(findings, f.unsynced(), f.differentAnswers())
	} else {
		findings = append(findings, f.expectedAnswers(wanted)...)
	}
	if six := f.noIPv4(); six != nil {
		findings = append(findings, six)
	}
	shut := only(spots, (*spot).shut)
	findings = append(findings, f.regionalResolution(only(shut, contradicted), spots)...)
	shut = only(shut, func(s *spot) bool { return !contradicted(s) })
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

// expectedAnswers judge answers by what is expected. Where it is missing, the zone's own servers that disagree
// are why, and no second ERROR (rule 12).
func (f *facts) expectedAnswers(wanted []string) []*pb.Finding {
	findings := f.unexpectedAnswers(wanted)
	if len(findings) == 0 {
		findings = f.unsynced()
	}
	if numbers := f.propagation(wanted); numbers != nil {
		findings = append(findings, numbers)
	}
	return findings
}

// toldOtherwise says whether a name is told by another finding: its answer is made up, or is what a cache still has
// of a name that the zone has no more, it breaks an expectation, a resolver holds an old denial, one of the zone's
// servers has no such name, or there is no server left to ask.
func (f *facts) toldOtherwise(v *sight) bool {
	dns := f.m.GetSpec().GetDns()
	switch {
	case v.state != bad:
		return v.why == forged || v.why == stale && f.zoneDenies(v)
	case aboutName(v.failure) && len(dns.GetExpect()) > 0, dns != nil && v.why == stale:
		return true
	case aboutName(v.failure) && v.why == confirmed:
		return len(f.torn) > 0
	}
	return v.agent.stranded && !aboutName(v.failure) && !wrongData(v.failure)
}

// contradicted says whether the zone's own servers, asked from there, have what the resolvers of a spot do not.
func contradicted(s *spot) bool {
	return len(s.fails) > 0 && !slices.ContainsFunc(s.fails, func(v *sight) bool { return v.why != odd && v.why != stale })
}

// because says whether all have one reason.
func because(sights []*sight, why reason) bool {
	return len(sights) > 0 && !slices.ContainsFunc(sights, func(v *sight) bool { return v.why != why })
}

// regionalResolution is a name that resolves in some regions, or for the zone's own servers, and fails in these;
// one finding for each failure.
func (f *facts) regionalResolution(shut, all []*spot) []*pb.Finding {
	var findings []*pb.Finding
	for _, g := range byWay(all, shut) {
		fails, contrast := failsOf(g.spots), oksOf(all)
		if len(contrast) == 0 {
			contrast = f.ownServers(fails)
		}
		code := resolutionCode(mainFailureOf(g.spots), pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE)
		r := newFinding(code, g.spots, contrast)
		r.Block, r.Blame = pb.BlockKind_BLOCK_KIND_DNS, pb.Blame_BLAME_RESOLVER
		switch {
		case because(fails, stale): // it does what it should
			r.Block = pb.BlockKind_BLOCK_KIND_UNSPECIFIED
		case contradicted(g.spots[0]):
		case cutOff(fails): // who asks directly does not get there either
			r.Block, r.Blame = pb.BlockKind_BLOCK_KIND_UNSPECIFIED, pb.Blame_BLAME_PATH
		case because(fails, confirmed), code == pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS, code == pb.FindingCode_FINDING_CODE_CNAME_BROKEN:
			// Resolvers that do not validate, or hold an old answer, do not see it; it is the zone's all the same.
			r.Block, r.Blame = pb.BlockKind_BLOCK_KIND_UNSPECIFIED, pb.Blame_BLAME_ZONE
		}
		r.Confidence = f.regionalConfidence(g.spots)
		r.Summary = f.resolutionSummary(r, g.spots, oksOf(all))
		r.Hint = f.resolverHint(r, g.spots)
		findings = append(findings, r)
	}
	return findings
}

// cutOff says whether the zone's own servers are silent for all who fail, while servers above them answer.
func cutOff(fails []*sight) bool {
	return !slices.ContainsFunc(fails, func(v *sight) bool {
		silent := func(w *said) bool {
			f := w.at().GetFailure()
			return (f == pb.Failure_FAILURE_DNS_TIMEOUT || f == pb.Failure_FAILURE_DNS_UNREACHABLE) && v.agent.heard[w.thing.family()]
		}
		return aboutName(v.failure) || wrongData(v.failure) || len(v.agent.said) == 0 ||
			slices.ContainsFunc(v.agent.said, func(w *said) bool { return !silent(w) })
	})
}

// unresolvable is a name that resolves nowhere. That there is no such name is the zone's word if its own servers
// say so too, or resolvers of several regions do.
func (f *facts) unresolvable(shut []*spot) *pb.Finding {
	u := newFinding(resolutionCode(mainFailureOf(shut), pb.FindingCode_FINDING_CODE_UNRESOLVABLE), shut, nil)
	fails := failsOf(shut)
	u.Blame = pb.Blame_BLAME_ZONE
	switch {
	case f.namesResolver() && !aboutName(u.GetFailure()) && !wrongData(u.GetFailure()):
		u.Blame = pb.Blame_BLAME_RESOLVER // The question is about that server.
	case aboutName(u.GetFailure()) && !because(fails, confirmed) && !f.enoughRegions(u.GetRegions()):
		u.Blame = pb.Blame_BLAME_UNKNOWN
	}
	u.Confidence = f.confidence(fails)
	u.Summary = f.resolutionSummary(u, shut, nil)
	u.Hint = unresolvableHint(u, fails)
	return u
}

// mainFailureOf is the most frequent failure of spots.
func mainFailureOf(spots []*spot) pb.Failure {
	_, failure := mainFailure(failsOf(spots))
	return failure
}
