package results

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// memory is a spool in memory.
type memory struct {
	mu      sync.Mutex
	pending map[uint64]*pb.Result
	next    uint64
	changed chan struct{}
	acked   chan struct{} // has one for every time that nothing is pending any more
}

func newMemory() *memory {
	return &memory{pending: map[uint64]*pb.Result{}, next: 1, changed: make(chan struct{}), acked: make(chan struct{}, 100)}
}

func (m *memory) add(agent string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending[m.next] = &pb.Result{Agent: agent, MeasurementId: fmt.Sprint(m.next)}
	m.next++
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) Next(after uint64, n int) (batch []*pb.SpooledResult, more <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq := after + 1; seq < m.next && len(batch) < n; seq++ {
		if r := m.pending[seq]; r != nil {
			batch = append(batch, &pb.SpooledResult{Seq: seq, Result: r})
		}
	}
	return batch, m.changed, nil
}

func (m *memory) Ack(first, last uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for seq := first; seq <= last; seq++ {
		delete(m.pending, seq)
	}
	if len(m.pending) == 0 {
		m.acked <- struct{}{}
	}
	return nil
}

// sink keeps what comes, after failing a few times.
type sink struct {
	mu      sync.Mutex
	fails   int
	kept    []string
	refused int
}

func (s *sink) Verify(agent, credential string) bool { return credential == "key of "+agent }

func (s *sink) Keep(_ context.Context, _ string, results []*pb.Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 {
		s.fails--
		return errors.New("not now")
	}
	for _, r := range results {
		s.kept = append(s.kept, r.GetMeasurementId())
	}
	return nil
}

func (s *sink) Refused(string, *pb.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
}

// connect starts a server on a connection in memory and returns a client of it.
func connect(t *testing.T, s *sink) (*Server, pb.ResultServiceClient) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	reports := NewServer(s)
	pb.RegisterResultServiceServer(server, reports)
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///x",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
	return reports, pb.NewResultServiceClient(conn)
}

func start(t *testing.T, service pb.ResultServiceClient, spool Spool) <-chan error {
	client := &Client{Service: service, Hello: &pb.Hello{Agent: "a", Credential: "key of a"}, Spool: spool}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- client.Run(ctx) }()
	return done
}

func TestEverythingIsDelivered(t *testing.T) {
	s, spool := &sink{}, newMemory()
	for range 1000 { // more than a batch
		spool.add("a")
	}
	_, service := connect(t, s)
	start(t, service, spool)
	<-spool.acked
	spool.add("a") // and what comes later
	<-spool.acked
	if len(s.kept) != 1001 || !slices.IsSortedFunc(s.kept, func(a, b string) int { return len(a) - len(b) }) {
		t.Errorf("%d results were kept", len(s.kept))
	}
}

func TestWhatIsNotKeptComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, spool := &sink{fails: 2}, newMemory()
		spool.add("a")
		_, service := connect(t, s)
		began := time.Now()
		start(t, service, spool)
		<-spool.acked
		if waited := time.Since(began); waited < 2*retryDelay || fmt.Sprint(s.kept) != "[1]" {
			t.Errorf("after %v: %v", waited, s.kept)
		}
	})
}

// unreadable is a spool whose disk has failed.
type unreadable struct{}

func (unreadable) Next(uint64, int) ([]*pb.SpooledResult, <-chan struct{}, error) {
	return nil, nil, errors.New("input/output error")
}

func (unreadable) Ack(uint64, uint64) error { return nil }

func TestASpoolThatCannotBeReadEndsTheSession(t *testing.T) {
	_, service := connect(t, &sink{})
	if err := <-start(t, service, unreadable{}); err == nil {
		t.Error("no reason was given")
	}
}

func TestWhatCanNeverBeKeptDoesNotStopTheRest(t *testing.T) {
	s, spool := &sink{}, newMemory()
	spool.add("somebody else")
	spool.add("a")
	_, service := connect(t, s)
	start(t, service, spool)
	<-spool.acked
	if fmt.Sprint(s.kept) != "[2]" || s.refused != 1 {
		t.Errorf("kept %v, refused %d", s.kept, s.refused)
	}
}

func TestGoAway(t *testing.T) {
	s, spool := &sink{}, newMemory()
	spool.add("a")
	server, service := connect(t, s)
	done := start(t, service, spool)
	<-spool.acked
	server.GoAway()
	if err := <-done; !errors.Is(err, ErrGoAway) {
		t.Errorf("%v", err)
	}
}

func TestHello(t *testing.T) {
	for _, c := range []struct {
		what  string
		first *pb.ReportRequest
		code  codes.Code
	}{
		{"a credential of somebody else", hello("a", "key of b"), codes.Unauthenticated},
		{"no credential", hello("a", ""), codes.Unauthenticated},
		{"a batch before hello", &pb.ReportRequest{Message: &pb.ReportRequest_Batch{}}, codes.InvalidArgument},
		{"an empty message", &pb.ReportRequest{}, codes.InvalidArgument},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, service := connect(t, &sink{})
			stream, err := service.Report(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(c.first); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		_, service := connect(t, &sink{})
		stream, err := service.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded || time.Since(began) != helloTimeout {
			t.Errorf("silence: %v after %v", err, time.Since(began))
		}
	})
}

func hello(agent, credential string) *pb.ReportRequest {
	return &pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{Agent: agent, Credential: credential}}}
}

func TestABatchIsBounded(t *testing.T) {
	_, service := connect(t, &sink{})
	stream, err := service.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	batch := &pb.ResultBatch{}
	for range maxBatchResults + 1 {
		batch.Results = append(batch.Results, &pb.SpooledResult{})
	}
	for _, m := range []*pb.ReportRequest{hello("a", "key of a"), {Message: &pb.ReportRequest_Batch{Batch: batch}}} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

func TestRanges(t *testing.T) {
	var batch []*pb.SpooledResult
	for _, seq := range []uint64{1, 2, 3, 7, 9, 10} {
		batch = append(batch, &pb.SpooledResult{Seq: seq})
	}
	if got := fmt.Sprint(ranges(batch)); len(ranges(batch)) != 3 || ranges(batch)[2].GetFirst() != 9 || ranges(batch)[2].GetLast() != 10 {
		t.Errorf("%v", got)
	}
}

func TestAHostileCoordinatorCannotKeepAnAgentBusy(t *testing.T) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterResultServiceServer(server, hostile{})
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:///x",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := <-start(t, pb.NewResultServiceClient(conn), newMemory()); err == nil {
		t.Error("an acknowledgement of everything that can be was taken")
	}
}

type hostile struct {
	pb.UnimplementedResultServiceServer
}

func (hostile) Report(stream pb.ResultService_ReportServer) error {
	_ = stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: []*pb.SeqRange{{First: 0, Last: 1 << 62}}}}})
	<-stream.Context().Done()
	return nil
}
