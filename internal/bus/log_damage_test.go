package bus_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// damagedMessages is what a log has that is damaged: three blocks of JetStream's, of 8 MiB.
const damagedMessages, damagedSize = 200, 100 << 10

// filledLog is a log with damagedMessages, its blocks, and how to stop it.
func filledLog(t *testing.T, dir string) (l *bus.Log, blocks []string, stop func()) {
	t.Helper()
	s := startServer(t, dir, "127.0.0.1:0")
	l, err := bus.OpenLog(t.Context(), s, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, nil) }()
	for i := range damagedMessages {
		if _, err := l.Append(t.Context(), entry(fmt.Sprint("a", i+1), damagedSize)); err != nil {
			t.Fatal(err)
		}
	}
	blocks, err = filepath.Glob(filepath.Join(dir, "jetstream/LOG/streams/LOG/msgs/*.blk"))
	if err != nil || len(blocks) != 3 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return l, blocks, func() { l.Close(); s.Shutdown() }
}

// foldAll folds a log after a position, as far as it says that it goes, and fails if what it reads was never written.
func foldAll(t *testing.T, l *bus.Log, after uint64) (last uint64, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bounds, err := l.Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = l.Fold(ctx, after, func(m bus.Message) error {
		p := m.Position
		last = p
		if r := m.Batch.GetEntries()[0].GetResult(); r.GetAgent() != fmt.Sprint("a", p) || strings.Trim(r.GetVersion(), "x") != "" {
			t.Errorf("at %d the fold is told what nobody wrote", p)
		}
		if p == bounds.Last {
			cancel()
		}
		return nil
	})
	return last, err
}

// flip changes one bit in the middle of a file, and proves it.
func flip(t *testing.T, path string) {
	t.Helper()
	change(t, path, func(data []byte) []byte { data[len(data)/2] ^= 4; return data })
}

func change(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, edit([]byte(string(before))), 0o600); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) == string(before) {
		t.Fatalf("the fault did not strike: %v", err)
	}
}

func TestADamagedLogIsNeverFoldedAsTruth(t *testing.T) {
	for _, c := range []struct {
		what   string
		strike func(t *testing.T, blocks []string)
		after  uint64
	}{
		{"a bit flips in the first block", func(t *testing.T, b []string) { t.Helper(); flip(t, b[0]) }, 0},
		{"a bit flips in the last block", func(t *testing.T, b []string) { t.Helper(); flip(t, b[2]) }, 0},
		{"a block in the middle is cut short", func(t *testing.T, b []string) {
			t.Helper()
			change(t, b[1], func(data []byte) []byte { return data[:len(data)/2] })
		}, 0},
		{"the last block is cut short, and the checkpoint is before that", func(t *testing.T, b []string) {
			t.Helper()
			change(t, b[2], func(data []byte) []byte { return data[:len(data)/2] })
		}, 150},
		{"a block in the middle is gone", func(t *testing.T, b []string) {
			t.Helper()
			if err := os.Remove(b[1]); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"the first block is gone, and the checkpoint is in it", func(t *testing.T, b []string) {
			t.Helper()
			if err := os.Remove(b[0]); err != nil {
				t.Fatal(err)
			}
		}, 10},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			_, blocks, stop := filledLog(t, dir)
			stop()
			c.strike(t, blocks)
			l, err := bus.OpenLog(t.Context(), startServer(t, dir, "127.0.0.1:0"), 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			// JetStream may also cut the log before the damage: it is then shorter than its checkpoint.
			last, err := foldAll(t, l, c.after)
			if short := err == nil && last < damagedMessages; !short && !errors.Is(err, bus.ErrHole) {
				t.Errorf("folded to %d of %d: %v", last, damagedMessages, err)
			}
		})
	}
	for what, strike := range map[string]func(string){
		"a bit flips under a server that runs": func(block string) { flip(t, block) },
		"the length of a subject, which no sum covers": func(block string) {
			change(t, block, func(data []byte) []byte { data[subjectLength] ^= 1; return data })
		},
	} {
		t.Run(what, func(t *testing.T) {
			l, blocks, stop := filledLog(t, t.TempDir())
			defer stop()
			strike(blocks[0])
			if last, err := foldAll(t, l, 0); !errors.Is(err, bus.ErrHole) {
				t.Errorf("folded to %d of %d: %v", last, damagedMessages, err)
			}
		})
	}
}

