package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestDNS(t *testing.T) {
	t.Parallel()
	testDNS(t, nil)
}

func TestDNSFromSocketsThatAreKept(t *testing.T) {
	t.Parallel()
	testDNS(t, must[*Sockets](t)(new(Sockets), nil))
}

func testDNS(t *testing.T, sockets *Sockets) {
	t.Helper()
	const name = "www.example"
	good := []string{"www.example. 60 IN A 127.0.0.2"}
	all(t, func(tt dnsCase) string { return tt.name }, []dnsCase{
		{"an answer is an answer", &probetest.Name{Records: good}, false, pb.Failure_FAILURE_NONE, 1, 1, 0},
		{"a name that does not exist is asked for twice", nil, false, pb.Failure_FAILURE_DNS_NXDOMAIN, 2, 2, time.Second},
		{"a name without the type is no such answer", &probetest.Name{Records: []string{"www.example. 60 IN AAAA ::1"}}, false, pb.Failure_FAILURE_DNS_NODATA, 2, 2, time.Second},
		{"SERVFAIL", &probetest.Name{Rcode: dns.RcodeServerFailure}, false, pb.Failure_FAILURE_DNS_SERVFAIL, 2, 2, time.Second},
		{"REFUSED", &probetest.Name{Rcode: dns.RcodeRefused}, false, pb.Failure_FAILURE_DNS_REFUSED, 2, 2, time.Second},
		{"NOTIMP", &probetest.Name{Rcode: dns.RcodeNotImplemented}, false, pb.Failure_FAILURE_DNS_NOTIMP, 2, 2, time.Second},
		{"FORMERR", &probetest.Name{Rcode: dns.RcodeFormatError}, false, pb.Failure_FAILURE_DNS_FORMERR, 2, 2, time.Second},
		{"NOTAUTH", &probetest.Name{Rcode: dns.RcodeNotAuth}, false, pb.Failure_FAILURE_DNS_NOTAUTH, 2, 2, time.Second},
		{"silence over UDP and TCP closed is a timeout", &probetest.Name{Fault: probetest.Silent}, true, pb.Failure_FAILURE_DNS_TIMEOUT, 5, 0, 5 * time.Second},
		{"silence over UDP and over TCP is a timeout", &probetest.Name{Fault: probetest.Silent}, false, pb.Failure_FAILURE_DNS_TIMEOUT, 5, 0, 5*time.Second + tcpTimeout},
		{"silence over UDP alone is answered over TCP", &probetest.Name{Records: good, Fault: probetest.SilentUDP}, false, pb.Failure_FAILURE_NONE, 5, 1, 5 * time.Second},
		{"a lost query is sent again", &probetest.Name{Records: good, Fault: probetest.Flaky}, false, pb.Failure_FAILURE_NONE, 2, 1, time.Second},
		{"a cut reply is fetched over TCP", &probetest.Name{Records: good, Fault: probetest.Truncated}, false, pb.Failure_FAILURE_NONE, 1, 2, 0},
		{"a cut reply that TCP does not give", &probetest.Name{Records: good, Fault: probetest.Truncated}, true, pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP, 2, 2, time.Second},
		{"a reply with another ID is nobody's", &probetest.Name{Records: good, Fault: probetest.WrongID}, true, pb.Failure_FAILURE_DNS_ID_MISMATCH, 5, 5, 5 * time.Second},
		{"a reply about another name is nobody's", &probetest.Name{Records: good, Fault: probetest.WrongName}, true, pb.Failure_FAILURE_DNS_ID_MISMATCH, 5, 5, 5 * time.Second},
		{"noise under the right ID is malformed", &probetest.Name{Fault: probetest.Garbage}, true, pb.Failure_FAILURE_DNS_MALFORMED, 5, 0, 5 * time.Second},
		{"two replies to one query are both kept", &probetest.Name{Records: good, Fault: probetest.TwoReplies}, false, pb.Failure_FAILURE_NONE, 1, 2, 0},
	}, func(t *testing.T, tt dnsCase) func(*testing.T) {
		zone := probetest.Zone{"control.example": {Records: []string{"control.example. 60 IN A 127.0.0.9"}}}
		if tt.answer != nil {
			zone[name] = *tt.answer
		}
		server := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), zone, !tt.noTCP))
		env := &Env{
			Resolvers: []netip.AddrPort{server.Addr()}, Hints: []netip.AddrPort{}, Controls: []string{"control.example:1"},
			Egress: Egress{Allow: loopback}, Sockets: sockets,
		}
		if tt.least <= time.Second { // What is answered is not sent again before the answer is there.
			env.patience = 3 * time.Second
		}
		s := one(t, run(t, env, dnsSpec(name, "")), pb.StepKind_STEP_KIND_DNS_QUERY)
		return func(t *testing.T) {
			if s.GetFailure() != tt.want || s.GetName() != name || s.GetAddress() != server.Addr().String() {
				t.Errorf("failure %s, want %s: %v", Short(s.GetFailure()), Short(tt.want), s)
			}
			if s.GetAttempts() != tt.attempts || len(s.GetEvidence().GetReplies()) != tt.replies {
				t.Errorf("%d attempts and %d replies, want %d and %d: %v",
					s.GetAttempts(), len(s.GetEvidence().GetReplies()), tt.attempts, tt.replies, s.GetEvidence())
			}
			if took := s.GetDuration().AsDuration(); took < tt.least || took > tt.least+slack {
				t.Errorf("took %v, want a little over %v", took, tt.least)
			}
		}
	})
}

