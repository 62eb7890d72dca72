package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// negotiate makes a handshake by hand as far as the end of the server's first flight.
func (h *shaker) negotiate(ctx context.Context, conn net.Conn, ev *pb.TLSEvidence) error {
	hello := h.offer.hello(h.sent())
	hello.ALPN = h.protocols()
	f, err := hail(ctx, conn, hello)
	if err == nil {
		err = h.offer.chosen(f)
	}
	h.note(ctx, f, ev)
	return err
}

// hail sends a hello and reads the flight that answers it, until ctx ends. The flight is never nil.
func hail(ctx context.Context, conn net.Conn, hello *flight.Hello) (*flight.Flight, error) {
	message, err := hello.Marshal()
	if err != nil {
		return &flight.Flight{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return &flight.Flight{}, err
		}
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(aLongTimeAgo) })()
	if _, err := conn.Write(message); err != nil {
		return &flight.Flight{}, err
	}
	return flight.Read(conn)
}

// note keeps what a flight shows, and judges the chain that is in it.
func (h *shaker) note(ctx context.Context, f *flight.Flight, ev *pb.TLSEvidence) {
	ev.NegotiationOnly = true
	ev.ClientCertificateRequested = f.Request != nil
	for _, a := range f.Alerts {
		ev.Alert = tlsAlert(a.Code)
	}
	if !f.Hello {
		return
	}
	ev.Version, ev.CipherSuite = flight.VersionName(f.Version), flight.SuiteName(f.Suite)
	ev.Alpn = clean(f.ALPN, 255)
	if f.Group != 0 {
		ev.Group = flight.GroupName(f.Group)
	}
	if f.Scheme != 0 {
		ev.SignatureScheme = flight.SchemeName(f.Scheme)
	}
	if len(f.Certificates) > 0 && f.Done {
		h.certificate = h.judged(ctx, servedChain{raw: f.Certificates, name: h.name, names: h.names, staple: f.Staple}, ev)
	}
	if f.Bits != 0 {
		h.add(fmt.Sprintf("the key exchange has %d bits", f.Bits))
	}
}

// add adds a sentence to the step's text.
func (s *step) add(text string) {
	s.see(func(e *pb.Evidence) {
		if e.GetText() != "" {
			text = e.GetText() + "; " + text
		}
		e.Text = clean(text, maxText)
	})
}

// canLook says whether a failure may be due to what crypto/tls lacks: it fails before anyone can see a
// certificate that it cannot parse, and does not speak all that servers do.
func canLook(f pb.Failure) bool {
	return isCertificate(f) || f == pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED ||
		f == pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER || f == pb.Failure_FAILURE_TLS_ALERT
}

// look makes a handshake by hand where crypto/tls failed with f, offering all that there is, to see what the
// server has. What the agent's library cannot do is not the target's failure: a server that ends its
// flight works, and only its certificates can be wrong. It returns the failure that is left.
func (h *shaker) look(ctx context.Context, f pb.Failure) pb.Failure {
	if h.looked || h.offer != nil || !canLook(f) || h.aim.role == pb.Role_ROLE_VARIANT {
		return f
	}
	h.looked = true
	text := h.pb.GetEvidence().GetText()
	for _, version := range []uint16{flight.TLS12, flight.TLS13, flight.SSL30} { // Some servers of SSL 3.0 bear its hello alone.
		seen := &flight.Flight{}
		h.attempt(ctx, func(ctx context.Context) (ended pb.Failure) {
			seen, ended = h.lookWith(ctx, version)
			return ended
		})
		if seen.Hello {
			return h.learn(ctx, f, seen)
		}
	}
	h.see(func(e *pb.Evidence) { e.Text = text }) // What the first attempts said.
	return f
}

// lookWith makes one handshake by hand.
func (h *shaker) lookWith(ctx context.Context, version uint16) (*flight.Flight, pb.Failure) {
	conn, f := h.dial(ctx, h.addr)
	if conn == nil {
		return &flight.Flight{}, f
	}
	defer func() { _ = conn.Close() }()
	attempt, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	counted := &countedConn{Conn: conn}
	seen, err := hail(attempt, counted, anything(version, h.sent()))
	h.see(func(e *pb.Evidence) { e.BytesRead += counted.read.Load() })
	if err != nil {
		f, _ = handshakeFailure(ctx, err, said{first: counted.first})
	}
	return seen, f
}

// anything offers all that there is up to a version; TLS 1.3 alone with that.
func anything(version uint16, name string) *flight.Hello {
	h := &flight.Hello{
		Version: version, Suites: flight.Suites(version), Groups: flight.Groups(), Schemes: flight.Schemes(),
		ServerName: name, Staple: true,
	}
	if version == flight.TLS13 {
		h.KeyShares = keyShares(h.Groups[0])
	}
	return h
}

// learn puts what the server would agree on into the evidence, in place of the handshake that failed with f.
func (h *shaker) learn(ctx context.Context, f pb.Failure, seen *flight.Flight) pb.Failure {
	old := h.pb.GetEvidence().GetTls()
	ev := &pb.TLSEvidence{ServerName: h.sent(), Alert: old.GetAlert(), HelloSize: old.GetHelloSize()}
	ours := ownLimit(f, seen)
	if ours {
		ev.Alert = nil
		h.see(func(e *pb.Evidence) { e.Text = "" })
	}
	h.note(ctx, seen, ev)
	h.add(fmt.Sprintf("the server would speak %s with %s", flight.VersionName(seen.Version), flight.SuiteName(seen.Suite)))
	h.see(func(e *pb.Evidence) { e.Tls = ev })
	switch {
	case ours && isCertificate(f):
		h.certificate = append(h.certificate, f) // end drops what is there twice.
		return pb.Failure_FAILURE_NONE
	case ours && seen.Version == flight.TLS13: // Its certificates are encrypted: nobody knows how they are.
		h.add("which this agent's library cannot complete")
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	case ours:
		h.add("which this agent's library cannot complete")
		return pb.Failure_FAILURE_NONE
	case seen.Version == flight.SSL30:
		return pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
	case bare(seen):
		h.add("which is without a certificate or without encryption")
	}
	return f
}

// ownLimit says whether a handshake that failed with f did so for what this agent's library lacks: the same
// server agrees to a hello that offers more.
func ownLimit(f pb.Failure, seen *flight.Flight) bool {
	switch {
	case !seen.Done || seen.Version < flight.TLS10 || bare(seen):
		return false
	case seen.Version == flight.TLS13 && isCertificate(f): // The library got as far as this by itself.
		return false
	}
	return f != pb.Failure_FAILURE_TLS_ALERT || beyond(seen) // An alert of another kind was about something else.
}

// bare says whether what was agreed on protects nobody: up to TLS 1.2 there are suites without a
// certificate, and without encryption. Ordinary clients offer neither.
func bare(f *flight.Flight) bool {
	return f.Version < flight.TLS13 && (len(f.Certificates) == 0 || strings.Contains(flight.SuiteName(f.Suite), "_NULL_"))
}

// beyond says whether crypto/tls lacks what was agreed on.
func beyond(f *flight.Flight) bool {
	return !slices.Contains(librarySuites(), f.Suite) || f.Group != 0 && !slices.Contains(libraryGroups, tls.CurveID(f.Group))
}
