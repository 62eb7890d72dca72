package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// displaced is how many agents each coordinator has when one is killed.
const displaced = 10

// BenchmarkFailover is what passes after one of three coordinators, programs of their own with TLS, was killed (SIGKILL) a
// moment after it had opened a tcp check by 30 agents, 10 of them its own: until its agents have come to another one
// (agents), until another one has opened a new measurement (opened), and until the one that was running has ended, with an
// answer of each agent (ended). It kills the one that leads the log, and one that does not. The agents are in this process.
// A run whose measurement ends without all answers counts as incomplete, and for the other two alone.
func BenchmarkFailover(b *testing.B) {
	for step, who := range []string{"leader", "follower"} {
		b.Run(who, func(b *testing.B) {
			took, incomplete := map[string][]time.Duration{}, 0
			for b.Loop() {
				w := newTrio(b)
				w.agents()
				one := w.fail((w.leader() + step) % embedded.Members)
				for what, d := range one {
					took[what] = append(took[what], d)
				}
				if _, complete := one["ended"]; !complete {
					incomplete++
				}
				w.end()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(incomplete), "incomplete")
			for what, list := range took {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, what+"-p50-ms")
				b.ReportMetric(float64(list[len(list)-1].Microseconds())/1000, what+"-max-ms")
			}
		})
	}
}

// trio is three coordinators that are one service, programs of their own, and agents in this process.
type trio struct {
	b         *testing.B
	sites     [embedded.Members]*site
	processes [embedded.Members]*process
	conns     [embedded.Members]*grpc.ClientConn
	stop      []func() // of agents
	came      *arrivals
}

// newTrio starts the coordinators, the first of which makes the authority.
func newTrio(b *testing.B) *trio {
	w := &trio{b: b, came: &arrivals{moved: make(chan struct{}, 1), at: map[string]arrival{}}}
	addrs := freeAddrs(b, 3*embedded.Members)
	calls, nats, gossip := addrs[:3], addrs[3:6], addrs[6:]
	key := filepath.Join(b.TempDir(), "gossip.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("6b", 32)+"\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for i := range w.sites {
		w.sites[i] = &site{dir: b.TempDir(), grpc: calls[i]}
		dir, says := filepath.Join(w.sites[i].dir, "c"), `"waiting for the other coordinators"`
		if i == embedded.Members-1 {
			says = "ready"
		}
		if i > 0 {
			w.give(dir)
		}
		w.processes[i], _ = spawn(b, says, "elsewhere-coordinator", "--id", fmt.Sprint("c-", i+1), "--data-dir", dir, "--http-addr", "",
			"--grpc-addr", calls[i], "--nats-addr", nats[i], "--gossip-addr", gossip[i], "--gossip-join", gossip[0], "--gossip-key", key)
	}
	last := w.sites[embedded.Members-1].api(b) // which is ready
	for slices.ContainsFunc(w.list(last), func(c *pb.Coordinator) bool { return c.GetState() == nil || c.GetState().GetUnready() != "" }) {
		<-time.After(100 * time.Millisecond)
	}
	for i, s := range w.sites {
		w.conns[i] = s.api(b)
	}
	return w
}

// give gives a coordinator the authority that the first one has made.
func (w *trio) give(dir string) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.b.Fatal(err)
	}
	for _, name := range []string{"ca.pem", "ca.key"} {
		data, err := os.ReadFile(filepath.Join(w.sites[0].dir, "c", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			w.b.Fatal(err)
		}
	}
}

// list is what a coordinator knows of all.
func (w *trio) list(cc *grpc.ClientConn) []*pb.Coordinator {
	r, err := pb.NewCoordinatorServiceClient(cc).ListCoordinators(w.b.Context(), &pb.ListCoordinatorsRequest{})
	if err != nil {
		w.b.Fatal(err)
	}
	return r.GetCoordinators()
}

// leader is the coordinator that leads the log.
func (w *trio) leader() int {
	at := slices.IndexFunc(w.list(w.conns[0]), func(c *pb.Coordinator) bool { return slices.Contains(c.GetState().GetLeads(), "log") })
	if at < 0 {
		w.b.Fatal("nobody leads the log")
	}
	return at
}

