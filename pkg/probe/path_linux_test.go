package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// chain is the agent, four routers and a target, in a row. Router k is 10.0.k.2 and 2001:db8:k::2 to those on
// its left. The target has 10.0.9.1 to .9 and 2001:db8:9::1 to ::3, and ports 80 and 443 are open on each.
// Names of namespaces are in a mount namespace that ends with the test.
const chain = `
mkdir -p /run/netns
mount --make-rprivate /
mount -t tmpfs none /run/netns
left=
for k in 1 2 3 4 5; do
	ip netns add n$k
	ip link add name r$k type veth peer name l$k netns n$k
	if [ "$left" ]; then ip link set r$k netns $left; in="ip -n $left"; else in=ip; fi
	$in addr add 10.0.$k.1/24 dev r$k
	$in addr add 2001:db8:$k::1/64 dev r$k nodad
	$in link set r$k up
	ip -n n$k addr add 10.0.$k.2/24 dev l$k
	ip -n n$k addr add 2001:db8:$k::2/64 dev l$k nodad
	ip -n n$k link set l$k up
	ip -n n$k link set lo up
	ip -n n$k route add default via 10.0.$k.1
	ip -n n$k route add default via 2001:db8:$k::1
	next=$((k + 1))
	$in route add 10.0.8.0/22 via 10.0.$k.2
	$in route add 2001:db8:9::/64 via 2001:db8:$k::2
	ip netns exec n$k sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 \
		net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000
	left=n$k
done
for host in 1 2 3 4 5 6 7 8 9; do
	ip -n n5 addr add 10.0.9.$host/32 dev lo
	ip -n n5 addr add 2001:db8:9::$host/128 dev lo nodad
done
ip -n n4 route replace 10.0.8.0/24 via 10.0.4.1
ip netns exec n1 nft add table inet t
ip netns exec n2 nft -f - <<'END'
table inet t {
	chain forward {
		type filter hook forward priority 0;
		ip daddr 10.0.9.8 tcp dport 443 reject with tcp reset
	}
	chain output { # Time exceeded about a packet to somebody: the inner destination is at byte 24.
		type filter hook output priority 0;
		icmp type time-exceeded @th,192,32 { 0x0a000904, 0x0a000909 } drop
		icmp type time-exceeded @th,192,32 0x0a000905 numgen inc mod 2 == 0 drop
	}
}
END
ip netns exec n3 nft -f - <<'END'
table inet t {
	chain forward {
		type filter hook forward priority 0;
		ip daddr 10.0.9.2 tcp dport 443 drop
		ip daddr 10.0.9.3 tcp dport 443 reject with icmp type admin-prohibited
		ip6 daddr 2001:db8:9::2 tcp dport 443 drop
		ip6 daddr 2001:db8:9::3 tcp dport 443 reject with icmpv6 type admin-prohibited
	}
	chain output {
		type filter hook output priority 0;
		icmp type time-exceeded @th,192,32 0x0a000909 drop
	}
}
END
ip netns exec n4 nft -f - <<'END'
table inet t {
	chain forward {
		type filter hook forward priority 0;
		ip daddr 10.0.9.6 drop
	}
	chain output {
		type filter hook output priority 0;
		icmp type time-exceeded @th,192,32 0x0a000909 drop
	}
}
END
ip netns exec n5 nft -f - <<'END'
table inet t {
	chain input {
		type filter hook input priority 0;
		ip daddr 10.0.9.7 tcp dport { 80, 443 } reject with tcp reset
	}
}
END
`

// traced is a target at the end of the chain, what a plain connect to it meets, and what a trace says.
type traced struct {
	name     string
	host     string
	plain    string // "open", "refused", "silent", or an ICMP error as "TYPE/CODE".
	hops     string // The last octets of those that answered, "-" for silence.
	reached  bool
	lastHop  uint32
	rejector string
	says     []string
	other    bool // Whether another port was traced too.
}

