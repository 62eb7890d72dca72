package probe

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a trace. A try waits for less than a second, for then the kernel would repeat the SYN.
const (
	maxHops      = 30
	maxTries     = 3
	maxSilent    = 5 // Hops beyond the last one that answered, in the first round.
	lateSilent   = 2 // The same in the later ones.
	traceTimeout = 12 * time.Second
	synInterval  = 50 * time.Millisecond
	minHopWait   = 300 * time.Millisecond
	maxHopWait   = 900 * time.Millisecond
)

// A trace finds out where a path ends by connects whose TTL is too small: the router where it runs out says
// so. All of them have one five-tuple, so that routers that spread flows over several ways send them all the
// same way; hence one is under way at a time.

// tracer is a trace to one port of an address.
type tracer struct {
	*step
	addr    netip.AddrPort
	source  netip.AddrPort
	pace    *rate.Limiter
	hops    []*pb.Hop
	end     int           // The TTL of the hop where the path ends. 0: not found.
	final   hopAnswer     // What ends the path: the target, or who rejects.
	longest time.Duration // The longest round trip so far.
	trouble pb.Failure    // What of the agent's own stopped the trace.
	cut     bool          // There was no more time.
}

// hopAnswer is what a connect brought. Its zero value is silence.
type hopAnswer struct {
	from     netip.Addr
	rtt      time.Duration
	icmp     *pb.ICMP
	accepted bool // The target sent SYN-ACK, and not RST.
}

// followPath traces the path to a target's port. If that does not get through, the path to another port of
// the same address is traced beside it: what stops the one and not the other is a rule about ports.
func (t *trace) followPath(ctx context.Context, addr netip.AddrPort) {
	first := t.newTracer(addr, &pb.Step{Role: pb.Role_ROLE_TARGET})
	if !first.may() {
		return
	}
	other := make(chan *tracer, 1)
	first.trace(ctx, func() {
		if first.final.accepted || first.trouble != pb.Failure_FAILURE_NONE {
			close(other)
			return
		}
		t.spawn(func() {
			defer close(other)
			second := t.newTracer(netip.AddrPortFrom(addr.Addr(), otherPort(addr.Port())), &pb.Step{
				Role: pb.Role_ROLE_VARIANT, Variant: pb.Variant_VARIANT_OTHER_PORT, Beside: &first.index,
			})
			if second.may() {
				second.trace(ctx, func() {})
				second.conclude()
				other <- second
			}
		})
	})
	first.conclude()
	if second := <-other; second != nil && first.trouble == pb.Failure_FAILURE_NONE && second.trouble == pb.Failure_FAILURE_NONE {
		first.see(func(e *pb.Evidence) { e.Text = clean(first.sentence(second), maxText) })
	}
}

// otherPort is a port that is likely to be treated otherwise.
func otherPort(port uint16) uint16 {
	if port == 443 {
		return 80
	}
	return 443
}

// newTracer opens the step of a trace.
func (t *trace) newTracer(addr netip.AddrPort, p *pb.Step) *tracer {
	p.Kind, p.Address = pb.StepKind_STEP_KIND_PATH_TRACE, addr.String()
	return &tracer{
		step: t.open(p), addr: addr,
		pace: rate.NewLimiter(rate.Every(synInterval), 1), trouble: pb.Failure_FAILURE_NONE,
	}
}

// may ends the step of a trace that cannot be made.
func (r *tracer) may() bool {
	if r.refused(r.addr, toConnect) {
		return false
	}
	if !canTrace || r.t.env.Connect != nil { // Its network is not the kernel's.
		r.say(errors.New("connects cannot have a limited TTL here, or their answers cannot be read"))
		r.step.end(pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)
		return false
	}
	return true
}

// trace sends connects with every TTL as far as the path goes, and calls looked when it is known whether the
// target answers at all.
func (r *tracer) trace(ctx context.Context, looked func()) {
	source, release, err := sourcePort(r.addr.Addr())
	if err != nil {
		r.trouble = localFailure(r.addr.Addr(), err)
		r.say(err)
		looked()
		return
	}
	defer release()
	r.source = source
	ctx, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	for range 2 { // With the TTL of any other connect.
		r.final = r.connect(ctx, 0, maxHopWait)
		if r.final.from.IsValid() || r.stopped(ctx) {
			break
		}
	}
	if timeExceeded(r.final.icmp, r.addr.Addr().Is6()) { // The path goes in circles: nobody ends it.
		r.final = hopAnswer{}
	}
	looked()
	for round := 1; round <= maxTries; round++ {
		r.walk(ctx, round)
	}
}

