package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// datagram is one message of a query over UDP, and hears what comes back. After the first reply it listens on
// for a while, beside the steps that follow, since a second reply to one query is worth a look: who
// forges answers races the server, and does not keep its answer back (RFC 5452, 3).
type datagram struct {
	asker  *asker
	query  *dns.Msg
	wire   []byte
	socket *socket
	sent   time.Time
	until  time.Time // When it stops to listen. Zero: there was no reply yet. The socket's lock guards it.
}

// overDatagrams asks over UDP, and over TCP if that brought nothing.
func (a *asker) overDatagrams(ctx context.Context) (*dns.Msg, pb.Failure) {
	defer a.leave()
	msg, f := a.overUDP(ctx)
	if msg == nil && f == pb.Failure_FAILURE_UNSPECIFIED {
		return a.unanswered(ctx)
	}
	return msg, f
}

// overUDP sends once a second and waits for a usable reply. FAILURE_UNSPECIFIED: there was none.
func (a *asker) overUDP(ctx context.Context) (*dns.Msg, pb.Failure) {
	for n := 1; n <= a.sends; n++ {
		if over(ctx) {
			return nil, pb.Failure_FAILURE_AGENT_DEADLINE
		}
		answered := a.failed != pb.Failure_FAILURE_UNSPECIFIED || a.unreachable > 0
		if n == controlSend || n == 2 && (answered || a.role == pb.Role_ROLE_PUBLIC) {
			a.t.dnsControls(ctx, a)
		}
		a.send(ctx, n)
		began, tries := time.Now(), len(a.pb.GetEvidence().GetTries())
		patience := time.Duration(n) * (time.Second + a.t.env.patience)
		if a.quick > 0 {
			patience = (a.quick + a.t.env.patience) * time.Duration(n) / time.Duration(a.sends)
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
			msg, done := a.take(ctx, r)
			if done || a.again {
				return msg, done
			}
		}
	}
}

// take judges one reply.
func (a *asker) take(ctx context.Context, r reply) (*dns.Msg, bool) {
	if r.err != nil {
		return nil, a.takeError(ctx, r.err)
	}
	// The reply belongs to the query. What is wrong with it is asked for once more, from another
	// socket: a resolver may have been busy, and a forger may have been faster.
	msg, f := r.msg, a.judge(r.msg, a.qtype)
	a.see(func(e *pb.Evidence) { e.Rtt = duration(r.rtt) })
	if r.plain {
		a.manner = mannerPlain
		a.say(a.withoutEDNS())
	}
	if msg.Truncated {
		var err error
		if msg, err = a.exchangeTCP(ctx, a.fallback()); err != nil {
			a.say(portless(err))
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
	second := a.failed != pb.Failure_FAILURE_UNSPECIFIED || a.quick > 0
	trouble := !r.plain && ednsTrouble(r.msg)
	a.again = trouble && a.quick > 0 && len(a.sent) < a.sends
	a.failed, a.edns = f, a.edns && !trouble
	return nil, second && !a.again
}

// takeError takes what came in place of a reply. Done: there will be none.
func (a *asker) takeError(ctx context.Context, err error) (done bool) {
	a.lastErr = err
	a.say(portless(err))
	f := queryFailure(ctx, a.server.Addr(), err)
	if f >= pb.Failure_FAILURE_DNS_NXDOMAIN && f != pb.Failure_FAILURE_DNS_UNREACHABLE { // Not the network's.
		return false
	}
	// An ICMP error may have been forged, or pass: only the second one ends the sends. Without the
	// address family there is nothing to wait for.
	a.unreachable++
	a.tried(f, time.Since(a.began))
	if a.quick > 0 && !a.thorough || settled(f) {
		a.failed = f
		return true
	}
	return false
}

// send sends the query for the nth time: first from a socket that is kept, if there are such, then from
// fresh ones.
func (a *asker) send(ctx context.Context, n int) {
	a.again = false
	a.t.mu.Lock()
	a.pb.Attempts++
	a.t.mu.Unlock()
	plain := !a.edns || n > ednsSends || a.thorough && n == a.sends
	l := &datagram{asker: a, query: a.message(!plain)}
	var err error
	if l.wire, err = l.query.Pack(); err != nil {
		a.offer(reply{err: localError{fmt.Errorf("pack the query: %w", err)}})
		return
	}
	if pool := a.t.env.Sockets; pool != nil && n == 1 && a.size() <= readSize && pool.admit(ctx, l) != nil {
		if l.write() == nil {
			return
		}
		l.socket.leave(l) // It has the error of an earlier query.
	}
	s, err := openSocket(ctx, a.server, 1)
	if err == nil {
		s.admit(l)
		a.t.readers.Go(func() { s.read(max(readSize, a.size())) })
		err = l.write()
	}
	if err != nil {
		a.offer(reply{err: err})
	}
}

// number gives the message another ID.
func (l *datagram) number(id uint16) {
	l.query.Id = id
	binary.BigEndian.PutUint16(l.wire, id)
}

// write sends the message.
func (l *datagram) write() error {
	a := l.asker
	a.sent = append(a.sent, l)
	a.see(func(e *pb.Evidence) { e.LocalAddress = l.socket.local })
	if _, err := l.socket.conn.Write(l.wire); err != nil {
		return localError{err}
	}
	return nil
}

// leave ends the query's listening: at once where there was no reply, after the window where there was.
func (a *asker) leave() {
	for _, l := range a.sent {
		if until := l.listens(); until.IsZero() {
			l.socket.leave(l)
		} else {
			l.socket.linger(until)
			a.t.lingers(l, until)
		}
	}
}

// listens returns when the datagram stops to listen, or zero if there was no reply.
func (l *datagram) listens() time.Time {
	l.socket.mu.Lock()
	defer l.socket.mu.Unlock()
	return l.until
}

// late says whether what comes now comes too late to be of interest. The socket's lock is held.
func (l *datagram) late(at time.Time) bool { return !l.until.IsZero() && !at.Before(l.until) }

// asks says whether a message has the question of this datagram, whatever its ID.
func (l *datagram) asks(wire []byte) bool {
	_, end, err := dns.UnpackDomainName(l.wire, 12)
	end += 4 // Type and class.
	return err == nil && len(wire) >= end && len(l.wire) >= end && bytes.EqualFold(wire[12:end], l.wire[12:end])
}

// heard takes a message. The first one that belongs to the query is what a stub resolver would have
// believed; the others are evidence.
func (l *datagram) heard(wire []byte, at time.Time) {
	a := l.asker
	a.t.guarded(func() {
		rtt := at.Sub(l.sent)
		msg, err := a.read(l.query, wire, "udp", rtt)
		l.socket.mu.Lock()
		answered := !l.until.IsZero()
		if !answered && err == nil {
			l.until = at.Add(lateWindow)
		}
		l.socket.mu.Unlock()
		if !answered {
			a.offer(reply{msg: msg, rtt: rtt, plain: l.query.IsEdns0() == nil, err: err})
		}
	})
}

// failed takes an ICMP error.
func (l *datagram) failed(err error, ev *pb.Evidence) {
	l.asker.see(func(e *pb.Evidence) { e.Errno, e.Icmp, e.ErrorQueue = ev.GetErrno(), ev.GetIcmp(), ev.GetErrorQueue() })
	l.asker.offer(reply{err: err})
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