func TestPath(t *testing.T) {
	if !space.Own(t) {
		return
	}
	space.Build(t, chain)
	space.Listen(t, "n5", ":80")
	space.Listen(t, "n5", ":443")
	for plainly(t, "2001:db8:9::1") != "open" && t.Context().Err() == nil { // Links take a moment to have IPv6.
	}
	all(t, func(tt traced) string { return tt.name }, []traced{
		{"an open port", "10.0.9.1", "open", "1 2 3 4 T", true, 5, "", []string{"hops 1-4 answered, the last is 10.0.4.2; port 443 is reached at hop 5"}, false},
		{
			"a drop at the third router", "10.0.9.2", "silent", "1 2 3", false, 3, "",
			[]string{"hops 1-3 answered, the last is 10.0.3.2; nothing beyond for port 443, while port 80 gets through: packets to port 443 are dropped after hop 3"},
			true,
		},
		{
			"a reject at the third router", "10.0.9.3", "3/13", "1 2 3 3", false, 4, "10.0.3.2",
			[]string{"10.0.3.2 rejects port 443 by ICMP 3/13, while port 80 gets through"},
			true,
		},
		{"a router that says nothing", "10.0.9.4", "open", "1 - 3 4 T", true, 5, "", []string{"hops 1 and 3-4 answered"}, false},
		{"a router that says something every other time", "10.0.9.5", "open", "1 2 3 4 T", true, 5, "", []string{"hops 1-4 answered"}, false},
		{
			"a drop of everything at the fourth router", "10.0.9.6", "silent", "1 2 3 4", false, 4, "",
			[]string{"hops 1-4 answered, the last is 10.0.4.2; nothing beyond for port 443, and port 80 gets no further"},
			true,
		},
		{"a closed port", "10.0.9.7", "refused", "1 2 3 4 T", true, 5, "", []string{"port 443 answers by RST at hop 5"}, true},
		{
			"an RST by somebody on the way", "10.0.9.8", "refused", "1 2 T", true, 3, "",
			[]string{"port 443 answers by RST at hop 3, while port 80 is reached at hop 5: something on the way answers for port 443"},
			true,
		},
		{"routers that say nothing before a target that answers", "10.0.9.9", "open", "1 - - - T", true, 5, "", []string{"hop 1 answered, it is 10.0.1.2"}, false},
		{"a circle", "10.0.8.1", "11/0", "1 2 3 4 3 4", false, 30, "", []string{"goes in circles: it comes to 10.0.4.2 again"}, true},
		{"IPv6: an open port", "2001:db8:9::1", "open", "1 2 3 4 T", true, 5, "", []string{"hops 1-4 answered, the last is 2001:db8:4::2"}, false},
		{"IPv6: a drop at the third router", "2001:db8:9::2", "silent", "1 2 3", false, 3, "", []string{"dropped after hop 3"}, true},
		{"IPv6: a reject at the third router", "2001:db8:9::3", "1/1", "1 2 3 3", false, 4, "2001:db8:3::2", []string{"2001:db8:3::2 rejects port 443 by ICMP 1/1"}, true},
	}, func(t *testing.T, tt traced) func(*testing.T) {
		plain := plainly(t, tt.host) // The fault is there before it is looked for.
		spec := tcpSpec(tt.host, 443)
		spec.GetTcp().Path = true
		r := run(t, anywhere(), spec)
		return func(t *testing.T) {
			if plain != tt.plain {
				t.Errorf("a plain connect: %s, want %s", plain, tt.plain)
			}
			checkPath(t, r, tt)
		}
	})
}

// plainly says what a connect without a limited TTL meets.
func plainly(t *testing.T, host string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	conn, ev, err := Connect(ctx, netip.AddrPortFrom(netip.MustParseAddr(host), 443), ConnectOptions{})
	switch {
	case err == nil:
		abandon(conn)
		return "open"
	case ev.GetIcmp() != nil:
		return icmpText(ev.GetIcmp())
	case isTimeout(err):
		return "silent"
	case errnoName(err) == unix.ErrnoName(syscall.ECONNREFUSED):
		return "refused"
	}
	return err.Error()
}

