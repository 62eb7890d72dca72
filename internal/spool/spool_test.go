package spool

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func open(t *testing.T, dir string) *Spool {
	t.Helper()
	s, err := Open(dir, "a", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fill(t *testing.T, s *Spool, n int) {
	t.Helper()
	for i := range n {
		if err := s.Append(&pb.Result{MeasurementId: fmt.Sprint("m", i), Agent: "a"}); err != nil {
			t.Fatal(err)
		}
	}
}

// pending is the numbers that the spool would send.
func pending(t *testing.T, s *Spool) (seqs []uint64) {
	t.Helper()
	for after := uint64(0); ; {
		batch, _, err := s.Next(after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.GetResults()) == 0 {
			return seqs
		}
		for _, r := range batch.GetResults() {
			after = r.GetSeq()
			seqs = append(seqs, after)
		}
	}
}

func TestSpool(t *testing.T) {
	for _, c := range []struct {
		what  string
		acks  [][2]uint64
		wants []uint64
	}{
		{"what nobody acknowledged is all pending", nil, []uint64{1, 2, 3, 4, 5, 6, 7}},
		{"a range in the middle is forgotten, what is before it stays", [][2]uint64{{3, 5}}, []uint64{1, 2, 6, 7}},
		{"an acknowledgement twice is one", [][2]uint64{{1, 2}, {1, 2}}, []uint64{3, 4, 5, 6, 7}},
		{"a range beyond the last number is cut", [][2]uint64{{6, 1 << 40}}, []uint64{1, 2, 3, 4, 5}},
		{"a range backwards is nothing", [][2]uint64{{5, 2}}, []uint64{1, 2, 3, 4, 5, 6, 7}},
		{"all is all", [][2]uint64{{1, 7}}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			fill(t, s, 7)
			for _, a := range c.acks {
				if err := s.Ack(a[0], a[1]); err != nil {
					t.Fatal(err)
				}
			}
			if got := pending(t, s); fmt.Sprint(got) != fmt.Sprint(c.wants) {
				t.Errorf("pending %v, want %v", got, c.wants)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			if got := pending(t, s); fmt.Sprint(got) != fmt.Sprint(c.wants) {
				t.Errorf("after a restart: pending %v, want %v", got, c.wants)
			}
			fill(t, s, 1)
			if got := pending(t, s); got[len(got)-1] != 8 {
				t.Errorf("the next number is %d, want 8: none is used twice", got[len(got)-1])
			}
		})
	}
}

func TestSpoolKnowsItsJobs(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s, 2)
	if !s.Has(Key{"m1", 0}) || s.Has(Key{"m1", 1}) || s.Has(Key{"m2", 0}) {
		t.Error("Has is wrong about what is pending")
	}
	if err := s.Ack(2, 2); err != nil {
		t.Fatal(err)
	}
	if s.Has(Key{"m1", 0}) {
		t.Error("an acknowledged result is still there")
	}
}

// gaps is the numbers that will bring nothing, and why.
func gaps(t *testing.T, s *Spool) (texts []string) {
	t.Helper()
	batch, _, err := s.Next(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range batch.GetGaps() {
		reason := strings.TrimPrefix(g.GetReason().String(), "GAP_REASON_SPOOL_")
		texts = append(texts, fmt.Sprintf("%d-%d %s", g.GetFirst(), g.GetLast(), reason))
	}
	return texts
}

func TestSpoolIsBounded(t *testing.T) {
	const limit, n = 1 << 20, 100
	dir := t.TempDir()
	s, err := Open(dir, "a", limit)
	if err != nil {
		t.Fatal(err)
	}
	big := &pb.Result{Agent: "a", Version: string(bytes.Repeat([]byte("x"), 60<<10))}
	for range n {
		if err := s.Append(big); err != nil {
			t.Fatal(err)
		}
		if s.Usage() > 1 {
			t.Fatalf("usage %.2f", s.Usage())
		}
	}
	kept := pending(t, s)
	if len(kept) < 10 || kept[len(kept)-1] != n {
		t.Fatalf("pending %v; want the newest", kept)
	}
	want := []string{fmt.Sprintf("1-%d FULL", kept[0]-1)}
	if got := gaps(t, s); !slices.Equal(got, want) {
		t.Errorf("gaps %v, want %v: every number is stored, acknowledged, or in a gap", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, "a", limit); err != nil {
		t.Fatal(err)
	}
	if got := gaps(t, s); !slices.Equal(got, want) || !slices.Equal(pending(t, s), kept) {
		t.Errorf("after a restart: gaps %v, pending %v", got, pending(t, s))
	}
	if err := s.Ack(1, 3); err != nil {
		t.Fatal(err)
	}
	if got := gaps(t, s); !slices.Equal(got, []string{fmt.Sprintf("4-%d FULL", kept[0]-1)}) {
		t.Errorf("gaps %v after some of their numbers were acknowledged", got)
	}
	if err := s.Ack(4, n); err != nil {
		t.Fatal(err)
	}
	if _, drained := s.Drained(); !drained || len(gaps(t, s)) > 0 {
		t.Error("something is left after everything was acknowledged")
	}
	if err := s.Append(&pb.Result{Version: string(make([]byte, MaxResult+1))}); err == nil {
		t.Error("a result that is too large was taken")
	}
}

func TestSpoolGivesSpaceBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for range 300 {
		if err := s.Append(&pb.Result{Agent: "a", Version: string(bytes.Repeat([]byte("x"), 50<<10))}); err != nil {
			t.Fatal(err)
		}
	}
	before, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(before) < 3 {
		t.Fatalf("%d segments, %v; want several", len(before), err)
	}
	if err := s.Ack(1, 300); err != nil {
		t.Fatal(err)
	}
	after, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(after) != 1 || s.Usage() > 0.01 {
		t.Errorf("%d segments left, usage %.3f, %v; want one that is empty", len(after), s.Usage(), err)
	}
}

func TestEpochs(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, "a", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if s.Epoch() != 0 {
		t.Fatalf("a new spool has epoch %d", s.Epoch())
	}
	set := func(epoch uint64) {
		t.Helper()
		if err := s.SetEpoch(epoch); err != nil || s.Epoch() != epoch {
			t.Fatalf("epoch %d, %v; want %d", s.Epoch(), err, epoch)
		}
	}
	set(3)
	big := strings.Repeat("x", 30<<10)
	for i := range 60 { // the first of them go
		if err := s.Append(&pb.Result{MeasurementId: fmt.Sprint("m", i+1), Agent: "a", Version: big}); err != nil {
			t.Fatal(err)
		}
	}
	first := pending(t, s)[0]
	if err := s.Ack(first+2, first+4); err != nil {
		t.Fatal(err)
	}
	set(3) // nothing changes
	if got := pending(t, s)[0]; got != first {
		t.Fatalf("the same epoch again: %d is the first, it was %d", got, first)
	}
	set(7)
	check := func() {
		t.Helper()
		if got, want := gaps(t, s), []string{fmt.Sprintf("1-%d FULL", first-1)}; !slices.Equal(got, want) {
			t.Errorf("gaps %v, want %v", got, want)
		}
		want := first
		for after := uint64(0); ; {
			batch, _, err := s.Next(after, 7)
			if err != nil {
				t.Fatal(err)
			}
			if len(batch.GetResults()) == 0 {
				break
			}
			for _, r := range batch.GetResults() {
				after = r.GetSeq()
				was := after
				if after >= first+2 {
					was += 3 // those that were acknowledged have no number any more
				}
				if after != want || r.GetResult().GetMeasurementId() != fmt.Sprint("m", was) {
					t.Fatalf("number %d is %s; want number %d, m%d", after, r.GetResult().GetMeasurementId(), want, was)
				}
				want++
			}
		}
		if want != 58 || s.NextSeq() != 58 {
			t.Errorf("the numbers end before %d, the next is %d", want, s.NextSeq())
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, "a", 1<<20); err != nil || s.Epoch() != 7 {
		t.Fatalf("%v, epoch %d after a restart", err, s.Epoch())
	}
	check()
	if err := s.SetEpoch(0); err == nil {
		t.Error("epoch 0 was taken")
	}
}

func TestASpoolIsForOneAgent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.SetEpoch(4); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "b", 1<<20); err == nil || !strings.Contains(err.Error(), "of agent a ") {
		t.Fatalf("another agent while results wait: %v", err)
	}
	s = open(t, dir)
	if err := s.Ack(1, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, "b", 1<<20)
	if err != nil || s.Epoch() != 0 || s.NextSeq() != 1 {
		t.Fatalf("another agent when nothing waits: %v, epoch %d, next %d; want a new spool", err, s.Epoch(), s.NextSeq())
	}
}
