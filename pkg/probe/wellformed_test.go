package probe

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// hostile are specs that no coordinator of ours sends, by the field that is wrong. Each is otherwise one that an
// agent would do.
func hostile() map[string][]*pb.Spec {
	web := func(change func(*pb.HTTPSpec)) *pb.Spec {
		s := &pb.HTTPSpec{Url: "http://127.0.0.1:1/"}
		change(s)
		return httpSpec(s)
	}
	cdn := func(change func(*pb.OriginSpec)) *pb.Spec {
		s := &pb.OriginSpec{Url: "https://127.0.0.1:1/", Profile: someCDN()}
		change(s)
		return originSpec(s)
	}
	shake := func(change func(*pb.TLSSpec)) *pb.Spec {
		s := tlsSpec("127.0.0.1", 1, "a.example")
		change(s.GetTls())
		return s
	}
	ask := func(change func(*pb.DNSSpec)) *pb.Spec {
		s := dnsSpec("a.example", "A")
		change(s.GetDns())
		return s
	}
	many := func(n int, s string) []string { return slices.Repeat([]string{s}, n) }
	long := strings.Repeat("x", 1<<20)
	return map[string][]*pb.Spec{
		"http.method": {
			web(func(s *pb.HTTPSpec) { s.Method = "POST" }),
			web(func(s *pb.HTTPSpec) { s.Method = "GET / HTTP/1.1\r\nHost: b\r\n\r\nDELETE" }),
		},
		"http.host_header":   {web(func(s *pb.HTTPSpec) { s.HostHeader = "a\r\nX: b" }), web(func(s *pb.HTTPSpec) { s.HostHeader = "a\x00" })},
		"http.server_name":   {web(func(s *pb.HTTPSpec) { s.ServerName = "a\nb" })},
		"http.url":           {web(func(s *pb.HTTPSpec) { s.Url = "http://127.0.0.1:1/" + long[:maxURL] }), web(func(s *pb.HTTPSpec) { s.Url = "http://a\r\nb/" })},
		"http.max_redirects": {web(func(s *pb.HTTPSpec) { s.MaxRedirects = 1 << 31 })},
		"http.headers": {
			web(func(s *pb.HTTPSpec) { s.Headers = slices.Repeat([]*pb.HeaderField{{Name: "a", Value: "b"}}, 1000) }),
		},
		"http.headers[0].value":  {web(func(s *pb.HTTPSpec) { s.Headers = []*pb.HeaderField{{Name: "a", Value: "b\r\nc: d"}} })},
		"http.headers[0].name":   {web(func(s *pb.HTTPSpec) { s.Headers = []*pb.HeaderField{{Name: "a\r\nb", Value: "c"}} })},
		"http.expect_status":     {web(func(s *pb.HTTPSpec) { s.ExpectStatus = many(1000, "200") })},
		"http.expect_header":     {web(func(s *pb.HTTPSpec) { s.ExpectHeader = many(1000, "a: (b{30}){30}") })},
		"http.expect_body":       {web(func(s *pb.HTTPSpec) { s.ExpectBody = long[:2000] })},
		"origin.url":             {cdn(func(s *pb.OriginSpec) { s.Url = "https://a\x00b/" }), cdn(func(s *pb.OriginSpec) { s.Url = "https://" + long[:300] + "/" })},
		"origin.host_header":     {cdn(func(s *pb.OriginSpec) { s.HostHeader = "a\r\nX: b" }), cdn(func(s *pb.OriginSpec) { s.HostHeader = "a b" })},
		"origin.versions":        {cdn(func(s *pb.OriginSpec) { s.Versions = many(300, "TLS 1.2") })},
		"origin.versions[0]":     {cdn(func(s *pb.OriginSpec) { s.Versions = []string{"TLS 9"} })},
		"origin.profile":         {cdn(func(s *pb.OriginSpec) { s.Profile = &pb.Profile{Name: "cdn"} })},
		"origin.profile.name":    {cdn(func(s *pb.OriginSpec) { s.Profile.Name = "../../x" })},
		"origin.profile.ranges":  {cdn(func(s *pb.OriginSpec) { s.Profile.Ranges = long[:1000] })},
		"origin.profile.names":   {cdn(func(s *pb.OriginSpec) { s.Profile.Names = make([]pb.NameSource, 10000) })},
		"origin.profile.roots":   {cdn(func(s *pb.OriginSpec) { s.Profile.Roots = long[:100<<10] })},
		"origin.profile.groups":  {cdn(func(s *pb.OriginSpec) { s.Profile.Groups = many(5000, "x25519") })},
		"origin.profile.sources": {cdn(func(s *pb.OriginSpec) { s.Profile.Sources = sources(100) })},
		"origin.profile.user_agent": {
			cdn(func(s *pb.OriginSpec) { s.Profile.UserAgent = "a\r\nHost: b" }), cdn(func(s *pb.OriginSpec) { s.Profile.UserAgent = "a\x00" }),
			cdn(func(s *pb.OriginSpec) { s.Profile.UserAgent = long[:300] }),
		},
		"origin.profile.cipher_suites":     {cdn(func(s *pb.OriginSpec) { s.Profile.CipherSuites = many(5000, "0xC02F") })},
		"origin.profile.signature_schemes": {cdn(func(s *pb.OriginSpec) { s.Profile.SignatureSchemes = many(5000, "rsa_pkcs1_sha256") })},
		"origin.profile.default_versions":  {cdn(func(s *pb.OriginSpec) { s.Profile.DefaultVersions = many(300, "TLS 1.2") })},
		"origin.profile.max_header_bytes":  {cdn(func(s *pb.OriginSpec) { s.Profile.MaxHeaderBytes = -1 })},
		"origin.profile.connect_timeout":   {cdn(func(s *pb.OriginSpec) { s.Profile.ConnectTimeout = &durationpb.Duration{Seconds: 1, Nanos: -1} })},
		"origin.profile.response_timeout": {
			cdn(func(s *pb.OriginSpec) { s.Profile.ResponseTimeout = durationpb.New(-time.Second) }),
			cdn(func(s *pb.OriginSpec) { s.Profile.ResponseTimeout = durationpb.New(1<<63 - 1) }),
			cdn(func(s *pb.OriginSpec) { s.Profile.ResponseTimeout = &durationpb.Duration{Seconds: 1 << 62} }),
		},
		"origin.profile.causes[0].text":         {cdn(func(s *pb.OriginSpec) { s.Profile.Causes = []*pb.ProfileCause{{Text: long[:1000]}} })},
		"origin.profile.https_ports[0]":         {cdn(func(s *pb.OriginSpec) { s.Profile.HttpsPorts = []string{"1-2-3"} })},
		"origin.profile.load_balancer_suffixes": {cdn(func(s *pb.OriginSpec) { s.Profile.LoadBalancerSuffixes = many(100, ".x") })},
		"tls.names":                             {shake(func(s *pb.TLSSpec) { s.Names = many(1000, "a.example") })},
		"tls.alpn":                              {shake(func(s *pb.TLSSpec) { s.Alpn = many(1000, "h2") })},
		"tls.alpn[0]":                           {shake(func(s *pb.TLSSpec) { s.Alpn = []string{long[:256]} })},
		"tls.offer.cipher_suites":               {shake(func(s *pb.TLSSpec) { s.Offer = &pb.TLSOffer{CipherSuites: many(5000, "0xC02F")} })},
		"tls.offer.groups[0]":                   {shake(func(s *pb.TLSSpec) { s.Offer = &pb.TLSOffer{Groups: []string{long[:65]}} })},
		"tls.port":                              {shake(func(s *pb.TLSSpec) { s.Port = 1<<16 + 22 })},
		"tls.profile":                           {shake(func(s *pb.TLSSpec) { s.Profile = &pb.Profile{} })},
		"tcp.port":                              {tcpSpec("127.0.0.1", 0), {Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "127.0.0.1", Port: 1<<16 + 22}}}},
		"dns.public_resolvers":                  {ask(func(s *pb.DNSSpec) { s.PublicResolvers = many(10000, "127.0.0.1") })},
		"dns.public_resolvers[0]":               {ask(func(s *pb.DNSSpec) { s.PublicResolvers = []string{"a b"} })},
		"dns.tls_hostname":                      {ask(func(s *pb.DNSSpec) { s.TlsHostname = "a\r\nb" })},
		"dns.https_path":                        {ask(func(s *pb.DNSSpec) { s.HttpsPath = "/a\r\nb" }), ask(func(s *pb.DNSSpec) { s.HttpsPath = "/" + long[:255] })},
		"dns.client_subnet":                     {ask(func(s *pb.DNSSpec) { s.ClientSubnet = "127.0.0.1" })},
		"dns.class":                             {ask(func(s *pb.DNSSpec) { s.Class = "HS" })},
		"dns.expect":                            {ask(func(s *pb.DNSSpec) { s.Expect = many(1000, "127.0.0.1") })},
		"dns.resolver":                          {ask(func(s *pb.DNSSpec) { s.Resolver = "a\nb:53" })},
		"": {
			nil,
			{},
			tcpSpec("a\r\nb", 1), tcpSpec("fe80::1%eth0", 1), dnsSpec("a\nb", "A"), dnsSpec("a.example", "AXFR"),
			shake(func(s *pb.TLSSpec) { s.ServerName = "a\x00b" }), shake(func(s *pb.TLSSpec) { s.Names = []string{"a\r\nb"} }),
			cdn(func(s *pb.OriginSpec) { s.Profile.CipherSuites = []string{long} }),
		},
	}
}

