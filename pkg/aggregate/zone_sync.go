package aggregate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// A zone whose servers disagree looks much like one whose servers choose an answer for each query: by
// weight, in turn, by who asks. To call such a zone out of sync would be a false accusation, so each server
// has to say the same whenever it is asked, and that has to be more than luck.
const (
	shortTTL     = 300 // seconds, up to which servers that choose let their answers live
	fewSamples   = 3   // of each server, where serials tell the data apart and servers may choose
	someSamples  = 4   // of each server, where serials do not
	manySamples  = 12  // of all servers then: by luck it looks so once in two thousand times
	plainSamples = 2   // of each server, where serials do not and it is a type that nobody chooses among
)

// poll is what all of a zone's servers say about one name and type.
type poll struct {
	name, kind string
	ballots    map[string]*ballot // by server's address
}

// ballot is what one of them says.
type ballot struct {
	all  []*said
	data []*dataset // each once
}

// polls gather what the zones' own servers say of what was asked for, sorted.
func (f *facts) polls() []*poll {
	byKey := map[question]*poll{}
	for _, a := range f.agents {
		for _, w := range a.said {
			if w.data == nil || !f.wantsOf(w) {
				continue
			}
			key := question{w.name, w.kind}
			p := byKey[key]
			if p == nil {
				p = &poll{name: w.name, kind: w.kind, ballots: map[string]*ballot{}}
				byKey[key] = p
			}
			p.add(w)
		}
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *poll) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.kind, b.kind))
	})
}

// add counts what a server said.
func (p *poll) add(w *said) {
	b := p.ballots[w.thing.text]
	if b == nil {
		b = &ballot{}
		p.ballots[w.thing.text] = b
	}
	b.all = append(b.all, w)
	if !slices.Contains(b.data, w.data) {
		b.data = append(b.data, w.data)
	}
}

// wantsOf says whether a zone's server was asked for what the check is about, rather than about the zone. The
// data of some types is made anew for each server.
func (f *facts) wantsOf(w *said) bool {
	switch w.kind {
	case "SOA", "RRSIG", "NSEC", "NSEC3", "ANY":
		return false
	}
	spec := f.m.GetSpec().GetDns()
	asked := cmp.Or(spec.GetType(), "A")
	switch {
	case spec == nil, w.kind == asked && w.kind != "NS":
		return true
	case w.kind == "NS": // each zone on the way is asked for its own
		return asked == "NS" && strings.EqualFold(strings.TrimSuffix(spec.GetName(), "."), w.name)
	}
	return strings.HasPrefix(asked, "TYPE") && w.kind != "DS" // by number in the question, by name in the answer
}

// sides are the different data with the servers that serve it; nil if a server does not always say the same,
// or says that its answer depends on who asks (RFC 7871): then it chooses.
func (p *poll) sides() map[*dataset][]*ballot {
	sides := map[*dataset][]*ballot{}
	for _, b := range p.ballots {
		if len(b.data) > 1 || slices.ContainsFunc(b.all, steered) {
			return nil
		}
		sides[b.data[0]] = append(sides[b.data[0]], b)
	}
	return sides
}

// steered says whether a server's answer is for a part of the network alone.
func steered(w *said) bool {
	return slices.ContainsFunc(w.at().GetEvidence().GetReplies(), func(r *pb.DNSReply) bool {
		return !r.GetMismatched() && r.GetClientSubnet().GetScope() > 0
	})
}

// tornPolls are those of a zone's own servers that surely disagree.
func (f *facts) tornPolls() []*poll {
	var torn []*poll
	for _, p := range f.polls() {
		if sides := p.sides(); len(sides) > 1 && p.sure(sides) && len(p.bothSeen(sides)) > 0 {
			torn = append(torn, p)
		}
	}
	return torn
}

// unsynced states that a zone's own servers disagree.
func (f *facts) unsynced() []*pb.Finding {
	findings := make([]*pb.Finding, 0, len(f.torn))
	for _, p := range f.torn {
		sides := p.sides()
		findings = append(findings, f.unsyncedZone(p, sides, p.bothSeen(sides)))
	}
	return findings
}

// bothSeen are the answers of the agents that asked servers of different sides: from one place.
func (p *poll) bothSeen(sides map[*dataset][]*ballot) []*said {
	first, torn := map[*agent]*dataset{}, map[*agent]bool{}
	for data, ballots := range sides {
		for _, b := range ballots {
			for _, w := range b.all {
				if old := first[w.agent]; old != nil && old != data {
					torn[w.agent] = true
				}
				first[w.agent] = data
			}
		}
	}
	var seen []*said
	for _, ballots := range sides {
		for _, b := range ballots {
			for _, w := range b.all {
				if torn[w.agent] {
					seen = append(seen, w)
				}
			}
		}
	}
	slices.SortFunc(seen, func(a, b *said) int {
		return cmp.Or(cmp.Compare(a.agent.id, b.agent.id), cmp.Compare(a.step, b.step))
	})
	return seen
}

