package probe

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzExtendedError: the kernel writes this, but a bug of ours must not become a crash.
func FuzzExtendedError(f *testing.F) {
	v4 := []byte{111, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, unix.AF_INET, 0, 0, 0, 127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0}
	v6 := append([]byte{13, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP6, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, unix.AF_INET6, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 20)...)
	f.Add(int32(unix.IPPROTO_IP), int32(unix.IP_RECVERR), v4)
	f.Add(int32(unix.IPPROTO_IPV6), int32(unix.IPV6_RECVERR), v6)
	f.Fuzz(func(t *testing.T, level, typ int32, data []byte) {
		e, ok := parseExtendedError(level, typ, data)
		if ok && e.icmp == nil || ok && len(data) < 16 {
			t.Errorf("%v of %d bytes", e, len(data))
		}
	})
	if e, ok := parseExtendedError(unix.IPPROTO_IP, unix.IP_RECVERR, v4); !ok || e.errno != unix.ECONNREFUSED ||
		e.icmp.GetType() != 3 || e.icmp.GetCode() != 3 || e.icmp.GetSender() != "127.0.0.2" {
		f.Errorf("%v, %v", e, ok)
	}
}
