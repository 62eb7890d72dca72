package probe

import (
	"fmt"
	"net/netip"
	"slices"
)

// purpose is what a socket is for.
type purpose int

const (
	toConnect  purpose = iota // The target.
	toQuery                   // A DNS server.
	toControl                 // A control.
	toStranger                // A DNS server that somebody on the network named.
)

// permit returns nil if the operator lets the probe open a socket to addr, or why not. It is asked
// before every socket, on the address that the socket gets (DNS may answer anything).
func (t *trace) permit(addr netip.AddrPort, p purpose) error {
	switch {
	case p == toQuery && slices.Contains(t.resolvers, addr):
		return nil
	case p == toStranger && slices.Contains(t.env.Hints, addr): // The operator named it.
		return nil
	case p == toControl && t.env.Controls != nil: // The operator listed it.
		return nil
	}
	if err := t.env.Egress.Check(addr.Addr()); err != nil {
		return err
	}
	ip := addr.Addr().Unmap()
	if slices.Contains(t.own(), ip) && !t.env.Egress.allows(ip) {
		return fmt.Errorf("%s is an address of the agent's own host", ip)
	}
	return nil
}