// sure says whether the sides are more than servers that choose: one of them says that there is no such name;
// or their serials differ as their data does, and servers that choose are unlikely; or each of them has said
// the same so often.
func (p *poll) sure(sides map[*dataset][]*ballot) bool {
	least, total := 0, 0
	for _, b := range p.ballots {
		if least == 0 || len(b.all) < least {
			least = len(b.all)
		}
		total += len(b.all)
	}
	chosen := p.kind == "A" || p.kind == "AAAA" || p.kind == "CNAME"
	has := func(is func(*dataset) bool) bool { return slices.ContainsFunc(slices.Collect(maps.Keys(sides)), is) }
	switch {
	case !has(func(d *dataset) bool { return d.denied == pb.Failure_FAILURE_NONE }):
		return false // in one way or the other there is nothing
	case has(func(d *dataset) bool { return d.denied == pb.Failure_FAILURE_DNS_NXDOMAIN }):
		return true
	case bySerial(sides):
		return !chosen || p.ttl() > shortTTL || least >= fewSamples
	case !chosen:
		return least >= plainSamples
	}
	return least >= someSamples && total >= manySamples
}

// bySerial says whether every side has one serial and no other side has it.
func bySerial(sides map[*dataset][]*ballot) bool {
	owner := map[uint32]*dataset{}
	for data, ballots := range sides {
		serials := serialsOf(ballots)
		if len(serials) != 1 || owner[serials[0]] != nil {
			return false
		}
		owner[serials[0]] = data
	}
	return true
}

// serialsOf are the serials that servers show, each once, sorted as numbers.
func serialsOf(ballots []*ballot) []uint32 {
	var serials []uint32
	for _, b := range ballots {
		for _, w := range b.all {
			if w.about().SoaSerial != nil {
				serials = append(serials, w.about().GetSoaSerial())
			}
		}
	}
	slices.Sort(serials)
	return slices.Compact(serials)
}

// ttl is the shortest that was seen, in seconds.
func (p *poll) ttl() uint32 {
	shortest := ^uint32(0)
	for _, b := range p.ballots {
		for _, w := range b.all {
			for _, r := range w.at().GetEvidence().GetReplies() {
				for _, rr := range r.GetAnswers() {
					shortest = min(shortest, rr.GetTtl())
				}
			}
		}
	}
	return shortest
}

// older says whether serial a comes before b (RFC 1982, 3.2).
func older(a, b uint32) bool { return int32(a-b) < 0 }

// unsyncedZone says which servers of a zone serve what.
func (f *facts) unsyncedZone(p *poll, sides map[*dataset][]*ballot, seen []*said) *pb.Finding {
	u := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED)
	u.Stage, u.Blame = pb.Stage_STAGE_DNS, pb.Blame_BLAME_ZONE
	u.Regions = saidIn(seen)
	u.Addresses = collect(seen, (*said).address)
	u.Confidence = f.confidence(sightsOf(seen))
	u.Evidence = evidence(sightsOf(seen), nil)
	zone := shown(seen[0].about().GetZone())
	var parts []string
	order := slices.SortedFunc(maps.Keys(sides), compareData)
	for _, data := range order[:min(len(order), maxNames)] {
		servers := serversOf(answersOf(sides[data]))
		parts = append(parts, join(servers)+serialText(sides[data])+" "+verb(servers, "says", "say")+" "+data.text())
	}
	u.Summary = "the servers of " + zone + " disagree about " + shown(p.name) + " " + shown(p.kind) + ", asked from " + join(u.GetRegions()) +
		inBrackets(sole(sightsOf(seen))) + ": " + strings.Join(parts, "; ") + "."
	u.Hint = "bring one version of " + zone + " to all its servers: " + syncHint(sides) +
		"; waiting does not help resolvers that ask the wrong one. If it was changed within the last minutes, ask again."
	return u
}

// answersOf are all answers on ballots.
func answersOf(ballots []*ballot) []*said {
	var all []*said
	for _, b := range ballots {
		all = append(all, b.all...)
	}
	return all
}

// serialText is the serial that servers show, in brackets; nothing if they show several.
func serialText(ballots []*ballot) string {
	if serials := serialsOf(ballots); len(serials) == 1 {
		return fmt.Sprintf(" (serial %d)", serials[0])
	}
	return ""
}

// syncHint says where to look, by the serials.
func syncHint(sides map[*dataset][]*ballot) string {
	if !bySerial(sides) {
		if all := serialsOf(slices.Concat(slices.Collect(maps.Values(sides))...)); len(all) == 1 {
			return fmt.Sprintf("all show serial %d, and secondaries fetch a zone only when its serial rises", all[0])
		}
		return "look at how it is copied from one to the other"
	}
	serials := serialsOf(slices.Concat(slices.Collect(maps.Values(sides))...))
	newest, behind := serials[0], []string{}
	for _, serial := range serials {
		if older(newest, serial) {
			newest = serial
		}
	}
	for _, ballots := range sides {
		if serialsOf(ballots)[0] != newest {
			behind = append(behind, serversOf(answersOf(ballots))...)
		}
	}
	behind = unique(behind)
	return join(behind) + " " + verb(behind, "is", "are") + fmt.Sprintf(" behind serial %d, so look at the transfers to ", newest) + verb(behind, "it", "them")
}
