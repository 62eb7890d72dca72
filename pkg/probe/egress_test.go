package probe

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestEgress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		egress Egress
		ip     string
		ok     bool
	}{
		{"public", Egress{}, "8.8.8.8", true},
		{"public", Egress{}, "2606:4700:4700::1111", true},
		{"this network", Egress{}, "0.0.0.0", false},
		{"private", Egress{}, "10.1.2.3", false},
		{"private", Egress{}, "172.31.255.255", false},
		{"just outside of private", Egress{}, "172.32.0.0", true},
		{"private", Egress{}, "192.168.0.1", false},
		{"shared, and a cloud's metadata", Egress{}, "100.100.100.200", false},
		{"loopback", Egress{}, "127.1.2.3", false},
		{"metadata", Egress{}, "169.254.169.254", false},
		{"metadata that looks public", Egress{}, "168.63.129.16", false},
		{"metadata in a protocol assignment", Egress{}, "192.0.0.192", false},
		{"a global exception inside a range that is not", Egress{}, "192.0.0.9", true},
		{"documentation", Egress{}, "203.0.113.1", false},
		{"benchmarking", Egress{}, "198.19.0.1", false},
		{"multicast", Egress{}, "224.0.0.1", false},
		{"reserved", Egress{}, "240.0.0.1", false},
		{"broadcast", Egress{}, "255.255.255.255", false},
		{"6to4 relay", Egress{}, "192.88.99.1", false},
		{"unspecified", Egress{}, "::", false},
		{"loopback", Egress{}, "::1", false},
		{"mapped private", Egress{}, "::ffff:10.0.0.1", false},
		{"mapped public", Egress{}, "::ffff:8.8.8.8", true},
		{"compatible", Egress{}, "::8.8.8.8", false},
		{"NAT64 to a private address", Egress{}, "64:ff9b::10.0.0.1", false},
		{"NAT64 to a public address", Egress{}, "64:ff9b::8.8.8.8", true},
		{"local NAT64", Egress{}, "64:ff9b:1::808:808", false},
		{"6to4", Egress{}, "2002:808:808::1", false},
		{"Teredo", Egress{}, "2001::1", false},
		{"unique local, and a cloud's metadata", Egress{}, "fd00:ec2::254", false},
		{"unique local, and another's", Egress{}, "fd20:ce::254", false},
		{"link local", Egress{}, "fe80::1", false},
		{"site local", Egress{}, "fec0::1", false},
		{"multicast", Egress{}, "ff0e::1", false},
		{"documentation", Egress{}, "2001:db8::1", false},
		{"documentation", Egress{}, "3fff::1", false},
		{"ORCHIDv2, a global exception", Egress{}, "2001:20::1", true},
		{"nobody's space", Egress{}, "4000::1", false},
		{"a zone", Egress{}, "2606:4700::1%eth0", false},
		{"allowed by the operator", Egress{Allow: prefixes("10.0.0.0/8")}, "10.1.2.3", true},
		{"mapped and allowed", Egress{Allow: prefixes("10.0.0.0/8")}, "::ffff:10.1.2.3", true},
		{"allowed in its mapped form", Egress{Allow: prefixes("::ffff:10.0.0.0/104")}, "10.1.2.3", true},
		{"not what was allowed", Egress{Allow: prefixes("10.0.0.0/8")}, "192.168.0.1", false},
		{"denied by the operator", Egress{Deny: prefixes("8.8.8.0/24")}, "8.8.8.8", false},
		{"deny beats allow", Egress{Allow: prefixes("10.0.0.0/8"), Deny: prefixes("10.1.0.0/16")}, "10.1.2.3", false},
		{"a tunnel to what is denied", Egress{Deny: prefixes("8.8.8.0/24")}, "64:ff9b::8.8.8.8", false},
		{"a tunnel that is allowed to what is not", Egress{Allow: prefixes("2002::/16")}, "2002:a00:1::1", false},
		{"local NAT64 that is allowed, to what is not", Egress{Allow: prefixes("64:ff9b:1::/48")}, "64:ff9b:1::10.0.0.1", false},
		{"local NAT64 that is allowed, to what is public", Egress{Allow: prefixes("64:ff9b:1::/48")}, "64:ff9b:1::8.8.8.8", true},
		{"compatible and allowed, to what is not", Egress{Allow: prefixes("::/96")}, "::10.0.0.1", false},
		{"Teredo that is allowed, of a private client", Egress{Allow: prefixes("2001::/32")}, "2001:0:808:808::f5ff:fffe", false},
		{"Teredo that is allowed, by a private server", Egress{Allow: prefixes("2001::/32")}, "2001:0:a00:1::f7f7:f7f7", false},
		{"Teredo that is allowed, of a public client and server", Egress{Allow: prefixes("2001::/32")}, "2001:0:808:808::f7f7:f7f7", true},
		{"ISATAP to a private address", Egress{}, "2606:4700::5efe:10.0.0.1", false},
		{"ISATAP of a universal identifier to a private address", Egress{}, "2606:4700::200:5efe:10.0.0.1", false},
		{"ISATAP to a public address", Egress{}, "2606:4700::5efe:8.8.8.8", true},
		{"NAT64 to metadata", Egress{Allow: prefixes("0.0.0.0/0", "::/0")}, "64:ff9b::169.254.169.254", false},
		{"metadata inside a range that is allowed", Egress{Allow: prefixes("169.254.0.0/16")}, "169.254.169.254", false},
		{"the same over IPv6", Egress{Allow: prefixes("fc00::/7")}, "fd00:ec2::254", false},
		{"another's", Egress{Allow: prefixes("fc00::/7")}, "fd20:ce::254", false},
		{"another's that looks public", Egress{Allow: prefixes("168.63.0.0/16")}, "168.63.129.16", false},
		{"another's in shared space", Egress{Allow: prefixes("100.64.0.0/10")}, "100.100.100.200", false},
		{"another's in a protocol assignment", Egress{Allow: prefixes("192.0.0.0/24")}, "192.0.0.192", false},
		{"metadata mapped", Egress{Allow: prefixes("0.0.0.0/0", "::/0")}, "::ffff:169.254.169.254", false},
		{"metadata that the operator named", Egress{Allow: prefixes("169.254.169.254/32")}, "169.254.169.254", true},
		{"the neighbour of metadata", Egress{Allow: prefixes("169.254.0.0/16")}, "169.254.169.253", true},
		{"a tunnel that is allowed to what is public", Egress{Allow: prefixes("2002::/16")}, "2002:808:808::1", true},
	} {
		if err := tt.egress.Check(netip.MustParseAddr(tt.ip)); (err == nil) != tt.ok {
			t.Errorf("%s (%s): %v", tt.ip, tt.why, err)
		}
	}
	if (Egress{}).Check(netip.Addr{}) == nil {
		t.Error("no address at all was admitted")
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddrPort("10.0.0.7:7700")
	env := &Env{Egress: Egress{Allow: prefixes("10.0.0.0/8")}, Services: func() []netip.AddrPort { return []netip.AddrPort{own} }}
	tr := newTrace(env, &pb.Job{})
	for _, tt := range []struct {
		why  string
		addr string
		p    purpose
		ok   bool
	}{
		{"the web", "8.8.8.8:443", toConnect, true},
		{"mail to strangers", "8.8.8.8:25", toConnect, false},
		{"mail to strangers in disguise", "[::ffff:8.8.8.8]:25", toConnect, false},
		{"a DNS server on the port of mail", "8.8.8.8:25", toQuery, false},
		{"an issuer on the port of mail", "8.8.8.8:25", toFetch, false},
		{"mail to a server that the operator allowed", "10.0.0.9:25", toConnect, true},
		{"a service of our own, on an address that is allowed", "10.0.0.7:7700", toConnect, false},
		{"the same in disguise", "[::ffff:10.0.0.7]:7700", toConnect, false},
		{"the same as a DNS server", "10.0.0.7:7700", toQuery, false},
		{"another port of its host", "10.0.0.7:443", toConnect, true},
		{"its port elsewhere", "8.8.8.8:7700", toConnect, true},
	} {
		if err := tr.permit(netip.MustParseAddrPort(tt.addr), tt.p); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}

func FuzzEgress(f *testing.F) {
	for _, ip := range []string{"10.0.0.1", "8.8.8.8", "169.254.169.254", "64:ff9b::1", "2002:a00:1::", "fe80::1"} {
		b := netip.MustParseAddr(ip).As16()
		f.Add(b[:])
	}
	policy := Egress{Allow: prefixes("10.0.0.0/9", "2002::/16"), Deny: prefixes("10.0.1.0/24", "2001:4860::/32")}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != 16 {
			return
		}
		ip := netip.AddrFrom16([16]byte(b))
		got, unmapped := policy.Check(ip), policy.Check(ip.Unmap())
		if (got == nil) != (unmapped == nil) {
			t.Errorf("%s: %v, unmapped: %v", ip, got, unmapped)
		}
		for _, v4 := range embedded(ip.Unmap()) {
			if got == nil && policy.Check(v4) != nil {
				t.Errorf("%s is admitted but leads to %s", ip, v4)
			}
		}
		if got == nil && !policy.allows(ip) && (ip.Unmap().IsPrivate() || ip.Unmap().IsLoopback() || ip.Unmap().IsMulticast() || ip.Unmap().IsLinkLocalUnicast()) {
			t.Errorf("%s is admitted", ip)
		}
	})
}

