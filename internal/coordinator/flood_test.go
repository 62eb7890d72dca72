package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestFloodDoesNotStarveOthers is threat T3: one agent sends as fast as it can, what nobody asked for, and never minds
// the answers.
func TestFloodDoesNotStarveOthers(t *testing.T) {
	const others, each = 8, 25
	said := &lines{}
	w := newWorld(t, coordinator.Options{Log: said.log()})
	flooder := w.bare("flooder")
	var honest []*bare
	for i := range others {
		honest = append(honest, w.bare(fmt.Sprint("honest-", i)))
	}
	var ids []string
	for range each {
		request := w.tcp(w.target)
		request.From, request.Timeout = "~r-honest", durationpb.New(5*time.Minute)
		ids = append(ids, w.create(request).GetId())
	}
	before := heap()
	ctx, stop := context.WithCancel(t.Context())
	var sent atomic.Int64
	flooded := make(chan struct{})
	flood := make(chan error, 1)
	go func() { flood <- flooder.flood(ctx, &sent, flooded) }()
	<-flooded

	latencies := make([][]time.Duration, others)
	group := errgroup.Group{}
	for i, a := range honest {
		stream := a.open()
		group.Go(func() error {
			for n, id := range ids {
				began := time.Now()
				err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: spooled(uint64(n+1), a.answer(id))}})
				if err != nil {
					return err
				}
				in, err := stream.Recv()
				if err != nil || in.GetAck() == nil {
					return fmt.Errorf("%v: %w", in, err)
				}
				latencies[i] = append(latencies[i], time.Since(began))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if grown := heap() - before; grown > 256<<20 {
		t.Errorf("the flood holds %d MiB", grown>>20)
	}
	stop()
	if err := <-flood; err != nil {
		t.Errorf("the flood ended: %v", err)
	}
	all := slices.Sorted(slices.Values(slices.Concat(latencies...)))
	t.Logf("%d MiB flooded; acknowledgements: median %v, 99%% %v", sent.Load()>>20, all[len(all)/2], all[len(all)*99/100])
	if p99 := all[len(all)*99/100]; p99 > 5*time.Second {
		t.Errorf("others waited %v for their acknowledgements", p99)
	}
	for _, id := range ids {
		if m, _ := w.end(id); m.GetLedger().GetAnswered() != others {
			t.Errorf("%v", m.GetLedger())
		}
	}
	w.stop()
	if !said.has("kind=AUDIT_KIND_FLOOD agent=flooder") {
		t.Error("it is not in the audit")
	}
}

// flood sends until ctx ends. It says so when it has sent more than an agent may keep on its way: then it was held back.
func (b *bare) flood(ctx context.Context, sent *atomic.Int64, flooded chan<- struct{}) error {
	stream, err := pb.NewResultServiceClient(b.w.dial()).Report(ctx)
	if err == nil {
		err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: b.hello}})
	}
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil { // its answers are thrown away
				return
			}
		}
	}()
	for seq := uint64(1); err == nil; seq += 256 {
		batch := &pb.ResultBatch{}
		for i := range uint64(256) {
			r := b.answer("01arz3ndektsv4rrffq69g5fav")
			r.Steps = []*pb.Step{{Name: strings.Repeat("x", 1800)}}
			batch.Results = append(batch.Results, &pb.SpooledResult{Seq: seq + i, Result: r})
		}
		if err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}); err == nil && sent.Add(256*1800) > 16<<20 && flooded != nil {
			close(flooded)
			flooded = nil
		}
	}
	if errors.Is(err, io.EOF) && ctx.Err() == nil {
		return err // the coordinator ended it
	}
	return nil
}

// TestAFullLogAsksForPatience: what cannot be kept is asked for later, and is then kept.
func TestAFullLogAsksForPatience(t *testing.T) {
	w := newWorld(t, coordinator.Options{Retention: coordinator.Retention{Bytes: 2 << 20}})
	a := w.bare("a")
	request := w.tcp(w.target)
	request.From, request.Timeout = "a", durationpb.New(5*time.Minute)
	id, agents := w.crowd(2500) // it runs, and what runs is not forgotten
	if err := w.answer(t.Context(), id, agents[:1500]); err != nil {
		t.Fatal(err)
	}
	wanted := w.create(request).GetId() // and nothing that came after it is
	if err := w.answer(t.Context(), id, agents[1500:]); !errors.Is(err, bus.ErrFull) {
		t.Fatalf("%v; 2,500 results of more than 1 KiB fit a log of 2 MiB", err)
	}
	stream := a.open()
	answer := func() *pb.ReportResponse {
		if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: spooled(1, a.answer(wanted))}}); err != nil {
			t.Fatal(err)
		}
		in, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	if in := answer(); in.GetRetryAfter().GetDelay().AsDuration() < time.Second {
		t.Fatalf("%v from a full log", in)
	}
	if _, err := w.api.CancelMeasurement(t.Context(), &pb.CancelMeasurementRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); answer().GetAck() == nil; {
		if time.Now().After(deadline) {
			t.Fatal("still full")
		}
	}
}
