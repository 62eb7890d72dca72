package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Budgets of a query (design.md, 4).
const (
	udpSends    = 5
	controlSend = 3 // The send that the controls run beside, when there is silence.
	ednsSends   = 3 // Later sends do without EDNS, which some middleboxes drop.
	lateWindow  = 250 * time.Millisecond
	tcpTimeout  = 3 * time.Second
	maxReplies  = 16 // Kept of one query.
)

// A query is the first thing that a censor, a tired resolver or a lossy path spoils, and each of them in
// its own way. So a query is sent from a fresh socket each time, with a random port and ID; all sockets
// are read until the query ends, for a late reply to an early send is as good as any; and what does not
// belong to a query is never taken for its answer.

// query is a question to one server.
type query struct {
	server netip.AddrPort
	name   string
	qtype  uint16
	role   pb.Role
	beside *int32
	sends  int             // 0: udpSends.
	enough <-chan struct{} // Closed when NODATA needs no second look. Nil: never.
	// opts are the options that the query is sent with: class, transport, flags. Nil: the defaults.
	opts    *pb.DNSSpec
	variant pb.Variant
	// serverName is the server's name, where it was named. Default: it is known by its address alone.
	serverName string
	// quick bounds a query that is sent once, or sends times: the first reply ends it, whatever it says, and
	// silence ends it after this long, without TCP. 0: it is asked with all patience.
	quick time.Duration
	// judge says what is wrong with a reply. Nil: replyFailure.
	judge func(m *dns.Msg, qtype uint16) pb.Failure
	// stranger: somebody on the network named the server, so that no exception of the policy holds for it.
	stranger bool
}

// answer is how a query ended.
type answer struct {
	step      *step
	failure   pb.Failure
	addresses []netip.Addr
	msg       *dns.Msg // The reply that decided, whatever it says. Nil: there was none.
}

// reply is what one send brought: a message that belongs to the query, or an error.
type reply struct {
	msg *dns.Msg
	rtt time.Duration
	err error
}

// asker is a query while it is asked.
type asker struct {
	query
	*step
	replies     chan reply
	failed      pb.Failure // How the last reply failed.
	lastErr     error      // Why there was no usable reply.
	unreachable int        // Sends that were answered by an error of the network.
	edns        bool
	last        *dns.Msg // The last reply that was judged.
}

// ask asks a question over UDP, up to five times in five seconds, each time from a fresh socket, then
// over TCP. A reply that is a failure is asked for once more, at least a second later.
func (t *trace) ask(ctx context.Context, q query) answer {
	switch {
	case q.sends == 0 && q.quick > 0:
		q.sends = 1
	case q.sends == 0:
		q.sends = udpSends
	}
	if q.judge == nil {
		q.judge = replyFailure
	}
	a := &asker{query: q, edns: true, replies: make(chan reply, 4*q.sends)}
	a.step = t.open(&pb.Step{
		Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: q.role, Name: q.name, Address: q.server.String(), Beside: q.beside,
		Type: dns.Type(q.qtype).String(), Variant: q.variant,
	})
	p := toQuery
	if q.stranger {
		p = toStranger
	}
	if a.refused(q.server, p) {
		return answer{step: a.step, failure: pb.Failure_FAILURE_AGENT_POLICY_DENIED}
	}
	// asking ends with the query: the sockets that wait for a reply need not go on. A socket that has
	// one is bound to ctx alone.
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	msg, f := a.overUDP(ctx, asking)
	if msg == nil && f == pb.Failure_FAILURE_UNSPECIFIED {
		msg, f = a.unanswered(ctx)
	}
	out := answer{step: a.step, failure: f, msg: a.last}
	if msg != nil && (a.qtype == dns.TypeA || a.qtype == dns.TypeAAAA) {
		out.addresses = addresses(msg)
		a.see(func(e *pb.Evidence) {
			for _, ip := range out.addresses[:min(len(out.addresses), maxRecords)] {
				e.Addresses = append(e.GetAddresses(), ip.String())
			}
		})
	}
	a.end(f)
	return out
}