// TestRebinding: what DNS answers is checked before a socket opens, whatever the name.
func TestRebinding(t *testing.T) {
	t.Parallel()
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	env := newEnv(t, probetest.Zone{"evil.example": {Records: []string{
		"evil.example. 0 IN A 127.0.0.2", "evil.example. 0 IN AAAA ::ffff:127.0.0.2", "evil.example. 0 IN AAAA ::1",
	}}})
	env.Egress, env.Controls = Egress{}, []string{}
	dialled := make(chan string, 16)
	env.Connect = spy(dialled)
	r := run(t, env, tlsSpec("evil.example", host.Addr().Port(), ""))
	connects := steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_TARGET)
	if len(connects) != 2 {
		t.Fatalf("want a step for each of 127.0.0.2 and ::1: %v", r)
	}
	for _, s := range connects {
		if s.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || s.GetAttempts() != 0 {
			t.Errorf("%v", s)
		}
	}
	if len(dialled) > 0 {
		t.Errorf("a socket was opened to %s", <-dialled)
	}
}

// TestRebindingBetweenQueries: a resolver answers one query with a public address and the next with
// loopback. A name is resolved once, and each address is judged when its socket is about to open.
func TestRebindingBetweenQueries(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"evil.example": {Records: []string{
		"evil.example. 0 IN A 8.8.8.8", "evil.example. 0 IN AAAA ::ffff:127.0.0.2",
	}}})
	env.Egress, env.Controls = Egress{}, []string{}
	dialled := make(chan netip.AddrPort, 16)
	env.Connect = func(_ context.Context, addr netip.AddrPort, _ ConnectOptions) (net.Conn, *pb.Evidence, error) {
		dialled <- addr // Nothing leaves this machine.
		return nil, &pb.Evidence{}, syscall.ECONNREFUSED
	}
	r := run(t, env, tcpSpec("evil.example", 443))
	close(dialled)
	public := 0
	for addr := range dialled {
		if addr.Addr() == netip.MustParseAddr("8.8.8.8") {
			public++
		} else {
			t.Errorf("a socket was opened to %s", addr)
		}
	}
	if public != 2 { // The proof that the name was followed at all.
		t.Errorf("%d attempts at the public address, want 2: %v", public, r)
	}
}

