package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// island is a host with every trouble of its own.
const island = `
ip link set lo up
ip link add near type veth peer name far
ip link set near up
ip link set far up
ip addr add 10.9.0.1/24 dev near
ip route add prohibit 10.8.2.0/24
ip route add blackhole 10.8.3.0/24
ip route add unreachable 10.8.4.0/24
nft -f - <<'END'
table inet t {
	chain output {
		type filter hook output priority 0;
		ip daddr 127.0.0.66 tcp dport 443 counter drop
		ip daddr 127.0.0.77 counter drop
	}
}
END
`

// trouble is a cause on the host itself: how it shows to anybody, and what a probe says.
type trouble struct {
	name  string
	addr  string
	fault error
	want  pb.Failure
}

// TestLocalCauses: what is wrong with the agent's own host is never the target's failure. That the fault is
// there is seen first, without the probe.
func TestLocalCauses(t *testing.T) {
	if !space.Own(t) {
		return
	}
	space.Build(t, island)
	for _, tt := range []trouble{
		{"no route", "198.51.100.1:443", syscall.ENETUNREACH, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"no IPv6", "[2001:db8::1]:443", syscall.ENETUNREACH, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING},
		{"a route that prohibits", "10.8.2.1:443", syscall.EACCES, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"a black hole", "10.8.3.1:443", syscall.EINVAL, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"a route that says unreachable", "10.8.4.1:443", syscall.EHOSTUNREACH, pb.Failure_FAILURE_AGENT_NO_EGRESS},
	} {
		t.Run(tt.name, func(t *testing.T) { checkTrouble(t, tt) })
	}
	t.Run("no ports", noPorts)
	t.Run("no descriptors", noDescriptors)
	t.Run("its own firewall drops", ownDrop)
}

// checkTrouble wants the fault, and then the failure, from a connect and from a trace of the path.
func checkTrouble(t *testing.T, tt trouble) {
	t.Helper()
	if _, err := net.DialTimeout("tcp", tt.addr, time.Second); !errors.Is(err, tt.fault) {
		t.Fatalf("the fault is not there: %v", err)
	}
	addr := netip.MustParseAddrPort(tt.addr)
	spec := tcpSpec(addr.Addr().String(), addr.Port())
	spec.GetTcp().Path = true
	r := run(t, anywhere(), spec)
	for _, kind := range []pb.StepKind{pb.StepKind_STEP_KIND_TCP_CONNECT, pb.StepKind_STEP_KIND_PATH_TRACE} {
		if s := one(t, r, kind); s.GetFailure() != tt.want {
			t.Errorf("%s, want %s: %v", Short(s.GetFailure()), Short(tt.want), s)
		}
	}
}

// noPorts takes all of the two ports that there are for connects to an address.
func noPorts(t *testing.T) {
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	space.Build(t, "sysctl -qw net.ipv4.ip_local_port_range='40000 40001'")
	defer space.Build(t, "sysctl -qw net.ipv4.ip_local_port_range='32768 60999'")
	for range 2 {
		conn, err := net.Dial("tcp", host.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := net.Dial("tcp", host.Addr().String()); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Fatalf("the fault is not there: %v", err)
	}
	s := one(t, run(t, anywhere(), tcpSpec("127.0.0.2", host.Addr().Port())), pb.StepKind_STEP_KIND_TCP_CONNECT)
	if s.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED || s.GetEvidence().GetErrno() != "EADDRNOTAVAIL" {
		t.Errorf("%v", s)
	}
}

// noDescriptors lowers the limit to what is open.
func noDescriptors(t *testing.T) {
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	next, err := os.Open("/") // The lowest number that is free.
	if err != nil {
		t.Fatal(err)
	}
	free := uint64(next.Fd())
	_ = next.Close()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: free, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, fault := os.Open("/")
	s := one(t, run(t, anywhere(), tcpSpec("127.0.0.2", host.Addr().Port())), pb.StepKind_STEP_KIND_TCP_CONNECT)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(fault, syscall.EMFILE) {
		t.Fatalf("the fault is not there: %v", fault)
	}
	if s.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED || s.GetEvidence().GetErrno() != "EMFILE" {
		t.Errorf("%v", s)
	}
}

// ownDrop: the host's own firewall drops what it sends, which nobody can tell from a drop at the target. The
// control fares alike, so that the judge blames nobody.
func ownDrop(t *testing.T) {
	host := must[*probetest.Host](t)(probetest.Listen(netip.MustParseAddrPort("127.0.0.66:443"), probetest.Accept))
	env := anywhere()
	env.Controls = []string{"127.0.0.77:443"}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := Run(ctx, env, newJob(tcpSpec("127.0.0.66", host.Addr().Port()), 20*time.Second))
	out, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").Output()
	if err != nil || strings.Contains(string(out), "packets 0") {
		t.Fatalf("the fault is not there: %v\n%s", err, out)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_TCP_TIMEOUT {
		t.Errorf("%v", s)
	}
	controls := steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL)
	if len(controls) != 1 || controls[0].GetFailure() != pb.Failure_FAILURE_TCP_TIMEOUT {
		t.Errorf("want a control that fails: %v", controls)
	}
}
