package aggregate

import (
	"cmp"
	"maps"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// reachability is what the spec expects of the way to every address.
func (f *facts) reachability() pb.Reachability {
	s := f.m.GetSpec()
	return max(s.GetTcp().GetExpect(), s.GetTls().GetExpect(), s.GetHttp().GetExpect()) // one of them is there
}

// atDoor restates what an agent saw in terms of the door, where reachability is expected: good is in,
// bad is shut out. A response lets in, whatever it says, unless it denies (403, 451). Where the door
// should be shut, a server that speaks TLS has let the agent in as well, and what neither let it in nor
// shut it out in an explicit way is unknown (rule 8).
func (f *facts) atDoor(v *sight) {
	expect := f.reachability()
	if expect == pb.Reachability_REACHABILITY_UNSPECIFIED {
		return
	}
	s := v.at()
	responded := s.GetEvidence().GetHttp().GetStatus() > 0 && !denied(s)
	shouldBeShut := expect != pb.Reachability_REACHABILITY_OPEN
	switch {
	case responded, v.state == bad && shouldBeShut && s.GetKind() == pb.StepKind_STEP_KIND_TLS_HANDSHAKE && spokeTLS(v.failure):
		v.state, v.failure, v.block, v.control = good, pb.Failure_FAILURE_NONE, pb.BlockKind_BLOCK_KIND_UNSPECIFIED, -1
	case v.state == bad && shouldBeShut && !v.shutOut():
		v.state = unknown
	}
}

// shutOut says whether a failing sight shows in an explicit way that the agent was shut out. Lost
// full-sized packets are a broken path: others come in by it.
func (v *sight) shutOut() bool {
	switch v.block {
	case pb.BlockKind_BLOCK_KIND_DROP, pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.BlockKind_BLOCK_KIND_REJECT_ICMP,
		pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT, pb.BlockKind_BLOCK_KIND_SNI_RESET, pb.BlockKind_BLOCK_KIND_SNI_DROP,
		pb.BlockKind_BLOCK_KIND_HTTP_DENY:
		return true
	case pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP, pb.BlockKind_BLOCK_KIND_DNS:
		return false
	case pb.BlockKind_BLOCK_KIND_UNSPECIFIED:
	}
	switch v.failure { //nolint:exhaustive // the rest says nothing of a door
	case pb.Failure_FAILURE_TLS_TIMEOUT:
		return v.at().GetEvidence().GetBytesRead() == 0
	case pb.Failure_FAILURE_HTTP_TIMEOUT, pb.Failure_FAILURE_HTTP_RESET, pb.Failure_FAILURE_HTTP_CLOSED:
		return true // atDoor has those with a response
	}
	return false
}

// shutAs says whether the agent was shut out in the way that is expected. RST is an answer at every stage,
// and so is silence no answer; a FIN is neither.
func (v *sight) shutAs(expect pb.Reachability) bool {
	switch expect {
	case pb.Reachability_REACHABILITY_REFUSED:
		return v.block == pb.BlockKind_BLOCK_KIND_REJECT_ICMP || v.block == pb.BlockKind_BLOCK_KIND_REJECT_RST ||
			v.failure == pb.Failure_FAILURE_TCP_RESET || v.failure == pb.Failure_FAILURE_TLS_RESET || v.failure == pb.Failure_FAILURE_HTTP_RESET
	case pb.Reachability_REACHABILITY_DROPPED:
		return silent(v.failure) || v.failure == pb.Failure_FAILURE_HTTP_TIMEOUT
	case pb.Reachability_REACHABILITY_UNSPECIFIED, pb.Reachability_REACHABILITY_OPEN, pb.Reachability_REACHABILITY_BLOCKED:
	}
	return true
}

// doorUnseen says whether an expectation cannot be called met because an address was left unseen from a
// region that could have seen it: one that none of its agents could judge is neither shut (rule 8) nor
// open (rule 6). Agents without the address's family cannot come to it anyway.
func (f *facts) doorUnseen() bool {
	if f.reachability() == pb.Reachability_REACHABILITY_UNSPECIFIED {
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

// unexpected names exactly the regions that break what was expected of the door (rule 11). A region
// whose agents contradict each other is agents_differ where it should be open, or shut in one way
// (rule 7); where it should be shut, one that gets in is enough to show that it is not.
func (f *facts) unexpected(spots []*spot) []*pb.Finding {
	expect := f.reachability()
	shut := only(spots, (*spot).shut)
	var findings []*pb.Finding
	if expect == pb.Reachability_REACHABILITY_OPEN {
		for _, g := range byWay(spots, shut) {
			findings = append(findings, f.notOpen(g, spots))
		}
		return findings
	}
	for _, g := range byTheirAddresses(only(spots, (*spot).open)) {
		findings = append(findings, f.notShut(g, spots))
	}
	otherwise := only(shut, func(s *spot) bool {
		return !slices.ContainsFunc(s.fails, func(v *sight) bool { return v.shutAs(expect) })
	})
	for _, g := range byWay(besides(spots, otherwise), otherwise) {
		findings = append(findings, f.shutOtherwise(g, spots))
	}
	for _, s := range shut {
		odd := slices.DeleteFunc(slices.Clone(s.fails), func(v *sight) bool { return v.shutAs(expect) })
		if 0 < len(odd) && len(odd) < len(s.fails) {
			findings = append(findings, f.shutUnevenly(s, odd))
		}
	}
	return findings
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
		e.Blame = blameFor(e.GetBlock())
	case f.enoughRegions(regionsOf(same)):
		e.Blame = pb.Blame_BLAME_TARGET // shut from wherever it was tried
	}
	e.Summary = "expected open: " + f.contrastSummary(e, g.spots, contrast)
	if e.Hint = f.handshakeHint(e.GetFailure(), join(e.GetAddresses())); e.GetHint() == "" || len(e.GetFailures()) > 1 {
		e.Hint = f.blockHint(e, g.spots)
	}
	return e
}

// notShut is open where it should be shut.
func (f *facts) notShut(spots, all []*spot) *pb.Finding {
	oks := oksOf(spots)
	e := plainFinding(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED)
	e.Regions, e.Addresses = regionsOf(spots), addressesOf(spots)
	e.Stage, e.Blame = pb.Stage_STAGE_TCP, pb.Blame_BLAME_TARGET
	in := connects(oks) + " to "
	switch words := lastWords(oks); {
	case words != "":
		e.Stage, in = pb.Stage_STAGE_TLS, " "+verb(e.GetRegions(), "is", "are")+" answered by TLS ("+words+") from "
	case f.m.GetSpec().GetHttp() != nil:
		e.Stage, in = pb.Stage_STAGE_HTTP, " "+verb(e.GetRegions(), "gets", "get")+" "+cmp.Or(responses(oks), "a response")+" from "
	case f.m.GetSpec().GetTls() != nil:
		e.Stage, in = pb.Stage_STAGE_TLS, " "+verb(e.GetRegions(), "completes", "complete")+" the handshake with "
	}
	e.Evidence = evidence(oks, failsOf(all))
	e.Confidence = f.regionwise(oks)
	e.Summary = f.expected() + join(e.GetRegions()) + inBrackets(sole(oks)) + in + join(e.GetAddresses()) + "."
	e.Hint = "shut " + join(e.GetAddresses()) + " for the addresses of " + f.places(spots) + "."
	return e
}

// lastWords are the failures of handshakes that the server itself ended.
func lastWords(oks []*sight) string {
	return join(collect(oks, func(v *sight) string {
		if s := v.at(); s.GetKind() == pb.StepKind_STEP_KIND_TLS_HANDSHAKE && !completed(s) {
			return ShortFailure(s.GetFailure())
		}
		return ""
	}))
}

// expected begins a summary: "expected refused: ".
func (f *facts) expected() string { return "expected " + ShortReachability(f.reachability()) + ": " }

// shutOtherwise is shut, but in another way than it should be.
func (f *facts) shutOtherwise(g group, all []*spot) *pb.Finding {
	contrast := oksOf(all)
	e := newFinding(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, g.spots, contrast)
	e.Block, e.Blame = g.way.block, blameFor(g.way.block)
	e.Confidence = f.regionalConfidence(g.spots)
	e.Summary = f.expected() + f.contrastSummary(e, g.spots, contrast)
	manner := "answer the addresses of " + f.places(g.spots) + " with a RST or an ICMP error (REJECT)"
	if f.reachability() == pb.Reachability_REACHABILITY_DROPPED {
		manner = "drop packets of " + f.places(g.spots) + " without an answer"
	}
	e.Hint = "it is shut, in another way: make the firewall in front of " + join(e.GetAddresses()) + " " + manner + ", or expect it blocked in any way."
	return e
}

// shutUnevenly lists the agents that are shut out in another way than expected, beside fellows in the
// region that are shut out as expected (rule 7).
func (f *facts) shutUnevenly(s *spot, odd []*sight) *pb.Finding {
	d := aboutSights(pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, odd, nil)
	d.Block = pb.BlockKind_BLOCK_KIND_UNSPECIFIED // nobody says this of the region
	d.Regions, d.Addresses, d.Agents = []string{s.region.name}, []string{s.thing.text}, agentsOf(odd)
	d.Confidence = f.confidence(odd)
	d.Summary = s.region.name + ": " + join(d.GetAgents()) + " " + verb(d.GetAgents(), "gets", "get") + " " + seen(d.GetFailure()) + " " + s.thing.text +
		", while others of the same region find it " + ShortReachability(f.reachability()) + "."
	d.Hint = "compare the network and provider of " + join(d.GetAgents()) + " with those of the other agents of " + s.region.name + "."
	return d
}
