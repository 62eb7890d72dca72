package aggregate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// propagationSummary says how many serve it, by region, and who still serves what, until when.
func (f *facts) propagationSummary(n *pb.Propagation, all []*perspective, wanted []string) string {
	what := f.targetName() + " is " + listed(wanted)
	text := fmt.Sprintf("none of the %s could be judged", plural(len(all), "perspective"))
	if n.GetJudged() > 0 {
		text = fmt.Sprintf("%s: %d of %s (%d %%)", what, n.GetServing(), plural(int(n.GetJudged()), "perspective"), 100*n.GetServing()/n.GetJudged())
	}
	notes := []string{byRegion(all), f.stillServed(all), laggardsText(n.GetAuthorities()), f.sharedText(all), f.delegationText()}
	if n.GetJudged() > 0 && n.GetUnknown() > 0 {
		notes = append(notes, fmt.Sprintf("%d could not be judged", n.GetUnknown()))
	}
	for _, note := range notes {
		if note != "" {
			text += "; " + note
		}
	}
	return text + "."
}

// byRegion says of each region in which something is missing how many serve it.
func byRegion(all []*perspective) string {
	serving, judged := map[string]int{}, map[string]int{}
	for _, p := range all {
		if p.judged {
			judged[p.region.name]++
		}
		if p.serves {
			serving[p.region.name]++
		}
	}
	var texts []string
	for _, region := range slices.Sorted(maps.Keys(judged)) {
		if serving[region] < judged[region] {
			texts = append(texts, fmt.Sprintf("%s %d of %d", region, serving[region], judged[region]))
		}
	}
	if len(judged) < 2 {
		return ""
	}
	return join(texts)
}

// stillServed says who serves what else, and until when.
func (f *facts) stillServed(all []*perspective) string {
	var lacking []*answer
	for _, p := range all {
		if p.judged && !p.serves {
			lacking = append(lacking, p.shows)
		}
	}
	return f.heldText(lacking)
}

// heldText says who still has what, until when.
func (f *facts) heldText(old []*answer) string {
	who, ends := map[string][]string{}, map[string][]*timestamppb.Timestamp{}
	for _, a := range old {
		has := servedText(a)
		who[has] = append(who[has], shown(a.at().GetAddress())+" in "+a.agent.region.name)
		ends[has] = append(ends[has], f.until(a.sight))
	}
	order := slices.SortedFunc(maps.Keys(who), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(who[b]), len(who[a])), cmp.Compare(a, b))
	})
	var texts []string
	for _, has := range order[:min(len(order), maxNames)] {
		servers := unique(who[has])
		text := join(servers) + " still " + verb(servers, "has ", "have ") + has
		if end := latest(ends[has]); end != nil {
			text += " until " + moment(end)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// servedText is what an answer has instead.
func servedText(a *answer) string {
	switch {
	case a.failure == pb.Failure_FAILURE_DNS_NXDOMAIN:
		return "no such name"
	case a.failure == pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return "a CNAME that leads nowhere"
	case a.failure == pb.Failure_FAILURE_DNS_NODATA, len(a.values) == 0:
		return "no such record"
	}
	return listed(a.values)
}

// laggardsText says which of the zone's own servers serve something else.
func laggardsText(all []*pb.Perspective) string {
	if len(all) == 0 {
		return ""
	}
	servers := laggardNames(all)
	return "of the zone's own servers " + join(servers) + " " + verb(servers, "does", "do") + " not serve it"
}

// laggardNames names servers, each once.
func laggardNames(all []*pb.Perspective) []string {
	return collect(all, func(p *pb.Perspective) string {
		return shown(p.GetName()) + inBrackets(shown(p.GetServer()))
	})
}

// sharedText says which addresses were counted once for each region, though nothing shows that those are
// different caches.
func (f *facts) sharedText(all []*perspective) string {
	regions, ids := map[string]int{}, map[string]map[string]bool{}
	for _, p := range all {
		if inside(p.server) || !p.judged {
			continue
		}
		regions[p.server]++
		if ids[p.server] == nil {
			ids[p.server] = map[string]bool{}
		}
		ids[p.server][nsid(p.shows.at())] = true
	}
	var shared []string
	for server, n := range regions {
		if n > 1 && (len(ids[server]) < n || ids[server][""]) {
			shared = append(shared, shown(server))
		}
	}
	if len(shared) == 0 {
		return ""
	}
	slices.Sort(shared)
	return join(shared) + " " + verb(shared, "counts", "count") + " once for each region, and nothing shows whether those are different caches"
}

// nsid is the identifier of the server that answered (RFC 5001), "" if it did not say.
func nsid(s *pb.Step) string {
	for _, r := range s.GetEvidence().GetReplies() {
		if len(r.GetNsid()) > 0 && !r.GetMismatched() {
			return string(r.GetNsid())
		}
	}
	return ""
}

// waitHint says whether waiting helps, and until when.
func (f *facts) waitHint(wanted []string, until *timestamppb.Timestamp) string {
	behind := laggardNames(f.laggards(wanted))
	switch serves := f.zoneServes(wanted); {
	case len(behind) > 0 && serves:
		return "waiting does not help: " + join(behind) + " of the zone's own servers " + verb(behind, "serves", "serve") +
			" something else; bring the zone's data to all of its servers first."
	case len(behind) > 0:
		return "waiting does not help: none of the zone's own servers that were asked serves it; change the record there first."
	case serves && until != nil:
		return "the zone's own servers serve it: wait; the last of the old answers runs out at " + moment(until) + "."
	case serves:
		return "the zone's own servers serve it; resolvers follow when what they hold runs out."
	case until != nil:
		return "check the record at the zone's own servers; if they serve it, the last of the old answers runs out at " + moment(until) + "."
	}
	return "check the record at the zone's own servers; where they serve it, resolvers follow when what they hold runs out."
}

// delegationText says how the parent's NS records differ from the zone's own, and whether its DS records are
// seen everywhere: then a change of servers or keys is under way, or was forgotten halfway.
func (f *facts) delegationText() string {
	parent, child, signed := map[string]bool{}, map[string]bool{}, map[string]map[bool]bool{}
	for _, a := range f.agents {
		asked := map[string]bool{} // zones whose own NS records this agent has seen, beside the parent's
		for _, w := range a.said {
			if w.about().GetInChild() {
				asked[w.about().GetZone()] = true
			}
		}
		for _, w := range a.said {
			e := w.about()
			if signed[e.GetZone()] == nil {
				signed[e.GetZone()] = map[bool]bool{}
			}
			if e.GetInParent() {
				signed[e.GetZone()][e.GetSigned()] = true
			}
			switch {
			case !asked[e.GetZone()]:
			case e.GetInParent() && !e.GetInChild():
				parent[shown(e.GetServer())] = true
			case !e.GetInParent() && e.GetInChild():
				child[shown(e.GetServer())] = true
			}
		}
	}
	var texts []string
	if names := slices.Sorted(maps.Keys(parent)); len(names) > 0 {
		texts = append(texts, "the parent alone lists "+join(names)+" among its NS records")
	}
	if names := slices.Sorted(maps.Keys(child)); len(names) > 0 && len(parent) > 0 {
		texts = append(texts, "the zone alone lists "+join(names))
	}
	for _, zone := range slices.Sorted(maps.Keys(signed)) {
		if len(signed[zone]) > 1 {
			texts = append(texts, "the DS records of "+shown(zone)+" are seen by some agents only")
		}
	}
	return join(texts)
}
