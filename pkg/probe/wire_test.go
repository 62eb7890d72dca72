package probe

import (
	"testing"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
)

// FuzzReply: whatever arrives, it is refused or becomes evidence within the bounds.
func FuzzReply(f *testing.F) {
	query := message("www.example", dns.TypeA, true)
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
	f.Fuzz(func(t *testing.T, wire []byte) {
		m, err := parseReply(query, wire)
		if (m == nil) == (err == nil) {
			t.Fatalf("message %v, error %v", m, err)
		}
		if err != nil {
			return
		}
		r := describe(m, len(wire))
		if len(r.GetAnswers()) > maxRecords || len(r.GetAuthority()) > maxRecords {
			t.Errorf("%d and %d records", len(r.GetAnswers()), len(r.GetAuthority()))
		}
		for _, rec := range r.GetAnswers() {
			if len(rec.GetData()) > maxData {
				t.Errorf("%d bytes of data", len(rec.GetData()))
			}
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

func TestPresentation(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a.example. 60 IN A 127.0.0.2":                     "127.0.0.2",
		"a.example. 60 IN MX 10 Mail.example.":             "10 Mail.example.",
		`a.example. 60 IN TXT "one" "t\"wo"`:               `"one" "t\"wo"`,
		`a.example. 60 IN TYPE65400 \# 3 abcdef`:           `\# 3 abcdef`,
		`a.example. 60 IN HTTPS 1 . alpn="h2"`:             `1 . alpn="h2"`,
		"a.example. 60 IN CAA 0 issue \"ca.example; x=y\"": `0 issue "ca.example; x=y"`,
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := records([]dns.RR{rr})[0]; got.GetData() != want || got.GetName() != "a.example" || got.GetTtl() != 60 {
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
