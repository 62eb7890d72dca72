package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTheWholePipeline(t *testing.T) {
	t.Parallel()
	ca, err := probetest.NewCA("Example", probetest.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(probetest.Leaf{Names: []string{"www.example"}})
	if err != nil {
		t.Fatal(err)
	}
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{
		"www.example. 60 IN CNAME origin.example.",
	}}, "origin.example": {Records: []string{"origin.example. 30 IN A 127.0.0.2"}}})
	env.Roots = append(env.Roots, ca.Root)
	env.patience = 3 * time.Second

	r := run(t, env, tlsSpec("WWW.example.", host.Addr().Port(), ""))

	queries := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET)
	if len(queries) != 2 || queries[0].GetName() != "www.example" {
		t.Errorf("want a query each for A and AAAA of www.example, got %v", queries)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetAttempts() != 1 {
		t.Errorf("connect: %v", s)
	}
	s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetName() != "www.example" || s.GetEvidence().GetTls().GetVersion() != "TLS 1.3" {
		t.Errorf("handshake: %v", s)
	}
	if n := len(s.GetEvidence().GetTls().GetChain()); n != 2 {
		t.Errorf("a chain of %d certificates, want 2", n)
	}
	if len(r.GetSteps()) != 4 {
		t.Errorf("%d steps, want 4: nothing failed, so nothing else was asked:\n%v", len(r.GetSteps()), r)
	}
}

// spy connects as usual and tells where to.
func spy(dialled chan<- string) func(context.Context, netip.AddrPort, ConnectOptions) (net.Conn, *pb.Evidence, error) {
	return func(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
		dialled <- addr.String()
		return Connect(ctx, addr, opts)
	}
}

// TestEveryCheckHasABranch fails when the contract grows a check that Run does not know.
func TestEveryCheckHasABranch(t *testing.T) {
	t.Parallel()
	env := &Env{Resolvers: []netip.AddrPort{}, Controls: []string{}}
	checks := (&pb.Spec{}).ProtoReflect().Descriptor().Oneofs().ByName("check").Fields()
	for i := range checks.Len() {
		field := checks.Get(i)
		spec := &pb.Spec{}
		check := spec.ProtoReflect().Mutable(field).Message()
		for name, value := range map[protoreflect.Name]protoreflect.Value{
			"host": protoreflect.ValueOfString("10.0.0.1"), "name": protoreflect.ValueOfString("www.example"), "port": protoreflect.ValueOfUint32(1),
			"url": protoreflect.ValueOfString("http://10.0.0.1/"),
		} {
			if f := check.Descriptor().Fields().ByName(name); f != nil {
				check.Set(f, value)
			}
		}
		if o := spec.GetOrigin(); o != nil {
			o.Profile = someCDN()
		}
		r := run(t, env, spec)
		for _, s := range r.GetSteps() {
			if s.GetFailure() == pb.Failure_FAILURE_AGENT_INTERNAL {
				t.Errorf("%s: no branch: %v", field.Name(), s)
			}
		}
	}
}

func TestWhatDoesNotFitIsADeadline(t *testing.T) {
	t.Parallel()
	type late struct {
		name      string
		spec      *pb.Spec
		remaining time.Duration
		kind      pb.StepKind
	}
	env := newEnv(t, probetest.Zone{"silent.example": {Fault: probetest.Silent}})
	full := must[*probetest.Host](t)(probetest.ListenFull(at("127.0.0.2")))
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2")))
	mute := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	all(t, func(tt late) string { return tt.name }, []late{
		{"no time at all for a query", dnsSpec("www.example", ""), 0, pb.StepKind_STEP_KIND_DNS_QUERY},
		{"no time at all for a connect", tcpSpec("127.0.0.2", mute.Addr().Port()), 0, pb.StepKind_STEP_KIND_TCP_CONNECT},
		{"a silent resolver", dnsSpec("silent.example", ""), 1500 * time.Millisecond, pb.StepKind_STEP_KIND_DNS_QUERY},
		{"a silent port", tcpSpec("127.0.0.2", full.Addr().Port()), time.Second, pb.StepKind_STEP_KIND_TCP_CONNECT},
		{"a silent port, and no time for the second attempt", tcpSpec("127.0.0.2", full.Addr().Port()), 4500 * time.Millisecond, pb.StepKind_STEP_KIND_TCP_CONNECT},
		{"a refusal that cannot be seen twice", tcpSpec("127.0.0.2", closed.Addr().Port()), 500 * time.Millisecond, pb.StepKind_STEP_KIND_TCP_CONNECT},
		{"a handshake that hangs", tlsSpec("127.0.0.2", mute.Addr().Port(), ""), time.Second, pb.StepKind_STEP_KIND_TLS_HANDSHAKE},
	}, func(t *testing.T, tt late) func(*testing.T) {
		began := time.Now()
		r := Run(t.Context(), env, newJob(tt.spec, tt.remaining))
		took := time.Since(began)
		return func(t *testing.T) {
			s := one(t, r, tt.kind)
			if s.GetFailure() != pb.Failure_FAILURE_AGENT_DEADLINE || len(s.GetFailures()) != 1 {
				t.Errorf("want agent_deadline alone: %v", s)
			}
			if took > tt.remaining+slack {
				t.Errorf("took %v of %v", took, tt.remaining)
			}
		}
	})
}

