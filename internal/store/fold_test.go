package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// FuzzFold folds one random log in two ways: straight, and with each message coming again at random, every entry twice
// where it is harmless, checkpoints and restarts between. The state must hash alike.
func FuzzFold(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, seed*seed)
	}
	f.Fuzz(func(t *testing.T, seed, how uint64) {
		path := filepath.Join(t.TempDir(), "fold.db")
		straight, shaken := newStore(t), openStore(t, path, 0)
		straight.db.NoSync, shaken.db.NoSync = true, true
		r := rand.New(rand.NewPCG(how, 2))
		for i, batch := range history(seed, 60) {
			apply(t, straight, uint64(i+1), batch.GetEntries()...)
			apply(t, shaken, uint64(i+1), twice(r, batch)...)
			switch r.IntN(8) {
			case 0:
				apply(t, shaken, uint64(1+r.IntN(i+1)), batch.GetEntries()...) // an old position
			case 1:
				if err := shaken.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			case 2:
				if err := shaken.Close(); err != nil {
					t.Fatal(err)
				}
				shaken = openStore(t, path, 0)
				shaken.db.NoSync = true
			}
		}
		sameHash(t, straight, shaken)
		if err := shaken.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// twice repeats entries at random. An event would be a second one.
func twice(r *rand.Rand, batch *pb.LogBatch) (entries []*pb.LogEntry) {
	for _, e := range batch.GetEntries() {
		entries = append(entries, e)
		if e.GetAudit() == nil && (e.GetResult() == nil || e.GetPlace() != nil) && r.IntN(3) == 0 {
			entries = append(entries, proto.CloneOf(e))
		}
	}
	return entries
}

func TestHashSeesEveryEntry(t *testing.T) {
	entries := []*pb.LogEntry{
		opened("m", "a", "b", "c", "d"),
		placed(result("m", "a"), 1, 1),
		declined("m", "b", pb.Failure_FAILURE_AGENT_OVERLOADED),
		gaps("a", 1, 3, 4, pb.GapReason_GAP_REASON_SPOOL_FULL),
		gaps("a", 1, 2, 2, pb.GapReason_GAP_REASON_UNASKED),
		enrolment("a", 1, 0),
		enrolment("a", 1, 7),
		{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_FLOOD}}},
		closedEntry("m", false),
		placed(result("m", "c"), 1, 9),
		forgotten(1),
	}
	s, seen := newStore(t), map[string]int{}
	for i, e := range entries {
		apply(t, s, uint64(i+1), e)
		_, hash := s.Hash()
		if before, ok := seen[string(hash)]; ok {
			t.Errorf("after entry %d the state hashes as after %d", i, before)
		}
		seen[string(hash)] = i
	}
}

func TestFate(t *testing.T) {
	other := func(e *pb.LogEntry) *pb.LogEntry { e.Place.Digest = bytes.Repeat([]byte{7}, 32); return e }
	for _, c := range []struct {
		what string
		next *pb.LogEntry
		want Fate
	}{
		{"what was asked and did not come", placed(result("m", "b"), 1, 7), FateWanted},
		{"without a place too", result("m", "b"), FateWanted},
		{"the same again", placed(result("m", "a"), 1, 1), FateKnown},
		{"the same under another number", placed(result("m", "a"), 1, 7), FateDuplicate},
		{"the same from another epoch", placed(result("m", "a"), 2, 1), FateDuplicate},
		{"something else under the same number", other(placed(result("m", "a"), 1, 1)), FateEquivocation},
		{"something else for the same job", other(placed(result("m", "a"), 1, 7)), FateEquivocation},
		{"a number that was another result's", placed(result("n", "a"), 1, 1), FateEquivocation},
		{"a number that was given up", placed(result("n", "a"), 1, 2), FateEquivocation},
		{"a result after a no", placed(result("m", "c"), 1, 7), FateDuplicate},
		{"an agent that was not asked", placed(result("m", "z"), 1, 7), FateUnasked},
		{"a measurement that is not there", placed(result("x", "a"), 1, 7), FateUnasked},
		{"one that is not there any more, under a known number", placed(result("x", "a"), 1, 1), FateKnown},
		{"a late one", placed(result("late", "b"), 1, 7), FateWanted},
		{"a late one again", placed(result("late", "a"), 1, 5), FateKnown},
	} {
		s := newStore(t)
		apply(t, s, 1, opened("m", "a", "b", "c"), opened("n", "a"), opened("late", "a", "b"), closedEntry("late", false))
		apply(t, s, 2, placed(result("m", "a"), 1, 1), gaps("a", 1, 2, 3, pb.GapReason_GAP_REASON_SPOOL_FULL),
			declined("m", "c", pb.Failure_FAILURE_AGENT_OVERLOADED), placed(result("late", "a"), 1, 5))
		got, err := s.Fate(c.next.GetResult(), c.next.GetPlace())
		if err != nil || got != c.want {
			t.Errorf("%s: fate %d, %v; want %d", c.what, got, err, c.want)
		}
		settles := len(s.Settles(&pb.LogBatch{Entries: []*pb.LogEntry{c.next}})) > 0
		batch := &pb.LogBatch{Entries: []*pb.LogEntry{c.next}}
		applied, err := s.Apply(3, batch, canonical(batch))
		if err != nil || len(applied.Equivocations) > 0 != (c.want == FateEquivocation) || len(applied.Measurements) > 0 != (c.want == FateWanted) {
			t.Errorf("%s: %+v, %v", c.what, applied, err)
		}
		if settles && !applied.Measurements[0].Settled {
			t.Errorf("%s: said to settle, and does not", c.what)
		}
		if p := c.next.GetPlace(); p != nil && !s.Has(c.next.GetResult().GetAgent(), p.GetEpoch(), p.GetSeq()) {
			t.Errorf("%s: the number is not noted", c.what)
		}
	}
}

