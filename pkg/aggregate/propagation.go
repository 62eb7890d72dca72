package aggregate

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what a Propagation holds, as the contract says.
const (
	maxPerspectives = 256
	maxServers      = 64
	maxAgents       = 16
	maxValues       = 32
	maxValueBytes   = 4 << 10 // of one perspective, so that a verdict fits into a message
)

// perspective is one resolver as the agents of one region see it (rule 5).
type perspective struct {
	region *region
	server string
	public bool
	all    []*answer // what each agent of the region was answered
	shows  *answer   // the one that decides
	judged bool
	serves bool
}

// readPublic keeps what a public resolver answered. It decides nothing about the name itself: it is no
// resolver of the agent's, and nobody's fault if it does not work for it.
func (f *facts) readPublic(a *agent, i int, s *pb.Step) {
	v := f.newSight(a, f.name, i)
	f.weigh(v, &a.resolver(s.GetAddress()).control)
	own := answer{sight: v, source: v.perspective()}
	if v.state == good {
		own.values, own.whole = f.rrset(s)
	}
	f.public = append(f.public, own)
}

// perspectives are who was asked, sorted: what serves wanted comes last.
func (f *facts) perspectives(wanted []string) []*perspective {
	all := grouped(f.everyAnswer())
	for _, p := range all {
		f.decide(p, wanted)
	}
	slices.SortStableFunc(all, func(a, b *perspective) int { return compareBool(a.serves, b.serves) })
	return all
}

