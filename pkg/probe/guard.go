package probe

import (
	"fmt"
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
	if exempt, err := t.policy(addr, p); exempt || err != nil {
		return err
	}
	return t.spend(addr.Addr().Unmap(), p)
}

// policy returns nil if the operator lets the probe open a socket to addr, or why not. Exempt: the
// operator named the server himself, so that no limit applies.
func (t *trace) policy(addr netip.AddrPort, p purpose) (exempt bool, err error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	switch {
	case p == toQuery && slices.Contains(t.resolvers, addr):
		return true, nil
	case p == toStranger && slices.Contains(t.env.Hints, addr): // The operator named it.
		return true, nil
	case p == toControl && t.env.Controls != nil: // The operator listed it.
		return true, nil
	case t.env.Services != nil && slices.Contains(t.env.Services(), addr):
		return false, fmt.Errorf("%s is a service of the network of agents itself", addr)
	}
	if err := t.env.Egress.CheckPort(addr); err != nil {
		return false, err
	}
	ip := addr.Addr()
	if slices.Contains(t.own(), ip) && !t.env.Egress.allows(ip) {
		return false, fmt.Errorf("%s is an address of the agent's own host", ip)
	}
	return p == toControl, nil // The shipped ones are few, and asked once in a Result.
}

// spend takes a token of the target's budget, one in a Run however many sockets it opens.
func (t *trace) spend(ip netip.Addr, p purpose) error {
	key := bucketKey{target: network(ip)}
	if p == toQuery || p == toStranger {
		key = bucketKey{server: network(ip)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err, asked := t.spent[key]; asked {
		return err
	}
	t.spent[key] = t.env.Budget.take(key)
	return t.spent[key]
}
