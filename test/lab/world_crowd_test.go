package lab

import (
	"context"
	"errors"
	"net/netip"
)

// The crowd is what has too many addresses to put each of them on a device: all of two prefixes is
// local to the targets' namespace, and whoever wants one of the addresses binds it.
const (
	crowdNet  = "198.18.0.0/15"
	crowdNet6 = "2001:db8:18::/48"
)

// crowdVia are the targets' own addresses, with their prefix lengths, that the router sends the crowd's
// packets to.
func crowdVia() []string { return []string{"203.0.113.254/24", "2001:db8:113::fffe/64"} }

// isCrowd says whether an address is one of the crowd's.
func isCrowd(addr netip.Addr) bool {
	return netip.MustParsePrefix(crowdNet).Contains(addr) || netip.MustParsePrefix(crowdNet6).Contains(addr)
}

// wireCrowd routes the two prefixes.
func (w *world) wireCrowd(ctx context.Context) error {
	return errors.Join(
		w.targets.Sysctl(map[string]string{"net/ipv6/ip_nonlocal_bind": "1"}), // local is not enough for IPv6
		w.targets.IP(ctx, "route add local "+crowdNet+" dev lo", "route add local "+crowdNet6+" dev lo"),
		w.router.IP(ctx, "route add "+crowdNet+" via 203.0.113.254", "route add "+crowdNet6+" via 2001:db8:113::fffe"),
	)
}
