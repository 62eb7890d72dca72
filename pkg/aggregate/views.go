package aggregate

import (
	"cmp"
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

// differentAnswers states that perspectives answer with different data, and no more than that: geo
// steering, an old answer and a wrong one look the same from here (rule 4).
func (f *facts) differentAnswers() []*pb.Finding {
	var findings []*pb.Finding
	for _, six := range []bool{false, true} { // one family after the other
		views := f.views(six)
		if odd := oddViews(views); len(odd) > 0 {
			findings = append(findings, f.unexplained(odd, views))
		}
	}
	if uneven := f.unevenResolvers(); uneven != nil {
		findings = append(findings, uneven)
	}
	return findings
}

// views are the different answers, the most common first. Only answers with data are compared, and
// the addresses of a host family by family: one family's query may have failed where the other's did
// not. A perspective that answers differently at different times (rotation) has all of it in its view.
func (f *facts) views(six bool) []*view {
	perSource := map[string]map[string]bool{}
	for _, a := range f.answers {
		for _, value := range a.values {
			if f.isSix(value) != six || !a.whole {
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
	for _, a := range f.answers {
		if a.whole && slices.ContainsFunc(a.values, func(value string) bool { return f.isSix(value) == six }) {
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

// regionsSeeing names the regions that get one of views.
func regionsSeeing(views []*view) []string {
	var all []*sight
	for _, v := range views {
		all = append(all, v.sights...)
	}
	return collect(all, func(s *sight) string { return s.agent.region.name })
}

// unexplained states which regions are answered differently, and shows one of each.
func (f *facts) unexplained(odd, views []*view) *pb.Finding {
	u := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED)
	u.Stage, u.Confidence = pb.Stage_STAGE_DNS, pb.Confidence_CONFIDENCE_MEDIUM
	u.Regions = regionsSeeing(odd)
	var shown []*sight
	for _, v := range views[:min(len(views), maxEvidence)] {
		shown = append(shown, v.sights[0])
	}
	for _, v := range odd {
		shown = append(shown, v.sights...)
	}
	u.Evidence = evidence(shown, nil)
	u.Summary = viewsSummary(views)
	u.Hint = "different answers are not wrong answers: ask the zone's own servers from the same places before changing anything."
	return u
}

// unevenResolvers states that an agent gets the name from one of its resolvers and not from another
// one that works otherwise. Programs there go on to the next one, so that the name counts as resolved.
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
		if v.state == bad && resolved[v.agent] {
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
