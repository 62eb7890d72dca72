package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// extendedError is an ICMP error from a socket's error queue.
type extendedError struct {
	errno syscall.Errno
	icmp  *pb.ICMP
}

// parseExtendedError reads a struct sock_extended_err (ip(7)): errno u32, origin u8, type u8, code u8,
// pad u8, info u32, data u32; after it the sockaddr of the node that sent the error.
func parseExtendedError(level, typ int32, data []byte) (extendedError, bool) {
	v4 := level == unix.IPPROTO_IP && typ == unix.IP_RECVERR
	v6 := level == unix.IPPROTO_IPV6 && typ == unix.IPV6_RECVERR
	if !v4 && !v6 || len(data) < 16 {
		return extendedError{}, false
	}
	origin := data[4]
	if origin != unix.SO_EE_ORIGIN_ICMP && origin != unix.SO_EE_ORIGIN_ICMP6 {
		return extendedError{}, false
	}
	e := extendedError{
		errno: syscall.Errno(binary.NativeEndian.Uint32(data)),
		icmp:  &pb.ICMP{Type: int32(data[5]), Code: int32(data[6])},
	}
	if ip := offender(data[16:]); ip.IsValid() {
		e.icmp.Sender = ip.String()
	}
	return e, true
}

// offender reads the address of a sockaddr_in (family u16, port u16, address) or a sockaddr_in6
// (family u16, port u16, flow u32, address).
func offender(sa []byte) netip.Addr {
	if len(sa) < 8 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(sa); {
	case family == unix.AF_INET:
		return netip.AddrFrom4([4]byte(sa[4:8]))
	case family == unix.AF_INET6 && len(sa) >= 24:
		return netip.AddrFrom16([16]byte(sa[8:24])).Unmap()
	}
	return netip.Addr{}
}
