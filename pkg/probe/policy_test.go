package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestOnly(t *testing.T) {
	t.Parallel()
	e := Egress{Allow: prefixes("10.0.0.0/8"), Deny: prefixes("8.8.8.8/32"), Only: prefixes("8.8.8.0/24", "10.1.0.0/16", "192.168.0.0/16", "64:ff9b::/96")}
	for _, c := range []struct {
		why, ip string
		ok      bool
	}{
		{"among them", "8.8.8.9", true},
		{"not among them", "8.8.4.4", false},
		{"not among them, of the other family", "2606:4700::1", false},
		{"among them, and denied", "8.8.8.8", false},
		{"among them, private and allowed", "10.1.2.3", true},
		{"private and allowed, and not among them", "10.2.2.3", false},
		{"private and among them: that alone admits nothing", "192.168.0.1", false},
		{"in disguise", "::ffff:8.8.8.9", true},
		{"NAT64 that is among them, to what is", "64:ff9b::8.8.8.9", true},
		{"NAT64 that is among them, to what is not", "64:ff9b::8.8.4.4", false},
	} {
		if err := e.Check(netip.MustParseAddr(c.ip)); (err == nil) != c.ok {
			t.Errorf("%s (%s): %v", c.ip, c.why, err)
		}
	}
}

// TestRefusals: what an operator does not allow is refused at the door where it shows there, and says why.
func TestRefusals(t *testing.T) {
	t.Parallel()
	whole := Policy{
		Egress: Egress{Ports: Ports{Allow: []PortRange{{80, 80}, {443, 443}, {8000, 8999}}, Deny: []PortRange{{8080, 8080}}}},
		Checks: []string{"tcp", "dns", "http"}, DenyTypes: []uint16{dns.TypeANY, dns.TypeTXT},
	}
	stopped := whole
	stopped.Stopped = "the agent's operator has stopped it: lunch"
	named := dnsSpec("www.example", "A")
	named.GetDns().Resolver = "9.9.9.9"
	for _, c := range []struct {
		why    string
		policy Policy
		spec   *pb.Spec
		want   string
	}{
		{"a port that is allowed", whole, tcpSpec("8.8.8.8", 443), ""},
		{"one of a range", whole, tcpSpec("8.8.8.8", 8999), ""},
		{"one that is denied inside of it", whole, tcpSpec("8.8.8.8", 8080), "the agent's policy does not allow port 8080"},
		{"one that is not among them", whole, tcpSpec("8.8.8.8", 25), "the agent's policy does not allow port 25"},
		{"the same of a name, before anybody resolves it", whole, tcpSpec("www.example", 25), "the agent's policy does not allow port 25"},
		{"the same in a URL", whole, httpSpec(&pb.HTTPSpec{Url: "http://www.example:81/"}), "the agent's policy does not allow port 81"},
		{"a check that is not among them", whole, tlsSpec("8.8.8.8", 443, ""), "the agent's policy does not allow tls checks"},
		{"a type that is denied", whole, dnsSpec("www.example", "ANY"), "the agent's policy does not allow questions for ANY"},
		{"the same by its number", whole, dnsSpec("www.example", "TYPE16"), "the agent's policy does not allow questions for TXT"},
		{"another type", whole, dnsSpec("www.example", "MX"), ""},
		{"anything, while stopped", stopped, tcpSpec("8.8.8.8", 443), "the agent's operator has stopped it: lunch"},
		{"a DNS server that the question names", Policy{OwnServers: true}, named, "the agent's policy allows no DNS servers but its own"},
		{"the same where any may be asked, although its port is not among those of targets", whole, named, ""},
		{"port 25 by itself", Policy{Egress: Egress{Ports: Ports{Allow: []PortRange{{25, 25}}}}}, tcpSpec("8.8.8.8", 25), ""},
		{"port 25 in a range", Policy{Egress: Egress{Ports: Ports{Allow: []PortRange{{1, 1024}}}}}, tcpSpec("8.8.8.8", 25), "port 25 is denied"},
	} {
		env := &Env{Policy: func() *Policy { return &c.policy }, Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{}, Controls: []string{}}
		f, detail := Admit(env, newJob(c.spec, time.Second))
		if f == pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING { // This host is without IPv4.
			f = pb.Failure_FAILURE_NONE
		}
		if (f == pb.Failure_FAILURE_AGENT_POLICY_DENIED) != (c.want != "") || !strings.HasPrefix(detail, c.want) {
			t.Errorf("%s: %v %q, want %q", c.why, f, detail, c.want)
		}
	}
}

