package results

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func start(t *testing.T, service pb.ResultServiceClient, spool Spool) <-chan error {
	client := &Client{Service: service, Hello: hello("a", "key of a").GetHello(), Spool: spool}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- client.Run(ctx) }()
	return done
}

func TestEverythingIsDelivered(t *testing.T) {
	s, spool := &sink{}, newMemory()
	for range 5000 { // more than a window of batches
		spool.add("a")
	}
	spool.next += 100 // they were lost
	spool.gaps = []*pb.Gap{{First: 5001, Last: 5100, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}}
	_, service := connect(t, s)
	start(t, service, spool)
	<-spool.acked
	spool.add("a") // and what comes later
	<-spool.acked
	if all, different := s.has(); all != 5001 || different != 5001 || len(s.gaps) == 0 {
		t.Errorf("%d results were kept, %d different ones, %d gaps", all, different, len(s.gaps))
	}
}

func TestWhatIsNotKeptComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		s, spool := &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) {
			if tries.Add(1) <= 6 {
				return 0, errors.New("not now")
			}
			return 0, nil
		}}, newMemory()
		spool.add("a")
		_, service := connect(t, s)
		began := time.Now()
		start(t, service, spool)
		<-spool.acked
		// 1 s, 1 s, 2 s, 4 s, 8 s, 16 s, and up to a half more each time.
		if waited := time.Since(began); waited < 20*time.Second || waited > 3*maxRetryDelay || tries.Load() != 7 {
			t.Errorf("after %v: %d tries", waited, tries.Load())
		}
	})
}

func TestTheWindowIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spool := newMemory()
		for range 100 * maxBatchResults {
			spool.add("a")
		}
		far := &silent{batches: make(chan *pb.ResultBatch, 100), ack: make(chan *pb.Ack)}
		start(t, dial(t, far), spool)
		synctest.Wait()
		if len(far.batches) != maxInFlight {
			t.Fatalf("%d batches are on their way without an answer, want %d", len(far.batches), maxInFlight)
		}
		far.ack <- &pb.Ack{Ranges: []*pb.SeqRange{{First: 257, Last: 511}}} // all but one of the second batch
		synctest.Wait()
		if len(far.batches) != maxInFlight {
			t.Errorf("a batch that is not quite acknowledged made room: %d were sent", len(far.batches))
		}
		far.ack <- &pb.Ack{Ranges: []*pb.SeqRange{{First: 1, Last: 1}, {First: 512, Last: 512}}} // out of order
		synctest.Wait()
		if len(far.batches) != maxInFlight+1 {
			t.Errorf("%d batches were sent after one was acknowledged", len(far.batches))
		}
	})
}

// silent is a coordinator that answers when it is told to.
type silent struct {
	pb.UnimplementedResultServiceServer

	batches chan *pb.ResultBatch
	ack     chan *pb.Ack
}

// Report implements pb.ResultServiceServer.
func (s *silent) Report(stream pb.ResultService_ReportServer) error {
	go func() {
		for {
			select {
			case ack := <-s.ack:
				_ = stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: ack}})
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		in, err := stream.Recv()
		if err != nil {
			return err
		}
		if in.GetBatch() != nil {
			s.batches <- in.GetBatch()
		}
	}
}

// unreadable is a spool whose disk has failed.
type unreadable struct{}

func (unreadable) Next(uint64, int) (*pb.ResultBatch, <-chan struct{}, error) {
	return nil, nil, errors.New("input/output error")
}

func (unreadable) Ack(uint64, uint64) error { return nil }

