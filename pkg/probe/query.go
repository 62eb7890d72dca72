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
	maxReplies  = 16   // Kept of one query.
	readSize    = 4096 // A server that heeds the size that is asked for by default never fills it.
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
	msg   *dns.Msg
	rtt   time.Duration
	plain bool // The query was without EDNS.
	err   error
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
	shaker      *shaker  // Shakes hands, for the transports over TLS. Its certificate failures stop nothing.
}

// ask asks a question as the options say: over UDP, up to five times in five seconds, each time from a
// fresh socket, then over TCP; or over one of the other transports alone. A reply that is a failure is
// asked for once more, at least a second later.
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
	var msg *dns.Msg
	var f pb.Failure
	if q.opts.GetTransport() == pb.Transport_TRANSPORT_UNSPECIFIED {
		msg, f = a.overDatagrams(ctx)
	} else {
		msg, f = a.overConnection(ctx)
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
	a.end(append([]pb.Failure{f}, a.carried()...)...)
	return out
}

// overDatagrams asks over UDP, and over TCP if that brought nothing.
func (a *asker) overDatagrams(ctx context.Context) (*dns.Msg, pb.Failure) {
	// asking ends with the query: the sockets that wait for a reply need not go on. A socket that has
	// one is bound to ctx alone.
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	msg, f := a.overUDP(ctx, asking)
	if msg == nil && f == pb.Failure_FAILURE_UNSPECIFIED {
		return a.unanswered(ctx)
	}
	return msg, f
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
		if f := queryFailure(ctx, a.server.Addr(), r.err); f == pb.Failure_FAILURE_DNS_UNREACHABLE || f == pb.Failure_FAILURE_AGENT_NO_EGRESS {
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
	if r.plain {
		a.say(a.withoutEDNS())
	}
	if msg.Truncated {
		var err error
		if msg, err = a.exchangeTCP(ctx, a.fallback()); err != nil {
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
	buf := make([]byte, max(readSize, a.size()))
	answered := false
	for range 64 { // A server that floods must not keep the probe busy.
		n, err := conn.Read(buf)
		if err != nil {
			a.unread(conn, err, answered)
			return
		}
		msg, err := a.read(m, buf[:n], "udp", time.Since(sent))
		if answered {
			continue // Evidence only: the first reply is what a stub resolver would have believed.
		}
		if err == nil {
			answered = true
			if stop() { // Not over yet: this socket alone goes on reading.
				_ = conn.SetReadDeadline(time.Now().Add(lateWindow))
			}
		}
		a.offer(reply{msg: msg, rtt: time.Since(sent), plain: m.IsEdns0() == nil, err: err})
	}
}

// offer hands a reply over, unless there are too many already. Errors take half of the room at most.
func (a *asker) offer(r reply) {
	if r.err != nil && len(a.replies) >= cap(a.replies)/2 {
		return
	}
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
	conn, err := a.openSocket(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(wire); err != nil {
		_ = conn.Close()
		return nil, localError{err}
	}
	return conn, nil
}

// openSocket opens a UDP socket with a random port.
func (a *asker) openSocket(ctx context.Context) (net.Conn, error) {
	// Connected, so that the kernel drops what comes from other addresses and reports ICMP errors.
	dialer := net.Dialer{Control: askErrorQueue}
	conn, err := dialer.DialContext(ctx, "udp", a.server.String())
	if err != nil {
		return nil, localError{fmt.Errorf("open a socket to %s: %w", a.server, err)}
	}
	a.see(func(e *pb.Evidence) { e.LocalAddress = conn.LocalAddr().String() })
	return conn, nil
}

// read parses a message and adds it to the evidence. What does not belong to the query is evidence too,
// and returned as an error alone.
func (a *asker) read(query *dns.Msg, wire []byte, transport string, rtt time.Duration) (*dns.Msg, error) {
	msg, err := parseReply(query, wire)
	a.see(func(e *pb.Evidence) {
		e.BytesRead += int32(len(wire))
		kept := e.GetReplies()
		// Whoever floods with guesses must not keep the true reply out.
		if msg == nil || len(kept) >= maxReplies || err != nil && len(kept) >= maxReplies/2 {
			return
		}
		r := describe(msg, len(wire))
		r.Transport, r.Rtt, r.Mismatched = transport, duration(rtt), err != nil
		e.Replies = append(kept, r)
	})
	if err != nil {
		return nil, err
	}
	return msg, nil
}
