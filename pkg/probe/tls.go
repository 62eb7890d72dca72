package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
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
	addr    netip.AddrPort
	name    string   // Asked for, and compared with the certificate.
	names   []string // Compared with the certificate besides; they decide nothing.
	alias   string   // Asked for in place of name. Default: name is.
	mute    bool     // No name is asked for.
	alpn    []string // Offered (RFC 7301). Nil: none.
	precise bool     // The spec named what to offer in alpn.
	offer   *offer   // Nil: all that the agent can.
	client  *client  // Whom the agent comes in place of. Nil: nobody.
	aim     aim
}

// newGreeting reads what a spec wants of a handshake; its address is yet to come.
func newGreeting(spec *pb.TLSSpec) greeting {
	g := greeting{
		name: serverName(spec), mute: spec.GetNoServerName(), alpn: bothVersions, precise: len(spec.GetAlpn()) > 0,
		offer: readOffer(spec.GetOffer()), aim: toTarget,
	}
	if g.precise {
		g.alpn = spec.GetAlpn()
	}
	for _, n := range spec.GetNames() {
		g.names = append(g.names, canonical(n))
	}
	if p := spec.GetProfile(); p != nil {
		g.client = &client{offer: profileOffer(p, nil)}
	}
	return g
}

// sent returns the server_name that is sent, if any.
func (g *greeting) sent() string {
	switch {
	case g.mute:
		return ""
	case g.alias != "":
		return g.alias
	}
	return sni(g.name)
}

// handshake shakes hands on a connection and closes it.
func (t *trace) handshake(ctx context.Context, conn net.Conn, g greeting) pb.Failure {
	c, f := t.secure(ctx, conn, g)
	if c != nil {
		_ = c.Close()
	}
	return f
}

// secure shakes hands on a connection for what comes next, and owns it. The second attempt opens one of
// its own. Nil: no handshake was completed, and how it failed, or that it cannot be completed here and
// shows nothing wrong; what is wrong with the certificates does not stop one.
func (t *trace) secure(ctx context.Context, conn net.Conn, g greeting) (*securedConn, pb.Failure) {
	h := t.shaker(g)
	if f := h.offer.impossible(); f != nil {
		_ = conn.Close()
		h.say(f)
		h.end(pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)
		return nil, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	}
	var offered func() pb.Failure
	if g.client != nil {
		offered = h.meet(ctx)
	}
	controls := t.controlsFor(ctx, h.step, g.addr.Addr())
	beside := func() {
		controls()
		h.interfere(ctx)
	}
	// Certificate failures do not stop a handshake: it completes, and needs no second attempt.
	stopped := h.twice(ctx, beside, func(ctx context.Context) pb.Failure {
		if conn == nil {
			var f pb.Failure
			if conn, f = h.dial(ctx, g.addr); conn == nil {
				return instead(h.first, f)
			}
		}
		c := conn
		conn = nil // One connection for one attempt.
		h.first = h.shake(ctx, c)
		if isCertificate(h.first) {
			h.first = h.look(ctx, h.first)
		}
		return h.first
	})
	if conn != nil { // There was no time for an attempt.
		_ = conn.Close()
	}
	stopped = h.look(ctx, stopped)
	h.end(append([]pb.Failure{stopped}, h.certificate...)...)
	if offered != nil {
		stopped = h.compare(ctx, stopped, offered)
	}
	return h.secured, stopped
}

// shaker begins a handshake step.
func (t *trace) shaker(g greeting) *shaker {
	return &shaker{greeting: g, step: t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_TLS_HANDSHAKE, Role: g.aim.role, Beside: g.aim.beside,
		Name: g.sent(), Address: g.addr.String(),
	})}
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
	looked      bool // A handshake was made by hand.
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

// shake makes one handshake, by hand if the offer needs it, and closes the connection unless it is for
// what comes next.
func (h *shaker) shake(ctx context.Context, raw net.Conn) pb.Failure {
	attempt, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := &countedConn{Conn: raw}
	ev := &pb.TLSEvidence{ServerName: h.sent()}
	var err error
	if h.offer.handmade() {
		err = h.negotiate(attempt, conn, ev)
	} else {
		err = h.complete(attempt, conn, ev)
	}
	f := h.conclude(ctx, conn, ev, err)
	if h.secured == nil {
		_ = raw.Close()
	}
	return f
}

// complete makes a whole handshake. If a certificate cannot be parsed, crypto/tls fails before anyone can
// look at the chain.
func (h *shaker) complete(ctx context.Context, counted *countedConn, ev *pb.TLSEvidence) error {
	config := h.config()
	var shown *tls.ConnectionState // As soon as there is a chain: a server that then wants one too has shown its own.
	config.VerifyConnection = func(state tls.ConnectionState) error {
		shown = &state
		return nil
	}
	conn := &securedConn{Conn: tls.Client(counted, config)}
	began := time.Now()
	err := conn.HandshakeContext(ctx)
	ev.ClientCertificateRequested = h.certAsked
	if err != nil {
		if shown != nil {
			h.examine(ctx, *shown, ev)
		}
		return err
	}
	h.examine(ctx, conn.ConnectionState(), ev)
	if h.certAsked && !h.leavesWord {
		err = lastWord(ctx, conn, 2*time.Since(began)+h.t.env.patience)
	}
	if err == nil {
		h.secured = conn
	}
	return err
}

