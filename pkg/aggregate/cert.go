package aggregate

import (
	"cmp"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// certFindings judge the certificates of completed handshakes: bad ones first, then good ones that
// differ, then warnings about good ones.
func (f *facts) certFindings() []*pb.Finding {
	if f.client.misfit() != pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED || !f.client.examines() {
		return nil
	}
	used, _ := f.split(f.certs)
	spots := survey(used)
	findings := f.differ(spots)
	shut := only(spots, (*spot).shut)
	if anyOpen(spots) {
		findings = append(findings, f.regionalCertificates(shut, spots)...)
	} else {
		for _, alike := range byCertFailures(shut) {
			findings = append(findings, f.badCertificate(alike))
		}
	}
	return append(findings, f.goodCertificates(spots)...)
}

// byCertFailures puts the spots together whose certificates fail in the same ways, so that nobody is said
// to serve or to get what only others do.
func byCertFailures(shut []*spot) (groups [][]*spot) {
	index := map[string]int{}
	for _, s := range shut {
		var all []string
		for _, v := range s.fails {
			all = append(all, wordsOf(v.wrong)...)
		}
		key := joined(unique(all))
		i, ok := index[key]
		if !ok {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// badCertificate fails for these regions and addresses, and no other region or address has a good one.
func (f *facts) badCertificate(shut []*spot) *pb.Finding {
	p := newFinding(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, shut, nil)
	p.Blame = pb.Blame_BLAME_TARGET
	p.Confidence = f.confidence(failsOf(shut))
	p.Summary = f.certSummary(p, failsOf(shut), nil)
	p.Hint = f.certHint(p, failsOf(shut))
	f.foretell(p, failsOf(shut))
	return p
}

// regionalCertificates fail for some regions or addresses while others get a good one (rule 22): an
// address that is bad wherever it was tried is the target's; what only some regions get is on the
// way, or steered there.
func (f *facts) regionalCertificates(shut, all []*spot) []*pb.Finding {
	openThing := map[*thing]bool{}
	for _, s := range all {
		openThing[s.thing] = openThing[s.thing] || s.open()
	}
	steered := only(shut, func(s *spot) bool { return openThing[s.thing] })
	fixed := only(shut, func(s *spot) bool { return !openThing[s.thing] })
	var findings []*pb.Finding
	for _, g := range byAddresses(fixed) {
		r := f.regionalCertificate(g, all)
		r.Confidence, r.Blame = f.confidence(failsOf(g.spots)), f.blameTarget(r)
		findings = append(findings, r)
	}
	for _, g := range byWay(slices.Concat(all, f.uncertified()), steered) {
		r := f.regionalCertificate(g, all)
		r.Confidence = f.regionalConfidence(g.spots)
		findings = append(findings, r)
	}
	return findings
}

// uncertified are the spots that are shut below the certificate, as something else than a bad one.
func (f *facts) uncertified() []*spot {
	var all []*spot
	for _, s := range survey(f.reach) {
		if s.shut() {
			all = append(all, &spot{thing: s.thing, region: s.region, oks: s.fails})
		}
	}
	return all
}

// regionalCertificate lists only those that get the failing one.
func (f *facts) regionalCertificate(g group, all []*spot) *pb.Finding {
	fails, contrast := failsOf(g.spots), contrastOf(g.spots, all)
	r := newFinding(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, g.spots, contrast)
	r.Summary = f.certSummary(r, fails, contrast)
	r.Hint = f.certHint(r, fails)
	f.foretell(r, fails)
	return r
}

// goodCertificates are the warnings about certificates that are accepted.
func (f *facts) goodCertificates(spots []*spot) []*pb.Finding {
	var findings []*pb.Finding
	all := servings(spots)
	findings = append(findings, f.interceptions(all)...)
	if d := f.differentCertificates(all); d != nil {
		findings = append(findings, d)
	}
	oks := oksOf(spots)
	for _, w := range []*pb.Finding{f.weakCertificate(oks), f.surplus(oks), f.oldVersion(oks)} {
		if w != nil {
			findings = append(findings, w)
		}
	}
	if e := f.expiring(oks); e != nil {
		findings = append(findings, e)
	}
	return findings
}

// tally counts the certificates of sights.
func tally(sights []*sight) map[*leaf]int {
	count := map[*leaf]int{}
	for _, v := range sights {
		if v.leaf != nil {
			count[v.leaf]++
		}
	}
	return count
}

// mostCommon is the certificate that more sights show than any other one; nil if none is.
func mostCommon(count map[*leaf]int) *leaf {
	var best *leaf
	tie := false
	for l, n := range count {
		switch c := cmp.Compare(n, count[best]); {
		case c > 0:
			best, tie = l, false
		case c == 0:
			tie = true
		}
	}
	if tie {
		return nil
	}
	return best
}

// serving is a spot by the good certificates that it shows.
type serving struct {
	spot  *spot
	count map[*leaf]int
	usual *leaf // the most common one; nil if none is
}

// servings are the spots with good certificates.
func servings(spots []*spot) []serving {
	var all []serving
	for _, s := range spots {
		if count := tally(s.oks); len(count) > 0 {
			all = append(all, serving{s, count, mostCommon(count)})
		}
	}
	return all
}

// interceptions are agents that get another good certificate for an address than their fellows in the
// region do, one finding for each region: something near them may have put it there.
func (f *facts) interceptions(all []serving) []*pb.Finding {
	world := map[*thing]map[*leaf]int{}
	for _, s := range all {
		if world[s.spot.thing] == nil {
			world[s.spot.thing] = map[*leaf]int{}
		}
		for l, n := range s.count {
			world[s.spot.thing][l] += n
		}
	}
	byRegion := map[*region][]*sight{}
	for _, s := range all {
		if len(s.count) < 2 {
			continue
		}
		usual := cmp.Or(s.usual, mostCommon(world[s.spot.thing]))
		for _, v := range s.spot.oks {
			if v.leaf != nil && v.leaf != usual {
				byRegion[s.spot.region] = append(byRegion[s.spot.region], v)
			}
		}
	}
	var findings []*pb.Finding
	for r, odd := range byRegion {
		findings = append(findings, f.interception(r, odd))
	}
	return findings
}

// interception states which agents of a region get certificates of their own.
func (f *facts) interception(r *region, odd []*sight) *pb.Finding {
	slices.SortFunc(odd, func(a, b *sight) int {
		return cmp.Or(cmp.Compare(a.agent.id, b.agent.id), cmp.Compare(a.step, b.step))
	})
	d := plainFinding(pb.FindingCode_FINDING_CODE_AGENTS_DIFFER)
	d.Regions, d.Agents = []string{r.name}, agentsOf(odd)
	d.Addresses = collect(odd, func(v *sight) string { return v.thing.text })
	d.Stage = pb.Stage_STAGE_CERTIFICATE
	d.Confidence = f.confidence(odd)
	d.Evidence = evidence(odd, nil)
	d.Summary = r.name + ": " + join(d.GetAgents()) + " " + verb(d.GetAgents(), "gets", "get") + " another valid certificate for " +
		join(d.GetAddresses()) + " than the other agents of the region: " + odd[0].leaf.describe() + "."
	d.Hint = "look for something that inspects TLS near " + join(d.GetAgents()) + ", or servers behind one address that hold different certificates."
	return d
}

// differentCertificates states that regions or addresses serve different good certificates: those
// that differ from the most common one, or all if none is.
func (f *facts) differentCertificates(all []serving) *pb.Finding {
	served := map[*leaf][]*spot{}
	count := map[*leaf]int{}
	for _, s := range all {
		if s.usual != nil {
			served[s.usual] = append(served[s.usual], s.spot)
			count[s.usual]++
		}
	}
	if len(served) < 2 {
		return nil
	}
	usual := mostCommon(count)
	var odd, rest []*spot
	for _, s := range all {
		if s.usual != nil && s.usual != usual {
			odd = append(odd, s.spot)
		} else {
			rest = append(rest, s.spot)
		}
	}
	d := plainFinding(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE)
	d.Severity = pb.Severity_SEVERITY_WARN
	d.Regions, d.Addresses = regionsOf(odd), addressesOf(odd)
	d.Stage = pb.Stage_STAGE_CERTIFICATE
	d.Confidence = f.regionwise(oksOf(odd))
	d.Evidence = evidence(oksOf(odd), oksOf(rest))
	d.Summary = differentSummary(served)
	d.Hint = "if it is not meant, bring the same certificate to every server behind the name."
	return d
}

// weakCertificate states what is wrong without being refused (rule 19).
func (f *facts) weakCertificate(oks []*sight) *pb.Finding {
	var weak []*sight
	var failures []pb.Failure
	for _, v := range oks {
		if len(v.minor) > 0 {
			failures = append(failures, v.minor...)
			weak = append(weak, v)
		}
	}
	if len(weak) == 0 {
		return nil
	}
	slices.Sort(failures)
	p := f.certWarning(weak)
	p.Failures = slices.Compact(failures)
	p.Failure = p.Failures[0]
	p.Summary = join(p.GetRegions()) + ": the certificate of " + join(p.GetAddresses()) + " is accepted, but " +
		join(wordsOf(p.GetFailures())) + ": " + weak[0].leaf.describe() + f.certValues(p, weak[0]) + "."
	p.Hint = f.certHint(p, weak)
	f.mayMind(p, weak)
	return p
}

// certWarning is a warning about good certificates.
func (f *facts) certWarning(sights []*sight) *pb.Finding {
	p := plainFinding(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM)
	p.Severity = pb.Severity_SEVERITY_WARN
	p.Regions = collect(sights, func(v *sight) string { return v.agent.region.name })
	p.Addresses = collect(sights, func(v *sight) string { return v.thing.text })
	p.Stage, p.Blame = pb.Stage_STAGE_CERTIFICATE, pb.Blame_BLAME_TARGET
	p.Confidence = f.confidence(sights)
	p.Evidence = evidence(sights, nil)
	return p
}

// expiring states that certificates end within the policy's time of the coordinator's (rule 22).
func (f *facts) expiring(oks []*sight) *pb.Finding {
	var ending []*sight
	soon := f.policy.GetExpiryWarning().AsDuration()
	first := soon
	for _, v := range oks {
		if v.left <= soon {
			ending = append(ending, v)
			first = min(first, v.left)
		}
	}
	if len(ending) == 0 {
		return nil
	}
	i := slices.IndexFunc(ending, func(v *sight) bool { return v.left == first })
	p := f.certWarning(ending)
	p.Summary = expirySummary(p, ending[i], first)
	p.Hint = "renew it, and check why renewal by itself has not happened yet."
	return p
}

// describe says which certificate it is.
func (l *leaf) describe() string {
	if l == nil {
		return "a certificate that was not recorded"
	}
	sha := l.GetSha256()
	return quote(l.GetSubject()) + " from " + quote(l.GetIssuer()) + " (SHA-256 " + shown(sha[:min(16, len(sha))]) + ")"
}
