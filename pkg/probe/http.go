package probe

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// httpTimeout is the budget of one attempt, from the request to the end of the body.
const httpTimeout = 10 * time.Second

// leg is one exchange on the way to a page: whom to ask, what for, and why.
type leg struct {
	addr netip.AddrPort
	req  *request
	aim  aim
}

// greeting is the handshake that a leg needs.
func (l leg) greeting() greeting {
	g := greeting{addr: l.addr, name: l.req.name, alpn: l.req.alpn, aim: l.aim}
	l.req.client.introduce(&g)
	return g
}

// exchange is a step that is an exchange, while it is made.
type exchange struct {
	*step
	leg
	agreed   []string // The protocol that the first handshake agreed on, or nil.
	response *response
	first    pb.Failure // How the last exchange failed.
	failure  pb.Failure // How the step did.
}

// visit asks an address of the URL's host for the page, and follows redirects if the spec says so. The
// first exchange's step ends last: it tells how all of it went.
func (t *trace) visit(ctx context.Context, addr netip.AddrPort, req *request, spec *pb.HTTPSpec) {
	l := leg{addr: addr, req: req, aim: toTarget}
	conn, _ := t.approach(ctx, l)
	if conn == nil {
		return
	}
	x := t.exchange(ctx, conn, l)
	if x.failure == pb.Failure_FAILURE_NONE && spec.GetMaxRedirects() > 0 {
		x.failure = t.follow(ctx, x, spec.GetMaxRedirects())
	}
	failures := []pb.Failure{x.failure}
	if x.failure == pb.Failure_FAILURE_NONE {
		failures = x.expect(spec)
	}
	x.end(failures...)
}

// approach connects, and shakes hands if the URL says https. Nil: it failed, and how.
func (t *trace) approach(ctx context.Context, l leg) (net.Conn, pb.Failure) {
	conn, f := t.connect(ctx, l.addr, l.aim)
	if conn == nil || !l.req.secure() {
		return conn, f
	}
	secured, f := t.secure(ctx, conn, l.greeting())
	switch {
	case secured != nil:
		return secured, pb.Failure_FAILURE_NONE
	case f == pb.Failure_FAILURE_NONE: // What the server speaks, this agent's library cannot complete.
		s := t.open(&pb.Step{
			Kind: pb.StepKind_STEP_KIND_HTTP_EXCHANGE, Role: l.aim.role, Beside: l.aim.beside,
			Name: hostOf(l.req.host), Address: l.addr.String(),
		})
		f = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
		s.add("this agent's TLS library cannot complete the handshake that the server wants")
		s.end(f)
	}
	return nil, f
}

// exchange makes an exchange on a connection, and owns it. The second attempt opens one of its own. The
// step is not ended.
func (t *trace) exchange(ctx context.Context, conn net.Conn, l leg) *exchange {
	x := &exchange{leg: l, response: newResponse(l.req)}
	x.step = t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_HTTP_EXCHANGE, Role: l.aim.role, Beside: l.aim.beside,
		Name: hostOf(l.req.host), Address: l.addr.String(),
	})
	if p := protocol(conn); p != "" {
		x.agreed = []string{p}
	}
	x.failure = x.twice(ctx, t.controlsFor(ctx, x.step, l.addr.Addr()), func(ctx context.Context) pb.Failure {
		c := conn
		conn = nil // One connection for one attempt.
		if c == nil {
			var f pb.Failure
			if c, f = x.reconnect(ctx); c == nil {
				return instead(x.first, f)
			}
		}
		defer func() { _ = c.Close() }()
		x.first = x.ask(ctx, c)
		return x.first
	})
	if conn != nil { // There was no time for an attempt.
		_ = conn.Close()
	}
	return x
}

// reconnect opens a connection for the second attempt, as the first one was.
func (x *exchange) reconnect(ctx context.Context) (net.Conn, pb.Failure) {
	conn, f := x.dial(ctx, x.addr)
	if conn == nil || !x.req.secure() {
		return conn, f
	}
	g := x.greeting()
	g.alpn = x.agreed
	h := &shaker{step: x.step, greeting: g}
	attempt, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	counted := &countedConn{Conn: conn}
	secured := &securedConn{Conn: tls.Client(counted, h.config())}
	if err := secured.HandshakeContext(attempt); err != nil {
		x.say(err)
		_ = conn.Close()
		f, _ := handshakeFailure(ctx, err, said{first: counted.first, certAsked: h.certAsked})
		return nil, f
	}
	return secured, pb.Failure_FAILURE_NONE
}

// ask makes one exchange on a connection.
func (x *exchange) ask(ctx context.Context, conn net.Conn) pb.Failure {
	if err := conn.SetDeadline(time.Now().Add(x.req.client.patience(ctx))); err != nil {
		x.say(err)
		return exchangeFailure(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(aLongTimeAgo) })()
	counted := &countedConn{Conn: conn}
	response, err := converse(counted, protocol(conn), x.req)
	x.response = response
	x.say(err)
	x.see(func(e *pb.Evidence) {
		e.LocalAddress = conn.LocalAddr().String()
		e.BytesRead += counted.read.Load()
		e.Http = response.HTTPEvidence
	})
	return exchangeFailure(ctx, err)
}

// protocol is what a connection's handshake agreed on (RFC 7301). Empty: nothing.
func protocol(conn net.Conn) string {
	if c, ok := conn.(*securedConn); ok {
		return c.ConnectionState().NegotiatedProtocol
	}
	return ""
}
