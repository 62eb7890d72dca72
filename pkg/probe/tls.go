package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxHandshakeBytes bounds what a server may send in a handshake; crypto/tls bounds single messages only.
const maxHandshakeBytes = 1 << 20

// maxLastWord is how long a server that asked for a certificate is waited for to say that it needs one.
const maxLastWord = 2 * time.Second

// noApplicationProtocol is the alert of a server that knows none of the protocols offered (RFC 7301, 3.2).
const noApplicationProtocol = 120

var errTooMuch = errors.New("the server sent too much")

// serverName returns the name that a handshake asks for and that the certificate is compared with:
// a domain name, or an address, which is compared but not sent (RFC 6066, 3).
func serverName(spec *pb.TLSSpec) string {
	name := spec.GetServerName()
	if name == "" {
		name = spec.GetHost()
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().String()
	}
	return canonical(name)
}

// sni returns what is sent of a server's name.
func sni(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}

// greeting is a handshake that is to be made, and where.
type greeting struct {
	addr netip.AddrPort
	name string   // Asked for, and compared with the certificate.
	alpn []string // Offered (RFC 7301). Nil: none.
	aim  aim
}

// handshake shakes hands on a connection and closes it.
func (t *trace) handshake(ctx context.Context, conn net.Conn, addr netip.AddrPort, name string) {
	if c, _ := t.secure(ctx, conn, greeting{addr: addr, name: name, alpn: bothVersions, aim: toTarget}); c != nil {
		_ = c.Close()
	}
}

// secure shakes hands on a connection for what comes next, and owns it. The second attempt opens one of
// its own. Nil: no handshake was completed, and how it failed; what is wrong with the certificates does not
// stop one.
func (t *trace) secure(ctx context.Context, conn net.Conn, g greeting) (*securedConn, pb.Failure) {
	s := t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_TLS_HANDSHAKE, Role: g.aim.role, Beside: g.aim.beside,
		Name: sni(g.name), Address: g.addr.String(),
	})
	h := &shaker{step: s, greeting: g}
	// Certificate failures do not stop a handshake: it completes, and needs no second attempt.
	stopped := h.twice(ctx, t.controlsFor(ctx, s, g.addr.Addr()), func(ctx context.Context) pb.Failure {
		if conn == nil {
			var f pb.Failure
			if conn, f = s.dial(ctx, g.addr); conn == nil {
				return instead(h.first, f)
			}
		}
		c := conn
		conn = nil // One connection for one attempt.
		h.first = h.shake(ctx, c)
		if h.secured == nil {
			_ = c.Close()
		}
		return h.first
	})
	if conn != nil { // There was no time for an attempt.
		_ = conn.Close()
	}
	s.end(append([]pb.Failure{stopped}, h.certificate...)...)
	return h.secured, stopped
}

// shaker is a handshake step while it is made.
type shaker struct {
	*step
	greeting
	secured     *securedConn // The connection, if the handshake was completed.
	first       pb.Failure   // How the last handshake failed.
	certificate []pb.Failure // What is wrong with the certificates, if it completed.
	certAsked   bool
	noALPN      bool
	leavesWord  bool // Whoever reads the connection next hears the last word.
}

// securedConn is a connection with a completed handshake.
type securedConn struct {
	*tls.Conn
	early []byte // Read while the last word was waited for, and not yet by anyone else.
}

