package probe

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// canTrace says that connects can have a limited TTL here, and a source port that they share.
const canTrace = true

// sourcePort takes a free port for connects to ip, one after the other, from one source. Release frees it.
func sourcePort(ip netip.Addr) (source netip.AddrPort, release func(), err error) {
	family, unspecified := unix.AF_INET, netip.IPv4Unspecified()
	if ip.Is6() {
		family, unspecified = unix.AF_INET6, netip.IPv6Unspecified()
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	if err := bindShared(fd, netip.AddrPortFrom(unspecified, 0)); err != nil {
		_ = unix.Close(fd)
		return netip.AddrPort{}, nil, err
	}
	return localAddress(fd), func() { _ = unix.Close(fd) }, nil
}
