package question_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ask asks as the command line does: the first word is the check.
func ask(line string, extra ...string) (*question.Question, error) {
	words := strings.Fields(line)
	value := strings.Join(extra, "")
	switch words[0] {
	case "tcp":
		return question.TCP(words[1:], value)
	case "tls":
		return question.TLS(words[1:], value)
	}
	return question.DNS(words[1:], extra)
}

func dnsSpec(s *pb.DNSSpec) *pb.Spec { return &pb.Spec{Check: &pb.Spec_Dns{Dns: s}} }
func tcpSpec(s *pb.TCPSpec) *pb.Spec { return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: s}} }
func tlsSpec(s *pb.TLSSpec) *pb.Spec { return &pb.Spec{Check: &pb.Spec_Tls{Tls: s}} }

func TestWordsBecomeASpec(t *testing.T) {
	a := func(name string) *pb.Spec { return dnsSpec(&pb.DNSSpec{Name: name, Type: "A"}) }
	port := func(host string, port uint32) *pb.Spec { return tcpSpec(&pb.TCPSpec{Host: host, Port: port}) }
	for name, tc := range map[string]struct {
		line  string
		extra []string
		spec  *pb.Spec
		from  string
		short bool
	}{
		"a name alone asks for A":                     {line: "dns example.com", spec: a("example.com")},
		"the root is a name":                          {line: "dns . NS", spec: dnsSpec(&pb.DNSSpec{Name: ".", Type: "NS"})},
		"a dot at the end stays":                      {line: "dns example.com.", spec: a("example.com.")},
		"an underscore is fine":                       {line: "dns _dmarc.example.com txt", spec: dnsSpec(&pb.DNSSpec{Name: "_dmarc.example.com", Type: "TXT"})},
		"a wildcard is fine":                          {line: "dns *.example.com", spec: a("*.example.com")},
		"a label of 63 bytes is fine":                 {line: "dns " + strings.Repeat("a", 63) + ".example", spec: a(strings.Repeat("a", 63) + ".example")},
		"a type may come first, as dig has it":        {line: "dns mx example.com", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "MX"})},
		"a name may look like a type":                 {line: "dns mx", spec: a("mx")},
		"of two types the first one is the name":      {line: "dns mx txt", spec: dnsSpec(&pb.DNSSpec{Name: "mx", Type: "TXT"})},
		"a type by number gets its mnemonic":          {line: "dns example.com type65", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "HTTPS"})},
		"a number without a mnemonic stays":           {line: "dns example.com TYPE65280", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TYPE65280"})},
		"a name in another script becomes A-labels":   {line: "dns Bücher.example", spec: a("xn--bcher-kva.example")},
		"PTR of an address asks the reverse tree":     {line: "dns 192.0.2.1 PTR", spec: dnsSpec(&pb.DNSSpec{Name: "1.2.0.192.in-addr.arpa.", Type: "PTR"})},
		"a resolver":                                  {line: "dns example.com @192.0.2.53", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "A", Resolver: "192.0.2.53"})},
		"a resolver with a port, before the name":     {line: "dns @[2001:db8::53]:5353 example.com", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "A", Resolver: "[2001:db8::53]:5353"})},
		"expectations; addresses in one spelling":     {line: "dns example.com AAAA", extra: []string{"2001:DB8:0::1"}, spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "AAAA", Expect: []string{"2001:db8::1"}})},
		"expectations of text are left alone":         {line: "dns example.com TXT", extra: []string{`"V=spf1 -all"`}, spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TXT", Expect: []string{`"V=spf1 -all"`}})},
		"from with one word":                          {line: "dns example.com from Germany+AWS,JP", spec: a("example.com"), from: "Germany+AWS,JP"},
		"from with more words":                        {line: "dns example.com from New York", spec: a("example.com"), from: "New York"},
		"from ends where a resolver begins":           {line: "dns example.com from New York @192.0.2.53", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "A", Resolver: "192.0.2.53"}), from: "New York"},
		"a type after from is still the type":         {line: "dns example.com from JP aaaa", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "AAAA"}), from: "JP"},
		"but a place may be called like one":          {line: "dns example.com from MX", spec: a("example.com"), from: "MX"},
		"from may come first":                         {line: "dns from JP example.com MX", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "MX"}), from: "JP"},
		"+short":                                      {line: "dns +short example.com", spec: a("example.com"), short: true},
		"a host and a port":                           {line: "tcp example.com:443", spec: port("example.com", 443)},
		"an IPv4 address and a port":                  {line: "tcp 192.0.2.1:1", spec: port("192.0.2.1", 1)},
		"an IPv6 address and a port, in one spelling": {line: "tcp [2001:DB8::1]:65535", spec: port("2001:db8::1", 65535)},
		"a host after from":                           {line: "tcp from New example.com:443 York", spec: nil},
		"a place of two words after the host":         {line: "tcp example.com:443 from New York", spec: port("example.com", 443), from: "New York"},
		"blocked is expected":                         {line: "tcp example.com:25", extra: []string{"Blocked"}, spec: tcpSpec(&pb.TCPSpec{Host: "example.com", Port: 25, Expect: pb.Reachability_REACHABILITY_BLOCKED})},
		"tls has port 443":                            {line: "tls example.com", spec: tlsSpec(&pb.TLSSpec{Host: "example.com", Port: 443})},
		"tls with a port and a name to send":          {line: "tls 192.0.2.1:8443", extra: []string{"Bücher.example"}, spec: tlsSpec(&pb.TLSSpec{Host: "192.0.2.1", Port: 8443, ServerName: "xn--bcher-kva.example"})},
		"tls of IPv6 without brackets and port":       {line: "tls 2001:db8::1", spec: tlsSpec(&pb.TLSSpec{Host: "2001:db8::1", Port: 443})},
		"tls of IPv6 in brackets without a port":      {line: "tls [2001:db8::1] from JP", spec: tlsSpec(&pb.TLSSpec{Host: "2001:db8::1", Port: 443}), from: "JP"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := ask(tc.line, tc.extra...)
			if tc.spec == nil {
				if err == nil {
					t.Errorf("got %v, want an error", q)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.spec, q.Spec, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if q.From != tc.from || q.Short != tc.short {
				t.Errorf("from %q, short %v; want %q, %v", q.From, q.Short, tc.from, tc.short)
			}
			if _, err := q.Request(question.Options{From: "world", Limit: 20, Timeout: 30 * time.Second}); err != nil {
				t.Errorf("the contract refuses it: %v", err)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	for line, want := range map[string]string{"": "", "from JP": "JP", "from New York City": "New York City"} {
		if got, err := question.Where(strings.Fields(line)); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"JP", "from", "@192.0.2.1", "+short", "from JP +short"} {
		if got, err := question.Where(strings.Fields(line)); err == nil {
			t.Errorf("%q: got %q, want an error", line, got)
		}
	}
}

// FuzzWords holds that whatever the words are, there is an error of one harmless line or a request
// that the contract accepts.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{
		"dns example.com MX @192.0.2.53 from Germany,JP +short", "tcp [2001:db8::1]:22 from New York", "tls from JP example.com:443",
		"dns from from from", "tcp :::", "dns \x1b[2J \xff", "dns xn--a", "tls ☃.example", "dns 1.2.3.4 ptr", "tcp [::1%25eth0]:1",
		"dns a\u200db.example", "dns \u3002", "tls EXAMPLE。com", "tcp a:1 from \xff", "dns a TXT",
	} {
		f.Add(seed, "203.0.113.10")
	}
	f.Add("dns example.com TXT", "\xff")
	f.Fuzz(func(t *testing.T, line, value string) {
		if len(strings.Fields(line)) == 0 {
			return
		}
		q, err := ask(line, value)
		if err == nil {
			var req *pb.CreateMeasurementRequest
			if req, err = q.Request(question.Options{From: q.From, Limit: 20, Timeout: 30 * time.Second}); err == nil {
				if _, err := proto.Marshal(req); err != nil {
					t.Errorf("%q cannot be sent: %v", line, err)
				}
				return
			}
		}
		if msg := err.Error(); msg == "" || strings.ContainsAny(msg, "\n\x1b") {
			t.Errorf("%q: error %q", line, msg)
		}
	})
}
