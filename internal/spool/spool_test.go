package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func open(t *testing.T, dir string) *Spool {
	t.Helper()
	s, err := Open(dir, 64<<20)
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
		if len(batch) == 0 {
			return seqs
		}
		for _, r := range batch {
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

func TestSpoolIsBounded(t *testing.T) {
	s, err := Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	big := &pb.Result{Agent: "a", Version: string(bytes.Repeat([]byte("x"), 60<<10))}
	n := 0
	for err == nil {
		err = s.Append(big)
		n++
	}
	if !errors.Is(err, ErrFull) || n < 10 || s.Usage() < 0.8 {
		t.Fatalf("after %d results of 60 KiB: %v, usage %.2f", n, err, s.Usage())
	}
	if got := len(pending(t, s)); got != n-1 {
		t.Errorf("%d pending, want %d: a refused result must leave nothing behind", got, n-1)
	}
	if err := s.Ack(1, uint64(n)); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(big); err != nil {
		t.Errorf("after everything was acknowledged: %v", err)
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

// FuzzTornSegment damages a segment and opens it again: what is read is a prefix of what was written,
// never anything else.
func FuzzTornSegment(f *testing.F) {
	f.Add(uint(0), byte(0), false)
	f.Add(uint(20), byte(1), false)
	f.Add(uint(60), byte(0xff), true)
	f.Add(uint(200), byte(0x80), false)
	f.Fuzz(func(t *testing.T, at uint, flip byte, cut bool) {
		dir := t.TempDir()
		s := open(t, dir)
		fill(t, s, 8)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name := s.last().name
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at %= uint(len(data))
		if cut {
			data = data[:at]
		} else {
			data[at] ^= flip
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err = Open(dir, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		for after := uint64(0); ; {
			batch, _, err := s.Next(after, 100)
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			for _, r := range batch {
				after++
				want := &pb.Result{MeasurementId: fmt.Sprint("m", after-1), Agent: "a"}
				if r.GetSeq() != after || !proto.Equal(r.GetResult(), want) {
					t.Fatalf("read %v as number %d, want a prefix of what was written", r, after)
				}
			}
		}
		if err := s.Append(&pb.Result{Agent: "a"}); err != nil {
			t.Fatalf("a damaged spool does not go on: %v", err)
		}
	})
}
