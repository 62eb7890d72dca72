// Package probe looks at a target from the place where it runs: it resolves, connects, shakes hands and
// exchanges a request, in steps, and tells what it saw. It is the only code that touches the measured
// network.
//
// A target that fails is a successful measurement: Run returns a Result and never an error about the
// target. What arrives from a target is hostile, so every read is bounded in bytes and time.
//
// There is one pipeline, in this file; one trace (trace.go), which every step is recorded in; one
// classifier (classify.go), which alone turns errors into failures; and one guard (guard.go), which every
// socket passes. The rest goes by stage, and reads from the first file of each to the last:
//
//	resolve    dns.go, lookup.go; one query: query.go, query_*.go, wire.go, sockets.go
//	           the zone's own servers: walk.go, standin.go, delegation.go, authority.go
//	           what an answer is worth: cname.go, dnssec.go, doubt.go
//	connect    connect.go, connect_linux.go; where a path ends: path.go
//	handshake  tls.go; by hand: tls_offer.go, tls_flight.go, package flight;
//	           why it fails: tls_interference.go; what is accepted: tls_enumerate.go
//	certify    examine.go, chain.go: paths.go, flaws.go, trust.go, names.go, ocsp.go, aia.go
//	exchange   http.go, http_request.go, http_response.go, http_redirect.go, edge.go
//	           as the client of a profile comes: client.go
//	beside     control.go, aside.go
//	the door   what may be asked of an agent: admit.go, wellformed.go, contract.go, policy.go, egress.go, budget.go
package probe

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Budgets (docs/checks.md, How long it takes).
const (
	connectTimeout   = 4 * time.Second
	handshakeTimeout = 6 * time.Second
	spacing          = time.Second
	defaultRemaining = 28 * time.Second
	maxAddresses     = 16
)

// Run does a job and returns what was seen, within the time that the job leaves. It ends promptly
// when ctx does; what did not fit is agent_deadline.
func Run(ctx context.Context, env *Env, job *pb.Job) *pb.Result {
	if env == nil {
		env = &Env{}
	}
	// The job says how long, never until when: the agent's clock is nobody's business.
	remaining := defaultRemaining
	if job.GetRemaining() != nil {
		remaining = job.GetRemaining().AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, remaining)
	defer cancel()
	t := newTrace(env, job)
	t.guarded(func() { t.check(ctx) })
	t.running.Wait()
	close(t.settled)
	t.asides.Wait()
	t.halted(ctx)
	t.lateReplies(ctx)
	return t.result()
}

// halted says in the Result that the operator stopped the agent while it worked. What was under way ended as the
// agent's own.
func (t *trace) halted(ctx context.Context) {
	if why := t.env.policy().Stopped; why != "" && ctx.Err() != nil {
		s := t.open(&pb.Step{Kind: firstKind(t.job.GetSpec()), Role: pb.Role_ROLE_TARGET})
		s.say(errors.New(why))
		s.end(pb.Failure_FAILURE_AGENT_POLICY_DENIED)
	}
}

// check goes down the pipeline as far as the spec asks.
func (t *trace) check(ctx context.Context) {
	spec := t.job.GetSpec()
	if err := cmp.Or(wellFormed(spec), t.badOptOut); err != nil {
		s := t.open(&pb.Step{Kind: firstKind(spec), Role: pb.Role_ROLE_TARGET})
		s.say(err)
		s.end(pb.Failure_FAILURE_AGENT_INTERNAL)
		return
	}
	if err := t.optedOut(); err != nil {
		s := t.open(&pb.Step{Kind: firstKind(spec), Role: pb.Role_ROLE_TARGET})
		s.say(err)
		s.end(pb.Failure_FAILURE_AGENT_POLICY_DENIED)
		return
	}
	host, port := target(spec)
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Dns:
		t.lookup(ctx, c.Dns)
	case *pb.Spec_Tcp:
		t.resolve(ctx, host, func(ip netip.Addr) {
			addr := netip.AddrPortFrom(ip, port)
			if c.Tcp.GetPath() {
				t.spawn(func() { t.followPath(ctx, addr) })
			}
			t.knock(ctx, addr)
		})
	case *pb.Spec_Tls:
		g := newGreeting(c.Tls)
		t.resolve(ctx, host, func(ip netip.Addr) {
			g := g
			g.addr = netip.AddrPortFrom(ip, port)
			if conn, _ := t.connect(ctx, g.addr, toTarget); conn != nil {
				f := t.handshake(ctx, conn, g)
				if c.Tls.GetEnumerate() && spoke(f) {
					t.enumerate(ctx, g)
				}
			}
		})
	case *pb.Spec_Http:
		req, _ := newRequest(c.Http, t.env.Version) // It was checked at the door, as is the next one.
		t.resolve(ctx, host, func(ip netip.Addr) {
			t.visit(ctx, netip.AddrPortFrom(ip, port), req, c.Http)
		})
	case *pb.Spec_Origin:
		req, _ := asClient(c.Origin, t.env.Version)
		t.resolve(ctx, host, func(ip netip.Addr) {
			t.visit(ctx, netip.AddrPortFrom(ip, port), req, nil)
		})
	}
}

// firstKind is the kind of the step that a job without one is reported by.
func firstKind(spec *pb.Spec) pb.StepKind {
	host, _ := target(spec)
	if _, err := netip.ParseAddr(host); err != nil {
		return pb.StepKind_STEP_KIND_DNS_QUERY
	}
	return pb.StepKind_STEP_KIND_TCP_CONNECT
}

// target returns the host and port that a spec goes to; for a DNS spec the host is empty.
func target(spec *pb.Spec) (host string, port uint16) {
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Tcp:
		return c.Tcp.GetHost(), uint16(c.Tcp.GetPort())
	case *pb.Spec_Tls:
		if c.Tls.GetPort() == 0 {
			return c.Tls.GetHost(), 443
		}
		return c.Tls.GetHost(), uint16(c.Tls.GetPort())
	case *pb.Spec_Http:
		return targetOf(c.Http.GetUrl())
	case *pb.Spec_Origin:
		return targetOf(c.Origin.GetUrl())
	}
	return "", 0
}

// inFamily says whether an address belongs to a family.
func inFamily(ip netip.Addr, family pb.Family) bool {
	if family == pb.Family_FAMILY_UNSPECIFIED {
		return true
	}
	return ip.Unmap().Is4() == (family == pb.Family_FAMILY_IPV4)
}
