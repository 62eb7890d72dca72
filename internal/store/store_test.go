package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func openStore(t *testing.T, path string, recent int64) *Store {
	t.Helper()
	s, err := Open(path, recent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "fold.db"), 1<<20)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The entries that tests fold.

func opened(id string, agents ...string) *pb.LogEntry {
	m := &pb.Measurement{
		Id: id, State: pb.State_STATE_RUNNING, CreateTime: timestamppb.New(time.Unix(1, 0)),
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 443}}},
	}
	for _, a := range agents {
		m.Asks = append(m.Asks, &pb.Ask{Agent: a, Vantage: &pb.Vantage{Region: "r-" + a}, State: pb.AskState_ASK_STATE_PENDING})
	}
	return &pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: m}}}
}

func result(id, agent string) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: &pb.Result{MeasurementId: id, Agent: agent, Steps: []*pb.Step{{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: "192.0.2.1:443",
		Failure: pb.Failure_FAILURE_NONE, Attempts: 1,
	}}}}}
}

func declined(id, agent string, f pb.Failure) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Declined{Declined: &pb.Declined{MeasurementId: id, Agent: agent, Failure: f, Detail: "because"}}}
}

func closedEntry(id string, cancelled bool) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: id, Cancelled: cancelled, Time: timestamppb.New(time.Unix(2, 0))}}}
}

func forgotten(upTo uint64) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Forgotten{Forgotten: &pb.Forgotten{UpTo: upTo}}}
}

