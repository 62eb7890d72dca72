package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// short makes STEP_KIND_DNS_QUERY, with its prefix STEP_KIND_, into dns_query. What a verdict is made
// of has its short names from pkg/aggregate.
func short(s fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), prefix))
}

func shortKind(k pb.StepKind) string         { return short(k, "STEP_KIND_") }
func shortState(s pb.State) string           { return short(s, "STATE_") }
func shortAgentState(s pb.AgentState) string { return short(s, "AGENT_STATE_") }

// shortOutcome is OK, FAIL, INCONCLUSIVE, or RUNNING and CANCELLED where nothing is concluded.
func shortOutcome(m *pb.Measurement) string {
	if m.GetState() == pb.State_STATE_RUNNING {
		return "RUNNING" // what is known so far concludes nothing
	}
	if o := m.GetVerdict().GetOutcome(); o != pb.Outcome_OUTCOME_UNSPECIFIED {
		return strings.TrimPrefix(o.String(), "OUTCOME_")
	}
	return strings.TrimPrefix(m.GetState().String(), "STATE_")
}

// asked is the question with its place.
func asked(m *pb.Measurement) string {
	from := m.GetFrom()
	if from == "" {
		from = "world"
	}
	return Question(m.GetSpec()) + " from " + Clean(from)
}

// place is a vantage in a few words: city or country, and provider or network.
func place(v *pb.Vantage) string {
	where := v.GetCity()
	if where == "" {
		where = v.GetCountry()
	}
	network := v.GetProvider()
	if network == "" && v.GetAsn() != 0 {
		network = fmt.Sprintf("AS%d", v.GetAsn())
	}
	if where != "" && network != "" {
		return Clean(where + "/" + network)
	}
	return Clean(where + network)
}

// human writes a duration for people: 0.04 ms, 4.2 ms, 12 ms, 1.2 s, 120 s.
func human(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 0.995:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 99_950:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return fmt.Sprintf("%.0f s", ms/1000)
}

// agents is a number of them.
func agents(n int32) string {
	if n == 1 {
		return "1 agent"
	}
	return strconv.Itoa(int(n)) + " agents"
}
