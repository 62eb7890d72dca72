package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// silentHosts are addresses for a hundred measurements that last 8 s: several, because an agent
// takes at most a burst of 50 jobs for one target.
func silentHosts() []host {
	var hosts []host
	for i := range 10 {
		hosts = append(hosts, host{addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(200 + i)}), service: closed})
	}
	return hosts
}

// seen is a result that the coordinator has shown, so that it must be durable.
type seen struct{ measurement, agent string }

// testCoordinatorKilled kills the coordinator twice during a hundred measurements: while the jobs
// run, and again when the first results have come in.
func (w *world) testCoordinatorKilled(t *testing.T) {
	silence := scenario{name: "killed", faults: []fault{{"router", "ip daddr 203.0.113.200/29 drop"}, {"router", "ip daddr 203.0.113.208/31 drop"}}}
	if err := w.impose(t.Context(), silence); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.lift(context.WithoutCancel(t.Context()), silence) })

	const measurements = 100
	ids, err := w.create(t.Context(), measurements)
	if err != nil {
		t.Fatal(err)
	}
	w.restartCoordinator(t)
	t.Logf("killed and restarted with %d measurements running", measurements)
	if err := w.firstResult(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	before, err := w.results(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	w.restartCoordinator(t)
	t.Logf("killed and restarted with %d of %d results in", len(before), measurements*len(w.agents))

	closed, err := w.awaitClosed(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.results(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range before {
		if !slices.Contains(after, s) {
			t.Errorf("the result of %s for %s was there and is gone", s.agent, s.measurement)
		}
	}
	answered := 0
	for _, m := range closed {
		l := m.GetLedger()
		answered += int(l.GetAnswered())
		if l.GetAsked() != 8 || l.GetAnswered() != 8 {
			t.Errorf("%s: ledger %v, want all 8 answered", m.GetId(), l)
		}
	}
	if len(after) != answered {
		t.Errorf("%d results are there, but %d agents answered", len(after), answered)
	}
	t.Logf("%d of %d measurements closed, %d answers, %d results", len(closed), measurements, answered, len(after))
}

// restartCoordinator ends the coordinator with SIGKILL and starts it on the same data.
func (w *world) restartCoordinator(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	i := slices.IndexFunc(w.procs, func(p *process) bool { return p.name == "coordinator" })
	p := w.procs[i]
	w.procs = slices.Delete(w.procs, i, i+1)
	w.mu.Unlock()
	p.kill()
	if err := w.startCoordinator(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// create opens n measurements of silent targets.
func (w *world) create(ctx context.Context, n int) ([]string, error) {
	conn, err := w.client()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	hosts := silentHosts()
	ids := make([]string, n)
	var g errgroup.Group
	g.SetLimit(10)
	for i := range n {
		g.Go(func() error {
			check := &pb.TCPSpec{Host: hosts[i%len(hosts)].addr.String(), Port: 443}
			created, err := pb.NewMeasurementServiceClient(conn).CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
				Spec:    &pb.Spec{Check: &pb.Spec_Tcp{Tcp: check}},
				Timeout: durationpb.New(30 * time.Second),
			})
			ids[i] = created.GetMeasurement().GetId()
			return err
		})
	}
	return ids, g.Wait()
}

// watch follows a measurement until enough says so, over restarts of the coordinator.
func (w *world) watch(ctx context.Context, id string, enough func(*pb.WatchMeasurementResponse) bool) error {
	conn, err := w.client()
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := pb.NewMeasurementServiceClient(conn).WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true})
	if err != nil {
		return err
	}
	for {
		news, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watching %s: %w", id, err)
		}
		if enough(news) {
			return nil
		}
	}
}

// firstResult waits for the first result of a measurement.
func (w *world) firstResult(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return w.watch(ctx, id, func(news *pb.WatchMeasurementResponse) bool { return len(news.GetResults()) > 0 })
}

// awaitClosed waits until all measurements are closed, and returns them.
func (w *world) awaitClosed(ctx context.Context, ids []string) ([]*pb.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	closed := make([]*pb.Measurement, len(ids))
	var g errgroup.Group
	for i, id := range ids {
		g.Go(func() error {
			return w.watch(ctx, id, func(news *pb.WatchMeasurementResponse) bool {
				closed[i] = news.GetMeasurement()
				return closed[i].GetState() == pb.State_STATE_FINISHED
			})
		})
	}
	return closed, g.Wait()
}

// results lists the results of all measurements.
func (w *world) results(ctx context.Context, ids []string) ([]seen, error) {
	conn, err := w.client()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var all []seen
	for _, id := range ids {
		stream, err := pb.NewMeasurementServiceClient(conn).ListResults(ctx, &pb.ListResultsRequest{Id: id})
		if err != nil {
			return nil, err
		}
		for {
			one, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if !one.GetLate() {
				all = append(all, seen{id, one.GetResult().GetAgent()})
			}
		}
	}
	return all, nil
}
