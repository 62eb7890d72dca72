package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a control group.
const (
	maxControlNames = 4
	maxControlAddrs = 8
	controlSends    = 3
)

// publicControls are well-known hosts of different operators, by name and by address, for agents
// whose operator named none.
var publicControls = []string{
	"one.one.one.one:443", "dns.quad9.net:443", "www.wikipedia.org:443", "www.example.com:80",
	"1.1.1.1:443", "9.9.9.9:443", "1.1.1.1:80",
	"[2606:4700:4700::1111]:443", "[2620:fe::fe]:443", "[2606:4700:4700::1111]:80",
}

// PublicControls returns the controls of agents whose operator named none.
func PublicControls() []string { return slices.Clone(publicControls) }

// controlHost is a host known to be good: a name or an address, and a port.
type controlHost struct {
	name string
	addr netip.Addr
	port uint16
}

// controlHosts reads the list of controls; what makes no sense is left out.
func (e *Env) controlHosts() []controlHost {
	list := e.Controls
	if list == nil {
		list = publicControls
	}
	var hosts []controlHost
	for _, s := range list {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			continue
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			continue
		}
		c := controlHost{port: uint16(number)}
		if c.addr, err = netip.ParseAddr(host); err != nil {
			c.name = canonical(host)
		}
		c.addr = c.addr.Unmap()
		hosts = append(hosts, c)
	}
	return hosts
}

// controlsFor returns the function that begins the TCP controls of an address's family beside a step.
// A family has one group in a Result, however many steps fail.
func (t *trace) controlsFor(ctx context.Context, s *step, target netip.Addr) func() {
	return func() {
		family := "tcp4"
		if target.Is6() {
			family = "tcp6"
		}
		if !t.once(family) {
			return
		}
		port := uint16(0)
		if addr, err := netip.ParseAddrPort(s.pb.GetAddress()); err == nil {
			port = addr.Port()
		}
		t.spawn(func() { t.tcpControls(ctx, &tcpGroup{beside: s.index, target: target, port: port}) })
	}
}

// tcpGroup is a group of TCP controls: what they stand beside, and whom they have asked.
type tcpGroup struct {
	beside int32
	target netip.Addr
	port   uint16

	mu   sync.Mutex
	seen []netip.AddrPort
}

// fits says whether an address can be a control. A target on the loopback interface proves nothing
// about the network, nor the other way round.
func (g *tcpGroup) fits(ip netip.Addr) bool {
	return ip.Is4() == g.target.Is4() && ip.IsLoopback() == g.target.IsLoopback()
}

// choose returns the best kind of control there is. The target's port comes first, since a firewall may
// treat ports differently; then addresses before names, since a name has to be asked of a resolver, which
// a connect has nothing to do with. No name is asked for a target on loopback if an address is there.
func (g *tcpGroup) choose(hosts []controlHost) []controlHost {
	var fixed, named, fixedHere, namedHere []controlHost // here: on the target's port
	for _, c := range hosts {
		switch here := c.port == g.port; {
		case c.name != "" && here:
			namedHere = append(namedHere, c)
			fallthrough
		case c.name != "":
			named = append(named, c)
		case g.fits(c.addr) && here:
			fixedHere = append(fixedHere, c)
			fallthrough
		case g.fits(c.addr):
			fixed = append(fixed, c)
		}
	}
	if g.target.IsLoopback() && len(fixed) > 0 {
		namedHere = nil
	}
	for _, kind := range [][]controlHost{fixedHere, namedHere, fixed} {
		if len(kind) > 0 {
			return kind
		}
	}
	return named
}

// add says whether an address is one more to ask.
func (g *tcpGroup) add(addr netip.AddrPort) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.fits(addr.Addr()) || len(g.seen) == maxControlAddrs || slices.Contains(g.seen, addr) {
		return false
	}
	g.seen = append(g.seen, addr)
	return true
}

// tcpControls connects to the controls' addresses of the target's family, all at once.
func (t *trace) tcpControls(ctx context.Context, g *tcpGroup) {
	qtype := dns.TypeA
	if g.target.Is6() {
		qtype = dns.TypeAAAA
	}
	names := 0
	for _, c := range g.choose(t.env.controlHosts()) {
		if c.name == "" {
			t.tcpControl(ctx, g, netip.AddrPortFrom(c.addr, c.port))
			continue
		}
		if names++; names > maxControlNames {
			continue
		}
		t.spawn(func() {
			for _, ip := range t.controlAddresses(ctx, g.beside, c.name, qtype) {
				t.tcpControl(ctx, g, netip.AddrPortFrom(ip, c.port))
			}
		})
	}
}

// tcpControl begins one control connection. One that the operator's policy refuses is no control: it
// leaves no step, for it says nothing about the agent's network.
func (t *trace) tcpControl(ctx context.Context, g *tcpGroup, addr netip.AddrPort) {
	if t.permit(addr, toControl) != nil || !g.add(addr) {
		return
	}
	t.spawn(func() {
		p := connectStep(addr, pb.Role_ROLE_CONTROL)
		p.Beside = &g.beside
		s := t.open(p)
		s.end(s.attempt(ctx, func(ctx context.Context) pb.Failure {
			conn, f := s.dial(ctx, addr)
			if conn != nil {
				_ = conn.Close()
			}
			return f
		}))
	})
}

// controlAddresses resolves a control's name at the agent's resolvers, one after the other.
func (t *trace) controlAddresses(ctx context.Context, beside int32, name string, qtype uint16) []netip.Addr {
	for _, server := range t.resolvers {
		a := t.ask(ctx, controlQuery(server, name, qtype, beside))
		if len(a.addresses) > 0 || over(ctx) {
			return a.addresses
		}
	}
	return nil
}

// controlQuery asks for a control's name. That it lacks one of the families needs no second look.
func controlQuery(server netip.AddrPort, name string, qtype uint16, beside int32) query {
	enough := make(chan struct{})
	close(enough)
	return query{
		server: server, name: name, qtype: qtype, role: pb.Role_ROLE_CONTROL,
		beside: &beside, sends: controlSends, enough: enough,
	}
}

// dnsControls asks the server of a failing query for the controls' names, both families, all at
// once. A server has one group in a Result; that of a public resolver is a small one.
func (t *trace) dnsControls(ctx context.Context, a *asker) {
	public := a.role == pb.Role_ROLE_PUBLIC
	if a.role != pb.Role_ROLE_TARGET && !public || !t.once("dns "+a.server.String()) {
		return
	}
	most, qtypes := maxControlNames, []uint16{dns.TypeA, dns.TypeAAAA}
	if public {
		most, qtypes = publicControlNames, qtypes[:1]
	}
	var names []string
	for _, c := range t.env.controlHosts() {
		if c.name != "" && !slices.Contains(names, c.name) && len(names) < most {
			names = append(names, c.name)
		}
	}
	beside := a.index
	for _, name := range names {
		for _, qtype := range qtypes {
			q := controlQuery(a.server, name, qtype, beside)
			q.opts, q.serverName = a.carrier(), a.serverName
			if public {
				q.quick, q.sends = publicPatience, 2
			}
			t.spawn(func() { t.ask(ctx, q) })
		}
	}
}
