package aggregate

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What counts of the inputs, and what does not.
func TestWhatCounts(t *testing.T) {
	base := func() *world { return tcpWorld().in("ap", open(ip1)).in("eu", open(ip1)) }
	shut := func(agent string) *pb.Result {
		return &pb.Result{MeasurementId: "m", Agent: agent, Steps: blocked(ip1, timeout)}
	}
	later := shut("ap")
	later.Round = 1
	foreign := shut("ap")
	foreign.MeasurementId = "another"
	foreign.Round = -1 // would be the first one
	zoned := base()
	zoned.results[0].Steps = append(zoned.results[0].Steps, blocked(v61, timeout)...)
	zoned.results[0].Steps[1].Address = "[fe80::1%\x1b[2J]:443"
	mapped := base()
	mapped.results[1].Steps[0].Address = "[::ffff:203.0.113.10]:443"
	mapped.results[0].Steps = blocked(ip1, timeout)

	for _, c := range []struct {
		sentence string
		world    *world
		more     *pb.Result
		want     []string
	}{
		{"a later round of the agent does not count", base(), later, []string{"ok"}},
		{"a result of another measurement does not count", base(), foreign, []string{"ok"}},
		{"no result is no result", base(), nil, []string{"ok"}},
		{"an address with a zone is no address", zoned, nil, []string{"ok"}},
		{
			"one address in two spellings is one address", mapped, nil,
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
	} {
		for _, results := range [][]*pb.Result{
			append(slices.Clone(c.world.results), c.more), append([]*pb.Result{c.more}, c.world.results...),
		} {
			if diff := cmp.Diff(c.want, lines(Judge(c.world.m, results))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.sentence, diff)
			}
		}
	}
}

// Two asks of one agent cannot be in a frozen list; if they are, their order does not matter.
func TestAsksOfOneAgent(t *testing.T) {
	w := tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", open(ip1))
	other := proto.CloneOf(w.m.Asks[0])
	other.Vantage.Region = "sa"
	w.m.Asks = append(w.m.Asks, other)
	forth := w.judge()
	slices.Reverse(w.m.Asks)
	if diff := cmp.Diff(forth, w.judge(), protocmp.Transform()); diff != "" {
		t.Errorf("the order of asks matters:\n%s", diff)
	}
}

func TestTally(t *testing.T) {
	w := tcpWorld().in("ap").in("eu").
		gone("sa", pb.AskState_ASK_STATE_LOST, 0).gone("us", pb.AskState_ASK_STATE_REFUSED, 0).
		gone("af", pb.AskState_ASK_STATE_INELIGIBLE, 0).gone("oc", pb.AskState_ASK_STATE_PENDING, 0)
	want := &pb.Ledger{Asked: 6, Answered: 2, Lost: 1, Refused: 1, Ineligible: 1}
	if diff := cmp.Diff(want, Tally(w.m.Asks), protocmp.Transform()); diff != "" {
		t.Errorf("ledger (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&pb.Ledger{}, Tally(nil), protocmp.Transform()); diff != "" {
		t.Errorf("nobody asked (-want +got):\n%s", diff)
	}
}

// Evidence shows what fails in each region, the control beside it, and what works elsewhere (rule 10).
func TestEvidence(t *testing.T) {
	small := tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", open(ip1))
	var got []string
	for _, ref := range small.judge().GetFindings()[0].GetEvidence() {
		got = append(got, fmt.Sprint(ref.GetAgent(), " ", ref.GetStep()))
	}
	if diff := cmp.Diff([]string{"ap 0", "ap 1", "eu 0"}, got); diff != "" {
		t.Errorf("evidence (-want +got):\n%s", diff)
	}

	big := tcpWorld()
	for i := range 100 {
		big.in(fmt.Sprintf("ap/%d", i), blocked(ip1, timeout)).in(fmt.Sprintf("sa/%d", i), blocked(ip1, timeout))
		big.in(fmt.Sprintf("eu/%d", i), open(ip1))
	}
	regions := map[string]int{}
	for _, ref := range big.judge().GetFindings()[0].GetEvidence() {
		regions[ref.GetAgent()[:2]]++
	}
	if regions["ap"] < 3 || regions["sa"] < 3 || regions["eu"] < 2 || regions["ap"]+regions["sa"]+regions["eu"] > maxEvidence {
		t.Errorf("evidence by region: %v", regions)
	}
}
