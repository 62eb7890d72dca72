package probe

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Budgets of a walk.
const (
	walkTimeout   = 10 * time.Second // A silent server takes 8, asked in every way.
	walkGrace     = 3 * time.Second  // After everything else of the Job is done.
	walkPatience  = 2 * time.Second  // For one server, over each transport.
	walkSends     = 3
	walkStagger   = 500 * time.Millisecond
	walkTries     = 3           // Servers that are asked the way on, at most.
	walkReferrals = 10          // Zones on the way down.
	walkNested    = 3           // Servers known by a name whose zone's servers are known by a name whose …
	walkLookups   = 4           // Servers of one zone that are looked up; half as many for each step of nesting.
	walkQueries   = 48          // On the way, in one Run.
	rootPatience  = time.Second // For a root server: something can stand in for it.
)

// A name's own servers are found as a resolver finds them, from the same place as everything else: the
// root is asked, then whoever it refers to, each without recursion and with DO, since a referral shows
// a zone's DS RRset only then (RFC 4035, 3.1.4.1). What a referral says counts for what is below the zone
// it comes from, and for nothing else. Where the root does not lead, something stands in for it. Every address
// is checked against the egress policy first: anyone can delegate a zone to anywhere.

// walker finds and asks zones' own servers, for one Run.
type walker struct {
	t      *trace
	port   uint16
	family pb.Family // Of the paths to the servers.
	every  bool      // All servers of the zone are asked.
	asked  bool      // The walk is what was asked for, rather than evidence beside it.
	deep   bool      // The zone itself is looked at too: its SOA and NS RRsets.
	known  *Delegations
	own    Delegations // What this Run found.
	left   atomic.Int32

	mu      sync.Mutex
	manners map[netip.AddrPort]manner // How servers want to be asked that are hard to ask.
}

// endpoint is an address of a server.
type endpoint struct {
	nameserver
	addr netip.AddrPort
}

// newWalker returns a walker whose steps go to t.
func newWalker(t *trace) *walker {
	spec, origin := t.job.GetSpec().GetDns(), t.job.GetSpec().GetOrigin() != nil
	w := &walker{
		t: t, port: 53, every: spec.GetAuthoritative() || origin, asked: spec.GetAuthoritative() || spec.GetTrace(), deep: spec != nil || origin,
		known: t.env.Delegations, manners: map[netip.AddrPort]manner{},
	}
	if spec != nil {
		w.family = t.job.GetSpec().GetFamily() // As with dig -4 and -6.
	}
	if len(t.env.Hints) > 0 {
		w.port = t.env.Hints[0].Port()
	}
	w.left.Store(walkQueries)
	return w
}

// traces says whether the walk is to be seen whole, from the root.
func (w *walker) traces() bool { return w.t.job.GetSpec().GetDns().GetTrace() }

// start returns the closest delegation that is known, in the end the root's, or what stands in for it.
// What another Run found is used as a place to begin, and no more: +trace begins at the root whatever is known, for
// who asks for it doubts just that.
func (w *walker) start(ctx context.Context, name string) delegation {
	now := time.Now()
	here, _ := w.own.closest(name, now)
	here.cached = false
	if !w.traces() {
		if known, ok := w.known.closest(name, now); ok && (!known.mute || !w.asked) && dns.CountLabel(known.zone) > dns.CountLabel(here.zone) {
			return known
		}
	}
	if here.zone != "" {
		return here
	}
	if !w.t.env.rooted(name) || !w.asked && w.known.paused(now) {
		return w.standIn(ctx, name)
	}
	root := delegation{zone: ".", signed: true}
	for _, hint := range w.t.env.hints() {
		root.servers = append(root.servers, nameserver{glue: []netip.Addr{hint.Addr()}})
	}
	return root
}

// remember keeps a delegation for this Run and those to come, as its parent shows it.
func (w *walker) remember(d delegation) {
	if d.shared { // Nobody showed it.
		return
	}
	d.servers = slices.DeleteFunc(slices.Clone(d.servers), func(s nameserver) bool { return s.childOnly })
	for i := range d.servers {
		d.servers[i].lost = 0 // It will be looked for again.
	}
	w.own.remember(d, time.Now())
	w.known.remember(d, time.Now())
}

// forget drops one that leads nowhere.
func (w *walker) forget(zone string) {
	w.own.forget(zone)
	w.known.forget(zone)
}

// inquiry is what a walk looks for. via are the servers' names that led to it, the outermost first; a
// walk without is for the target itself.
type inquiry struct {
	name  string
	qtype uint16
	via   []string
}

// descend walks down to the zone that answers for a name, and returns it with the servers that were
// asked. Nil: there was no way to it.
func (w *walker) descend(ctx context.Context, q inquiry) *cut {
	from := q.name
	if q.qtype == dns.TypeDS && from != "." { // It is the parent's (RFC 4035, 2.4).
		from = parentOf(from)
	}
	d := w.start(ctx, from)
	for range walkReferrals {
		if d.zone == "" || d.mute {
			return nil
		}
		c := w.level(ctx, d, q)
		switch {
		case over(ctx):
			return nil
		case c.next.zone != "":
			d = c.next
			w.remember(d)
		case c.reply == nil && d.cached: // What was known may be out of date.
			w.forget(d.zone)
			d = w.start(ctx, from)
		case c.reply == nil && d.zone == ".":
			w.known.rootSilent(time.Now())
			if d = w.standIn(ctx, from); d.zone == "" {
				return c
			}
		default:
			if c.reply == nil && d.shared {
				d.mute, d.ttl = true, rootPause
				w.known.remember(d, time.Now())
			}
			return c
		}
	}
	return nil
}

