package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUp has a connection end when what was sent was not acknowledged for so long (TCP_USER_TIMEOUT, RFC 5482). Linux would
// try for a quarter of an hour, in pauses of up to two minutes, and go on with them after the network is back. A sandbox
// that knows no such option is no reason not to connect.
func giveUp(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
}