// sources are many places where facts come from.
func sources(n int) map[string]*pb.Source {
	m := map[string]*pb.Source{}
	for i := range n {
		m[strings.Repeat("x", i)] = &pb.Source{}
	}
	return m
}

// TestJobsOfAHostileCoordinator: what the contract forbids an agent does not do, though nobody validated it
// before: it says what is wrong at its door, and so does a Run, without a step that reaches the network.
func TestJobsOfAHostileCoordinator(t *testing.T) {
	t.Parallel()
	// One that took a job all the same would find nobody to ask.
	env := &Env{Egress: Egress{Allow: loopback}, Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{}, Controls: []string{}}
	for field, specs := range hostile() {
		for _, spec := range specs {
			err := wellFormed(spec)
			at := &SpecError{}
			if errors.As(err, &at); err == nil || at.Field != field && field != "" && !strings.HasPrefix(field, "tcp.") {
				t.Errorf("%v, want %q to be wrong", err, field)
			}
			job := newJob(spec, time.Minute)
			if f, why := Admit(env, job); f != pb.Failure_FAILURE_AGENT_INTERNAL || len(why) > maxText {
				t.Errorf("%s: the door says %s: %s", field, Short(f), why)
			}
			r := Run(t.Context(), env, job)
			if s := r.GetSteps(); len(s) != 1 || s[0].GetFailure() != pb.Failure_FAILURE_AGENT_INTERNAL || s[0].GetAttempts() > 0 || proto.Size(r) > 4096 {
				t.Errorf("%s: %v", field, r)
			}
		}
	}
}

