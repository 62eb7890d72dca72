package probetest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Nameserver is an authoritative server: it answers for its zones, refers on at their cuts, and refuses
// the rest.
type Nameserver struct {
	// Zones are the zones' records in presentation format, by apex in lower case without its last dot,
	// "." for the root. NS records below the apex are cuts; DS records belong to the parent; RRSIG records
	// are sent with what they cover to who asks for them.
	Zones map[string][]string
	// Lame is how the server fails to serve. Default: it does not fail.
	Lame Lameness
}

// Lameness is a way for a server not to serve a zone that is delegated to it.
type Lameness int

// The ways not to serve.
const (
	NotLame     Lameness = iota
	LameRefused          // REFUSED.
	LameServfail
	LameSilent
	LameUpward  // It refers to the root.
	LameEmpty   // NOERROR, nothing else, and no AA.
	LameCached  // It answers as a cache would, without AA.
	LameForever // It refers to the zone itself.

	NoUDP      // Silent over UDP, and well over TCP.
	NoEDNS     // FORMERR to queries with EDNS, as servers that do not know it say.
	EDNSSilent // Silent to queries with EDNS.
	Failing    // SERVFAIL for what it says to be in charge of (AA).
)

// Tree is authoritative servers on loopback addresses with a port in common, as in the world it is 53.
type Tree struct {
	port    uint16
	hosts   map[netip.Addr]*treeHost
	stopped sync.WaitGroup
}

// treeHost is one server of a Tree.
type treeHost struct {
	spec    Nameserver
	servers []*dns.Server

	mu    sync.Mutex
	zones map[string][]dns.RR // Replaced, never changed.
	asked []dns.Question
}

// set replaces the records of a zone.
func (h *treeHost) set(apex string, records []string) error {
	var rrs []dns.RR
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil {
			return fmt.Errorf("%q: %w", record, err)
		}
		rrs = append(rrs, rr)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.zones = maps.Clone(h.zones)
	h.zones[apex] = rrs
	return nil
}

// ServeTree starts servers by address.
func ServeTree(servers map[string]Nameserver) (*Tree, error) { return ServeTreeOn(0, servers) }

// ServeTreeOn is the same on a port; 0 is one that is free.
func ServeTreeOn(port uint16, servers map[string]Nameserver) (*Tree, error) {
	var last error
	for range 20 { // A port may be free on one address and taken on another one.
		t := &Tree{hosts: map[netip.Addr]*treeHost{}, port: port}
		if last = t.start(servers); last == nil {
			return t, nil
		}
		_ = t.Close()
	}
	return nil, fmt.Errorf("no port free on all addresses: %w", last)
}

func (t *Tree) start(servers map[string]Nameserver) error {
	for text, spec := range servers {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		h := &treeHost{spec: spec, zones: map[string][]dns.RR{}}
		for apex, records := range spec.Zones {
			if err := h.set(apex, records); err != nil {
				return err
			}
		}
		packets, stream, err := listenBoth(netip.AddrPortFrom(ip, t.port))
		if err != nil {
			return err
		}
		t.port = packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		t.hosts[ip] = h
		t.run(h, &dns.Server{PacketConn: packets, Handler: h})
		t.run(h, &dns.Server{Listener: stream, Handler: h})
	}
	return nil
}

// run runs a server, and returns when it listens.
func (t *Tree) run(h *treeHost, srv *dns.Server) {
	ready := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(ready) }
	h.servers = append(h.servers, srv)
	t.stopped.Go(func() { _ = srv.ActivateAndServe() })
	<-ready
}

// Set replaces the records of a zone at a server, by its apex as Nameserver.Zones has it.
func (t *Tree) Set(ip, apex string, records []string) error {
	h := t.hosts[netip.MustParseAddr(ip)]
	if h == nil {
		return fmt.Errorf("there is no server at %s", ip)
	}
	return h.set(apex, records)
}

// At returns the address and port of a server, whether there is one or not.
func (t *Tree) At(ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), t.port)
}

// Asked returns what a server was asked, such as "A www.example.".
func (t *Tree) Asked(ip string) []string {
	h := t.hosts[netip.MustParseAddr(ip)]
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, q := range h.asked {
		out = append(out, dns.Type(q.Qtype).String()+" "+q.Name)
	}
	return out
}

// Close stops the servers.
func (t *Tree) Close() error {
	var err error
	for _, h := range t.hosts {
		for _, srv := range h.servers {
			err = errors.Join(err, srv.Shutdown())
		}
	}
	t.stopped.Wait()
	return err
}

