package probe

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what an agent's own resolver is asked in the root's place.
const (
	standInZones    = 6 // Domains that hold the name, from the top.
	standInServers  = 4 // Whose addresses are asked for.
	standInSends    = 2
	standInPatience = time.Second // For each question.
	standInTTL      = time.Minute // It is known for no longer, however long the resolver holds it.
)

// The root does not lead everywhere: not below domains that are reserved for private use, and not from a host
// that may ask its own resolver and the servers around it, but nobody out there. The resolver knows the way all
// the same. It is asked for the NS records of the highest domain on the way to the name that it knows any of, and
// from there the walk goes down as ever. No parent has shown those servers: one that does not answer, where
// none does, may just be kept for the resolver, and is no broken delegation.

// standIn returns the highest zone that holds name whose servers one of the agent's own resolvers knows. Zone
// "": there is none.
func (w *walker) standIn(ctx context.Context, name string) delegation {
	if w.traces() {
		return delegation{}
	}
	for _, server := range w.t.resolvers {
		if d := w.highest(ctx, server, name); d.zone != "" {
			w.number(ctx, server, &d)
			w.own.remember(d, time.Now())
			w.known.remember(d, time.Now())
			return d
		}
		if over(ctx) {
			break
		}
	}
	return delegation{}
}

// highest asks a resolver for the NS records of the domains that hold a name, all at once.
func (w *walker) highest(ctx context.Context, server netip.AddrPort, name string) delegation {
	var zones []string
	for zone := name; zone != "."; zone = parentOf(zone) {
		zones = append([]string{zone}, zones...)
	}
	zones = zones[:min(len(zones), standInZones)]
	found := make([]delegation, len(zones))
	var asking sync.WaitGroup
	for i, zone := range zones {
		asking.Add(1)
		w.t.spawn(func() {
			defer asking.Done()
			found[i] = listed(w.askResolver(ctx, server, zone, dns.TypeNS).msg, zone)
		})
	}
	asking.Wait()
	if i := slices.IndexFunc(found, func(d delegation) bool { return d.zone != "" }); i >= 0 {
		return found[i]
	}
	return delegation{}
}

// listed reads the NS records of a zone from a resolver's answer.
func listed(m *dns.Msg, zone string) delegation {
	if m == nil || m.Rcode != dns.RcodeSuccess {
		return delegation{}
	}
	d := delegation{ttl: standInTTL, shared: true}
	for _, rr := range m.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok || canonical(ns.Hdr.Name) != zone || len(d.servers) == maxServers {
			continue
		}
		d.zone, d.ttl = zone, min(d.ttl, time.Duration(ns.Hdr.Ttl)*time.Second)
		d.servers = append(d.servers, nameserver{name: canonical(ns.Ns), childOnly: true})
	}
	return d
}

// number asks a resolver for the addresses of a zone's servers. Of those that it does not find nobody knows
// why: they are left alone.
func (w *walker) number(ctx context.Context, server netip.AddrPort, d *delegation) {
	slices.SortStableFunc(d.servers, w.byRank)
	qtypes := []uint16{dns.TypeA, dns.TypeAAAA}
	found := make([][]netip.Addr, len(qtypes)*min(len(d.servers), standInServers))
	var asking sync.WaitGroup
	for i := range found {
		asking.Add(1)
		w.t.spawn(func() {
			defer asking.Done()
			found[i] = w.askResolver(ctx, server, d.servers[i/len(qtypes)].name, qtypes[i%len(qtypes)]).addresses
		})
	}
	asking.Wait()
	for i := range d.servers {
		d.servers[i].lost = unsought
		if i < standInServers {
			ips := slices.Concat(found[i*len(qtypes) : (i+1)*len(qtypes)]...)
			d.servers[i].resolved = ips[:min(len(ips), maxServerAddrs)]
		}
	}
}

// askResolver asks an agent's own resolver for something on the way.
func (w *walker) askResolver(ctx context.Context, server netip.AddrPort, name string, qtype uint16) answer {
	if w.left.Add(-1) < 0 {
		return answer{}
	}
	return w.t.ask(ctx, query{
		server: server, name: name, qtype: qtype, role: pb.Role_ROLE_REFERRAL, sends: standInSends, quick: standInPatience,
	})
}
