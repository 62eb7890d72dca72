package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxNamedServers bounds the addresses that are asked of a server known by its name.
const maxNamedServers = 4

// Budgets of a public resolver: the sends over UDP, a second each; TCP after them; and the controls, beside the
// second send.
const (
	publicSends        = 3
	publicTCP          = 2 * time.Second
	publicPatience     = 2 * time.Second
	publicControlNames = 2
)

// resolverHost reads "IP", "IP:PORT", "NAME" or "NAME:PORT".
func resolverHost(s string, transport pb.Transport) (host string, port uint16, err error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Unmap().String(), defaultPort(transport), wellFormedHost(s, 1, pb.Family_FAMILY_UNSPECIFIED)
	}
	host, port = s, defaultPort(transport)
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("%q: the port is not in 1 to 65535", s)
		}
		host, port = h, uint16(n)
	}
	return host, port, wellFormedHost(host, uint32(port), pb.Family_FAMILY_UNSPECIFIED)
}

// resolverAddr reads "IP" or "IP:PORT".
func resolverAddr(s string, transport pb.Transport) (netip.AddrPort, error) {
	host, port, err := resolverHost(s, transport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is neither IP nor IP:PORT", s)
	}
	return netip.AddrPortFrom(ip.Unmap(), port), nil
}

// lookup asks each resolver of the agent, or the one that the spec names, and the public ones that it
// lists, all at once; and beside them the zone's own servers.
func (t *trace) lookup(ctx context.Context, spec *pb.DNSSpec) {
	name, qtype, _ := question(spec) // It was checked at the door.
	q := query{name: name, qtype: qtype, role: pb.Role_ROLE_TARGET, opts: spec}
	var asking sync.WaitGroup
	if spec.GetResolver() != "" {
		asking.Add(1)
		t.spawn(func() {
			defer asking.Done()
			t.askNamed(ctx, q)
		})
	} else if t.askAll(ctx, q, t.ownServers(spec.GetTransport()), &asking) == 0 {
		t.noResolver(name)
	}
	t.askAll(ctx, q.public(), publicServers(spec), &sync.WaitGroup{}) // Nobody waits for them but Run.
	if spec.GetClass() != "CH" {
		t.authority(ctx, &asking, name, qtype)
	}
}

// public returns the query as public resolvers are asked: a silent one of many must not make a Job long.
func (q query) public() query {
	q.role, q.sends = pb.Role_ROLE_PUBLIC, publicSends
	return q
}

// publicServers returns the public resolvers that a spec lists.
func publicServers(spec *pb.DNSSpec) (servers []netip.AddrPort) {
	for _, text := range spec.GetPublicResolvers() {
		if addr, err := resolverAddr(text, spec.GetTransport()); err == nil {
			servers = append(servers, addr)
		}
	}
	return servers
}

// ownServers returns the agent's own resolvers on the port for how a query travels.
func (t *trace) ownServers(transport pb.Transport) []netip.AddrPort {
	servers := slices.Clone(t.resolvers)
	for i, s := range servers {
		if s.Port() == defaultPort(pb.Transport_TRANSPORT_UNSPECIFIED) {
			servers[i] = netip.AddrPortFrom(s.Addr(), defaultPort(transport))
		}
	}
	return servers
}

// askAll asks servers all at once, and returns how many. A lookup's family is that of the path to the
// resolver, as with dig -4 and -6.
func (t *trace) askAll(ctx context.Context, q query, servers []netip.AddrPort, asking *sync.WaitGroup) (n int) {
	for _, server := range servers {
		if !inFamily(server.Addr(), t.job.GetSpec().GetFamily()) {
			continue
		}
		n++
		asking.Add(1)
		q.server = server
		mine := q
		t.spawn(func() {
			defer asking.Done()
			a := t.inquire(ctx, mine)
			if t.examinable(mine, a) {
				a.step.doubt(ctx, func(ctx context.Context, side *trace) { side.examineResolver(ctx, mine, a) })
			}
		})
	}
	return n
}

// askNamed asks the server that the spec names: at its address, or at each of those that the agent's own
// resolvers find for its name.
func (t *trace) askNamed(ctx context.Context, q query) {
	host, port, _ := resolverHost(q.opts.GetResolver(), q.opts.GetTransport())
	ips, why := []netip.Addr{}, errors.New("there is no address of the family asked for")
	if ip, ok := literalAddr(host, t.job.GetSpec().GetFamily()); ok {
		ips = append(ips, ip)
	} else {
		q.serverName = canonical(host)
		ips, why = t.serverAddresses(ctx, q.serverName)
	}
	var servers []netip.AddrPort
	for _, ip := range ips[:min(len(ips), maxNamedServers)] {
		servers = append(servers, netip.AddrPortFrom(ip, port))
	}
	var asking sync.WaitGroup
	if t.askAll(ctx, q, servers, &asking) == 0 {
		s := t.open(&pb.Step{
			Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: q.role, Name: q.name, Type: dns.Type(q.qtype).String(),
		})
		s.say(fmt.Errorf("the server %s cannot be asked: %w", host, why))
		s.end(unaskable(ctx))
	}
	asking.Wait()
}

// unaskable is how a query to a server without an address ends.
func unaskable(ctx context.Context) pb.Failure {
	if over(ctx) {
		return pb.Failure_FAILURE_AGENT_DEADLINE
	}
	return pb.Failure_FAILURE_DNS_UNREACHABLE
}

// serverAddresses asks the agent's own resolvers for the addresses of a DNS server, or says why there are
// none.
func (t *trace) serverAddresses(ctx context.Context, name string) ([]netip.Addr, error) {
	if len(t.resolvers) == 0 {
		return nil, errors.New("the agent has no resolver to ask for its address")
	}
	var mu sync.Mutex
	var both sync.WaitGroup
	found := map[uint16][]netip.Addr{}
	one := make(chan struct{}) // Closed when there is an address: that the other family has none needs no second look.
	once := sync.OnceFunc(func() { close(one) })
	why := fmt.Errorf("%s has no address", name)
	for _, qtype := range addressTypes(t.job.GetSpec().GetFamily()) {
		both.Add(1)
		t.spawn(func() {
			defer both.Done()
			for _, server := range t.resolvers {
				a := t.ask(ctx, query{
					server: server, name: name, qtype: qtype, role: pb.Role_ROLE_REFERRAL, sends: controlSends, enough: one,
				})
				if len(a.addresses) > 0 {
					once()
				}
				mu.Lock()
				found[qtype] = append(found[qtype], a.addresses...)
				if !known(a.failure) || qtype == dns.TypeA && a.failure != pb.Failure_FAILURE_NONE {
					why = fmt.Errorf("asking for its address ended with %s", Short(a.failure))
				}
				mu.Unlock()
				if known(a.failure) || over(ctx) {
					return
				}
			}
		})
	}
	both.Wait()
	var ips []netip.Addr
	for i := range maxNamedServers { // Both families get their turn.
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			if i < len(found[qtype]) && !slices.Contains(ips, found[qtype][i]) {
				ips = append(ips, found[qtype][i])
			}
		}
	}
	return ips, why
}
