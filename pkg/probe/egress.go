package probe

import (
	"fmt"
	"net/netip"
	"slices"
)

// Egress is an agent's policy on where its sockets may go. Its zero value admits what is globally
// reachable and refuses the special-purpose ranges. Deny beats Allow; Allow beats the registry.
type Egress struct {
	// Allow admits ranges that would be refused.
	Allow []netip.Prefix
	// Deny refuses ranges that would be admitted.
	Deny []netip.Prefix
}

// Check returns nil if the policy admits ip, or why not. An IPv4-mapped address counts as the IPv4
// address, and an address that a translator would turn into an IPv4 address is judged by both.
func (e Egress) Check(ip netip.Addr) error {
	if !ip.IsValid() || ip.Zone() != "" {
		return fmt.Errorf("%q is not a plain address", ip)
	}
	ip = ip.Unmap()
	if covers(e.Deny, ip) {
		return fmt.Errorf("%s is denied by the operator", ip)
	}
	if v4, ok := embedded(ip); ok {
		if err := e.Check(v4); err != nil {
			return fmt.Errorf("%s leads to %w", ip, err)
		}
	}
	if e.allows(ip) {
		return nil
	}
	if why := special(ip); why != "" {
		return fmt.Errorf("%s is special-purpose: %s", ip, why)
	}
	return nil
}

// allows says whether the operator allowed ip by name.
func (e Egress) allows(ip netip.Addr) bool { return covers(e.Allow, ip.Unmap()) }

// covers says whether one of the prefixes holds ip, which is unmapped.
func covers(prefixes []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Contains(ip)
	})
}

// embedded returns the IPv4 address that packets to an IPv6 address end up at, for the translators
// and tunnels that put one into the other.
func embedded(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return netip.Addr{}, false
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip), compatible.Contains(ip) && !ip.IsLoopback() && !ip.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(ip): // The client's address is stored inverted (RFC 4380, 4).
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}

// special returns why ip is not a public unicast address, or "". The longest prefix decides.
func special(ip netip.Addr) string {
	var best block
	for _, b := range registry {
		if b.prefix.Contains(ip) && (best.name == "" || b.prefix.Bits() > best.prefix.Bits()) {
			best = b
		}
	}
	switch {
	case best.name != "" && !best.global:
		return best.name
	case best.name == "" && ip.Is6() && !globalUnicast.Contains(ip):
		return "outside 2000::/3, the only global unicast space (RFC 4291, 2.4)"
	}
	return ""
}
