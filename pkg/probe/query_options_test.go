package probe

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// seenOptions is what a server sees of a query's options.
type seenOptions struct {
	RD, AD, CD, DO, NSID bool
	Class                uint16
	Size                 uint16
	Subnet               string
}

// see returns what a server sees of a query.
func see(q *dns.Msg) seenOptions {
	a := seenOptions{RD: q.RecursionDesired, AD: q.AuthenticatedData, CD: q.CheckingDisabled, Class: q.Question[0].Qclass}
	opt := q.IsEdns0()
	if opt == nil {
		return a
	}
	a.DO, a.Size = opt.Do(), opt.UDPSize()
	for _, o := range opt.Option {
		switch o := o.(type) {
		case *dns.EDNS0_NSID:
			a.NSID = true
		case *dns.EDNS0_SUBNET:
			a.Subnet = o.String()
		}
	}
	return a
}

// askDatagrams asks a server that answers over UDP with what a function makes of each query.
func askDatagrams(t *testing.T, spec *pb.DNSSpec, answers func(q *dns.Msg) []*dns.Msg) *pb.Step {
	t.Helper()
	return askPackets(t, spec, func(query []byte) (out [][]byte) {
		var q dns.Msg
		if err := q.Unpack(query); err != nil {
			t.Error(err)
			return nil
		}
		for _, m := range answers(&q) {
			wire, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			out = append(out, wire)
		}
		return out
	})
}

func askPackets(t *testing.T, spec *pb.DNSSpec, answers func(query []byte) [][]byte) *pb.Step {
	t.Helper()
	server := must[*probetest.Datagrams](t)(probetest.ListenDatagrams(at("127.0.0.1"), answers))
	env := &Env{Resolvers: []netip.AddrPort{server.Addr()}, Hints: []netip.AddrPort{}, Controls: []string{}, Egress: Egress{Allow: loopback}}
	return one(t, run(t, env, &pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}), pb.StepKind_STEP_KIND_DNS_QUERY)
}

// answer is a good reply to a query, with an OPT record of its own.
func replyTo(q *dns.Msg, rrs ...dns.RR) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	if len(rrs) == 0 {
		rrs = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 2)}}
	}
	m.Answer = rrs
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	return m
}

func TestOptionsReachTheServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		spec *pb.DNSSpec
		want seenOptions
	}{
		{"without options", &pb.DNSSpec{}, seenOptions{RD: true, AD: true, Class: dns.ClassINET, Size: 1232}},
		{"+dnssec", &pb.DNSSpec{Dnssec: true}, seenOptions{RD: true, AD: true, DO: true, Class: dns.ClassINET, Size: 1232}},
		{"+cd", &pb.DNSSpec{CheckingDisabled: true}, seenOptions{RD: true, AD: true, CD: true, Class: dns.ClassINET, Size: 1232}},
		{"+norec asks for nobody's validation either", &pb.DNSSpec{NoRecursion: true}, seenOptions{Class: dns.ClassINET, Size: 1232}},
		{"+nsid", &pb.DNSSpec{Nsid: true}, seenOptions{RD: true, AD: true, NSID: true, Class: dns.ClassINET, Size: 1232}},
		{"+subnet, without the bits beyond it", &pb.DNSSpec{ClientSubnet: "192.0.2.77/24"}, seenOptions{RD: true, AD: true, Class: dns.ClassINET, Size: 1232, Subnet: "192.0.2.0/24/0"}},
		{"+subnet of IPv6", &pb.DNSSpec{ClientSubnet: "2001:db8:ffff::/33"}, seenOptions{RD: true, AD: true, Class: dns.ClassINET, Size: 1232, Subnet: "[2001:db8:8000::]/33/0"}},
		{"+subnet=0.0.0.0/0 hides the client", &pb.DNSSpec{ClientSubnet: "0.0.0.0/0"}, seenOptions{RD: true, AD: true, Class: dns.ClassINET, Size: 1232, Subnet: "0.0.0.0/0/0"}},
		{"+bufsize", &pb.DNSSpec{BufferSize: 4096}, seenOptions{RD: true, AD: true, Class: dns.ClassINET, Size: 4096}},
		{"class CH", &pb.DNSSpec{Class: "CH"}, seenOptions{RD: true, AD: true, Class: dns.ClassCHAOS, Size: 1232}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.spec.Name = "www.example"
			seen := make(chan seenOptions, 16)
			s := askDatagrams(t, tt.spec, func(q *dns.Msg) []*dns.Msg {
				seen <- see(q)
				return []*dns.Msg{replyTo(q)}
			})
			if s.GetFailure() != pb.Failure_FAILURE_NONE {
				t.Errorf("%v", s)
			}
			if diff := cmp.Diff(tt.want, <-seen); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplyEvidence(t *testing.T) {
	t.Parallel()
	spec := &pb.DNSSpec{Name: "www.example", Type: "SOA", Nsid: true, ClientSubnet: "192.0.2.0/24", CheckingDisabled: true}
	s := askDatagrams(t, spec, func(q *dns.Msg) []*dns.Msg {
		soa, _ := dns.NewRR("www.example. 60 IN SOA ns.example. root.example. 2026010101 1 2 3 4")
		glue, _ := dns.NewRR("ns.example. 60 IN A 192.0.2.53")
		m := replyTo(q, soa)
		m.CheckingDisabled, m.AuthenticatedData = true, true
		m.Extra = append(m.Extra, glue)
		m.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: hex.EncodeToString([]byte("ns\x001"))},
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 20, Address: net.IPv4(192, 0, 2, 0)},
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer, ExtraText: "old"},
		}
		return []*dns.Msg{m}
	})
	got := s.GetEvidence().GetReplies()[0]
	want := &pb.DNSReply{
		Transport: "udp", Rcode: "NOERROR", AuthenticData: true, CheckingDisabled: true, Nsid: []byte("ns\x001"),
		ClientSubnet:   &pb.ClientSubnet{Prefix: "192.0.2.0/24", Scope: 20},
		SoaSerial:      proto.Uint32(2026010101),
		Answers:        []*pb.Record{{Name: "www.example", Ttl: 60, Type: "SOA", Data: "ns.example. root.example. 2026010101 1 2 3 4"}},
		Additional:     []*pb.Record{{Name: "ns.example", Ttl: 60, Type: "A", Data: "192.0.2.53"}},
		ExtendedErrors: []*pb.ExtendedError{{Code: 3, Text: "old"}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&pb.DNSReply{}, "rtt", "size")); diff != "" {
		t.Error(diff)
	}
}

