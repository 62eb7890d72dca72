package coordinator_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// many are n times the same.
func many(s string, n int) []string { return strings.Split(strings.Repeat(s+"\x00", n-1)+s, "\x00") }

func dnsCheck(d *pb.DNSSpec) *pb.Spec {
	if d.GetName() == "" {
		d.Name = "example.com"
	}
	return &pb.Spec{Check: &pb.Spec_Dns{Dns: d}}
}

func tlsCheck(s *pb.TLSSpec) *pb.Spec {
	s.Host = "example.com"
	return &pb.Spec{Check: &pb.Spec_Tls{Tls: s}}
}

func httpCheck(h *pb.HTTPSpec) *pb.Spec {
	if h.GetUrl() == "" {
		h.Url = "https://example.com/"
	}
	return &pb.Spec{Check: &pb.Spec_Http{Http: h}}
}

func originCheck(o *pb.OriginSpec) *pb.Spec {
	o.Url = "https://origin.example.com/"
	return &pb.Spec{Check: &pb.Spec_Origin{Origin: o}}
}

// named is an origin by a profile's name.
func named(profile string) *pb.OriginSpec {
	return &pb.OriginSpec{Profile: &pb.Profile{Name: profile}}
}

// ours is a profile of one's own.
func ours() *pb.Profile {
	wiki := &pb.Source{Document: "our wiki"}
	return &pb.Profile{
		Name: "ours", Versions: []string{"TLS 1.2"}, CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, Groups: []string{"x25519"},
		Sources: map[string]*pb.Source{"versions": wiki, "cipher_suites": wiki, "groups": wiki, "user_agent": wiki, "roots": wiki},
	}
}

// changed is ours with something changed.
func changed(change func(*pb.Profile)) *pb.Profile {
	p := ours()
	change(p)
	return p
}

// profiled is a check of TLS for a profile.
func profiled(p *pb.Profile) *pb.Spec { return tlsCheck(&pb.TLSSpec{Profile: p}) }

// sources are n sources of fields that there are not.
func sources(n int) map[string]*pb.Source {
	all := make(map[string]*pb.Source, n)
	for i := range n {
		all[strconv.Itoa(i)] = nil
	}
	return all
}

func at(url string) *pb.Spec { return &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: url}}} }

