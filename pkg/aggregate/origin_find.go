package aggregate

import (
	"cmp"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// split keeps apart the sights of addresses that the client never comes to.
func (f *facts) split(sights []*sight) (used, unused []*sight) {
	if !f.ipv4Alone() {
		return sights, nil
	}
	for _, v := range sights {
		if v.thing.unused {
			unused = append(unused, v)
		} else {
			used = append(used, v)
		}
	}
	return used, unused
}

// brokenUnused warns of what fails at addresses that the client never comes to, and others do.
func (f *facts) brokenUnused(unused []*sight, used []*spot) []*pb.Finding {
	shut := only(survey(unused), (*spot).shut)
	if len(shut) == 0 || !anyOpen(used) {
		return nil
	}
	return []*pb.Finding{f.familyBroken(shut, used)}
}

// misfit states that the client does not come to the target at all. That follows from the question, and is
// true of every region; those that judged it are named, since only they were there to be told.
func (f *facts) misfit() []*pb.Finding {
	var judged []*sight
	for _, v := range f.reach {
		if v.agent.judged {
			judged = append(judged, v)
		}
	}
	if len(judged) == 0 {
		return nil
	}
	cause := f.client.misfit()
	m := plainFinding(pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE)
	m.Regions = regionNames(judged)
	m.Addresses = collect(judged, func(v *sight) string { return v.thing.text })
	m.Stage, m.Blame, m.Confidence = pb.Stage_STAGE_TCP, pb.Blame_BLAME_TARGET, pb.Confidence_CONFIDENCE_HIGH
	if cause == pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN {
		m.Stage = pb.Stage_STAGE_DNS
	}
	m.Evidence = evidence(judged, nil)
	m.Summary = f.client.misfitSummary(cause)
	f.client.state(m, cause, "")
	return []*pb.Finding{m}
}

// allRefused judges what the client cannot use anywhere: one finding for each cause. What the target's own
// bytes show, one region is enough to know; otherwise it takes enough of them, as it does for target_down.
func (f *facts) allRefused(spots []*spot) []*pb.Finding {
	enough := f.enoughRegions(regionsOf(spots))
	var findings []*pb.Finding
	var lone []*spot
	groups := byCause(spots)
	for cause, group := range groups {
		switch {
		case len(groups) == 1 && (enough || told(cause)):
			findings = append(findings, f.refusal(cause, sorted(group)))
		case enough || told(cause):
			findings = append(findings, f.refused(cause, group)...)
		default:
			lone = append(lone, group...)
		}
	}
	if len(lone) > 0 {
		findings = append(findings, f.loneFailure(sorted(lone)))
	}
	return findings
}

// byCause groups failing spots by why the client cannot use them. An address that some regions are refused
// by and others get no answer from has something in front of it that tells them apart: one cause.
func byCause(spots []*spot) map[pb.OriginCause][]*spot {
	firewalled := map[*thing]bool{}
	for _, s := range spots {
		firewalled[s.thing] = firewalled[s.thing] || mainCause(s.fails) == pb.OriginCause_ORIGIN_CAUSE_FIREWALL
	}
	groups := map[pb.OriginCause][]*spot{}
	for _, s := range spots {
		cause := mainCause(s.fails)
		if cause == pb.OriginCause_ORIGIN_CAUSE_PORT_CLOSED && firewalled[s.thing] {
			cause = pb.OriginCause_ORIGIN_CAUSE_FIREWALL
		}
		groups[cause] = append(groups[cause], s)
	}
	return groups
}

// refused states one cause of several, once for each set of regions that have it at just the same addresses.
func (f *facts) refused(cause pb.OriginCause, spots []*spot) []*pb.Finding {
	var findings []*pb.Finding
	for _, same := range byTheirAddresses(spots) {
		findings = append(findings, f.refusal(cause, same))
	}
	return findings
}

// refusal states one cause about spots. For a check of the handshake alone, what is below it is the target's
// trouble with everybody.
func (f *facts) refusal(cause pb.OriginCause, spots []*spot) *pb.Finding {
	fails := failsOf(spots)
	r := f.targetDown(spots)
	if code := codeOf(cause); f.client.origin || code != pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE {
		r.Code = code
	}
	if silentEverywhere(r) {
		r.Confidence = pb.Confidence_CONFIDENCE_LOW // Silence everywhere is what an origin locked to its CDN looks like.
	}
	r.Summary = f.refusalSummary(r, spots)
	r.Hint = f.refusalHint(r, cause, spots)
	f.client.state(r, cause, doubtOf(fails))
	return r
}

// doubtOf is the unverified field of the profile that the first of the failing sights rests on.
func doubtOf(fails []*sight) string {
	for _, v := range fails {
		if v.doubt != "" {
			return v.doubt
		}
	}
	return ""
}

// foretell adds to a finding what the client makes of it, for the cause that most of the failing sights
// have, and what else is wrong.
func (f *facts) foretell(finding *pb.Finding, fails []*sight) {
	if f.client == nil {
		return
	}
	cause := mainCause(fails)
	var more []pb.OriginCause
	for _, v := range fails {
		more = append(more, v.causes()...)
	}
	f.client.state(finding, cause, doubtOf(fails), more...)
}

// foretellResponse does so for a response of the origin's own, which viewers get with its status.
func (f *facts) foretellResponse(e *pb.Finding, fails []*sight) {
	if f.client == nil {
		return
	}
	cause := pb.OriginCause_ORIGIN_CAUSE_UPSTREAM
	if e.GetCode() == pb.FindingCode_FINDING_CODE_EDGE_ERROR {
		cause = pb.OriginCause_ORIGIN_CAUSE_EDGE
	}
	p := f.client.predict(cause, "")
	p.Status = cmp.Or(p.GetStatus(), statuses(fails))
	f.client.tell(e, p)
}

// statuses are those of responses as a prediction has them: "502 or 503".
func statuses(sights []*sight) string {
	return strings.Join(collect(sights, func(v *sight) string {
		return strconv.FormatUint(uint64(v.at().GetEvidence().GetHttp().GetStatus()), 10)
	}), " or ")
}

// foretellBlock does so for what is shut to some regions alone: whatever way that shows in, it is something
// that tells regions apart.
func (f *facts) foretellBlock(b *pb.Finding, fails []*sight) {
	switch {
	case f.client == nil:
	case b.GetBlock() == pb.BlockKind_BLOCK_KIND_HTTP_DENY: // No client's document is about that.
		b.Prediction = &pb.Prediction{
			Profile: f.client.GetName(), Cause: pb.OriginCause_ORIGIN_CAUSE_UPSTREAM, Status: statuses(fails), Text: "the origin answers " + cmp.Or(responses(fails), "without a status") + " there",
		}
		b.Summary = strings.TrimSuffix(b.GetSummary(), ".") + " → " + f.client.answers(b.GetPrediction()) + "."
	case b.GetBlock() != pb.BlockKind_BLOCK_KIND_UNSPECIFIED:
		f.client.state(b, pb.OriginCause_ORIGIN_CAUSE_FIREWALL, "")
	default:
		f.foretell(b, fails)
	}
}

// foretellNames adds what the client makes of trouble with the origin's name, as far as it is an ERROR.
func (f *facts) foretellNames(findings []*pb.Finding) {
	if f.client == nil {
		return
	}
	for _, finding := range findings {
		if !isError(finding) || finding.GetPrediction() != nil {
			continue
		}
		switch finding.GetCode() { //nolint:exhaustive // the others have their prediction, or are no matter of names
		case pb.FindingCode_FINDING_CODE_NO_IPV4:
			f.client.state(finding, pb.OriginCause_ORIGIN_CAUSE_NO_IPV4, "")
		case pb.FindingCode_FINDING_CODE_UNRESOLVABLE, pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE,
			pb.FindingCode_FINDING_CODE_CNAME_BROKEN:
			f.client.state(finding, pb.OriginCause_ORIGIN_CAUSE_DNS, "")
		case pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED, pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT,
			pb.FindingCode_FINDING_CODE_LAME_DELEGATION, pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS,
			pb.FindingCode_FINDING_CODE_BOGON_ANSWER:
			// It depends on whom its resolver asks, and how; and of names with private addresses documents say nothing.
			f.client.state(finding, pb.OriginCause_ORIGIN_CAUSE_DNS, "dns")
		}
	}
}