// dnsCase is what a server answers and how a query ends. A nil answer: the name does not exist.
type dnsCase struct {
	name     string
	answer   *probetest.Name
	noTCP    bool
	want     pb.Failure
	attempts int32
	replies  int
	least    time.Duration
}

func TestDNSFailuresHaveControls(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	r := run(t, env, dnsSpec("nowhere.example", ""))
	controls := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_CONTROL)
	if len(controls) != 2 {
		t.Fatalf("%d controls, want A and AAAA of one name: %v", len(controls), r)
	}
	passed := slices.ContainsFunc(controls, func(s *pb.Step) bool { return s.GetFailure() == pb.Failure_FAILURE_NONE })
	if !passed || controls[0].Beside == nil || controls[0].GetAddress() != env.Resolvers[0].String() {
		t.Errorf("want a control that passes at the same resolver: %v", controls)
	}
}

func TestDNSEvidence(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{
		"www.example":  {Records: []string{"WWW.Example. 60 IN CNAME Edge.example."}, EDE: &dns.EDNS0_EDE{InfoCode: 3, ExtraText: "stale\x00 data"}},
		"edge.example": {Records: []string{"edge.example. 30 IN A 127.0.0.2", "edge.example. 30 IN A 127.0.0.3", "edge.example. 30 IN A 127.0.0.2"}},
	})
	s := one(t, run(t, env, dnsSpec("WWW.example", "A")), pb.StepKind_STEP_KIND_DNS_QUERY)
	if diff := cmp.Diff([]string{"127.0.0.2", "127.0.0.3"}, s.GetEvidence().GetAddresses()); diff != "" {
		t.Errorf("addresses: %s", diff)
	}
	reply := s.GetEvidence().GetReplies()[0]
	if reply.GetTransport() != "udp" || reply.GetRcode() != "NOERROR" || !reply.GetRecursionAvailable() || reply.GetSize() == 0 {
		t.Errorf("reply: %v", reply)
	}
	first := reply.GetAnswers()[0]
	if first.GetName() != "www.example" || first.GetType() != "CNAME" || first.GetTtl() != 60 || first.GetData() != "Edge.example." {
		t.Errorf("first record: %v", first)
	}
	if e := reply.GetExtendedErrors(); len(e) != 1 || e[0].GetCode() != 3 || e[0].GetText() != "stale data" {
		t.Errorf("extended errors: %v", e)
	}
}

func TestEveryResolverOfTheAgentIsAsked(t *testing.T) {
	t.Parallel()
	env := Env{Egress: Egress{Allow: loopback}}
	for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
		zone := probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A " + ip}}}
		env.Resolvers = append(env.Resolvers, must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), zone, true)).Addr())
	}
	r := run(t, &env, dnsSpec("www.example", ""))
	got := map[string]string{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET) {
		got[s.GetAddress()] = s.GetEvidence().GetAddresses()[0]
	}
	want := map[string]string{env.Resolvers[0].String(): "127.0.0.2", env.Resolvers[1].String(): "127.0.0.3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheNextResolverIsAskedWhenOneFails(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}})
	bad := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{"www.example": {Rcode: dns.RcodeServerFailure}}, true))
	env.Resolvers = append([]netip.AddrPort{bad.Addr()}, env.Resolvers...)
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	spec := tcpSpec("www.example", host.Addr().Port())
	spec.Family = pb.Family_FAMILY_IPV4

	r := run(t, env, spec)

	queries := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET)
	if len(queries) != 2 || queries[0].GetFailure() != pb.Failure_FAILURE_DNS_SERVFAIL || queries[1].GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("queries: %v", queries)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("connect: %v", s)
	}
}

func TestAMissingFamilyDelaysNothing(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}})
	env.patience = 3 * time.Second
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	r := run(t, env, tcpSpec("www.example", host.Addr().Port()))
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET) {
		if s.GetAttempts() != 1 {
			t.Errorf("asked %d times, the second time a second later: %v", s.GetAttempts(), s)
		}
	}
}

func TestAtMostSixteenAddressesAreProbed(t *testing.T) {
	t.Parallel()
	var records []string
	for i := range 20 {
		records = append(records, "www.example. 60 IN A "+netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}).String())
	}
	env := newEnv(t, probetest.Zone{"www.example": {Records: records}})
	spec := tcpSpec("www.example", 1)
	spec.Family = pb.Family_FAMILY_IPV4
	r := run(t, env, spec)
	if n := len(steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_TARGET)); n != 16 {
		t.Errorf("%d addresses probed, want 16", n)
	}
	s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY)
	if len(s.GetEvidence().GetAddresses()) != 20 || s.GetEvidence().GetText() != "4 more addresses were not probed" {
		t.Errorf("evidence: %v", s.GetEvidence())
	}
}
