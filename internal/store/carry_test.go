package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shortLog is a log that forgets, and the store that has followed it from its beginning.
type shortLog struct {
	t       *testing.T
	store   *Store
	batches []*pb.LogBatch // the first is at position first
	first   uint64
	opened  map[string]bool
}

func (l *shortLog) append(entries ...*pb.LogEntry) uint64 {
	l.t.Helper()
	position := l.first + uint64(len(l.batches))
	apply(l.t, l.store, position, entries...)
	l.batches = append(l.batches, &pb.LogBatch{Entries: entries})
	return position
}

// logged tells whether a coordinator would log an entry: no number twice, none without room, and no name of a
// measurement twice.
func (l *shortLog) logged(e *pb.LogEntry) bool {
	switch e := e.GetEntry().(type) {
	case *pb.LogEntry_Forgotten:
		return false // cut does that
	case *pb.LogEntry_Opened:
		id := e.Opened.GetMeasurement().GetId()
		known := l.opened[id]
		l.opened[id] = true
		return !known
	}
	if r := e.GetResult(); r != nil {
		fate, err := l.store.Fate(r, e.GetPlace())
		if err != nil {
			l.t.Fatal(err)
		}
		room := e.GetPlace() == nil || l.store.Room(r.GetAgent(), e.GetPlace().GetEpoch())
		return room && fate != FateKnown && fate != FateEquivocation
	}
	return true
}

// cut forgets what stands at a position or before it, as retention does.
func (l *shortLog) cut(upTo uint64) {
	l.t.Helper()
	for after, more := "", true; more; {
		entries, next := l.store.Carry(upTo, after, 200)
		if len(entries) > 0 {
			l.append(entries...)
		}
		after, more = next, next != ""
	}
	position := l.append(forgotten(upTo))
	if entries, _ := l.store.Carry(upTo, "", 1); position == upTo || len(entries) > 0 {
		l.t.Errorf("%v is still to be carried over a cut at %d", entries, upTo)
	}
	l.batches, l.first = l.batches[upTo+1-l.first:], upTo+1
}

// TestTheLogAloneRebuildsTheState follows a log that forgets again and again, and at each cut makes another store of
// what is left of the log. Both must hash alike, and read alike.
func TestTheLogAloneRebuildsTheState(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		l := &shortLog{t: t, store: newStore(t), first: 1, opened: map[string]bool{}}
		l.store.db.NoSync = true
		for part := range 5 {
			for _, batch := range history(seed*10+uint64(part), 40) {
				for _, e := range batch.GetEntries() {
					if renameIn(e, fmt.Sprint("part", part)); l.logged(e) {
						l.append(e) // one at a time: a batch must not hold the same number twice
					}
				}
				if r.IntN(10) == 0 {
					if err := l.store.Checkpoint(); err != nil {
						t.Fatal(err)
					}
				}
			}
			end := l.first + uint64(len(l.batches)) - 1
			l.cut(l.first + uint64(r.IntN(int(end-l.first))))
			again := openStore(t, filepath.Join(t.TempDir(), "fold.db"), 1<<20)
			again.db.NoSync = true
			for i, batch := range l.batches {
				apply(t, again, l.first+uint64(i), batch.GetEntries()...)
			}
			sameHash(t, l.store, again)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// renameIn gives the measurement of an entry a name that no other part has.
func renameIn(e *pb.LogEntry, prefix string) {
	switch e := e.GetEntry().(type) {
	case *pb.LogEntry_Opened:
		e.Opened.Measurement.Id = prefix + e.Opened.GetMeasurement().GetId()
	case *pb.LogEntry_Result:
		e.Result.MeasurementId = prefix + e.Result.GetMeasurementId()
	case *pb.LogEntry_Declined:
		e.Declined.MeasurementId = prefix + e.Declined.GetMeasurementId()
	case *pb.LogEntry_Closed:
		e.Closed.MeasurementId = prefix + e.Closed.GetMeasurementId()
	}
}
