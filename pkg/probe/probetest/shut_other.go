//go:build !unix

package probetest

import (
	"errors"
	"net"
	"net/netip"
)

// ListenClosed takes a port that nobody listens on, so that the kernel answers with an RST. Without a socket
// that is bound alone, the port was free a moment ago and is not kept.
func ListenClosed(at netip.AddrPort) (*Host, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	return &Host{addr: addr, close: func() error { return nil }, conns: map[net.Conn]bool{}}, l.Close()
}

// ListenFull is not possible here: how long an accept queue is cannot be chosen.
func ListenFull(netip.AddrPort) (*Host, error) { return nil, errors.ErrUnsupported }