func TestALargeReplyIsTakenIfItWasAskedFor(t *testing.T) {
	t.Parallel()
	var rrs []dns.RR
	for range 200 {
		rrs = append(rrs, &dns.TXT{
			Hdr: dns.RR_Header{Name: "www.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 250)},
		})
	}
	s := askDatagrams(t, &pb.DNSSpec{Name: "www.example", Type: "TXT", BufferSize: 65535}, func(q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{replyTo(q, rrs...)}
	})
	if r := s.GetEvidence().GetReplies(); s.GetFailure() != pb.Failure_FAILURE_NONE || len(r) != 1 || r[0].GetSize() < 50_000 || r[0].GetTransport() != "udp" {
		t.Errorf("%s: %d replies, %d bytes", Short(s.GetFailure()), len(r), r[0].GetSize())
	}
}

func TestWhatEDNSWouldHaveCarriedIsMissed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		spec *pb.DNSSpec
		want string
	}{
		{"options that were asked for and lost are named", &pb.DNSSpec{Dnssec: true, Nsid: true}, "the reply is to a query without EDNS, and so without DO, NSID"},
		{"nothing is lost where nothing was asked for", &pb.DNSSpec{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.spec.Name = "www.example"
			s := askDatagrams(t, tt.spec, func(q *dns.Msg) []*dns.Msg {
				m := replyTo(q)
				if q.IsEdns0() != nil {
					m.Rcode, m.Answer, m.Extra = dns.RcodeFormatError, nil, nil
				}
				return []*dns.Msg{m}
			})
			if s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetEvidence().GetText() != tt.want {
				t.Errorf("%s %q, want %q", Short(s.GetFailure()), s.GetEvidence().GetText(), tt.want)
			}
		})
	}
}

func TestEveryReplyIsKept(t *testing.T) {
	t.Parallel()
	guess := func(q *dns.Msg, by uint16) *dns.Msg {
		m := replyTo(q)
		m.Id += by
		return m
	}
	for _, tt := range []struct {
		name             string
		answers          func(q *dns.Msg) []*dns.Msg
		good, mismatched int
	}{
		{"a guess before the answer is evidence and no answer", func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{guess(q, 1), replyTo(q)} }, 1, 1},
		{"a guess after the answer too", func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{replyTo(q), guess(q, 1)} }, 1, 1},
		{"an injected reply shows as two", func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{replyTo(q), replyTo(q)} }, 2, 0},
		{"a flood of guesses does not keep the answer out", func(q *dns.Msg) (out []*dns.Msg) {
			for i := range uint16(40) {
				out = append(out, guess(q, i+1))
			}
			return append(out, replyTo(q))
		}, 1, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := askDatagrams(t, &pb.DNSSpec{Name: "www.example"}, tt.answers)
			var good, mismatched int
			for _, r := range s.GetEvidence().GetReplies() {
				if r.GetMismatched() {
					mismatched++
				} else {
					good++
				}
			}
			if s.GetFailure() != pb.Failure_FAILURE_NONE || good != tt.good || mismatched != tt.mismatched {
				t.Errorf("%s, %d good and %d mismatched replies, want %d and %d", Short(s.GetFailure()), good, mismatched, tt.good, tt.mismatched)
			}
		})
	}
}

func TestAReplyCutInTheMiddleOfARecordIsCut(t *testing.T) {
	t.Parallel()
	s := askPackets(t, &pb.DNSSpec{Name: "www.example"}, func(query []byte) [][]byte {
		wire := zoneAnswer(query)
		wire[2] |= 2 // TC.
		return [][]byte{wire[:len(wire)-3]}
	})
	if s.GetFailure() != pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP || !s.GetEvidence().GetReplies()[0].GetTruncated() {
		t.Errorf("%v", s)
	}
}
