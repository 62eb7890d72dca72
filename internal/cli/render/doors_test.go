package render

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const firstDoor, secondDoor = "203.0.113.10:443", "203.0.113.11:443"

// doorOf is a measurement of a door, judged; each agent stands in a region of its name.
func doorOf(spec *pb.Spec, agents map[string][]*pb.Step) *pb.Measurement {
	m := &pb.Measurement{Id: "m", State: pb.State_STATE_FINISHED, Spec: spec}
	for region, steps := range agents {
		v := &pb.Vantage{Region: region, ObservedAddress: "198.51.100.7"}
		ask := &pb.Ask{Agent: region + "-1", Vantage: v, State: pb.AskState_ASK_STATE_LOST}
		if steps != nil {
			ask.State = pb.AskState_ASK_STATE_ANSWERED
			m.Results = append(m.Results, &pb.Result{MeasurementId: "m", Agent: ask.GetAgent(), Vantage: v, Steps: steps})
		}
		m.Asks = append(m.Asks, ask)
	}
	slices.SortFunc(m.Asks, func(a, b *pb.Ask) int { return strings.Compare(a.GetAgent(), b.GetAgent()) })
	m.Verdict = aggregate.Judge(m, m.GetResults())
	return m
}

func tcpDoor(expect pb.Reachability) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "www.example", Port: 443, Expect: expect}}}
}

// shutBy are connects that fail, tried twice, beside a control that passed.
func shutBy(f pb.Failure, addresses ...string) []*pb.Step {
	steps := []*pb.Step{as(pb.Role_ROLE_CONTROL, step(pb.StepKind_STEP_KIND_TCP_CONNECT, "192.0.2.1:443", time.Millisecond))}
	for _, a := range addresses {
		s := step(pb.StepKind_STEP_KIND_TCP_CONNECT, a, time.Second, f)
		s.Attempts = 2
		steps = append(steps, s)
	}
	return steps
}

func connected(address string) *pb.Step {
	return step(pb.StepKind_STEP_KIND_TCP_CONNECT, address, time.Millisecond)
}

func TestDoorRows(t *testing.T) {
	const open, blocked, refused = pb.Reachability_REACHABILITY_OPEN, pb.Reachability_REACHABILITY_BLOCKED, pb.Reachability_REACHABILITY_REFUSED
	timeout, rst := pb.Failure_FAILURE_TCP_TIMEOUT, pb.Failure_FAILURE_TCP_REFUSED
	broken := shutBy(timeout, firstDoor)
	broken[0].Failure, broken[0].Failures = timeout, []pb.Failure{timeout}
	alert := step(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, firstDoor, time.Millisecond, pb.Failure_FAILURE_TLS_ALERT)
	for _, c := range []struct {
		sentence string
		m        *pb.Measurement
		want     []string
	}{
		{
			"open, shut in silence, and not answered",
			doorOf(tcpDoor(open), map[string][]*pb.Step{"a": {connected(firstDoor)}, "b": shutBy(timeout, firstDoor), "c": nil}),
			[]string{"✓ a open / 1/1", "✗ b silent; control passed /drop 1/1", "? c not known / 0/1: no agent of the region answered"},
		},
		{
			"a denial: a control that failed proves nothing",
			doorOf(tcpDoor(blocked), map[string][]*pb.Step{"a": {connected(firstDoor)}, "b": shutBy(timeout, firstDoor), "c": broken}),
			[]string{"✗ a open / 1/1", "✓ b silent; control passed /drop 1/1", "? c not known / 1/1: no agent of the region could look"},
		},
		{
			"shut in another way than expected",
			doorOf(tcpDoor(refused), map[string][]*pb.Step{"a": shutBy(timeout, firstDoor), "b": shutBy(rst, firstDoor)}),
			[]string{"✗ a silent; control passed /drop 1/1", "✓ b tcp_refused /reject_rst 1/1"},
		},
		{
			"one address open, one shut: each is named",
			doorOf(tcpDoor(blocked), map[string][]*pb.Step{"a": append(shutBy(rst, firstDoor), connected(secondDoor))}),
			[]string{"✗ a 203.0.113.11:443 open; 203.0.113.10:443 tcp_refused /reject_rst 1/1"},
		},
		{
			"one address shut, the other not judged",
			doorOf(tcpDoor(blocked), map[string][]*pb.Step{"a": append(shutBy(rst, firstDoor), shutBy(pb.Failure_FAILURE_AGENT_DEADLINE, secondDoor)...)}),
			[]string{"? a tcp_refused /reject_rst 1/1: an address of the name could not be judged from there"},
		},
		{
			"an alert is not open",
			doorOf(&pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "www.example", Expect: open}}}, map[string][]*pb.Step{"a": {connected(firstDoor), alert}}),
			[]string{"✗ a tls_alert / 1/1"},
		},
		{
			"and not shut",
			doorOf(&pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "www.example", Expect: blocked}}}, map[string][]*pb.Step{"a": {connected(firstDoor), alert}}),
			[]string{"✗ a open / 1/1"},
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			spec := c.m.GetSpec().String()
			var got []string
			for _, r := range doorRows(c.m) {
				line := r.mark.String() + " " + r.region + " " + r.seen + " /" + r.block + " " + r.agents
				if r.why != "" {
					line += ": " + r.why
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if c.m.GetSpec().String() != spec {
				t.Error("the measurement was changed")
			}
		})
	}
}

func TestADoorThatWasNotMeasuredIsCounted(t *testing.T) {
	var out bytes.Buffer
	v := Screen{Out: &out, Err: &out, Format: Table}.Verify([]*Check{{Rule: "first"}, {Rule: "second"}}, false)
	if err := v.End(); err != nil {
		t.Fatal(err)
	}
	if want := "INCONCLUSIVE · 2 rules · 0 as expected, 0 not, 0 not known · 2 doors not measured"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}

func TestRowsComeInTheOrderOfTheFile(t *testing.T) {
	var out bytes.Buffer
	first, second := &Check{Rule: "first", Regions: []string{"a"}}, &Check{Rule: "second", Regions: []string{"a"}}
	v := Screen{Out: &out, Err: &out, Format: Table}.Verify([]*Check{first, second}, true)
	m := doorOf(tcpDoor(pb.Reachability_REACHABILITY_OPEN), map[string][]*pb.Step{"a": {connected(firstDoor)}})
	second.Since(doorOf(tcpDoor(pb.Reachability_REACHABILITY_OPEN), map[string][]*pb.Step{"a": shutBy(pb.Failure_FAILURE_TCP_REFUSED, firstDoor)}))
	v.Done(second, proto.CloneOf(m))
	if strings.Contains(out.String(), "second") {
		t.Errorf("the second one is shown before the first one:\n%s", out.String())
	}
	v.Done(first, m)
	if len(m.GetResults()) > 0 {
		t.Error("results are kept of which no more is said")
	}
	if err := v.End(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[1], "first") || !strings.HasSuffix(lines[1], "new") || !strings.Contains(lines[2], "second") || !strings.HasSuffix(lines[2], "newly fixed") {
		t.Errorf("got\n%s", out.String())
	}
	if v.Outcome() != pb.Outcome_OUTCOME_OK {
		t.Errorf("outcome %v", v.Outcome())
	}
}
