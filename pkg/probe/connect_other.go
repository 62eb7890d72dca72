//go:build !linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Connect opens a TCP connection and says how the network answered by its errno alone; the evidence
// says that there was no error queue to read. The error is a localError if the host has no route, a
// syscall.Errno if the network refused, and a timeout if it was silent until ctx ended. The evidence
// is never nil. ConnectOptions cannot be heeded here.
func Connect(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
	ev := &pb.Evidence{}
	if opts != (ConnectOptions{}) { // Without what was asked for, the connection would prove something else.
		return nil, ev, localError{fmt.Errorf("connect to %s with %+v: %w", addr, opts, errors.ErrUnsupported)}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		ev.Errno = errnoName(err)
		if isUnroutable(err) && !addr.Addr().IsLoopback() && !routed(addr.Addr()) {
			err = localError{err}
		}
		return nil, ev, fmt.Errorf("connect to %s: %w", addr, err)
	}
	ev.LocalAddress = conn.LocalAddr().String()
	return conn, ev, nil
}

// askErrorQueue would make a socket keep ICMP errors.
func askErrorQueue(string, string, syscall.RawConn) error { return nil }

// drainErrorQueue would read them.
func drainErrorQueue(net.Conn, *pb.Evidence) {}