func (c *securedConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 && len(p) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// instead decides how a step ends if its second connection failed with f: as the first attempt did, unless
// the agent is to blame. The attempts keep both.
func instead(first, f pb.Failure) pb.Failure {
	if f < pb.Failure_FAILURE_DNS_NXDOMAIN || first == pb.Failure_FAILURE_UNSPECIFIED {
		return f
	}
	return first
}

// shake makes one handshake.
func (h *shaker) shake(ctx context.Context, raw net.Conn) pb.Failure {
	attempt, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	counted := &countedConn{Conn: raw}
	conn := &securedConn{Conn: tls.Client(counted, h.config())}
	ev := &pb.TLSEvidence{ServerName: sni(h.name)}
	began := time.Now()
	err := conn.HandshakeContext(attempt)
	// If a certificate cannot be parsed, crypto/tls fails before anyone can look at the chain.
	if err == nil {
		h.examine(ctx, conn.ConnectionState(), ev)
		if h.certAsked && !h.leavesWord {
			err = lastWord(attempt, conn, 2*time.Since(began)+h.t.env.patience)
		}
	}
	f := pb.Failure_FAILURE_NONE
	if err == nil {
		h.secured = conn
	} else {
		f, ev.Alert = handshakeFailure(ctx, err, h.certAsked)
		h.say(explain(err))
		// A server that speaks neither HTTP is asked for no protocol the second time: what it does with
		// TLS is the question here.
		h.noALPN = ev.GetAlert().GetCode() == noApplicationProtocol
	}
	h.see(func(e *pb.Evidence) {
		e.LocalAddress = raw.LocalAddr().String()
		e.BytesRead += int32(counted.read)
		e.Tls = ev
	})
	return f
}

// explain adds what the server said in place of TLS.
func explain(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		return fmt.Errorf("%w: it begins with %q", err, header.RecordHeader[:])
	}
	return err
}

// config offers all that crypto/tls can, so that a server is judged by what it does and not by what
// the probe would like. Chains are judged by examine, all failures at once.
func (h *shaker) config() *tls.Config {
	// No session cache: each handshake is a full one and shows the chain.
	var suites []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		suites = append(suites, s.ID)
	}
	protocols := h.alpn
	if h.noALPN {
		protocols = nil
	}
	return &tls.Config{
		ServerName:         sni(h.name),
		InsecureSkipVerify: true, // The chain is analysed instead: see examine.
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       suites,
		NextProtos:         protocols,
		Time:               h.t.now,
		// An empty certificate is an honest "none" and lets a server that only asks go on.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			h.certAsked = true
			return &tls.Certificate{}, nil
		},
	}
}

// examine notes what was agreed on and judges the chain.
func (h *shaker) examine(ctx context.Context, state tls.ConnectionState, ev *pb.TLSEvidence) {
	ev.Version = tls.VersionName(state.Version)
	ev.CipherSuite = tls.CipherSuiteName(state.CipherSuite)
	ev.Alpn = clean(state.NegotiatedProtocol, 255)
	c := servedChain{name: h.name, staple: state.OCSPResponse}
	for _, cert := range state.PeerCertificates {
		c.raw = append(c.raw, cert.Raw)
	}
	h.certificate = h.judged(ctx, c, ev)
}

// judged judges a chain, notes all that is to be said about it, and returns what is wrong with it.
func (s *step) judged(ctx context.Context, c servedChain, ev *pb.TLSEvidence) []pb.Failure {
	ev.JudgedTime = timestamppb.New(s.t.now())
	ev.Roots = rootsName(s.t.env.Roots)
	x := s.t.certificates(ctx, c)
	ev.Chain, ev.Served, ev.ChainAnalysis, ev.Names, ev.Ocsp = x.chain, x.served, x.analysis, x.names, x.ocsp
	if x.text != "" {
		s.say(errors.New(x.text))
	}
	return x.failures
}

// lastWord waits for the alert of a server that wanted a certificate: in TLS 1.3 it comes after the
// handshake is complete for the client (RFC 8446, 4.4.2.4). Silence and data are both consent.
func lastWord(ctx context.Context, conn *securedConn, patience time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(min(max(patience, minLinger), maxLastWord))); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(aLongTimeAgo) })
	word := make([]byte, 1)
	n, err := conn.Conn.Read(word)
	conn.early = word[:n]
	if _, alert := remoteAlert(err); alert {
		stop()
		return err
	}
	if stop() {
		return conn.SetReadDeadline(time.Time{})
	}
	return nil // There is no time left for anything else.
}

// bothVersions are the protocols of HTTP over TLS, the newer one first.
var bothVersions = []string{"h2", "http/1.1"}

// countedConn counts what is read and stops a server that sends too much.
type countedConn struct {
	net.Conn
	read int
}

func (c *countedConn) Read(p []byte) (int, error) {
	if c.read >= maxHandshakeBytes {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}

// rootsName says which roots trust is judged by.
func rootsName(extra []*x509.Certificate) string {
	if len(extra) > 0 {
		return bundleName() + " + operator's"
	}
	return bundleName()
}