// agents enrols agents and has each come to a coordinator.
func (w *trio) agents() {
	access := pb.NewAccessServiceClient(w.conns[0])
	for i := range displaced * embedded.Members {
		name := fmt.Sprintf("agent-%02d", i)
		r, err := access.CreateJoinToken(w.b.Context(), &pb.CreateJoinTokenRequest{Join: &pb.JoinToken{Agent: name, Vantage: &pb.Vantage{Region: "here"}}})
		if err != nil {
			w.b.Fatal(err)
		}
		opts := agent.Options{
			DataDir: w.b.TempDir(), ID: name, Join: r.GetSecret(), Vantage: &pb.Vantage{Region: "here", Addresses: []string{"192.0.2.1"}},
			DrainTimeout: time.Second, Log: slog.New(logOf{w.came, name}),
			Env: &probe.Env{
				Egress:    probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
				Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{}, Controls: []string{},
			},
		}
		for k := range w.sites {
			opts.Coordinators = append(opts.Coordinators, w.sites[(i+k)%len(w.sites)].grpc)
		}
		if opts.Identity, err = agent.Enrol(w.b.Context(), opts); err != nil {
			w.b.Fatal(err)
		}
		a, err := agent.New(opts)
		if err != nil {
			w.b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		w.stop = append(w.stop, func() {
			cancel()
			if err := <-done; err != nil {
				w.b.Error(err)
			}
		})
	}
	w.came.await(w.b, func(a arrival) bool { return a.coordinator != "" }, displaced*embedded.Members)
}

// fail kills a coordinator and says how long it took until what is to follow had happened.
func (w *trio) fail(victim int) map[string]time.Duration {
	target := listen(w.b)
	request := &pb.CreateMeasurementRequest{
		Spec:  &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
		Limit: displaced * embedded.Members,
	}
	other := pb.NewMeasurementServiceClient(w.conns[(victim+1)%len(w.conns)])
	var running *pb.CreateMeasurementResponse
	for len(running.GetMeasurement().GetAsks()) != int(request.GetLimit()) { // all of them beat from the start on, and are known soon
		var err error
		if running, err = pb.NewMeasurementServiceClient(w.conns[victim]).CreateMeasurement(w.b.Context(), request); err != nil {
			w.b.Fatal(err)
		}
	}
	killed := time.Now()
	w.processes[victim].kill()
	took := map[string]time.Duration{}
	var parts sync.WaitGroup
	parts.Go(func() {
		if _, err := other.CreateMeasurement(w.b.Context(), request); err != nil {
			w.b.Error(err)
		}
		took["opened"] = time.Since(killed)
	})
	m, err := ended(w.b.Context(), other, running.GetMeasurement().GetId())
	for status.Code(err) == codes.NotFound { // it is not folded there yet
		m, err = ended(w.b.Context(), other, running.GetMeasurement().GetId())
	}
	after := time.Since(killed)
	if err != nil {
		w.b.Error(err)
	}
	parts.Wait()
	if l := m.GetLedger(); l.GetAnswered() == l.GetAsked() {
		took["ended"] = after
	} else {
		w.b.Logf("incomplete after %v: %v", after, l)
	}
	last := w.came.await(w.b, func(a arrival) bool { return a.coordinator != w.sites[victim].grpc }, displaced*embedded.Members)
	took["agents"] = last.Sub(killed)
	w.b.Logf("c-%d killed: %v", victim+1, took)
	return took
}

// end ends all that run.
func (w *trio) end() {
	for _, stop := range w.stop {
		stop()
	}
	for _, p := range w.processes {
		p.kill()
	}
}

// arrivals are the coordinators that agents have come to, by what they log.
type arrivals struct {
	mu    sync.Mutex
	at    map[string]arrival // by agent
	moved chan struct{}      // has one when one has come
}

// arrival is when an agent has come to a coordinator.
type arrival struct {
	coordinator string
	at          time.Time
}

// await waits until so many agents are where they should be, and says when the last of them came there.
func (a *arrivals) await(b *testing.B, right func(arrival) bool, agents int) (last time.Time) {
	for {
		n := 0
		a.mu.Lock()
		for _, one := range a.at {
			if right(one) {
				n++
				if one.at.After(last) {
					last = one.at
				}
			}
		}
		a.mu.Unlock()
		if n == agents {
			return last
		}
		select {
		case <-a.moved:
		case <-time.After(time.Minute):
			b.Fatalf("%d of %d agents have come", n, agents)
		}
	}
}

// logOf is an agent's log, of which only its arrivals are kept.
type logOf struct {
	*arrivals
	agent string
}

// Enabled implements slog.Handler.
func (logOf) Enabled(_ context.Context, level slog.Level) bool { return level == slog.LevelInfo }

// Handle implements slog.Handler.
func (l logOf) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "connected" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.at[l.agent] = arrival{a.Value.String(), r.Time}
		return false
	})
	select {
	case l.moved <- struct{}{}:
	default:
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l logOf) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l logOf) WithGroup(string) slog.Handler { return l }
