package coordinator_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// until asks again and again, for two minutes at most.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (w *world) options() coordinator.Options {
	return coordinator.Options{DataDir: w.dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true}
}

// TestADamagedFileOfTheLog damages a file of the log while the coordinator is stopped (F16): the next one says what it is,
// and nothing else.
func TestADamagedFileOfTheLog(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(block []byte) []byte
		says   string
	}{
		{"half of it is gone", func(block []byte) []byte { return block[:len(block)/2] }, "has lost what was acknowledged"},
		{"the length of the first subject is another", func(block []byte) []byte { block[20] ^= 1; return block }, "has a hole"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, coordinator.Options{})
			w.agent("a", "r", true)
			for range 3 {
				w.end(w.create(w.tcp(w.target)).GetId())
			}
			w.stop()
			blocks, err := filepath.Glob(filepath.Join(w.dir, "jetstream/LOG/streams/LOG/msgs/*.blk"))
			if err != nil || len(blocks) != 1 {
				t.Fatalf("blocks: %v, %v", blocks, err)
			}
			before, err := os.ReadFile(blocks[0])
			if err != nil {
				t.Fatal(err)
			}
			after := c.damage(slices.Clone(before))
			if err := os.WriteFile(blocks[0], after, 0o600); err != nil || bytes.Equal(before, after) {
				t.Fatalf("the fault did not strike: %v", err)
			}
			next, err := coordinator.New(t.Context(), w.options())
			if err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err = next.Run(ctx)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "canceled") {
				t.Errorf("it ran on, or says something else: %v", err)
			}
		})
	}
}

// TestADamagedFileOfTokens flips a bit of the tokens while the coordinator is stopped, before what says that one of them
// was revoked (F16).
func TestADamagedFileOfTokens(t *testing.T) {
	s := newSecured(t)
	id, _ := s.token(pb.Scope_SCOPE_READ, nil)
	s.revoke(id)
	s.stop()
	block := filepath.Join(s.dir, "jetstream/LOG/streams/KV_tokens/msgs/1.blk")
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-20] ^= 1
	if err := os.WriteFile(block, data, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := s.opts
	opts.DataDir, opts.GRPCAddr = s.dir, "127.0.0.1:0"
	for range 2 { // JetStream has mended the file in its own way by the second time
		if _, err := coordinator.New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "the bucket tokens is damaged") {
			t.Fatalf("it begins: %v", err)
		} else {
			t.Log(err)
		}
	}
}

// TestTheDiskIsFull fills the coordinator's disk (F14): nothing is acknowledged that is not stored, it says that it is
// not ready, it ends when there is room, and after a restart it goes on with all that it had acknowledged.
func TestTheDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	const address = "127.0.7.2:17999"
	w := newWorldIn(t, dir, coordinator.Options{HTTPAddr: address})
	ended := ""
	w.failed = func(err error) { ended = err.Error() }
	w.agent("a", "r", true)
	stored, results := w.end(w.create(w.tcp(w.target)).GetId())

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	w.until("it is not ready", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		request := w.tcp(w.target)
		request.Timeout = durationpb.New(time.Minute)
		if created, err := w.api.CreateMeasurement(ctx, request); err == nil {
			// It found some last bytes. It must be there for good.
			stored = created.GetMeasurement()
		}
		return ready(t, address) == http.StatusServiceUnavailable
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	// If a write of JetStream's has failed, it does not come back by itself: the coordinator ends, so that it is started
	// again. If it was only a checkpoint, that is written now.
	w.until("it has ended, or is ready", func() bool { return ready(t, address) != http.StatusServiceUnavailable })
	w.stop()
	if t.Log("it said:", ended); ended != "" && !strings.Contains(ended, "no space left") {
		t.Error("it does not say why it ended")
	}
	w.start()
	w.until("it is ready", func() bool { return ready(t, address) == http.StatusOK })
	w.online("a")
	got, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: stored.GetId()})
	if err != nil || len(results) != 1 || got.GetMeasurement().GetLedger().GetAsked() != 1 {
		t.Errorf("what was acknowledged: %v, %v", got, err)
	}
	if m, _ := w.end(w.create(w.tcp(w.target)).GetId()); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("afterwards: %v", m)
	}
}

// fill writes until the disk is full, and proves that it is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the fault did not strike: %v", err)
	}
}

// ready is what /readyz answers; 0 where nobody listens.
func ready(t *testing.T, address string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}
