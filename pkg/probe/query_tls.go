package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// A server that is asked over TLS shows a certificate. What is wrong with it is a failure of the query,
// but does not stop it: what the server would have answered is a fact too, and whoever looks can tell an
// expired certificate from somebody on the way.

// exchangeTLS asks once over TLS (RFC 7858).
func (a *asker) exchangeTLS(ctx context.Context) (*dns.Msg, error) {
	conn, err := a.secure(ctx, "dot")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	msg, err := a.converse(ctx, conn, "tls")
	return msg, a.lastAlert(err)
}

// lastAlert is an error on a connection after the handshake: in TLS 1.3 a server says only then that it
// wants a certificate (RFC 8446, 4.4.2.4).
func (a *asker) lastAlert(err error) error {
	alert, ok := remoteAlert(err)
	if !ok {
		return err
	}
	a.see(func(e *pb.Evidence) { e.GetTls().Alert = tlsAlert(alert) })
	return transportError{
		pb.Failure_FAILURE_DNS_TRANSPORT_TLS, fmt.Errorf("%s: %w", Short(alertFailure(alert, a.shaker.certAsked)), err),
	}
}

// secure opens a connection and shakes hands on it.
func (a *asker) secure(ctx context.Context, alpn string) (*tls.Conn, error) {
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := a.connect(connecting)
	if err != nil {
		return nil, err
	}
	h := a.handshaker(alpn)
	if f := h.shake(ctx, raw); f != pb.Failure_FAILURE_NONE {
		_ = raw.Close()
		return nil, transportError{pb.Failure_FAILURE_DNS_TRANSPORT_TLS, h.failed(f)}
	}
	return h.secured.Conn, nil
}

// handshaker returns what shakes hands with the server: the same one for both attempts, since the second
// may do without ALPN.
func (a *asker) handshaker(alpn string) *shaker {
	if a.shaker == nil {
		a.shaker = &shaker{
			step: a.step, greeting: greeting{addr: a.server, name: a.tlsName(), alpn: []string{alpn}}, leavesWord: true,
		}
	}
	return a.shaker
}

// failed says how a handshake failed, in the words of the evidence.
func (h *shaker) failed(f pb.Failure) error {
	text := ""
	h.see(func(e *pb.Evidence) { text = e.GetText() })
	return fmt.Errorf("%s: %s", Short(f), text)
}

// tlsName is the name that the server's certificate must be valid for: as the spec says, or else the server
// as it was named.
func (a *asker) tlsName() string {
	for _, name := range []string{a.opts.GetTlsHostname(), a.serverName} {
		if ip, err := netip.ParseAddr(name); err == nil {
			return ip.Unmap().String()
		}
		if name != "" {
			return canonical(name)
		}
	}
	return a.server.Addr().Unmap().String()
}

// carried is what was wrong with the certificates of the transport, which are in the evidence.
func (a *asker) carried() []pb.Failure {
	if a.shaker == nil || len(a.shaker.certificate) == 0 {
		return nil
	}
	text := "the server's certificate:"
	for _, f := range a.shaker.certificate {
		text += " " + Short(f)
	}
	a.see(func(e *pb.Evidence) {
		if e.GetText() != "" {
			text += "; " + e.GetText()
		}
	})
	a.say(errors.New(text))
	return []pb.Failure{pb.Failure_FAILURE_DNS_TRANSPORT_TLS}
}