// ServeDNS answers a query; it is what a server calls.
func (h *treeHost) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 {
		return
	}
	h.mu.Lock()
	h.asked = append(h.asked, q.Question[0])
	h.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	switch how := h.spec.Lame; {
	case how == LameSilent, how == NoUDP && udp, how == EDNSSilent && q.IsEdns0() != nil:
		return
	case how == NoEDNS && q.IsEdns0() != nil:
		reply.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(reply)
		return
	}
	if !h.lame(reply) {
		h.answer(reply, q.IsEdns0() != nil && q.IsEdns0().Do())
	}
	if o := q.IsEdns0(); o != nil {
		reply.SetEdns0(1232, o.Do())
	}
	if udp {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply)
}

// lame answers as a lame server does.
func (h *treeHost) lame(reply *dns.Msg) bool {
	name := reply.Question[0].Name
	switch h.spec.Lame {
	case LameRefused:
		reply.Rcode = dns.RcodeRefused
	case LameServfail:
		reply.Rcode = dns.RcodeServerFailure
	case LameUpward:
		reply.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: "a.root."}}
	case LameForever:
		apex, _ := h.zone(name)
		reply.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: dns.Fqdn(apex), Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: "ns." + dns.Fqdn(apex)}}
	case LameEmpty:
	case LameCached:
		h.answer(reply, false)
		reply.Authoritative = false
	case Failing:
		reply.Rcode, reply.Authoritative = dns.RcodeServerFailure, true
	case NotLame, LameSilent, NoUDP, NoEDNS, EDNSSilent:
		return false
	}
	return true
}

// zone returns the closest zone that holds a name.
func (h *treeHost) zone(name string) (apex string, records []dns.RR) {
	h.mu.Lock()
	zones := h.zones
	h.mu.Unlock()
	for zone, rrs := range zones {
		if dns.IsSubDomain(dns.Fqdn(zone), name) && (apex == "" || dns.CountLabel(zone) > dns.CountLabel(apex)) {
			apex, records = zone, rrs
		}
	}
	return apex, records
}

// answer answers from the zones (RFC 1034, 4.3.2).
func (h *treeHost) answer(reply *dns.Msg, do bool) {
	q := reply.Question[0]
	name := strings.ToLower(q.Name)
	from := name
	if labels := dns.Split(name); q.Qtype == dns.TypeDS && len(labels) > 1 { // It is the upper zone's.
		from = name[labels[1]:]
	}
	apex, records := h.zone(from)
	if apex == "" {
		reply.Rcode = dns.RcodeRefused
		return
	}
	if h.refer(reply, dns.Fqdn(apex), name, do) {
		return
	}
	reply.Authoritative = true
	for range 32 { // Links of a CNAME chain.
		found, exists, target := match(records, name, q.Qtype, do)
		reply.Answer = append(reply.Answer, found...)
		switch {
		case target == "":
			if !exists {
				reply.Rcode = dns.RcodeNameError
			}
			if len(found) == 0 {
				reply.Ns = pick(records, dns.Fqdn(apex), dns.TypeSOA)
			}
			return
		case !dns.IsSubDomain(dns.Fqdn(apex), target):
			return
		}
		name = target
	}
}

// refer refers on if a cut lies between the zone and a name.
func (h *treeHost) refer(reply *dns.Msg, apex, name string, do bool) bool {
	_, records := h.zone(name)
	for _, rr := range records {
		owner := strings.ToLower(rr.Header().Name)
		below := rr.Header().Rrtype == dns.TypeNS && owner != apex && dns.IsSubDomain(owner, name)
		if !below || owner == name && reply.Question[0].Qtype == dns.TypeDS {
			continue
		}
		reply.Ns = append(reply.Ns, pick(records, owner, dns.TypeNS)...)
		if do {
			reply.Ns = append(reply.Ns, pick(records, owner, dns.TypeDS)...)
		}
		for _, ns := range pick(records, owner, dns.TypeNS) {
			host := strings.ToLower(ns.(*dns.NS).Ns)
			reply.Extra = append(reply.Extra, append(pick(records, host, dns.TypeA), pick(records, host, dns.TypeAAAA)...)...)
		}
		return true
	}
	return false
}

// match returns what a zone has of a name and type, whether the name exists, and where a CNAME leads.
func match(records []dns.RR, name string, qtype uint16, do bool) (found []dns.RR, exists bool, target string) {
	for _, rr := range records {
		owner := strings.ToLower(rr.Header().Name)
		exists = exists || dns.IsSubDomain(name, owner)
		sig, isSig := rr.(*dns.RRSIG)
		cname, isCNAME := rr.(*dns.CNAME)
		switch {
		case owner != name:
		case rr.Header().Rrtype == qtype, isSig && do && sig.TypeCovered == qtype:
			found = append(found, rr)
		case isCNAME:
			found = append(found, rr)
			target = strings.ToLower(cname.Target)
		}
	}
	return found, exists, target
}

// pick returns the records of an owner and type.
func pick(records []dns.RR, owner string, rrtype uint16) (found []dns.RR) {
	for _, rr := range records {
		if strings.EqualFold(rr.Header().Name, owner) && rr.Header().Rrtype == rrtype {
			found = append(found, rr)
		}
	}
	return found
}
