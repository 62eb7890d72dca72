package threats

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// zooMemory is what an agent may take that meets eight animals at once, each allowed 8 MiB.
	zooMemory = 160 << 20
	// atOnce is how many animals are met at once.
	atOnce = 8
)

// TestT9HostileTargets: every animal of the zoo meets a real agent, through a real coordinator. The agent lives and stays
// small, every one is answered for in its time, and no target has said anything that broke a reader on the way.
func TestT9HostileTargets(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	coordinator := w.coordinate()
	// Without a budget in its way: the zoo has one address, and many ports.
	policy := write(t, "policy.yaml", "version: 1\ntargets: {allow: [127.0.0.0/8]}\nlimits: {target: {burst: 100000, per_second: 1000}}\n")
	tame, err := probetest.Listen(netip.MustParseAddrPort("127.0.0.9:0"), probetest.Accept)
	if err != nil {
		t.Fatal(err)
	}
	defer tame.Close()
	agent := w.agent("a", "--policy", policy, "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", tame.Addr().String())
	w.online(1)
	api := pb.NewMeasurementServiceClient(w.dial())

	zoo := probetest.Zoo()
	cages := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for _, animal := range zoo {
		cages <- struct{}{}
		all.Go(func() {
			defer func() { <-cages }()
			meet(t, api, animal)
		})
	}
	all.Wait()
	if !agent.alive() || !coordinator.alive() {
		_, said := agent.said()
		t.Fatalf("agent alive: %v, coordinator: %v\n%s", agent.alive(), coordinator.alive(), said)
	}
	t.Logf("%d animals; the agent took %d MiB at most", len(zoo), agent.peak(t)>>20)
	if peak := agent.peak(t); peak > zooMemory {
		t.Errorf("the agent took %d MiB", peak>>20)
	}
	if m := w.measure("tcp", tame.Addr().String()); m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
		t.Errorf("afterwards something tame is not: %v", m.GetVerdict())
	}
}

// meet measures one animal.
func meet(t *testing.T, api pb.MeasurementServiceClient, animal probetest.Animal) {
	server, err := animal.Listen(netip.MustParseAddrPort("127.0.0.2:0"))
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	const timeout = 20 * time.Second
	began := time.Now()
	created, err := api.CreateMeasurement(t.Context(), &pb.CreateMeasurementRequest{Spec: animal.Spec(server.Addr()), Timeout: durationpb.New(timeout)})
	if err != nil {
		t.Errorf("%s: %v", animal.Name, err)
		return
	}
	watch, err := api.WatchMeasurement(t.Context(), &pb.WatchMeasurementRequest{Id: created.GetMeasurement().GetId()})
	if err != nil {
		t.Errorf("%s: %v", animal.Name, err)
		return
	}
	for {
		now, err := watch.Recv()
		if err != nil {
			t.Errorf("%s: %v", animal.Name, err)
			return
		}
		if m := now.GetMeasurement(); m != nil && m.GetState() != pb.State_STATE_RUNNING && m.GetState() != pb.State_STATE_UNSPECIFIED {
			if took := time.Since(began); took > timeout+3*time.Second || m.GetLedger().GetAnswered() != 1 {
				t.Errorf("%s: %v after %v", animal.Name, m.GetLedger(), took)
			}
			return
		}
	}
}
