package probe

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Env is the world that a probe measures from. Its zero value is the real network. It may be shared
// by any number of Runs and must not change while one of them works.
type Env struct {
	// Resolvers are the agent's own recursive resolvers, in order of preference. Nil: those of
	// /etc/resolv.conf. They may be asked on their port whatever Egress says, for the operator named them.
	Resolvers []netip.AddrPort
	// Connect opens TCP connections. Nil: the package's Connect. It is asked after the egress policy
	// was, with the address as the target has it.
	Connect func(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error)
	// Roots are trusted beside the Mozilla bundle.
	Roots []*x509.Certificate
	// Chains remembers how chains of certificates were judged. Nil: each is judged anew.
	Chains *Chains
	// Egress says where sockets may go.
	Egress Egress
	// Policy returns what the operator lets be measured at this moment, with the Egress and the Budget that hold in
	// place of those of Env. It is asked before every socket opens. Nil: Egress and Budget are all that there is.
	Policy func() *Policy
	// Controls are "HOST:PORT" of hosts known to be good, asked beside a failing step. Nil: a short
	// list of well-known public ones. Empty and not nil: none. Those listed may be connected to on
	// their address and port whatever Egress says, as controls only.
	Controls []string
	// Hints are the root servers, which zones' own servers are found from. Nil: IANA's. Empty and not nil:
	// none, nothing is walked. Those listed may be asked whatever Egress says; the servers that they lead
	// to are asked on the first one's port.
	Hints []netip.AddrPort
	// Delegations is what is remembered of zones' servers from one Run to the next. Nil: nothing is.
	Delegations *Delegations
	// Services returns the addresses and ports of the network of agents itself, which are refused even
	// where Egress allows their address. Nil: there are none.
	Services func() []netip.AddrPort
	// Budget bounds how often a target is looked at. Nil: it is not bounded.
	Budget *Budget
	// Sockets are those that first queries are sent from. Nil: each query has a fresh one.
	Sockets *Sockets
	// Version is the version of the agent's program, for the Result.
	Version string

	// patience lets tests wait for longer, since their servers share a busy process.
	patience time.Duration
}

// ConnectOptions change how a connection is opened. The zero value changes nothing.
type ConnectOptions struct {
	// MaxSegment limits the size of TCP segments in bytes (TCP_MAXSEG). 0: the kernel's choice.
	MaxSegment int

	hopLimit int            // The TTL, or the hop limit. 0: the kernel's choice.
	source   netip.AddrPort // Where to connect from; others may too. Not valid: the kernel's choice.
}

// resolvers returns the agent's own resolvers.
func (e *Env) resolvers() []netip.AddrPort {
	if e.Resolvers != nil {
		return e.Resolvers
	}
	return SystemResolvers()
}

// connect opens a TCP connection through the seam.
func (e *Env) connect(ctx context.Context, addr netip.AddrPort) (net.Conn, *pb.Evidence, error) {
	return e.connectWith(ctx, addr, ConnectOptions{})
}

// connectWith opens a TCP connection in another way than usual.
func (e *Env) connectWith(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
	if e.Connect != nil {
		return e.Connect(ctx, addr, opts)
	}
	return Connect(ctx, addr, opts)
}

// SystemResolvers returns the servers of /etc/resolv.conf, or none if it cannot be read. It is read
// each time, so that a change is seen without a restart.
func SystemResolvers() []netip.AddrPort {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	var servers []netip.AddrPort
	for _, s := range conf.Servers {
		if ip, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, netip.AddrPortFrom(ip.Unmap(), 53))
		}
	}
	return servers
}

// Families says which address families the host has: a route to the public network, or at least an
// address that is neither loopback nor link-local, since a private network has targets too. It sends
// nothing: connecting a UDP socket asks the routing table alone.
func Families() (ipv4, ipv6 bool) {
	return hasFamily(publicIPv4), hasFamily(publicIPv6)
}

// The addresses of a.root-servers.net: as public as an address can be.
var (
	publicIPv4 = netip.AddrFrom4([4]byte{198, 41, 0, 4})
	publicIPv6 = netip.MustParseAddr("2001:503:ba3e::2:30")
)

// PublicAddresses are the addresses that the host sends to the public network from, one for each family,
// where they are public themselves. Behind NAT there is none.
func PublicAddresses() (ips []netip.Addr) {
	for _, public := range []netip.Addr{publicIPv4, publicIPv6} {
		if ip, ok := sourceFor(public); ok && special(ip) == "" {
			ips = append(ips, ip)
		}
	}
	return ips
}

// hasFamily says whether the host has the family of an address that is public.
func hasFamily(public netip.Addr) bool {
	return routed(public) || slices.ContainsFunc(hostAddresses(), func(ip netip.Addr) bool {
		return ip.Is4() == public.Is4() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
	})
}

// routed says whether the host has a route to ip.
func routed(ip netip.Addr) bool {
	_, ok := sourceFor(ip)
	return ok
}

// hostAddresses returns the addresses of the host's interfaces.
func hostAddresses() []netip.Addr {
	var ips []netip.Addr
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return ips
}
