package probe

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// rootServers are the root servers, IPv4 and IPv6 each from a to m, of
// https://www.internic.net/domain/named.root as it stood on 2024-04-18 (root zone 2024041801).
var rootServers = []string{
	"198.41.0.4", "170.247.170.2", "192.33.4.12", "199.7.91.13", "192.203.230.10", "192.5.5.241", "192.112.36.4",
	"198.97.190.53", "192.36.148.17", "192.58.128.30", "193.0.14.129", "199.7.83.42", "202.12.27.33",
	"2001:503:ba3e::2:30", "2801:1b8:10::b", "2001:500:2::c", "2001:500:2d::d", "2001:500:a8::e", "2001:500:2f::f",
	"2001:500:12::d0d", "2001:500:1::53", "2001:7fe::53", "2001:503:c27::2:30", "2001:7fd::1", "2001:500:9f::42",
	"2001:dc3::35",
}

// private are domains that IANA's root will never delegate and that networks have servers of their own for:
// RFC 6761 (example, test), RFC 8375 (home.arpa), and internal, which ICANN's board reserved on 2024-07-29.
// Asking the root for them would tell it about private names.
var private = []string{"example", "home.arpa", "internal", "test"}

// nobodys are domains that no DNS server is to be asked for: RFC 6761 (invalid, localhost), RFC 6762 (local),
// RFC 7686 (onion), RFC 9476 (alt).
var nobodys = []string{"alt", "invalid", "local", "localhost", "onion"}

// hints returns the root servers to begin a walk at.
func (e *Env) hints() []netip.AddrPort {
	if e.Hints != nil {
		return e.Hints
	}
	hints := make([]netip.AddrPort, len(rootServers))
	for i, s := range rootServers {
		hints[i] = netip.AddrPortFrom(netip.MustParseAddr(s), 53)
	}
	return hints
}

// walkable says whether the servers of a name's zone can be found, from the root or with the help of a resolver.
func (e *Env) walkable(name string) bool {
	if e.Hints == nil && e.policy().OwnServers {
		return false // The root's servers would be the first stranger.
	}
	if e.Hints != nil {
		return len(e.Hints) > 0 && !within(name, "localhost")
	}
	return !below(name, nobodys)
}

// rooted says whether they can be found from the root.
func (e *Env) rooted(name string) bool { return e.Hints != nil || !below(name, private) }

// below says whether a name is one of domains or below one.
func below(name string, domains []string) bool {
	return slices.ContainsFunc(domains, func(domain string) bool { return within(name, domain) })
}

// within says whether a name is a domain or below it, by labels. Both are canonical.
func within(name, domain string) bool { return dns.IsSubDomain(domain, name) }
