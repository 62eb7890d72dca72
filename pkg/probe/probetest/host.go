// Package probetest is an honest little internet on loopback, for tests and for the demo: DNS servers
// with zones, hosts that accept or refuse or say nothing, certificates good and bad. Its faults are
// made by the kernel and by real servers; nothing is simulated. Listen and Close are all there is to
// each of them.
package probetest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

// Behaviour is what a host does with a connection.
type Behaviour int

// The ways to behave.
const (
	Accept      Behaviour = iota // Accepts and says nothing until the other end closes.
	Banner                       // Accepts and greets, as SSH does.
	Reset                        // Accepts and resets at once.
	CloseAtOnce                  // Accepts and closes at once.
	HangUp                       // Accepts, reads something, and closes.
	Abort                        // Accepts, reads something, and resets.
)

// Host is a TCP server on loopback.
type Host struct {
	addr    netip.AddrPort
	close   func() error
	stopped sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Addr returns the host's address and port.
func (h *Host) Addr() netip.AddrPort { return h.addr }

// Close stops the host and ends its connections.
func (h *Host) Close() error {
	err := h.close()
	h.mu.Lock()
	for c := range h.conns {
		_ = c.Close()
	}
	h.mu.Unlock()
	h.stopped.Wait()
	return err
}

// Listen starts a host on an address; port 0 takes a free one.
func Listen(at netip.AddrPort, b Behaviour) (*Host, error) {
	return serve(at, b.serve)
}

// ListenSaying starts a host that reads something, answers with these bytes whatever was asked, and
// reads on until the other end closes.
func ListenSaying(at netip.AddrPort, answer []byte) (*Host, error) {
	return serve(at, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 8192))
		_, _ = c.Write(answer)
		drain(c)
	})
}

// ListenGreeting starts a host that says these bytes without being asked and closes.
func ListenGreeting(at netip.AddrPort, greeting []byte) (*Host, error) {
	return serve(at, func(c net.Conn) { _, _ = c.Write(greeting) })
}

// ListenTLS starts a host that shakes hands, and then reads until the other end closes.
func ListenTLS(at netip.AddrPort, config *tls.Config) (*Host, error) {
	return serve(at, func(c net.Conn) {
		conn := tls.Server(c, config)
		if conn.HandshakeContext(context.Background()) == nil {
			drain(conn)
		}
	})
}

// ListenFunc starts a host that does with each connection what handle does; it is closed after that.
func ListenFunc(at netip.AddrPort, handle func(net.Conn)) (*Host, error) { return serve(at, handle) }

// serve runs a TCP server that handles each connection on its own.
func serve(at netip.AddrPort, handle func(net.Conn)) (*Host, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return serveOn(l, handle), nil
}

// serveOn does so at a listener.
func serveOn(l net.Listener, handle func(net.Conn)) *Host {
	h := &Host{addr: l.Addr().(*net.TCPAddr).AddrPort(), close: l.Close, conns: map[net.Conn]bool{}}
	h.stopped.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.keep(c, true)
			h.stopped.Go(func() {
				defer h.keep(c, false)
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	return h
}

// keep remembers a connection, so that Close can end it, or forgets it.
func (h *Host) keep(c net.Conn, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if open {
		h.conns[c] = true
	} else {
		delete(h.conns, c)
	}
}

func (b Behaviour) serve(c net.Conn) {
	switch b {
	case Banner:
		_, _ = c.Write([]byte("SSH-2.0-elsewhere\r\n"))
	case Reset:
		reset(c)
		return
	case CloseAtOnce:
		return
	case HangUp, Abort:
		_, _ = c.Read(make([]byte, 8192))
		if b == Abort {
			reset(c)
		}
		return
	case Accept:
	}
	drain(c)
}

// reset makes the coming Close send an RST.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// drain reads until the other end closes.
func drain(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}