// subjectLength is where a record of JetStream's says how long its subject is.
const subjectLength = 20

// TestDamageBehindTheCheckpointIsSeen: nobody reads again what the checkpoint has, so that a start has to look for itself,
// also after a stop in good order, when JetStream has an index of all that was there.
func TestDamageBehindTheCheckpointIsSeen(t *testing.T) {
	for block := range 3 {
		dir := t.TempDir()
		_, blocks, stop := filledLog(t, dir)
		stop()
		flip(t, blocks[block])
		l, err := bus.OpenLog(t.Context(), startServer(t, dir, "127.0.0.1:0"), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		bounds, err := l.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if bounds.Last < damagedMessages {
			continue // it is shorter than its checkpoint
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err = l.Fold(ctx, damagedMessages, func(bus.Message) error { return nil }); !errors.Is(err, bus.ErrHole) {
			t.Errorf("block %d: folded from the end on: %v", block, err)
		}
	}
}

// firstBlock is the file of a log's first messages, below the directory of its server.
const firstBlock = "jetstream/LOG/streams/LOG/msgs/1.blk"

// openFlipped opens a copy of a log, one bit of whose first block is another.
func openFlipped(t *testing.T, dir string, bit uint32) (l *bus.Log, stop func()) {
	t.Helper()
	damaged := t.TempDir()
	if err := os.CopyFS(damaged, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(damaged, firstBlock), func(data []byte) []byte { data[bit/8] ^= 1 << (bit % 8); return data })
	s := startServer(t, damaged, "127.0.0.1:0")
	l, err := bus.OpenLog(t.Context(), s, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return l, func() {
		l.Close()
		s.Shutdown()
	}
}

// TestEveryByteOfARecord: whatever bit flips in a message's record, in JetStream's own part of it too, the log is not taken
// for whole. The length of a message's subject is under no checksum of JetStream's.
func TestEveryByteOfARecord(t *testing.T) {
	const messages, hit = 20, 10
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	l := runLog(t, s, 1<<30)
	for i := range messages {
		if _, err := l.Append(t.Context(), entry(fmt.Sprint("a", i+1), 10)); err != nil {
			t.Fatal(err)
		}
	}
	s.Shutdown()
	whole, err := os.ReadFile(filepath.Join(dir, firstBlock))
	if err != nil {
		t.Fatal(err)
	}
	at := uint32(0)
	for range hit {
		at += binary.LittleEndian.Uint32(whole[at:])
	}
	for i := range 8 * binary.LittleEndian.Uint32(whole[at:]) {
		l, stop := openFlipped(t, dir, 8*at+i)
		bounds, err := l.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if bounds.Last == messages { // otherwise it is shorter than its checkpoint
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := l.Fold(ctx, messages, func(bus.Message) error { return nil }); !errors.Is(err, bus.ErrHole) {
				t.Errorf("bit %d of byte %d of the record at %d: %v", i%8, i/8, hit, err)
			}
			cancel()
		}
		stop()
	}
}

// TestTheLengthOfAHeader: it is under no checksum of JetStream's either, and the content begins where the header ends. With
// some of its bits flipped a message was folded as another. Nothing is, from there on.
func TestTheLengthOfAHeader(t *testing.T) {
	const messages, hit = 5, 3
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	l := runLog(t, s, 1<<30)
	for i := range uint64(messages) {
		_, err := l.AppendMade(t.Context(), func(context.Context, uint64) ([]*pb.LogEntry, error) {
			return []*pb.LogEntry{entry(fmt.Sprint("a", i+1), 10)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Shutdown()
	whole, err := os.ReadFile(filepath.Join(dir, firstBlock))
	if err != nil {
		t.Fatal(err)
	}
	at := uint32(0)
	for range hit - 1 {
		at += binary.LittleEndian.Uint32(whole[at:]) &^ (1 << 31)
	}
	at += 22 + uint32(binary.LittleEndian.Uint16(whole[at+20:]))
	if header := whole[at+4:]; !strings.HasPrefix(string(header), "NATS/1.0") {
		t.Fatalf("there is no header but %q", header)
	}
	for i := range uint32(32) {
		l, stop := openFlipped(t, dir, 8*at+i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		last := uint64(0)
		err = l.Fold(ctx, 0, func(m bus.Message) error {
			last = m.Position
			if r := m.Batch.GetEntries(); len(r) != 1 || r[0].GetResult().GetAgent() != fmt.Sprint("a", last) {
				t.Errorf("bit %d: at %d the fold is told %v", i, last, m.Batch)
			}
			return nil
		})
		if last >= hit {
			t.Errorf("bit %d: it was folded up to %d, %v", i, last, err)
		}
		cancel()
		stop()
	}
}

// admin is JetStream as somebody sees it who has the server's password.
func admin(t *testing.T, s *embedded.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(bus.LogUser, s.Password()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestALogThatWouldLoseIsRefused(t *testing.T) {
	for field, change := range map[string]func(*jetstream.StreamConfig){
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"max_msgs":             func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 },
		"storage":              func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"retention":            func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		"persist_mode":         func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"allow_rollup_hdrs":    func(c *jetstream.StreamConfig) { c.AllowRollup = true },
		"allow_msg_ttl":        func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true },
		"no_ack":               func(c *jetstream.StreamConfig) { c.NoAck = true },
		"compression":          func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression },
	} {
		s, err := embedded.Start(embedded.Options{Dir: t.TempDir(), Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		config := jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log"}, Discard: jetstream.DiscardNew, MaxBytes: 1 << 20}
		if field == "storage" {
			config.MaxBytes = 1 << 10
		}
		change(&config)
		if _, err := admin(t, s).CreateStream(t.Context(), config); err != nil {
			t.Fatalf("%s: the fault did not strike: %v", field, err)
		}
		if _, err := bus.OpenLog(t.Context(), s, 1<<20); err == nil || !strings.Contains(err.Error(), "has "+field+" ") {
			t.Errorf("%s: %v", field, err)
		}
		s.Shutdown()
	}
}

func TestALogKeepsItsName(t *testing.T) {
	dir, names := t.TempDir(), map[string]bool{}
	for _, limit := range []int64{1 << 20, 1 << 21, 1 << 20} { // another limit is no drift
		s := startServer(t, dir, "127.0.0.1:0")
		l, err := bus.OpenLog(t.Context(), s, limit)
		if err != nil {
			t.Fatal(err)
		}
		names[l.ID()] = true
		l.Close()
		s.Shutdown()
	}
	other, err := bus.OpenLog(t.Context(), startServer(t, t.TempDir(), "127.0.0.1:0"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if len(names) != 1 || names[""] || names[other.ID()] {
		t.Errorf("one log has the names %v, another %s", names, other.ID())
	}
}

func TestNothingComesBetween(t *testing.T) {
	l := runLog(t, startServer(t, t.TempDir(), "127.0.0.1:0"), 1<<30)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%10 > 0 {
				if _, err := l.Append(t.Context(), entry("a", 10)); err != nil {
					t.Error(err)
				}
				return
			}
			var end uint64
			at, err := l.AppendMade(t.Context(), func(_ context.Context, after uint64) ([]*pb.LogEntry, error) {
				end = after
				return []*pb.LogEntry{entry("made", 10)}, nil
			})
			if err != nil || at != end+1 {
				t.Errorf("made of the log to %d, it stands at %d: %v", end, at, err)
			}
		})
	}
	wg.Wait()
	no := errors.New("no")
	_, err := l.AppendMade(t.Context(), func(context.Context, uint64) ([]*pb.LogEntry, error) { return nil, no })
	if !errors.Is(err, no) || !l.Healthy() {
		t.Errorf("what could not be made: %v; the log is well: %v", err, l.Healthy())
	}
	before, err := l.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := l.AppendMade(t.Context(), func(context.Context, uint64) ([]*pb.LogEntry, error) { return nil, nil })
	if err != nil || at != before.Last || at != l.Last() {
		t.Errorf("nothing was made, at %d: %v; want %d", at, err, before.Last)
	}
}
