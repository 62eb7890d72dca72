package probe

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what is kept of a reply.
const (
	maxRecords = 256
	maxData    = 4096
	maxEDE     = 16
	maxNSID    = 255
)

var (
	errMismatch  = errors.New("a reply that does not belong to the query")
	errMalformed = errors.New("a reply that cannot be parsed")
)

// parseReply reads a reply and checks that it belongs to the query: same ID and same question. The ID
// alone would let anyone who guesses 16 bits answer. With errMismatch the message is there all the same,
// if it is one.
func parseReply(query *dns.Msg, wire []byte) (*dns.Msg, error) {
	var m dns.Msg
	err := m.Unpack(wire)
	switch {
	case err == nil && m.Truncated, err == nil && whole(&m, wire):
	case err == nil:
		return nil, fmt.Errorf("%w: it ends before the records that it announces", errMalformed)
	case len(wire) >= 2 && (uint16(wire[0])<<8|uint16(wire[1])) != query.Id:
		return nil, errMismatch // Noise under another ID is somebody else's; only noise under ours is this server's.
	case m.Truncated && m.Response && belongs(&m, query):
		// Some servers cut in the middle of a record. That it is cut is all that this reply has to say.
		m.Answer, m.Ns, m.Extra = nil, nil, nil
		return &m, nil
	default:
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if m.Id != query.Id || !m.Response || !belongs(&m, query) {
		return &m, errMismatch
	}
	return &m, nil
}

// whole says whether a message holds all the records that its header announces; the library takes what
// is there.
func whole(m *dns.Msg, wire []byte) bool {
	announced := func(i int) int { return int(wire[i])<<8 | int(wire[i+1]) }
	return announced(6) == len(m.Answer) && announced(8) == len(m.Ns) && announced(10) == len(m.Extra)
}

// belongs says whether a reply is about the query's question.
func belongs(m, query *dns.Msg) bool {
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess { // Some servers leave it out of errors.
		return true
	}
	if len(m.Question) != 1 {
		return false
	}
	got, want := m.Question[0], query.Question[0]
	// Compared without case: some resolvers echo the name in a case of their own.
	return strings.EqualFold(got.Name, want.Name) && got.Qtype == want.Qtype && got.Qclass == want.Qclass
}

// describe turns a reply into evidence.
func describe(m *dns.Msg, size int) *pb.DNSReply {
	r := &pb.DNSReply{
		Rcode:              rcodeName(m.Rcode),
		Authoritative:      m.Authoritative,
		Truncated:          m.Truncated,
		RecursionAvailable: m.RecursionAvailable,
		AuthenticData:      m.AuthenticatedData,
		CheckingDisabled:   m.CheckingDisabled,
		Answers:            records(m.Answer),
		LeftOut:            int32(max(0, len(m.Answer)-maxRecords)),
		Authority:          records(m.Ns),
		Additional:         records(m.Extra),
		Size:               int32(size),
		SoaSerial:          soaSerial(m),
	}
	if opt := m.IsEdns0(); opt != nil {
		describeOptions(r, opt.Option)
	}
	return r
}

// describeOptions turns the options of EDNS into evidence.
func describeOptions(r *pb.DNSReply, options []dns.EDNS0) {
	for _, o := range options {
		switch o := o.(type) {
		case *dns.EDNS0_EDE:
			if len(r.GetExtendedErrors()) < maxEDE {
				r.ExtendedErrors = append(r.GetExtendedErrors(),
					&pb.ExtendedError{Code: uint32(o.InfoCode), Text: clean(o.ExtraText, maxText)})
			}
		case *dns.EDNS0_NSID: // The library keeps it in hexadecimal.
			id, _ := hex.DecodeString(o.Nsid[:min(len(o.Nsid), 2*maxNSID)])
			r.Nsid = id
		case *dns.EDNS0_SUBNET:
			ip, _ := netip.AddrFromSlice(o.Address)
			if o.Family == 1 {
				ip = ip.Unmap()
			}
			prefix := netip.PrefixFrom(ip, int(o.SourceNetmask))
			r.ClientSubnet = &pb.ClientSubnet{Prefix: prefix.String(), Scope: uint32(o.SourceScope)}
		}
	}
}

// soaSerial is the serial of the first SOA record in a reply, or nil.
func soaSerial(m *dns.Msg) *uint32 {
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			if soa, ok := rr.(*dns.SOA); ok {
				n := soa.Serial // Not a pointer that keeps the whole reply.
				return &n
			}
		}
	}
	return nil
}

