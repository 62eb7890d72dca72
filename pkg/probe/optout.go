package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// MaxOptOuts bounds the entries of an OptOut: they go with every Job.
const MaxOptOuts = 256

// OptOut are the targets that do not want to be looked at from a network: names, with all that is below them, and
// addresses. Its zero value is nobody.
type OptOut struct {
	names  []string
	ranges []netip.Prefix
}

// ParseOptOut reads entries such as "example.com", which counts for all names below it too, "192.0.2.1" and
// "2001:db8::/32". An error says which one is wrong, and how.
func ParseOptOut(entries []string) (OptOut, error) {
	if len(entries) > MaxOptOuts {
		return OptOut{}, fmt.Errorf("%d entries; at most %d", len(entries), MaxOptOuts)
	}
	var o OptOut
	for _, entry := range entries {
		ip, notIP := netip.ParseAddr(entry)
		p, notRange := netip.ParsePrefix(entry)
		switch {
		case notIP == nil && ip.Zone() == "":
			o.ranges = append(o.ranges, netip.PrefixFrom(ip, ip.BitLen()))
		case notRange == nil && p != p.Masked():
			return OptOut{}, fmt.Errorf("%q: the network is %s", entry, p.Masked())
		case notRange == nil:
			o.ranges = append(o.ranges, p)
		case strings.HasPrefix(entry, "*."):
			return OptOut{}, fmt.Errorf("%q: write %q, which counts for all names below it too", entry, entry[2:])
		case !isHostname(canonical(entry)):
			return OptOut{}, fmt.Errorf("%q is neither a name nor an address nor a network such as 192.0.2.0/24", clean(entry, 100))
		default:
			o.names = append(o.names, canonical(entry))
		}
	}
	return o, nil
}

// isHostname says whether a canonical name can be a host's or a domain's. What only looks like an address is none.
func isHostname(name string) bool {
	if _, ok := dns.IsDomainName(name); !ok || name == "" || name == "." {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" && strings.Trim(last, "0123456789") != ""
}

// Check returns nil if a host, a name or an address, may be looked at, or an error that says which entry says that it
// may not.
func (o OptOut) Check(host string) error {
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return o.checkAddress(ip)
	}
	return o.checkName(host)
}

// checkName is Check for a name.
func (o OptOut) checkName(host string) error {
	name := canonical(host)
	for _, entry := range o.names {
		if name == entry || strings.HasSuffix(name, "."+entry) {
			return optedOut(name, entry)
		}
	}
	return nil
}

// checkAddress is Check for an address, and for the IPv4 addresses that packets to it end up at.
func (o OptOut) checkAddress(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	for _, at := range slices.Concat([]netip.Addr{ip}, embedded(ip)) {
		for _, entry := range o.ranges {
			if covers([]netip.Prefix{entry}, at) {
				return optedOut(ip.String(), blockName(entry))
			}
		}
	}
	return nil
}

// blockName is a network, or the one address that it has.
func blockName(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func optedOut(host, entry string) error {
	if entry == host {
		return fmt.Errorf("%s does not want to be measured: it is on the network's opt-out list", host)
	}
	return fmt.Errorf("%s does not want to be measured: %s is on the network's opt-out list", host, entry)
}
