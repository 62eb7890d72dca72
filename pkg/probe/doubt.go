package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Budgets of second looks.
const (
	secondLook     = 2 * time.Second // For a query that stands beside another one.
	identityGrace  = time.Second
	maxDoubtful    = 3 // Addresses that a contradicted answer is tried at, one of the zone's own among them.
	maxBogons      = 3 // Addresses of an answer that are named.
	randomLabel    = 16
	doubtfulPort   = 443
	labelAlphabet  = "abcdefghijklmnopqrstuvwxyz"
	identityFirst  = "id.server"    // RFC 4892
	identitySecond = "version.bind" // What servers knew before it.
)

// inquire asks a resolver, and looks again at an answer that gives cause to: an address that cannot be
// public, a CNAME chain that breaks, a failure that may be a validator's.
func (t *trace) inquire(ctx context.Context, q query) answer {
	a := t.ask(ctx, q)
	if a.msg == nil || q.opts.GetClass() == "CH" {
		return a
	}
	chain := links(a.msg, q.name)
	a.step.see(func(e *pb.Evidence) { e.CnameChain, e.Dnssec = chain, security(a.msg) })
	recursive := a.msg.RecursionAvailable && !q.opts.GetNoRecursion()
	switch {
	case loops(chain) && len(a.addresses) == 0:
		a.conclude(pb.Failure_FAILURE_DNS_CNAME_LOOP)
	case a.failure == pb.Failure_FAILURE_DNS_SERVFAIL && recursive:
		if !t.bogus(ctx, q, &a) {
			t.linkByLink(ctx, q, &a)
		}
	case len(chain) > 0 && recursive:
		t.lastLink(ctx, q, &a, chain)
	case a.failure == pb.Failure_FAILURE_DNS_NODATA && recursive:
		t.otherFamily(ctx, q, a.step)
	}
	t.checkBogons(&a)
	return a
}

// otherFamily looks, after a lookup of addresses that there are none of, for those of the other family. Checks of
// a host ask for both.
func (t *trace) otherFamily(ctx context.Context, q query, s *step) {
	if t.job.GetSpec().GetDns() == nil || q.role != pb.Role_ROLE_TARGET || q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		return
	}
	other := q.again(s, pb.Variant_VARIANT_OTHER_FAMILY)
	if other.qtype = dns.TypeA; q.qtype == dns.TypeA {
		other.qtype = dns.TypeAAAA
	}
	t.ask(ctx, other)
}

// checkBogons ends an answer with an address that cannot be public as such, and says which it is.
func (t *trace) checkBogons(a *answer) {
	if a.failure != pb.Failure_FAILURE_NONE {
		return
	}
	if err := t.env.policy().Egress.bogon(a.addresses); err != nil {
		a.step.say(err)
		a.conclude(pb.Failure_FAILURE_DNS_BOGON)
	}
}

// conclude ends an answer otherwise than it ended before.
func (a *answer) conclude(f pb.Failure) {
	a.step.instead(a.failure, f)
	a.failure = f
}

