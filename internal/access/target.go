package access

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Target is what a budget is for: one of an address, the network that it is in (/24, IPv6 /48), and a domain as
// somebody registered it.
type Target struct {
	prefix netip.Prefix
	domain string
}

// String names it.
func (t Target) String() string {
	switch {
	case t.domain != "":
		return t.domain
	case t.prefix.IsSingleIP():
		return t.prefix.Addr().String()
	}
	return t.prefix.String()
}

func (t Target) isNetwork() bool { return t.domain == "" && !t.prefix.IsSingleIP() }

// Targets are whom a question is about: the host that it names, the DNS servers that it names, and for a lookup the
// domain, whose own servers are asked too. The agents count what addresses a name leads them to.
func Targets(spec *pb.Spec) []Target {
	var all []Target
	for _, host := range Hosts(spec) {
		for _, t := range targetsOf(host) {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}

// Hosts are the names and addresses in a question, without ports.
func Hosts(spec *pb.Spec) []string {
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Dns:
		named := append([]string{c.Dns.GetResolver()}, c.Dns.GetPublicResolvers()...)
		all := []string{c.Dns.GetName()}
		for _, server := range named {
			all = append(all, withoutPort(server))
		}
		return all
	case *pb.Spec_Tcp:
		return []string{c.Tcp.GetHost()}
	case *pb.Spec_Tls:
		return []string{c.Tls.GetHost()}
	case *pb.Spec_Http:
		return []string{hostOf(c.Http.GetUrl())}
	case *pb.Spec_Origin:
		return []string{hostOf(c.Origin.GetUrl())}
	}
	return nil
}

// withoutPort is a server without its port: "IP", "IP:PORT", "[IP]:PORT", "NAME" or "NAME:PORT".
func withoutPort(server string) string {
	if _, err := netip.ParseAddr(server); err == nil {
		return server
	}
	if at := strings.LastIndexByte(server, ':'); at >= 0 {
		server = server[:at]
	}
	return strings.Trim(server, "[]")
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Hostname()
}

// targetsOf are the budgets that a host counts in.
func targetsOf(host string) []Target {
	if host == "" {
		return nil
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return addresses(ip.Unmap().WithZone(""))
	}
	return []Target{{domain: registrable(host)}}
}

// addresses are the budgets of an address: its own and its network's.
func addresses(ip netip.Addr) []Target {
	bits := 24
	if ip.Is6() {
		bits = 48
	}
	return []Target{
		{prefix: netip.PrefixFrom(ip, ip.BitLen())},
		{prefix: netip.PrefixFrom(ip, bits).Masked()},
	}
}

// registrable is the domain that somebody registered, by the list of public suffixes; a name that has none is its own.
func registrable(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		name = ascii
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}