// TestTimesOfAHostileCoordinator: a job's own times may be absurd, and its Result can be shown all the same.
func TestTimesOfAHostileCoordinator(t *testing.T) {
	t.Parallel()
	for _, job := range []*pb.Job{
		{Remaining: durationpb.New(-time.Hour)},
		{Remaining: &durationpb.Duration{Seconds: -1 << 63, Nanos: 1}},
		{CoordinatorTime: &timestamppb.Timestamp{Seconds: 1 << 62}},
		{CoordinatorTime: &timestamppb.Timestamp{Seconds: -62135596800}},
		{CoordinatorTime: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999999999}},
	} {
		job.Spec = tcpSpec("127.0.0.1", 1)
		r := Run(t.Context(), &Env{Controls: []string{}}, job) // Loopback is refused, so that nothing is sent.
		if s := r.GetSteps(); len(s) != 1 || r.GetDuration().AsDuration() > time.Second || r.GetClockOffset() != nil && !r.GetClockOffset().IsValid() {
			t.Errorf("%v: %v", job, r)
		}
	}
	stuffed := timestamppb.New(time.Unix(1, 0))
	stuffed.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, 1<<20)))
	r := Run(t.Context(), &Env{Controls: []string{}}, &pb.Job{CoordinatorTime: stuffed, Spec: tcpSpec("127.0.0.1", 1)})
	if n := proto.Size(r); n > 1<<16 || r.GetCoordinatorTime().GetSeconds() != 1 {
		t.Errorf("a result of %d bytes, at %v: fields that nobody knows came back", n, r.GetCoordinatorTime().GetSeconds())
	}
}