// conclude classifies how a handshake ended and keeps what it showed.
func (h *shaker) conclude(ctx context.Context, conn *countedConn, ev *pb.TLSEvidence, err error) pb.Failure {
	f := pb.Failure_FAILURE_NONE
	warning := firstWarning(conn.first)
	if err != nil {
		f, ev.Alert = handshakeFailure(ctx, err, said{first: conn.first, certAsked: h.certAsked})
		h.say(explain(f, err, conn.first))
		// A server that speaks neither HTTP is asked for no protocol the second time: what it does with
		// TLS is the question here.
		h.noALPN = !h.precise && ev.GetAlert().GetCode() == noApplicationProtocol
	}
	if ev.GetAlert() == nil && warning != nil {
		ev.Alert = tlsAlert(warning.Code)
	}
	ev.HelloSize = int32(conn.hello)
	h.see(func(e *pb.Evidence) {
		e.LocalAddress = conn.LocalAddr().String()
		e.BytesRead += conn.read.Load()
		e.Tls = ev
	})
	return f
}

// explain says what the server said in place of TLS, whoever read it.
func explain(f pb.Failure, err error, first []byte) error {
	if f == pb.Failure_FAILURE_TLS_NOT_TLS {
		return &flight.NotTLSError{First: first}
	}
	return err
}

// protocols are the application protocols that an attempt offers.
func (h *shaker) protocols() []string {
	if h.noALPN {
		return nil
	}
	return h.alpn
}

// librarySuites are all that crypto/tls has.
var librarySuites = sync.OnceValue(func() (ids []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
})

// config offers all that crypto/tls can, so that a server is judged by what it does and not by what
// the probe would like. Chains are judged by examine, all failures at once.
func (h *shaker) config() *tls.Config {
	c := &tls.Config{
		// No session cache: each handshake is a full one and shows the chain.
		ServerName:         h.sent(),
		InsecureSkipVerify: true, // The chain is analysed instead: see examine.
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       librarySuites(),
		NextProtos:         h.protocols(),
		Time:               h.t.now,
		// An empty certificate is an honest "none" and lets a server that only asks go on.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			h.certAsked = true
			return &tls.Certificate{}, nil
		},
	}
	h.offer.limit(c)
	return c
}

// examine notes what was agreed on and judges the chain.
func (h *shaker) examine(ctx context.Context, state tls.ConnectionState, ev *pb.TLSEvidence) {
	ev.Version, ev.CipherSuite = flight.VersionName(state.Version), flight.SuiteName(state.CipherSuite)
	ev.Alpn = clean(state.NegotiatedProtocol, 255)
	if state.CurveID != 0 {
		ev.Group = flight.GroupName(uint16(state.CurveID))
	}
	if scheme := peerScheme(state); scheme != 0 {
		ev.SignatureScheme = flight.SchemeName(scheme)
	}
	c := servedChain{name: h.name, names: h.names, staple: state.OCSPResponse}
	for _, cert := range state.PeerCertificates {
		c.raw = append(c.raw, cert.Raw)
	}
	h.certificate = h.judged(ctx, c, ev)
}

// peerScheme returns the scheme that the server signed with, or 0. crypto/tls knows it and exports it to
// its own tests alone.
func peerScheme(state tls.ConnectionState) uint16 {
	v := reflect.ValueOf(state).FieldByName("testingOnlyPeerSignatureAlgorithm")
	if v.Kind() != reflect.Uint16 {
		return 0
	}
	return uint16(v.Uint())
}

// judged judges a chain, notes all that is to be said about it, and returns what is wrong with it.
func (s *step) judged(ctx context.Context, c servedChain, ev *pb.TLSEvidence) []pb.Failure {
	ev.JudgedTime = timestamppb.New(s.t.now())
	ev.Roots = s.t.rootsName()
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

// maxFirst is how much of what a server says first is kept, in bytes.
const maxFirst = 64

// countedConn counts what is read and stops a server that sends too much. One reads and another one may
// write at the same time.
type countedConn struct {
	net.Conn
	read  atomic.Int32
	hello int    // What was written before anything was read.
	first []byte // What was read first.
}

func (c *countedConn) Read(p []byte) (int, error) {
	if c.read.Load() >= maxHandshakeBytes {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p)
	c.first = append(c.first, p[:min(n, maxFirst-len(c.first))]...)
	c.read.Add(int32(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.read.Load() == 0 {
		c.hello += n
	}
	return n, err
}

// rootsName says which roots trust is judged by.
func (t *trace) rootsName() string {
	name := bundleName()
	if len(t.env.Roots) > 0 {
		name += " + operator's"
	}
	if profileOf(t.job.GetSpec()).GetRoots() != "" {
		name += " + profile's"
	}
	return name
}