// overUDP sends once a second and waits for a usable reply. FAILURE_UNSPECIFIED: there was none.
func (a *asker) overUDP(ctx, asking context.Context) (*dns.Msg, pb.Failure) {
	for n := 1; n <= a.sends; n++ {
		if over(ctx) {
			return nil, pb.Failure_FAILURE_AGENT_DEADLINE
		}
		answered := a.failed != pb.Failure_FAILURE_UNSPECIFIED || a.unreachable > 0
		if n == controlSend || n == 2 && answered {
			a.t.dnsControls(ctx, a)
		}
		a.t.mu.Lock()
		a.pb.Attempts++
		a.t.mu.Unlock()
		m := a.message(a.edns && n <= ednsSends)
		a.t.spawn(func() { a.send(ctx, asking, m) })
		began, tries := time.Now(), len(a.pb.GetEvidence().GetTries())
		patience := time.Duration(n) * time.Second
		if a.quick > 0 {
			patience = a.quick * time.Duration(n) / time.Duration(a.sends)
		}
		msg, done := a.wait(ctx, a.began.Add(patience))
		if done {
			return msg, a.failed
		}
		if tries == len(a.pb.GetEvidence().GetTries()) { // Nothing came.
			a.tried(pb.Failure_FAILURE_DNS_TIMEOUT, time.Since(began))
		}
		if a.unreachable >= 2 {
			break
		}
	}
	return nil, a.failed
}

// wait takes what comes until the time is over. Done: the query has ended, with a.failed.
func (a *asker) wait(ctx context.Context, until time.Time) (*dns.Msg, bool) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		var enough <-chan struct{} // Nil, which blocks for ever, unless there is NODATA to be content with.
		if a.failed == pb.Failure_FAILURE_DNS_NODATA {
			enough = a.enough
		}
		select {
		case <-timer.C:
			return nil, false
		case <-ctx.Done():
			a.failed = pb.Failure_FAILURE_AGENT_DEADLINE
			return nil, true
		case <-enough:
			return nil, true
		case r := <-a.replies:
			if msg, done := a.take(ctx, r); done {
				return msg, true
			}
		}
	}
}

// take judges one reply.
func (a *asker) take(ctx context.Context, r reply) (*dns.Msg, bool) {
	if r.err != nil {
		a.lastErr = r.err
		a.say(r.err)
		if f := queryFailure(ctx, r.err); f == pb.Failure_FAILURE_DNS_UNREACHABLE || f == pb.Failure_FAILURE_AGENT_NO_EGRESS {
			// It may have been forged, or pass: only the second one ends the sends.
			a.unreachable++
			a.tried(f, time.Since(a.began))
			if a.quick > 0 {
				a.failed = f
				return nil, true
			}
		}
		return nil, false
	}
	// The reply belongs to the query. What is wrong with it is asked for once more, from another
	// socket: a resolver may have been busy, and a forger may have been faster.
	msg, f := r.msg, a.judge(r.msg, a.qtype)
	a.see(func(e *pb.Evidence) { e.Rtt = duration(r.rtt) })
	if msg.Truncated {
		var err error
		if msg, err = a.exchangeTCP(ctx); err != nil {
			a.say(err)
			f = pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP
		} else {
			f = a.judge(msg, a.qtype)
		}
	}
	if msg != nil {
		a.last = msg
	}
	if f == pb.Failure_FAILURE_NONE {
		a.failed = f
		return msg, true
	}
	a.tried(f, time.Since(a.began))
	again := a.failed != pb.Failure_FAILURE_UNSPECIFIED || a.quick > 0
	a.failed = f
	// Servers that do not know EDNS say so by an error (RFC 6891, 7).
	a.edns = f != pb.Failure_FAILURE_DNS_FORMERR && f != pb.Failure_FAILURE_DNS_NOTIMP
	return nil, again
}

// replyFailure says what is wrong with a reply.
func replyFailure(m *dns.Msg, qtype uint16) pb.Failure {
	if f := rcodeFailure(m.Rcode); f != pb.Failure_FAILURE_NONE {
		return f
	}
	if !holds(m, qtype) {
		return pb.Failure_FAILURE_DNS_NODATA
	}
	return pb.Failure_FAILURE_NONE
}

// send sends a query from a fresh socket and reads replies until the query ends. After the first
// reply it reads on for a while, beside the steps that follow, since a second reply to one query is
// worth a look (domain.md, 5.2).
func (a *asker) send(ctx, asking context.Context, m *dns.Msg) {
	conn, err := a.openUDP(asking, m)
	if err != nil {
		a.offer(reply{err: err})
		return
	}
	defer func() { _ = conn.Close() }()
	sent := time.Now()
	expire := func() { _ = conn.SetReadDeadline(aLongTimeAgo) }
	defer context.AfterFunc(ctx, expire)()
	stop := context.AfterFunc(asking, expire)
	defer stop()
	buf := make([]byte, readSize)
	answered := false
	for range 64 { // A server that floods must not keep the probe busy.
		n, err := conn.Read(buf)
		if err != nil {
			a.unread(conn, err, answered)
			return
		}
		msg, err := parseReply(m, buf[:n])
		a.keep(msg, "udp", n, time.Since(sent))
		if answered {
			continue // Evidence only: the first reply is what a stub resolver would have believed.
		}
		if err == nil {
			answered = true
			if stop() { // Not over yet: this socket alone goes on reading.
				_ = conn.SetReadDeadline(time.Now().Add(lateWindow))
			}
		}
		a.offer(reply{msg: msg, rtt: time.Since(sent), err: err})
	}
}

