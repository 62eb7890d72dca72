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

// maxAckSpan bounds a range that a coordinator acknowledges at once, so that a hostile one cannot keep
// an agent busy.
const maxAckSpan = 1 << 20

// ErrGoAway says that the coordinator is about to stop.
var ErrGoAway = errors.New("the coordinator is going away")

// errResend says that results have to be sent again.
var errResend = errors.New("send again")

// Spool is what the agent's end reads from.
type Spool interface {
	// Next returns what is pending after a number, in order, at most n; if there is nothing, a channel
	// that is closed when there is.
	Next(after uint64, n int) ([]*pb.SpooledResult, <-chan struct{}, error)
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
	resend := make(chan time.Duration, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel() // wakes the sender
		return c.receive(stream, resend)
	})
	group.Go(func() error {
		for {
			err := c.send(ctx, stream, resend)
			if errors.Is(err, errResend) {
				continue
			}
			if err != nil {
				cancel() // receive would wait for ever
			}
			return err
		}
	})
	return group.Wait()
}

// send sends everything that is pending and what comes, until it has to begin again.
func (c *Client) send(ctx context.Context, stream pb.ResultService_ReportClient, resend <-chan time.Duration) error {
	for after := uint64(0); ; {
		batch, more, err := c.Spool.Next(after, maxBatchResults)
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: &pb.ResultBatch{Results: batch}}})
			if errors.Is(err, io.EOF) {
				return nil // the stream is broken, and receive will say why: Recv has one caller
			}
			if err != nil {
				return fmt.Errorf("result stream: %w", err)
			}
			after = batch[len(batch)-1].GetSeq()
			continue // Send blocks when the coordinator does not read: that is the back-pressure
		}
		select {
		case <-more:
		case delay := <-resend:
			return pause(ctx, delay)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits and asks to begin again.
func pause(ctx context.Context, delay time.Duration) error {
	select {
	case <-time.After(delay):
		return errResend
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes acknowledgements until the stream ends.
func (c *Client) receive(stream pb.ResultService_ReportClient, resend chan<- time.Duration) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("result stream: %w", err)
		}
		switch m := in.GetMessage().(type) {
		case *pb.ReportResponse_Ack:
			for _, r := range m.Ack.GetRanges() {
				if r.GetLast()-r.GetFirst() > maxAckSpan {
					return fmt.Errorf("result stream: an acknowledgement of %d to %d", r.GetFirst(), r.GetLast())
				}
				if err := c.Spool.Ack(r.GetFirst(), r.GetLast()); err != nil {
					return err
				}
			}
		case *pb.ReportResponse_RetryAfter:
			delay := min(max(m.RetryAfter.GetDelay().AsDuration(), 0), time.Minute)
			select {
			case resend <- delay:
			default: // one is under way, which sends everything
			}
		case *pb.ReportResponse_GoAway:
			return ErrGoAway
		}
	}
}
