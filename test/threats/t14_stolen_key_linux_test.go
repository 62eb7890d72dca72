package threats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// revocation is how long connections of a revoked agent may stand.
const revocation = 5 * time.Second

// TestT14StolenKey: somebody runs an agent of his own with a copy of another one's identity. Only one at a time is let in,
// the log says that there are two, and when the name is revoked all connections of both end within 5 s.
func TestT14StolenKey(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld())
	w := &world{t: t, home: "world", grpc: coordinatorAddr + ":7700", nats: coordinatorAddr + ":4222"}
	w.coordinate()
	args := []string{"--resolver", "203.0.113.1", "--root-server", "203.0.113.1"}
	own, copied := t.TempDir(), t.TempDir()
	first := w.agentIn(own, "a", args...)
	w.online(1)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(own, "identity"), copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	second := w.agentIn(copied, "a", args...)
	eventually(t, "somebody noticing", func(context.Context) error {
		events, err := w.cli("audit", "--kind", "identity_conflict", "--agent", "a", "-J")
		if err == nil && !strings.Contains(events, "AUDIT_KIND_IDENTITY_CONFLICT") {
			err = errors.New(events)
		}
		return err
	})
	_, said := first.said()
	_, saidToo := second.said()
	if !strings.Contains(said+saidToo, "Aborted") {
		t.Errorf("neither was told that another one came:\n%s\n%s", said, saidToo)
	}
	w.online(1)

	stood := connections(t, coordinatorAddr)
	if len(stood) < 2 {
		t.Fatalf("only %v stand", stood)
	}
	if _, err := w.cli("agents", "revoke", "a", "--reason", "stolen"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "all connections ending", func(context.Context) error {
		if now := connections(t, coordinatorAddr); slices.ContainsFunc(now, func(c string) bool { return slices.Contains(stood, c) }) {
			return fmt.Errorf("%v still stand of %v", now, stood)
		}
		return nil
	})
	if took := time.Since(began); took > revocation {
		t.Errorf("the connections ended after %v", took)
	} else {
		t.Logf("%d connections ended within %v of the revocation", len(stood), took)
	}
	for name, p := range map[string]*process{"the agent": first, "its copy": second} {
		eventually(t, name+" hearing why", func(context.Context) error {
			if _, stderr := p.said(); !strings.Contains(stderr, "PermissionDenied") {
				return errors.New(stderr)
			}
			return nil
		})
	}
	if out, err := w.cli("agents", "-J"); err != nil || !strings.Contains(out, "AGENT_STATE_REVOKED") {
		t.Errorf("%v %s", err, out)
	}
}

// connections are the local ends of TCP connections that stand between the test's own namespace and an IPv4 address.
func connections(t *testing.T, to string) (local []string) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if words := strings.Fields(line); words[3] == "01" && strings.HasPrefix(words[2], kernelAddr(to)+":") {
			local = append(local, words[1])
		}
	}
	return local
}
