package threats

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// coordinatorMemory is what a coordinator may take that all hostile agents come to at once.
const coordinatorMemory = 512 << 20

// TestHostileAgents (T1 to T4, at once): floods, forged and replayed results, other names and sessions, numbers without
// order, streams that are never read. An honest agent beside them is heard as before, nothing is said in its name, and the
// coordinator stays within its bounds.
func TestHostileAgents(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	coordinator := w.coordinate()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.8:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accept(l)
	w.agent("honest", "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", "127.0.0.8:80")
	w.online(1)
	modes := []string{
		"unasked", "giant", "stuffed", "bursting", "scattered", "same-number", "equivocate", "replay", "spoof", "spoof-hello",
		"old-session", "new-session", "deaf", "slow", "gaps", "idle", "clone", "new-clone", "subjects", "loris",
	}
	var evil []*process
	for _, mode := range modes {
		evil = append(evil, w.evil("evil-"+mode, mode, "--for", "20s"))
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		began := time.Now()
		m := w.measure("tcp", "127.0.0.8:80", "from", "here", "--timeout", "8s")
		if m.GetLedger().GetAnswered() != 1 || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
			t.Fatalf("the honest agent is not heard: %v %v", m.GetLedger(), m.GetVerdict())
		}
		w.measure("tcp", "127.0.0.8:80", "from", "world", "--timeout", "2s") // what the others are asked for
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("two measurements took %v", took)
		}
	}
	for i, p := range evil {
		did := p.did(t)
		t.Logf("%s: %+v", modes[i], did)
		if !happened(modes[i], did) {
			t.Errorf("%s: the attack did not happen: %+v", modes[i], did)
		}
		if strings.HasPrefix(modes[i], "spoof-") && did.Acked > 0 || did.Overheard > 0 {
			t.Errorf("%s: %d results were taken, %d messages overheard", modes[i], did.Acked, did.Overheard)
		}
	}
	for _, clone := range []string{"evil-clone", "evil-new-clone"} {
		if events, err := w.cli("audit", "--kind", "identity_conflict", "--agent", clone, "-J"); err != nil || !strings.Contains(events, clone) {
			t.Errorf("nobody noticed %s: %v %s", clone, err, events)
		}
	}
	fewEvents(t, w)
	if peak := coordinator.peak(t); peak > coordinatorMemory {
		t.Errorf("the coordinator took %d MiB", peak>>20)
	} else {
		t.Logf("the coordinator took %d MiB at most", peak>>20)
	}
	list := &pb.ListMeasurementsResponse{}
	w.ask(list, "measurements", "-J")
	for _, head := range list.GetMeasurements() {
		m := &pb.Measurement{}
		w.ask(m, "show", head.GetId(), "-J")
		seen := map[string]bool{}
		for _, r := range m.GetResults() {
			if seen[r.GetAgent()] {
				t.Errorf("%s: two results of %s", m.GetId(), r.GetAgent())
			}
			seen[r.GetAgent()] = true
			if r.GetAgent() == "honest" && r.GetVersion() == "evil" {
				t.Errorf("%s: somebody spoke in the honest agent's name", m.GetId())
			}
		}
	}
}

// maxEvents is how much the worst of them may have written about: each kind about each of them, once and once again.
const maxEvents = 200

// fewEvents: however often they did it, the log has little of it.
func fewEvents(t *testing.T, w *world) {
	t.Helper()
	events := &pb.ListAuditEventsResponse{}
	w.ask(events, "audit", "-n", fmt.Sprint(10*maxEvents), "-J")
	if n := len(events.GetEvents()); n > maxEvents {
		t.Errorf("%d audit events", n)
	} else {
		t.Logf("%d audit events", n)
	}
}

// happened says whether a hostile agent did what its mode is about.
func happened(mode string, did deed) bool {
	switch mode {
	case "clone", "new-clone":
		return did.Registered > 3
	case "subjects":
		return did.Refused > 15
	case "loris":
		return did.Registered > 0 && did.Opened > 100
	default:
		return did.Registered > 0
	}
}
