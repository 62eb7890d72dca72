package coordinator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/store"
)

func TestWhatABucketMayHaveBecome(t *testing.T) {
	key := func(revision uint64) store.Key { return store.KeyOf(revision, []byte{byte(revision)}) }
	had := store.Keys{Last: 7, Has: map[string]store.Key{"a": key(3), "b": key(5), "c": key(7)}}
	for _, row := range []struct {
		what string
		has  map[string]store.Key
		last uint64
		want string
	}{
		{"nothing changed", map[string]store.Key{"a": key(3), "b": key(5), "c": key(7)}, 7, ""},
		{"a key was changed and another made after the last note", map[string]store.Key{"a": key(8), "b": key(5), "c": key(7), "d": key(9)}, 9, ""},
		{"one was deleted after the last note, and its marker is gone", map[string]store.Key{"a": key(3), "b": key(5)}, 8, ""},
		{"the end is cut off", map[string]store.Key{"a": key(3), "b": key(5)}, 5, "it ends at revision 5, and went to 7"},
		{"all is gone", nil, 0, "it ends at revision 0, and went to 7"},
		{"what was replaced is there again", map[string]store.Key{"a": key(3), "b": key(4), "c": key(7)}, 7, `"b" is there with revision 4, which was replaced or never written`},
		{"what was deleted is there again", map[string]store.Key{"a": key(3), "b": key(5), "c": key(7), "d": key(1)}, 8, `"d" is there with revision 1, which was replaced or never written`},
		{"a value is another", map[string]store.Key{"a": key(3), "b": {Revision: 5}, "c": key(7)}, 7, `what "b" says is not what was written`},
		{"a part in the middle is gone", map[string]store.Key{"c": key(7), "d": key(8)}, 8, "2 of its keys are gone, and at most 1 were deleted"},
	} {
		if got := damage(had, row.has, row.last); got != row.want {
			t.Errorf("%s: %q", row.what, got)
		}
	}
}

// bucket is one on disk, with what notes its keys.
type bucket struct {
	*bus.Bucket
	t     *testing.T
	nats  *embedded.Server
	store *store.Store
}

func openBucket(t *testing.T, dir string) *bucket {
	t.Helper()
	b := &bucket{t: t}
	var err error
	if b.store, err = store.Open(filepath.Join(dir, store.FileName), 1<<20); err != nil {
		t.Fatal(err)
	}
	if b.nats, err = embedded.Start(embedded.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if b.Bucket, err = bus.OpenBucket(t.Context(), b.nats, "tokens"); err != nil {
		t.Fatal(err)
	}
	return b
}

// noted opens the keys and notes them, and returns what is noted.
func (b *bucket) noted() store.Keys {
	b.t.Helper()
	k, err := newKeys(b.t.Context(), b.Bucket, b.store)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.noteWith(k)
}

func (b *bucket) noteWith(k *keys) store.Keys {
	b.t.Helper()
	if err := k.note(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	noted, err := b.store.Keys("tokens")
	if err != nil {
		b.t.Fatal(err)
	}
	has, last, err := contents(b.t.Context(), b.Bucket)
	if err != nil {
		b.t.Fatal(err)
	}
	if noted.Last != last || !maps.Equal(noted.Has, has) {
		b.t.Fatalf("noted is %v; it has %v up to %d", noted, has, last)
	}
	return noted
}

func (b *bucket) close() {
	b.t.Helper()
	b.Close()
	b.nats.Shutdown()
	if err := b.store.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// values is what a bucket has, as text.
func (b *bucket) values(ctx context.Context) (values string) {
	b.t.Helper()
	all, err := b.List(ctx)
	if err != nil {
		return err.Error()
	}
	for _, v := range all {
		values += fmt.Sprintf("%s=%s@%d ", v.Key, v.Data, v.Revision)
	}
	return values
}

// filledBucket is a data directory with a bucket in which one token was revoked and one deleted, what it has, and where
// its file is.
func filledBucket(t *testing.T) (dir, values, block string) {
	t.Helper()
	dir = t.TempDir()
	b := openBucket(t, dir)
	k, err := newKeys(t.Context(), b.Bucket, b.store)
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[string]uint64{}
	for _, key := range []string{"admin", "ci", "gone", "left"} {
		revision, err := b.Create(t.Context(), key, []byte("good"))
		if err != nil {
			t.Fatal(err)
		}
		revisions[key] = revision
	}
	b.noteWith(k)
	if err := b.Delete(t.Context(), "gone", revisions["gone"]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(t.Context(), "ci", []byte("over"), revisions["ci"]); err != nil {
		t.Fatal(err)
	}
	if noted := b.noteWith(k); len(noted.Has) != 3 || noted.Last != 6 {
		t.Fatalf("noted are %v", noted)
	}
	values = b.values(t.Context())
	b.close()
	b = openBucket(t, dir)
	b.noted() // what is as it was is taken
	if again := b.values(t.Context()); again != values {
		t.Fatalf("%s, and after a restart %s", values, again)
	}
	b.close()
	return dir, values, "jetstream/LOG/streams/KV_tokens/msgs/1.blk"
}

// TestADamagedBucketIsRefused: one bit flips in the file of a bucket, anywhere, or the file is cut, or gone. It is
// refused then, or has what it had.
func TestADamagedBucketIsRefused(t *testing.T) {
	dir, values, block := filledBucket(t)
	whole, err := os.ReadFile(filepath.Join(dir, block))
	if err != nil {
		t.Fatal(err)
	}
	revived, changed, refused := 0, 0, 0
	try := func(what string, edit func(path string) error) {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := edit(filepath.Join(copied, block)); err != nil {
			t.Fatal(err)
		}
		b := openBucket(t, copied)
		defer b.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2) // a header that is longer than its message is never sent
		defer cancel()
		has := b.values(ctx)
		_, err := newKeys(ctx, b.Bucket, b.store)
		if strings.Contains(has, "ci=good") {
			revived++
		}
		if has != values {
			changed++
		}
		switch {
		case err == nil && has != values:
			t.Errorf("%s: it has %s, and had %s", what, has, values)
		case err != nil && !strings.Contains(err.Error(), "the bucket tokens is damaged") && !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("%s: %v", what, err)
		case err != nil:
			refused++
		}
	}
	write := func(data []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, data, 0o600) }
	}
	lengths := map[int]bool{} // where the lengths of a subject and of a header stand, which are under no checksum
	for at := 0; at < len(whole); at += int(binary.LittleEndian.Uint32(whole[at:]) &^ (1 << 31)) {
		header := at + 22 + int(binary.LittleEndian.Uint16(whole[at+20:]))
		lengths[at+20], lengths[at+21], lengths[header] = true, true, true
	}
	for at := range whole {
		for bit := range 8 {
			if !lengths[at] && (at%5 != 0 || bit != at/5%8) {
				continue
			}
			flipped := append([]byte(nil), whole...)
			flipped[at] ^= 1 << bit
			try(fmt.Sprintf("bit %d of byte %d of %d", bit, at, len(whole)), write(flipped))
		}
	}
	try("a byte is missing at its end", write(whole[:len(whole)-1]))
	try("half of it is missing", write(whole[:len(whole)/2]))
	try("it is empty", write(nil))
	try("it is gone", os.Remove)
	t.Logf("%d times a revoked token was good again, %d times something was another than before, %d times that was refused", revived, changed, refused)
	if revived < 50 || refused < changed {
		t.Errorf("%d, %d, %d", revived, changed, refused)
	}
}
