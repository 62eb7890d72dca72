package threats

import (
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// special are addresses that no agent measures unless its operator says so, and what it says of each: those that
// netip's own methods take for global too, tunnels to them, and where clouds keep the credentials of their machines.
var special = []struct{ ip, why string }{
	{"0.0.0.0", "this network"},
	{"10.0.0.1", "private use"},
	{"100.64.0.1", "shared address space"},
	{"127.0.0.1", "loopback"},
	{"169.254.0.1", "link local"},
	{"172.16.0.1", "private use"},
	{"192.0.0.1", "IETF protocol assignments"},
	{"192.88.99.1", "deprecated 6to4 relay anycast"},
	{"192.168.0.1", "private use"},
	{"198.18.0.1", "benchmarking"},
	{"198.51.100.10", "documentation"},
	{"224.0.0.1", "multicast"},
	{"240.0.0.1", "reserved"},
	{"255.255.255.255", "broadcast"},
	{"169.254.169.254", "a cloud's metadata service"},
	{"168.63.129.16", "a cloud's metadata service"},
	{"100.100.100.200", "a cloud's metadata service"},
	{"192.0.0.192", "a cloud's metadata service"},
	{"203.0.113.2", "documentation"}, // The agent itself.
	{"::", "unspecified"},
	{"::1", "loopback"},
	{"::ffff:10.0.0.1", "private use"},
	{"::10.0.0.1", "private use"},
	{"64:ff9b::10.0.0.1", "leads to IPv4: 10.0.0.1 is special-purpose: private use"},
	{"64:ff9b::169.254.169.254", "a cloud's metadata service"},
	{"64:ff9b:1::1", "this network"},
	{"2001::1", "this network"},
	{"2001:db8::1", "documentation"},
	{"2002:a00:1::1", "private use"},
	{"fc00::1", "unique local"},
	{"fe80::1", "link local"},
	{"fec0::1", "outside 2000::/3"},
	{"ff02::1", "multicast"},
	{"fd00:ec2::254", "a cloud's metadata service"},
	{"fd20:ce::254", "a cloud's metadata service"},
}

// TestT7NothingPrivateIsMeasured: whoever may measure cannot have an agent look into its operator's network. Each refusal
// is in the ledger with its reason, and not a packet leaves.
func TestT7NothingPrivateIsMeasured(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld()+lines(
		"ip netns exec world nft -f - <<'END'", "table inet every {", "chain prerouting {", "type filter hook prerouting priority 0;",
		"iifname \"far\" ip daddr != "+coordinatorAddr+" meta l4proto { tcp, udp } counter comment \"all\"",
		"iifname \"far\" meta nfproto ipv6 meta l4proto { tcp, udp } counter comment \"all\"",
		"}", "}", "END",
	))
	for _, v := range victimsOfWorld { // The proof that packets would be seen.
		knock(t, bracket(v)+":80")
	}
	w := &world{t: t, home: "world", grpc: coordinatorAddr + ":7700", nats: coordinatorAddr + ":4222"}
	w.coordinate()
	w.agent("a", "--resolver", "203.0.113.1", "--root-server", "203.0.113.1")
	w.online(1)
	before := counters(t, "world")
	if before["all"] < len(victimsOfWorld) {
		t.Fatalf("the counter does not count: %v", before)
	}
	for _, s := range special {
		for _, args := range [][]string{
			{"tcp", bracket(s.ip) + ":80"},
			{"http", "http://" + bracket(s.ip) + "/latest/meta-data/"},
			{"dns", "www.example", "@" + s.ip},
		} {
			if args[0] == "http" && strings.HasPrefix(s.ip, "::ffff:") {
				continue // no URL has it: the coordinator refuses the question
			}
			m := w.measure(append(args, "--timeout", "3s")...)
			ask := m.GetAsks()[0]
			if m.GetLedger().GetRefused() != 1 || ask.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || !strings.Contains(ask.GetDetail(), s.why) {
				t.Errorf("%v: %v %v, want a refusal for %q", args, m.GetLedger(), ask, s.why)
			}
		}
	}
	for what, n := range counters(t, "world") {
		if n != before[what] {
			t.Errorf("%s: %d packets", what, n-before[what])
		}
	}
}
