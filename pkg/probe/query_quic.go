package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// exchangeQUIC asks once over QUIC (RFC 9250): a connection, a stream, a query, a reply.
func (a *asker) exchangeQUIC(ctx context.Context) (*dns.Msg, error) {
	socket, err := dialUDP(ctx, a.server)
	if err != nil {
		return nil, err
	}
	a.see(func(e *pb.Evidence) { e.LocalAddress = socket.LocalAddr().String() })
	packets := &quicSocket{Conn: socket}
	defer func() { _ = packets.Close() }()
	transport := &quic.Transport{Conn: packets}
	defer func() { _ = transport.Close() }()
	conn, err := a.shakeQUIC(ctx, transport)
	if err != nil {
		if isTimeout(err) && packets.read.Load() > 0 { // It is there, and cannot agree.
			err = transportError{pb.Failure_FAILURE_DNS_TRANSPORT_QUIC, err}
		}
		return nil, a.quicError(packets, err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }() // DOQ_NO_ERROR (RFC 9250, 4.3).
	msg, err := a.converseQUIC(ctx, conn)
	return msg, a.quicError(packets, err)
}

// shakeQUIC opens a QUIC connection and judges the certificates.
func (a *asker) shakeQUIC(ctx context.Context, transport *quic.Transport) (*quic.Conn, error) {
	h := a.handshaker("doq")
	config := h.config()
	config.MinVersion = tls.VersionTLS13 // QUIC has no other (RFC 9001, 4.2).
	ev := &pb.TLSEvidence{ServerName: sni(h.name)}
	defer a.see(func(e *pb.Evidence) { e.Tls = ev })
	attempt, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := transport.Dial(attempt, net.UDPAddrFromAddrPort(a.server), config, &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 exchangeTimeout,
		MaxStreamReceiveWindow:         2 * dns.MaxMsgSize,
		MaxConnectionReceiveWindow:     2 * dns.MaxMsgSize,
		InitialStreamReceiveWindow:     2 * dns.MaxMsgSize,
		InitialConnectionReceiveWindow: 2 * dns.MaxMsgSize,
		MaxIncomingStreams:             -1, // A server has nothing to ask (RFC 9250, 4.2).
		MaxIncomingUniStreams:          -1,
	})
	if err != nil {
		return nil, err
	}
	h.examine(ctx, conn.ConnectionState().TLS, ev)
	return conn, nil
}

// converseQUIC sends the query over a stream of its own and reads the reply.
func (a *asker) converseQUIC(ctx context.Context, conn *quic.Conn) (*dns.Msg, error) {
	stream, err := conn.OpenStream()
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = stream.SetDeadline(aLongTimeAgo) })()
	if err := stream.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return nil, err
	}
	m := a.message(a.edns)
	began := time.Now()
	if err := writeMessage(stream, m); err != nil {
		return nil, err
	}
	// The end of the stream says that the query is complete (RFC 9250, 4.2).
	if err := stream.Close(); err != nil {
		return nil, err
	}
	wire, err := readMessage(stream)
	if err != nil {
		return nil, err
	}
	return a.replied(m, wire, "quic", time.Since(began))
}

// quicError says what an error of a QUIC connection means. Silence, an ICMP error, and a message that is
// none are not QUIC's own.
func (a *asker) quicError(packets *quicSocket, err error) error {
	var socket *net.OpError
	var fatal *quic.TransportError
	a.see(func(e *pb.Evidence) { e.BytesRead += int32(packets.read.Swap(0)) })
	switch {
	case err == nil, isLocal(err), isTimeout(err), errors.Is(err, errMismatch), errors.Is(err, errMalformed):
		return err
	case errors.As(err, &socket):
		a.see(func(e *pb.Evidence) {
			e.Errno = errnoName(err)
			drainErrorQueue(packets.Conn, e)
		})
		return err
	case errors.As(err, &fatal) && fatal.Remote && fatal.ErrorCode.IsCryptoError():
		alert := uint8(fatal.ErrorCode) // The low byte of the code (RFC 9001, 4.8).
		a.see(func(e *pb.Evidence) { e.GetTls().Alert = tlsAlert(alert) })
	}
	return transportError{pb.Failure_FAILURE_DNS_TRANSPORT_QUIC, err}
}

// quicSocket is a connected UDP socket, which gets nothing from other addresses and learns of ICMP errors,
// in the form that the library takes.
type quicSocket struct {
	net.Conn
	read atomic.Int64
}

// ReadFrom reads a packet of the server's.
func (s *quicSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	if s.read.Load() > maxHandshakeBytes {
		return 0, nil, errTooMuch
	}
	n, err := s.Read(p)
	s.read.Add(int64(n))
	return n, s.RemoteAddr(), err
}

// WriteTo sends a packet to the server, the only one that there is.
func (s *quicSocket) WriteTo(p []byte, _ net.Addr) (int, error) { return s.Write(p) }

// SetReadBuffer leaves the buffer as it is: the library would ask for megabytes, and log that it got less.
func (s *quicSocket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer leaves the buffer as it is.
func (s *quicSocket) SetWriteBuffer(int) error { return nil }
