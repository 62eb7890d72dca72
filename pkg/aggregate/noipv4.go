package aggregate

import (
	"cmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// noIPv4 states that the target has IPv6 addresses alone, where the client of the profile comes over IPv4 alone.
// The name resolves, and no agent need fail to get there. Nil if there is no such client, or an IPv4 address: an
// agent that one of its resolvers gives one has it.
func (f *facts) noIPv4() *pb.Finding {
	if f.client == nil || !f.client.GetIpv4Only() {
		return nil
	}
	six, four := map[*agent]*sight{}, map[*agent]bool{}
	for _, a := range f.answers {
		if a.state != good || len(a.values) == 0 {
			continue
		}
		switch f.questionOf(a.sight).kind {
		case "A":
			four[a.agent] = true
		case "AAAA":
			six[a.agent] = cmp.Or(six[a.agent], a.sight)
		}
	}
	var without, beside []*sight
	for _, a := range f.answers {
		if own := six[a.agent]; own != nil && !four[a.agent] && f.questionOf(a.sight).kind == "A" && f.hasNone(&a) {
			without, beside = append(without, a.sight), append(beside, own)
		}
	}
	if len(without) == 0 {
		return nil
	}
	n := plainFinding(pb.FindingCode_FINDING_CODE_NO_IPV4)
	n.Stage, n.Blame = pb.Stage_STAGE_DNS, pb.Blame_BLAME_ZONE
	n.Failure, n.Failures = pb.Failure_FAILURE_DNS_NODATA, []pb.Failure{pb.Failure_FAILURE_DNS_NODATA}
	n.Regions = regionNames(without)
	n.Confidence = f.confidence(without)
	n.Evidence = evidence(without, beside)
	n.Summary = f.targetName() + " has AAAA records and no A record, seen from " + join(n.GetRegions()) + inBrackets(sole(without)) +
		"; " + f.client.label() + " comes over IPv4 alone."
	n.Hint = "add an A record to the zone, or let " + f.client.label() + " come over IPv6 if it can be configured so."
	return n
}

// hasNone says whether a query for an IPv4 address shows that there is none: the resolver says so, and the zone's
// own servers do not say otherwise.
func (f *facts) hasNone(a *answer) bool {
	return a.at().GetFailure() == pb.Failure_FAILURE_DNS_NODATA && a.why != stale && a.why != odd && (a.state == bad || f.zoneDenies(a.sight))
}
