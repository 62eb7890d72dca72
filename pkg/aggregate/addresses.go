package aggregate

import (
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Addresses are what a firewall sees an agent at, as far as it is known, sorted: the addresses that
// the vantage declares and the one that the coordinator sees it at, of one family or of both. What the
// coordinator sees behind the same NAT is left out where there is a better one of its family.
func Addresses(v *pb.Vantage, family pb.Family) []netip.Addr {
	var all []netip.Addr
	for _, text := range v.GetAddresses() {
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, ip.Unmap().WithZone(""))
		}
	}
	if seen, err := netip.ParseAddr(v.GetObservedAddress()); err == nil {
		seen = seen.Unmap().WithZone("")
		better := slices.ContainsFunc(all, func(ip netip.Addr) bool { return ip.Is4() == seen.Is4() })
		if !Inside(seen) || !better {
			all = append(all, seen)
		}
	}
	all = slices.DeleteFunc(all, func(ip netip.Addr) bool {
		return family == pb.Family_FAMILY_IPV4 && !ip.Is4() || family == pb.Family_FAMILY_IPV6 && ip.Is4()
	})
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// sharedSpace is what carrier-grade NAT uses (RFC 6598).
var sharedSpace = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)

// Inside says whether an address is none that a firewall outside of the agent's own network sees:
// private, shared, loopback or link-local.
func Inside(ip netip.Addr) bool {
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || sharedSpace.Contains(ip)
}
