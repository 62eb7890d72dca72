package aggregate

import (
	"net/netip"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// witnesses tells which agents are one witness: those that share a network or a provider, also by way of
// others. What shuts one of them out may well be what they share, such as a rule against one cloud's
// addresses; the more they are taken together, the less is claimed.
func (f *facts) witnesses() {
	joined := map[string]string{} // each name leads to the first one of its witness
	first := func(name string) string {
		for joined[name] != "" {
			if up := joined[joined[name]]; up != "" {
				joined[name] = up // keeps the ways short
			}
			name = joined[name]
		}
		return name
	}
	for _, a := range f.agents {
		names := shares(a.network, a.ask.GetVantage())
		for _, name := range names {
			one, other := first(names[0]), first(name)
			if one != other {
				joined[max(one, other)] = min(one, other)
			}
		}
	}
	for _, a := range f.agents {
		a.witness = first(a.network)
	}
}

// shares are the names of what an agent at v, in a network, shares with others. A private subnet, such as that of a VPN
// to the coordinator, is none of the agent's own where its AS is known.
func shares(network string, v *pb.Vantage) []string {
	names := []string{network}
	if p, ok := subnet(v.GetObservedAddress()); ok && !Inside(p.Addr()) {
		names = append(names, p.String())
	}
	if v.GetProvider() != "" {
		names = append(names, "provider "+strings.ToLower(v.GetProvider()))
	}
	return names
}

// network names the network that v stands in: the ASN, else the /24 or /48 of the address that the
// coordinator sees it at, else the provider, else "" (not known, and never counted as different).
func network(v *pb.Vantage) string {
	if asn := v.GetAsn(); asn != 0 {
		return "AS" + strconv.FormatUint(uint64(asn), 10)
	}
	if p, ok := subnet(v.GetObservedAddress()); ok {
		return p.String()
	}
	return v.GetProvider()
}

// subnet is the /24 or /48 around text, "IP" or "IP:PORT".
func subnet(text string) (netip.Prefix, bool) {
	if text == "" {
		return netip.Prefix{}, false
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Prefix{}, false
		}
		addr = ap.Addr()
	}
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	return p, err == nil
}