// bogon says which of the addresses cannot be public, of those that the operator did not allow
// (docs/findings.md, rule 17). Nil: none.
func (e Egress) bogon(ips []netip.Addr) error {
	public := Egress{Allow: e.Allow}
	var all []string
	for _, ip := range ips {
		if err := public.Check(ip); err != nil && len(all) < maxBogons {
			all = append(all, err.Error())
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}

// again returns a quick query to the same server, for a second look at a step.
func (q query) again(s *step, v pb.Variant) query {
	index := s.index
	return query{
		server: q.server, serverName: q.serverName, name: q.name, qtype: q.qtype, opts: q.opts,
		role: pb.Role_ROLE_VARIANT, variant: v, beside: &index, quick: secondLook, sends: 2,
	}
}

// examinable says whether it makes sense to find out more about a server: a resolver that was asked as such.
func (t *trace) examinable(q query, a answer) bool {
	return a.msg != nil && q.role == pb.Role_ROLE_TARGET && !q.opts.GetNoRecursion() && q.opts.GetClass() != "CH"
}

// doubt finds out more about the server that answered, now if the spec looks deep, otherwise only when its
// answer is contradicted: it takes two or three queries more, and most of the time they tell nothing.
func (s *step) doubt(ctx context.Context, more func(context.Context, *trace)) {
	spec := s.t.job.GetSpec().GetDns()
	if spec.GetAuthoritative() || spec.GetTrace() || spec.GetNsid() {
		s.t.besides(ctx, identityGrace, more)
		return
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.doubted = more
}

// examineResolver finds out, after a lookup, which server answers behind the resolver's address, and what
// it says of a name that does not exist.
func (t *trace) examineResolver(ctx context.Context, q query, a answer) {
	t.spawn(func() {
		r := q.again(a.step, pb.Variant_VARIANT_RANDOM_LABEL)
		r.name, r.qtype, r.sends, r.opts = unlikely(q.name), dns.TypeA, 1, q.carrier()
		t.ask(ctx, r)
	})
	t.identify(ctx, q.again(a.step, pb.Variant_VARIANT_IDENTITY))
}

// identify asks a server who it is.
func (t *trace) identify(ctx context.Context, q query) {
	q.opts = q.carrier()
	q.opts.Class = "CH"
	q.qtype, q.sends = dns.TypeTXT, 1
	for _, name := range []string{identityFirst, identitySecond} {
		q.name = name
		if a := t.ask(ctx, q); a.failure == pb.Failure_FAILURE_NONE || a.msg == nil {
			return
		}
	}
}

// unlikely returns a name that does not exist, under the same top-level domain.
func unlikely(name string) string {
	random := make([]byte, randomLabel)
	_, _ = rand.Read(random) // It never fails.
	for i, b := range random {
		random[i] = labelAlphabet[int(b)%len(labelAlphabet)]
	}
	labels := dns.SplitDomainName(name)
	if len(labels) == 0 {
		return string(random)
	}
	return string(random) + "." + labels[len(labels)-1]
}

// contradicted compares what the resolvers answered, once they all have, with what the zone's own servers
// say. Where they have nothing in common, a handshake with the answered address tells whether the name is
// at home there all the same (docs/gotchas.md, DNS), and one with an address of theirs whether it has a
// certificate at home.
func (t *trace) contradicted(ctx context.Context, asking *sync.WaitGroup, name string, said map[string][]string) {
	switch t.job.GetSpec().GetCheck().(type) {
	case *pb.Spec_Dns, *pb.Spec_Tcp:
	default:
		return
	}
	asking.Wait() // They end with the Job's time at the latest.
	var tried []string
	for _, s := range t.doubtful(name, said) {
		if s.doubted != nil {
			s.doubted(ctx, t)
		}
		theirs := said[s.pb.GetType()]
		for _, text := range slices.Concat(theirs[:min(len(theirs), 1)], s.pb.GetEvidence().GetAddresses()) {
			ip, err := netip.ParseAddr(text)
			if err != nil || len(tried) == maxDoubtful || slices.Contains(tried, text) {
				continue
			}
			tried = append(tried, text)
			addr := netip.AddrPortFrom(ip, doubtfulPort)
			t.spawn(func() { t.call(ctx, s, addr, name) })
		}
	}
}

// doubtful returns the queries whose answers share nothing with what the zone's own servers say.
func (t *trace) doubtful(name string, said map[string][]string) (out []*step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.steps {
		theirs, told := said[s.pb.GetType()]
		ours := s.pb.GetEvidence().GetAddresses()
		common := slices.ContainsFunc(ours, func(ip string) bool { return slices.Contains(theirs, ip) })
		if told && !common && len(ours) > 0 && s.pb.GetName() == name && s.pb.GetRole() == pb.Role_ROLE_TARGET {
			out = append(out, s)
		}
	}
	return out
}

// call connects to an address that was answered, once, and shakes hands there with the name.
func (t *trace) call(ctx context.Context, beside *step, addr netip.AddrPort, name string) {
	index := beside.index
	p := connectStep(addr, pb.Role_ROLE_VARIANT)
	p.Variant, p.Beside = pb.Variant_VARIANT_ANSWERED_ADDRESS, &index
	s := t.open(p)
	if s.refused(addr, toConnect) {
		return
	}
	var conn net.Conn
	s.end(s.attempt(ctx, func(ctx context.Context) (f pb.Failure) {
		conn, f = s.dial(ctx, addr)
		return f
	}))
	if conn == nil {
		return
	}
	h := t.shaker(greeting{addr: addr, name: name, alpn: bothVersions, aim: aim{role: pb.Role_ROLE_VARIANT, beside: &index}})
	h.pb.Variant = p.GetVariant()
	stopped := h.attempt(ctx, func(ctx context.Context) pb.Failure { return h.shake(ctx, conn) })
	_ = conn.Close()
	h.end(append([]pb.Failure{stopped}, h.certificate...)...)
}
