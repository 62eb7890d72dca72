package probe

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection that Connect made: a net.Conn around the file that it waited on.
type conn struct {
	f             *os.File
	local, remote netip.AddrPort
}

var _ net.Conn = (*conn)(nil)

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.f.Read(b)
	return n, c.wrap("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.f.Write(b)
	return n, c.wrap("write", err)
}

func (c *conn) Close() error { return c.wrap("close", c.f.Close()) }

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error      { return c.f.SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.f.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }

// SyscallConn makes the socket's options reachable (syscall.Conn).
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// SetLinger says what Close does with what is not sent yet, as that of net.TCPConn does.
func (c *conn) SetLinger(sec int) error {
	return c.control(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(sec)})
	})
}

// control calls f with the socket.
func (c *conn) control(f func(fd int) error) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// wrap makes an error of a file one of a connection, as package net has it.
// The classifier asks for *net.OpError and net.ErrClosed by type, and must not care who made the connection.
func (c *conn) wrap(op string, err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) {
		return err // Nil, or io.EOF.
	}
	inner := file.Err
	if errors.Is(inner, os.ErrClosed) {
		inner = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: inner}
}
