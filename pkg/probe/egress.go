package probe

import (
	"fmt"
	"net/netip"
	"slices"
)

// smtp is the port that mail is handed over on (RFC 5321, 4.5.4.2).
const smtp = 25

// Egress is an agent's policy on where its sockets may go. Its zero value admits what is globally
// reachable and refuses the special-purpose ranges. Deny beats Allow; Allow beats the registry.
type Egress struct {
	// Allow admits ranges that would be refused.
	Allow []netip.Prefix
	// Deny refuses ranges that would be admitted.
	Deny []netip.Prefix
	// Only refuses all that it does not hold; it admits nothing by itself. Empty: nothing is refused by it.
	Only []netip.Prefix
	// Ports says which ports of targets may be connected to.
	Ports Ports
}

// CheckPort returns nil if the policy admits a socket to addr, or why not: its address by Check, and its
// port. Port 25 is refused unless the operator allowed the address, or the port by itself: an agent must not
// look like a source of mail to strangers.
func (e Egress) CheckPort(addr netip.AddrPort) error {
	if err := e.Check(addr.Addr()); err != nil {
		return err
	}
	if err := e.Ports.check(addr.Port()); err != nil {
		return err
	}
	if addr.Port() == smtp && !e.allows(addr.Addr()) && !e.Ports.names(smtp) {
		return fmt.Errorf("port %d is denied where the operator has not allowed the address", addr.Port())
	}
	return nil
}

// admits is CheckPort for a socket's purpose. Which ports are allowed is about targets: DNS servers are asked on any
// port that is not denied.
func (e Egress) admits(addr netip.AddrPort, p purpose) error {
	if p == toQuery || p == toStranger {
		e.Ports.Allow = nil
	}
	return e.CheckPort(addr)
}

// Check returns nil if the policy admits ip, or why not. An IPv4-mapped address counts as the IPv4
// address, and an address that a translator or tunnel turns into IPv4 addresses is judged by them too. A
// cloud's metadata service is admitted only if Allow has its very address: a range does not mean it.
func (e Egress) Check(ip netip.Addr) error {
	if !ip.IsValid() || ip.Zone() != "" {
		return fmt.Errorf("%q is not a plain address", ip)
	}
	ip = ip.Unmap()
	if covers(e.Deny, ip) {
		return fmt.Errorf("%s is denied by the operator", ip)
	}
	if len(e.Only) > 0 && !covers(e.Only, ip) {
		return fmt.Errorf("%s is not among the only targets that the operator allows", ip)
	}
	for _, v4 := range embedded(ip) {
		if err := e.Check(v4); err != nil {
			return fmt.Errorf("%s leads to IPv4: %w", ip, err)
		}
	}
	if slices.Contains(metadata, ip) {
		return e.checkMetadata(ip)
	}
	if e.allows(ip) {
		return nil
	}
	if why := special(ip); why != "" {
		return fmt.Errorf("%s is special-purpose: %s", ip, why)
	}
	return nil
}

func (e Egress) checkMetadata(ip netip.Addr) error {
	named := func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr().Unmap() == ip }
	if slices.ContainsFunc(e.Allow, named) {
		return nil
	}
	return fmt.Errorf("%s is special-purpose: a cloud's metadata service", ip)
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

// embedded returns the IPv4 addresses that packets to an IPv6 address end up at or pass through, for the
// translators and tunnels that put them into it.
// Without this 64:ff9b::7f00:1 is a public address to the policy, and 127.0.0.1 to a gateway of NAT64.
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	v4 := func(from int) netip.Addr { return netip.AddrFrom4([4]byte(b[from : from+4])) }
	switch {
	case nat64.Contains(ip), localNAT64.Contains(ip), compatible.Contains(ip) && !ip.IsLoopback() && !ip.IsUnspecified():
		return []netip.Addr{v4(12)}
	case sixToFour.Contains(ip):
		return []netip.Addr{v4(2)}
	case teredo.Contains(ip): // The server's, and the client's, which is stored inverted (RFC 4380, 4).
		return []netip.Addr{v4(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	case isatap(b):
		return []netip.Addr{v4(12)}
	}
	return nil
}

// isatap says whether an address has the interface identifier of an ISATAP tunnel (RFC 5214, 6.1).
func isatap(b [16]byte) bool {
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// special returns why ip is not a public unicast address, or "". The longest prefix decides.
// IANA's registries have holes: 192.0.0.9 and 192.0.0.10 are global inside of 192.0.0.0/24, which is not, and
// 2001:4:112::/48 inside of 2001::/23.
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