func apply(t *testing.T, s *Store, position uint64, entries ...*pb.LogEntry) []Change {
	t.Helper()
	batch := &pb.LogBatch{Entries: entries}
	applied, err := s.Apply(position, batch, canonical(batch))
	if err != nil {
		t.Fatal(err)
	}
	return applied.Measurements
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		what    string
		entries []*pb.LogEntry
		state   pb.State
		ledger  *pb.Ledger
		late    int32
	}{
		{
			"agents that have not answered are in no column while it runs",
			[]*pb.LogEntry{opened("m", "a", "b"), result("m", "a")},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 2, Answered: 1}, 0,
		},
		{
			"at the end those without an answer are lost",
			[]*pb.LogEntry{opened("m", "a", "b"), result("m", "a"), closedEntry("m", false)},
			pb.State_STATE_FINISHED, &pb.Ledger{Asked: 2, Answered: 1, Lost: 1}, 0,
		},
		{
			"a result twice counts once",
			[]*pb.LogEntry{opened("m", "a", "b"), result("m", "a"), result("m", "a")},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 2, Answered: 1}, 0,
		},
		{
			"a result of an agent that was not asked counts nothing",
			[]*pb.LogEntry{opened("m", "a"), result("m", "z")},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 1}, 0,
		},
		{
			"a result after the end is late and changes no column",
			[]*pb.LogEntry{opened("m", "a"), closedEntry("m", false), result("m", "a"), result("m", "a")},
			pb.State_STATE_FINISHED, &pb.Ledger{Asked: 1, Lost: 1}, 1,
		},
		{
			"policy and overload are refusals, the rest cannot",
			[]*pb.LogEntry{
				opened("m", "a", "b", "c"),
				declined("m", "a", pb.Failure_FAILURE_AGENT_POLICY_DENIED),
				declined("m", "b", pb.Failure_FAILURE_AGENT_OVERLOADED),
				declined("m", "c", pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING),
			},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 3, Refused: 2, Ineligible: 1}, 0,
		},
		{
			"the first answer of an agent counts: a no after a result, a result after a no",
			[]*pb.LogEntry{
				opened("m", "a", "b"),
				result("m", "a"), declined("m", "a", pb.Failure_FAILURE_AGENT_OVERLOADED),
				declined("m", "b", pb.Failure_FAILURE_AGENT_OVERLOADED), result("m", "b"),
			},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 2, Answered: 1, Refused: 1}, 0,
		},
		{
			"the first end wins",
			[]*pb.LogEntry{opened("m", "a"), closedEntry("m", true), closedEntry("m", false)},
			pb.State_STATE_CANCELLED, &pb.Ledger{Asked: 1, Lost: 1}, 0,
		},
		{
			"opened twice is opened once",
			[]*pb.LogEntry{opened("m", "a"), result("m", "a"), opened("m", "a", "b", "c")},
			pb.State_STATE_RUNNING, &pb.Ledger{Asked: 1, Answered: 1}, 0,
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newStore(t)
			for i, e := range c.entries {
				apply(t, s, uint64(i+1), e)
			}
			view, err := s.Get("m")
			if err != nil {
				t.Fatal(err)
			}
			m := view.Measurement
			if m.GetState() != c.state || m.GetLate() != c.late {
				t.Errorf("state %v, late %d; want %v, %d", m.GetState(), m.GetLate(), c.state, c.late)
			}
			if diff := cmp.Diff(c.ledger, m.GetLedger(), protocmp.Transform()); diff != "" {
				t.Errorf("ledger (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChangesSayWhatIsToBeDone(t *testing.T) {
	s := newStore(t)
	if got := apply(t, s, 1, opened("m", "a", "b")); !got[0].Opened || got[0].Settled {
		t.Errorf("opened: %+v", got)
	}
	if got := apply(t, s, 2, result("m", "a")); got[0].Settled {
		t.Errorf("one of two answered: %+v", got)
	}
	if got := apply(t, s, 3, declined("m", "b", pb.Failure_FAILURE_AGENT_OVERLOADED)); !got[0].Settled {
		t.Errorf("all have answered: %+v", got)
	}
	if got := apply(t, s, 4, opened("n", "a", "b"), result("n", "b"), closedEntry("n", false)); !got[0].Closed || fmt.Sprint(got[0].Pending) != "[a]" {
		t.Errorf("closed: %+v", got)
	}
	if got := apply(t, s, 4, opened("o", "a")); got != nil {
		t.Errorf("a position that was folded already: %+v", got)
	}
}

func TestSettles(t *testing.T) {
	s := newStore(t)
	apply(t, s, 1, opened("m", "a", "b", "c"), opened("n", "a"), result("m", "a"))
	for _, c := range []struct {
		what  string
		batch []*pb.LogEntry
		want  string
	}{
		{"one of two answers is not enough", []*pb.LogEntry{result("m", "b")}, "[]"},
		{"both are", []*pb.LogEntry{result("m", "b"), result("m", "c")}, "[m]"},
		{"a no is an answer", []*pb.LogEntry{result("m", "c"), declined("m", "b", pb.Failure_FAILURE_AGENT_OVERLOADED)}, "[m]"},
		{"the same answer twice is one", []*pb.LogEntry{result("m", "b"), result("m", "b")}, "[]"},
		{"what is known already is none", []*pb.LogEntry{result("m", "a"), result("m", "b")}, "[]"},
		{"nor is a stranger's", []*pb.LogEntry{result("m", "b"), result("m", "z")}, "[]"},
		{"two measurements in one batch", []*pb.LogEntry{result("m", "b"), result("n", "a"), result("m", "c")}, "[n m]"},
		{"nothing settles what is not there", []*pb.LogEntry{result("x", "a"), closedEntry("m", false)}, "[]"},
	} {
		if got := s.Settles(&pb.LogBatch{Entries: c.batch}); fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", c.what, got, c.want)
		}
	}
}

// placed is a result with its place in the agent's spool.
func placed(e *pb.LogEntry, epoch, seq uint64) *pb.LogEntry {
	digest := digestOf(e.GetResult())
	e.Place = &pb.Place{Epoch: epoch, Seq: seq, Digest: digest[:]}
	return e
}

func gaps(agent string, epoch, first, last uint64, why pb.GapReason) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Gaps{Gaps: &pb.Gaps{
		Agent: agent, Epoch: epoch, Gaps: []*pb.Gap{{First: first, Last: last, Reason: why}},
	}}}
}

func enrolment(agent string, enrolled, revoked int64) *pb.LogEntry {
	e := &pb.Enrolment{Id: agent, Vantage: &pb.Vantage{Region: "r"}, EnrollTime: timestamppb.New(time.Unix(enrolled, 0))}
	if revoked > 0 {
		e.RevokeTime = timestamppb.New(time.Unix(revoked, 0))
	}
	return &pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: e}}
}

