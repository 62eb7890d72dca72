package results

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// retryDelay and maxRetryDelay are how long an agent waits when its results could not be made durable: the
	// longer it has been so, the longer.
	retryDelay, maxRetryDelay = time.Second, time.Minute
	// wastedCost is what a result that nobody wants costs of the allowance, in results: to find that out may
	// take a look at the disk.
	wastedCost = 20
	// honestWeight is more than what an honest batch takes in memory, in times its size.
	honestWeight = 16
)

// incoming is what one stream brings.
type incoming struct {
	*line
	server  *Server
	stream  pb.ResultService_ReportServer
	hello   *pb.Hello
	speaker *speaker
	slots   chan struct{} // has one for each batch under way, and for the next

	sending sync.Mutex // a stream takes one Send at a time
	failing time.Time  // since when nothing could be made durable; zero if it can
}

// run takes batches until the stream ends, and returns its status. Where there is no room it does not read: then
// HTTP/2's windows close, and the agent waits.
func (in *incoming) run() error {
	defer in.guard()
	for {
		if err := in.room(); err != nil {
			return ending(in.ctx)
		}
		data, err := receive(in.stream)
		if errors.Is(err, io.EOF) {
			return in.finish()
		}
		if err != nil {
			return err
		}
		if err := in.take(data); err != nil {
			return err
		}
	}
}

// receive reads the next message as bytes: what it takes once it is decoded is looked at first.
func receive(stream pb.ResultService_ReportServer) ([]byte, error) {
	var raw emptypb.Empty // all of the message is unknown to it
	if err := stream.RecvMsg(&raw); err != nil {
		return nil, err
	}
	return raw.ProtoReflect().GetUnknown(), nil
}

// take decodes a batch when there is room for it, and has it made durable. The error is the status that ends the stream.
func (in *incoming) take(data []byte) error {
	weight := requestShape().weigh(data) + len(data)
	if weight > maxWeight {
		return status.Errorf(codes.InvalidArgument, "a batch that takes %d bytes of memory; at most %d", weight, maxWeight)
	}
	if in.server.flight.Acquire(in.ctx, int64(weight)) != nil {
		return ending(in.ctx)
	}
	batch, numbers, err := in.read(data, weight)
	if err != nil {
		in.server.flight.Release(int64(weight))
		return status.Error(codes.InvalidArgument, err.Error())
	}
	in.server.keeping.Go(func() {
		defer in.guard()
		in.keep(batch, numbers, int64(weight))
	})
	return nil
}

// read decodes a batch, and takes it from the agent's allowance: one that is heavier than its bytes are honestly costs as
// much time as it is heavy.
func (in *incoming) read(data []byte, weight int) (*pb.ResultBatch, []*pb.SeqRange, error) {
	var message pb.ReportRequest
	if err := proto.Unmarshal(data, &message); err != nil {
		return nil, nil, err
	}
	batch := message.GetBatch()
	if batch == nil {
		return nil, nil, errors.New("after hello come batches")
	}
	numbers, bytes, err := contents(batch)
	if err != nil {
		return nil, nil, err
	}
	in.speaker.charge(1+len(batch.GetResults())+len(batch.GetGaps()), max(bytes, weight/honestWeight))
	return batch, numbers, nil
}

// room waits until the next batch may be read: what came is paid for, the stream has few enough under way, and so
// have all of them.
func (in *incoming) room() error {
	if wait := in.speaker.owes(); wait > 0 {
		in.server.sink.Flooding(in.hello.GetAgent())
		select {
		case <-time.After(wait):
		case <-in.ctx.Done():
			return in.ctx.Err()
		}
	}
	select {
	case in.slots <- struct{}{}:
	case <-in.ctx.Done():
		return in.ctx.Err()
	}
	if err := in.server.flight.Acquire(in.ctx, 1); err != nil {
		return err
	}
	in.server.flight.Release(1) // what comes is not known yet: it is counted when it is
	return nil
}

// keep makes a batch durable and acknowledges it, in whatever order that is done.
func (in *incoming) keep(batch *pb.ResultBatch, numbers []*pb.SeqRange, weight int64) {
	wasted, err := in.hand(batch, weight)
	in.speaker.charge(wasted*wastedCost, 0)
	if in.ctx.Err() == nil {
		in.answer(numbers, err)
	}
	<-in.slots
}

// hand hands a batch to the sink. Its memory counts until then, not until the agent has read the answer.
func (in *incoming) hand(batch *pb.ResultBatch, weight int64) (int, error) {
	defer in.server.flight.Release(weight)
	return in.server.sink.Keep(in.ctx, in.hello, batch)
}

// answer acknowledges numbers, or asks for them later. An agent that cannot be told hears of it when it has
// connected again.
func (in *incoming) answer(numbers []*pb.SeqRange, err error) {
	in.sending.Lock()
	defer in.sending.Unlock()
	if err == nil {
		in.failing = time.Time{}
		_ = in.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: numbers}}})
		return
	}
	if in.failing.IsZero() {
		in.failing = time.Now()
	}
	delay := min(max(time.Since(in.failing), retryDelay), maxRetryDelay)
	_ = in.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_RetryAfter{
		RetryAfter: &pb.RetryAfter{Delay: durationpb.New(delay)},
	}})
}

// finish waits for what is under way, after the agent has said that it sends no more.
func (in *incoming) finish() error {
	for range maxInFlight - 1 { // the one of the batch that did not come is held
		select {
		case in.slots <- struct{}{}:
		case <-in.ctx.Done():
			return ending(in.ctx)
		}
	}
	return nil
}

// farewell asks the agent to go to another coordinator. One that does not read is not waited for.
func (in *incoming) farewell() {
	said := make(chan struct{})
	go func() {
		defer close(said)
		in.sending.Lock()
		defer in.sending.Unlock()
		_ = in.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_GoAway{GoAway: &pb.GoAway{}}})
	}()
	timeout := time.NewTimer(farewellTimeout)
	defer timeout.Stop()
	select {
	case <-said:
	case <-timeout.C:
	case <-in.ctx.Done():
	}
}

// guard ends the stream after a panic, which goes on in its handler.
func (in *incoming) guard() {
	if p := recover(); p != nil {
		in.end(&panicked{p, debug.Stack()})
	}
}
