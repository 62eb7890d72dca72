package probe

import (
	"context"
	"net/netip"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTCP(t *testing.T) {
	t.Parallel()
	behave := func(b probetest.Behaviour) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, b) }
	}
	// saying greets without being asked and closes.
	saying := func(greeting string) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) {
			return probetest.ListenGreeting(at, []byte(greeting))
		}
	}
	long := strings.Repeat("\xff\x00\x1b[2J", 100<<10)
	all(t, func(tt tcpCase) string { return tt.name }, []tcpCase{
		{"a host that accepts and waits is open", behave(probetest.Accept), pb.Failure_FAILURE_NONE, "", 0, ""},
		{"a banner is no reason to complain", behave(probetest.Banner), pb.Failure_FAILURE_NONE, "", 0, "SSH-2.0-elsewhere\r\n"},
		{"a banner and then a FIN is no early close", saying("220 full\r\n"), pb.Failure_FAILURE_NONE, "", 0, "220 full\r\n"},
		{"of a long banner the beginning is kept, byte for byte", saying(long), pb.Failure_FAILURE_NONE, "", 0, long[:maxBanner]},
		{"a closed port answers with an RST", probetest.ListenClosed, pb.Failure_FAILURE_TCP_REFUSED, "ECONNREFUSED", spacing, ""},
		{"a full accept queue is silent", probetest.ListenFull, pb.Failure_FAILURE_TCP_TIMEOUT, "", 2 * connectTimeout, ""},
		{"an RST after the handshake is not a refusal", behave(probetest.Reset), pb.Failure_FAILURE_TCP_RESET, "ECONNRESET", spacing, ""},
		{"a FIN after the handshake is a close", behave(probetest.CloseAtOnce), pb.Failure_FAILURE_TCP_CLOSED_EARLY, "", spacing, ""},
	}, func(t *testing.T, tt tcpCase) func(*testing.T) {
		env := newEnv(t, nil)
		env.patience = 3 * time.Second
		host := must[*probetest.Host](t)(tt.listen(at("127.0.0.2")))
		r := run(t, env, tcpSpec("127.0.0.2", host.Addr().Port()))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT)
			if got := string(s.GetEvidence().GetBanner()); got != tt.banner {
				t.Errorf("banner %q, want %q", got, tt.banner)
			}
			checkTCP(t, s, host.Addr().String(), tt.want)
			if s.GetEvidence().GetErrno() != tt.errno {
				t.Errorf("errno %q, want %q", s.GetEvidence().GetErrno(), tt.errno)
			}
			if took := s.GetDuration().AsDuration(); took < tt.least || took > tt.least+slack {
				t.Errorf("took %v, want a little over %v", took, tt.least)
			}
			checkControls(t, r, tt.want)
		}
	})
}

// tcpCase is a host and how a tcp check of it ends.
type tcpCase struct {
	name   string
	listen func(netip.AddrPort) (*probetest.Host, error)
	want   pb.Failure
	errno  string
	least  time.Duration
	banner string
}

// checkTCP compares what every connect step must say.
func checkTCP(t *testing.T, s *pb.Step, addr string, want pb.Failure) {
	t.Helper()
	var failures []pb.Failure
	attempts := int32(1)
	if want != pb.Failure_FAILURE_NONE {
		failures, attempts = []pb.Failure{want}, 2
	}
	if s.GetFailure() != want || !slices.Equal(s.GetFailures(), failures) {
		t.Errorf("failure %v of %v, want %v: %v", Short(s.GetFailure()), s.GetFailures(), Short(want), s.GetEvidence())
	}
	if s.GetAttempts() != attempts || s.GetAddress() != addr {
		t.Errorf("%d attempts at %s, want %d at %s", s.GetAttempts(), s.GetAddress(), attempts, addr)
	}
	if n := len(s.GetEvidence().GetTries()); want != pb.Failure_FAILURE_NONE && n != 2 {
		t.Errorf("%d failed attempts noted, want 2", n)
	}
	if s.GetEvidence().GetLocalAddress() == "" {
		t.Error("no local address")
	}
}