// TestAgentsKnowThePlainRules: a rule of a kind that they do not hold would be held by the coordinator alone.
func TestAgentsKnowThePlainRules(t *testing.T) {
	t.Parallel()
	known := map[protoreflect.FullName][]string{
		"buf.validate.FieldRules":    {"string", "uint32", "repeated", "map", "cel", "enum"}, // See contract.go of the last two.
		"buf.validate.StringRules":   {"min_len", "max_len", "min_bytes", "max_bytes", "pattern", "in"},
		"buf.validate.UInt32Rules":   {"gte", "lte"},
		"buf.validate.RepeatedRules": {"max_items", "items", "unique"}, // What is there twice is offered twice.
		"buf.validate.MapRules":      {"max_pairs"},
	}
	var check func(where string, rules protoreflect.Message)
	check = func(where string, rules protoreflect.Message) {
		rules.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if !slices.Contains(known[rules.Descriptor().FullName()], string(f.Name())) {
				t.Errorf("%s: no agent holds a rule %s", where, f.FullName())
			}
			if f.Message() != nil && !f.IsList() && f.Name() != "enum" {
				check(where, v.Message())
			}
			return true
		})
	}
	seen := 0
	var walk func(protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules); rules != nil {
				seen++
				check(string(f.FullName()), rules.ProtoReflect())
			}
			if f.Message() != nil && f.Message().ParentFile().Package() == m.ParentFile().Package() {
				walk(f.Message())
			}
		}
	}
	walk((&pb.Spec{}).ProtoReflect().Descriptor())
	if seen < 50 {
		t.Errorf("only %d rules were seen", seen)
	}
}

// FuzzJob reads whatever a coordinator may send. An agent that takes it sends one request, and in it nothing
// that the spec does not name as a field of its own.
func FuzzJob(f *testing.F) {
	for _, specs := range hostile() {
		for _, spec := range specs {
			if wire, err := proto.Marshal(newJob(spec, time.Second)); err == nil && len(wire) < 4096 {
				f.Add(wire)
			}
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		job := &pb.Job{}
		if proto.Unmarshal(wire, job) != nil || wellFormed(job.GetSpec()) != nil {
			return
		}
		var req *request
		var err error
		switch c := job.GetSpec().GetCheck().(type) {
		case *pb.Spec_Http:
			req, err = newRequest(c.Http, "test")
		case *pb.Spec_Origin:
			req, err = asClient(c.Origin, "test")
		default:
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		text := bufio.NewReader(strings.NewReader(request1(req)))
		got, err := http.ReadRequest(text)
		if err != nil {
			t.Fatalf("%q: %v", request1(req), err)
		}
		rest, _ := io.ReadAll(text)
		fields := 0
		for _, values := range got.Header {
			fields += len(values)
		}
		if got.Method != req.method || got.Host != req.host || len(rest) > 0 || fields != len(req.all())+1 { // Connection.
			t.Errorf("%q reads as %v and %q", request1(req), got, rest)
		}
	})
}
