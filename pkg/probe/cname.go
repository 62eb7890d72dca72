package probe

import (
	"context"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxChainLinks bounds what is kept of a CNAME chain.
const maxChainLinks = 16

// links returns the CNAME chain that leads on from a name in a reply's answer section, link by link. One
// that comes back to itself ends with the link that does.
func links(m *dns.Msg, name string) []*pb.CNAMELink {
	var chain []*pb.CNAMELink
	targets := map[string]*dns.CNAME{}
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && targets[canonical(c.Hdr.Name)] == nil {
			targets[canonical(c.Hdr.Name)] = c
		}
	}
	for c := targets[name]; c != nil && len(chain) < maxChainLinks; c = targets[name] {
		delete(targets, name)
		name = canonical(c.Target)
		chain = append(chain, &pb.CNAMELink{Name: canonical(c.Hdr.Name), Target: name, Ttl: c.Hdr.Ttl})
	}
	return chain
}

// loops says whether a chain's last link comes back to a name before it.
func loops(chain []*pb.CNAMELink) bool {
	for _, link := range chain {
		if link.GetName() == chain[len(chain)-1].GetTarget() {
			return true
		}
	}
	return false
}

// lastLink looks at where a chain ends: at a name that does not exist, or one that has no address at all,
// it is broken there. A name that lacks only the type asked for is no broken link.
func (t *trace) lastLink(ctx context.Context, q query, a *answer, chain []*pb.CNAMELink) {
	end := chain[len(chain)-1].GetTarget()
	switch a.failure {
	case pb.Failure_FAILURE_DNS_NXDOMAIN:
	case pb.Failure_FAILURE_DNS_NODATA:
		if isClosed(q.enough) || len(chain) == maxChainLinks || t.hasAddress(ctx, q, a.step, end) {
			return
		}
	default:
		return
	}
	a.broken(chain, a.failure, a.msg)
}

// isClosed says whether a channel is closed; nil is not.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// broken ends an answer as one whose chain breaks at its last link. The zone is that of the SOA record
// that came along (RFC 2308, 2).
func (a *answer) broken(chain []*pb.CNAMELink, f pb.Failure, m *dns.Msg) {
	last := chain[len(chain)-1]
	last.Failure = f
	if m != nil {
		for _, rr := range m.Ns {
			if zone := canonical(rr.Header().Name); rr.Header().Rrtype == dns.TypeSOA && within(last.GetTarget(), zone) {
				last.Zone = zone
			}
		}
	}
	a.step.see(func(e *pb.Evidence) { e.CnameChain = chain })
	a.conclude(pb.Failure_FAILURE_DNS_CNAME_BROKEN)
}

// hasAddress asks whether a name has an address of another type than the one asked for. In doubt it has.
func (t *trace) hasAddress(ctx context.Context, q query, s *step, name string) bool {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if qtype == q.qtype {
			continue
		}
		link := q.again(s, pb.Variant_VARIANT_CNAME_LINK)
		link.name, link.qtype = name, qtype
		if f := t.ask(ctx, link).failure; f != pb.Failure_FAILURE_DNS_NODATA && f != pb.Failure_FAILURE_DNS_NXDOMAIN {
			return true
		}
	}
	return false
}

// linkByLink asks a resolver that failed for each link of the chain by itself, to find the one that breaks.
func (t *trace) linkByLink(ctx context.Context, q query, a *answer) {
	var chain []*pb.CNAMELink
	at := q.again(a.step, pb.Variant_VARIANT_CNAME_LINK)
	for len(chain) < maxLinks {
		at.qtype = dns.TypeCNAME
		link := t.ask(ctx, at)
		if link.msg == nil {
			return // Nothing is known.
		}
		next := links(link.msg, at.name)
		if len(next) == 0 {
			if at.qtype = q.qtype; len(chain) > 0 && t.deadEnd(ctx, at, &link) {
				a.broken(chain, link.failure, link.msg)
			}
			return
		}
		chain = append(chain, next[0])
		if at.name = next[0].GetTarget(); loops(chain) {
			a.step.see(func(e *pb.Evidence) { e.CnameChain = chain })
			a.conclude(pb.Failure_FAILURE_DNS_CNAME_LOOP)
			return
		}
	}
}

// deadEnd decides whether the name that a chain leads to is why the resolver failed. The answer that ends the
// chain is to a question for a CNAME: where that says that the name exists, it is asked for what was wanted.
func (t *trace) deadEnd(ctx context.Context, wanted query, end *answer) bool {
	if end.failure == pb.Failure_FAILURE_DNS_NODATA {
		*end = t.ask(ctx, wanted)
	}
	// If it works by itself, the chain as a whole is what the resolver failed at, and no link is to blame.
	return end.failure == pb.Failure_FAILURE_DNS_NXDOMAIN || end.failure == pb.Failure_FAILURE_DNS_SERVFAIL
}
