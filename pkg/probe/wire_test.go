package probe

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// FuzzReply: whatever arrives, it is refused or becomes evidence within the bounds.
func FuzzReply(f *testing.F) {
	query := (&query{name: "www.example", qtype: dns.TypeA}).message(true)
	query.Id = 0x1234
	for _, texts := range [][]string{
		nil,
		{"www.example. 60 IN CNAME edge.example.", "edge.example. 60 IN A 127.0.0.2"},
		{`www.example. 60 IN TXT "a\000\255b"`, "www.example. 60 IN AAAA ::1"},
		{`www.example. 60 IN HTTPS 1 . alpn="h2" ipv4hint=127.0.0.1`},
	} {
		reply := new(dns.Msg).SetReply(query)
		for _, text := range texts {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			reply.Answer = append(reply.Answer, rr)
		}
		reply.SetEdns0(1232, false)
		reply.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 6, ExtraText: "bogus"}}
		wire, err := reply.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	for _, wire := range hostileReplies(f, query) {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m, err := parseReply(query, wire)
		switch {
		case err == nil && (m == nil || m.Id != query.Id || !m.Response):
			t.Fatalf("taken for an answer: %v", m)
		case err != nil && m != nil && !errors.Is(err, errMismatch):
			t.Fatalf("message %v, error %v", m, err)
		case m == nil:
			return
		}
		r := describe(m, len(wire))
		for _, section := range [][]*pb.Record{r.GetAnswers(), r.GetAuthority(), r.GetAdditional()} {
			if len(section) > maxRecords {
				t.Errorf("%d records", len(section))
			}
			for _, rec := range section {
				if len(rec.GetData()) > maxData || strings.ContainsFunc(rec.GetName()+rec.GetData(), unicode.IsControl) {
					t.Errorf("data that is long or not clean: %q", rec)
				}
			}
		}
		if len(r.GetNsid()) > maxNSID || len(r.GetExtendedErrors()) > maxEDE {
			t.Errorf("%d bytes of NSID, %d extended errors", len(r.GetNsid()), len(r.GetExtendedErrors()))
		}
		if _, err := proto.Marshal(r); err != nil {
			t.Errorf("the evidence cannot be sent: %v", err)
		}
		for _, ip := range addresses(m) {
			if !ip.IsValid() || ip.Is4In6() {
				t.Errorf("address %v", ip)
			}
		}
	})
}

// hostileReplies are replies that try to break whoever reads them.
func hostileReplies(f *testing.F, query *dns.Msg) [][]byte {
	pack := func(m *dns.Msg) []byte {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return wire
	}
	header := dns.RR_Header{Name: "www.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}
	giant, many := new(dns.Msg).SetReply(query), new(dns.Msg).SetReply(query)
	giant.Answer = []dns.RR{&dns.TXT{Hdr: header, Txt: slices.Repeat([]string{strings.Repeat("\x1b\xff\x00", 85)}, 200)}}
	header.Rrtype = dns.TypeA
	many.Answer = slices.Repeat([]dns.RR{&dns.A{Hdr: header, A: []byte{127, 0, 0, 2}}}, 2000)
	options := new(dns.Msg).SetReply(query).SetEdns0(512, true)
	options.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: strings.Repeat("1b", 4000)},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 56, SourceScope: 200, Address: net.IPv6loopback},
		&dns.EDNS0_EDE{InfoCode: 65535, ExtraText: "\x1b[31m\xff\u202e"},
	}
	cut := pack(giant)
	cut[2] |= 2 // TC.
	head := pack(new(dns.Msg).SetReply(query))[:12]
	loop := append(append(slices.Clone(head), 0xc0, 12), 0, 1, 0, 1) // A name that points to itself.
	maze := append(slices.Clone(head), "\xc0\x0e\xc0\x10\xc0\x0c\x00\x01\x00\x01"...)
	ugly := append(slices.Clone(head), "\x04\xff\x1b.\x00\x03\xe2\x80\xae\x00\x00\x01\x00\x01"...)
	return [][]byte{nil, head, pack(giant), pack(many), pack(options), cut[:len(cut)/2], cut[:13], loop, maze, ugly}
}

func TestPresentation(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a.example. 60 IN A 127.0.0.2":                                            "127.0.0.2",
		"a.example. 60 IN MX 10 Mail.example.":                                    "10 Mail.example.",
		`a.example. 60 IN TXT "one" "t\"wo"`:                                      `"one" "t\"wo"`,
		`a.example. 60 IN TXT "\000\255;\\"`:                                      `"\000\255;\\"`,
		`a.example. 60 IN TYPE65400 \# 3 abcdef`:                                  `\# 3 ABCDEF`,
		`a.example. 60 IN TYPE10 \# 2 0102`:                                       `\# 2 0102`,
		`a.example. 60 IN TYPE65400 \# 0`:                                         `\# 0`,
		`a.example. 60 IN HTTPS 1 . alpn="h2" ipv4hint=127.0.0.1`:                 `1 . alpn="h2" ipv4hint=127.0.0.1`,
		`a.example. 60 IN HTTPS 1 . alpn="h2" no-default-alpn=""`:                 `1 . alpn="h2" no-default-alpn`,
		`a.example. 60 IN SVCB 2 svc.example. port=8443 key65333="x"`:             `2 svc.example. port=8443 key65333="x"`,
		"a.example. 60 IN CAA 0 issue \"ca.example; x=y\"":                        `0 issue "ca.example; x=y"`,
		`a.example. 60 IN NAPTR 10 20 "s" "SIP+D2U" "" _sip._udp.example.`:        `10 20 "s" "SIP+D2U" "" _sip._udp.example.`,
		"a.example. 60 IN SSHFP 4 2 123456789abcdef67890123456789abcdef67890":     "4 2 123456789ABCDEF67890123456789ABCDEF67890",
		"a.example. 60 IN TLSA 3 1 1 0c72ac70b745ac19998811b131d662c9":            "3 1 1 0C72AC70B745AC19998811B131D662C9",
		"a.example. 60 IN SRV 1 2 443 www.example.":                               "1 2 443 www.example.",
		"a.example. 60 IN SOA ns.example. root.example. 7 1 2 3 4":                "ns.example. root.example. 7 1 2 3 4",
		"a.example. 60 IN DS 60485 5 1 2bb183af5f22588179a53b0a98631fad1a292118":  "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
		"a.example. 60 IN NSEC b.example. A TYPE65400":                            "b.example. A TYPE65400",
		"a.example. 60 IN NSEC3 1 0 5 aabb 2t7b4g4vsa5smi47k61mv5bv1a22bojr A":    "1 0 5 AABB 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR A",
		"a.example. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 7 e. aGk=": "A 8 2 60 20300101000000 20200101000000 7 e. aGk=",
		"a.example. 60 IN DNSKEY 257 3 8 aGk=":                                    "257 3 8 aGk=",
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		// By way of the wire, as it comes.
		wire, err := (&dns.Msg{Answer: []dns.RR{rr}}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		if got := records(m.Answer)[0]; got.GetData() != want || got.GetName() != "a.example" || got.GetTtl() != 60 {
			t.Errorf("%s: %v, want data %s", text, got, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		".": ".", "Example.COM.": "example.com", "_dmarc.example": "_dmarc.example", "bücher.example": "xn--bcher-kva.example",
	} {
		if got := canonical(in); got != want {
			t.Errorf("canonical(%q) = %q, want %q", in, got, want)
		}
	}
}
