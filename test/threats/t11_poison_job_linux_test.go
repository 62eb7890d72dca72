package threats

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestT11PoisonJob: an agent dies twice while it does the same job. It does not do it a third time, says so in its result,
// and does others.
func TestT11PoisonJob(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, lines(
		"ip link set lo up",
		"nft -f - <<'END'", "table inet t {", "chain input {", "type filter hook input priority 0;",
		"ip daddr 127.0.0.66 counter comment \"poison\"", "ip daddr 127.0.0.66 drop",
		"}", "}", "END",
	))
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	w.coordinate()
	dir := t.TempDir()
	life := func() *process {
		return w.agentIn(dir, "a", "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", "127.0.0.8:80")
	}
	agent := life()
	w.online(1)
	asked := start(t, "", "elsewhere", append([]string{"tcp", "127.0.0.66:80", "--timeout", "80s", "-J"}, w.access(w.admin())...)...)
	for n := range 2 {
		seen := 0
		if n > 0 {
			seen = poisoned(t)
			agent = life()
		}
		eventually(t, "the job being under way", func(context.Context) error {
			if poisoned(t) == seen {
				return fmt.Errorf("life %d: not a packet", n+1)
			}
			return nil
		})
		if err := agent.cmd.Process.Signal(syscall.SIGABRT); err != nil { // which no Go program survives
			t.Fatal(err)
		}
		<-agent.done
	}
	before := poisoned(t)
	agent = life()
	select {
	case <-asked.done:
	case <-time.After(patience):
		t.Fatal("the measurement does not end")
	}
	stdout, stderr := asked.said()
	m := &pb.Measurement{}
	if err := protojson.Unmarshal([]byte(stdout), m); err != nil {
		t.Fatal(err, stderr)
	}
	if !strings.Contains(m.String(), "agent_crash") || m.GetLedger().GetAnswered() != 1 {
		t.Errorf("%v", m)
	}
	if n := poisoned(t); n != before {
		t.Errorf("%d packets of a third time", n-before)
	}
	w.online(1)
	if m := w.measure("tcp", "127.0.0.8:80", "--timeout", "8s"); m.GetLedger().GetAnswered() != 1 || !agent.alive() {
		t.Errorf("another job: %v", m)
	}
}

// poisoned counts the packets to the address that the job is about.
func poisoned(t *testing.T) int {
	t.Helper()
	return counters(t, "")["poison"]
}
