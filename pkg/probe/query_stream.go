package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// exchangeTimeout is the budget of a query and its reply over a connection, and over plain TCP that of the
// connect too.
const exchangeTimeout = 5 * time.Second

// overConnection asks over a connection, each time a fresh one: twice, if the first time failed, with the
// controls beside the second.
func (a *asker) overConnection(ctx context.Context) (msg *dns.Msg, f pb.Failure) {
	for n := 1; ; n++ {
		began := time.Now()
		f = a.attempt(ctx, func(ctx context.Context) (f pb.Failure) {
			msg, f = a.overOneConnection(ctx)
			return f
		})
		if settled(f) || n >= min(a.sends, 2) {
			return msg, f
		}
		if !wait(ctx, time.Until(began.Add(spacing))) {
			return msg, pb.Failure_FAILURE_AGENT_DEADLINE
		}
		a.t.dnsControls(ctx, a)
	}
}

// overOneConnection asks once.
func (a *asker) overOneConnection(ctx context.Context) (*dns.Msg, pb.Failure) {
	msg, err := a.exchange(ctx)
	if err != nil {
		a.say(err)
		return nil, queryFailure(ctx, a.server.Addr(), err)
	}
	if !a.edns {
		a.say(a.withoutEDNS())
	}
	a.last = msg
	f := a.judge(msg, a.qtype)
	a.edns = !ednsTrouble(msg)
	return msg, f
}

// exchange sends the query over a connection of its transport's kind and reads the reply. Any error but
// those of the reply itself, of the host and of time is a transportError, or one of the network.
func (a *asker) exchange(ctx context.Context) (*dns.Msg, error) {
	switch a.opts.GetTransport() {
	case pb.Transport_TRANSPORT_TLS:
		return a.exchangeTLS(ctx)
	case pb.Transport_TRANSPORT_HTTPS, pb.Transport_TRANSPORT_HTTPS_GET:
		return a.exchangeHTTPS(ctx)
	case pb.Transport_TRANSPORT_QUIC:
		return a.exchangeQUIC(ctx)
	case pb.Transport_TRANSPORT_UNSPECIFIED, pb.Transport_TRANSPORT_TCP:
	}
	return a.exchangeTCP(ctx, exchangeTimeout)
}

// unanswered goes on after UDP was silent or unreachable. A quick query has no time to, unless it is
// thorough.
func (a *asker) unanswered(ctx context.Context) (*dns.Msg, pb.Failure) {
	switch {
	case a.quick == 0, a.thorough:
		return a.overTCP(ctx)
	case a.lastErr != nil:
		return nil, queryFailure(ctx, a.server.Addr(), a.lastErr)
	}
	return nil, pb.Failure_FAILURE_DNS_TIMEOUT
}

// fallback is how long TCP may take in UDP's place.
func (a *asker) fallback() time.Duration {
	switch {
	case a.quick > 0:
		return a.quick
	case a.role == pb.Role_ROLE_PUBLIC:
		return publicTCP
	}
	return tcpTimeout
}

// overTCP asks over TCP after UDP was silent or unreachable. That TCP is refused or closed too says
// nothing more than the silence did.
func (a *asker) overTCP(ctx context.Context) (*dns.Msg, pb.Failure) {
	msg, err := a.exchangeTCP(ctx, a.fallback())
	if err == nil {
		a.last, a.manner = msg, mannerStream
		return msg, a.judge(msg, a.qtype)
	}
	a.say(portless(err))
	switch {
	case over(ctx):
		return nil, pb.Failure_FAILURE_AGENT_DEADLINE
	case a.lastErr != nil: // What UDP brought says more: an ICMP error, or replies of somebody else.
		return nil, queryFailure(ctx, a.server.Addr(), a.lastErr)
	case isLocal(err):
		return nil, pb.Failure_FAILURE_AGENT_NO_EGRESS
	}
	return nil, pb.Failure_FAILURE_DNS_TIMEOUT
}

// exchangeTCP asks once over TCP (RFC 7766).
func (a *asker) exchangeTCP(ctx context.Context, budget time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return a.converse(ctx, conn, "tcp")
}

// connect opens a TCP connection to the server and notes what the network said.
func (a *asker) connect(ctx context.Context) (net.Conn, error) {
	conn, ev, err := a.t.env.connect(ctx, a.server)
	// Behind a query over UDP the evidence is UDP's own.
	if a.opts.GetTransport() != pb.Transport_TRANSPORT_UNSPECIFIED {
		a.see(func(e *pb.Evidence) {
			e.Errno, e.Icmp, e.ErrorQueue, e.LocalAddress = ev.GetErrno(), ev.GetIcmp(), ev.GetErrorQueue(), ev.GetLocalAddress()
		})
	}
	return conn, err
}

// converse sends the query over an open stream and reads the reply. It ends with ctx.
func (a *asker) converse(ctx context.Context, conn net.Conn, transport string) (*dns.Msg, error) {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(aLongTimeAgo) })()
	m := a.message(a.edns)
	began := time.Now()
	if err := writeMessage(conn, m); err != nil {
		return nil, err
	}
	wire, err := readMessage(conn)
	if err != nil {
		a.see(func(e *pb.Evidence) { e.Errno = errnoName(err) })
		return nil, err
	}
	return a.replied(m, wire, transport, time.Since(began))
}

// replied takes the one reply that a connection brought.
func (a *asker) replied(m *dns.Msg, wire []byte, transport string, rtt time.Duration) (*dns.Msg, error) {
	a.see(func(e *pb.Evidence) { e.Rtt = duration(rtt) })
	return a.read(m, wire, transport, rtt)
}

// writeMessage writes a message with its length before it (RFC 1035, 4.2.2), both at once, since some
// servers take a segment for a message (RFC 7766, 8).
func writeMessage(w io.Writer, m *dns.Msg) error {
	wire, err := m.Pack()
	if err != nil {
		return localError{fmt.Errorf("pack the query: %w", err)}
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...))
	return err
}

// readMessage reads a message of at most 65,535 bytes, the length field's range.
func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, cutShort(err)
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(r, wire); err != nil {
		return nil, cutShort(err)
	}
	return wire, nil
}

// cutShort puts the end of a stream into words that say what it means here.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("closed before the reply was complete: %w", err)
	}
	return err
}
