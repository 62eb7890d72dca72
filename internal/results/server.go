// Package results is the agents' result stream, both ends of it.
//
// The agent says hello and sends what its spool holds; the coordinator makes it durable and says which
// of it is. Only what was acknowledged may be forgotten: a stream that ends early loses nothing,
// because the agent sends the rest again.
package results

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// MaxResult bounds one result, in bytes.
	MaxResult = 64 << 10
	// helloTimeout bounds the wait for the first message of a stream.
	helloTimeout = 10 * time.Second
	// farewellTimeout bounds the wait for an agent to take the last message.
	farewellTimeout = time.Second
	// maxHello bounds the first message of a stream, in bytes.
	maxHello = 4 << 10
)

// Sink is where results go.
type Sink interface {
	// Admit says whether a stream is the agent's that its hello names; the error is the status that ends it.
	// It may fill in what the hello leaves open.
	Admit(ctx context.Context, hello *pb.Hello) error
	// Keep makes a batch durable. After nil all its numbers are acknowledged: they are durable, or it is
	// durable that they bring no result. wasted is how many results nobody wanted; they cost the agent more of
	// its allowance. After an error the batch comes again.
	Keep(ctx context.Context, from *pb.Hello, batch *pb.ResultBatch) (wasted int, err error)
	// Flooding hears that an agent sends more than it may, each time that it has to wait.
	Flooding(agent string)
}

// Limits bound what is taken. The zero value is what each default says.
type Limits struct {
	// Results and Bytes are what one agent may send in a second in the long run; batches and gaps count like results.
	// Default: 20,000 and 32 MiB.
	Results, Bytes float64
	// ResultBurst and ByteBurst are what it may send at once after a while: more than a spool holds, so that
	// an agent that was away is no flood. Default: 100,000 and 128 MiB.
	ResultBurst, ByteBurst int
	// InFlight bounds the batches of all agents that are being made durable, in bytes of memory, which are several times
	// those on the wire. At least 32 MiB, the most that one takes. Default: 64 MiB.
	InFlight int64
}

func (l Limits) orDefault() Limits {
	return Limits{
		Results: cmp.Or(l.Results, 20_000), ResultBurst: cmp.Or(l.ResultBurst, 100_000),
		Bytes: cmp.Or(l.Bytes, 32<<20), ByteBurst: cmp.Or(l.ByteBurst, 128<<20),
		InFlight: cmp.Or(l.InFlight, 64<<20),
	}
}

// Server is the coordinator's end.
type Server struct {
	pb.UnimplementedResultServiceServer

	sink     Sink
	speakers speakers
	flight   *semaphore.Weighted // bytes of memory that hold what is being made durable
	keeping  sync.WaitGroup
	stopping chan struct{}
	stop     sync.Once
}

// NewServer returns a server that hands results to sink.
func NewServer(sink Sink, limits Limits) *Server {
	limits = limits.orDefault()
	return &Server{
		sink:     sink,
		speakers: speakers{limits: limits, known: map[string]*speaker{}},
		flight:   semaphore.NewWeighted(limits.InFlight),
		stopping: make(chan struct{}),
	}
}

// GoAway ends all streams after asking the agents to reconnect; a stream would otherwise last as long
// as its agent.
func (s *Server) GoAway() { s.stop.Do(func() { close(s.stopping) }) }

// Wait returns when nothing is handed to the sink any more, after all streams have ended.
func (s *Server) Wait() { s.keeping.Wait() }

// Fence ends the stream of an agent's older session, since a newer one was given out: ABORTED. It says whether there
// was one.
func (s *Server) Fence(agent string, session uint64) (ousted bool) {
	return s.speakers.fence(agent, session)
}

// Recall asks every agent that has a stream to connect again, at a time of its own within so long.
func (s *Server) Recall(within time.Duration) { s.speakers.recall(within) }

// Cut ends an agent's stream at once: PERMISSION_DENIED, and why.
func (s *Server) Cut(agent, why string) {
	s.speakers.cut(agent, status.Error(codes.PermissionDenied, why))
}

// Report implements pb.ResultServiceServer. Beside this goroutine an idle stream has one more, which waits for
// what comes: a handler can be ended only by itself.
func (s *Server) Report(stream pb.ResultService_ReportServer) error {
	hello, err := s.hello(stream)
	if err != nil {
		return err
	}
	line, speaker, err := s.speakers.enter(stream.Context(), hello)
	if err != nil {
		return err
	}
	defer s.speakers.leave(hello.GetAgent(), line)
	in := &incoming{line: line, server: s, stream: stream, hello: hello, speaker: speaker, slots: make(chan struct{}, maxInFlight)}
	ended := make(chan error, 1)
	s.keeping.Go(func() { ended <- in.run() })
	select {
	case err := <-ended:
		return err
	case <-s.stopping:
		in.farewell()
		return nil
	case <-line.recalled:
		in.farewell()
		return nil
	case <-line.ctx.Done():
		return ending(line.ctx)
	}
}

// ending is the status of a stream that has ended. A panic goes on here, where the server's own handling of
// panics sees it.
func ending(ctx context.Context) error {
	err := context.Cause(ctx)
	var broke *panicked
	if errors.As(err, &broke) {
		panic(broke.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

// panicked is a panic beside the handler.
type panicked struct {
	what  any
	stack []byte
}

// Error is all that is known of it.
func (p *panicked) Error() string { return fmt.Sprintf("%v\n%s", p.what, p.stack) }

// hello reads the first message, within 10 s, and returns who speaks.
func (s *Server) hello(stream pb.ResultService_ReportServer) (*pb.Hello, error) {
	type received struct {
		message pb.ReportRequest
		err     error
	}
	first := make(chan *received, 1)
	go func() {
		in := &received{}
		var data []byte
		if data, in.err = receive(stream); in.err == nil && len(data) <= maxHello {
			in.err = proto.Unmarshal(data, &in.message)
		}
		first <- in
	}()
	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	select {
	case <-timeout.C:
		return nil, status.Error(codes.DeadlineExceeded, "no hello within 10 s")
	case <-stream.Context().Done():
		return nil, status.FromContextError(stream.Context().Err()).Err()
	case in := <-first:
		hello := in.message.GetHello()
		switch {
		case in.err != nil:
			return nil, in.err
		case hello == nil:
			return nil, status.Errorf(codes.InvalidArgument, "the first message must be hello, of at most %d bytes", maxHello)
		}
		return hello, s.sink.Admit(stream.Context(), hello)
	}
}
