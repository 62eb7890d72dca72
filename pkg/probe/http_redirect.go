package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// follow goes where redirects lead, at most limit times, and says how that ended: the first exchange
// shows the last response.
// A redirect is the target's wish, and targets are hostile: each hop is resolved and passes the egress policy like
// an address that a user gave. Otherwise "Location: http://169.254.169.254/" would show the credentials that
// the agent's cloud keeps there to whoever asked. Loops are known by their URLs, so that they cost one round and not all.
func (t *trace) follow(ctx context.Context, first *exchange, limit uint32) pb.Failure {
	last := first
	seen := map[string]bool{first.req.url.String(): true}
	var redirects []*pb.Redirect
	defer func() {
		// Of the last response, as the answer to what was asked first.
		shown := proto.CloneOf(last.response.HTTPEvidence)
		asked := first.response.HTTPEvidence
		shown.Url, shown.Method, shown.Host, shown.Redirects = asked.GetUrl(), asked.GetMethod(), asked.GetHost(), redirects
		first.response = &response{HTTPEvidence: shown, fields: last.response.fields, content: last.response.content}
		first.see(func(e *pb.Evidence) { e.Http = shown })
	}()
	for location := last.response.location; location != ""; location = last.response.location {
		if len(redirects) == int(limit) {
			first.say(fmt.Errorf("%d redirects were followed, as many as were asked for, and there is one more", limit))
			return pb.Failure_FAILURE_HTTP_REDIRECT_LOOP
		}
		r := &pb.Redirect{Status: last.response.GetStatus(), Location: escape(location, maxLocation)}
		redirects = append(redirects, r)
		req, err := last.req.next(location)
		if err != nil {
			first.say(err)
			return pb.Failure_FAILURE_HTTP_MALFORMED
		}
		if seen[req.url.String()] {
			first.say(fmt.Errorf("the redirect leads back to %s", req.url))
			return pb.Failure_FAILURE_HTTP_REDIRECT_LOOP
		}
		seen[req.url.String()] = true
		x, f := t.hop(ctx, last, req, r)
		if x != nil {
			last = x
		}
		if f != pb.Failure_FAILURE_NONE {
			first.say(fmt.Errorf("the redirect to %s: %s", req.url, Short(f)))
			return f
		}
	}
	return pb.Failure_FAILURE_NONE
}

// hop makes the next exchange of a redirect, resolved and admitted like any other.
func (t *trace) hop(ctx context.Context, last *exchange, req *request, r *pb.Redirect) (*exchange, pb.Failure) {
	beside := last.index
	a := aim{role: pb.Role_ROLE_REDIRECT, beside: &beside}
	if err := t.optOut.checkName(req.hostname()); err != nil {
		s := t.open(&pb.Step{Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: a.role, Name: req.hostname(), Beside: a.beside})
		s.say(err)
		s.end(pb.Failure_FAILURE_AGENT_POLICY_DENIED)
		return nil, pb.Failure_FAILURE_AGENT_POLICY_DENIED
	}
	ip, f := t.find(ctx, req.hostname(), a, last.addr.Addr())
	if f != pb.Failure_FAILURE_NONE {
		return nil, f
	}
	l := leg{addr: netip.AddrPortFrom(ip, req.port()), req: req, aim: a}
	r.Address = l.addr.String()
	conn, f := t.approach(ctx, l)
	if conn == nil {
		return nil, f
	}
	x := t.exchange(ctx, conn, l)
	x.end(x.failure)
	r.Step = &x.index
	return x, x.failure
}

// find resolves a name on the way, at one resolver after the other, and returns one address: near if the
// name has it, so that a host is looked at where it was before, or else the first of near's family.
func (t *trace) find(ctx context.Context, host string, a aim, near netip.Addr) (netip.Addr, pb.Failure) {
	family := t.job.GetSpec().GetFamily()
	if ip, ok := literalAddr(host, family); ok {
		if !inFamily(ip, family) {
			return ip, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
		}
		return ip, pb.Failure_FAILURE_NONE
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	if near.Is6() { // Else a page that moves from http to https would also move to the other family.
		slices.Reverse(types)
	}
	if family != pb.Family_FAMILY_UNSPECIFIED {
		types = types[:1]
	}
	failure := pb.Failure_FAILURE_UNSPECIFIED
	for _, qtype := range types {
		for _, server := range t.resolvers {
			q := query{server: server, name: canonical(host), qtype: qtype, role: a.role, beside: a.beside}
			answer := t.ask(ctx, q)
			if slices.Contains(answer.addresses, near) {
				return near, pb.Failure_FAILURE_NONE
			}
			if len(answer.addresses) > 0 {
				return answer.addresses[0], pb.Failure_FAILURE_NONE
			}
			// That there is no address of one family says nothing if the other could not be asked for.
			if failure == pb.Failure_FAILURE_UNSPECIFIED || answer.failure != pb.Failure_FAILURE_DNS_NODATA {
				failure = answer.failure
			}
			if known(answer.failure) || over(ctx) {
				break
			}
		}
	}
	if failure == pb.Failure_FAILURE_UNSPECIFIED { // There is no resolver.
		failure = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	}
	return netip.Addr{}, failure
}