// doorCases are questions and the field that is wrong with each, "" for those that are good.
func doorCases() map[string]struct {
	spec  *pb.Spec
	field string
} {
	field := func(name, value string) *pb.Spec {
		return httpCheck(&pb.HTTPSpec{Headers: []*pb.HeaderField{{Name: name, Value: value}}})
	}
	return map[string]struct {
		spec  *pb.Spec
		field string
	}{
		"the root":                             {dnsCheck(&pb.DNSSpec{Name: "."}), ""},
		"a name with a space":                  {dnsCheck(&pb.DNSSpec{Name: "a b"}), "spec.dns.name"},
		"a type by number":                     {dnsCheck(&pb.DNSSpec{Type: "TYPE65535"}), ""},
		"a type by a number with a zero":       {dnsCheck(&pb.DNSSpec{Type: "TYPE0"}), "spec.dns.type"},
		"a type in small letters":              {dnsCheck(&pb.DNSSpec{Type: "mx"}), "spec.dns.type"},
		"a transfer":                           {dnsCheck(&pb.DNSSpec{Type: "AXFR"}), "spec.dns.type"},
		"class CH":                             {dnsCheck(&pb.DNSSpec{Name: "id.server", Class: "CH", Type: "TXT"}), ""},
		"class HS":                             {dnsCheck(&pb.DNSSpec{Class: "HS"}), "spec.dns.class"},
		"a server by name and port":            {dnsCheck(&pb.DNSSpec{Resolver: "dns.example:853"}), ""},
		"a server by IPv6 address and port":    {dnsCheck(&pb.DNSSpec{Resolver: "[2001:db8::1]:53"}), ""},
		"a server at port 99999":               {dnsCheck(&pb.DNSSpec{Resolver: "192.0.2.1:99999"}), "spec.dns.resolver"},
		"a server that is a URL":               {dnsCheck(&pb.DNSSpec{Resolver: "https://dns.example/"}), "spec.dns.resolver"},
		"a server with a line's end":           {dnsCheck(&pb.DNSSpec{Resolver: "192.0.2.1\r\n"}), "spec.dns.resolver"},
		"a transport that is none":             {dnsCheck(&pb.DNSSpec{Transport: 99}), "spec.dns.transport"},
		"a certificate's name":                 {dnsCheck(&pb.DNSSpec{Transport: pb.Transport_TRANSPORT_TLS, TlsHostname: "dns.example"}), ""},
		"a certificate's name with a port":     {dnsCheck(&pb.DNSSpec{TlsHostname: "dns.example:853"}), "spec.dns.tls_hostname"},
		"a path":                               {dnsCheck(&pb.DNSSpec{HttpsPath: "/dns-query/x"}), ""},
		"a path without a slash":               {dnsCheck(&pb.DNSSpec{HttpsPath: "dns-query"}), "spec.dns.https_path"},
		"a path with a query":                  {dnsCheck(&pb.DNSSpec{HttpsPath: "/q?dns=x"}), "spec.dns.https_path"},
		"a path with a line's end":             {dnsCheck(&pb.DNSSpec{HttpsPath: "/q\r\nHost: evil"}), "spec.dns.https_path"},
		"a path of 256 bytes":                  {dnsCheck(&pb.DNSSpec{HttpsPath: "/" + strings.Repeat("a", 255)}), "spec.dns.https_path"},
		"a client's network":                   {dnsCheck(&pb.DNSSpec{ClientSubnet: "2001:db8::/32"}), ""},
		"a client's address without a length":  {dnsCheck(&pb.DNSSpec{ClientSubnet: "192.0.2.1"}), "spec.dns.client_subnet"},
		"a client's network of 33 bits":        {dnsCheck(&pb.DNSSpec{ClientSubnet: "192.0.2.0/33"}), "spec.dns.client_subnet"},
		"a size of 512":                        {dnsCheck(&pb.DNSSpec{BufferSize: 512}), ""},
		"a size of 511":                        {dnsCheck(&pb.DNSSpec{BufferSize: 511}), "spec.dns.buffer_size"},
		"a size of 65536":                      {dnsCheck(&pb.DNSSpec{BufferSize: 65536}), "spec.dns.buffer_size"},
		"public resolvers":                     {dnsCheck(&pb.DNSSpec{PublicResolvers: []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:53"}}), ""},
		"a public resolver by name":            {dnsCheck(&pb.DNSSpec{PublicResolvers: []string{"192.0.2.1", "dns.example"}}), "spec.dns.public_resolvers[1]"},
		"a public resolver by name and port":   {dnsCheck(&pb.DNSSpec{PublicResolvers: []string{"dns.example:53"}}), "spec.dns.public_resolvers[0]"},
		"17 public resolvers":                  {dnsCheck(&pb.DNSSpec{PublicResolvers: many("192.0.2.1", 17)}), "spec.dns.public_resolvers"},
		"33 expectations":                      {dnsCheck(&pb.DNSSpec{Expect: many("x", 33)}), "spec.dns.expect"},
		"names to compare":                     {tlsCheck(&pb.TLSSpec{Names: []string{"a.example", "b"}}), ""},
		"an address to compare":                {tlsCheck(&pb.TLSSpec{Names: []string{"a.example", "2001:db8::1"}}), "spec.tls.names[1]"},
		"nine names to compare":                {tlsCheck(&pb.TLSSpec{Names: many("a", 9)}), "spec.tls.names"},
		"a server name with a NUL":             {tlsCheck(&pb.TLSSpec{ServerName: "a\x00.example"}), "spec.tls.server_name"},
		"application protocols":                {tlsCheck(&pb.TLSSpec{Alpn: []string{"h2", "http/1.1"}}), ""},
		"an empty application protocol":        {tlsCheck(&pb.TLSSpec{Alpn: []string{""}}), "spec.tls.alpn[0]"},
		"a long application protocol":          {tlsCheck(&pb.TLSSpec{Alpn: []string{strings.Repeat("a", 256)}}), "spec.tls.alpn[0]"},
		"an offer":                             {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{Versions: []string{"SSL 3.0"}, CipherSuites: []string{"TLS_RSA_WITH_RC4_128_MD5"}}}), ""},
		"a version that is none":               {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{Versions: []string{"TLS 1.4"}}}), "spec.tls.offer.versions[0]"},
		"513 suites":                           {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{CipherSuites: many("0x0001", 513)}}), "spec.tls.offer.cipher_suites"},
		"a suite that is not known":            {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{CipherSuites: []string{"0xC028", "TLS_NOPE"}}}), "spec.tls.offer.cipher_suites[1]"},
		"a group that is not known":            {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{Groups: []string{"x25518"}}}), "spec.tls.offer.groups[0]"},
		"a signature scheme that is not known": {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{SignatureSchemes: []string{"rsa"}}}), "spec.tls.offer.signature_schemes[0]"},
		"an empty suite":                       {tlsCheck(&pb.TLSSpec{Offer: &pb.TLSOffer{CipherSuites: []string{""}}}), "spec.tls.offer.cipher_suites[0]"},
		"a URL":                                {at("https://example.com:8443/a?b=%20c"), ""},
		"a URL without a path":                 {at("http://[2001:db8::1]:80"), ""},
		"a URL of 8 KiB":                       {at("https://example.com/" + strings.Repeat("a", 8192-20)), ""},
		"a URL of more than 8 KiB":             {at("https://example.com/" + strings.Repeat("a", 8192-19)), "spec.http.url"},
		"an empty URL":                         {at(""), "spec.http.url"},
		"a URL of a file":                      {at("file:///etc/passwd"), "spec.http.url"},
		"a URL with a user":                    {at("https://user:secret@example.com/"), "spec.http.url"},
		"a URL with a fragment":                {at("https://example.com/#a"), "spec.http.url"},
		"a URL with a space":                   {at("https://example.com/a b"), "spec.http.url"},
		"a URL with a line's end":              {at("https://example.com/\r\nX: y"), "spec.http.url"},
		"a URL with a line's end in its host":  {at("https://example.com\r\n/"), "spec.http.url"},
		"a URL without a host":                 {at("https:///a"), "spec.http.url"},
		"a URL in another script":              {at("https://bücher.example/"), "spec.http.url"},
		"a URL of the other family":            {&pb.Spec{Family: pb.Family_FAMILY_IPV6, Check: at("http://192.0.2.1:8080/").GetCheck()}, "spec"},
		"a URL of the other family, in v6":     {&pb.Spec{Family: pb.Family_FAMILY_IPV4, Check: at("https://[2001:db8::1]/").GetCheck()}, "spec"},
		"a URL of the same family":             {&pb.Spec{Family: pb.Family_FAMILY_IPV6, Check: at("https://[2001:db8::1]/").GetCheck()}, ""},
		"a URL of a name, and a family":        {&pb.Spec{Family: pb.Family_FAMILY_IPV6, Check: at("https://1.example/").GetCheck()}, ""},
		"a method that changes things":         {httpCheck(&pb.HTTPSpec{Method: "DELETE"}), "spec.http.method"},
		"a method with a line's end":           {httpCheck(&pb.HTTPSpec{Method: "GET / HTTP/1.1\r\n"}), "spec.http.method"},
		"a Host":                               {httpCheck(&pb.HTTPSpec{HostHeader: "www.example.com:8443"}), ""},
		"a Host with a line's end":             {httpCheck(&pb.HTTPSpec{HostHeader: "a.example\r\nX: y"}), "spec.http.host_header"},
		"a Host with a path":                   {httpCheck(&pb.HTTPSpec{HostHeader: "a.example/b"}), "spec.http.host_header"},
		"a server name that is an address":     {httpCheck(&pb.HTTPSpec{ServerName: "2001:db8::1"}), "spec.http.server_name"},
		"a header field":                       {field("X-Trace", "a\tb; c=\"d\""), ""},
		"a header field's name with a space":   {field("X Trace", "a"), "spec.http.headers[0].name"},
		"a header field's name with a colon":   {field("X-Trace:", "a"), "spec.http.headers[0].name"},
		"a header field without a name":        {field("", "a"), "spec.http.headers[0].name"},
		"a header field's value of two lines":  {field("X-Trace", "a\r\nX: y"), "spec.http.headers[0].value"},
		"a header field's value with a LF":     {field("X-Trace", "a\nX: y"), "spec.http.headers[0].value"},
		"a header field's value with a NUL":    {field("X-Trace", "a\x00"), "spec.http.headers[0].value"},
		"a header field that ends in a LF":     {field("X-Trace", "a\n"), "spec.http.headers[0].value"},
		"a header field of more than 8 KiB":    {field("X-Trace", strings.Repeat("a", 8193)), "spec.http.headers[0].value"},
		"33 header fields":                     {httpCheck(&pb.HTTPSpec{Headers: slices.Repeat([]*pb.HeaderField{{Name: "A"}}, 33)}), "spec.http.headers"},
		"a name with a control character":      {dnsCheck(&pb.DNSSpec{Name: "a\x1b.example"}), "spec.dns.name"},
		"a name in octets":                     {dnsCheck(&pb.DNSSpec{Name: `a\000.example`}), ""},
		"Host as a header field":               {field("Host", "a.example"), "spec.http.headers[0]"},
		"a field of the connection":            {field("transfer-Encoding", "chunked"), "spec.http.headers[0]"},
		"six redirects":                        {httpCheck(&pb.HTTPSpec{MaxRedirects: 6}), "spec.http.max_redirects"},
		"a version of HTTP that is none":       {httpCheck(&pb.HTTPSpec{Version: 3}), "spec.http.version"},
		"statuses":                             {httpCheck(&pb.HTTPSpec{ExpectStatus: []string{"200", "3xx", "400-404"}}), ""},
		"a status that is none":                {httpCheck(&pb.HTTPSpec{ExpectStatus: []string{"200", "600"}}), "spec.http.expect_status[1]"},
		"an expected header":                   {httpCheck(&pb.HTTPSpec{ExpectHeader: []string{"Server: ^nginx/[0-9]"}}), ""},
		"an expected header without a name":    {httpCheck(&pb.HTTPSpec{ExpectHeader: []string{": x"}}), "spec.http.expect_header[0]"},
		"an expected header, not RE2":          {httpCheck(&pb.HTTPSpec{ExpectHeader: []string{"A: b", "Server: (?<=x)"}}), "spec.http.expect_header[1]"},
		"an expected body, not RE2":            {httpCheck(&pb.HTTPSpec{ExpectBody: "["}), "spec.http.expect_body"},
		"an expected body of more than 1 KiB":  {httpCheck(&pb.HTTPSpec{ExpectBody: strings.Repeat("a", 1025)}), "spec.http.expect_body"},
		"an expected body that repeats itself": {httpCheck(&pb.HTTPSpec{ExpectBody: "(a{1000}){1000}"}), "spec.http.expect_body"},
		"an origin, by the default profile":    {originCheck(&pb.OriginSpec{}), ""},
		"an origin by an empty profile":        {originCheck(&pb.OriginSpec{Profile: &pb.Profile{}}), ""},
		"an origin by a profile's name":        {originCheck(named("cloudflare")), ""},
		"a profile that is not known":          {originCheck(named("cloudfornt")), "spec.origin.profile.name"},
		"a profile's name that is none":        {originCheck(named("Cloud Front")), "spec.origin.profile.name"},
		"a whole profile":                      {originCheck(&pb.OriginSpec{Profile: ours()}), ""},
		"a whole profile of more than 64 KiB":  {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.Roots = strings.Repeat("\n", 65536) })}), "spec.origin.profile"},
		"a profile of suites that are unknown": {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.CipherSuites[0] = "TLS_NOPE" })}), "spec.origin.profile.cipher_suites[0]"},
		"a profile's fact without a source":    {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { delete(p.GetSources(), "groups") })}), "spec.origin.profile.groups"},
		"a profile's User-Agent of two lines":  {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.UserAgent = "a\r\nX: y" })}), "spec.origin.profile.user_agent"},
		"a profile's title for a terminal":     {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.Title = "a\x1b[2J" })}), "spec.origin.profile.title"},
		"a profile's wait that is none": {originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) {
			p.ResponseTimeout = &durationpb.Duration{Seconds: 1, Nanos: -1}
			p.Sources["response_timeout"] = p.GetSources()["groups"]
		})}), "spec.origin.profile.response_timeout"},
		"a version that the profile has not": {originCheck(&pb.OriginSpec{Versions: []string{"TLS 1.3"}}), "spec.origin.versions"},
		"a version that the profile has":     {originCheck(&pb.OriginSpec{Versions: []string{"SSL 3.0"}}), ""},
		"a handshake by a profile's name":    {tlsCheck(&pb.TLSSpec{Profile: &pb.Profile{Name: "aws-alb"}}), ""},
		"a handshake by an unknown profile":  {tlsCheck(&pb.TLSSpec{Profile: &pb.Profile{Name: "nope"}}), "spec.tls.profile.name"},
		"a handshake by an empty profile":    {tlsCheck(&pb.TLSSpec{Profile: &pb.Profile{}}), ""},
	}
}

