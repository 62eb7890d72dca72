package cluster

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams bounds the connections that others have to here, and maxStream what is read of any, in bytes:
	// memberlist reads 20 MiB of everybody before it looks whether they have a key. The whole state of maxMembers is 45 KiB.
	maxStreams, maxStream = 32, 256 << 10
	// dialing is how long a connection to another may take: a round of joining has many to try.
	dialing = 3 * time.Second
)

// transport is memberlist's own, with bounds: of what comes in, and of how long it goes on when it shall end.
type transport struct {
	*memberlist.NetTransport
	ctx     context.Context // ends all connections
	streams chan net.Conn
	end     func() error

	ending, ended chan struct{} // Closed when Shutdown begins, and when nothing comes in any more.
}

// newTransport listens. It returns the port too, which is another than asked for where that is 0.
func newTransport(ctx context.Context, at netip.AddrPort, log *log.Logger) (*transport, uint16, error) {
	host := at.Addr().String()
	if at.Addr() == netip.IPv6Unspecified() {
		host = "" // the same, but where there is no IPv6 it is every address of IPv4
	}
	config := &memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: int(at.Port()), Logger: log}
	below, err := memberlist.NewNetTransport(config)
	// A port that is free for TCP may not be for UDP.
	for try := 0; err != nil && at.Port() == 0 && try < 10 && strings.Contains(err.Error(), "address already in use"); try++ {
		below, err = memberlist.NewNetTransport(config)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("gossip: cannot listen at %s: %w", at, err)
	}
	t := &transport{
		NetTransport: below, ctx: ctx, streams: make(chan net.Conn),
		ending: make(chan struct{}), ended: make(chan struct{}),
	}
	t.end = sync.OnceValue(func() error {
		close(t.ending)
		defer close(t.ended)
		return below.Shutdown()
	})
	go t.accept()
	return t, uint16(below.GetAutoBindPort()), nil
}

// StreamCh has the connections that others make.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// accept hands on connections, as many at a time as there may be.
func (t *transport) accept() {
	open := make(chan struct{}, maxStreams)
	for {
		select {
		case <-t.ending:
			t.drain()
			return
		case conn := <-t.NetTransport.StreamCh():
			select {
			case open <- struct{}{}:
			default:
				_ = conn.Close()
				continue
			}
			s := t.bound(conn, func() { <-open })
			select {
			case t.streams <- s:
			case <-t.ending:
				_ = s.Close()
			}
		}
	}
}

// drain takes what still comes in, so that Shutdown, which waits for it to be taken, can end.
func (t *transport) drain() {
	for {
		select {
		case <-t.ended:
			return
		case conn := <-t.NetTransport.StreamCh():
			_ = conn.Close()
		case <-t.PacketCh():
		}
	}
}

// DialAddressTimeout connects to another.
func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: min(timeout, dialing)}
	conn, err := dialer.DialContext(t.ctx, "tcp", to.Addr)
	if err != nil {
		return nil, err
	}
	return t.bound(conn, func() {}), nil
}

// Shutdown stops listening. Connections end with the context.
func (t *transport) Shutdown() error { return t.end() }

// bound is a connection that ends with the transport; closed is called once, when it does.
func (t *transport) bound(conn net.Conn, closed func()) net.Conn {
	s := &stream{Conn: conn, left: maxStream}
	s.close = sync.OnceValue(func() error {
		closed()
		return conn.Close()
	})
	s.forget = context.AfterFunc(t.ctx, func() { _ = s.close() })
	return s
}

// stream is a connection of which no more than so many bytes are read.
type stream struct {
	net.Conn
	left   int
	close  func() error
	forget func() bool
}

// Read reads while there may be more.
func (s *stream) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, fmt.Errorf("more than %d KiB", maxStream>>10)
	}
	n, err := s.Conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// Close closes the connection. It may be called again.
func (s *stream) Close() error {
	s.forget()
	return s.close()
}
