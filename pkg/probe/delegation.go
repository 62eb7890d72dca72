package probe

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what is taken from a referral.
const (
	maxServers       = 32
	maxServerAddrs   = 8
	maxDelegations   = 1024
	maxDelegationTTL = time.Hour
	rootPause        = time.Minute
)

// delegation is a zone's servers as its parent shows them. It never changes once it is shared.
type delegation struct {
	zone    string
	servers []nameserver
	signed  bool // The parent has a DS RRset for it.
	ttl     time.Duration
	cached  bool // It was known before this Run.
	shared  bool // No parent refers to it: the servers of the zone above answer for it, or a resolver knows them.
	mute    bool // None of its servers, which a resolver named, answered a moment ago.
}

// nameserver is a server of a zone.
type nameserver struct {
	name      string       // Empty: a root server, known by its address alone.
	glue      []netip.Addr // By the parent.
	resolved  []netip.Addr // By the zone of the server's name.
	childOnly bool         // The zone has it, its parent has not.
	lost      lost         // Why it has no address, after it was looked up.
}

// lost is how looking for a server's address ended in vain. 0: nobody looked, or it was found.
type lost int

const (
	nowhere  lost = iota + 1 // Its name leads to no address.
	unheard                  // A server on the way to its address did not answer.
	unsought                 // It was not worth the effort.
)

// referral reads a reply as a referral from parent's servers to a zone that is below parent and holds
// name. Glue counts for names below parent alone: about others its servers have no say (RFC 5452, 6).
func referral(m *dns.Msg, name, parent string) (delegation, bool) {
	var d delegation
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
		return d, false
	}
	for _, rr := range m.Ns {
		ns, ok := rr.(*dns.NS)
		zone := canonical(rr.Header().Name)
		if !ok || zone == parent || !within(zone, parent) || !within(name, zone) || d.zone != "" && d.zone != zone {
			continue
		}
		ttl := min(time.Duration(ns.Hdr.Ttl)*time.Second, maxDelegationTTL)
		if d.zone == "" {
			d.zone, d.ttl = zone, ttl
		}
		d.ttl = min(d.ttl, ttl)
		server := nameserver{name: canonical(ns.Ns)}
		if len(d.servers) < maxServers && !slices.ContainsFunc(d.servers, server.same) {
			server.glue = glue(m, server.name, parent)
			d.servers = append(d.servers, server)
		}
	}
	d.signed = slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeDS && canonical(rr.Header().Name) == d.zone
	})
	return d, d.zone != ""
}

// same says whether another server has the same name.
func (s nameserver) same(other nameserver) bool { return s.name == other.name }

// glue returns the addresses that a referral gives for a server's name.
func glue(m *dns.Msg, name, parent string) []netip.Addr {
	if !within(name, parent) {
		return nil
	}
	var ips []netip.Addr
	for _, rr := range m.Extra {
		if len(ips) == maxServerAddrs {
			break
		}
		if canonical(rr.Header().Name) != name {
			continue
		}
		if ip, ok := address(rr); ok && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}

// address returns the address of an A or AAAA record.
func address(rr dns.RR) (netip.Addr, bool) {
	var ip netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		ip, _ = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		ip, _ = netip.AddrFromSlice(rr.AAAA.To16())
	}
	ip = ip.Unmap()
	return ip, ip.IsValid()
}

// Delegations remembers zones' servers from one Run to the next, as long as the parents' records allow,
// at most an hour, so that most Runs ask neither root nor top-level servers. It also remembers for a
// minute that no root server could be reached. Its zero value is empty and ready; Runs may share it.
type Delegations struct {
	mu      sync.Mutex
	known   map[string]remembered
	order   []string  // Of known, the oldest first.
	silence time.Time // Until then the root is left alone.
}

// remembered is a delegation and when it was and will be forgotten.
type remembered struct {
	delegation
	until time.Time
}

// closest returns the delegation of the closest zone that holds name and has not run out.
func (d *Delegations) closest(name string, now time.Time) (delegation, bool) {
	if d == nil {
		return delegation{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for zone := name; zone != "."; zone = parentOf(zone) {
		if r, ok := d.known[zone]; ok && now.Before(r.until) {
			r.cached = true
			return r.delegation, true
		}
	}
	return delegation{}, false
}

// remember keeps a delegation. The oldest ones make room.
func (d *Delegations) remember(one delegation, now time.Time) {
	if d == nil || one.zone == "." {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil {
		d.known = map[string]remembered{}
	}
	if _, ok := d.known[one.zone]; !ok {
		if len(d.order) >= maxDelegations {
			delete(d.known, d.order[0])
			d.order = d.order[1:]
		}
		d.order = append(d.order, one.zone)
	}
	d.known[one.zone] = remembered{one, now.Add(one.ttl)}
}

// forget drops a delegation that turned out to lead nowhere.
func (d *Delegations) forget(zone string) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok := d.known[zone]; ok {
		r.until = time.Time{} // It keeps its place in the order.
		d.known[zone] = r
	}
}

// rootSilent notes that no root server could be reached.
func (d *Delegations) rootSilent(now time.Time) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silence = now.Add(rootPause)
}

// paused says whether the root could not be reached a moment ago.
func (d *Delegations) paused(now time.Time) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.silence)
}

// parentOf returns a name without its first label; that of a single label is the root.
func parentOf(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end || next >= len(name) {
		return "."
	}
	return name[next:]
}
