package probe

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// world is a host with a firewall of every kind. 10.9.0.1 is its own address on a link with nobody else.
const world = `
set -e
ip link set lo up gso_max_segs 1 mtu 1500
ip link add near type veth peer name far
ip link set near up
ip link set far up
ip addr add 10.9.0.1/24 dev near
ip route add 10.8.1.0/24 dev near
ip route add prohibit 10.8.2.0/24
ip route add blackhole 10.8.3.0/24
ip route add unreachable 10.8.4.0/24
nft -f - <<'END'
table inet world {
	chain in {
		type filter hook input priority 0;
		tcp dport 1 reject with icmp type port-unreachable
		tcp dport 2 reject with icmp type admin-prohibited
		tcp dport 3 reject with icmp type net-unreachable
		tcp dport 4 reject with icmp type host-unreachable
		tcp dport 5 reject with icmp type net-prohibited
		tcp dport 6 reject with icmp type host-prohibited
		tcp dport 7 reject with icmp type prot-unreachable
		tcp dport 11 reject with icmpv6 type no-route
		tcp dport 12 reject with icmpv6 type admin-prohibited
		tcp dport 13 reject with icmpv6 type addr-unreachable
		tcp dport 14 reject with icmpv6 type port-unreachable
		tcp dport 20 reject with tcp reset
		tcp dport 22 tcp flags & (syn | ack) == syn limit rate 1/hour burst 1 packets reject with icmp type host-unreachable
		tcp dport 21 drop
		ip daddr 127.0.0.66 numgen random mod 100 < 5 drop
		ip saddr 127.0.0.66 numgen random mod 100 < 5 drop
		ip daddr 127.0.0.77 meta length > 1000 counter drop comment "127.0.0.77"
		ip saddr 127.0.0.78 meta length > 1000 counter drop comment "127.0.0.78"
		udp dport 1 reject with icmp type port-unreachable
		udp dport 2 reject with icmp type admin-prohibited
	}
	chain out {
		type filter hook output priority 0;
		ip daddr 10.9.0.2 tcp dport 1 reject with icmp type admin-prohibited
		ip daddr 10.9.0.2 tcp dport 2 reject with icmp type port-unreachable
		udp dport 3 drop
	}
}
END`

// TestNamespace runs what needs a firewall in a network namespace of its own, which ends with it.
func TestNamespace(t *testing.T) {
	if space.Own(t) {
		inNamespace(t)
	}
}

// firewalled is an address, and how a connect to it ends.
type firewalled struct {
	name string
	addr string
	want pb.Failure
	icmp string // "TYPE/CODE", or "" for none.
}

func inNamespace(t *testing.T) {
	space.Build(t, world)
	env := anywhere()
	t.Run("TCP", func(t *testing.T) { firewalls(t, env) })
	t.Run("soft", func(t *testing.T) { survivesICMP(t, env) })
	t.Run("loss", func(t *testing.T) { lossyPath(t, env) })
	t.Run("large packets", func(t *testing.T) { largePackets(t, env) })
	t.Run("UDP", func(t *testing.T) { firewalledResolvers(t, env) })
	t.Run("no way to the root", func(t *testing.T) { noWayToTheRoot(t, env) })
	t.Run("a private zone", func(t *testing.T) { privateZone(t, env) })
	t.Run("Families", func(t *testing.T) {
		// There is no default route, but 10.9.0.2; of IPv6 there is the loopback interface alone.
		if v4, v6 := Families(); !v4 || v6 {
			t.Errorf("Families() = %v, %v", v4, v6)
		}
	})
}

