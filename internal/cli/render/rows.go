package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// row is one agent of a measurement.
type row struct {
	region, agent, place string
	state                pb.AskState
	note                 string // why it was refused, or what it waits for
	sights               []sight
	result               *pb.Result
	folded               bool // several agents of a region in one row
	worst                mark // of those
}

// mark is the worst that the agent saw.
func (r row) mark() mark {
	switch {
	case r.folded:
		return r.worst
	case r.state == pb.AskState_ASK_STATE_PENDING:
		return markWaiting
	case len(r.sights) == 0:
		return markUnknown
	case slices.ContainsFunc(r.sights, func(s sight) bool { return s.mark == markFail }):
		return markFail
	case slices.ContainsFunc(r.sights, func(s sight) bool { return s.mark == markOK }):
		return markOK
	}
	return markUnknown
}

// rows are the agents of a measurement, by region and name. An agent that answered without being in
// the list, because the list is not at hand, has its row too.
func rows(m *pb.Measurement, results []*pb.Result) []row {
	byAgent := make(map[string]row, len(m.GetAsks()))
	for _, a := range m.GetAsks() {
		byAgent[a.GetAgent()] = askRow(a, m.GetState() == pb.State_STATE_RUNNING)
	}
	for _, r := range results {
		one, ok := byAgent[r.GetAgent()]
		if !ok {
			one = row{region: Clean(r.GetVantage().GetRegion()), agent: Clean(r.GetAgent()), place: place(r.GetVantage())}
		}
		one.state, one.note, one.sights = pb.AskState_ASK_STATE_ANSWERED, "", sights(m.GetSpec(), r)
		one.result = r
		byAgent[r.GetAgent()] = one
	}
	out := make([]row, 0, len(byAgent))
	for _, one := range byAgent {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.agent, b.agent))
	})
	return out
}

// askRow is an agent whose Result is not in.
func askRow(a *pb.Ask, running bool) row {
	out := row{
		region: Clean(a.GetVantage().GetRegion()), agent: Clean(a.GetAgent()), place: place(a.GetVantage()),
		state: a.GetState(), note: "no answer",
	}
	switch a.GetState() {
	case pb.AskState_ASK_STATE_REFUSED, pb.AskState_ASK_STATE_INELIGIBLE:
		words := []string{short(a.GetState(), "ASK_STATE_")}
		if a.GetFailure() != pb.Failure_FAILURE_UNSPECIFIED {
			words = append(words, aggregate.ShortFailure(a.GetFailure()))
		}
		if a.GetDetail() != "" {
			words = append(words, Clean(a.GetDetail()))
		}
		out.note = strings.Join(words, ": ")
	case pb.AskState_ASK_STATE_LOST:
	case pb.AskState_ASK_STATE_UNSPECIFIED, pb.AskState_ASK_STATE_PENDING, pb.AskState_ASK_STATE_ANSWERED:
		// Answered, and the Result is still on its way to us: it is waited for.
		out.state = pb.AskState_ASK_STATE_LOST
		if running {
			out.state, out.note = pb.AskState_ASK_STATE_PENDING, "waiting"
		}
	}
	return out
}

// items are what the last column of a row says.
func (r row) items() []string {
	if r.state != pb.AskState_ASK_STATE_ANSWERED {
		return []string{r.note}
	}
	if len(r.sights) == 0 {
		return []string{"nothing to report"}
	}
	out := make([]string, len(r.sights))
	for i, s := range r.sights {
		out[i] = s.String()
	}
	return out
}

// byRegion folds the rows of a region into one, for when there are too many agents to show.
func byRegion(all []row) []row {
	var out []row
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].region == all[i].region {
			j++
		}
		out = append(out, fold(all[i:j]))
		i = j
	}
	return out
}

// fold is one row for the agents of a region: how many see what.
func fold(agents []row) row {
	out := row{region: agents[0].region, agent: fmt.Sprintf("%d agents", len(agents)), folded: true}
	counts := map[mark]int{}
	for _, a := range agents {
		counts[a.mark()]++
	}
	var words []string
	for _, m := range []mark{markOK, markUnknown, markFail, markWaiting} { // waiting beats all, then the worst
		if n := counts[m]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, m))
			out.worst = m
		}
	}
	if said := mostSaid(agents); said != "" {
		words = append(words, said)
	}
	out.note = strings.Join(words, "  ")
	return out
}

// mostSaid is the failure that most agents of a region saw.
func mostSaid(agents []row) string {
	counts := map[string]int{}
	for _, a := range agents {
		for _, s := range a.sights {
			if s.mark == markFail {
				counts[s.said]++
			}
		}
	}
	best := ""
	for said, n := range counts {
		if n > counts[best] || (n == counts[best] && said < best) {
			best = said
		}
	}
	return best
}
