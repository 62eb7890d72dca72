package results

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ErrGoAway says that the coordinator is about to stop.
var ErrGoAway = errors.New("the coordinator is going away")

// Spool is what the agent's end reads from.
type Spool interface {
	// Next returns what is pending after a number, in order, results and gaps, at most n of each; if there
	// is nothing, a channel that is closed when there is. Nothing that is pending is left out before the
	// last number of a batch.
	Next(after uint64, n int) (*pb.ResultBatch, <-chan struct{}, error)
	// Ack forgets first to last.
	Ack(first, last uint64) error
}

// Client is the agent's end.
type Client struct {
	// Service is the connection to the coordinator.
	Service pb.ResultServiceClient
	// Hello introduces the agent.
	Hello *pb.Hello
	// Spool has the results.
	Spool Spool
	// Connected is called when the stream stands. Default: nothing.
	Connected func()
}

// Run delivers results until ctx ends or the stream breaks; it always returns an error then, ErrGoAway
// if the coordinator asked for it.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Service.Report(ctx)
	if err != nil {
		return fmt.Errorf("result stream: %w", err)
	}
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: c.Hello}}); err != nil {
		_, reason := stream.Recv() // after a failed Send only Recv knows why
		return fmt.Errorf("result stream: %w", errors.Join(err, reason))
	}
	if c.Connected != nil {
		c.Connected()
	}
	w := newWindow()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel() // wakes the sender
		return c.receive(stream, w)
	})
	group.Go(func() error {
		err := c.send(ctx, stream, w)
		if err != nil {
			cancel() // receive would wait for ever
		}
		return err
	})
	return group.Wait()
}

// send sends everything that is pending and what comes, at most maxInFlight batches ahead of their answers.
func (c *Client) send(ctx context.Context, stream pb.ResultService_ReportClient, w *window) error {
	for after := uint64(0); ; {
		pause, room := w.look()
		if pause > 0 {
			if err := wait(ctx, time.After(pause)); err != nil {
				return err
			}
			w.again()
			after = 0
			continue
		}
		if !room {
			if err := wait(ctx, w.changed); err != nil {
				return err
			}
			continue
		}
		batch, more, err := c.Spool.Next(after, maxBatchResults)
		if err != nil {
			return err
		}
		if len(batch.GetResults())+len(batch.GetGaps()) == 0 {
			select {
			case <-more:
			case <-w.changed:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if after, err = deliver(ctx, stream, w, bounded(batch, after)); err != nil {
			return err
		}
	}
}

// deliver sends a batch and returns its last number. Send blocks when the coordinator does not read: that is the
// back-pressure.
func deliver(ctx context.Context, stream pb.ResultService_ReportClient, w *window, batch *pb.ResultBatch) (last uint64, err error) {
	numbers, _, err := contents(batch)
	if err != nil {
		return 0, fmt.Errorf("the spool gave %w", err)
	}
	last = numbers[len(numbers)-1].GetLast()
	w.send(numbers)
	err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}})
	if errors.Is(err, io.EOF) {
		<-ctx.Done() // it is broken, and receive says why: Recv has one caller
		return last, ctx.Err()
	}
	if err != nil {
		return last, fmt.Errorf("result stream: %w", err)
	}
	return last, nil
}

// wait waits for one of a channel.
func wait[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes acknowledgements until the stream ends.
func (c *Client) receive(stream pb.ResultService_ReportClient, w *window) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("result stream: %w", err)
		}
		switch m := in.GetMessage().(type) {
		case *pb.ReportResponse_Ack:
			if err := c.acknowledged(w, m.Ack); err != nil {
				return fmt.Errorf("result stream: %w", err)
			}
		case *pb.ReportResponse_RetryAfter:
			w.retry(m.RetryAfter.GetDelay().AsDuration())
		case *pb.ReportResponse_GoAway:
			return ErrGoAway
		}
	}
}

// acknowledged forgets what is durable, which must have been sent: nothing that a coordinator says makes an agent
// lose what the coordinator has not seen.
func (c *Client) acknowledged(w *window, ack *pb.Ack) error {
	if err := w.check(ack); err != nil {
		return err
	}
	for _, r := range ack.GetRanges() {
		if err := c.Spool.Ack(r.GetFirst(), r.GetLast()); err != nil {
			return err
		}
	}
	w.ack(ack)
	return nil
}