// trusted is something that has to do with trust or with spools.
func trusted(r *rand.Rand, agent string) *pb.LogEntry {
	first := uint64(1 + r.IntN(60))
	switch r.IntN(4) {
	case 0:
		return enrolment(agent, int64(1+r.IntN(3)), int64(r.IntN(2)*100))
	case 1:
		return &pb.LogEntry{Entry: &pb.LogEntry_Delivered{Delivered: &pb.Delivered{
			Agent: agent, Epoch: uint64(1 + r.IntN(12)), Dropped: uint64(r.IntN(5)), Ranges: []*pb.SeqRange{{First: first, Last: first + 7}},
		}}}
	default:
		e := gaps(agent, uint64(1+r.IntN(12)), first, first+uint64(r.IntN(4)), pb.GapReason(1+r.IntN(5)))
		if gap := e.GetGaps().GetGaps()[0]; gap.GetReason() == pb.GapReason_GAP_REASON_UNASKED {
			gap.MeasurementId = fmt.Sprint("m", r.IntN(12))
		}
		return e
	}
}

// history is a random log of some measurements, with duplicates, lates and strangers, and of the agents' spools and
// enrolments.
func history(seed uint64, n int) []*pb.LogBatch {
	r := rand.New(rand.NewPCG(seed, 0))
	agents := []string{"a", "b", "c", "d"}
	var batches []*pb.LogBatch
	for range n {
		batch := &pb.LogBatch{}
		for range 1 + r.IntN(4) {
			id, agent := fmt.Sprint("m", r.IntN(12)), agents[r.IntN(len(agents))]
			entry := []func() *pb.LogEntry{
				func() *pb.LogEntry { return opened(id, agents[:1+r.IntN(4)]...) },
				func() *pb.LogEntry { return result(id, agent) },
				func() *pb.LogEntry { return result(id, agent) },
				func() *pb.LogEntry { return declined(id, agent, pb.Failure_FAILURE_AGENT_OVERLOADED) },
				func() *pb.LogEntry { return closedEntry(id, r.IntN(2) == 0) },
			}[r.IntN(5)]()
			if entry.GetResult() != nil && r.IntN(10) > 0 {
				entry = placed(entry, uint64(1+r.IntN(3)), uint64(1+r.IntN(60)))
			}
			if r.IntN(60) == 0 {
				entry = forgotten(uint64(r.IntN(len(batches) + 1)))
			}
			if r.IntN(5) == 0 {
				entry = trusted(r, agent)
			}
			batch.Entries = append(batch.Entries, entry)
		}
		if r.IntN(4) == 0 { // first, since its number is part of it
			event := &pb.AuditEvent{Kind: pb.AuditKind(1 + r.IntN(16)), Detail: fmt.Sprint("event ", len(batches))}
			batch.Entries = slices.Insert(batch.Entries, 0, &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: event}})
		}
		batches = append(batches, batch)
	}
	return batches
}

// state is everything that can be read of a store.
func state(t *testing.T, s *Store) []proto.Message {
	t.Helper()
	list, _, err := s.List("", 100)
	if err != nil {
		t.Fatal(err)
	}
	var all []proto.Message
	for _, m := range list {
		view, err := s.Get(m.GetId())
		if err != nil {
			t.Fatal(err)
		}
		view.Measurement.Results = append(append(view.Measurement.Results, view.Results...), view.Late...)
		all = append(all, view.Measurement)
	}
	for _, e := range s.Enrolments() {
		all = append(all, e)
	}
	for _, agent := range []string{"a", "b", "c", "d"} {
		all = append(all, s.Delivery(agent))
	}
	events, next, err := s.Audit("", 1000, nil)
	if err != nil || next != "" {
		t.Fatalf("audit: next %q, %v", next, err)
	}
	for _, e := range events {
		all = append(all, e)
	}
	return all
}

// sameHash holds two stores against each other, and each against its own file.
func sameHash(t *testing.T, a, b *Store) {
	t.Helper()
	positionA, hashA := a.Hash()
	positionB, hashB := b.Hash()
	if positionA != positionB || !bytes.Equal(hashA, hashB) {
		t.Errorf("at %d the state is %x, at %d it is %x", positionA, hashA, positionB, hashB)
	}
	for _, s := range []*Store{a, b} {
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if position, hash, err := s.Verify(t.Context()); err != nil || position != positionA || !bytes.Equal(hash, hashA) {
			t.Errorf("on disk at %d the state is %x, %v; want %x", position, hash, err, hashA)
		}
	}
}