// TestEveryCheckHasAName: a check that the contract has and an operator cannot name would be allowed by nobody's will.
func TestEveryCheckHasAName(t *testing.T) {
	t.Parallel()
	checks := (&pb.Spec{}).ProtoReflect().Descriptor().Oneofs().ByName("check").Fields()
	for i := range checks.Len() {
		spec := &pb.Spec{}
		field := checks.Get(i)
		spec.ProtoReflect().Set(field, spec.ProtoReflect().NewField(field))
		if name := nameOf(spec); name != string(field.Name()) || !slices.Contains(CheckNames(), name) {
			t.Errorf("%s is called %q", field.Name(), name)
		}
	}
}

func TestTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Budget{Burst: 5, PerSecond: 1, TotalBurst: 8, TotalPerSecond: 2}
		admits := func(host string, n int) (got int) {
			for range n {
				if b.admit(bucketKey{host: host}, 1) == nil {
					got++
				}
			}
			return got
		}
		one, two := admits("one", 1000), admits("two", 1000)
		if one != 5 || two != 3 {
			t.Errorf("%d and %d, want 5, and 3 since a flood for one target takes nothing from the others", one, two)
		}
		time.Sleep(2 * time.Second) // The bubble's own clock.
		if n := admits("three", 1000); n != 4 {
			t.Errorf("%d after 2 s, want 4", n)
		}
	})
}

// TestEnumerationsCost: one looks like many handshakes to its target.
func TestEnumerationsCost(t *testing.T) {
	t.Parallel()
	spec := tlsSpec("8.8.8.8", 443, "")
	spec.GetTls().Enumerate = true
	env := &Env{Budget: &Budget{PerSecond: 0.001}, Resolvers: []netip.AddrPort{}}
	admitted := 0
	for range 100 {
		if f, _ := Admit(env, newJob(spec, time.Second)); f != pb.Failure_FAILURE_AGENT_POLICY_DENIED {
			admitted++
		}
	}
	if admitted != defaultBurst/enumerationCost {
		t.Errorf("%d enumerations of one target at once", admitted)
	}
}

// TestAPolicyHoldsAtOnce: what is changed while a job runs holds for the sockets that it has not opened yet, and a job
// that the operator ended says so.
func TestAPolicyHoldsAtOnce(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	var now atomic.Pointer[Policy]
	open := &Policy{Egress: env.Egress}
	now.Store(open)
	env.Policy = func() *Policy { return now.Load() }
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	env.Connect = func(ctx context.Context, _ netip.AddrPort, _ ConnectOptions) (net.Conn, *pb.Evidence, error) {
		now.Store(&Policy{Egress: env.Egress, Stopped: "the agent's operator has stopped it"})
		cancel(nil)
		<-ctx.Done()
		return nil, &pb.Evidence{}, ctx.Err()
	}
	r := Run(ctx, env, newJob(tcpSpec("127.0.0.2", 80), 20*time.Second))
	if last := r.GetSteps()[len(r.GetSteps())-1]; last.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || last.GetEvidence().GetText() != now.Load().Stopped {
		t.Errorf("%v", r)
	}
	for _, s := range r.GetSteps() {
		if f := s.GetFailure(); f != pb.Failure_FAILURE_AGENT_POLICY_DENIED && f != pb.Failure_FAILURE_AGENT_DEADLINE {
			t.Errorf("%v: that is said of the target", s)
		}
	}
	dialled := make(chan string, 8)
	env.Connect = spy(dialled)
	for _, s := range run(t, env, tcpSpec("127.0.0.2", 80)).GetSteps() {
		if s.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED {
			t.Errorf("while stopped: %v", s)
		}
	}
	if len(dialled) > 0 {
		t.Errorf("while stopped a socket was opened to %s", <-dialled)
	}
	now.Store(open)
	env.Connect = nil
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	if s := one(t, run(t, env, tcpSpec("127.0.0.2", host.Addr().Port())), pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("afterwards: %v", s)
	}
}

// TestANYGoesOverTCP: it is what amplification is made of.
func TestANYGoesOverTCP(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}})
	s := one(t, run(t, env, dnsSpec("www.example", "ANY")), pb.StepKind_STEP_KIND_DNS_QUERY)
	if len(s.GetEvidence().GetReplies()) == 0 {
		t.Fatal(s)
	}
	for _, r := range s.GetEvidence().GetReplies() {
		if r.GetTransport() != "tcp" {
			t.Errorf("asked over %s", r.GetTransport())
		}
	}
}