// level asks servers of a zone for the way on, each a little after the one before, or as soon as that one
// has failed, until one of them refers on or answers.
func (w *walker) level(ctx context.Context, d delegation, q inquiry) *cut {
	c := &cut{delegation: d, w: w, inquiry: q, asked: map[askedOf]chan struct{}{}}
	points := w.endpoints(ctx, &c.delegation, q.via, 1)
	if len(points) == 0 && d.zone == "." {
		w.noRoot()
	}
	found, all, turn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	close(turn) // The first one's.
	once := sync.OnceFunc(func() { close(found) })
	var trying sync.WaitGroup
	for i, point := range points[:min(len(points), walkTries)] {
		mine, next := turn, make(chan struct{})
		trying.Add(1)
		w.t.spawn(func() {
			defer trying.Done()
			if !turnOf(ctx, mine, found, time.Duration(i)*(walkStagger+w.t.env.patience)) {
				return
			}
			defer close(next)
			if c.try(ctx, point) {
				once()
			}
		})
		turn = next
	}
	w.t.spawn(func() { trying.Wait(); close(all) })
	select {
	case <-found:
	case <-all:
	case <-ctx.Done():
	}
	c.settle()
	return c
}

// turnOf waits for its turn, at most for so long. False: it is not needed any more.
func turnOf(ctx context.Context, turn, needless <-chan struct{}, atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-turn:
	case <-timer.C:
	case <-needless:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// noRoot records that no root server's address has a route.
func (w *walker) noRoot() {
	s := w.t.open(&pb.Step{Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: pb.Role_ROLE_REFERRAL, Name: ".", Type: "NS"})
	s.say(errors.New("there is no route to any root server"))
	s.end(pb.Failure_FAILURE_AGENT_NO_EGRESS)
}

// endpoints returns the addresses to ask of a zone's servers that the host has a route to, in the order
// in which this agent asks them: another order for each agent, so that together they see many, and always
// the same for one, so that what it sees can be compared. Servers that the parent gave no address for are
// looked up until enough servers have one; d then has their addresses too.
func (w *walker) endpoints(ctx context.Context, d *delegation, via []string, enough int) []endpoint {
	servers := slices.Clone(d.servers)
	slices.SortStableFunc(servers, w.byRank)
	var first, rest []endpoint // A server's first address comes before any other server's second one.
	lookups := walkLookups >> len(via)
	for i := range servers {
		s := &servers[i]
		if len(s.glue) == 0 && len(s.resolved) == 0 && s.lost == 0 && len(first) < enough && lookups > 0 {
			lookups--
			s.resolved, s.lost = w.addressesOf(ctx, s.name, via)
		}
		points := w.reachable(*s)
		if len(points) > 0 {
			first, rest = append(first, points[0]), append(rest, points[1:]...)
		}
	}
	d.servers = servers
	w.remember(*d)
	return append(first, rest...)
}

// byRank orders servers, for each agent in another way.
func (w *walker) byRank(a, b nameserver) int { return cmp.Compare(w.rank(a), w.rank(b)) }

// rank is a server's place in the order.
func (w *walker) rank(s nameserver) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(w.t.job.GetAgent() + "/" + s.name))
	for _, ip := range s.glue {
		_, _ = h.Write(ip.AsSlice())
	}
	return h.Sum64()
}

// reachable returns a server's addresses that the host has a route to. IPv4 comes first: many hosts have
// a route for IPv6 that leads nowhere.
func (w *walker) reachable(s nameserver) []endpoint {
	var points []endpoint
	for _, ip := range slices.Concat(s.glue, s.resolved) {
		addr := netip.AddrPortFrom(ip, w.port)
		known := slices.ContainsFunc(points, func(e endpoint) bool { return e.addr == addr })
		if !known && inFamily(ip, w.family) && routed(ip) {
			points = append(points, endpoint{s, addr})
		}
	}
	slices.SortStableFunc(points, func(a, b endpoint) int { return cmp.Compare(a.addr.Addr().BitLen(), b.addr.Addr().BitLen()) })
	return points[:min(len(points), maxServerAddrs)]
}

// addressesOf finds a server's addresses by its name, by a walk of its own, or why there are none.
// Glue alone would not do: most servers are named outside of the zone that refers to them, and then the referral
// has no address that could be believed. Two zones whose servers are named in one another can be found by
// nobody, which is the zone's fault; too many steps of nesting may be only ours. The two are told apart.
func (w *walker) addressesOf(ctx context.Context, name string, via []string) ([]netip.Addr, lost) {
	switch {
	case name == "", len(via) == walkNested:
		return nil, unsought
	case slices.Contains(via, name): // Zones whose servers are known by names in one another.
		return nil, nowhere
	}
	qtypes := []uint16{dns.TypeA}
	if w.every { // Otherwise one family is enough to ask it something.
		qtypes = append(qtypes, dns.TypeAAAA)
	}
	found, why := make([][]netip.Addr, len(qtypes)), make([]lost, len(qtypes))
	var both sync.WaitGroup
	for i, qtype := range qtypes {
		both.Add(1)
		w.t.spawn(func() {
			defer both.Done()
			c := w.descend(ctx, inquiry{name: name, qtype: qtype, via: append(slices.Clone(via), name)})
			switch {
			case c == nil, c.reply == nil && len(c.seats) > 0:
				why[i] = unheard
			case c.reply == nil: // The way ends at a zone without servers.
				why[i] = max(nowhere, c.worst())
			default:
				found[i], why[i] = addresses(c.reply), nowhere
			}
		})
	}
	both.Wait()
	ips := slices.Concat(found...)
	if len(ips) > 0 {
		return ips[:min(len(ips), maxServerAddrs)], 0
	}
	return nil, slices.Max(why)
}
