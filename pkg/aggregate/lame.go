package aggregate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// seat is one address of a server that a zone is delegated to, by what it answered whom.
type seat struct {
	name, address string
	serves        []*said // with authority, or that it fails at this very name
	refuses       []*said // by its own word: it does not serve the zone
	silent        []*said // no answer, beside other servers that answer the same agent
}

// delegation is a zone and the servers that it is delegated to, by their addresses.
type delegation struct {
	zone    string
	seats   []*seat
	serving map[string]bool // the names of those that serve it
}

// lameDelegations name the servers that zones are delegated to and that do not serve them, one finding for
// each zone. Agents that are left with no server at all are noted as stranded: why the name does not resolve
// for them is told by this (rule 12).
func (f *facts) lameDelegations() []*pb.Finding {
	var findings []*pb.Finding
	for _, d := range f.delegations() {
		var lame []*said
		for _, s := range d.seats {
			lame = append(lame, f.lame(s, d)...)
		}
		if len(lame) == 0 {
			continue
		}
		findings = append(findings, f.lameDelegation(d, lame))
		for _, w := range lame {
			w.agent.stranded = w.agent.stranded || !slices.ContainsFunc(w.agent.said, func(other *said) bool {
				return other.data != nil && other.about().GetZone() == d.zone
			})
		}
	}
	return append(findings, f.insideDelegations()...)
}

// delegations are the zones with what came from their servers, the latter sorted.
func (f *facts) delegations() map[string]*delegation {
	zones, seats := map[string]*delegation{}, map[[2]string]*seat{}
	for _, a := range f.agents {
		for _, w := range a.said {
			zone := w.about().GetZone()
			if zone == "" || zone == "." {
				continue
			}
			d := zones[zone]
			if d == nil {
				d = &delegation{zone: zone, serving: map[string]bool{}}
				zones[zone] = d
			}
			key := [2]string{zone, w.thing.text}
			s := seats[key]
			if s == nil {
				s = &seat{name: w.about().GetServer(), address: w.thing.text}
				seats[key] = s
				d.seats = append(d.seats, s)
			}
			s.add(w)
		}
	}
	for _, d := range zones {
		slices.SortFunc(d.seats, func(a, b *seat) int { return cmp.Compare(a.address, b.address) })
		for _, s := range d.seats {
			if len(s.serves) > 0 {
				d.serving[s.name] = true
			}
		}
	}
	return zones
}

// add puts what a server said, or that it said nothing, where it belongs.
func (s *seat) add(w *said) {
	switch failure := w.at().GetFailure(); failure {
	case pb.Failure_FAILURE_DNS_LAME:
		if w.data != nil { // somebody else was faster
			s.serves = append(s.serves, w)
			break
		}
		w.failure = failure
		s.refuses = append(s.refuses, w)
	case pb.Failure_FAILURE_DNS_TIMEOUT, pb.Failure_FAILURE_DNS_UNREACHABLE:
		if w.failure = failure; w.agent.heard[w.thing.family()] {
			s.silent = append(s.silent, w)
		}
	default:
		if stageOf(failure) != pb.Stage_STAGE_AGENT {
			s.serves = append(s.serves, w)
		}
	}
}

// lame is the evidence that a server does not serve its zone; none if it does, or nobody can tell. Its own
// word counts from anywhere. Its silence counts from enough regions if no address of it answers anybody, and,
// where other servers do the work, if it was asked in every way that there is: some only miss EDNS.
func (f *facts) lame(s *seat, of *delegation) []*said {
	switch {
	case len(s.serves) > 0:
		return s.refusedThere()
	case len(s.refuses) > 0:
		return s.refuses
	}
	switch others := len(of.serving) > 0; {
	case !f.enoughRegions(saidIn(s.silent)), of.serving[s.name]:
		return nil
	case others && !f.asksAll(), !others && f.resolved():
		return nil // resolvers get there, or did: a firewall may keep agents from servers and let resolvers in
	}
	return s.silent
}

// resolved says whether any resolver has what was asked for.
func (f *facts) resolved() bool {
	return slices.ContainsFunc(f.answers, func(a answer) bool { return a.state == good && len(a.values) > 0 })
}

// asksAll says whether all of a zone's servers are asked, in every way.
func (f *facts) asksAll() bool {
	return f.m.GetSpec().GetDns().GetAuthoritative() || f.m.GetSpec().GetOrigin() != nil
}

// refusedThere are the refusals from regions that this server refuses altogether, while it serves others. It
// must be its own: what recurses, or answers an agent that no other server answers with authority, may be
// something on the way.
func (s *seat) refusedThere() []*said {
	served := map[*region]bool{}
	for _, w := range s.serves {
		served[w.agent.region] = true
	}
	var there []*said
	for _, w := range s.refuses {
		refused := slices.ContainsFunc(w.at().GetEvidence().GetReplies(), func(r *pb.DNSReply) bool {
			return !r.GetMismatched() && !r.GetRecursionAvailable() && (r.GetRcode() == "REFUSED" || r.GetRcode() == "NOTAUTH")
		})
		others := slices.ContainsFunc(w.agent.said, func(other *said) bool { return other.data != nil })
		if refused && others && !served[w.agent.region] {
			there = append(there, w)
		}
	}
	return there
}

