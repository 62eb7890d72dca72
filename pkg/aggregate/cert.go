package aggregate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// certFindings judge the certificates of completed handshakes: bad ones first, then good ones that
// differ, then warnings about good ones.
func (f *facts) certFindings() []*pb.Finding {
	spots := survey(f.certs)
	findings := f.differ(spots)
	shut := only(spots, (*spot).shut)
	if anyOpen(spots) {
		findings = append(findings, f.regionalCertificates(shut, spots)...)
	} else if len(shut) > 0 {
		findings = append(findings, f.badCertificate(shut))
	}
	return append(findings, f.goodCertificates(spots)...)
}

// badCertificate fails from everywhere, at every address.
func (f *facts) badCertificate(shut []*spot) *pb.Finding {
	p := newFinding(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, shut, nil)
	p.Blame = pb.Blame_BLAME_TARGET
	p.Confidence = confidence(failsOf(shut))
	p.Summary = certSummary(p, failsOf(shut), nil)
	p.Hint = certHint(p, failsOf(shut)[0])
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
		r.Confidence, r.Blame = confidence(failsOf(g.spots)), blameTarget(r)
		findings = append(findings, r)
	}
	for _, g := range byWay(all, steered) {
		r := f.regionalCertificate(g, all)
		r.Confidence = regionalConfidence(g.spots)
		findings = append(findings, r)
	}
	return findings
}

// regionalCertificate lists only those that get the failing one.
func (f *facts) regionalCertificate(g group, all []*spot) *pb.Finding {
	fails, contrast := failsOf(g.spots), contrastOf(g.spots, all)
	r := newFinding(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, g.spots, contrast)
	r.Summary = certSummary(r, fails, contrast)
	r.Hint = certHint(r, fails[0])
	return r
}

// leafOf names the certificate that a sight shows; "" if it is not known.
func leafOf(v *sight) string {
	if c := leaf(v); c != nil {
		return c.GetSha256()
	}
	return ""
}

// leaf is the server's own certificate, the first one served.
func leaf(v *sight) *pb.Certificate {
	if chain := v.at().GetEvidence().GetTls().GetChain(); len(chain) > 0 {
		return chain[0]
	}
	return nil
}

// goodCertificates are the warnings about certificates that are accepted.
func (f *facts) goodCertificates(spots []*spot) []*pb.Finding {
	var findings []*pb.Finding
	findings = append(findings, f.interceptions(spots)...)
	if d := f.differentCertificates(spots); d != nil {
		findings = append(findings, d)
	}
	oks := oksOf(spots)
	if w := f.weakCertificate(oks); w != nil {
		findings = append(findings, w)
	}
	if e := f.expiring(oks); e != nil {
		findings = append(findings, e)
	}
	return findings
}

// tally counts the certificates of sights by fingerprint.
func tally(sights []*sight) map[string]int {
	count := map[string]int{}
	for _, v := range sights {
		if l := leafOf(v); l != "" {
			count[l]++
		}
	}
	return count
}

// mostCommon is the certificate that more sights show than any other one; "" if none is.
func mostCommon(count map[string]int) string {
	best, tie := "", false
	for l, n := range count {
		switch c := cmp.Compare(n, count[best]); {
		case c > 0:
			best, tie = l, false
		case c == 0:
			tie = true
		}
	}
	if tie {
		return ""
	}
	return best
}

