// Package results is the agents' result stream, both ends of it.
//
// The agent says hello and sends what its spool holds; the coordinator makes it durable and says which
// of it is. Only what was acknowledged may be forgotten: a stream that ends early loses nothing,
// because the agent sends the rest again.
package results

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxResult bounds one result, in bytes.
	maxResult = 64 << 10
	// maxBatchResults bounds one batch, in results.
	maxBatchResults = 256
	// helloTimeout bounds the wait for the first message of a stream.
	helloTimeout = 10 * time.Second
	// retryDelay is how long an agent waits when its results could not be made durable.
	retryDelay = time.Second
)

// Sink is where results go.
type Sink interface {
	// Verify says whether a credential is the agent's.
	Verify(agent, credential string) bool
	// Keep makes the results of one agent durable, or says for good that it will not have them: then
	// they are left out without an error. After an error they may be sent again.
	Keep(ctx context.Context, agent string, results []*pb.Result) error
	// Refused hears of a result that is too large, or of another agent than the one that sent it.
	Refused(agent string, result *pb.Result)
}

// Server is the coordinator's end.
type Server struct {
	pb.UnimplementedResultServiceServer

	sink     Sink
	stopping chan struct{}
	stop     sync.Once
}

// NewServer returns a server that hands results to sink.
func NewServer(sink Sink) *Server {
	return &Server{sink: sink, stopping: make(chan struct{})}
}

// GoAway ends all streams after asking the agents to reconnect; a stream would otherwise last as long
// as its agent.
func (s *Server) GoAway() { s.stop.Do(func() { close(s.stopping) }) }

// Report implements pb.ResultServiceServer.
func (s *Server) Report(stream pb.ResultService_ReportServer) error {
	agent, err := s.hello(stream)
	if err != nil {
		return err
	}
	incoming := make(chan received)
	ctx := stream.Context()
	go receive(ctx, stream, incoming)
	for {
		select {
		case <-s.stopping:
			return stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_GoAway{GoAway: &pb.GoAway{}}})
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case in := <-incoming:
			if errors.Is(in.err, io.EOF) {
				return nil
			}
			if in.err != nil {
				return in.err
			}
			if err := s.take(stream, agent, in.message.GetBatch()); err != nil {
				return err
			}
		}
	}
}

type received struct {
	message *pb.ReportRequest
	err     error
}

// receive hands what comes to the handler, which may have other reasons to end. It ends with the
// stream.
func receive(ctx context.Context, stream pb.ResultService_ReportServer, incoming chan<- received) {
	for {
		message, err := stream.Recv()
		select {
		case incoming <- received{message, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// hello reads the first message, within 10 s, and returns who speaks.
func (s *Server) hello(stream pb.ResultService_ReportServer) (string, error) {
	ctx, cancel := context.WithTimeout(stream.Context(), helloTimeout)
	defer cancel()
	first := make(chan received, 1)
	go func() {
		message, err := stream.Recv()
		first <- received{message, err}
	}()
	select {
	case <-ctx.Done():
		return "", status.Error(codes.DeadlineExceeded, "no hello within 10 s")
	case in := <-first:
		hello := in.message.GetHello()
		switch {
		case in.err != nil:
			return "", in.err
		case hello == nil:
			return "", status.Error(codes.InvalidArgument, "the first message must be hello")
		case !s.sink.Verify(hello.GetAgent(), hello.GetCredential()):
			return "", status.Errorf(codes.Unauthenticated, "the credential is not that of agent %.63q: register first", hello.GetAgent())
		}
		return hello.GetAgent(), nil
	}
}

// take makes one batch durable and acknowledges it.
func (s *Server) take(stream pb.ResultService_ReportServer, agent string, batch *pb.ResultBatch) error {
	if batch == nil || len(batch.GetResults()) > maxBatchResults {
		return status.Errorf(codes.InvalidArgument, "after hello come batches of at most %d results", maxBatchResults)
	}
	keep := make([]*pb.Result, 0, len(batch.GetResults()))
	for _, r := range batch.GetResults() {
		// What can never be kept is acknowledged all the same: it would come again for ever.
		if r.GetResult().GetAgent() == agent && proto.Size(r.GetResult()) <= maxResult {
			keep = append(keep, r.GetResult())
			continue
		}
		s.sink.Refused(agent, r.GetResult())
	}
	if err := s.sink.Keep(stream.Context(), agent, keep); err != nil {
		return stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_RetryAfter{
			RetryAfter: &pb.RetryAfter{Delay: durationpb.New(retryDelay)},
		}})
	}
	return stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: ranges(batch.GetResults())}}})
}

// ranges are the numbers of a batch, joined where they follow each other.
func ranges(batch []*pb.SpooledResult) []*pb.SeqRange {
	var list []*pb.SeqRange
	for _, r := range batch {
		if n := len(list); n > 0 && list[n-1].GetLast()+1 == r.GetSeq() {
			list[n-1].Last = r.GetSeq()
			continue
		}
		list = append(list, &pb.SeqRange{First: r.GetSeq(), Last: r.GetSeq()})
	}
	return list
}
