package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Connect opens a TCP connection and says what the network answered, from the socket's error queue
// too: errno alone cannot tell a closed port from a firewall's ICMP reject. The error says whether
// the host could not send, the network refused (a syscall.Errno), or it was silent until ctx ended (a
// timeout). The evidence is never nil; an ICMP error in it is what refused, unless the connection was
// made in spite of it.
//
// net.Dialer cannot be used: it closes the socket before its error queue can be read.
func Connect(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
	ev := &pb.Evidence{ErrorQueue: true}
	fd, err := start(addr, opts)
	if err != nil {
		ev.Errno = errnoName(err)
		return nil, ev, localError{fmt.Errorf("connect to %s: %w", addr, err)}
	}
	local := localAddress(fd)
	ev.LocalAddress = local.String()
	// The runtime's poller waits for the socket, so that a silent target costs no thread. One file serves
	// the handshake and the connection: a copy for net.FileConn would cost as much again as the connect.
	f := os.NewFile(uintptr(fd), "tcp")
	w := waiter{ev: ev, v6: addr.Addr().Is6(), hasty: opts.hopLimit > 0}
	if err := w.await(ctx, f, fd); err != nil {
		_ = f.Close()
		ev.Errno = errnoName(err)
		return nil, ev, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return &conn{f: f, local: local, remote: addr}, ev, nil
}

// start opens a socket and sends the SYN. Its errors are the host's own.
func start(addr netip.AddrPort, opts ConnectOptions) (int, error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	// Raw and non-blocking, so that connect(2) returns what the host itself has to say at once.
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = prepare(fd, addr.Addr().Is6(), opts); err == nil {
		err = unix.Connect(fd, sockaddr(addr))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// prepare makes a socket as its options say, with an error queue.
func prepare(fd int, v6 bool, opts ConnectOptions) error {
	level, queue, limit := unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_TTL
	if v6 {
		level, queue, limit = unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_UNICAST_HOPS
	}
	err := unix.SetsockoptInt(fd, level, queue, 1)
	if err == nil && opts.MaxSegment > 0 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, opts.MaxSegment)
	}
	if err == nil && opts.hopLimit > 0 {
		err = unix.SetsockoptInt(fd, level, limit, opts.hopLimit)
	}
	if err == nil && opts.source.IsValid() {
		err = bindShared(fd, opts.source)
	}
	return err
}

// bindShared gives a socket an address that others that are bound so may have too.
func bindShared(fd int, addr netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.Bind(fd, sockaddr(addr))
}

// waiter is a connection that is being made.
type waiter struct {
	ev    *pb.Evidence
	v6    bool
	hasty bool          // An ICMP error decides, whatever the kernel makes of it.
	icmp  syscall.Errno // What the last ICMP error amounts to.
}

// await waits until the connection is made or refused.
func (w *waiter) await(ctx context.Context, f *os.File, fd int) error {
	// A neighbour answers before the first look.
	if state, err := tcpState(fd); err == nil && state == unix.BPF_TCP_ESTABLISHED {
		w.stopQueueing(fd)
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return localError{err}
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return localError{err}
		}
		defer func() { _ = f.SetWriteDeadline(time.Time{}) }()
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(aLongTimeAgo) })()
	var outcome error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, outcome = w.progress(int(fd))
		return done
	})
	switch {
	case err == nil:
		return outcome
	case w.icmp != 0 && !errors.Is(ctx.Err(), context.Canceled):
		return icmpError{w.icmp} // The kernel went on in spite of it, in vain.
	}
	return err
}

// progress says whether the handshake is over and how. The error queue is read first: reading
// SO_ERROR would clear what the kernel keeps beside it. The state of the connection then tells an
// ICMP error that ended it from one that it survived, which kernels treat differently.
func (w *waiter) progress(fd int) (done bool, err error) {
	queued := readErrorQueue(fd, w.ev)
	if queued != 0 {
		w.icmp = queued
		if w.hasty {
			return true, icmpError{queued}
		}
	}
	state, err := tcpState(fd)
	if err != nil {
		return true, localError{err}
	}
	switch state {
	case unix.BPF_TCP_SYN_SENT, unix.BPF_TCP_SYN_RECV:
		return false, nil
	case unix.BPF_TCP_CLOSE:
		return true, w.end(fd, queued)
	}
	w.stopQueueing(fd)
	return true, nil
}

// tcpState returns the state of a socket's connection.
func tcpState(fd int) (uint8, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	return info.State, nil
}

// end says why the connection was not made.
func (w *waiter) end(fd int, queued syscall.Errno) error {
	if queued == 0 { // It may have come after the queue was read, and before the state was.
		if queued = readErrorQueue(fd, w.ev); queued != 0 {
			w.icmp = queued
		}
	}
	number, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return localError{err}
	}
	switch soError := syscall.Errno(number); {
	case queued != 0, w.icmp != 0 && (soError == 0 || soError == w.icmp):
		// The kernel queues an ICMP error a moment before it ends the connection with it, so an
		// earlier call may have taken it from the queue.
		return icmpError{w.icmp}
	case soError != 0:
		return soError
	}
	return syscall.ECONNRESET // The peer came and went.
}

// stopQueueing turns the error queue off: a later ICMP error would make reads fail.
func (w *waiter) stopQueueing(fd int) {
	level, queue := unix.IPPROTO_IP, unix.IP_RECVERR
	if w.v6 {
		level, queue = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	_ = unix.SetsockoptInt(fd, level, queue, 0)
}

// readErrorQueue empties the socket's error queue and keeps the last ICMP error of it.
func readErrorQueue(fd int, ev *pb.Evidence) (last syscall.Errno) {
	var buf [64]byte  // The packet that it is about, of which the kernel has made what it could.
	var oob [128]byte // struct sock_extended_err and a sockaddr, at most 64 bytes with their header.
	for range 16 {    // More than that is a flood; the last one counts.
		_, n, _, _, err := unix.Recvmsg(fd, buf[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return last
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			continue
		}
		for _, m := range messages {
			if e, ok := parseExtendedError(m.Header.Level, m.Header.Type, m.Data); ok {
				ev.Icmp, last = e.icmp, e.errno
			}
		}
	}
	return last
}

// sockaddr turns an address into the kernel's form.
func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
}

// localAddress returns the socket's own address; it is not valid if there is none. Package unix would ask for the
// socket's protocol too.
func localAddress(fd int) netip.AddrPort {
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// askErrorQueue makes a UDP socket keep the ICMP errors that it gets.
func askErrorQueue(network, _ string, raw syscall.RawConn) error {
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); cerr != nil {
		return cerr
	}
	return err
}

// drainErrorQueue reads the ICMP error that made a UDP socket fail.
func drainErrorQueue(conn net.Conn, ev *pb.Evidence) {
	ev.ErrorQueue = true
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = readErrorQueue(int(fd), ev) })
		}
	}
}