func TestExemptionsAreNarrow(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	env.Egress = Egress{}
	resolver := env.Resolvers[0]
	tr := newTrace(env, &pb.Job{})
	for _, tt := range []struct {
		why  string
		addr netip.AddrPort
		p    purpose
		ok   bool
	}{
		{"the operator's resolver may be asked", resolver, toQuery, true},
		{"on its port alone", netip.AddrPortFrom(resolver.Addr(), 9), toQuery, false},
		{"and not be the target of a connect", resolver, toConnect, false},
		{"another resolver is a target like any other", netip.MustParseAddrPort("10.0.0.1:53"), toQuery, false},
		{"a control that the operator listed may be connected to", netip.MustParseAddrPort("127.0.0.9:1"), toControl, true},
		{"but only as a control", netip.MustParseAddrPort("127.0.0.9:1"), toConnect, false},
	} {
		if err := tr.permit(tt.addr, tt.p); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.why, err)
		}
	}
	env.Controls = nil
	if err := tr.permit(netip.MustParseAddrPort("127.0.0.9:1"), toControl); err == nil {
		t.Error("a shipped control that resolves to loopback was admitted")
	}
}

func TestTheHostsOwnAddressesAreNoTargets(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("8.8.4.4")
	tr := newTrace(&Env{}, &pb.Job{})
	tr.own = func(ip netip.Addr) bool { return ip == own }
	if tr.permit(netip.AddrPortFrom(own, 22), toConnect) == nil {
		t.Error("the agent's own public address was admitted")
	}
	tr.env = &Env{Egress: Egress{Allow: prefixes("8.8.4.4/32")}}
	if err := tr.permit(netip.AddrPortFrom(own, 22), toConnect); err != nil {
		t.Errorf("the operator allowed it: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	withResolver := dnsSpec("www.example", "")
	withResolver.GetDns().Resolver = "10.0.0.1"
	family := func(s *pb.Spec, f pb.Family) *pb.Spec {
		s.Family = f
		return s
	}
	env := &Env{Egress: Egress{Allow: prefixes("127.0.0.0/8")}, Resolvers: []netip.AddrPort{}}
	for _, tt := range []struct {
		why  string
		spec *pb.Spec
		want pb.Failure
	}{
		{"a name can only be judged when it is resolved", tcpSpec("www.example", 1), pb.Failure_FAILURE_NONE},
		{"an allowed address", tcpSpec("127.0.0.1", 1), pb.Failure_FAILURE_NONE},
		{"a name of this machine is an address", tcpSpec("localhost", 1), pb.Failure_FAILURE_NONE},
		{"a refused address", tlsSpec("10.0.0.1", 0, ""), pb.Failure_FAILURE_AGENT_POLICY_DENIED},
		{"a refused address in disguise", tcpSpec("::ffff:10.0.0.1", 1), pb.Failure_FAILURE_AGENT_POLICY_DENIED},
		{"an origin at a refused address", originSpec(&pb.OriginSpec{Url: "https://10.0.0.1:8443/"}), pb.Failure_FAILURE_AGENT_POLICY_DENIED},
		{"an origin by its name", originSpec(&pb.OriginSpec{Url: "https://origin.example/"}), pb.Failure_FAILURE_NONE},
		{"an origin whose profile nobody has put in", &pb.Spec{Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{Url: "https://origin.example/"}}}, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"a refused resolver", withResolver, pb.Failure_FAILURE_AGENT_POLICY_DENIED},
		{"a lookup at the agent's own resolvers", dnsSpec("www.example", "TYPE65"), pb.Failure_FAILURE_NONE},
		{"nothing to check", &pb.Spec{}, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"no spec", nil, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"no port", tcpSpec("127.0.0.1", 0), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"an empty name", dnsSpec("", ""), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"an unknown type", dnsSpec("www.example", "BOGUS"), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"a zone transfer", dnsSpec("www.example", "AXFR"), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"a type that is none", dnsSpec("www.example", "TYPE70000"), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"an address of the other family", family(tcpSpec("127.0.0.1", 1), pb.Family_FAMILY_IPV6), pb.Failure_FAILURE_AGENT_INTERNAL},
		{"an address with a zone", tcpSpec("fe80::1%lo", 1), pb.Failure_FAILURE_AGENT_INTERNAL},
	} {
		if got, why := Admit(env, newJob(tt.spec, 0)); got != tt.want || (got != pb.Failure_FAILURE_NONE) != (why != "") {
			t.Errorf("%s: %s (%s), want %s", tt.why, Short(got), why, Short(tt.want))
		}
	}
}
