package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestAFlippedBitIsNoticed flips single bits of a checkpoint: in the heads of all its pages, where bbolt itself reads,
// and anywhere. What is read then is an error, or it is what was written; it is never something else, and the program
// goes on.
func TestAFlippedBitIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fold.db")
	s := openStore(t, path, 0)
	batches := history(5, 400)
	for i, b := range batches[:300] {
		apply(t, s, uint64(i+1), b.GetEntries()...)
		if i%60 == 0 {
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := readAll(t, path, batches)
	if want.err != nil {
		t.Fatal(want.err)
	}
	r := rand.New(rand.NewPCG(16, 0))
	page := os.Getpagesize()
	noticed, harmless := 0, 0
	strike := func(at int) {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << r.IntN(8)
		path := filepath.Join(dir, fmt.Sprint(at, ".db")) // bbolt that panics when it opens a file keeps the lock
		defer func() { _ = os.Remove(path) }()
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if read, err := os.ReadFile(path); err != nil || bytes.Equal(read, good) {
			t.Fatalf("the fault did not strike: %v", err)
		}
		got := readAll(t, path, batches)
		switch {
		case got.err != nil:
			noticed++
		case bytes.Equal(got.hash, want.hash):
			harmless++ // in what is free, or in the newest head of the file: the one before it is there too
		default:
			t.Errorf("a bit of byte %d of page %d is flipped: the state is another one, and nobody says so", at%page, at/page)
		}
	}
	for at := 0; at < len(good); at += page {
		for head := range headSize(good[at : at+page]) {
			strike(at + head)
		}
	}
	for range 200 {
		strike(r.IntN(len(good)))
	}
	t.Logf("%d flips in %d pages: %d are noticed, %d are in what is not used", noticed+harmless, len(good)/page, noticed, harmless)
	if noticed < 100 {
		t.Error("too few are noticed to have struck anything")
	}
}

// headSize is how much of a page bbolt finds its way by, in bytes, the first of it at least.
func headSize(page []byte) int {
	if branch := page[8]&1 > 0; branch {
		return min(16+16*int(page[10]), len(page))
	}
	return 48
}

// read is what a checkpoint amounts to after the rest of the log was folded.
type read struct {
	hash []byte
	err  error
}

func readAll(t *testing.T, path string, batches []*pb.LogBatch) (all read) {
	t.Helper()
	s, err := Open(path, 0)
	if err != nil {
		return read{err: err}
	}
	defer func() { _ = s.db.Close() }()
	s.db.NoSync = true
	if _, _, all.err = s.Verify(t.Context()); all.err != nil {
		return all
	}
	position, _ := s.Position()
	for i, b := range batches[position:] {
		if _, all.err = s.Apply(position+uint64(i)+1, b, canonical(b)); all.err != nil {
			return all
		}
	}
	if all.err = s.Checkpoint(); all.err != nil {
		return all
	}
	_, all.hash, all.err = s.Verify(t.Context())
	return all
}