// grouped puts the answers of one resolver to the agents of one region together, sorted by region and resolver.
func grouped(answers iter.Seq[*answer]) []*perspective {
	type key struct {
		region *region
		server string
	}
	byKey := map[key]*perspective{}
	var all []*perspective
	for a := range answers {
		k := key{a.agent.region, a.at().GetAddress()}
		p := byKey[k]
		if p == nil {
			p = &perspective{region: k.region, server: k.server}
			byKey[k] = p
			all = append(all, p)
		}
		p.public = p.public || a.at().GetRole() == pb.Role_ROLE_PUBLIC
		p.all = append(p.all, a)
	}
	slices.SortFunc(all, func(a, b *perspective) int {
		return cmp.Or(cmp.Compare(a.region.name, b.region.name), cmp.Compare(a.server, b.server))
	})
	return all
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// decide says whether a perspective serves wanted: if it does so for each of its agents. One that was not seen
// to lack it, nor to have it, is not judged (rule 20).
func (f *facts) decide(p *perspective, wanted []string) {
	for _, a := range p.all {
		serves, judged := f.servesAll(a, wanted)
		switch {
		case judged && !serves:
			p.shows, p.judged, p.serves = a, true, false
			return
		case judged && !p.judged:
			p.shows, p.judged, p.serves = a, true, true
		case p.shows == nil:
			p.shows = a
		}
	}
}

// servesAll says whether an answer holds all of wanted, and whether it shows either.
func (f *facts) servesAll(a *answer, wanted []string) (serves, judged bool) {
	switch {
	case a.state == bad:
		return false, aboutName(a.failure)
	case a.state != good:
		return false, false
	}
	serves = len(f.missing(f.askedType(a.at()), wanted, a.values)) == 0
	return serves, serves || a.whole
}

// propagation gives the numbers: who serves what is expected, who does not, and until when. It is made
// beside expectation_failed, and of the same answers (rule 16).
func (f *facts) propagation(wanted []string) *pb.Finding {
	all := f.perspectives(wanted)
	if len(all) == 0 {
		return nil
	}
	numbers := &pb.Propagation{Authorities: f.laggards(wanted)}
	var judged, lacking []*sight
	var ends []*timestamppb.Timestamp
	for _, p := range all {
		switch {
		case !p.judged:
			numbers.Unknown++
		case p.serves:
			numbers.Serving++
		default:
			lacking = append(lacking, p.shows.sight)
			ends = append(ends, f.until(p.shows.sight))
		}
		if p.judged {
			judged = append(judged, p.shows.sight)
			numbers.Judged++
		}
		if len(numbers.GetPerspectives()) < maxPerspectives {
			numbers.Perspectives = append(numbers.GetPerspectives(), f.describe(p))
		}
	}
	if len(numbers.GetAuthorities()) == 0 {
		numbers.Until = latest(ends)
	}
	r := plainFinding(pb.FindingCode_FINDING_CODE_PROPAGATION)
	r.Stage, r.Confidence = pb.Stage_STAGE_DNS, f.confidence(judged)
	r.Regions = collect(lacking, func(v *sight) string { return v.agent.region.name })
	r.Evidence = evidence(lacking, judged)
	r.Propagation = numbers
	r.Summary = f.propagationSummary(numbers, all, wanted)
	if numbers.GetServing() < numbers.GetJudged() || len(numbers.GetAuthorities()) > 0 {
		r.Hint = f.waitHint(wanted, numbers.GetUntil())
	}
	return r
}

// describe is a perspective in the contract's words.
func (f *facts) describe(p *perspective) *pb.Perspective {
	sights := make([]*sight, 0, len(p.all))
	for _, a := range p.all {
		sights = append(sights, a.sight)
	}
	ids := agentsOf(sights)
	d := &pb.Perspective{
		Region: p.region.name, Server: p.server, Agents: ids[:min(len(ids), maxAgents)], Judged: p.judged, Serving: p.serves, Public: p.public,
	}
	if p.public {
		d.Name = f.publicName(p.server)
	}
	if d.Failure = p.shows.at().GetFailure(); !p.judged {
		if d.GetFailure() == pb.Failure_FAILURE_NONE { // Its record is not whole: nobody knows.
			d.Failure = pb.Failure_FAILURE_UNSPECIFIED
		}
		return d
	}
	d.Values = served(p.shows.values)
	d.Until = f.until(p.shows.sight)
	return d
}

// served is the first of values, as many and as much of the last as a verdict has room for.
func served(values []string) []string {
	all, left := make([]string, 0, min(len(values), maxValues)), maxValueBytes
	for _, value := range values[:min(len(values), maxValues)] {
		if left <= 0 {
			break
		}
		text := cut(left, escaped(cut(left, value)))
		left -= len(text)
		all = append(all, text)
	}
	return all
}

// escaped is a value as a message can hold it: octets that are no UTF-8, which a TXT record may have, are
// escaped (RFC 1035, 5.1).
func escaped(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); {
		r, size := utf8.DecodeRuneInString(value[i:])
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\%03d`, value[i])
		} else {
			b.WriteString(value[i : i+size])
		}
		i += size
	}
	return b.String()
}

// publicName is what people call the public resolver at an address, "" if the measurement does not say.
func (f *facts) publicName(server string) string {
	at, err := netip.ParseAddrPort(server)
	if err != nil {
		return ""
	}
	for _, r := range f.m.GetPublicResolvers() {
		if slices.Contains(r.GetAddresses(), server) || slices.Contains(r.GetAddresses(), at.Addr().String()) {
			return r.GetName()
		}
	}
	return ""
}

// laggards are the zone's own servers that serve something else, as agents of each region see them.
func (f *facts) laggards(wanted []string) []*pb.Perspective {
	type key struct {
		region *region
		server string
	}
	byKey := map[key]*pb.Perspective{}
	var all []*pb.Perspective
	for _, a := range f.agents {
		for _, w := range a.said {
			if w.data == nil || w.data.next != "" || !f.wantsOf(w) || len(f.missing(w.kind, wanted, w.data.values)) == 0 {
				continue
			}
			k := key{a.region, w.at().GetAddress()}
			p := byKey[k]
			if p == nil {
				p = &pb.Perspective{
					Region: k.region.name, Server: k.server, Name: w.about().GetServer(), Judged: true, Failure: w.data.denied,
					Values: served(w.data.values),
				}
				byKey[k] = p
				all = append(all, p)
			}
			if !slices.Contains(p.GetAgents(), a.id) && len(p.GetAgents()) < maxAgents {
				p.Agents = append(p.GetAgents(), a.id)
			}
		}
	}
	slices.SortFunc(all, func(a, b *pb.Perspective) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetServer(), b.GetServer()), cmp.Compare(a.GetRegion(), b.GetRegion()))
	})
	return all[:min(len(all), maxServers)]
}

// zoneServes says whether one of the zone's own servers serves all of wanted.
func (f *facts) zoneServes(wanted []string) bool {
	return slices.ContainsFunc(f.agents, func(a *agent) bool {
		return slices.ContainsFunc(a.said, func(w *said) bool {
			return w.data != nil && w.data.next == "" && f.wantsOf(w) && len(f.missing(w.kind, wanted, w.data.values)) == 0
		})
	})
}