func TestCancellingEndsARunPromptly(t *testing.T) {
	t.Parallel()
	full := must[*probetest.Host](t)(probetest.ListenFull(at("127.0.0.2")))
	env := newEnv(t, nil)
	dialled := make(chan string, 16)
	env.Connect = spy(dialled)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *pb.Result)
	go func() { done <- Run(ctx, env, newJob(tcpSpec("127.0.0.2", full.Addr().Port()), time.Minute)) }()
	<-dialled
	cancel()
	select {
	case r := <-done:
		if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_AGENT_DEADLINE {
			t.Errorf("want agent_deadline: %v", s)
		}
	case <-time.After(time.Minute): // Uncancelled, it would have ended by itself, as tcp_timeout.
		t.Fatal("still running a minute after it was cancelled")
	}
}

func TestAPanicIsTheAgentsFailure(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	env.Connect = func(context.Context, netip.AddrPort, ConnectOptions) (net.Conn, *pb.Evidence, error) {
		panic("a parser broke")
	}
	s := one(t, run(t, env, tcpSpec("127.0.0.2", 1)), pb.StepKind_STEP_KIND_TCP_CONNECT)
	if s.GetFailure() != pb.Failure_FAILURE_AGENT_INTERNAL || !strings.Contains(s.GetEvidence().GetText(), "a parser broke") {
		t.Errorf("want agent_internal: %v", s)
	}
}

func TestAResultSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	job := newJob(tcpSpec("10.0.0.1", 1), time.Second)
	job.Round = 7
	r := Run(t.Context(), &Env{Version: "v1", Controls: []string{}}, job)
	if r.GetMeasurementId() != "m" || r.GetRound() != 7 || r.GetAgent() != "a" || r.GetVersion() != "v1" {
		t.Errorf("result: %v", r)
	}
	if s := r.GetSteps()[0]; s.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || s.GetAttempts() != 0 {
		t.Errorf("step: %v", s)
	}
}

// TestNoDescriptorLeaks runs each way for a connection to end and counts what is open.
func TestNoDescriptorLeaks(t *testing.T) {
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Skipf("needs /proc to count descriptors: %v", err)
	}
	env := newEnv(t, nil)
	open := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2")))
	full := must[*probetest.Host](t)(probetest.ListenFull(at("127.0.0.2")))
	probeAll := func() {
		for _, host := range []*probetest.Host{open, closed, full} {
			for _, spec := range []*pb.Spec{tcpSpec("127.0.0.2", host.Addr().Port()), tlsSpec("127.0.0.2", host.Addr().Port(), "")} {
				Run(t.Context(), env, newJob(spec, 300*time.Millisecond))
			}
		}
		Run(t.Context(), env, newJob(dnsSpec("control.example", ""), 300*time.Millisecond))
		Run(t.Context(), env, newJob(dnsSpec("nowhere.example", ""), 300*time.Millisecond))
	}
	// The first round makes what stays, such as the poller.
	probeAll()
	before := descriptors(t)
	for range 3 {
		probeAll()
	}
	if more := settle(func() int { return descriptors(t) - before }); more > 0 {
		t.Errorf("%d descriptors more are open than before 24 runs", more)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