// checkControls wants a passing control beside a failed step, and none beside a healthy one.
func checkControls(t *testing.T, r *pb.Result, f pb.Failure) {
	t.Helper()
	controls := steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL)
	if f == pb.Failure_FAILURE_NONE {
		if len(controls) > 0 {
			t.Errorf("controls beside a healthy step: %v", controls)
		}
		return
	}
	passed := slices.ContainsFunc(controls, func(s *pb.Step) bool { return s.GetFailure() == pb.Failure_FAILURE_NONE })
	if !passed {
		t.Errorf("no control passed: %v", controls)
	}
	for _, c := range controls {
		if c.Beside == nil || r.GetSteps()[c.GetBeside()].GetRole() != pb.Role_ROLE_TARGET {
			t.Errorf("a control beside nothing: %v", c)
		}
	}
}

func TestAddressesShareTheirControls(t *testing.T) {
	t.Parallel()
	zone := probetest.Zone{"www.example": {Records: []string{
		"www.example. 60 IN A 127.0.6.2", "www.example. 60 IN A 127.0.6.3", "www.example. 60 IN A 127.0.6.4",
	}}}
	env := newEnv(t, zone)
	env.Controls = env.Controls[:1]
	// On addresses that no other test uses: a port that is free on one of them is free on all.
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.6.2")))
	must[*probetest.Host](t)(probetest.ListenClosed(netip.AddrPortFrom(netip.MustParseAddr("127.0.6.3"), closed.Addr().Port())))
	must[*probetest.Host](t)(probetest.Listen(netip.AddrPortFrom(netip.MustParseAddr("127.0.6.4"), closed.Addr().Port()), probetest.Accept))

	r := run(t, env, tcpSpec("www.example", closed.Addr().Port()))

	got := map[string]pb.Failure{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_TARGET) {
		got[netip.MustParseAddrPort(s.GetAddress()).Addr().String()] = s.GetFailure()
	}
	want := map[string]pb.Failure{
		"127.0.6.2": pb.Failure_FAILURE_TCP_REFUSED, "127.0.6.3": pb.Failure_FAILURE_TCP_REFUSED, "127.0.6.4": pb.Failure_FAILURE_NONE,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := len(steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL)); n != 1 {
		t.Errorf("%d controls for one family, want 1", n)
	}
}

func TestALoopbackTargetUsesOnlyLoopbackControls(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	env.Controls = []string{"192.0.2.1:9", "[2001:db8::1]:9"}
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2")))
	r := run(t, env, tcpSpec("127.0.0.2", closed.Addr().Port()))
	if len(r.GetSteps()) != 1 {
		t.Errorf("a control that says nothing about loopback was asked: %v", r)
	}
}

// TestSilentConnectsCostNoThreads: an agent waits for hundreds of silent targets at once.
func TestSilentConnectsCostNoThreads(t *testing.T) {
	const connects, most = 300, 64
	full := must[*probetest.Host](t)(probetest.ListenFull(at("127.0.0.2")))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range connects {
		wg.Go(func() {
			conn, ev, err := Connect(ctx, full.Addr(), ConnectOptions{MaxSegment: 536})
			if conn != nil || !isTimeout(err) || !ev.GetErrorQueue() {
				t.Errorf("%v, %v, %v; want silence", conn, ev, err)
			}
		})
	}
	wg.Wait()
	if n := pprof.Lookup("threadcreate").Count(); n > most {
		t.Errorf("%d threads for %d silent connects, want at most %d", n, connects, most)
	}
}

// TestATCPCheckReadsLittle: an endless banner is read as far as it is worth something.
func TestATCPCheckReadsLittle(t *testing.T) {
	t.Parallel()
	host := must[*probetest.Host](t)(probetest.ListenGreeting(at("127.0.0.2"), make([]byte, 1<<20)))
	env := newEnv(t, nil)
	env.patience = 3 * time.Second
	s := one(t, run(t, env, tcpSpec("127.0.0.2", host.Addr().Port())), pb.StepKind_STEP_KIND_TCP_CONNECT)
	if n := s.GetEvidence().GetBytesRead(); n < maxBanner || n > maxGreeting {
		t.Errorf("%d bytes read, want %d to %d", n, maxBanner, maxGreeting)
	}
}
