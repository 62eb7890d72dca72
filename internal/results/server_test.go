package results

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestHello(t *testing.T) {
	for _, c := range []struct {
		what  string
		first *pb.ReportRequest
		code  codes.Code
	}{
		{"a credential of somebody else", hello("a", "key of b"), codes.Unauthenticated},
		{"no credential", hello("a", ""), codes.Unauthenticated},
		{"a batch before hello", batchOf(1), codes.InvalidArgument},
		{"an empty message", &pb.ReportRequest{}, codes.InvalidArgument},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, service := connect(t, &sink{})
			if _, err := open(t, service, c.first).Recv(); status.Code(err) != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		_, service := connect(t, &sink{})
		stream := open(t, service)
		began := time.Now()
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded || time.Since(began) != helloTimeout {
			t.Errorf("silence: %v after %v", err, time.Since(began))
		}
	})
}

func TestABatchIsBounded(t *testing.T) {
	many := make([]uint64, maxBatchResults+1)
	for i := range many {
		many[i] = uint64(i + 1)
	}
	large := batchOf(1, 2, 3, 4, 5, 6, 7, 8)
	for _, r := range large.GetBatch().GetResults() {
		r.GetResult().MeasurementId = strings.Repeat("x", maxBatchBytes/8)
	}
	gap := func(first, last uint64, reason pb.GapReason) *pb.ReportRequest {
		batch := batchOf(5, 6)
		batch.GetBatch().Gaps = []*pb.Gap{{First: first, Last: last, Reason: reason}}
		return batch
	}
	full, unasked := pb.GapReason_GAP_REASON_SPOOL_FULL, pb.GapReason_GAP_REASON_UNASKED
	for _, c := range []struct {
		what  string
		batch *pb.ReportRequest
	}{
		{"too many results", batchOf(many...)},
		{"too many bytes", large},
		{"a number twice", batchOf(1, 2, 2)},
		{"the number 0", batchOf(0)},
		{"a gap from its end to its beginning", gap(9, 8, full)},
		{"a gap over results of the same batch", gap(4, 5, full)},
		{"a gap of more numbers than a gap may have", gap(10, 10+maxGap, full)},
		{"a gap for a reason that only the coordinator can have", gap(10, 11, unasked)},
		{"a second hello", hello("a", "key of a")},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := &sink{}
			_, service := connect(t, s)
			if _, err := open(t, service, hello("a", "key of a"), c.batch).Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v", err)
			}
			if all, _ := s.has(); all != 0 {
				t.Errorf("%d results were kept", all)
			}
		})
	}
}

func TestAcknowledgementsAreRanges(t *testing.T) {
	_, service := connect(t, &sink{})
	batch := batchOf(1, 2, 3, 7, 9, 10)
	batch.GetBatch().Gaps = []*pb.Gap{{First: 4, Last: 6}, {First: 11, Last: 11 + maxGap - 1}}
	got := fmt.Sprint(acked(t, open(t, service, hello("a", "key of a"), batch)))
	want := fmt.Sprint([]*pb.SeqRange{{First: 1, Last: 7}, {First: 9, Last: 10}, {First: 11, Last: 11 + maxGap - 1}})
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSessions(t *testing.T) {
	s := &sink{}
	server, service := connect(t, s)
	first := open(t, service, session(5), batchOf(1))
	acked(t, first)
	second := open(t, service, session(6), batchOf(2))
	acked(t, second)
	if _, err := first.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the stream of the older session: %v", err)
	}
	late := open(t, service, session(5))
	if _, err := late.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("a new stream of the older session: %v", err)
	}
	again := open(t, service, session(6), batchOf(3)) // its connection broke, and nobody noticed
	acked(t, again)
	if _, err := second.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the stream before, of the same session: %v", err)
	}
	if server.Fence("a", 6) || server.Fence("b", 9) {
		t.Error("a session that is no newer, or an agent without a stream, ends a stream")
	}
	send(t, again, batchOf(4))
	acked(t, again)
	if !server.Fence("a", 7) {
		t.Error("a newer session ends no stream")
	}
	if _, err := again.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("after a newer session was given out: %v", err)
	}
	newest := open(t, service, session(7), batchOf(5))
	acked(t, newest)
	server.Cut("nobody", "revoked")
	server.Cut("a", "revoked")
	if _, err := newest.Recv(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("after the cut: %v", err)
	}
}

// TestRecall: every agent is asked to connect again, each at a time of its own, and may.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, service := connect(t, &sink{})
		server.Recall(time.Second) // nobody is there
		began := time.Now()
		var streams []pb.ResultService_ReportClient
		for i := range 20 {
			agent := fmt.Sprint("agent-", i)
			streams = append(streams, open(t, service, hello(agent, "key of "+agent), batchOf(1)))
			acked(t, streams[i])
		}
		server.Recall(10 * time.Second)
		recalled := make(chan time.Duration, len(streams))
		for _, stream := range streams {
			go func() {
				m, err := stream.Recv()
				if err != nil || m.GetGoAway() == nil {
					t.Errorf("%v, %v", m, err)
				}
				recalled <- time.Since(began)
			}()
		}
		var at []time.Duration
		for range streams {
			at = append(at, <-recalled)
		}
		slices.Sort(at)
		if first, last := at[0], at[len(at)-1]; last > 11*time.Second || len(slices.Compact(at)) < len(streams)/2 {
			t.Errorf("20 agents were recalled from %v to %v, at %d times", first, last, len(slices.Compact(at)))
		}
		acked(t, open(t, service, hello("agent-1", "key of agent-1"), batchOf(2)))
	})
}

