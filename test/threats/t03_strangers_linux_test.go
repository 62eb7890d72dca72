package threats

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// TestT3Strangers: whoever reaches the coordinator's ports opens connections there and says nothing, more than it may have
// open files. The log keeps those that it needs, the agent that is connected stays, and others come in again when the
// strangers' time is over, who close nothing.
func TestT3Strangers(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	const files, most = 400, 300 // half of the files are for connections, and the log has about ten of the others
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222", data: t.TempDir()}
	coordinator := launch(t, "prlimit", fmt.Sprintf("--nofile=%d:%d", files, files), filepath.Join(programs(t), "elsewhere-coordinator"),
		"--data-dir", w.data, "--grpc-addr", w.grpc, "--nats-addr", w.nats, "--http-addr", freeHTTP(w.grpc))
	w.answers()
	w.agent("honest", "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", "127.0.0.8:80")
	w.online(1)

	dialer := net.Dialer{Timeout: time.Second}
	began, held := time.Now(), 0
	for range files/4 + 20 { // a few more than there are slots
		for _, addr := range []string{w.grpc, w.nats} {
			if conn, err := dialer.DialContext(t.Context(), "tcp", addr); err == nil {
				defer conn.Close()
				held++
			}
		}
	}
	eventually(t, "the strangers to be heard", func(context.Context) error {
		if n := opened(t, coordinator); n < files/4 {
			return fmt.Errorf("%d open files", n)
		}
		return nil
	})
	if n := opened(t, coordinator); held < files/2 || n > most {
		t.Errorf("the coordinator has %d open files of %d that it may have, while strangers hold %d connections", n, files, held)
	}
	if _, err := w.cli("agents", "-J"); err == nil && time.Since(began) < 10*time.Second {
		t.Error("the attack did not happen: there is room for more")
	}
	w.answers()
	w.online(1)
	if m := w.measure("tcp", "127.0.0.8:80", "--timeout", "8s"); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("after %v: %v", time.Since(began), m.GetLedger())
	}
}

// opened is how many files a process has open.
func opened(t *testing.T, p *process) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