func TestDelivery(t *testing.T) {
	s := newStore(t)
	if got := s.Delivery("a"); got != nil {
		t.Errorf("of an agent that never spoke: %v", got)
	}
	apply(t, s, 1, gaps("a", 1, 1, 90, pb.GapReason_GAP_REASON_SPOOL_FULL))
	apply(t, s, 2, placed(result("x", "a"), 2, 1), placed(result("x", "a"), 2, 2), placed(result("x", "a"), 2, 6),
		gaps("a", 2, 2, 3, pb.GapReason_GAP_REASON_SPOOL_CORRUPT), gaps("a", 2, 8, 9, pb.GapReason_GAP_REASON_DUPLICATE))
	want := &pb.Delivery{Epoch: 2, Highest: 9, Missing: 3, Dropped: 1}
	if diff := cmp.Diff(want, s.Delivery("a"), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for seq, want := range []bool{false, true, true, true, false, false, true, false, true, true, false} {
		if s.Has("a", 2, uint64(seq)) != want {
			t.Errorf("number %d is known: %v", seq, !want)
		}
	}
	for n := range uint64(maxScattered) {
		if !s.Room("b", 1) {
			t.Fatalf("no room after %d numbers", n)
		}
		apply(t, s, 3+n, gaps("b", 1, 2*n+1, 2*n+1, pb.GapReason_GAP_REASON_UNASKED))
	}
	if s.Room("b", 1) || !s.Room("b", 2) {
		t.Error("an agent whose numbers are scattered has to send what is missing, or to begin anew")
	}
}

func TestEnrolments(t *testing.T) {
	s := newStore(t)
	for i, c := range []struct {
		what    string
		entry   *pb.LogEntry
		changes bool
		revoked bool
	}{
		{"the first", enrolment("a", 1, 0), true, false},
		{"carried over a cut, it is no change", enrolment("a", 1, 0), false, false},
		{"revoked", enrolment("a", 1, 50), true, true},
		{"a renewal that crossed the revocation does not undo it", enrolment("a", 1, 0), false, true},
		{"a new enrolment does", enrolment("a", 2, 0), true, false},
	} {
		batch := &pb.LogBatch{Entries: []*pb.LogEntry{c.entry}}
		applied, err := s.Apply(uint64(i+1), batch, canonical(batch))
		if err != nil || len(applied.Enrolments) > 0 != c.changes || s.Enrolment("a").GetRevokeTime() != nil != c.revoked {
			t.Errorf("%s: %v, %v", c.what, applied.Enrolments, err)
		}
	}
	apply(t, s, 9, enrolment("0", 1, 0))
	if all := s.Enrolments(); len(all) != 2 || all[0].GetId() != "0" || s.Enrolment("b") != nil {
		t.Errorf("all: %v", all)
	}
}

func TestAuditIsReadInPages(t *testing.T) {
	s := newStore(t)
	var want []string
	for p := range uint64(10) {
		var entries []*pb.LogEntry
		for n := range 3 {
			entries = append(entries, &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Kind: pb.AuditKind(1 + n)}}})
			want = append(want, fmt.Sprintf("%d.%d", p+1, n))
		}
		apply(t, s, p+1, entries...)
		if p == 5 {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(want)
	for _, size := range []int{1, 4, 7, 30, 31} {
		if got := auditIDs(t, s, size, nil); !slices.Equal(got, want) {
			t.Errorf("by %d: %v", size, got)
		}
	}
	second := func(e *pb.AuditEvent) bool { return e.GetKind() == 2 }
	if got := auditIDs(t, s, 4, second); len(got) != 10 || got[0] != "10.1" || got[9] != "1.1" {
		t.Errorf("of one kind: %v", got)
	}
	apply(t, s, 11, forgotten(9))
	if got := auditIDs(t, s, 2, nil); !slices.Equal(got, want[:3]) {
		t.Errorf("after a cut: %v", got)
	}
	if _, _, err := s.Audit("nonsense", 5, nil); err == nil {
		t.Error("a page that begins nowhere")
	}
}