// noWayToTheRoot: where the real root servers have no route, a walk leaves one step of that, once, and three
// questions to the resolver, which knows no more.
func noWayToTheRoot(t *testing.T, env *Env) {
	resolver := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{
		"www.zone.tld": {Records: []string{"www.zone.tld. 60 IN A 127.0.0.2"}},
	}, true))
	here := &Env{
		Resolvers: []netip.AddrPort{resolver.Addr()}, Egress: env.Egress, Controls: []string{}, Delegations: &Delegations{}, patience: 3 * time.Second,
		Hints: nil, // The real ones, which this namespace has no route to.
	}
	asked := []string{"NS tld 127.0.0.1 dns_nxdomain", "NS www.zone.tld 127.0.0.1 dns_nodata", "NS zone.tld 127.0.0.1 dns_nxdomain"}
	for _, want := range [][]string{append([]string{"NS .  agent_no_egress"}, asked...), asked} { // Then it is remembered.
		r := run(t, here, dnsSpec("www.zone.tld", "A"))
		if diff := cmp.Diff(want, told(r, pb.Role_ROLE_REFERRAL)); diff != "" {
			t.Error(diff)
		}
		if took := r.GetDuration().AsDuration(); took >= walkGrace {
			t.Errorf("took %v", took)
		}
	}
}

// privateZone: the root is not asked for a name that is reserved for private use; the agent's resolver knows its
// zone's servers, which are on the port of all such servers.
func privateZone(t *testing.T, env *Env) {
	must[*probetest.Tree](t)(probetest.ServeTreeOn(53, map[string]probetest.Nameserver{firstNS: {Zones: map[string][]string{"corp.internal": {
		"corp.internal. 300 IN SOA ns.corp.internal. root.corp.internal. 7 600 600 600 60", "corp.internal. 300 IN NS ns.corp.internal.",
		"ns.corp.internal. 300 IN A " + firstNS, "www.corp.internal. 60 IN A 127.0.0.2",
	}}}}))
	resolver := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{
		"www.corp.internal": {Records: []string{"www.corp.internal. 60 IN A 127.0.0.2"}},
		"corp.internal":     {Records: []string{"corp.internal. 300 IN NS ns.corp.internal."}},
		"ns.corp.internal":  {Records: []string{"ns.corp.internal. 300 IN A " + firstNS}},
	}, true))
	r := run(t, &Env{
		Resolvers: []netip.AddrPort{resolver.Addr()}, Egress: env.Egress, Controls: []string{}, Hints: nil, patience: 3 * time.Second,
	}, dnsSpec("www.corp.internal", "A"))
	want := []string{"A www.corp.internal 127.1.0.3 none", "NS corp.internal 127.1.0.3 none", "SOA corp.internal 127.1.0.3 none"}
	if diff := cmp.Diff(want, told(r, pb.Role_ROLE_AUTHORITY)); diff != "" {
		t.Error(diff)
	}
	for _, line := range told(r, pb.Role_ROLE_REFERRAL) {
		if !strings.Contains(line, "127.0.0.1") {
			t.Errorf("somebody else was asked the way: %s", line)
		}
	}
}

// anywhere is a world without limits and controls.
func anywhere() *Env {
	return &Env{Egress: Egress{Allow: prefixes("0.0.0.0/0", "::/0")}, Controls: []string{}, Resolvers: []netip.AddrPort{}}
}

