package threats

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestCanaryCatchesFabrication (T2): agents that make up results about a target that the coordinator owns are told of in
// the log, and one that really looks is not, nor one that cannot.
func TestCanaryCatchesFabrication(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	coordinator := w.coordinate("--canary-addr", "127.0.0.7:7799", "--canary-interval", "1s")
	w.agent("honest", "--allow-target", "127.0.0.7/32", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", "127.0.0.9:9")
	w.agent("refuses", "--deny-target", "127.0.0.7/32", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", "127.0.0.9:9")
	liars := map[string]string{"invent": "never said", "stale": "at another time", "silent": "never what that said", "elsewhere": "in place of the canary"}
	for mode := range liars {
		w.evil(mode, mode, "--for", patience.String())
	}
	w.online(2 + len(liars))
	eventually(t, "all liars being told of", func(context.Context) error {
		_, said := coordinator.said()
		for agent, why := range liars {
			if !told(said, agent, why) {
				return fmt.Errorf("%s is not told of:\n%s", agent, said[max(0, len(said)-2000):])
			}
		}
		return nil
	})
	m := &pb.ListMeasurementsResponse{}
	w.ask(m, "measurements", "-J")
	answered := 0
	for _, one := range m.GetMeasurements() {
		if !one.GetCanary() {
			t.Errorf("%v is not marked", one)
		}
		for _, a := range one.GetAsks() {
			if a.GetAgent() == "honest" && a.GetState() == pb.AskState_ASK_STATE_ANSWERED {
				answered++
			}
		}
	}
	full := &pb.Measurement{}
	w.ask(full, "show", m.GetMeasurements()[len(m.GetMeasurements())-1].GetId(), "-J")
	for _, a := range full.GetAsks() {
		if a.GetAgent() == "honest" && a.GetState() == pb.AskState_ASK_STATE_ANSWERED {
			answered++
		}
	}
	if answered == 0 {
		t.Errorf("the honest agent was never asked: %v", full)
	}
	_, said := coordinator.said()
	for _, agent := range []string{"honest", "refuses"} {
		if told(said, agent, "") {
			t.Errorf("%s is told of:\n%s", agent, said)
		}
	}
}

// told says whether an audit event names an agent, and says why.
func told(log, agent, why string) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "CANARY_MISMATCH") && strings.Contains(line, "agent="+agent+" ") && strings.Contains(line, why) {
			return true
		}
	}
	return false
}
