package probe

import (
	"context"
	"slices"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Servers of a zone that serve a zone below it too never refer there: they answer. Who takes the answer for
// the upper zone's has two zones' serials under one name, and calls servers unequal that are not. What shows
// the cut all the same is the owner of the SOA or NS records beside an answer, and who signed it.

// apexOf returns the apex of the zone that a reply with authority comes from, at zone or below it, or "" if
// the reply does not show it.
func apexOf(m *dns.Msg, name, zone string) (apex string) {
	if m == nil || !m.Authoritative {
		return ""
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		owner := ""
		switch rr := rr.(type) {
		case *dns.SOA, *dns.NS:
			owner = canonical(rr.Header().Name)
		case *dns.RRSIG:
			if canonical(rr.Hdr.Name) == name {
				owner = canonical(rr.SignerName)
			}
		}
		if owner != "" && within(owner, zone) && within(name, owner) && dns.CountLabel(owner) >= dns.CountLabel(apex) {
			apex = owner
		}
	}
	return apex
}

// findApex finds out whether the answer is that of a zone below the one that was walked to. If all servers
// are asked and the answer does not tell, then the name's SOA does, or for an alias, which is no apex, that of
// the name above it.
func (c *cut) findApex(ctx context.Context) {
	apex := apexOf(c.reply, c.name, c.zone)
	point, works := c.working()
	if apex == "" && c.w.every && works && c.name != c.zone {
		name := c.name
		if len(links(c.reply, name)) > 0 {
			name = parentOf(name)
		}
		if name != c.zone {
			apex = apexOf(c.askOnTheWay(ctx, point, name, dns.TypeSOA).msg, name, c.zone)
		}
	}
	if apex == "" || apex == c.zone || !works || apex == c.name && c.qtype == dns.TypeDS {
		return
	}
	signed := c.askOnTheWay(ctx, point, apex, dns.TypeDS).failure == pb.Failure_FAILURE_NONE
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delegation = delegation{zone: apex, signed: signed, cached: c.cached, servers: c.servers, shared: true}
}

// askOnTheWay asks a server for what tells where zones meet, rather than for anything of the zone's.
func (c *cut) askOnTheWay(ctx context.Context, point endpoint, name string, qtype uint16) answer {
	return c.w.ask(ctx, query{
		server: point.addr, serverName: point.name, name: name, qtype: qtype, role: pb.Role_ROLE_REFERRAL,
	})
}

// ownServers are the servers of a zone by its own NS RRset, with the addresses that are known of them. Of a
// zone that is served by its parent's servers there are no others: what the parent lists is not to be seen.
func (c *cut) ownServers(m *dns.Msg) (servers []nameserver) {
	known := slices.Clone(c.servers) // It may be shared.
	for _, rr := range m.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok || canonical(ns.Hdr.Name) != c.zone || len(c.child) == maxServers {
			continue
		}
		one := nameserver{name: canonical(ns.Ns), childOnly: true}
		c.child = append(c.child, one.name)
		i := slices.IndexFunc(known, one.same)
		switch {
		case i < 0:
			known = append(known, one)
		case c.shared:
			known[i].childOnly = true
			one = known[i]
		}
		servers = append(servers, one)
	}
	if c.shared && len(servers) > 0 {
		return servers
	}
	return known
}