// offer hands a reply over, unless there are too many already.
func (a *asker) offer(r reply) {
	select {
	case a.replies <- r:
	default:
	}
}

// unread deals with a read that failed: silence needs no word, an ICMP error does.
func (a *asker) unread(conn net.Conn, err error, answered bool) {
	if answered || isTimeout(err) {
		return
	}
	a.see(func(e *pb.Evidence) {
		e.Errno = errnoName(err)
		drainErrorQueue(conn, e)
	})
	a.offer(reply{err: err})
}

// openUDP opens a socket with a random port and sends the query.
func (a *asker) openUDP(ctx context.Context, m *dns.Msg) (net.Conn, error) {
	wire, err := m.Pack()
	if err != nil {
		return nil, localError{fmt.Errorf("pack the query: %w", err)}
	}
	// Connected, so that the kernel drops what comes from other addresses and reports ICMP errors.
	dialer := net.Dialer{Control: askErrorQueue}
	conn, err := dialer.DialContext(ctx, "udp", a.server.String())
	if err != nil {
		return nil, localError{err}
	}
	a.see(func(e *pb.Evidence) { e.LocalAddress = conn.LocalAddr().String() })
	if _, err := conn.Write(wire); err != nil {
		_ = conn.Close()
		return nil, localError{err}
	}
	return conn, nil
}

// keep adds a reply to the evidence.
func (a *asker) keep(m *dns.Msg, transport string, size int, rtt time.Duration) {
	a.see(func(e *pb.Evidence) {
		e.BytesRead += int32(size)
		if m == nil || len(e.GetReplies()) >= maxReplies {
			return
		}
		r := describe(m, size)
		r.Transport, r.Rtt = transport, duration(rtt)
		e.Replies = append(e.GetReplies(), r)
	})
}

// unanswered goes on after UDP was silent or unreachable. A quick query has no time to.
func (a *asker) unanswered(ctx context.Context) (*dns.Msg, pb.Failure) {
	switch {
	case a.quick == 0:
		return a.overTCP(ctx)
	case a.lastErr != nil:
		return nil, queryFailure(ctx, a.lastErr)
	}
	return nil, pb.Failure_FAILURE_DNS_TIMEOUT
}

// overTCP asks over TCP after UDP was silent or unreachable. That TCP is refused or closed too says
// nothing more than the silence did.
func (a *asker) overTCP(ctx context.Context) (*dns.Msg, pb.Failure) {
	msg, err := a.exchangeTCP(ctx)
	if err == nil {
		a.last = msg
		return msg, a.judge(msg, a.qtype)
	}
	a.say(err)
	switch {
	case over(ctx):
		return nil, pb.Failure_FAILURE_AGENT_DEADLINE
	case a.lastErr != nil: // What UDP brought says more: an ICMP error, or replies of somebody else.
		return nil, queryFailure(ctx, a.lastErr)
	case isLocal(err):
		return nil, pb.Failure_FAILURE_AGENT_NO_EGRESS
	}
	return nil, pb.Failure_FAILURE_DNS_TIMEOUT
}

// exchangeTCP asks once over TCP (RFC 7766).
func (a *asker) exchangeTCP(ctx context.Context) (*dns.Msg, error) {
	patience := tcpTimeout
	if a.quick > 0 {
		patience = a.quick
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	raw, _, err := a.t.env.connect(ctx, a.server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(aLongTimeAgo) })()
	m := a.message(true)
	conn := &dns.Conn{Conn: raw}
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	wire, err := conn.ReadMsgHeader(nil) // At most 64 KiB, the length field's range.
	if err != nil {
		return nil, err
	}
	msg, err := parseReply(m, wire)
	rtt := time.Since(began)
	a.keep(msg, "tcp", len(wire), rtt)
	a.see(func(e *pb.Evidence) { e.Rtt = duration(rtt) })
	return msg, err
}
