package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// purpose is what a socket is for.
type purpose int

const (
	toConnect  purpose = iota // The target, where it redirects to, and other ports of it.
	toQuery                   // A DNS server, over any transport.
	toControl                 // A control.
	toStranger                // A DNS server that somebody on the network named.
	toFetch                   // What a certificate names: its issuer (AIA).
)

// permit returns nil if a socket may be opened to addr, or why not: the operator's policy does not let
// it, or the target has been looked at too often. It is asked before every socket of every transport, on
// the address that the socket gets (DNS may answer anything).
func (t *trace) permit(addr netip.AddrPort, p purpose) error {
	rules := t.env.policy()
	if exempt, err := t.policy(&rules, addr, p); exempt || err != nil {
		return err
	}
	return t.spend(rules.Budget, addr.Addr().Unmap(), p)
}

// policy returns nil if the operator lets the probe open a socket to addr, and nobody there has opted out, or why not.
// Exempt: the operator named the server himself, so that no limit applies.
func (t *trace) policy(rules *Policy, addr netip.AddrPort, p purpose) (exempt bool, err error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	switch {
	case rules.Stopped != "":
		return false, errors.New(rules.Stopped)
	case p == toQuery && slices.Contains(t.resolvers, addr):
		return true, nil
	case p == toStranger && slices.Contains(t.env.Hints, addr): // The operator named it.
		return true, nil
	case p == toControl && t.env.Controls != nil: // The operator listed it.
		return true, nil
	case rules.OwnServers && (p == toQuery || p == toStranger):
		return false, errors.New("the agent's policy allows no DNS servers but its own")
	case t.env.Services != nil && slices.Contains(t.env.Services(), addr):
		return false, fmt.Errorf("%s is a service of the network of agents itself", addr)
	}
	ip := addr.Addr()
	if err := cmp.Or(rules.Egress.admits(addr, p), t.optOut.checkAddress(ip)); err != nil {
		return false, err
	}
	if !rules.Egress.allows(ip) && t.own(ip) {
		return false, fmt.Errorf("%s is an address of the agent's own host", ip)
	}
	return p == toControl, nil // The shipped ones are few, and asked once in a Result.
}

// payment is what a Run took of a budget.
type payment struct {
	key bucketKey
	err error // Why there was nothing to take.
}

// spend takes a token of the target's budget, one in a Run however many sockets it opens.
func (t *trace) spend(budget *Budget, ip netip.Addr, p purpose) error {
	if budget == nil {
		return nil
	}
	key := bucketKey{target: network(ip)}
	if p == toQuery || p == toStranger {
		key = bucketKey{server: network(ip)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, paid := range t.paid { // A Run has few targets.
		if paid.key == key {
			return paid.err
		}
	}
	err := budget.take(key, price(t.job.GetSpec()))
	t.paid = append(t.paid, payment{key, err})
	return err
}

// isOwn says whether ip is an address of this host: whether the host would send from it to it. Nothing is
// sent, since connecting a UDP socket asks the routing table alone; and that costs far less than a list of
// all interfaces.
func isOwn(ip netip.Addr) bool {
	source, ok := sourceFor(ip)
	return ok && source == ip
}

// sourceFor returns the address that the host would send to ip from. Not ok: it has no route.
func sourceFor(ip netip.Addr) (netip.Addr, bool) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 53)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), true
}