func TestASpoolThatCannotBeReadEndsTheSession(t *testing.T) {
	_, service := connect(t, &sink{})
	if err := <-start(t, service, unreadable{}); err == nil {
		t.Error("no reason was given")
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
	server.Wait()
}

func TestAHostileCoordinatorForgetsNothing(t *testing.T) {
	many := &pb.Ack{}
	for range maxRanges + 1 {
		many.Ranges = append(many.Ranges, &pb.SeqRange{First: 1, Last: 1})
	}
	for _, c := range []struct {
		what string
		ack  *pb.Ack
	}{
		{"everything that can be", &pb.Ack{Ranges: []*pb.SeqRange{{First: 0, Last: 1 << 62}}}},
		{"the number after the last that was sent", &pb.Ack{Ranges: []*pb.SeqRange{{First: 1, Last: 3}}}},
		{"a number below the first that was sent", &pb.Ack{Ranges: []*pb.SeqRange{{First: 0, Last: 1}}}},
		{"what was sent, and what was not", &pb.Ack{Ranges: []*pb.SeqRange{{First: 1, Last: 1}, {First: 9, Last: 9}}}},
		{"a range from its end to its beginning", &pb.Ack{Ranges: []*pb.SeqRange{{First: 2, Last: 1}}}},
		{"more ranges than a batch has numbers", many},
	} {
		t.Run(c.what, func(t *testing.T) {
			spool := newMemory()
			spool.add("a")
			spool.add("a")
			far := &silent{batches: make(chan *pb.ResultBatch, 1), ack: make(chan *pb.Ack, 1)}
			done := start(t, dial(t, far), spool)
			<-far.batches
			far.ack <- c.ack
			if err := <-done; err == nil || status.Code(err) == codes.Canceled {
				t.Errorf("%v; want a reason", err)
			}
			if len(spool.ranges) > 0 {
				t.Errorf("the spool forgot %v", spool.ranges)
			}
		})
	}
}

func TestWithout(t *testing.T) {
	for _, c := range []struct {
		what        string
		first, last uint64
		want        string
	}{
		{"before all", 1, 9, "[10-19 30-39 50-59]"},
		{"between two", 20, 29, "[10-19 30-39 50-59]"},
		{"the beginning of one", 5, 12, "[13-19 30-39 50-59]"},
		{"the middle of one", 32, 34, "[10-19 30-31 35-39 50-59]"},
		{"the end of one and the beginning of the next", 15, 33, "[10-14 34-39 50-59]"},
		{"exactly one", 30, 39, "[10-19 50-59]"},
		{"all", 1, 100, "[]"},
	} {
		list := without([]*pb.SeqRange{{First: 10, Last: 19}, {First: 30, Last: 39}, {First: 50, Last: 59}}, &pb.SeqRange{First: c.first, Last: c.last})
		words := []string{}
		for _, r := range list {
			words = append(words, fmt.Sprintf("%d-%d", r.GetFirst(), r.GetLast()))
		}
		if got := fmt.Sprint(words); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestALongGapIsSentInPieces(t *testing.T) {
	const long = 300 * maxGap // more pieces than a batch has gaps
	gaps := []*pb.Gap{{First: 1, Last: long}}
	first := bounded(&pb.ResultBatch{Results: []*pb.SpooledResult{{Seq: long + 1}}, Gaps: gaps}, 0)
	if len(first.GetGaps()) != maxBatchGaps || len(first.GetResults()) != 0 || first.GetGaps()[maxBatchGaps-1].GetLast() != maxBatchGaps*maxGap {
		t.Errorf("the first batch: %d gaps, %d results", len(first.GetGaps()), len(first.GetResults()))
	}
	rest := bounded(&pb.ResultBatch{Results: []*pb.SpooledResult{{Seq: long + 1}}, Gaps: gaps}, maxBatchGaps*maxGap)
	if n := len(rest.GetGaps()); n != 300-maxBatchGaps || len(rest.GetResults()) != 1 || rest.GetGaps()[0].GetFirst() != maxBatchGaps*maxGap+1 || rest.GetGaps()[n-1].GetLast() != long {
		t.Errorf("the second batch: %v", rest)
	}
	if _, _, err := contents(rest); err != nil {
		t.Error(err)
	}
}