// rcodeName returns a response code's mnemonic, or one like "RCODE3841" if it has none.
func rcodeName(rcode int) string {
	if rcode == dns.RcodeBadVers { // The library knows the number as TSIG's BADSIG, which no header has.
		return "BADVERS"
	}
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

// records turns records into evidence. miekg/dns escapes what is not printable; the rest is cleaned all
// the same, since the data is shown on terminals and pages. OPT is no record of anybody's.
func records(rrs []dns.RR) []*pb.Record {
	var out []*pb.Record
	for _, rr := range rrs {
		h := rr.Header()
		if h.Rrtype == dns.TypeOPT {
			continue
		}
		if len(out) == maxRecords {
			break
		}
		out = append(out, &pb.Record{
			Name: clean(canonical(h.Name), 1024),
			Ttl:  h.Ttl,
			Type: dns.Type(h.Rrtype).String(),
			Data: clean(presentation(rr), maxData),
		})
	}
	return out
}

// presentation returns a record's data in presentation format. For types that have none of their own it
// is the generic one (RFC 3597, 5), whose header the library spells in another way.
func presentation(rr dns.RR) string {
	h := rr.Header()
	switch rr := rr.(type) {
	case *dns.A: // The library's own way for addresses, which are most of what comes, is slow.
		if ip, ok := netip.AddrFromSlice(rr.A); ok {
			return ip.String()
		}
	case *dns.AAAA:
		if ip, ok := netip.AddrFromSlice(rr.AAAA); ok {
			return ip.String()
		}
	case *dns.RFC3597:
		return strings.TrimSpace(fmt.Sprintf(`\# %d %s`, len(rr.Rdata)/2, strings.ToUpper(rr.Rdata)))
	case *dns.NULL: // The library makes a comment of it.
		return strings.TrimSpace(fmt.Sprintf(`\# %d %X`, len(rr.Data), rr.Data))
	case *dns.SVCB:
		return service(rr)
	case *dns.HTTPS:
		return service(&rr.SVCB)
	case *dns.TLSA, *dns.SMIMEA, *dns.SSHFP, *dns.ZONEMD: // Numbers and hexadecimal; as with DS, dig's are capitals.
		return strings.ToUpper(strings.TrimPrefix(rr.String(), h.String()))
	}
	if h.Rdlength == 0 && h.Rrtype != dns.TypeAPL { // No data, where there must be some.
		return `\# 0`
	}
	return strings.TrimPrefix(rr.String(), h.String())
}

// service is the data of a SVCB or HTTPS record as dig shows it: quotes are for lists of protocols and for what
// is anybody's text, and a key without a value has none (RFC 9460, 2.1).
func service(rr *dns.SVCB) string {
	words := []string{strconv.Itoa(int(rr.Priority)), rr.Target}
	for _, p := range rr.Value {
		key, value := p.Key().String(), p.String()
		switch p.(type) {
		case *dns.SVCBAlpn, *dns.SVCBDoHPath, *dns.SVCBLocal:
			value = `"` + value + `"`
		}
		if value == "" || value == `""` {
			words = append(words, key)
			continue
		}
		words = append(words, key+"="+value)
	}
	return strings.Join(words, " ")
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
// To connect where a client would be sent is the point, whether the resolver was right or not.
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
