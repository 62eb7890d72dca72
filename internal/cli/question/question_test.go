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
		return question.TCP(words[1:], question.TCPFlags{Expect: value})
	case "tls":
		return question.TLS(words[1:], question.TLSFlags{ServerName: value})
	case "http":
		return question.HTTP(words[1:], question.HTTPFlags{ExpectBody: value})
	}
	return question.DNS(words[1:], question.DNSFlags{Expect: extra})
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
		"a type that the contract has by number":      {line: "dns example.com loc", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TYPE29"})},
		"its number stays":                            {line: "dns example.com TYPE29", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TYPE29"})},
		"any type is one by number, too":              {line: "dns example.com ANY", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TYPE255"})},
		"types of DNSSEC are known by name":           {line: "dns example.com NSEC3", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "NSEC3"})},
		"a number without a mnemonic stays":           {line: "dns example.com TYPE65280", spec: dnsSpec(&pb.DNSSpec{Name: "example.com", Type: "TYPE65280"})},
		"a name in another script becomes A-labels":   {line: "dns Bücher.example", spec: a("xn--bcher-kva.example")},
		"PTR of an address asks the reverse tree":     {line: "dns 192.0.2.1 PTR", spec: dnsSpec(&pb.DNSSpec{Name: "1.2.0.192.in-addr.arpa", Type: "PTR"})},
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

func TestTheOptionsOfDig(t *testing.T) {
	for line, want := range map[string]*pb.DNSSpec{
		"+dnssec":                              {Dnssec: true},
		"+do":                                  {Dnssec: true},
		"+dnssec +nodnssec":                    {},
		"+cd":                                  {CheckingDisabled: true},
		"+cdflag":                              {CheckingDisabled: true},
		"+nocd":                                {},
		"+norec":                               {NoRecursion: true},
		"+norecurse":                           {NoRecursion: true},
		"+nordflag":                            {NoRecursion: true},
		"+norec +rec":                          {},
		"+NSID":                                {Nsid: true},
		"+subnet=192.0.2.0/24":                 {ClientSubnet: "192.0.2.0/24"},
		"+subnet=192.0.2.77/24":                {ClientSubnet: "192.0.2.0/24"},
		"+subnet=192.0.2.1":                    {ClientSubnet: "192.0.2.1/32"},
		"+subnet=192.0/16":                     {ClientSubnet: "192.0.0.0/16"},
		"+subnet=0":                            {ClientSubnet: "0.0.0.0/0"},
		"+subnet=::/0":                         {ClientSubnet: "::/0"},
		"+sub=2001:db8::1":                     {ClientSubnet: "2001:db8::1/128"},
		"+subnet=192.0.2.1 +nosubnet":          {},
		"+bufsize=4096":                        {BufferSize: 4096},
		"+buf=512 +nobufsize":                  {},
		"+tcp":                                 {Transport: pb.Transport_TRANSPORT_TCP},
		"+vc":                                  {Transport: pb.Transport_TRANSPORT_TCP},
		"+tcp +notcp +tls":                     {Transport: pb.Transport_TRANSPORT_TLS},
		"+tls +tls-hostname=Dns.example":       {Transport: pb.Transport_TRANSPORT_TLS, TlsHostname: "Dns.example"},
		"+tls +tls-h=Bücher.example":           {Transport: pb.Transport_TRANSPORT_TLS, TlsHostname: "xn--bcher-kva.example"},
		"+https":                               {Transport: pb.Transport_TRANSPORT_HTTPS},
		"+https-post":                          {Transport: pb.Transport_TRANSPORT_HTTPS},
		"+https=/Q":                            {Transport: pb.Transport_TRANSPORT_HTTPS, HttpsPath: "/Q"},
		"+https=/Q +https-get":                 {Transport: pb.Transport_TRANSPORT_HTTPS_GET, HttpsPath: "/Q"},
		"+https-get=/Q":                        {Transport: pb.Transport_TRANSPORT_HTTPS_GET, HttpsPath: "/Q"},
		"+https-get +nohttps-get":              {},
		"+https-get +https-post +nohttps-post": {Transport: pb.Transport_TRANSPORT_HTTPS_GET},
		"+https-get +nohttps +quic":            {Transport: pb.Transport_TRANSPORT_QUIC},
		"+trace":                               {Trace: true},
		"+tra +notrace":                        {},
		"+dnssec +cd +norec +nsid +bufsize=1400 +tcp +trace": {
			Dnssec: true, CheckingDisabled: true, NoRecursion: true, Nsid: true, BufferSize: 1400, Transport: pb.Transport_TRANSPORT_TCP, Trace: true,
		},
	} {
		want.Name, want.Type = "example.com", "A"
		q, err := ask("dns " + line + " example.com")
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(dnsSpec(want), q.Spec, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
		if _, err := q.Request(question.Options{Limit: 20, Timeout: 30 * time.Second}); err != nil {
			t.Errorf("%s: the contract refuses it: %v", line, err)
		}
	}
}

func TestTheFlagsOfDig(t *testing.T) {
	for name, tc := range map[string]struct {
		line  string
		flags question.DNSFlags
		want  *pb.DNSSpec
	}{
		"a type by -t":                    {"example.com", question.DNSFlags{Type: "mx"}, &pb.DNSSpec{Name: "example.com", Type: "MX"}},
		"the name may then look like one": {"mx", question.DNSFlags{Type: "mx"}, &pb.DNSSpec{Name: "mx", Type: "MX"}},
		"a class as a word":               {"id.server CH TXT", question.DNSFlags{}, &pb.DNSSpec{Name: "id.server", Type: "TXT", Class: "CH"}},
		"in any order":                    {"txt chaos id.server", question.DNSFlags{}, &pb.DNSSpec{Name: "id.server", Type: "TXT", Class: "CH"}},
		"a class by -c has TXT":           {"version.bind", question.DNSFlags{Class: "ch"}, &pb.DNSSpec{Name: "version.bind", Type: "TXT", Class: "CH"}},
		"IN need not be said":             {"example.com in", question.DNSFlags{}, &pb.DNSSpec{Name: "example.com", Type: "A"}},
		"a name that is called IN":        {"in", question.DNSFlags{}, &pb.DNSSpec{Name: "in", Type: "A"}},
		"the name of an IPv4 address":     {"@192.0.2.53", question.DNSFlags{Reverse: "192.0.2.1"}, &pb.DNSSpec{Name: "1.2.0.192.in-addr.arpa", Type: "PTR", Resolver: "192.0.2.53"}},
		"the name of an IPv6 address": {"from New York", question.DNSFlags{Reverse: "2001:db8::1"}, &pb.DNSSpec{
			Name: "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", Type: "PTR",
		}},
		"PTR may be said too":             {"PTR", question.DNSFlags{Reverse: "192.0.2.1"}, &pb.DNSSpec{Name: "1.2.0.192.in-addr.arpa", Type: "PTR"}},
		"a server by name":                {"a @Bücher.example", question.DNSFlags{}, &pb.DNSSpec{Name: "a", Type: "A", Resolver: "xn--bcher-kva.example"}},
		"a server by name with a port":    {"b.example @dns.example:853", question.DNSFlags{}, &pb.DNSSpec{Name: "b.example", Type: "A", Resolver: "dns.example:853"}},
		"a server in brackets":            {"b.example @[2001:db8::1]", question.DNSFlags{}, &pb.DNSSpec{Name: "b.example", Type: "A", Resolver: "2001:db8::1"}},
		"all of the zone's own servers":   {"b.example", question.DNSFlags{Authoritative: true}, &pb.DNSSpec{Name: "b.example", Type: "A", Authoritative: true}},
		"public resolvers that are known": {"b.example", question.DNSFlags{Public: true}, &pb.DNSSpec{Name: "b.example", Type: "A", LocalPublicResolvers: true}},
		"public resolvers that are chosen": {"b.example", question.DNSFlags{Public: true, PublicAt: "192.0.2.1, [2001:db8::1]:5353,192.0.2.2:54,2001:DB8::2"}, &pb.DNSSpec{
			Name: "b.example", Type: "A", PublicResolvers: []string{"192.0.2.1", "[2001:db8::1]:5353", "192.0.2.2:54", "2001:db8::2"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := question.DNS(strings.Fields(tc.line), tc.flags)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := q.Request(question.Options{Limit: 20, Timeout: 30 * time.Second}); err != nil {
				t.Errorf("the contract refuses it: %v", err)
			}
			if diff := cmp.Diff(dnsSpec(tc.want), q.Spec, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTLSFlagsBecomeASpec(t *testing.T) {
	for name, tc := range map[string]struct {
		flags question.TLSFlags
		want  *pb.TLSSpec
	}{
		"no server name":         {question.TLSFlags{NoServerName: true}, &pb.TLSSpec{NoServerName: true}},
		"more names":             {question.TLSFlags{Names: []string{"a.example", "Bücher.example"}}, &pb.TLSSpec{Names: []string{"a.example", "xn--bcher-kva.example"}}},
		"application protocols":  {question.TLSFlags{ALPN: "h2, http/1.1"}, &pb.TLSSpec{Alpn: []string{"h2", "http/1.1"}}},
		"versions in all spells": {question.TLSFlags{Versions: "SSLv3,tls1,TLSv1.1,tls1_2,TLS 1.3,ssl3"}, &pb.TLSSpec{Offer: &pb.TLSOffer{Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"}}}},
		"suites, groups, schemes": {
			question.TLSFlags{Ciphers: "TLS_RSA_WITH_AES_128_CBC_SHA:0xC02F:ECDHE-RSA-AES128-SHA:0xFFFE", Groups: "X25519:prime256v1", SigAlgs: "rsa_pkcs1_sha256"},
			&pb.TLSSpec{Offer: &pb.TLSOffer{CipherSuites: []string{"TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "0xFFFE"}, Groups: []string{"x25519", "secp256r1"}, SignatureSchemes: []string{"rsa_pkcs1_sha256"}}},
		},
		"what it accepts": {question.TLSFlags{Enumerate: true}, &pb.TLSSpec{Enumerate: true}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Host, tc.want.Port = "example.com", 443
			q, err := question.TLS([]string{"example.com"}, tc.flags)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tlsSpec(tc.want), q.Spec, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if _, err := q.Request(question.Options{Limit: 20, Timeout: 30 * time.Second}); err != nil {
				t.Errorf("the contract refuses it: %v", err)
			}
		})
	}
}

// TestOffersThatCannotBeAgreedTo: suites of other versions than those offered.
func TestOffersThatCannotBeAgreedTo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		versions, ciphers string
		fine              bool
	}{
		"a suite of TLS 1.3 in TLS 1.2":  {"tls1.2", "TLS_AES_128_GCM_SHA256", false},
		"an AEAD in TLS 1.0":             {"tls1,tls1.1", "ECDHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256", false},
		"one that fits is enough":        {"tls1.2", "TLS_AES_128_GCM_SHA256:AES128-SHA", true},
		"one that nobody registered":     {"tls1", "0xFAFB", true},
		"versions that the suites allow": {"", "TLS_AES_128_GCM_SHA256", true},
	} {
		_, err := question.TLS([]string{"example.com"}, question.TLSFlags{Versions: tc.versions, Ciphers: tc.ciphers})
		if (err == nil) != tc.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestURLsAndFlagsOfHTTPBecomeASpec(t *testing.T) {
	for name, tc := range map[string]struct {
		url   string
		flags question.HTTPFlags
		want  *pb.HTTPSpec
	}{
		"a URL as it is":               {"https://example.com/a?b=c&d=%20", question.HTTPFlags{}, &pb.HTTPSpec{Url: "https://example.com/a?b=c&d=%20"}},
		"a URL without a path":         {"HTTP://example.com", question.HTTPFlags{}, &pb.HTTPSpec{Url: "http://example.com"}},
		"a query without a path":       {"http://example.com?q", question.HTTPFlags{}, &pb.HTTPSpec{Url: "http://example.com?q"}},
		"another script":               {"https://Bücher.example:8443/größe?ü", question.HTTPFlags{}, &pb.HTTPSpec{Url: "https://xn--bcher-kva.example:8443/gr%C3%B6%C3%9Fe?%C3%BC"}},
		"characters that are not safe": {`https://example.com/a|b"c`, question.HTTPFlags{}, &pb.HTTPSpec{Url: "https://example.com/a%7Cb%22c"}},
		"an IPv6 address":              {"https://[2001:DB8::1]/", question.HTTPFlags{}, &pb.HTTPSpec{Url: "https://[2001:db8::1]/"}},
		"an IPv6 address with a port":  {"http://[2001:db8::1]:8080/", question.HTTPFlags{}, &pb.HTTPSpec{Url: "http://[2001:db8::1]:8080/"}},
		"names and a version": {
			"https://192.0.2.1/",
			question.HTTPFlags{Method: "head", Host: "Bücher.example:8443", ServerName: "a.example", HTTP1: true},
			&pb.HTTPSpec{Url: "https://192.0.2.1/", Method: "HEAD", HostHeader: "xn--bcher-kva.example:8443", ServerName: "a.example", Version: pb.HTTPVersion_HTTP_VERSION_1_1},
		},
		"header fields": {
			"https://a.example/",
			question.HTTPFlags{Headers: []string{"Accept:text/html", "X-Empty:", "X-Two:  a: b "}},
			&pb.HTTPSpec{Url: "https://a.example/", Headers: []*pb.HeaderField{{Name: "Accept", Value: "text/html"}, {Name: "X-Empty"}, {Name: "X-Two", Value: "a: b"}}},
		},
		"expectations": {
			"https://a.example/",
			question.HTTPFlags{Follow: 3, HTTP2: true, ExpectStatus: []string{"200, 3XX", "400-404"}, ExpectHeader: []string{"Server: ^nginx"}, ExpectBody: "o+k"},
			&pb.HTTPSpec{
				Url: "https://a.example/", MaxRedirects: 3, Version: pb.HTTPVersion_HTTP_VERSION_2,
				ExpectStatus: []string{"200", "3xx", "400-404"}, ExpectHeader: []string{"Server: ^nginx"}, ExpectBody: "o+k",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := question.HTTP([]string{tc.url}, tc.flags)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&pb.Spec{Check: &pb.Spec_Http{Http: tc.want}}, q.Spec, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if _, err := q.Request(question.Options{Limit: 20, Timeout: 30 * time.Second}); err != nil {
				t.Errorf("the contract refuses it: %v", err)
			}
		})
	}
}

func TestOriginsBecomeASpec(t *testing.T) {
	for sentence, tc := range map[string]struct {
		url   string
		flags question.OriginFlags
		want  *pb.OriginSpec
	}{
		"a URL alone; the coordinator chooses": {"https://origin.example.com", question.OriginFlags{}, &pb.OriginSpec{Url: "https://origin.example.com"}},
		"a port, a path, another script":       {"http://Bücher.example:8080/a?b", question.OriginFlags{}, &pb.OriginSpec{Url: "http://xn--bcher-kva.example:8080/a?b"}},
		"a Host that is forwarded": {
			"https://o.example", question.OriginFlags{Host: "www.example.com"}, &pb.OriginSpec{Url: "https://o.example", HostHeader: "www.example.com"},
		},
		"protocols in CloudFront's words and in openssl's, each once": {
			"https://o.example",
			question.OriginFlags{SSLProtocols: "SSLv3,TLSv1, TLSv1.1,tls1.2,TLSv1.2"},
			&pb.OriginSpec{Url: "https://o.example", Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2"}},
		},
		"a place": {"https://o.example from", question.OriginFlags{}, nil},
	} {
		q, err := question.Origin(strings.Fields(tc.url), tc.flags)
		if (err != nil) != (tc.want == nil) {
			t.Errorf("%s: %v", sentence, err)
			continue
		}
		if tc.want == nil {
			continue
		}
		if diff := cmp.Diff(&pb.Spec{Check: &pb.Spec_Origin{Origin: tc.want}}, q.Spec, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sentence, diff)
		}
		if _, err := q.Request(question.Options{Limit: 20, Timeout: time.Second}); err != nil {
			t.Errorf("%s: %v", sentence, err)
		}
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
		"dns +subnet=1/0 -x +https=/ @a:1 CH", "http https://Bücher.example:1/%zz?é", "http HTTP://[::1]?", "http https://a/\xff",
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

func TestEveryWayThatIsExpectedIsAsked(t *testing.T) {
	for i, word := range question.Reachabilities() {
		want := pb.Reachability(i + 1) // in the contract's order
		tcp, err := question.TCP([]string{"example.com:25"}, question.TCPFlags{Expect: word})
		if err != nil || tcp.Spec.GetTcp().GetExpect() != want {
			t.Errorf("tcp %s: %v, %v", word, tcp, err)
		}
		tls, err := question.TLS([]string{"example.com"}, question.TLSFlags{Expect: strings.ToUpper(word)})
		if err != nil || tls.Spec.GetTls().GetExpect() != want {
			t.Errorf("tls %s: %v, %v", word, tls, err)
		}
		http, err := question.HTTP([]string{"https://example.com/"}, question.HTTPFlags{Expect: word})
		if err != nil || http.Spec.GetHttp().GetExpect() != want {
			t.Errorf("http %s: %v, %v", word, http, err)
		}
	}
	if n := len(pb.Reachability_name) - 1; n != len(question.Reachabilities()) {
		t.Errorf("%d words for %d values", len(question.Reachabilities()), n)
	}
}
