package probe

import "net/netip"

// block is a row of a registry: a prefix, its name, and whether it is globally reachable. "N/A" and
// terminated rows are not.
type block struct {
	prefix netip.Prefix
	name   string
	global bool
}

// Ranges that carry an IPv4 address, and the space that unicast addresses are given out from.
var (
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64    = netip.MustParsePrefix("64:ff9b:1::/48") // By its /96, which most translators use.
	compatible    = netip.MustParsePrefix("::/96")
	sixToFour     = netip.MustParsePrefix("2002::/16")
	teredo        = netip.MustParsePrefix("2001::/32")
	globalUnicast = netip.MustParsePrefix("2000::/3")
)

// registry holds the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890),
// https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry, as they
// stood with 25 records each, the newest one of 2025-04. Records inside another one of the same kind
// are left out; the last rows are not IANA's.
var registry = []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network", false},
	{netip.MustParsePrefix("10.0.0.0/8"), "private use", false},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space", false},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback", false},
	{netip.MustParsePrefix("169.254.0.0/16"), "link local", false},
	{netip.MustParsePrefix("172.16.0.0/12"), "private use", false},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments", false},
	{netip.MustParsePrefix("192.0.0.9/32"), "Port Control Protocol anycast", true},
	{netip.MustParsePrefix("192.0.0.10/32"), "TURN anycast", true},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation", false},
	{netip.MustParsePrefix("192.31.196.0/24"), "AS112", true},
	{netip.MustParsePrefix("192.52.193.0/24"), "AMT", true},
	{netip.MustParsePrefix("192.88.99.0/24"), "deprecated 6to4 relay anycast", false},
	{netip.MustParsePrefix("192.168.0.0/16"), "private use", false},
	{netip.MustParsePrefix("192.175.48.0/24"), "AS112", true},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking", false},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation", false},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation", false},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved", false},
	{netip.MustParsePrefix("255.255.255.255/32"), "limited broadcast", false},

	{netip.MustParsePrefix("::1/128"), "loopback", false},
	{netip.MustParsePrefix("::/128"), "unspecified", false},
	{nat64, "IPv4-IPv6 translation", true},
	{localNAT64, "local IPv4-IPv6 translation", false},
	{netip.MustParsePrefix("100::/64"), "discard only", false},
	{netip.MustParsePrefix("100:0:0:1::/64"), "dummy prefix", false},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments", false},
	{teredo, "Teredo", false},
	{netip.MustParsePrefix("2001:1::1/128"), "Port Control Protocol anycast", true},
	{netip.MustParsePrefix("2001:1::2/128"), "TURN anycast", true},
	{netip.MustParsePrefix("2001:1::3/128"), "DNS-SD registration anycast", true},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking", false},
	{netip.MustParsePrefix("2001:3::/32"), "AMT", true},
	{netip.MustParsePrefix("2001:4:112::/48"), "AS112", true},
	{netip.MustParsePrefix("2001:10::/28"), "deprecated ORCHID", false},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHIDv2", true},
	{netip.MustParsePrefix("2001:30::/28"), "drone entity tags", true},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation", false},
	{sixToFour, "6to4", false},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "AS112", true},
	{netip.MustParsePrefix("3fff::/20"), "documentation", false},
	{netip.MustParsePrefix("5f00::/16"), "segment routing", false},
	{netip.MustParsePrefix("fc00::/7"), "unique local", false},
	{netip.MustParsePrefix("fe80::/10"), "link local", false},

	// Multicast has registries of its own (RFC 5771, RFC 4291).
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast", false},
	{netip.MustParsePrefix("ff00::/8"), "multicast", false},
}

// metadata holds the addresses where clouds keep the credentials of their machines, as their own
// documents name them: AWS, Google, Azure and others (169.254.169.254), AWS and Google over IPv6,
// Azure's platform service, which looks public, Alibaba Cloud, and Oracle Cloud.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
}