// walk tries each hop that has not answered yet and was tried less often than there were rounds, as far as
// the path is worth following.
func (r *tracer) walk(ctx context.Context, round int) {
	for ttl := 1; ttl <= r.limit(round) && !r.stopped(ctx); ttl++ {
		if len(r.hops) < ttl {
			r.hops = append(r.hops, &pb.Hop{Ttl: uint32(ttl)})
		}
		hop := r.hops[ttl-1]
		if hop.GetAddress() != "" || int(hop.GetTries()) >= round {
			continue
		}
		hop.Tries++
		a := r.connect(ctx, ttl, r.patience(round))
		if !a.from.IsValid() {
			continue
		}
		hop.Address, hop.Rtt, hop.Icmp = a.from.String(), duration(a.rtt), a.icmp
		if !timeExceeded(a.icmp, r.addr.Addr().Is6()) {
			r.end, r.final, r.hops = ttl, a, r.hops[:ttl]
		}
	}
}

// limit is the last hop that is worth trying. Silence in between is nothing special when the end is known to
// answer; otherwise a few silent hops are enough.
func (r *tracer) limit(round int) int {
	silent := maxSilent
	if round > 1 {
		silent = lateSilent
	}
	switch {
	case r.end > 0:
		return r.end
	case r.final.from.IsValid():
		return maxHops
	}
	return min(int(r.lastHop())+silent, maxHops)
}

// lastHop is the TTL of the last hop that answered.
func (r *tracer) lastHop() (last uint32) {
	for _, h := range r.hops {
		if h.GetAddress() != "" {
			last = h.GetTtl()
		}
	}
	return last
}

// patience is how long a hop's answer is waited for: longer in later rounds, and a few times as long as any
// other has needed.
func (r *tracer) patience(round int) time.Duration {
	return min(max(3*r.longest, minHopWait)*time.Duration(round), maxHopWait)
}

// stopped says whether there is no more to do for want of time, or for the agent's own trouble.
func (r *tracer) stopped(ctx context.Context) bool {
	r.cut = r.cut || over(ctx)
	return r.cut || r.trouble != pb.Failure_FAILURE_NONE
}

// connect makes one connect with a TTL, 0 for the usual one, and returns what answered within a time.
func (r *tracer) connect(ctx context.Context, ttl int, patience time.Duration) (a hopAnswer) {
	if r.pace.Wait(ctx) != nil { // It would be too late.
		r.cut = true
		return a
	}
	try, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	conn, ev, err := Connect(try, r.addr, ConnectOptions{hopLimit: ttl, source: r.source})
	a.rtt = time.Since(began)
	r.see(func(e *pb.Evidence) { e.ErrorQueue, e.LocalAddress = ev.GetErrorQueue(), ev.GetLocalAddress() })
	r.t.mu.Lock()
	r.pb.Attempts++
	r.t.mu.Unlock()
	var icmp icmpError
	switch {
	case conn != nil:
		abandon(conn)
		a.accepted, a.from = true, r.addr.Addr()
	case errors.As(err, &icmp):
		a.icmp = ev.GetIcmp()
		a.from, _ = netip.ParseAddr(a.icmp.GetSender())
		if sentByHost(ev, r.addr.Addr()) {
			r.trouble = pb.Failure_FAILURE_AGENT_NO_EGRESS
		}
	case isLocal(err):
		r.trouble = localFailure(r.addr.Addr(), err)
		r.say(err)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		a.from = r.addr.Addr()
	}
	if a.from.IsValid() {
		r.longest = max(r.longest, a.rtt)
	}
	return a
}

// timeExceeded says whether an ICMP error is a router's word that the TTL ran out there.
func timeExceeded(icmp *pb.ICMP, v6 bool) bool {
	typ := int32(11)
	if v6 {
		typ = 3
	}
	return icmp != nil && icmp.GetType() == typ && icmp.GetCode() == 0
}

// reached says whether the target itself answered.
func (r *tracer) reached() bool { return r.final.from.IsValid() && r.final.icmp == nil }

// conclude ends the step: a trace fails by the agent's own trouble alone.
func (r *tracer) conclude() {
	f := r.trouble
	if len(r.hops) == 0 && f == pb.Failure_FAILURE_NONE {
		f = pb.Failure_FAILURE_AGENT_DEADLINE
	}
	path := &pb.PathEvidence{Hops: r.hops, Reached: r.reached(), LastHop: r.lastHop()}
	if r.final.icmp != nil {
		path.Rejector = r.final.from.String()
	}
	r.see(func(e *pb.Evidence) {
		e.Path = path
		if f == pb.Failure_FAILURE_NONE {
			e.Text = clean(r.sentence(nil), maxText)
		}
	})
	r.step.end(f)
}