// saidIn names the regions that servers were asked from.
func saidIn(all []*said) []string {
	return collect(all, func(w *said) string { return w.agent.region.name })
}

// sightsOf are the sights of what servers said.
func sightsOf(all []*said) []*sight {
	sights := make([]*sight, 0, len(all))
	for _, w := range all {
		sights = append(sights, w.sight)
	}
	return sights
}

// lameDelegation is about all lame servers of one zone.
func (f *facts) lameDelegation(d *delegation, lame []*said) *pb.Finding {
	var served []*said
	for _, s := range d.seats {
		served = append(served, s.serves...)
	}
	l := aboutSights(pb.FindingCode_FINDING_CODE_LAME_DELEGATION, sightsOf(lame), sightsOf(served))
	l.Block, l.Blame = pb.BlockKind_BLOCK_KIND_UNSPECIFIED, pb.Blame_BLAME_ZONE
	l.Regions = saidIn(lame)
	l.Addresses = collect(lame, (*said).address)
	l.Confidence = f.confidence(sightsOf(lame))
	l.Summary = lameSummary(d.zone, lame, served)
	l.Hint = "let " + join(serversOf(lame)) + " serve " + shown(d.zone) + ", or take " + verb(serversOf(lame), "it", "them") +
		" out of its NS records, at the parent too; resolvers that ask there lose time, or fail."
	return l
}

// serversOf names the zone's servers that said it.
func serversOf(all []*said) []string { return collect(all, (*said).server) }

// lameSummary says which servers do what instead of serving the zone, and who serves it.
func lameSummary(zone string, lame, served []*said) string {
	first := map[string]*said{}
	for _, w := range lame {
		if old := first[w.server()]; old == nil || cmp.Compare(w.agent.id, old.agent.id) < 0 {
			first[w.server()] = w
		}
	}
	var parts []string
	for _, server := range slices.Sorted(maps.Keys(first))[:min(len(first), maxNames)] {
		parts = append(parts, server+": "+lameWords(first[server]))
	}
	text := shown(zone) + " is delegated to " + plural(len(first), "server") + " that " + verb(slices.Collect(maps.Keys(first)), "does", "do") +
		" not serve it, seen from " + join(saidIn(lame)) + inBrackets(sole(sightsOf(lame))) + ": " + strings.Join(parts, "; ")
	switch good := serversOf(served); {
	case len(good) == 0:
		text += "; no server of it answers"
	default:
		text += "; " + join(good) + " " + verb(good, "serves", "serve") + " it"
		if only := saidIn(served); joined(only) != joined(saidIn(lame)) {
			text += " for " + join(only)
		}
	}
	return text + "."
}

// lameWords is how a server does not serve its zone.
func lameWords(w *said) string {
	if text := w.at().GetEvidence().GetText(); w.failure == pb.Failure_FAILURE_DNS_LAME && text != "" {
		return shownUpTo(2*maxText, text)
	}
	return ShortFailure(w.failure)
}

// insideDelegations warn of zones that are delegated to addresses which the internet has no way to, and which
// the agents were therefore not allowed to ask. Whoever asks from inside may get there.
func (f *facts) insideDelegations() []*pb.Finding {
	byZone := map[string][]*said{}
	for _, a := range f.agents {
		for _, w := range a.said {
			if w.at().GetFailure() == pb.Failure_FAILURE_AGENT_POLICY_DENIED && w.about().GetInParent() && inside(w.at().GetAddress()) {
				w.failure = w.at().GetFailure()
				byZone[w.about().GetZone()] = append(byZone[w.about().GetZone()], w)
			}
		}
	}
	var findings []*pb.Finding
	for zone, all := range byZone {
		l := aboutSights(pb.FindingCode_FINDING_CODE_LAME_DELEGATION, sightsOf(all), nil)
		l.Severity, l.Stage, l.Blame = pb.Severity_SEVERITY_WARN, pb.Stage_STAGE_DNS, pb.Blame_BLAME_ZONE
		l.Regions = saidIn(all)
		l.Addresses = collect(all, (*said).address)
		l.Confidence = f.confidence(sightsOf(all))
		l.Summary = shown(zone) + " is delegated to " + join(serversOf(all)) + ", which the internet has no way to."
		l.Hint = "give " + join(serversOf(all)) + " a public address, or take " + verb(serversOf(all), "it", "them") + " out of the public NS records."
		findings = append(findings, l)
	}
	return findings
}
