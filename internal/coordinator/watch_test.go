package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// crowd makes agents known that nobody can reach, and a measurement that asks all of them.
func (w *world) crowd(n int) (id string, agents []string) {
	w.t.Helper()
	for i := range n {
		agents = append(agents, fmt.Sprintf("crowd-%05d", i))
		w.c.Fleet().Beat(&pb.Beat{Agent: agents[i], Vantage: &pb.Vantage{Region: "crowd"}, Capacity: 1})
	}
	request := w.tcp(w.target)
	request.From, request.Limit, request.Timeout = "crowd", int32(n), durationpb.New(5*time.Minute)
	m := w.create(request)
	if len(m.GetAsks()) != n {
		w.t.Fatalf("%d of %d agents are asked", len(m.GetAsks()), n)
	}
	return m.GetId(), agents
}

// answer has agents answer, in some order, many at once.
func (w *world) answer(ctx context.Context, id string, agents []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for _, agent := range agents {
		group.Go(func() error {
			r := &pb.Result{MeasurementId: id, Agent: agent, Steps: []*pb.Step{{Name: strings.Repeat("x", 1000)}}}
			_, err := w.c.Keep(ctx, &pb.Hello{Agent: agent, Epoch: 1}, spooled(1, r))
			return err
		})
	}
	return group.Wait()
}

// reader reads a watch and notes what it was told.
type reader struct {
	after   uint64
	results []string // agents
	lagged  bool
	last    *pb.WatchMeasurementResponse
}

// read reads up to n messages and says whether the measurement is over.
func (r *reader) read(stream pb.MeasurementService_WatchMeasurementClient, n int) (over bool, err error) {
	for range n {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return r.last.GetMeasurement().GetState() == pb.State_STATE_FINISHED, nil
		}
		if err != nil {
			return false, err
		}
		if response.GetPosition() < r.last.GetPosition() {
			return false, fmt.Errorf("position %d after %d", response.GetPosition(), r.last.GetPosition())
		}
		r.after, r.last, r.lagged = response.GetPosition(), response, r.lagged || response.GetLagged()
		for _, one := range response.GetResults() {
			r.results = append(r.results, one.GetAgent())
		}
	}
	return false, nil
}

// once says what is wrong if not every agent's result came once.
func (r *reader) once(agents []string) string {
	if got := slices.Sorted(slices.Values(r.results)); !slices.Equal(got, agents) {
		return fmt.Sprintf("%d results of %d agents, want one of each of %d", len(got), len(slices.Compact(got)), len(agents))
	}
	return ""
}

func TestAWatchGoesOnWhereItBrokeOff(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	id, agents := w.crowd(2000)
	var r reader
	watch := func(messages int) (over bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream, err := w.api.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true, After: r.after}, grpc.WaitForReady(true))
		if err == nil {
			over, err = r.read(stream, messages)
		}
		if err != nil {
			t.Fatal(err)
		}
		return over
	}
	answered := make(chan error, 1)
	go func() { answered <- w.answer(t.Context(), id, agents[:1000]) }()
	for len(r.results) < 500 {
		watch(2)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start()
	watch(2)
	go func() { answered <- w.answer(t.Context(), id, agents[1000:]) }()
	for n := 1; !watch(n); n++ { // cut after fewer messages than there are, as long as there are more
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if wrong := r.once(agents); wrong != "" {
		t.Error(wrong)
	}
	if r.last.GetMeasurement().GetLedger().GetAnswered() != 2000 || len(r.last.GetMeasurement().GetAsks()) != 2000 {
		t.Errorf("the last message: %v", r.last.GetMeasurement().GetLedger())
	}
	r = reader{after: 1 << 40} // of a log that has since been restored to an older one: all of it is new
	for !watch(1 << 20) {
	}
	if wrong := r.once(agents); wrong != "" {
		t.Errorf("after a position that the log has not reached: %s", wrong)
	}
}

// TestReadersThatDoNotRead is fault F19: watches that nobody reads while ten thousand results come.
func TestReadersThatDoNotRead(t *testing.T) {
	const readers = 20
	w := newWorld(t, coordinator.Options{})
	id, agents := w.crowd(10_000)
	probe := w.bare("probe")
	var streams []pb.MeasurementService_WatchMeasurementClient
	var told [readers]reader
	for i := range readers {
		stream, err := w.api.WatchMeasurement(t.Context(), &pb.WatchMeasurementRequest{Id: id, Results: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := told[i].read(stream, 1); err != nil { // it stands, and is not read any more
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	answered := make(chan error, 1)
	go func() { answered <- w.answer(t.Context(), id, agents) }()
	slowest := w.probe(probe, answered)
	if m, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: id}); err != nil || m.GetMeasurement().GetState() != pb.State_STATE_FINISHED {
		t.Errorf("%v, %v: the fold waits for readers", m.GetMeasurement().GetLedger(), err)
	}
	if slowest > 10*time.Second { // a commit of a busy machine; a reader would be waited for without end
		t.Errorf("another agent waited %v for an acknowledgement", slowest)
	}
	held := heap()
	for i, stream := range streams {
		if over, err := told[i].read(stream, 1<<20); err != nil || !over {
			t.Fatal(over, err)
		}
		if wrong := told[i].once(agents); wrong != "" {
			t.Errorf("reader %d: %s", i, wrong)
		}
		if !told[i].lagged {
			t.Errorf("reader %d was never behind: the fault did not strike", i)
		}
	}
	// Decoded, the results are about 100 MiB: a reader that had them to itself would show. Part of the difference is the
	// measurement, which memory lets go meanwhile.
	if each := (held - heap()) / readers; each > 32<<20 {
		t.Errorf("a reader that does not read holds %d bytes", each)
	}
}

// probe has an agent report one result after the other, for measurements of its own, until done has one, and returns
// the longest that an acknowledgement took.
func (w *world) probe(a *bare, done <-chan error) (slowest time.Duration) {
	w.t.Helper()
	stream := a.open()
	request := w.tcp(w.target)
	request.From = a.hello.GetAgent()
	for seq := uint64(1); ; seq++ {
		id := w.create(request).GetId()
		began := time.Now()
		a.report(stream, spooled(seq, a.answer(id)))
		slowest = max(slowest, time.Since(began))
		select {
		case err := <-done:
			if err != nil {
				w.t.Fatal(err)
			}
			w.end(id)
			return slowest
		default:
		}
	}
}

// heap is the memory in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWatchesAreBounded(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.bare("a")
	id := w.create(w.tcp(w.target)).GetId()
	var conns []*grpc.ClientConn
	t.Cleanup(func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	for n := 0; ; n++ {
		if n%100 == 0 { // a connection takes 128 streams
			conns = append(conns, w.dial())
		}
		conn := conns[len(conns)-1]
		watch := []func() error{func() error {
			return first(pb.NewMeasurementServiceClient(conn).WatchMeasurement(t.Context(), &pb.WatchMeasurementRequest{Id: id}))
		}, func() error {
			return first(pb.NewFleetServiceClient(conn).WatchAgents(t.Context(), &pb.WatchAgentsRequest{}))
		}}
		err := watch[n%2]()
		if status.Code(err) == codes.ResourceExhausted && n > 100 {
			if err := watch[(n+1)%2](); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("the other kind of watch: %v", err)
			}
			return
		}
		if err != nil || n > 10_000 {
			t.Fatalf("after %d watches: %v", n, err)
		}
	}
}

// first reads the first message of a stream.
func first[T any](stream grpc.ServerStreamingClient[T], err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}
