package probe

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// takes counts how many of n tokens a key gets.
func takes(b *Budget, key bucketKey, n int) (got int) {
	for range n {
		if b.take(key, 1) == nil {
			got++
		}
	}
	return got
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Budget{}
		one, other := bucketKey{host: "one.example"}, bucketKey{host: "other.example"}
		server := bucketKey{server: netip.MustParsePrefix("192.0.2.1/32")}
		if got := takes(b, one, 500); got != defaultBurst {
			t.Errorf("%d at once, want a burst of %d", got, defaultBurst)
		}
		if got := takes(b, other, 1); got != 1 {
			t.Error("one target's budget is another's")
		}
		if got := takes(b, server, 1000); got != defaultBurst*queriesPerJob {
			t.Errorf("%d queries to a server at once", got)
		}
		time.Sleep(3 * time.Second) // The bubble's own clock.
		if got := takes(b, one, 500); got != 3*defaultPerSecond {
			t.Errorf("%d after 3 s, want %d", got, 3*defaultPerSecond)
		}
		if got := takes(nil, one, 500); got != 500 {
			t.Errorf("%d of no budget, want all", got)
		}
	})
}

// TestBudgetIsBounded: it remembers so many targets, forgets those that are full again, and refuses new
// ones rather than give an old one a new burst.
func TestBudgetIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Budget{Burst: 2, PerSecond: 1, Targets: 3}
		key := func(i int) bucketKey { return bucketKey{host: fmt.Sprint(i)} }
		for i := range 3 {
			takes(b, key(i), 2)
		}
		if b.take(key(3), 1) == nil {
			t.Error("a fourth target was let in while three are in use")
		}
		time.Sleep(2 * time.Second)
		if err := b.take(key(3), 1); err != nil {
			t.Errorf("three targets are full again: %v", err)
		}
		if len(b.buckets) != 3 || b.recent.Len() != 3 {
			t.Errorf("%d buckets, %d in order, want 3", len(b.buckets), b.recent.Len())
		}
		if _, ok := b.buckets[key(0)]; ok {
			t.Error("the oldest was not the one to be forgotten")
		}
	})
}

func TestWhatIsOneTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		a, b *pb.Spec
		same bool
	}{
		{"a name, however it is spelled", tcpSpec("WWW.example.", 1), tlsSpec("www.example", 443, ""), true},
		{"two names", tcpSpec("www.example", 1), tcpSpec("web.example", 1), false},
		{"addresses of one IPv6 network", tcpSpec("2606:4700::1", 1), tcpSpec("2606:4700::2:1", 1), true},
		{"addresses of two IPv6 networks", tcpSpec("2606:4700::1", 1), tcpSpec("2606:4700:0:1::1", 1), false},
		{"two IPv4 addresses", tcpSpec("8.8.8.8", 1), tcpSpec("8.8.4.4", 1), false},
		{"lookups of one name", dnsSpec("www.example", "A"), dnsSpec("www.example", "TXT"), true},
	} {
		if got := asked(tt.a) == asked(tt.b); got != tt.same {
			t.Errorf("%s: %v and %v", tt.why, asked(tt.a), asked(tt.b))
		}
	}
	if ip := netip.MustParseAddr("2606:4700::1"); network(ip).String() != "2606:4700::/64" {
		t.Errorf("%s is in %s", ip, network(ip))
	}
}

// flood runs jobs, as many at once as a resolver on loopback bears, and returns how many the door let in, and how
// many Runs were refused inside.
func flood(t *testing.T, env *Env, jobs int, spec func(i int) *pb.Spec) (admitted, denied int32) {
	t.Helper()
	var wg errgroup.Group
	wg.SetLimit(128)
	var in, out atomic.Int32
	for i := range jobs {
		wg.Go(func() error {
			if f, why := Admit(env, newJob(spec(i), 0)); f != pb.Failure_FAILURE_NONE {
				if f != pb.Failure_FAILURE_AGENT_POLICY_DENIED || !strings.Contains(why, "a second") {
					t.Errorf("%s: %s", Short(f), why)
				}
				return nil
			}
			in.Add(1)
			for _, s := range steps(run(t, env, spec(i)), pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_TARGET) {
				if s.GetFailure() == pb.Failure_FAILURE_AGENT_POLICY_DENIED {
					out.Add(1)
				}
			}
			return nil
		})
	}
	_ = wg.Wait()
	return in.Load(), out.Load()
}

// counter is a server that counts its connections. A connect is over before the server accepts it, so
// connects makes one more itself: once that one was served, all before it have been counted.
func counter(t *testing.T) (addr netip.AddrPort, connects func() int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort(), func() int32 {
		t.Helper()
		last, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = last.Close() }()
		_, _ = io.Copy(io.Discard, last)
		return accepted.Load() - 1
	}
}

// TestOneTargetManyJobs: 500 jobs in a moment for one address are refused at the door beyond the burst; under
// 500 names that lead to it, by the guard.
func TestOneTargetManyJobs(t *testing.T) {
	t.Parallel()
	const jobs = 500
	for _, tt := range []struct {
		why      string
		spec     func(port uint16, i int) *pb.Spec
		admitted int32
	}{
		{"by its address", func(port uint16, _ int) *pb.Spec { return tcpSpec("127.0.0.2", port) }, defaultBurst},
		{"by many names", func(port uint16, i int) *pb.Spec { return tcpSpec(fmt.Sprintf("n%d.evil.example", i), port) }, jobs},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			addr, connects := counter(t)
			zone := probetest.Zone{}
			for i := range jobs {
				name := fmt.Sprintf("n%d.evil.example", i)
				zone[name] = probetest.Name{Records: []string{name + ". 0 IN A 127.0.0.2"}}
			}
			env := newEnv(t, zone)
			env.Controls = []string{}
			env.Budget = &Budget{PerSecond: 0.001}
			admitted, denied := flood(t, env, jobs, func(i int) *pb.Spec { return tt.spec(addr.Port(), i) })
			if admitted != tt.admitted || denied != tt.admitted-defaultBurst {
				t.Errorf("%d jobs admitted and %d refused inside, want %d and %d", admitted, denied, tt.admitted, tt.admitted-defaultBurst)
			}
			// Each job that goes through connects twice, since the server closes at once.
			if n := connects(); n < defaultBurst || n > 2*defaultBurst {
				t.Errorf("%d connects of %d jobs that were let through", n, defaultBurst)
			}
		})
	}
}

// TestARunPaysOnce: a Run with several sockets to one address takes one token.
func TestARunPaysOnce(t *testing.T) {
	t.Parallel()
	tr := newTrace(&Env{Egress: Egress{Allow: loopback}, Budget: &Budget{Burst: 1}}, &pb.Job{})
	for range 3 {
		if err := tr.permit(netip.MustParseAddrPort("127.0.0.2:1"), toConnect); err != nil {
			t.Error(err)
		}
	}
	again := newTrace(tr.env, &pb.Job{})
	for range 2 {
		if again.permit(netip.MustParseAddrPort("127.0.0.2:2"), toFetch) == nil {
			t.Error("a second Run had a token")
		}
	}
	if err := again.permit(netip.MustParseAddrPort("127.0.0.2:2"), toQuery); err != nil {
		t.Errorf("queries have buckets of their own: %v", err)
	}
}