func firewalls(t *testing.T, env *Env) {
	all(t, func(tt firewalled) string { return tt.name }, []firewalled{
		{"an RST is a refusal", "127.0.0.2:9", pb.Failure_FAILURE_TCP_REFUSED, ""},
		{"a firewall's RST cannot be told from a closed port", "127.0.0.2:20", pb.Failure_FAILURE_TCP_REFUSED, ""},
		{"a drop is silence", "127.0.0.2:21", pb.Failure_FAILURE_TCP_TIMEOUT, ""},
		{"port unreachable is not an RST", "127.0.0.2:1", pb.Failure_FAILURE_TCP_PORT_UNREACHABLE, "3/3"},
		{"admin prohibited", "127.0.0.2:2", pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, "3/13"},
		{"net unreachable", "127.0.0.2:3", pb.Failure_FAILURE_TCP_NET_UNREACHABLE, "3/0"},
		{"host unreachable", "127.0.0.2:4", pb.Failure_FAILURE_TCP_HOST_UNREACHABLE, "3/1"},
		{"net prohibited", "127.0.0.2:5", pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, "3/9"},
		{"host prohibited", "127.0.0.2:6", pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, "3/10"},
		{"protocol unreachable", "127.0.0.2:7", pb.Failure_FAILURE_TCP_HOST_UNREACHABLE, "3/2"},
		{"IPv6: an RST is a refusal", "[::1]:9", pb.Failure_FAILURE_TCP_REFUSED, ""},
		{"IPv6: a drop is silence", "[::1]:21", pb.Failure_FAILURE_TCP_TIMEOUT, ""},
		{"IPv6: no route", "[::1]:11", pb.Failure_FAILURE_TCP_NET_UNREACHABLE, "1/0"},
		{"IPv6: admin prohibited", "[::1]:12", pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, "1/1"},
		{"IPv6: address unreachable", "[::1]:13", pb.Failure_FAILURE_TCP_HOST_UNREACHABLE, "1/3"},
		{"IPv6: port unreachable is not an RST", "[::1]:14", pb.Failure_FAILURE_TCP_PORT_UNREACHABLE, "1/4"},
		{"nobody has the address: the next hop says so", "10.9.0.3:9", pb.Failure_FAILURE_TCP_HOST_UNREACHABLE, "3/1"},
		{"the agent's own firewall rejects", "10.9.0.2:1", pb.Failure_FAILURE_AGENT_NO_EGRESS, "3/13"},
		{"the agent's own firewall rejects as if the port were closed", "10.9.0.2:2", pb.Failure_FAILURE_AGENT_NO_EGRESS, "3/3"},
		{"no route to IPv4", "198.51.100.1:9", pb.Failure_FAILURE_AGENT_NO_EGRESS, ""},
		{"a prohibited route", "10.8.2.1:9", pb.Failure_FAILURE_AGENT_NO_EGRESS, ""},
		{"a black hole", "10.8.3.1:9", pb.Failure_FAILURE_AGENT_NO_EGRESS, ""},
		{"an unreachable route", "10.8.4.1:9", pb.Failure_FAILURE_AGENT_NO_EGRESS, ""},
		{"no route to IPv6", "[2001:db8::1]:9", pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, ""},
	}, func(t *testing.T, tt firewalled) func(*testing.T) {
		addr := netip.MustParseAddrPort(tt.addr)
		s := one(t, run(t, env, tcpSpec(addr.Addr().String(), addr.Port())), pb.StepKind_STEP_KIND_TCP_CONNECT)
		return func(t *testing.T) {
			if s.GetFailure() != tt.want || icmpText(s.GetEvidence().GetIcmp()) != tt.icmp {
				t.Errorf("%s with ICMP %q, want %s with %q: %v",
					Short(s.GetFailure()), icmpText(s.GetEvidence().GetIcmp()), Short(tt.want), tt.icmp, s)
			}
			if !s.GetEvidence().GetErrorQueue() {
				t.Error("the error queue was not read")
			}
			if tt.icmp != "" && !netip.MustParseAddr(s.GetEvidence().GetIcmp().GetSender()).IsValid() {
				t.Error("no sender")
			}
		}
	})
}

// survivesICMP: an ICMP error that comes while the socket is busy does not end a connect. It is kept as
// evidence of a connection that was made all the same.
func survivesICMP(t *testing.T, env *Env) {
	must[*probetest.Host](t)(probetest.Listen(netip.MustParseAddrPort("127.0.0.2:22"), probetest.Accept))
	s := one(t, run(t, env, tcpSpec("127.0.0.2", 22)), pb.StepKind_STEP_KIND_TCP_CONNECT)
	if s.GetFailure() != pb.Failure_FAILURE_NONE || icmpText(s.GetEvidence().GetIcmp()) != "3/1" {
		t.Errorf("want an open port with ICMP 3/1 as evidence: %v", s)
	}
}

