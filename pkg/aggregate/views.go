package aggregate

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// view is one answer and who gives it.
type view struct {
	values []string // canonical, sorted, each once
	sights []*sight
	votes  int // perspectives, not agents (rule 5)
}

// differentAnswers judges that perspectives answer with different data, or with other data than the zone's own
// servers: by place, from before, made up, or for no reason that shows (rule 4).
func (f *facts) differentAnswers() []*pb.Finding {
	var findings []*pb.Finding
	for _, six := range []bool{false, true} { // one family after the other
		views := f.views(six)
		if left := leftOver(views); len(left) > 0 {
			findings = append(findings, f.unexplained(left, views))
		}
		if places := f.steeredViews(views); len(places) > 1 {
			findings = append(findings, f.byPlace(places))
		}
	}
	if old := f.answersThat(stale); len(old) > 0 {
		findings = append(findings, f.staleAnswers(old))
	}
	findings = append(findings, f.suspectAnswers()...)
	if uneven := f.unevenResolvers(); uneven != nil {
		findings = append(findings, uneven)
	}
	return findings
}

// leftOver are the answers that nothing explains: other than the zone's own servers say, or, where they were
// not heard, other than most of the others.
func leftOver(views []*view) []*sight {
	var left []*sight
	odds := oddViews(views)
	for _, v := range views {
		for _, s := range v.sights {
			if s.why == odd || s.why == unasked && slices.Contains(odds, v) {
				left = append(left, s)
			}
		}
	}
	return left
}

// everyAnswer goes through the answers of the agents' own resolvers and of public ones.
func (f *facts) everyAnswer() iter.Seq[*answer] {
	return func(yield func(*answer) bool) {
		for _, from := range [][]answer{f.answers, f.public} {
			for i := range from {
				if !yield(&from[i]) {
					return
				}
			}
		}
	}
}

// compared says whether an answer is compared with others: it is recorded as a whole, and neither from before
// nor made up, which is told by itself.
func (a *answer) compared() bool { return a.whole && a.why != stale && a.why != forged }

// views are the different answers, the most common first. Only answers with data are compared, and
// the addresses of a host family by family: one family's query may have failed where the other's did
// not. A perspective that answers differently at different times (rotation) has all of it in its view.
func (f *facts) views(six bool) []*view {
	perSource := map[string]map[string]bool{}
	for a := range f.everyAnswer() {
		for _, value := range a.values {
			if f.isSix(value) != six || !a.compared() {
				continue // parts of answers differ where the answers need not
			}
			if perSource[a.source] == nil {
				perSource[a.source] = map[string]bool{}
			}
			perSource[a.source][value] = true
		}
	}
	return f.mergeViews(perSource, six)
}

// isSix says whether a value is an IPv6 address of a host; what a DNS check asked for stands together.
func (f *facts) isSix(value string) bool {
	return f.m.GetSpec().GetDns() == nil && strings.Contains(value, ":")
}

// mergeViews puts the perspectives that answer alike together.
func (f *facts) mergeViews(perSource map[string]map[string]bool, six bool) []*view {
	merged, bySource := map[string]*view{}, map[string]*view{}
	for source, set := range perSource {
		values := slices.Sorted(maps.Keys(set))
		text := strings.Join(values, "\x00")
		if merged[text] == nil {
			merged[text] = &view{values: values}
		}
		merged[text].votes++
		bySource[source] = merged[text]
	}
	for a := range f.everyAnswer() {
		if a.compared() && slices.ContainsFunc(a.values, func(value string) bool { return f.isSix(value) == six }) {
			v := bySource[a.source]
			v.sights = append(v.sights, a.sight)
		}
	}
	return slices.SortedFunc(maps.Values(merged), func(a, b *view) int {
		return cmp.Or(cmp.Compare(b.votes, a.votes), slices.Compare(a.values, b.values))
	})
}

// oddViews are the views that differ from the most common one; all of them if none is.
func oddViews(views []*view) []*view {
	switch {
	case len(views) < 2:
		return nil
	case views[0].votes > views[1].votes:
		return views[1:]
	}
	return views
}

// sightsSeeing are all of views.
func sightsSeeing(views []*view) []*sight {
	var all []*sight
	for _, v := range views {
		all = append(all, v.sights...)
	}
	return all
}

// oneOfEach are a sight of each view and then all of some.
func oneOfEach(views []*view, all []*sight) []*sight {
	var some []*sight
	for _, v := range views[:min(len(views), maxEvidence)] {
		some = append(some, v.sights[0])
	}
	return append(some, all...)
}

// unexplained states which regions are answered differently, and shows one of each.
func (f *facts) unexplained(left []*sight, views []*view) *pb.Finding {
	u := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED)
	u.Stage, u.Confidence = pb.Stage_STAGE_DNS, pb.Confidence_CONFIDENCE_MEDIUM
	u.Regions = regionNames(left)
	u.Evidence = evidence(oneOfEach(views, left), f.ownServers(left))
	u.Summary = f.viewsSummary(left, views)
	switch {
	case slices.ContainsFunc(left, func(s *sight) bool { return slices.ContainsFunc(s.at().GetEvidence().GetAddresses(), privateValue) }):
		u.Hint = "whoever asks from inside may be meant to get a private address (split horizon); compare with what is published outside."
	case len(f.ownServers(left)) > 0:
		u.Hint = "ask again: what a cache holds runs out; what stays is a view, a filter or a choice of servers that the zone's own servers do not show there."
	default:
		u.Hint = "different answers are not wrong answers: ask the zone's own servers from the same places before changing anything."
	}
	return u
}

// ownServers are what the zone's own servers say in the places of sights, one for each place.
func (f *facts) ownServers(sights []*sight) []*sight {
	seen := map[*region]bool{}
	var own []*sight
	for _, v := range sights {
		here := f.placeOf(v)
		if here != nil && !seen[v.agent.region] {
			seen[v.agent.region] = true
			own = append(own, here.shown.sight)
		}
	}
	return own
}

// unevenResolvers states that an agent gets the name from one of its resolvers and not from another
// one that works otherwise. Programs there go on to the next one, so that the name counts as resolved. One
// that says what the zone's own servers say there is not the odd one.
func (f *facts) unevenResolvers() *pb.Finding {
	if f.m.GetSpec().GetDns() == nil {
		return nil
	}
	resolved := map[*agent]bool{}
	for _, v := range f.names {
		resolved[v.agent] = v.state == good
	}
	var fails []*sight
	for _, v := range f.answers {
		if v.state == bad && v.why != stale && v.why != confirmed && resolved[v.agent] {
			fails = append(fails, v.sight)
		}
	}
	if len(fails) == 0 {
		return nil
	}
	u := aboutSights(pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED, fails, nil)
	u.Regions = collect(fails, func(s *sight) string { return s.agent.region.name })
	u.Agents, u.Blame = agentsOf(fails), pb.Blame_BLAME_RESOLVER
	u.Confidence = f.confidence(fails)
	u.Summary = unevenSummary(u, fails)
	u.Hint = "ask " + join(collect(fails, (*sight).server)) + " for the name again; its cache or its way to the zone's servers differs from the other resolver's."
	return u
}

// server is the address of the resolver that was asked, for a sentence.
func (v *sight) server() string { return shown(v.at().GetAddress()) }
