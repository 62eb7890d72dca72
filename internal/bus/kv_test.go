package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
)

func openBucket(t *testing.T, s *embedded.Server) *bus.Bucket {
	t.Helper()
	b, err := bus.OpenBucket(t.Context(), s, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestBucketComparesBeforeItWrites(t *testing.T) {
	b := openBucket(t, startServer(t, t.TempDir(), "127.0.0.1:0"))
	ctx := t.Context()
	if _, err := b.Get(ctx, "k"); !errors.Is(err, bus.ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	first, err := b.Create(ctx, "k", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Update(ctx, "k", []byte("two"), first)
	if err != nil || second <= first {
		t.Fatalf("revision %d after %d, %v", second, first, err)
	}
	_, again := b.Create(ctx, "k", []byte("three"))
	_, stale := b.Update(ctx, "k", []byte("three"), first)
	_, zero := b.Update(ctx, "other", []byte("three"), 0)
	_, large := b.Create(ctx, "large", make([]byte, 65<<10))
	_, name := b.Create(ctx, "no key", nil)
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"a key that is there is not created", again, bus.ErrExists},
		{"an old revision does not update", stale, bus.ErrChanged},
		{"no revision does not update", zero, bus.ErrChanged},
		{"an old revision does not delete", b.Delete(ctx, "k", first), bus.ErrChanged},
		{"no revision does not delete", b.Delete(ctx, "k", 0), bus.ErrChanged},
		{"a value beyond the bound", large, bus.ErrTooLarge},
		{"a key that is no key", name, cmpopts.AnyError},
	} {
		if !cmp.Equal(c.got, c.want, cmpopts.EquateErrors()) {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
	want := bus.Value{Key: "k", Data: []byte("two"), Revision: second}
	if got, err := b.Get(ctx, "k"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if err := b.Delete(ctx, "k", second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, "k"); !errors.Is(err, bus.ErrNoKey) {
		t.Errorf("a deleted key: %v", err)
	}
	if revision, err := b.Create(ctx, "k", []byte("four")); err != nil || revision <= second {
		t.Errorf("a deleted key can be made again: revision %d, %v", revision, err)
	}
}

func TestBucketHasOneWinner(t *testing.T) {
	b := openBucket(t, startServer(t, t.TempDir(), "127.0.0.1:0"))
	revision, err := b.Create(t.Context(), "token", []byte("free"))
	if err != nil {
		t.Fatal(err)
	}
	var created, updated atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := b.Create(t.Context(), "name", []byte(fmt.Sprint(i)))
			if err == nil {
				created.Add(1)
			} else if !errors.Is(err, bus.ErrExists) {
				t.Error(err)
			}
			_, err = b.Update(t.Context(), "token", []byte(fmt.Sprint(i)), revision)
			if err == nil {
				updated.Add(1)
			} else if !errors.Is(err, bus.ErrChanged) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 || updated.Load() != 1 {
		t.Errorf("%d created, %d updated; want one of each", created.Load(), updated.Load())
	}
}

func TestBucketOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	b := openBucket(t, s)
	for i := range 5 {
		if _, err := b.Create(t.Context(), fmt.Sprint("k", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.Get(t.Context(), "k1")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "k1", v.Revision); err != nil {
		t.Fatal(err)
	}
	before, err := b.List(t.Context())
	if err != nil || len(before) != 4 {
		t.Fatalf("%v, %v; want four keys", before, err)
	}
	b.Close()
	s.Shutdown()
	after, err := openBucket(t, startServer(t, dir, "127.0.0.1:0")).List(t.Context())
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("%v (-before +after):\n%s", err, diff)
	}
}

func TestBucketIsWatched(t *testing.T) {
	b := openBucket(t, startServer(t, t.TempDir(), "127.0.0.1:0"))
	revision, err := b.Create(t.Context(), "there", nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var told []string
	enough := errors.New("enough")
	err = b.Watch(ctx, func(v *bus.Value) error {
		switch {
		case v == nil: // now, and not before, somebody changes something
			told = append(told, "all")
			return b.Delete(ctx, "there", revision)
		case v.Deleted:
			told = append(told, "-"+v.Key)
			_, err := b.Create(ctx, "new", nil)
			return err
		default:
			if told = append(told, "+"+v.Key); v.Key == "new" {
				return enough
			}
			return nil
		}
	})
	if diff := cmp.Diff([]string{"+there", "all", "-there", "+new"}, told); !errors.Is(err, enough) || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	cancel()
	if err := b.Watch(ctx, func(*bus.Value) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a watch whose context ended: %v", err)
	}
}