// lossyPath: one lost packet is not a block. 100 probes down the whole pipeline, with 5 % of packets
// lost each way, must find nothing wrong.
func lossyPath(t *testing.T, env *Env) {
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.66"), serverConfig(cert)))
	resolver := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.66"), probetest.Zone{
		"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.66"}},
	}, true))
	lossy := &Env{Resolvers: []netip.AddrPort{resolver.Addr()}, Hints: []netip.AddrPort{}, Roots: roots, Egress: env.Egress, Controls: []string{}}
	for range 4 { // Not all at once, so that nothing but packets is lost.
		all(t, strconv.Itoa, make([]int, 25), func(t *testing.T, _ int) func(*testing.T) {
			r := run(t, lossy, tlsSpec("www.example", host.Addr().Port(), ""))
			return func(t *testing.T) {
				s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
				if s.GetFailure() != pb.Failure_FAILURE_NONE {
					t.Errorf("%v", r)
				}
			}
		})
	}
}

// largePackets: a path that drops what is large, in one direction or the other. Small packets pass.
func largePackets(t *testing.T, env *Env) {
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, true)
	lossy := &Env{Roots: roots, Egress: env.Egress, Controls: []string{}}
	type path struct {
		name, ip string
		through  []pb.Variant
	}
	all(t, func(tt path) string { return tt.name }, []path{
		{"the client's large packets", "127.0.0.77", []pb.Variant{pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS}},
		{"the server's large packets", "127.0.0.78", []pb.Variant{pb.Variant_VARIANT_SMALL_SEGMENTS}},
	}, func(t *testing.T, tt path) func(*testing.T) {
		host := must[*probetest.Host](t)(probetest.ListenTLS(netip.AddrPortFrom(netip.MustParseAddr(tt.ip), 0), serverConfig(cert)))
		before := dropped(t, tt.ip)
		r := run(t, lossy, tlsSpec(tt.ip, host.Addr().Port(), "www.example"))
		after := dropped(t, tt.ip)
		return func(t *testing.T) {
			if before == after {
				t.Error("nothing was dropped: the fault is not there")
			}
			checkVariants(t, r, pb.Failure_FAILURE_TLS_TIMEOUT, tt.through...)
		}
	})
}

// dropped returns how many packets the rule with a comment has dropped.
func dropped(t *testing.T, comment string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", "list", "chain", "inet", "world", "in").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if before, _, ok := strings.Cut(line, `comment "`+comment); ok {
			return strings.TrimSpace(before)
		}
	}
	t.Fatalf("no rule for %s:\n%s", comment, out)
	return ""
}

func icmpText(icmp *pb.ICMP) string {
	if icmp == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", icmp.GetType(), icmp.GetCode())
}

func firewalledResolvers(t *testing.T, env *Env) {
	type blocked struct {
		name     string
		resolver string
		want     pb.Failure
	}
	all(t, func(tt blocked) string { return tt.name }, []blocked{
		{"a resolver whose port is closed", "127.0.0.2:9", pb.Failure_FAILURE_DNS_UNREACHABLE},
		{"a resolver behind a REJECT", "127.0.0.2:1", pb.Failure_FAILURE_DNS_UNREACHABLE},
		{"a resolver behind an admin-prohibited", "127.0.0.2:2", pb.Failure_FAILURE_DNS_UNREACHABLE},
		{"the agent's own firewall drops queries", "127.0.0.2:3", pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"no route to the resolver", "198.51.100.1:53", pb.Failure_FAILURE_AGENT_NO_EGRESS},
	}, func(t *testing.T, tt blocked) func(*testing.T) {
		spec := dnsSpec("www.example", "")
		spec.GetDns().Resolver = tt.resolver
		s := one(t, run(t, env, spec), pb.StepKind_STEP_KIND_DNS_QUERY)
		return func(t *testing.T) {
			if s.GetFailure() != tt.want || s.GetAttempts() > 2 {
				t.Errorf("%s, want %s after two attempts at most: %v", Short(s.GetFailure()), Short(tt.want), s)
			}
		}
	})
}