// interceptions are agents that get another good certificate for an address than their fellows in the
// region do, one finding for each region: something near them may have put it there.
func (f *facts) interceptions(spots []*spot) []*pb.Finding {
	world := map[*thing]map[string]int{}
	for _, s := range spots {
		if world[s.thing] == nil {
			world[s.thing] = map[string]int{}
		}
		for l, n := range tally(s.oks) {
			world[s.thing][l] += n
		}
	}
	byRegion := map[*region][]*sight{}
	for _, s := range spots {
		if count := tally(s.oks); len(count) > 1 {
			usual := cmp.Or(mostCommon(count), mostCommon(world[s.thing]))
			for _, v := range s.oks {
				if l := leafOf(v); l != "" && l != usual {
					byRegion[s.region] = append(byRegion[s.region], v)
				}
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
	slices.SortFunc(odd, bySource)
	d := plainFinding(pb.FindingCode_FINDING_CODE_AGENTS_DIFFER)
	d.Regions, d.Agents = []string{r.name}, agentsOf(odd)
	d.Addresses = collect(odd, func(v *sight) string { return v.thing.text })
	d.Stage = pb.Stage_STAGE_CERTIFICATE
	d.Confidence = confidence(odd)
	d.Evidence = evidence(odd, nil)
	d.Summary = r.name + ": " + join(d.GetAgents()) + " " + verb(d.GetAgents(), "gets", "get") + " another valid certificate for " +
		join(d.GetAddresses()) + " than the other agents of the region: " + describeLeaf(odd[0]) + "."
	d.Hint = "look for something that inspects TLS near " + join(d.GetAgents()) + ", or servers behind one address that hold different certificates."
	return d
}

// differentCertificates states that regions or addresses serve different good certificates: those
// that differ from the most common one, or all if none is.
func (f *facts) differentCertificates(spots []*spot) *pb.Finding {
	served := map[string][]*spot{}
	for _, s := range spots {
		if l := mostCommon(tally(s.oks)); l != "" {
			served[l] = append(served[l], s)
		}
	}
	if len(served) < 2 {
		return nil
	}
	count := map[string]int{}
	for l, spots := range served {
		count[l] = len(spots)
	}
	usual := mostCommon(count)
	var odd, rest []*spot
	for _, s := range spots {
		if l := mostCommon(tally(s.oks)); l != "" && l != usual {
			odd = append(odd, s)
		} else {
			rest = append(rest, s)
		}
	}
	d := plainFinding(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE)
	d.Severity = pb.Severity_SEVERITY_WARN
	d.Regions, d.Addresses = regionsOf(odd), addressesOf(odd)
	d.Stage = pb.Stage_STAGE_CERTIFICATE
	d.Confidence = regionwise(oksOf(odd))
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
		for _, failure := range v.at().GetFailures() {
			if minorCert(failure) {
				failures = append(failures, failure)
				weak = append(weak, v)
			}
		}
	}
	if len(weak) == 0 {
		return nil
	}
	slices.Sort(failures)
	p := certWarning(weak)
	p.Failures = slices.Compact(failures)
	p.Failure = p.Failures[0]
	p.Summary = join(p.GetRegions()) + ": the certificate of " + join(p.GetAddresses()) + " is accepted, but " +
		join(wordsOf(p.GetFailures())) + ": " + describeLeaf(weak[0]) + "."
	p.Hint = certHint(p, weak[0])
	return p
}

// certWarning is a warning about good certificates.
func certWarning(sights []*sight) *pb.Finding {
	p := plainFinding(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM)
	p.Severity = pb.Severity_SEVERITY_WARN
	p.Regions = collect(sights, func(v *sight) string { return v.agent.region.name })
	p.Addresses = collect(sights, func(v *sight) string { return v.thing.text })
	p.Stage, p.Blame = pb.Stage_STAGE_CERTIFICATE, pb.Blame_BLAME_TARGET
	p.Confidence = confidence(sights)
	p.Evidence = evidence(sights, nil)
	return p
}

// soon is how long before its end a certificate is worth a warning.
const soon = 14 * 24 * time.Hour

// expiring states that certificates end within soon of the coordinator's time (rule 22).
func (f *facts) expiring(oks []*sight) *pb.Finding {
	var ending []*sight
	first := soon
	for _, v := range oks {
		if left, ok := timeLeft(v); ok && left <= soon {
			ending = append(ending, v)
			first = min(first, left)
		}
	}
	if len(ending) == 0 {
		return nil
	}
	i := slices.IndexFunc(ending, func(v *sight) bool { left, _ := timeLeft(v); return left == first })
	p := certWarning(ending)
	p.Summary = expirySummary(p, ending[i], first)
	p.Hint = "renew it, and check why renewal by itself has not happened yet."
	return p
}

// timeLeft is how long the leaf is still valid at the time it was judged; not known without both times.
func timeLeft(v *sight) (time.Duration, bool) {
	end, now := leaf(v).GetNotAfter(), v.at().GetEvidence().GetTls().GetJudgedTime()
	if !end.IsValid() || !now.IsValid() {
		return 0, false
	}
	left := end.AsTime().Sub(now.AsTime())
	return left, left >= 0
}

// describeLeaf says which certificate it is.
func describeLeaf(v *sight) string {
	c := leaf(v)
	if c == nil {
		return "a certificate that was not recorded"
	}
	text := quote(c.GetSubject()) + " from " + quote(c.GetIssuer())
	if c.GetSha256() != "" {
		text += " (SHA-256 " + shown(c.GetSha256()[:min(16, len(c.GetSha256()))]) + ")"
	}
	return strings.TrimSpace(text)
}
