//go:build unix

package identity

import (
	"errors"
	"net"
	"syscall"
)

// gone says whether the other end of a connection has left, as far as this one has heard. Nothing is read.
func gone(conn net.Conn) (left bool) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true // this end has closed it
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		again := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		left = n <= 0 && !again
		return true
	})
	return left || err != nil
}
