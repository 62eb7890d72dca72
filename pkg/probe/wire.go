package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what is kept of a reply.
const (
	maxRecords = 256
	maxData    = 4096
	udpSize    = 1232 // Fits everywhere without fragments (DNS flag day 2020).
	readSize   = 4096 // A server that heeds udpSize never fills it.
)

var (
	errMismatch  = errors.New("a reply that does not belong to the query")
	errMalformed = errors.New("a reply that cannot be parsed")
)

// message builds a query with a fresh random ID.
func message(name string, qtype uint16, edns bool) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	if edns {
		m.SetEdns0(udpSize, false)
	}
	return m
}

// message builds the query's next message, as its options say.
func (q *query) message(edns bool) *dns.Msg {
	m := message(q.name, q.qtype, edns)
	m.RecursionDesired = !q.opts.GetNoRecursion()
	m.CheckingDisabled = q.opts.GetCheckingDisabled()
	if q.opts.GetClass() == "CH" {
		m.Question[0].Qclass = dns.ClassCHAOS
	}
	if opt := m.IsEdns0(); opt != nil && q.opts.GetDnssec() {
		opt.SetDo()
	}
	return m
}

// parseReply reads a reply and checks that it belongs to the query: same ID and same question. The ID
// alone would let anyone who guesses 16 bits answer.
func parseReply(query *dns.Msg, wire []byte) (*dns.Msg, error) {
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		// Noise under another ID is somebody else's; only noise under ours is this server's.
		if len(wire) >= 2 && (uint16(wire[0])<<8|uint16(wire[1])) != query.Id {
			return nil, errMismatch
		}
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if m.Id != query.Id || !m.Response {
		return nil, errMismatch
	}
	// Compared without case: some resolvers echo the name in a case of their own.
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess { // Some servers leave it out of errors.
		return &m, nil
	}
	if len(m.Question) != 1 {
		return nil, errMismatch
	}
	got, want := m.Question[0], query.Question[0]
	if !strings.EqualFold(got.Name, want.Name) || got.Qtype != want.Qtype || got.Qclass != want.Qclass {
		return nil, errMismatch
	}
	return &m, nil
}

// describe turns a reply into evidence.
func describe(m *dns.Msg, size int) *pb.DNSReply {
	r := &pb.DNSReply{
		Rcode:              rcodeName(m.Rcode),
		Authoritative:      m.Authoritative,
		Truncated:          m.Truncated,
		RecursionAvailable: m.RecursionAvailable,
		AuthenticData:      m.AuthenticatedData,
		Answers:            records(m.Answer),
		LeftOut:            int32(max(0, len(m.Answer)-maxRecords)),
		Authority:          records(m.Ns),
		Size:               int32(size),
	}
	opt := m.IsEdns0()
	if opt == nil {
		return r
	}
	for _, o := range opt.Option {
		if ede, ok := o.(*dns.EDNS0_EDE); ok && len(r.GetExtendedErrors()) < 16 {
			r.ExtendedErrors = append(r.GetExtendedErrors(),
				&pb.ExtendedError{Code: uint32(ede.InfoCode), Text: clean(ede.ExtraText, maxText)})
		}
	}
	return r
}

// rcodeName returns a response code's mnemonic, or one like "RCODE3841" if it has none.
func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

// records turns records into evidence. miekg/dns escapes what is not printable; the rest is cleaned all
// the same, since the data is shown on terminals and pages.
func records(rrs []dns.RR) []*pb.Record {
	var out []*pb.Record
	for _, rr := range rrs[:min(len(rrs), maxRecords)] {
		h := rr.Header()
		out = append(out, &pb.Record{
			Name: clean(canonical(h.Name), 1024),
			Ttl:  h.Ttl,
			Type: dns.Type(h.Rrtype).String(),
			Data: clean(presentation(rr), maxData),
		})
	}
	return out
}

// presentation returns a record's data in presentation format. For types that miekg/dns does not know
// it is the generic one (RFC 3597, 5), whose header the library spells in another way.
func presentation(rr dns.RR) string {
	if unknown, ok := rr.(*dns.RFC3597); ok {
		return fmt.Sprintf(`\# %d %s`, len(unknown.Rdata)/2, unknown.Rdata)
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// holds says whether a reply answers the question, rather than only redirects it.
func holds(m *dns.Msg, qtype uint16) bool {
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		return qtype == dns.TypeANY || rr.Header().Rrtype == qtype
	})
}

// addresses returns the distinct addresses of a reply's answer section, in order. Owners are not compared
// with the question: a recursive resolver's answer section is the chain from the name to its addresses,
// and one that lies can lie about owners too. IPv4-mapped addresses are IPv4 addresses.
func addresses(m *dns.Msg) []netip.Addr {
	var ips []netip.Addr
	for _, rr := range m.Answer[:min(len(m.Answer), maxRecords)] {
		var ip netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			ip, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			ip, _ = netip.AddrFromSlice(rr.AAAA.To16())
		}
		if ip = ip.Unmap(); ip.IsValid() && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}
