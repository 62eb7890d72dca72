package restore_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/restore"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

var names = []string{"c-1", "c-2", "c-3"}

// startThree starts three coordinators on the directories in one. The first is where before was.
func startThree(t *testing.T, dir string, before *running) (three []*running) {
	t.Helper()
	var gossip []string
	for range names {
		l, err := net.Listen("tcp", "127.0.7.9:0")
		if err != nil {
			t.Fatal(err)
		}
		gossip = append(gossip, l.Addr().String())
		_ = l.Close()
	}
	type made struct {
		c   *coordinator.Coordinator
		err error
	}
	all := make([]chan made, len(names))
	for i, name := range names {
		all[i] = make(chan made, 1)
		opts := coordinator.Options{
			DataDir: filepath.Join(dir, name), GRPCAddr: "127.0.7.9:0", NATSAddr: "127.0.7.9:0", Insecure: true,
			Others: &coordinator.Others{Name: name, GossipAddr: gossip[i], Join: gossip},
		}
		if i == 0 {
			opts.GRPCAddr, opts.NATSAddr = before.grpc, before.nats
		}
		go func() {
			c, err := coordinator.New(t.Context(), opts)
			all[i] <- made{c, err}
		}()
	}
	for i := range names {
		m := <-all[i]
		if m.err != nil {
			t.Fatal(m.err)
		}
		conn, err := grpc.NewClient(m.c.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			t.Fatal(err)
		}
		nats := m.c.NATSAddr().String()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.c.Run(ctx) }()
		stop := sync.OnceFunc(func() {
			_ = conn.Close()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(stop)
		three = append(three, &running{m.c.GRPCAddr().String(), nats, conn, stop})
	}
	return three
}

// TestFromOneToThreeAndBack: what was measured is there at each step, the log is the same, and it goes on. That there are
// three, and where, is no matter: a backup of three makes three others, or one alone.
func TestFromOneToThreeAndBack(t *testing.T) {
	target := listen(t)
	first := start(t, t.TempDir(), nil)
	runAgent(t, first, "a", nil)
	measured := first.end(t, first.ask(t, target))
	goesOn := func(c *running, what string) {
		t.Helper()
		if diff := cmp.Diff(measured, c.end(t, measured.GetId()), protocmp.Transform(), protocmp.IgnoreFields(&pb.Measurement{}, "late")); diff != "" {
			t.Errorf("%s: what was measured by one alone (-before +after):\n%s", what, diff)
		}
		c.online(t, "a")
		if m := c.end(t, c.ask(t, target)); m.GetLedger().GetAnswered() != 1 {
			t.Errorf("%s: a new question: %v", what, m)
		}
		if s := c.status(t); s.GetFirstPosition() != 1 {
			t.Errorf("%s: %v", what, s)
		}
	}
	path, log := first.backup(t), first.status(t).GetLogId()
	first.stop()
	for _, what := range []string{"three of one", "three of three"} {
		dir := filepath.Join(t.TempDir(), "three")
		if _, err := restore.Restore(t.Context(), restore.Options{File: path, Dir: dir, Several: names}); err != nil {
			t.Fatal(err)
		}
		three := startThree(t, dir, first)
		for i, c := range three {
			goesOn(c, what+", "+names[i])
			if c.status(t).GetLogId() != log {
				t.Errorf("%s: another log", what)
			}
		}
		path = three[1].backup(t)
		for _, c := range three {
			c.stop()
		}
	}
	dir := filepath.Join(t.TempDir(), "alone")
	if _, err := restore.Restore(t.Context(), restore.Options{File: path, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	goesOn(start(t, dir, first), "one of three")
}

// TestWhatIsNotRestoredForSeveral: there is one clear error, and the directory is as it was.
func TestWhatIsNotRestoredForSeveral(t *testing.T) {
	path := madeUp(t, 2000)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.tar")
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	if err := os.WriteFile(damaged, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, file, dir, several, during, says string
	}{
		{"for two", path, "", "c-1,c-2", "", "several coordinators are 3"},
		{"for four", path, "", "c-1,c-2,c-3,c-4", "", "several coordinators are 3"},
		{"for two of one name", path, "", "c-1,c-2,c-1", "", "each with a name of its own"},
		{"for one whose name is a path", path, "", "c-1,c-2,../c-3", "", "cannot be the name"},
		{"for one whose name is in capitals", path, "", "c-1,c-2,C-3", "", "cannot be the name"},
		{"for one that has no name", path, "", "c-1,c-2,", "", "cannot be the name"},
		{"for one that has the name of the mark", path, "", "c-1,c-2,restore-unfinished", "", "cannot be the name"},
		{"into a directory that is not empty", path, full, "c-1,c-2,c-3", "", "not empty"},
		{"of a file that is damaged", damaged, "", "c-1,c-2,c-3", "", "damaged"},
		{"of a state that is not what the log amounts to", otherHash(t, whole), "", "c-1,c-2,c-3", "", "amounts to another state"},
		{"and called off while it is checked", path, "", "c-1,c-2,c-3", "checking", "canceled"},
		{"and called off while it is written", path, "", "c-1,c-2,c-3", "restoring", "canceled"},
		{"and called off while it is compared", path, "", "c-1,c-2,c-3", "comparing", "canceled"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = filepath.Join(t.TempDir(), "three")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := restore.Restore(ctx, restore.Options{
				File: c.file, Dir: dir, Several: strings.Split(c.several, ","),
				Progress: func(what string, done, of int64) {
					if what == c.during && done > of/2 {
						cancel()
					}
				},
			})
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.says)
			}
			left, err := os.ReadDir(dir)
			if c.dir == "" && !errors.Is(err, os.ErrNotExist) || c.dir != "" && len(left) != 1 {
				t.Errorf("it leaves %v, %v", left, err)
			}
		})
	}
}
