//go:build !linux

package probe

import (
	"errors"
	"net/netip"
)

// canTrace says that connects cannot be told apart by their TTL here: there is no error queue.
const canTrace = false

// sourcePort would take a port for connects.
func sourcePort(netip.Addr) (netip.AddrPort, func(), error) {
	return netip.AddrPort{}, nil, errors.ErrUnsupported
}