func auditIDs(t *testing.T, s *Store, size int, want func(*pb.AuditEvent) bool) (ids []string) {
	t.Helper()
	before := ""
	for range 100 {
		page, next, err := s.Audit(before, size, want)
		if err != nil || len(page) > size {
			t.Fatalf("%d events, %v", len(page), err)
		}
		for _, e := range page {
			ids = append(ids, e.GetId())
		}
		if before = next; next == "" {
			return ids
		}
	}
	t.Fatal("the pages never end")
	return nil
}

func TestResultsHavePositions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fold.db")
	s := openStore(t, path, 0)
	apply(t, s, 3, opened("m", "a", "b", "c", "d"))
	apply(t, s, 5, result("m", "a"), result("m", "b"))
	apply(t, s, 9, result("m", "c"))
	for range 2 { // in memory, and from disk
		view, err := s.Get("m")
		if err != nil || view.Position != 9 {
			t.Fatalf("the view is of %d, %v", view.Position, err)
		}
		for _, c := range []struct{ after, n, want, upTo uint64 }{
			{0, 100, 3, 9},
			{4, 100, 3, 9},
			{4, 1, 2, 5}, // those of one message are together, however few are wanted
			{4, 2, 2, 5},
			{5, 1, 1, 9},
			{8, 100, 1, 9},
			{9, 100, 0, 9},
			{100, 100, 0, 9},
		} {
			if got, upTo := view.After(c.after, int(c.n)); len(got) != int(c.want) || upTo != c.upTo {
				t.Errorf("%d after %d: %d results up to %d, want %d up to %d", c.n, c.after, len(got), upTo, c.want, c.upTo)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, path, 0)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsBeingWrittenStaysInMemory: until a checkpoint is on disk, what it writes is nowhere else, and a reader who
// wants room for another measurement must not have it dropped.
func TestWhatIsBeingWrittenStaysInMemory(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "fold.db"), 0)
	apply(t, s, 1, opened("m", "a"), result("m", "a"), closedEntry("m", false))
	s.mu.Lock()
	taken := s.take()
	s.evict()
	kept := s.live["m"]
	s.mu.Unlock()
	if kept == nil {
		t.Error("it is gone before it was written")
	}
	if err := s.update(taken.save); err != nil {
		t.Fatal(err)
	}
	apply(t, s, 2, opened("n"))
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if s.live["m"] != nil {
		t.Error("it is there for ever")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadersDoNotDisturbTheFold has readers fetch measurements from disk all the time, while late results change them
// and memory has room for none: nothing older than what is folded is ever taken up.
func TestReadersDoNotDisturbTheFold(t *testing.T) {
	const measurements, agents = 4, 16
	path := filepath.Join(t.TempDir(), "fold.db")
	s := openStore(t, path, 0)
	var asked, ids []string
	for i := range agents {
		asked = append(asked, fmt.Sprint("a", i))
	}
	position := uint64(0)
	next := func(entries ...*pb.LogEntry) {
		position++
		apply(t, s, position, entries...)
	}
	for i := range measurements {
		ids = append(ids, fmt.Sprint("m", i))
		next(opened(ids[i], asked...), closedEntry(ids[i], false))
	}
	var readers sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		readers.Go(func() {
			for n := i; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				id := ids[n%measurements]
				if _, err := s.Get(id); err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Fate(result(id, "nobody").GetResult(), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, agent := range asked {
		for _, id := range ids {
			next(result(id, agent))
			if err := s.Checkpoint(); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	readers.Wait()
	for _, id := range ids {
		if view, err := s.Get(id); err != nil || len(view.Late) != agents {
			t.Errorf("%s has %d late results of %d: %v", id, len(view.Late), agents, err)
		}
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	_, want := s.Hash()
	if _, hash, err := s.Verify(t.Context()); err != nil || !bytes.Equal(hash, want) {
		t.Errorf("the file hashes to %x and not to %x: %v", hash, want, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAGapOfWhatWasAskedForIsNone folds that nobody had asked for a result, as a coordinator says that is behind.
func TestAGapOfWhatWasAskedForIsNone(t *testing.T) {
	s := newStore(t)
	apply(t, s, 1, opened("m", "a"))
	unasked := func(agent, measurement string, seq uint64) *pb.LogEntry {
		e := gaps(agent, 1, seq, seq, pb.GapReason_GAP_REASON_UNASKED)
		e.GetGaps().GetGaps()[0].MeasurementId = measurement
		return e
	}
	for i, c := range []struct {
		what               string
		agent, measurement string
		known              bool
	}{
		{"the agent was asked: its result may still come", "a", "m", false},
		{"another agent was", "b", "m", true},
		{"nobody was: there is no such measurement", "a", "x", true},
		{"which one is not said, by an older coordinator", "a", "", true},
	} {
		apply(t, s, uint64(i+2), unasked(c.agent, c.measurement, uint64(i+1)))
		if got := s.Has(c.agent, 1, uint64(i+1)); got != c.known {
			t.Errorf("%s: the number is known: %t", c.what, got)
		}
	}
}
