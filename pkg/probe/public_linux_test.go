package probe

import (
	"fmt"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// TestPublicAddresses gives a host without a network one address after another; nothing is sent.
func TestPublicAddresses(t *testing.T) {
	if !space.Own(t) {
		return
	}
	space.Build(t, `
ip link add near type veth peer name far
ip link set far up
ip link set near up
`)
	for _, c := range []struct{ sentence, script, want string }{
		{"without a route there is none", "true", "[]"},
		{"a private address is behind NAT", "ip addr add 10.9.0.1/24 dev near; ip route add default dev near src 10.9.0.1", "[]"},
		{"a public one is what is seen", "ip addr add 1.2.3.4/32 dev near; ip route replace default dev near src 1.2.3.4", "[1.2.3.4]"},
		{
			"a unique local one is not", "ip -6 addr add fd00::1/64 dev near nodad; ip -6 route add default dev near",
			"[1.2.3.4]",
		},
		{
			"one of each family", "ip -6 addr add 2600::1/64 dev near nodad; ip -6 route replace default dev near src 2600::1",
			"[1.2.3.4 2600::1]",
		},
	} {
		space.Build(t, c.script)
		if got := fmt.Sprint(PublicAddresses()); got != c.want {
			t.Errorf("%s: %s, want %s", c.sentence, got, c.want)
		}
	}
}