// TestTheProfileIsFrozen: agents, judge and log get what a name stood for when it was asked.
func TestTheProfileIsFrozen(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	cloudfront, err := profile.Load(profile.Default)
	if err != nil {
		t.Fatal(err)
	}
	theirs := changed(func(p *pb.Profile) { p.Name = "cloudfront" })
	cases := []struct {
		sentence    string
		asked, want *pb.Profile
		id          string
	}{
		{"none", nil, cloudfront, ""},
		{"by name", &pb.Profile{Name: "cloudfront"}, cloudfront, ""},
		{"one of our own", ours(), ours(), ""},
		{"one of our own by a name of theirs", theirs, theirs, ""},
	}
	url := "http://" + shutPort(t).String() + "/"
	for i, c := range cases {
		asked := &pb.OriginSpec{Url: url, Profile: c.asked}
		cases[i].id = w.create(&pb.CreateMeasurementRequest{Spec: &pb.Spec{Check: &pb.Spec_Origin{Origin: asked}}}).GetId()
	}
	for _, c := range cases {
		m, results := w.end(c.id)
		if diff := cmp.Diff(c.want, m.GetSpec().GetOrigin().GetProfile(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: in the log (-want +got):\n%s", c.sentence, diff)
		}
		if len(results) != 1 || len(results[0].GetSteps()) == 0 {
			t.Errorf("%s: the agent did nothing with it: %v", c.sentence, results)
		}
	}
}

// TestTheDoorOfEachCheck asks without any agent: a good question is then FAILED_PRECONDITION, since
// nobody can be asked, and nothing is sent anywhere.
func TestTheDoorOfEachCheck(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	for name, tc := range doorCases() {
		t.Run(name, func(t *testing.T) {
			_, err := w.api.CreateMeasurement(t.Context(), &pb.CreateMeasurementRequest{Spec: tc.spec})
			want := codes.InvalidArgument
			if tc.field == "" {
				want = codes.FailedPrecondition
			}
			if status.Code(err) != want {
				t.Fatalf("%v, want %v", err, want)
			}
			fields := map[string]bool{}
			for _, d := range status.Convert(err).Details() {
				bad, _ := d.(*errdetails.BadRequest)
				for _, f := range bad.GetFieldViolations() {
					fields[f.GetField()] = true
				}
			}
			if tc.field != "" && (len(fields) != 1 || !fields[tc.field]) {
				t.Errorf("fields %v, want %s", fields, tc.field)
			}
		})
	}
}

// TestWhatIsWrongFitsIntoATrailer: grpc-status-details-bin has every word twice, in base64.
func TestWhatIsWrongFitsIntoATrailer(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	spec := originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.CipherSuites = many(strings.Repeat("é", 400), 512) })})
	var trailer metadata.MD
	_, err := w.api.CreateMeasurement(t.Context(), &pb.CreateMeasurementRequest{Spec: spec}, grpc.Trailer(&trailer))
	if status.Code(err) != codes.InvalidArgument || !strings.HasSuffix(status.Convert(err).Message(), "; and 505 more") {
		t.Fatalf("%.200v", err)
	}
	size := len(status.Convert(err).Message()) * 3 // é is percent-encoded
	for _, value := range trailer.Get("grpc-status-details-bin") {
		size += len(value) * 4 / 3
	}
	if size > 16<<10 {
		t.Errorf("the trailer has %d bytes", size)
	}
}

