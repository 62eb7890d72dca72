package probe

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what a zone's own servers are asked.
const (
	maxAuthority = 32 // Servers' addresses, for spec.authoritative.
	fewServers   = 2  // Otherwise.
	maxLinks     = 8  // Of a CNAME chain that leads from zone to zone.
)

// cut is a zone while its servers are asked.
type cut struct {
	delegation
	inquiry
	w *walker

	mu     sync.Mutex
	asked  map[askedOf]chan struct{} // Closed when it has been answered, or not.
	seats  []*seat
	next   delegation // Where its servers refer to, if they do.
	reply  *dns.Msg   // What they answer, if they do.
	theEnd bool       // Its servers are the target's own.
	child  []string   // The names of its own NS RRset, where it was asked for.
}

// askedOf is what a server was asked.
type askedOf struct {
	endpoint netip.AddrPort
	name     string
	qtype    uint16
}

// seat is a step and the server that it asked.
type seat struct {
	endpoint
	step *step
	// heard says that it answered something, and soa is what it showed with authority.
	heard bool
	soa   *dns.SOA
}

// authority asks the own servers of the zones that a name and what it leads to belong to, beside the
// pipeline, and compares what they say with what those in asking are answered (docs/findings.md, rule 4).
func (t *trace) authority(ctx context.Context, asking *sync.WaitGroup, name string, qtypes ...uint16) {
	if !t.env.walkable(name) {
		return
	}
	grace := walkGrace
	if w := newWalker(t); w.asked || w.every {
		grace = walkTimeout
	}
	t.besides(ctx, grace, func(ctx context.Context, side *trace) {
		walking, cancel := context.WithTimeout(ctx, walkTimeout+t.env.patience)
		defer cancel()
		if said := newWalker(side).follow(walking, name, qtypes); said != nil {
			side.contradicted(ctx, asking, name, said)
		}
	})
}

// follow asks for a name and, as long as its zone's servers answer with a CNAME that leads elsewhere,
// for that. It returns the addresses that the last zone's servers gave, by type. Nil: they gave no answer.
func (w *walker) follow(ctx context.Context, name string, qtypes []uint16) map[string][]string {
	var said map[string][]string
	seen := []string{}
	for name != "" && len(seen) < maxLinks && !slices.Contains(seen, name) {
		seen = append(seen, name)
		c := w.descend(ctx, inquiry{name: name, qtype: qtypes[0]})
		if c == nil || !c.theEnd {
			return nil
		}
		c.consult(ctx, qtypes)
		said, name = c.said(), c.elsewhere()
	}
	if name != "" { // The chain goes on, or round.
		return nil
	}
	return said
}

// said returns the addresses that a zone's servers gave for the name, by type; of a type that they did not
// answer for there is no entry.
func (c *cut) said() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := map[string][]string{}
	for _, s := range c.seats {
		if qtype := s.step.pb.GetType(); s.step.pb.GetName() == c.name && answered(s.step.failure()) {
			said[qtype] = append(said[qtype], s.step.pb.GetEvidence().GetAddresses()...)
		}
	}
	return said
}

// try asks a server and says whether it was of use: it referred on, or answered.
func (c *cut) try(ctx context.Context, point endpoint) bool {
	if c.w.left.Add(-1) < 0 {
		return false
	}
	a := c.ask(ctx, point, query{name: c.name, qtype: c.qtype, role: pb.Role_ROLE_REFERRAL})
	if a.msg == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next, refers := referral(a.msg, c.name, c.zone)
	if a.manner == mannerPlain { // Without DO nobody shows a DS RRset: this is not for others to rely on.
		next.ttl = 0
	}
	switch {
	case c.next.zone != "" || c.reply != nil: // Another one was faster.
	case refers:
		c.next = next
	case answered(a.failure):
		c.reply = a.msg
	default:
		return false
	}
	return true
}

// answered says whether a server of a zone did its work.
func answered(f pb.Failure) bool { return known(f) || f == pb.Failure_FAILURE_DNS_BOGON }

// settle decides whose servers these are, when there is nobody left to ask the way of. If the servers
// of a zone below a top-level one fail altogether, then that is where the delegation is broken, unless it is
// only that the agent knew it from before.
func (c *cut) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	broken := dns.CountLabel(c.zone) > 1 && !c.cached && !c.shared
	c.theEnd = len(c.via) == 0 && c.next.zone == "" && (c.reply != nil || broken)
	for _, s := range c.seats {
		c.show(s)
	}
	c.reportLost()
}

