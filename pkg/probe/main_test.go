package probe

import (
	"context"
	"flag"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestMain(m *testing.M) {
	// Probes mostly wait, so the number of CPUs is no measure of how many tests can run at once. With many more
	// of them, two CPUs under the race detector answer some queries only after they were sent again.
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// slack is how much later than it should a thing may be done on a busy machine. Bounds of time are there to find
// what waits for a target for as long as that likes, not what is slow.
const slack = 5 * time.Second

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// at returns a loopback address with a port of the kernel's choice.
func at(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 0) }

// closer is what every part of the little internet is.
type closer interface {
	comparable
	Close() error
}

// must starts a part of the little internet for the test's time.
func must[T closer](t testing.TB) func(part T, err error) T {
	return func(part T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := part.Close(); err != nil {
				t.Error(err)
			}
		})
		return part
	}
}

// newEnv returns a world on loopback with a resolver and a control that works.
func newEnv(t testing.TB, zone probetest.Zone) *Env {
	t.Helper()
	if zone == nil {
		zone = probetest.Zone{}
	}
	zone["control.example"] = probetest.Name{Records: []string{"control.example. 60 IN A 127.0.0.9"}}
	resolver := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), zone, true))
	control := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.9"), probetest.Accept))
	return &Env{
		Resolvers: []netip.AddrPort{resolver.Addr()},
		Egress:    Egress{Allow: loopback},
		Controls:  []string{netip.AddrPortFrom(control.Addr().Addr(), control.Addr().Port()).String(), "control.example:1"},
		Hints:     []netip.AddrPort{}, // Nobody outside is asked.
		Version:   "test",
	}
}

func newJob(spec *pb.Spec, remaining time.Duration) *pb.Job {
	return &pb.Job{
		MeasurementId: "m", Agent: "a", Spec: spec,
		CoordinatorTime: timestamppb.Now(), Remaining: durationpb.New(remaining),
	}
}

func run(t testing.TB, env *Env, spec *pb.Spec) *pb.Result {
	t.Helper()
	return Run(context.Background(), env, newJob(spec, 28*time.Second))
}

func dnsSpec(name, qtype string) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: name, Type: qtype}}}
}

func tcpSpec(host string, port uint16) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: host, Port: uint32(port)}}}
}

func tlsSpec(host string, port uint16, name string) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: host, Port: uint32(port), ServerName: name}}}
}

// steps returns the steps of a kind and role.
func steps(r *pb.Result, kind pb.StepKind, role pb.Role) []*pb.Step {
	var out []*pb.Step
	for _, s := range r.GetSteps() {
		if s.GetKind() == kind && s.GetRole() == role {
			out = append(out, s)
		}
	}
	return out
}

// one returns the only step of a kind about the target.
func one(t testing.TB, r *pb.Result, kind pb.StepKind) *pb.Step {
	t.Helper()
	found := steps(r, kind, pb.Role_ROLE_TARGET)
	if len(found) != 1 {
		t.Fatalf("%d steps of kind %v, want 1:\n%v", len(found), kind, r)
	}
	return found[0]
}

// all runs every case at once, whatever the number of CPUs, since probes mostly wait; then it checks
// each of them in a subtest of its own.
func all[C any](t *testing.T, name func(C) string, cases []C, do func(*testing.T, C) (check func(*testing.T))) {
	t.Helper()
	checks := make([]func(*testing.T), len(cases))
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() { checks[i] = do(t, c) })
	}
	wg.Wait()
	for i, c := range cases {
		t.Run(name(c), func(t *testing.T) {
			if checks[i] == nil {
				t.Fatal("the case did not run")
			}
			checks[i](t)
		})
	}
}
