package coordinator

import (
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestThreeAreAskedForOneMeasurement makes the same request of all three coordinators at once, until it has
// happened some times that two of them wrote it into the log.
func TestThreeAreAskedForOneMeasurement(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	target := accepting(t)
	var ids []string
	for twice, n := 0, 0; twice < 3; n++ {
		if n == 200 {
			t.Fatal("never have two of them opened it: this shows nothing")
		}
		r := &pb.CreateMeasurementRequest{Spec: tcpSpec(target), Timeout: durationpb.New(20 * time.Second), Id: newID()}
		ids = append(ids, r.GetId())
		from, _ := w.c[0].store.Position()
		var all [3]*pb.Measurement
		var asking sync.WaitGroup
		for i, conn := range w.conns {
			asking.Go(func() {
				got, err := pb.NewMeasurementServiceClient(conn).CreateMeasurement(t.Context(), proto.CloneOf(r))
				if err != nil {
					t.Errorf("%s: %v", name(i), err)
				}
				all[i] = got.GetMeasurement()
			})
		}
		asking.Wait()
		for i, m := range all {
			if m.GetId() != r.GetId() || !proto.Equal(m.GetCreateTime(), all[0].GetCreateTime()) {
				t.Errorf("at %s %v, at %s %v", name(i), m, name(0), all[0])
			}
		}
		if w.opened(from, r.GetId()) > 1 {
			twice++
		}
	}
	w.equal(0, 1, 2)
	for _, id := range ids {
		if l := w.end(1, id).GetLedger(); l.GetAnswered() != 3 {
			t.Errorf("%s: %v: want an answer of each", id, l)
		}
	}
}

// opened counts how often the log opens a measurement, after a position.
func (w *trio) opened(after uint64, id string) (n int) {
	w.t.Helper()
	bounds, err := w.c[0].history.Bounds(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	enough := errors.New("enough")
	err = w.c[0].history.Fold(w.t.Context(), after, func(m bus.Message) error {
		for _, e := range m.Batch.GetEntries() {
			if e.GetOpened().GetMeasurement().GetId() == id {
				n++
			}
		}
		if m.Position >= bounds.Last {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		w.t.Fatal(err)
	}
	return n
}
