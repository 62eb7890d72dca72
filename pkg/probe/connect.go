package probe

import (
	"context"
	"net"
	"net/netip"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// aLongTimeAgo is a deadline that makes what waits on a socket return now.
var aLongTimeAgo = time.Unix(1, 0)

// How long a tcp check watches an accepted connection for an RST or a FIN: about two round trips, and
// not less than a busy server takes to make up its mind.
const (
	minLinger   = 100 * time.Millisecond
	maxLinger   = 250 * time.Millisecond
	maxBanner   = 256  // Kept of what the server says first, in bytes.
	maxGreeting = 4096 // Read of it.
)

// knock connects to a target's address and watches what becomes of the connection.
func (t *trace) knock(ctx context.Context, addr netip.AddrPort) {
	s := t.open(connectStep(addr, pb.Role_ROLE_TARGET))
	if s.refused(addr, toConnect) {
		return
	}
	s.end(s.twice(ctx, t.controlsFor(ctx, s, addr.Addr()), func(ctx context.Context) pb.Failure {
		conn, f := s.dial(ctx, addr)
		if conn == nil {
			return f
		}
		defer abandon(conn)
		return s.linger(ctx, conn)
	}))
}

// aim is what steps are for, and the step that they stand beside, if any.
type aim struct {
	role   pb.Role
	beside *int32
}

// toTarget is the aim of what looks at the target itself.
var toTarget = aim{role: pb.Role_ROLE_TARGET}

// connect connects to an address for what comes next. Nil: it failed, and how.
func (t *trace) connect(ctx context.Context, addr netip.AddrPort, a aim) (net.Conn, pb.Failure) {
	p := connectStep(addr, a.role)
	p.Beside = a.beside
	s := t.open(p)
	if s.refused(addr, toConnect) {
		return nil, pb.Failure_FAILURE_AGENT_POLICY_DENIED
	}
	var conn net.Conn
	f := s.twice(ctx, t.controlsFor(ctx, s, addr.Addr()), func(ctx context.Context) (f pb.Failure) {
		conn, f = s.dial(ctx, addr)
		return f
	})
	s.end(f)
	return conn, f
}

// connectStep is a step for a connect to addr.
func connectStep(addr netip.AddrPort, role pb.Role) *pb.Step {
	return &pb.Step{Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: role, Address: addr.String()}
}

// refused ends a step that the operator's policy does not let begin. No socket was opened.
func (s *step) refused(addr netip.AddrPort, p purpose) bool {
	err := s.t.permit(addr, p)
	if err != nil {
		s.say(err)
		s.end(pb.Failure_FAILURE_AGENT_POLICY_DENIED)
	}
	return err != nil
}

// dial opens one connection.
func (s *step) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, pb.Failure) {
	return s.dialWith(ctx, addr, ConnectOptions{})
}

// dialWith opens one connection in another way than usual.
func (s *step) dialWith(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, pb.Failure) {
	// The attempt's own deadline means silence; the job's, in ctx, means that there was no more time.
	// connectFailure tells them apart.
	attempt, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	began := time.Now()
	conn, ev, err := s.t.env.connectWith(attempt, addr, opts)
	took := time.Since(began)
	s.see(func(e *pb.Evidence) {
		e.Errno, e.Icmp, e.ErrorQueue, e.LocalAddress = ev.GetErrno(), ev.GetIcmp(), ev.GetErrorQueue(), ev.GetLocalAddress()
		e.Text = clean(ev.GetText(), maxText)
		if err == nil {
			e.Rtt = duration(took)
		}
	})
	if err != nil {
		s.say(err)
		return nil, connectFailure(ctx, addr, ev, err)
	}
	return conn, pb.Failure_FAILURE_NONE
}

// abandon closes a connection on which nothing was sent, so that nothing is owed: with an RST, where that
// can be had. The address and port are free at once, instead of a minute later, and the other end has
// nothing to wait for.
func abandon(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// linger reads for a moment: an RST or FIN right after the connection was accepted is a way to be
// shut; silence and a banner are both as they should be, and so is what comes after a banner.
func (s *step) linger(ctx context.Context, conn net.Conn) pb.Failure {
	rtt := s.pb.GetEvidence().GetRtt().AsDuration()
	until := time.Now().Add(min(max(2*rtt, minLinger), maxLinger) + s.t.env.patience)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	if err := conn.SetReadDeadline(until); err != nil {
		s.say(err)
		return pb.Failure_FAILURE_AGENT_INTERNAL
	}
	banner := make([]byte, maxBanner)
	n, err := conn.Read(banner)
	if n > 0 {
		more := n
		if n == maxBanner { // How much there is to read is worth knowing, and no more than that.
			rest, _ := conn.Read(make([]byte, maxGreeting-maxBanner))
			more += rest
		}
		s.see(func(e *pb.Evidence) {
			e.BytesRead += int32(more)
			e.Banner = banner[:n]
		})
	}
	if n > 0 || err == nil || isTimeout(err) {
		return pb.Failure_FAILURE_NONE
	}
	s.say(err)
	s.see(func(e *pb.Evidence) { e.Errno = errnoName(err) })
	return closedFailure(err, pb.Failure_FAILURE_TCP_RESET, pb.Failure_FAILURE_TCP_CLOSED_EARLY)
}