func checkPath(t *testing.T, r *pb.Result, tt traced) {
	t.Helper()
	s := one(t, r, pb.StepKind_STEP_KIND_PATH_TRACE)
	ev := s.GetEvidence()
	p := ev.GetPath()
	if s.GetFailure() != pb.Failure_FAILURE_NONE || p.GetReached() != tt.reached || p.GetLastHop() != tt.lastHop || p.GetRejector() != tt.rejector {
		t.Errorf("%v", s)
	}
	got := shape(p, tt.host)
	if tt.lastHop == maxHops { // A circle: how it begins is enough.
		got = got[:min(len(got), len(tt.hops))]
	}
	if got != tt.hops {
		t.Errorf("hops %q, want %q: %v", got, tt.hops, p)
	}
	for _, words := range tt.says {
		if !strings.Contains(ev.GetText(), words) {
			t.Errorf("%q does not say %q", ev.GetText(), words)
		}
	}
	others := steps(r, pb.StepKind_STEP_KIND_PATH_TRACE, pb.Role_ROLE_VARIANT)
	if (len(others) == 1) != tt.other || tt.other && (others[0].GetVariant() != pb.Variant_VARIANT_OTHER_PORT || others[0].Beside == nil) {
		t.Errorf("traces to another port: %v, want one: %v", others, tt.other)
	}
	if s.GetDuration().AsDuration() > traceTimeout+slack || len(ev.GetLocalAddress()) == 0 || !ev.GetErrorQueue() {
		t.Errorf("%v from %s", s.GetDuration().AsDuration(), ev.GetLocalAddress())
	}
	checkTTLs(t, s)
}

// checkTTLs wants what holds for every trace.
func checkTTLs(t *testing.T, s *pb.Step) {
	t.Helper()
	tries := int32(0)
	for i, h := range s.GetEvidence().GetPath().GetHops() {
		tries += h.GetTries()
		if h.GetTtl() != uint32(i+1) || h.GetTries() < 1 || h.GetTries() > maxTries || (h.GetAddress() == "") != (h.GetRtt() == nil) {
			t.Errorf("hop %d: %v", i+1, h)
		}
	}
	if n := s.GetAttempts(); n < tries+1 || n > tries+2 {
		t.Errorf("%d attempts for %d tries", n, tries)
	}
	if most := int32(s.GetDuration().AsDuration()/synInterval) + 1; s.GetAttempts() > most {
		t.Errorf("%d SYNs in %v", s.GetAttempts(), s.GetDuration().AsDuration())
	}
}

// shape is who answered, hop by hop: the router's number, T for the target, - for nobody. Silent hops at the
// end are left out.
func shape(p *pb.PathEvidence, target string) string {
	var out []string
	for _, h := range p.GetHops() {
		ip, err := netip.ParseAddr(h.GetAddress())
		switch {
		case err != nil:
			out = append(out, "-")
		case h.GetAddress() == target:
			out = append(out, "T")
		case ip.Is4():
			out = append(out, fmt.Sprint(ip.As4()[2]))
		default:
			out = append(out, fmt.Sprint(ip.As16()[5]))
		}
	}
	for len(out) > 0 && out[len(out)-1] == "-" {
		out = out[:len(out)-1]
	}
	return strings.Join(slices.Clip(out), " ")
}

// TestPathNeedsTheRealNetwork: behind a seam there is no TTL to limit.
func TestPathNeedsTheRealNetwork(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	env.Connect = spy(make(chan string, 16))
	spec := tcpSpec("127.0.0.2", 9)
	spec.GetTcp().Path = true
	s := one(t, run(t, env, spec), pb.StepKind_STEP_KIND_PATH_TRACE)
	if s.GetFailure() != pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING || s.GetAttempts() != 0 {
		t.Errorf("%v", s)
	}
}
