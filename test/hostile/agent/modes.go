package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// modes are all ways to be hostile.
var modes = map[string]behaviour{
	// Results of targets that it never went to: what was heard there is made up.
	"invent": {results: func(h *hostile, job *pb.Job) []*pb.Result {
		return []*pb.Result{fabricate(h.id, job, "elsewhere-canary "+strings.ToLower(noise())+"\r\n")}
	}},
	// The same, with what was once heard there.
	"stale": {results: stale()},
	// The same, and nothing heard.
	"silent": {results: func(h *hostile, job *pb.Job) []*pb.Result { return []*pb.Result{fabricate(h.id, job, "")} }},
	// The same, of another place.
	"elsewhere": {results: func(h *hostile, job *pb.Job) []*pb.Result {
		r := fabricate(h.id, job, "")
		r.Steps[0].Address = "192.0.2.1:80"
		return []*pb.Result{r}
	}},
	// Results that nobody asked for, as fast as it can.
	"unasked": {stream: func(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
		return h.flood(ctx, stream, 1, func(n uint64) *pb.SpooledResult {
			job := &pb.Job{MeasurementId: fmt.Sprintf("01hzzzzzzzzzzzzzzzzzz%05d", n%100_000)}
			return &pb.SpooledResult{Seq: n, Result: fabricate(h.id, job, "")}
		})
	}},
	// The largest batches that there may be, and twice as many results as that, as fast as it can.
	"giant": {stream: func(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
		return h.flood(ctx, stream, 512, func(n uint64) *pb.SpooledResult {
			r := fabricate(h.id, &pb.Job{MeasurementId: "m"}, strings.Repeat("x", 1500))
			return &pb.SpooledResult{Seq: n, Result: r}
		})
	}},
	// Results of as many steps of nothing as fit, which take a hundred times their size where they are read, in batches as
	// heavy as may be; and in heavier ones.
	"stuffed":  {stream: stuffed(5)},
	"bursting": {stream: stuffed(9)},
	// Numbers that are scattered over all that there are, so that none is next to another.
	"scattered": {results: honest, number: func(n uint64) uint64 { return n * 1_000_003 }},
	// The same number for every result.
	"same-number": {results: honest, number: func(uint64) uint64 { return 1 }},
	// Two different results for one job.
	"equivocate": {results: func(h *hostile, job *pb.Job) []*pb.Result {
		return []*pb.Result{fabricate(h.id, job, "yes"), fabricate(h.id, job, "no")}
	}},
	// Every result three times, each under its own number.
	"replay": {results: func(h *hostile, job *pb.Job) []*pb.Result {
		r := fabricate(h.id, job, "")
		return []*pb.Result{r, proto.CloneOf(r), proto.CloneOf(r)}
	}},
	// Results in another agent's name.
	"spoof": {results: func(_ *hostile, job *pb.Job) []*pb.Result { return []*pb.Result{fabricate("honest", job, "")} }},
	// A stream in another agent's name.
	"spoof-hello": {hello: func(hello *pb.Hello) { hello.Agent = "honest" }, results: honest},
	// A session that is long over, and one that is yet to come.
	"old-session": {hello: func(hello *pb.Hello) { hello.Session = 1 }, results: honest},
	"new-session": {hello: func(hello *pb.Hello) { hello.Session += 1000 }, results: honest},
	// It never reads what it is told.
	"deaf": {deaf: true, stream: func(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
		return h.flood(ctx, stream, 16, func(n uint64) *pb.SpooledResult {
			return &pb.SpooledResult{Seq: n, Result: fabricate(h.id, &pb.Job{MeasurementId: "m"}, strings.Repeat("x", 200))}
		})
	}},
	// A stream that never says anything.
	"slow": {stream: func(ctx context.Context, _ *hostile, _ pb.ResultService_ReportClient) error {
		<-ctx.Done()
		return ctx.Err()
	}},
	// Gaps of all numbers that there are.
	"gaps": {stream: gaps},
	// It takes every job and never answers.
	"idle": {},
	// Two processes with one key, each of which says that it is the agent.
	"clone": {results: honest, processes: 2},
	// The same, and neither is ever the process that it was.
	"new-clone": {results: honest, processes: 2, fresh: true},
	// Subjects of other agents and of the log's own, over NATS by hand.
	"subjects": {subjects: true, results: honest},
	// Connections that say a byte a second, and a stream that never says hello.
	"loris": {stream: loris, mute: true},
	// Honest results, of which the first batch is kept in --tape, as it was sent.
	"record": {results: honest, record: true},
	// That batch again, whoever it was sent by.
	"play": {stream: play},
}

// honest is a result as a kind agent makes it, but that it did not look.
func honest(h *hostile, job *pb.Job) []*pb.Result {
	return []*pb.Result{fabricate(h.id, job, "")}
}

// stuffed sends batches of so many results of 30,000 steps each, which are two bytes long.
func stuffed(size int) func(context.Context, *hostile, pb.ResultService_ReportClient) error {
	return func(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
		steps := make([]*pb.Step, 30_000)
		for i := range steps {
			steps[i] = &pb.Step{}
		}
		return h.flood(ctx, stream, size, func(n uint64) *pb.SpooledResult {
			return &pb.SpooledResult{Seq: n, Result: &pb.Result{Agent: h.id, MeasurementId: "m", Steps: steps}}
		})
	}
}

// stale goes there once.
func stale() func(*hostile, *pb.Job) []*pb.Result {
	var once sync.Once
	var heard string
	return func(h *hostile, job *pb.Job) []*pb.Result {
		once.Do(func() { heard = visit(fabricate(h.id, job, "").GetSteps()[0].GetAddress()) })
		return []*pb.Result{fabricate(h.id, job, heard)}
	}
}

// visit connects to an address once, and returns what is said there.
func visit(addr string) string {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return noise()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	text := make([]byte, 256)
	n, _ := conn.Read(text) // what came came
	return string(text[:n])
}

// flood sends batches of so many results as fast as the stream takes them.
func (h *hostile) flood(ctx context.Context, stream pb.ResultService_ReportClient, size int, of func(n uint64) *pb.SpooledResult) error {
	for n := uint64(1); ctx.Err() == nil; {
		batch := make([]*pb.SpooledResult, size)
		for i := range batch {
			batch[i] = of(n)
			n++
		}
		if err := h.send(stream, batch...); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// gaps says that numbers bring no result, which are many, or none, or the wrong way round.
func gaps(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
	for ctx.Err() == nil {
		batch := &pb.ResultBatch{}
		for range 256 {
			first := rand.Uint64()
			batch.Gaps = append(batch.Gaps, &pb.Gap{First: first, Last: first + rand.Uint64N(1<<40), Reason: pb.GapReason(rand.IntN(9))})
		}
		if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}); err != nil {
			return err
		}
		h.note(func(n *report) { n.Sent++ })
	}
	return ctx.Err()
}
