//go:build unix

package probetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ListenClosed takes a port that nobody listens on, so that the kernel answers with an RST. The port
// stays taken until Close.
func ListenClosed(at netip.AddrPort) (*Host, error) {
	fd, err := bound(at)
	if err != nil {
		return nil, err
	}
	return shut(fd)
}

// ListenFull starts a host whose accept queue is full: the kernel drops further SYNs in silence. That it
// does is proved before it returns, which takes a moment.
func ListenFull(at netip.AddrPort) (*Host, error) {
	fd, err := bound(at)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 0); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	h, err := shut(fd)
	if err != nil {
		return nil, err
	}
	for silent := 0; len(h.conns) < 8; {
		dialer := net.Dialer{Timeout: 300 * time.Millisecond}
		conn, err := dialer.DialContext(context.Background(), "tcp", h.Addr().String())
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			if silent++; silent == 2 { // Once, it may have been this process that was late.
				return h, nil
			}
			continue
		}
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		h.keep(conn, true)
	}
	return nil, errors.Join(fmt.Errorf("the kernel goes on accepting at %s", h.Addr()), h.Close())
}

// bound opens a TCP socket with an address.
func bound(at netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if ip := at.Addr().Unmap(); ip.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	if err := unix.Bind(fd, sa); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// shut makes a host of a socket that accepts nothing.
func shut(fd int) (*Host, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	h := &Host{close: func() error { return unix.Close(fd) }, conns: map[net.Conn]bool{}}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		h.addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		h.addr = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return h, nil
}