func TestEqualPositionsMeanEqualState(t *testing.T) {
	// One store folds without a break and keeps all in memory; the other is closed, opened and made
	// to forget its memory at random. Every measurement must read the same.
	for seed := range uint64(20) {
		path := filepath.Join(t.TempDir(), "fold.db")
		steady, shaken := newStore(t), openStore(t, path, 0)
		r := rand.New(rand.NewPCG(seed, 1))
		for i, batch := range history(seed, 120) {
			for _, s := range []*Store{steady, shaken} {
				if _, err := s.Apply(uint64(i+1), batch, canonical(batch)); err != nil {
					t.Fatal(err)
				}
			}
			switch r.IntN(6) {
			case 0:
				if err := shaken.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := shaken.Close(); err != nil {
					t.Fatal(err)
				}
				shaken = openStore(t, path, 0)
			}
		}
		if diff := cmp.Diff(state(t, steady), state(t, shaken), protocmp.Transform()); diff != "" {
			t.Errorf("seed %d (-steady +shaken):\n%s", seed, diff)
		}
		sameHash(t, steady, shaken)
		if err := shaken.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACrashReplaysTheLog(t *testing.T) {
	// A crash is a copy of the state that Checkpoint wrote, without Close; then the rest again.
	dir := t.TempDir()
	batches := history(7, 200)
	whole := newStore(t)
	crashed := openStore(t, filepath.Join(dir, "fold.db"), 1<<20)
	for i, b := range batches {
		if _, err := whole.Apply(uint64(i+1), b, canonical(b)); err != nil {
			t.Fatal(err)
		}
		if i < 150 {
			if _, err := crashed.Apply(uint64(i+1), b, canonical(b)); err != nil {
				t.Fatal(err)
			}
		}
		if i == 100 {
			if err := crashed.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := crashed.db.Close(); err != nil { // and not Close, which would save
		t.Fatal(err)
	}
	again := openStore(t, filepath.Join(dir, "fold.db"), 1<<20)
	position, _ := again.Position()
	if position != 101 {
		t.Fatalf("the checkpoint is at %d, want 101", position)
	}
	for i, b := range batches[position:] {
		if _, err := again.Apply(position+uint64(i)+1, b, canonical(b)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(state(t, whole), state(t, again), protocmp.Transform()); diff != "" {
		t.Errorf("(-whole +again):\n%s", diff)
	}
	sameHash(t, whole, again)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckpointsAtOnceKeepTheirOrder(t *testing.T) {
	// The ticker's and retention's. An older state must never follow a newer one on disk, where the
	// position would be beyond it. Without the lock it fails within a few of these rounds.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	for range 20 {
		checkpointsAtOnce(t)
	}
}

func checkpointsAtOnce(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fold.db")
	s := openStore(t, path, 1<<20)
	s.db.NoSync = true // the order is what is tested, and many checkpoints are needed
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := s.Checkpoint(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	const n = 300
	position := uint64(0)
	fold := func(e *pb.LogEntry) {
		position++
		apply(t, s, position, e)
	}
	agents := []string{"a", "b", "c", "d"}
	for i := range n {
		id := fmt.Sprintf("m%05d", i)
		fold(opened(id, agents...))
		for _, a := range agents {
			fold(result(id, a))
		}
		fold(closedEntry(id, false))
	}
	close(stop)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, 1<<20)
	for i := range n {
		view, err := s.Get(fmt.Sprintf("m%05d", i))
		if err != nil || view.Measurement.GetState() != pb.State_STATE_FINISHED || view.Measurement.GetLedger().GetAnswered() != 4 || len(view.Results) != 4 {
			t.Fatalf("measurement %d on disk: %v with %d results, %v", i, view.Measurement, len(view.Results), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLateResultsAreCounted(t *testing.T) {
	s := newStore(t)
	for i := range 50 {
		id := fmt.Sprint("m", i)
		apply(t, s, uint64(3*i+1), opened(id, "a"), closedEntry(id, false))
		apply(t, s, uint64(3*i+2), result(id, "a"))
	}
	var bytes int64
	for _, m := range s.closed {
		bytes += m.bytes
	}
	if s.bytes != bytes {
		t.Errorf("%d bytes are counted, %d are there", s.bytes, bytes)
	}
}

func TestForgotten(t *testing.T) {
	s := newStore(t)
	apply(t, s, 1, opened("old", "a"), result("old", "a"), closedEntry("old", false))
	apply(t, s, 2, opened("new", "a"))
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if at, err := s.Oldest(time.Unix(3, 0)); err != nil || at != 1 {
		t.Fatalf("Oldest: %d, %v; want 1: the one that runs stays", at, err)
	}
	apply(t, s, 3, forgotten(1))
	for range 2 { // before and after it is gone from the disk
		if _, err := s.Get("old"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a forgotten measurement: %v", err)
		}
		if list, _, err := s.List("", 10); err != nil || len(list) != 1 || list[0].GetId() != "new" {
			t.Errorf("List: %v, %v", list, err)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatLeftMemoryIsGone(t *testing.T) {
	s := newStore(t)
	s.recent = 0
	var left []weak.Pointer[measurement]
	for i := range 100 {
		id := fmt.Sprintf("m%03d", i)
		apply(t, s, uint64(2*i+1), opened(id, "a"))
		left = append(left, weak.Make(s.live[id]))
		apply(t, s, uint64(2*i+2), closedEntry(id, false))
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	for i, m := range left {
		if m.Value() != nil {
			t.Fatalf("the %d. of %d measurements is held, though memory keeps %d", i+1, len(left), len(s.closed))
		}
	}
	runtime.KeepAlive(s)
}

func TestAwaits(t *testing.T) {
	for _, c := range []struct {
		what string
		next []*pb.LogEntry
		want []string
	}{
		{"an agent is awaited where it was asked, in the order of the ids", nil, []string{"m", "n"}},
		{"not where it has answered", []*pb.LogEntry{result("m", "a")}, []string{"n"}},
		{"nor where it has declined", []*pb.LogEntry{declined("n", "a", pb.Failure_FAILURE_AGENT_OVERLOADED)}, []string{"m"}},
		{"what another one does changes nothing", []*pb.LogEntry{result("m", "b")}, []string{"m", "n"}},
		{"what is closed waits for nobody", []*pb.LogEntry{closedEntry("m", false)}, []string{"n"}},
		{"what is forgotten neither", []*pb.LogEntry{forgotten(1)}, nil},
	} {
		s := newStore(t)
		apply(t, s, 1, opened("n", "a"), opened("m", "b", "a"), opened("other", "b"))
		apply(t, s, 2, c.next...)
		var got []string
		for _, w := range s.Awaits("a") {
			got = append(got, w.Measurement.GetId())
			if w.Ask.GetAgent() != "a" || w.Ask.GetState() != pb.AskState_ASK_STATE_PENDING || w.Measurement.GetSpec() == nil {
				t.Errorf("%s: %v", c.what, w)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestMoreAgentsThanPlaces: beyond maxSpools agents the numbers of a spool are not remembered; a job's result is kept all
// the same, and counted once.
func TestMoreAgentsThanPlaces(t *testing.T) {
	s := newStore(t)
	var batch pb.LogBatch
	for i := range maxSpools {
		batch.Entries = append(batch.Entries, gaps(fmt.Sprintf("a-%d", i), 1, 1, 1, pb.GapReason_GAP_REASON_SPOOL_FULL))
	}
	apply(t, s, 1, batch.GetEntries()...)
	apply(t, s, 2, opened("m", "late", "a-0"))
	first := placed(result("m", "late"), 1, 1)
	if fate, err := s.Fate(first.GetResult(), first.GetPlace()); err != nil || fate != FateWanted {
		t.Errorf("its result has fate %d, %v", fate, err)
	}
	apply(t, s, 3, first, placed(result("m", "a-0"), 1, 2))
	if fate, err := s.Fate(first.GetResult(), first.GetPlace()); err != nil || fate != FateDuplicate {
		t.Errorf("the same again has fate %d, %v", fate, err)
	}
	apply(t, s, 4, first)
	view, err := s.Get("m")
	if err != nil || view.Measurement.GetLedger().GetAnswered() != 2 || len(view.Results) != 2 {
		t.Errorf("%v, %d results, %v", view.Measurement.GetLedger(), len(view.Results), err)
	}
	if s.Delivery("late") != nil || s.Room("late", 1) || s.Delivery("a-0").GetHighest() != 2 || !s.Room("a-0", 2) {
		t.Error("the places are not those of the agents that came first")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "fold.db"), 10<<10)
	for i := range 500 {
		id := fmt.Sprintf("m%03d", i)
		apply(t, s, uint64(i+1), opened(id, "a", "b"), result(id, "a"), closedEntry(id, false))
		if i%50 == 49 {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(s.live); n > 200 || s.bytes > 10<<10 {
		t.Errorf("%d measurements of %d bytes in memory", n, s.bytes)
	}
	list, _, err := s.List("m400", 1000)
	if err != nil || len(list) != 400 || list[0].GetId() != "m399" || list[399].GetId() != "m000" {
		t.Fatalf("%d measurements listed, %v", len(list), err)
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if running, asks := s.Running(); running != 0 || asks != 0 {
		t.Errorf("%d measurements of %d asks run, want none", running, asks)
	}
	if n := len(s.live); n > 201 {
		t.Errorf("after a long list %d measurements are in memory", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Ten thousand agents in as many regions, all of which are named: the verdicts are kept, and a page of them fits into
// a message.
func TestAPageFitsIntoAMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fold.db")
	s := openStore(t, path, 0)
	agents := make([]string, 10_000)
	for i := range agents {
		agents[i] = fmt.Sprintf("%061d", i)
	}
	for i, id := range []string{"m1", "m2", "m3", "m4"} {
		entries := []*pb.LogEntry{opened(id, agents...)}
		for _, a := range agents {
			entries = append(entries, declined(id, a, pb.Failure_FAILURE_AGENT_OVERLOADED))
		}
		apply(t, s, uint64(i+1), append(entries, closedEntry(id, false))...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, 0)
	defer func() { _ = s.Close() }()
	before, seen := "", 0
	for more := true; more; {
		var page []*pb.Measurement
		var err error
		if page, more, err = s.List(before, 100); err != nil || len(page) == 0 {
			t.Fatalf("%d measurements, %v", len(page), err)
		}
		if size := proto.Size(&pb.ListMeasurementsResponse{Measurements: page}); size > 4<<20 {
			t.Errorf("a page of %d bytes", size)
		}
		for _, m := range page {
			if all := m.GetVerdict().GetFindings()[0].GetRegions(); len(all) != len(agents) {
				t.Errorf("%s names %d regions", m.GetId(), len(all))
			}
			before, seen = m.GetId(), seen+1
		}
	}
	if seen != 4 {
		t.Errorf("%d measurements are listed", seen)
	}
}

func TestWatch(t *testing.T) {
	// What a watcher sees: the present first; never too many judgements; the end always.
	s := newStore(t)
	synctest.Test(t, func(t *testing.T) {
		apply(t, s, 1, opened("m", "a", "b", "c"))
		views := make(chan View)
		done := make(chan error)
		go func() {
			done <- s.Watch(t.Context(), "m", func(v View) error { views <- v; return nil })
		}()
		if v := <-views; v.Measurement.GetVerdict() != nil || len(v.Results) != 0 {
			t.Errorf("before any result: %v", v.Measurement)
		}
		apply(t, s, 2, result("m", "a"))
		if v := <-views; v.Measurement.GetVerdict() == nil || len(v.Results) != 1 {
			t.Errorf("the first result is judged at once: %v", v.Measurement)
		}
		began := time.Now()
		apply(t, s, 3, result("m", "b"))
		if v := <-views; !v.Stale {
			t.Errorf("the second result within 100 ms was judged: %v", v.Measurement)
		}
		if v := <-views; v.Stale || time.Since(began) < judgeInterval {
			t.Errorf("the verdict after %v is stale: %v", time.Since(began), v.Stale)
		}
		began = time.Now()
		apply(t, s, 4, result("m", "c"), closedEntry("m", false))
		v := <-views
		if v.Stale || time.Since(began) > 0 || v.Measurement.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
			t.Errorf("the last result is judged at once: %v", v.Measurement)
		}
		if err := <-done; err != nil {
			t.Errorf("the watch of a closed measurement ends: %v", err)
		}
	})
}

func TestASlowWatcherGetsTheNewest(t *testing.T) {
	s := newStore(t)
	agents := make([]string, 100)
	for i := range agents {
		agents[i] = fmt.Sprint("a", i)
	}
	apply(t, s, 1, opened("m", agents...))
	sent := 0
	err := s.Watch(t.Context(), "m", func(v View) error {
		sent++
		if sent == 1 { // while it is busy, everything happens
			for i, a := range agents {
				apply(t, s, uint64(i+2), result("m", a))
			}
			apply(t, s, 1000, closedEntry("m", false))
			return nil
		}
		if len(v.Results) != 100 || v.Measurement.GetState() != pb.State_STATE_FINISHED {
			t.Errorf("not the newest: %v", v.Measurement)
		}
		return nil
	})
	if err != nil || sent != 2 {
		t.Errorf("%d views, %v; want 2", sent, err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	apply(t, s, 1, opened("m", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Watch(ctx, "m", func(View) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Watch(t.Context(), "nothing", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}