// send sends one more message.
func send(t *testing.T, stream pb.ResultService_ReportClient, m *pb.ReportRequest) {
	t.Helper()
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
}

func TestAStreamThatHangsIsCutAllTheSame(t *testing.T) {
	entered := make(chan struct{}, maxInFlight)
	s := &sink{keep: func(ctx context.Context, _ *pb.Hello, _ *pb.ResultBatch) (int, error) {
		entered <- struct{}{}
		<-ctx.Done() // a log that does not answer
		return 0, ctx.Err()
	}}
	server, service := connect(t, s)
	stream := open(t, service, session(1), batchOf(1))
	<-entered
	server.Cut("a", "revoked")
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
	server.Wait()
}

func TestBatchesAreKeptBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under, over atomic.Int32
		pass := make(chan struct{})
		_, service := connect(t, &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) {
			if under.Add(1) > maxInFlight {
				over.Add(1)
			}
			<-pass
			under.Add(-1)
			return 0, nil
		}})
		stream := open(t, service, session(1))
		for seq := range uint64(3 * maxInFlight) {
			send(t, stream, batchOf(seq+1))
		}
		synctest.Wait()
		if under.Load() != maxInFlight {
			t.Errorf("%d batches are under way, want %d", under.Load(), maxInFlight)
		}
		close(pass)
		for range 3 * maxInFlight {
			acked(t, stream)
		}
		if n := over.Load(); n != 0 {
			t.Errorf("%d batches came when as many as may were under way", n)
		}
	})
}

func TestBytesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under atomic.Int32
		pass := make(chan struct{})
		s := &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) {
			under.Add(1)
			<-pass
			return 0, nil
		}}
		service := dial(t, NewServer(s, Limits{InFlight: 500 << 10}))
		var streams []pb.ResultService_ReportClient
		for i := range 4 {
			agent := fmt.Sprint("agent-", i)
			batch := batchOf(1)
			batch.GetBatch().GetResults()[0].GetResult().MeasurementId = strings.Repeat("x", 100<<10)
			streams = append(streams, open(t, service, hello(agent, "key of "+agent), batch))
		}
		synctest.Wait()
		if under.Load() != 2 {
			t.Errorf("%d batches of 100 KiB are under way, want the 2 that fit 500 KiB of memory", under.Load())
		}
		close(pass)
		for _, stream := range streams {
			acked(t, stream)
		}
	})
}

func TestAllowance(t *testing.T) {
	for _, c := range []struct {
		what   string
		limits Limits
		wasted int // of each batch's 100 results
		takes  time.Duration
	}{
		{"within it nobody waits", Limits{}, 0, 0},
		{"results", Limits{Results: 10, ResultBurst: 200}, 0, 80 * time.Second},
		{"bytes", Limits{Bytes: 100, ByteBurst: 1000}, 0, 100 * time.Second},
		{"what nobody wants costs more", Limits{Results: 100, ResultBurst: 1000}, 10, 20 * time.Second},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) { return c.wasted, nil }}
				service := dial(t, NewServer(s, c.limits))
				began := time.Now()
				for n := range uint64(11) { // a new stream brings no new allowance
					seqs := make([]uint64, 100)
					for i := range seqs {
						seqs[i] = n*100 + uint64(i) + 1
					}
					acked(t, open(t, service, session(n), batchOf(seqs...)))
				}
				// A batch is taken before it is paid for, so that the last one is free.
				took := time.Since(began)
				if took < c.takes*9/10 || took > c.takes*11/10+time.Second {
					t.Errorf("1,100 results took %v, want about %v", took, c.takes)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if (s.flood > 0) != (c.takes > 0) {
					t.Errorf("%d floods", s.flood)
				}
			})
		})
	}
}

func TestAPanicIsTheServersToHandle(t *testing.T) {
	s := &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) { panic("the sink broke") }}
	server := NewServer(s, Limits{})
	caught := make(chan any, 1)
	service := dial(t, catching{ResultServiceServer: server, caught: caught})
	stream := open(t, service, session(1), batchOf(1))
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	if what := fmt.Sprint(<-caught); !strings.Contains(what, "the sink broke") || !strings.Contains(what, "server_test.go") {
		t.Errorf("%s; want what broke, and where", what)
	}
}

// catching stands in for the interceptor that handles panics.
type catching struct {
	pb.ResultServiceServer

	caught chan any
}

// Report implements pb.ResultServiceServer.
func (c catching) Report(stream pb.ResultService_ReportServer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.caught <- p
			err = errors.New("broken")
		}
	}()
	return c.ResultServiceServer.Report(stream)
}

func TestTheEndOfAStreamWaitsForItsAnswers(t *testing.T) {
	pass := make(chan struct{})
	s := &sink{keep: func(context.Context, *pb.Hello, *pb.ResultBatch) (int, error) {
		<-pass
		return 0, nil
	}}
	_, service := connect(t, s)
	stream := open(t, service, session(1), batchOf(1), batchOf(2))
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(pass)
	acked(t, stream)
	acked(t, stream)
}
