package results

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

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
	gaps    []*pb.Gap // not acknowledged
	next    uint64
	changed chan struct{}
	acked   chan struct{} // has one for every time that nothing is pending any more
	ranges  []*pb.SeqRange
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

func (m *memory) Next(after uint64, n int) (*pb.ResultBatch, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	batch := &pb.ResultBatch{}
	seq := after + 1
	for ; seq < m.next && len(batch.GetResults()) < n; seq++ {
		if r := m.pending[seq]; r != nil {
			batch.Results = append(batch.Results, &pb.SpooledResult{Seq: seq, Result: r})
		}
	}
	for _, g := range m.gaps {
		if g.GetFirst() > after && g.GetFirst() < seq {
			batch.Gaps = append(batch.Gaps, g)
		}
	}
	return batch, m.changed, nil
}

func (m *memory) Ack(first, last uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ranges = append(m.ranges, &pb.SeqRange{First: first, Last: last})
	for seq := first; seq <= last; seq++ {
		delete(m.pending, seq)
	}
	m.gaps = slices.DeleteFunc(m.gaps, func(g *pb.Gap) bool { return g.GetFirst() >= first && g.GetLast() <= last })
	if len(m.pending)+len(m.gaps) == 0 {
		m.acked <- struct{}{}
	}
	return nil
}

// sink is where results go in tests.
type sink struct {
	keep func(ctx context.Context, from *pb.Hello, batch *pb.ResultBatch) (int, error) // default: all is kept

	mu    sync.Mutex
	kept  []string // measurements
	gaps  []*pb.Gap
	flood int
}

// Admit implements Sink.
func (s *sink) Admit(_ context.Context, hello *pb.Hello) error {
	if hello.GetCredential() != "key of "+hello.GetAgent() {
		return status.Error(codes.Unauthenticated, "who are you?")
	}
	return nil
}

// Keep implements Sink.
func (s *sink) Keep(ctx context.Context, from *pb.Hello, batch *pb.ResultBatch) (int, error) {
	if s.keep != nil {
		if wasted, err := s.keep(ctx, from, batch); err != nil || wasted > 0 {
			return wasted, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch.GetResults() {
		s.kept = append(s.kept, r.GetResult().GetMeasurementId())
	}
	s.gaps = append(s.gaps, batch.GetGaps()...)
	return 0, nil
}

// Flooding implements Sink.
func (s *sink) Flooding(string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flood++
}

// has is how many results were kept, and how many different ones.
func (s *sink) has() (all, different int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept), len(slices.Compact(slices.Sorted(slices.Values(s.kept))))
}

// connect starts a server with default limits and returns a client of it.
func connect(t *testing.T, s Sink) (*Server, pb.ResultServiceClient) {
	reports := NewServer(s, Limits{})
	return reports, dial(t, reports)
}

// dial serves on a connection in memory and returns a client.
func dial(t *testing.T, service pb.ResultServiceServer) pb.ResultServiceClient {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(256<<10))
	pb.RegisterResultServiceServer(server, service)
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
	return pb.NewResultServiceClient(conn)
}

func hello(agent, credential string) *pb.ReportRequest {
	return &pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{Agent: agent, Credential: credential}}}
}

// session is the hello of agent a with a session.
func session(n uint64) *pb.ReportRequest {
	h := hello("a", "key of a")
	h.GetHello().Session = n
	return h
}

func batchOf(seqs ...uint64) *pb.ReportRequest {
	batch := &pb.ResultBatch{}
	for _, seq := range seqs {
		batch.Results = append(batch.Results, &pb.SpooledResult{Seq: seq, Result: &pb.Result{Agent: "a", MeasurementId: fmt.Sprint(seq)}})
	}
	return &pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}
}

// open opens a stream and sends messages on it.
func open(t *testing.T, service pb.ResultServiceClient, messages ...*pb.ReportRequest) pb.ResultService_ReportClient {
	t.Helper()
	stream, err := service.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	return stream
}

// acked reads an acknowledgement.
func acked(t *testing.T, stream pb.ResultService_ReportClient) []*pb.SeqRange {
	t.Helper()
	in, err := stream.Recv()
	if err != nil || in.GetAck() == nil {
		t.Fatalf("%v, %v; want an acknowledgement", in, err)
	}
	return in.GetAck().GetRanges()
}