// TestAHugeQuestionIsRefusedAtOnce: each has as many faults as a message of 1 MiB holds. To list them all takes 3 to
// 7 seconds.
func TestAHugeQuestionIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	n := 1<<20/2 - 1<<10
	for field, spec := range map[string]*pb.Spec{
		"spec.dns.expect":                         dnsCheck(&pb.DNSSpec{Expect: many("", n)}),
		"spec.tls.alpn":                           tlsCheck(&pb.TLSSpec{Alpn: many("", n)}),
		"spec.http.expect_status":                 httpCheck(&pb.HTTPSpec{ExpectStatus: many("", n)}),
		"spec.origin.versions":                    originCheck(&pb.OriginSpec{Profile: ours(), Versions: many("", n)}),
		"spec.origin.profile.causes":              originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.Causes = make([]*pb.ProfileCause, n/2) })}),
		"spec.origin.profile.sources":             originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.Sources = sources(n / 8) })}),
		"spec.origin.profile.http_ports":          originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.HttpPorts = many("", n/2) })}),
		"spec.origin.profile.cipher_suites":       originCheck(&pb.OriginSpec{Profile: changed(func(p *pb.Profile) { p.CipherSuites = many("0xC028", n/4) })}),
		"spec.tls.profile.unverified_curves":      profiled(changed(func(p *pb.Profile) { p.UnverifiedCurves = many("", n/2) })),
		"spec.tls.profile.load_balancer_suffixes": profiled(changed(func(p *pb.Profile) { p.LoadBalancerSuffixes = many("", n/2) })),
		"spec.tls.profile.roots":                  profiled(changed(func(p *pb.Profile) { p.Roots = strings.Repeat("x", n) })),
	} {
		began := time.Now()
		_, err := w.api.CreateMeasurement(t.Context(), &pb.CreateMeasurementRequest{Spec: spec})
		took := time.Since(began)
		said := status.Convert(err).Message()
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(said, field+": ") || strings.Contains(said, "; ") {
			t.Errorf("%s: not one clear error: %.200v", field, err)
		}
		if took > 30*time.Second { // 0.3 s, and ten times that with the race detector; a busy machine is slower still.
			t.Errorf("%s: it took %v", field, took)
		}
	}
}

// TestWhatNoJSONHoldsIsRefused: the rules compare such durations as if they were good.
func TestWhatNoJSONHoldsIsRefused(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	for _, nanos := range []int32{2_000_000_000, -1} {
		r := &pb.CreateMeasurementRequest{Spec: dnsCheck(&pb.DNSSpec{}), Policy: &pb.Policy{ExpiryWarning: &durationpb.Duration{Seconds: 1, Nanos: nanos}}}
		if _, err := w.api.CreateMeasurement(t.Context(), r); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "policy.expiry_warning") {
			t.Errorf("%v: %v", r.GetPolicy(), err)
		}
	}
}
