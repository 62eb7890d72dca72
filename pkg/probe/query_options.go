package probe

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// defaultSize is the size of a UDP reply that is asked for: it fits everywhere without fragments (DNS
// flag day 2020).
const defaultSize = 1232

// message builds a query as its options say, with a fresh random ID.
func (q *query) message(edns bool) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), q.qtype)
	m.Question[0].Qclass = q.class()
	m.RecursionDesired = !q.opts.GetNoRecursion()
	// AD in a query says that AD in the reply is understood (RFC 6840, 5.7); without DO nobody else sets it.
	m.AuthenticatedData = m.RecursionDesired
	m.CheckingDisabled = q.opts.GetCheckingDisabled()
	if q.unnumbered() {
		m.Id = 0
	}
	if edns {
		m.Extra = []dns.RR{q.pseudoRecord()}
	}
	return m
}

// class is the class that is asked for.
func (q *query) class() uint16 {
	if q.opts.GetClass() == "CH" {
		return dns.ClassCHAOS
	}
	return dns.ClassINET
}

// unnumbered says whether the ID is 0: over HTTPS so that caches find what they have (RFC 8484, 4.1), over
// QUIC because each query has a stream of its own (RFC 9250, 4.2.1).
func (q *query) unnumbered() bool {
	switch q.opts.GetTransport() {
	case pb.Transport_TRANSPORT_HTTPS, pb.Transport_TRANSPORT_HTTPS_GET, pb.Transport_TRANSPORT_QUIC:
		return true
	case pb.Transport_TRANSPORT_UNSPECIFIED, pb.Transport_TRANSPORT_TCP, pb.Transport_TRANSPORT_TLS:
	}
	return false
}

// size is the largest UDP reply that is asked for, in bytes.
func (q *query) size() int {
	if n := q.opts.GetBufferSize(); n > 0 {
		return int(max(dns.MinMsgSize, min(n, dns.MaxMsgSize)))
	}
	return defaultSize
}

// pseudoRecord is the query's OPT record (RFC 6891).
func (q *query) pseudoRecord() *dns.OPT {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(uint16(q.size()))
	if q.opts.GetDnssec() {
		opt.SetDo()
	}
	if q.opts.GetNsid() {
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	if subnet := q.subnet(); subnet != nil {
		opt.Option = append(opt.Option, subnet)
	}
	return opt
}

// subnet is the client's network to ask for (RFC 7871, 6), or nil. Bits beyond the prefix are zero, as
// they must be.
func (q *query) subnet() *dns.EDNS0_SUBNET {
	prefix, err := netip.ParsePrefix(q.opts.GetClientSubnet())
	if err != nil {
		return nil
	}
	family := uint16(1)
	if prefix.Addr().Is6() {
		family = 2
	}
	return &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(prefix.Bits()), Address: prefix.Masked().Addr().AsSlice(),
	}
}

// carrier is how the query travels, without what it asks for: a control goes the same way.
func (q *query) carrier() *pb.DNSSpec {
	return &pb.DNSSpec{
		Transport: q.opts.GetTransport(), TlsHostname: q.opts.GetTlsHostname(), HttpsPath: q.opts.GetHttpsPath(),
	}
}

// withoutEDNS returns what the spec asks for and a query without EDNS cannot say, or nil.
func (q *query) withoutEDNS() error {
	var lost []string
	for _, option := range []struct {
		asked bool
		name  string
	}{
		{q.opts.GetDnssec(), "DO"},
		{q.opts.GetNsid(), "NSID"},
		{q.opts.GetClientSubnet() != "", "client subnet"},
		{q.opts.GetBufferSize() != 0, "buffer size"},
	} {
		if option.asked {
			lost = append(lost, option.name)
		}
	}
	if lost == nil {
		return nil
	}
	return errors.New("the reply is to a query without EDNS, and so without " + strings.Join(lost, ", "))
}

// defaultPort is the port that a transport's servers listen on (RFC 1035, 4.2; RFC 7858, 3.1; RFC 8484;
// RFC 9250, 4.1.1).
func defaultPort(transport pb.Transport) uint16 {
	switch transport {
	case pb.Transport_TRANSPORT_TLS, pb.Transport_TRANSPORT_QUIC:
		return 853
	case pb.Transport_TRANSPORT_HTTPS, pb.Transport_TRANSPORT_HTTPS_GET:
		return 443
	case pb.Transport_TRANSPORT_UNSPECIFIED, pb.Transport_TRANSPORT_TCP:
	}
	return 53
}

// transportName is how a reply names what it came over.
func transportName(transport pb.Transport) string {
	switch transport {
	case pb.Transport_TRANSPORT_TCP:
		return "tcp"
	case pb.Transport_TRANSPORT_TLS:
		return "tls"
	case pb.Transport_TRANSPORT_HTTPS:
		return "https"
	case pb.Transport_TRANSPORT_HTTPS_GET:
		return "https-get"
	case pb.Transport_TRANSPORT_QUIC:
		return "quic"
	case pb.Transport_TRANSPORT_UNSPECIFIED:
	}
	return "udp"
}