// worst is the least certain way in which the zone's servers are lost.
func (c *cut) worst() (worst lost) {
	for _, s := range c.servers {
		worst = max(worst, s.lost)
	}
	return worst
}

// reportLost records the servers of the target's zone whose names lead to no address: nobody can ask them.
// c.mu is held.
func (c *cut) reportLost() {
	for _, s := range c.servers {
		if s.lost != nowhere || len(s.glue) > 0 || !c.theEnd || !c.w.t.once("lost "+c.zone+" "+s.name) {
			continue
		}
		step := c.w.t.open(&pb.Step{
			Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: pb.Role_ROLE_AUTHORITY, Name: c.name, Type: dns.Type(c.qtype).String(),
		})
		step.say(errors.New("the server's name " + s.name + " leads to no address"))
		step.end(pb.Failure_FAILURE_DNS_LAME)
		c.show(&seat{endpoint: endpoint{nameserver: s}, step: step})
	}
}

// ask asks one server one question. AD, RA and the like are in the reply for people to see.
func (c *cut) ask(ctx context.Context, point endpoint, q query) answer {
	done := make(chan struct{})
	defer close(done)
	c.mu.Lock()
	c.asked[askedOf{point.addr, q.name, q.qtype}] = done
	c.mu.Unlock()
	q.server, q.serverName = point.addr, point.name
	if c.zone == "." && !c.w.traces() {
		q.quick = rootPatience
	}
	q.judge = func(m *dns.Msg, qtype uint16) pb.Failure {
		if _, ok := referral(m, q.name, c.zone); ok {
			return pb.Failure_FAILURE_NONE
		}
		return authorityFailure(m, qtype)
	}
	a := c.w.ask(ctx, q)
	switch {
	case a.failure == pb.Failure_FAILURE_DNS_LAME:
		a.step.say(lameness(a.msg, c.zone))
	case a.msg != nil && len(a.addresses) == 0 && loops(links(a.msg, q.name)):
		a.conclude(pb.Failure_FAILURE_DNS_CNAME_LOOP)
	default:
		c.w.t.checkBogons(&a)
	}
	s := &seat{endpoint: point, step: a.step, heard: a.msg != nil, soa: soaOf(a.msg)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seats = append(c.seats, s)
	c.show(s)
	return a
}

// ask asks a zone's own server: without recursion, with DO, and as it wants to be asked, once that is known.
func (w *walker) ask(ctx context.Context, q query) answer {
	q.stranger, q.opts = true, &pb.DNSSpec{NoRecursion: true, Dnssec: true}
	q.sends = walkSends
	if q.quick == 0 {
		q.quick, q.thorough = walkPatience, w.every
	}
	w.mu.Lock()
	q.manner = w.manners[q.server]
	w.mu.Unlock()
	if q.manner != mannerUsual {
		q.sends = 1
	}
	a := w.t.ask(ctx, q)
	if a.msg != nil && a.manner != q.manner {
		w.mu.Lock()
		w.manners[q.server] = a.manner
		w.mu.Unlock()
	}
	return a
}

// show puts into a step what is known of its server by now. c.mu is held.
func (c *cut) show(s *seat) {
	server := s.nameserver
	for _, known := range c.servers {
		if known.name == server.name && server.name != "" {
			server = known
		}
	}
	s.step.see(func(e *pb.Evidence) {
		e.Authority = &pb.AuthorityEvidence{
			Zone: c.zone, Server: server.name, Signed: c.signed, Cached: c.cached, SoaSerial: c.serial(s.addr),
			InParent: c.zone != "." && !server.childOnly, InChild: slices.Contains(c.child, server.name),
			Glue: texts(server.glue), Addresses: texts(server.resolved),
		}
		if c.theEnd && s.step.pb.GetRole() == pb.Role_ROLE_REFERRAL {
			s.step.pb.Role = pb.Role_ROLE_AUTHORITY
		}
	})
}

// consult asks the zone's own servers the questions that are still open, and for a lookup what the zone
// says of itself: its NS RRset at one of them, its SOA at each.
func (c *cut) consult(ctx context.Context, qtypes []uint16) {
	if c.reply == nil && !c.w.every {
		return // As many as are asked by default have failed.
	}
	if c.w.deep {
		c.findApex(ctx)
		c.askChild(ctx)
	}
	if c.w.every {
		c.resolveServers(ctx)
	}
	var asking sync.WaitGroup
	for _, point := range c.choose(ctx) {
		asking.Add(1)
		c.w.t.spawn(func() {
			defer asking.Done()
			for i, qtype := range qtypes {
				if i == 0 || c.heard(point) { // Silence is silence, whatever is asked.
					c.once(ctx, point, c.name, qtype)
				}
			}
			if c.w.deep && c.unnumbered(point) && c.heard(point) {
				c.once(ctx, point, c.zone, dns.TypeSOA)
			}
			c.showAll()
		})
	}
	asking.Wait()
}

// choose returns the servers' addresses that are asked: two servers, or all at every address.
func (c *cut) choose(ctx context.Context) []endpoint {
	c.mu.Lock()
	d := c.delegation
	c.mu.Unlock()
	points := c.w.endpoints(ctx, &d, nil, fewServers)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = d.servers
	c.reportLost()
	if c.w.every {
		return points[:min(len(points), maxAuthority)]
	}
	return points[:min(len(points), fewServers)]
}

// once asks a server a question, unless it was asked before: then it waits for how that ends.
func (c *cut) once(ctx context.Context, point endpoint, name string, qtype uint16) {
	c.mu.Lock()
	done := c.asked[askedOf{point.addr, name, qtype}]
	c.mu.Unlock()
	if done == nil {
		c.ask(ctx, point, query{name: name, qtype: qtype, role: pb.Role_ROLE_AUTHORITY})
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// askChild asks the zone for its own NS RRset, at a server that answers.
func (c *cut) askChild(ctx context.Context) {
	point, ok := c.working()
	if !ok || c.zone == "." {
		return
	}
	a := c.ask(ctx, point, query{name: c.zone, qtype: dns.TypeNS, role: pb.Role_ROLE_AUTHORITY})
	if a.failure != pb.Failure_FAILURE_NONE {
		return
	}
	c.mu.Lock()
	c.servers = c.ownServers(a.msg)
	c.mu.Unlock()
	c.showAll()
}

// working returns a server that answered.
func (c *cut) working() (endpoint, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seats {
		if answered(s.step.failure()) {
			return s.endpoint, true
		}
	}
	return endpoint{}, false
}

// resolveServers looks up the addresses of all of the zone's servers by their own zones, whatever glue
// there is: glue may be out of date.
func (c *cut) resolveServers(ctx context.Context) {
	c.mu.Lock()
	servers := slices.Clone(c.servers)
	c.mu.Unlock()
	var looking sync.WaitGroup
	for i := range servers {
		looking.Add(1)
		c.w.t.spawn(func() {
			defer looking.Done()
			servers[i].resolved, servers[i].lost = c.w.addressesOf(ctx, servers[i].name, nil)
		})
	}
	looking.Wait()
	c.mu.Lock()
	c.servers = servers
	c.mu.Unlock()
	c.showAll()
}

// elsewhere returns the name in another zone that the zone's answer leads to, if it does.
func (c *cut) elsewhere() string {
	if c.reply == nil || holds(c.reply, c.qtype) {
		return ""
	}
	links := links(c.reply, c.name)
	if len(links) == 0 {
		return ""
	}
	return links[len(links)-1].GetTarget()
}

// unnumbered says whether the zone's serial at a server is not known.
func (c *cut) unnumbered(point endpoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serial(point.addr) == nil
}

// heard says whether a server answered anything.
func (c *cut) heard(point endpoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.seats, func(s *seat) bool { return s.addr == point.addr && s.heard })
}

// serial is that of the zone at a server, or nil. c.mu is held.
func (c *cut) serial(addr netip.AddrPort) *uint32 {
	for _, s := range c.seats {
		if s.addr == addr && s.soa != nil && canonical(s.soa.Hdr.Name) == c.zone {
			return &s.soa.Serial
		}
	}
	return nil
}

// showAll shows in all steps what is known by now.
func (c *cut) showAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seats {
		c.show(s)
	}
}

// soaOf returns the SOA record that a server shows with authority.
func soaOf(m *dns.Msg) *dns.SOA {
	if m == nil || !m.Authoritative {
		return nil
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}

// lameness says in words why a server does not serve a zone that was delegated to it.
func lameness(m *dns.Msg, zone string) error {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return errors.New("it answers " + rcodeName(m.Rcode) + " for a name in " + zone)
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeNS {
			return errors.New("it refers to " + clean(canonical(rr.Header().Name), 255) + ", which does not lead on from " + zone)
		}
	}
	return errors.New("its answer is not authoritative for " + zone + " (AA is not set)")
}
