package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	ms      = time.Millisecond
	target  = pb.Role_ROLE_TARGET
	noError = "NOERROR"
)

// as gives a step a role.
func as(role pb.Role, s *pb.Step) *pb.Step {
	s.Role = role
	return s
}

// asking is a query for a name and a type that was answered with some records, "TYPE DATA" each.
func asking(server, name, qtype string, reply *pb.DNSReply, records ...string) *pb.Step {
	s := step(query, server, 12*ms)
	s.Name, s.Type = name, qtype
	for _, r := range records {
		typ, data, _ := strings.Cut(r, " ")
		reply.Answers = append(reply.Answers, &pb.Record{Name: name, Ttl: 60, Type: typ, Data: data})
	}
	reply.Transport, reply.Rcode, reply.Rtt, reply.Size = "udp", noError, durationpb.New(12*ms), 99
	s.Evidence = &pb.Evidence{Replies: []*pb.DNSReply{reply}}
	return s
}

// failing makes a step one that failed.
func failing(s *pb.Step, f pb.Failure, text string) *pb.Step {
	s.Failure, s.Failures = f, []pb.Failure{f}
	s.Evidence.Text = text
	return s
}

// ofZone says which of a zone's servers a step asked.
func ofZone(s *pb.Step, zone, server string, serial uint32, parent, child bool) *pb.Step {
	a := &pb.AuthorityEvidence{Zone: zone, Server: server, InParent: parent, InChild: child, Signed: zone == "example.com"}
	if serial != 0 {
		a.SoaSerial = proto.Uint32(serial)
	}
	s.Evidence.Authority = a
	return s
}

// referred is a referral to another zone.
func referred(server, name, zone string, authority ...string) *pb.Step {
	s := asking(server, name, "A", &pb.DNSReply{})
	for _, r := range authority {
		typ, data, _ := strings.Cut(r, " ")
		s.Evidence.Replies[0].Authority = append(s.Evidence.Replies[0].Authority, &pb.Record{Name: zone, Ttl: 172800, Type: typ, Data: data})
	}
	return as(pb.Role_ROLE_REFERRAL, s)
}

// deepDNS is all that a dns question can show.
func deepDNS() (*pb.Spec, *pb.Result) {
	own := asking("192.0.2.53:53", "www.example.com", "A", &pb.DNSReply{
		RecursionAvailable: true, AuthenticData: true, Nsid: []byte("fra\x1b1"), ClientSubnet: &pb.ClientSubnet{Prefix: "192.0.2.0/24", Scope: 24},
		ExtendedErrors: []*pb.ExtendedError{{Code: 3, Text: "old"}},
	}, "CNAME cdn.example.net.", "A 203.0.113.10")
	injected := proto.CloneOf(own.GetEvidence().GetReplies()[0])
	injected.Answers = []*pb.Record{{Name: "www.example.com", Ttl: 5, Type: "A", Data: "198.51.100.66"}}
	injected.ExtendedErrors, injected.Nsid, injected.ClientSubnet, injected.AuthenticData = nil, nil, nil, false
	own.Evidence.Replies = append(own.GetEvidence().GetReplies(), injected)
	own.Evidence.CnameChain = []*pb.CNAMELink{{Name: "www.example.com", Target: "cdn.example.net", Failure: pb.Failure_FAILURE_DNS_NXDOMAIN, Zone: "example.net"}}
	own.Evidence.Dnssec = &pb.DNSSECEvidence{Reason: pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED, Detail: "A RRSIG ended on 2026-11-01"}
	answer := func(server, name string, serial uint32, child bool) *pb.Step {
		return ofZone(as(pb.Role_ROLE_AUTHORITY, asking(server, "www.example.com", "A", &pb.DNSReply{Authoritative: true}, "A 203.0.113.10")), "example.com", name, serial, true, child)
	}
	lame := failing(answer("192.0.2.7:53", "ns3.example.com", 0, false), pb.Failure_FAILURE_DNS_LAME, "it answers REFUSED for a name in example.com")
	lame.Evidence.Replies = nil
	soa := ofZone(as(pb.Role_ROLE_AUTHORITY, asking("192.0.2.5:53", "example.com", "SOA", &pb.DNSReply{Authoritative: true}, "SOA x")), "example.com", "ns1.example.com", 7, true, true)
	root := ofZone(referred("198.41.0.4:53", "www.example.com", "com", "NS a.gtld-servers.net.", "NS b.gtld-servers.net.", "DS 1 2 3"), ".", "", 0, false, false)
	com := ofZone(referred("192.5.6.30:53", "www.example.com", "example.com", "NS ns1.example.com."), "com", "a.gtld-servers.net", 0, true, false)
	open := asking("8.8.8.8:53", "www.example.com", "A", &pb.DNSReply{RecursionAvailable: true}, "A 203.0.113.10")
	label := asking("192.0.2.53:53", "xyzzy.example.com", "A", &pb.DNSReply{}, "A 198.51.100.99")
	label.Variant = pb.Variant_VARIANT_RANDOM_LABEL
	spec := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example.com", Authoritative: true, Trace: true, PublicResolvers: []string{"8.8.8.8"}}}}
	return spec, &pb.Result{Agent: "eu-1", Vantage: &pb.Vantage{Region: "eu-west"}, ClockOffset: durationpb.New(-12 * time.Second), Steps: []*pb.Step{
		own, root, com, answer("192.0.2.5:53", "ns1.example.com", 7, true), soa, answer("192.0.2.6:53", "ns2.example.com", 6, true), lame,
		as(pb.Role_ROLE_PUBLIC, open), as(pb.Role_ROLE_VARIANT, label),
	}}
}

// deepTLS is all that a tls question can show.
func deepTLS() (*pb.Spec, *pb.Result) {
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	leaf := &pb.Certificate{
		Subject: "CN=www.example.com", Issuer: "CN=R3", CommonName: "www.example.com", Sha256: "ab12", Key: "RSA 1024", Signature: "SHA1-RSA",
		NotBefore: timestamppb.New(at.AddDate(0, -3, 0)), NotAfter: timestamppb.New(at.AddDate(0, 0, -2)), DnsNames: []string{"www.example.com"},
		Failures: []pb.Failure{pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_WEAK_KEY},
	}
	s := step(handshake, "203.0.113.10:443", 30*ms, pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
	s.Evidence = &pb.Evidence{Tls: &pb.TLSEvidence{
		Version: "TLS 1.2", CipherSuite: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Group: "x25519", Alpn: "h2", ServerName: "www.example.com", Served: 3,
		Chain: []*pb.Certificate{leaf, {Subject: "CN=other", CommonName: "other", Sha256: "cd34"}},
		ChainAnalysis: &pb.ChainEvidence{
			Extra: []int32{1}, Path: []string{"CN=www.example.com", "CN=R3", "CN=Root"}, Missing: []*pb.Certificate{{CommonName: "R3"}}, IssuerUrl: "http://ca.example/r3.crt",
			Distrust: pb.Distrust_DISTRUST_ISSUED_AFTER, Detail: "issued after 2026-01-01", RootIncluded: true,
		},
		Names: []*pb.NameMatch{{Name: "www.example.com", San: true}, {Name: "host.example.com", CommonName: true}},
		Ocsp:  &pb.OCSP{Status: "revoked", RevokedAt: timestamppb.New(at), ThisUpdate: timestamppb.New(at), NextUpdate: timestamppb.New(at), Problem: "it is old"},
	}}
	through := as(pb.Role_ROLE_VARIANT, step(handshake, "203.0.113.10:443", 9*ms))
	through.Variant, through.Name, through.Evidence = pb.Variant_VARIANT_OTHER_NAME, "other.example", &pb.Evidence{Tls: &pb.TLSEvidence{Version: "TLS 1.3"}}
	all := step(pb.StepKind_STEP_KIND_TLS_ENUMERATION, "203.0.113.10:443", 90*ms)
	all.Evidence = &pb.Evidence{Tls: &pb.TLSEvidence{Versions: []*pb.VersionSupport{
		{Version: "TLS 1.3", Failure: pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED},
		{Version: "TLS 1.2", Supported: true, ServerPreference: true, CipherSuites: []string{"TLS_A", "TLS_B"}, Groups: []string{"x25519"}},
	}}}
	spec := &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "www.example.com", Enumerate: true}}}
	return spec, &pb.Result{Agent: "eu-1", Vantage: &pb.Vantage{Region: "eu-west"}, Steps: []*pb.Step{step(connect, "203.0.113.10:443", 12*ms), s, through, all}}
}

// deepHTTP is all that an http question can show.
func deepHTTP() (*pb.Spec, *pb.Result) {
	s := step(exchanged, "203.0.113.10:443", 33*ms, pb.Failure_FAILURE_HTTP_STATUS)
	s.Evidence = &pb.Evidence{Http: &pb.HTTPEvidence{
		Url: "https://example.com/", Method: "GET", Host: "example.com", Version: "HTTP/2.0", Status: 502, FirstByte: durationpb.New(30 * ms), Done: durationpb.New(33 * ms),
		Headers:  []*pb.HeaderField{{Name: "server", Value: "CloudFront"}, {Name: "x-evil", Value: "\x1b[2J"}},
		BodySize: 900, BodySha256: "ab12", BodyExcerpt: "<h1>502\r\n\x1b[31m</h1>", Unmet: []string{"the status is 502 and should be 200"},
		Redirects: []*pb.Redirect{{Status: 301, Location: "https://example.com/", Address: "203.0.113.10:443"}},
		Edge:      &pb.Edge{Provider: "CloudFront", Generated: true, Cause: "it cannot connect to the origin", Site: "SEA19-C1", RequestId: "xyz=="},
	}}
	spec := &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://example.com/"}}}
	return spec, &pb.Result{Agent: "eu-1", Vantage: &pb.Vantage{Region: "eu-west"}, Steps: []*pb.Step{
		asking("192.0.2.53:53", "example.com", "A", &pb.DNSReply{}, "A 203.0.113.10"), step(connect, "203.0.113.10:443", 5*ms), step(handshake, "203.0.113.10:443", 7*ms), s,
	}}
}

// deepTCP is all that a tcp question can show.
func deepTCP() (*pb.Spec, *pb.Result) {
	rejected := step(connect, "203.0.113.10:443", 20*ms, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED)
	rejected.Evidence = &pb.Evidence{
		Errno: "EHOSTUNREACH", Icmp: &pb.ICMP{Type: 3, Code: 13, Sender: "192.0.2.254"}, LocalAddress: "192.0.2.7:40000",
		Tries: []*pb.Attempt{{Failure: pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, Duration: durationpb.New(20 * ms)}},
	}
	open := step(connect, "203.0.113.11:443", 300*ms)
	open.Evidence = &pb.Evidence{Rtt: durationpb.New(12 * ms), LocalAddress: "192.0.2.7:40001", Banner: []byte("SSH-2.0-x\x1b[2J\r\n")}
	trace := step(pb.StepKind_STEP_KIND_PATH_TRACE, "203.0.113.10:443", time.Second)
	trace.Evidence = &pb.Evidence{Path: &pb.PathEvidence{LastHop: 3, Rejector: "192.0.2.254", Hops: []*pb.Hop{
		{Ttl: 1, Address: "10.0.0.1", Rtt: durationpb.New(ms), Icmp: &pb.ICMP{Type: 11}},
		{Ttl: 2, Tries: 3},
		{Ttl: 3, Address: "192.0.2.254", Rtt: durationpb.New(2 * ms), Icmp: &pb.ICMP{Type: 3, Code: 13, Sender: "192.0.2.254"}},
	}}}
	spec := &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "example.com", Port: 443, Path: true}}}
	return spec, &pb.Result{Agent: "eu-1", Vantage: &pb.Vantage{Region: "eu-west"}, Steps: []*pb.Step{rejected, open, trace}}
}

const exchanged = pb.StepKind_STEP_KIND_HTTP_EXCHANGE

// told is a measurement in words, without the conclusion's last line.
func told(spec *pb.Spec, deep bool, results ...*pb.Result) string {
	var out bytes.Buffer
	m := &pb.Measurement{Id: "x", Spec: spec, State: pb.State_STATE_FINISHED, Results: results}
	m.PublicResolvers = []*pb.PublicResolver{{Name: "Google", Addresses: []string{"8.8.8.8"}}}
	r := Screen{Out: &out, Err: &bytes.Buffer{}, Verbose: deep}.Reporter(false)
	r.Begin(m)
	r.Update(m, results)
	_ = r.End(m)
	text := strings.TrimSuffix(out.String(), "\n")
	return text[:strings.LastIndexByte(text, '\n')+1]
}

func TestWhatIsShown(t *testing.T) {
	for name, tc := range map[string]struct {
		of         func() (*pb.Spec, *pb.Result)
		brief, all string
	}{
		"dns":  {deepDNS, briefDNS, allDNS},
		"tls":  {deepTLS, briefTLS, allTLS},
		"http": {deepHTTP, briefHTTP, allHTTP},
		"tcp":  {deepTCP, briefTCP, allTCP},
	} {
		t.Run(name, func(t *testing.T) {
			spec, r := tc.of()
			if diff := cmp.Diff(tc.brief, told(spec, false, r)); diff != "" {
				t.Errorf("in brief (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.all, told(spec, true, r)); diff != "" {
				t.Errorf("in depth (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAgentsThatSawTheSameShareASection(t *testing.T) {
	spec, one := deepTLS()
	results := []*pb.Result{one}
	for _, agent := range []string{"us-1", "ap-1", "sa-1", "af-1"} {
		another := proto.CloneOf(one)
		another.Agent = agent
		results = append(results, another)
	}
	results[4].Steps[1].Evidence.Tls.Ocsp = nil
	text := told(spec, false, results...)
	for _, want := range []string{
		"the root is served too, which nobody needs  (all 5 agents)\n",
		"OCSP: revoked since 2026-11-22 (2026-11-22 to 2026-11-22), not to be relied on: it is old  (ap-1, eu-1, sa-1 and 1 more)\n",
		"what 203.0.113.10:443 accepts  (all 5 agents)\n",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("not once: %q in\n%s", want, text)
		}
	}
}

func TestNothingRemarkableIsNoSection(t *testing.T) {
	spec := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "example.com"}}}
	server := ofZone(as(pb.Role_ROLE_AUTHORITY, asking("192.0.2.5:53", "example.com", "A", &pb.DNSReply{}, "A 203.0.113.10")), "example.com", "ns1.example.com", 7, true, true)
	cut := asking("192.0.2.53:53", "example.com", "A", &pb.DNSReply{Truncated: true})
	cut.Evidence.Replies = append(cut.GetEvidence().GetReplies(), asking("192.0.2.53:53", "example.com", "A", &pb.DNSReply{}, "A 203.0.113.10").GetEvidence().GetReplies()...)
	absent := failing(as(pb.Role_ROLE_VARIANT, asking("192.0.2.53:53", "xyzzy.example.com", "A", &pb.DNSReply{})), pb.Failure_FAILURE_DNS_NXDOMAIN, "")
	absent.Variant = pb.Variant_VARIANT_RANDOM_LABEL
	r := &pb.Result{Agent: "eu-1", ClockOffset: durationpb.New(80 * ms), Steps: []*pb.Step{
		cut, server, absent, as(pb.Role_ROLE_CONTROL, asking("192.0.2.53:53", "control.example", "A", &pb.DNSReply{}, "A 192.0.2.9")),
	}}
	if got := sections(&pb.Measurement{Spec: spec}, r, false); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestOnlyStepsAboutTheTargetAreSights(t *testing.T) {
	for _, of := range []func() (*pb.Spec, *pb.Result){deepDNS, deepTLS, deepHTTP, deepTCP} {
		spec, r := of()
		want := len(sights(spec, r))
		for _, role := range []pb.Role{pb.Role_ROLE_CONTROL, pb.Role_ROLE_VARIANT, pb.Role_ROLE_AUTHORITY, pb.Role_ROLE_PUBLIC, pb.Role_ROLE_REFERRAL, pb.Role_ROLE_REDIRECT} {
			for _, kind := range []pb.StepKind{query, connect, handshake, exchanged} {
				r.Steps = append(r.Steps, as(role, step(kind, "198.51.100.77:443", ms, pb.Failure_FAILURE_TCP_TIMEOUT)))
			}
		}
		if got := sights(spec, r); len(got) != want {
			t.Errorf("%s: %d sights, want %d: %v", Question(spec), len(got), want, got)
		}
		var out bytes.Buffer
		m := &pb.Measurement{Spec: spec, Results: []*pb.Result{r}}
		if err := writeCSV(&out, m); err != nil || strings.Contains(out.String(), "198.51.100.77") {
			t.Errorf("%s: a step about something else is in the CSV: %v\n%s", Question(spec), err, &out)
		}
		out.Reset()
		if err := writeShort(&out, &bytes.Buffer{}, m); err != nil || strings.Contains(out.String(), "198.51.100.77") {
			t.Errorf("%s: +short: %v\n%s", Question(spec), err, &out)
		}
	}
}

func TestQuestionsAreTheWordsThatAskThem(t *testing.T) {
	for want, spec := range map[string]*pb.Spec{
		"dns www.example.com A --authoritative": {Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example.com", Authoritative: true}}},
		"dns id.server TXT CH @192.0.2.53 +tcp +dnssec +cd +norec +nsid +subnet=192.0.2.0/24 +bufsize=512 +trace --public=9.9.9.9 --expect 'a b' -4": {
			Family: pb.Family_FAMILY_IPV4, Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{
				Name: "id.server", Type: "TXT", Class: "CH", Resolver: "192.0.2.53", Transport: pb.Transport_TRANSPORT_TCP, Dnssec: true, CheckingDisabled: true,
				NoRecursion: true, Nsid: true, ClientSubnet: "192.0.2.0/24", BufferSize: 512, Trace: true, PublicResolvers: []string{"9.9.9.9"}, Expect: []string{"a b"},
			}},
		},
		"dns a A --public": {Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "a", LocalPublicResolvers: true}}},
		"dns a A @dns.example +https-get=/q +tls-hostname=b.example": {Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{
			Name: "a", Resolver: "dns.example", Transport: pb.Transport_TRANSPORT_HTTPS_GET, HttpsPath: "/q", TlsHostname: "b.example",
		}}},
		"tcp [2001:db8::1]:22 --expect open --path -6": {Family: pb.Family_FAMILY_IPV6, Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{
			Host: "2001:db8::1", Port: 22, Expect: pb.Reachability_REACHABILITY_OPEN, Path: true,
		}}},
		"tls a:443 --servername b --noservername --name c --alpn h2,http/1.1 --tls-version 'TLS 1.2' --ciphers X:Y --groups x25519 --sigalgs ed25519 --enumerate": {
			Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{
				Host: "a", ServerName: "b", NoServerName: true, Names: []string{"c"}, Alpn: []string{"h2", "http/1.1"}, Enumerate: true,
				Offer: &pb.TLSOffer{Versions: []string{"TLS 1.2"}, CipherSuites: []string{"X", "Y"}, Groups: []string{"x25519"}, SignatureSchemes: []string{"ed25519"}},
			}},
		},
		`http 'https://a/?b' -X HEAD --host-header c --servername d -H 'E: f' --http2 --follow=2 --expect-status 200,2xx --expect-header 'G: \$' --expect-body 'i'\''j'`: {
			Check: &pb.Spec_Http{Http: &pb.HTTPSpec{
				Url: "https://a/?b", Method: "HEAD", HostHeader: "c", ServerName: "d", Headers: []*pb.HeaderField{{Name: "E", Value: "f"}}, Version: pb.HTTPVersion_HTTP_VERSION_2,
				MaxRedirects: 2, ExpectStatus: []string{"200", "2xx"}, ExpectHeader: []string{`G: \$`}, ExpectBody: "i'j",
			}},
		},
		"tls a:443 --profile ours": {Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "a", Profile: &pb.Profile{Name: "ours", Title: "our own"}}}},
		"origin 'https://a/?b' --host-header c --ssl-protocols SSLv3,TLSv1,TLSv1.2 --profile cloudfront -4": {
			Family: pb.Family_FAMILY_IPV4, Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{
				Url: "https://a/?b", HostHeader: "c", Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.2"}, Profile: &pb.Profile{Name: "cloudfront"},
			}},
		},
	} {
		if got := Question(spec); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestWhereAServerIsListed: that a zone does not list a server is known where the zone was asked.
func TestWhereAServerIsListed(t *testing.T) {
	answer := func(server string, child bool) *pb.Step {
		s := asking(server, "www.example.com", "A", &pb.DNSReply{Authoritative: true}, "A 203.0.113.10")
		return ofZone(as(pb.Role_ROLE_AUTHORITY, s), "example.com", server, 0, true, child)
	}
	for _, c := range []struct {
		what  string
		steps []*pb.Step
		want  int
	}{
		{"the zone lists one of them", []*pb.Step{answer("192.0.2.5:53", true), answer("192.0.2.6:53", false)}, 1},
		{"the zone was not asked", []*pb.Step{answer("192.0.2.5:53", false), answer("192.0.2.6:53", false)}, 0},
	} {
		shown := fmt.Sprint(zones(&pb.Result{Steps: c.steps}, false))
		if got := strings.Count(shown, "at the parent only"); got != c.want {
			t.Errorf("%s: %d servers are at the parent only, want %d: %s", c.what, got, c.want, shown)
		}
	}
}

// TestReasons: what a failure's name leaves open is said in brief too.
func TestReasons(t *testing.T) {
	t.Parallel()
	shaken := func(e *pb.Evidence, failed ...pb.Failure) *pb.Step {
		s := step(handshake, "203.0.113.10:443", 9*ms, failed...)
		s.Evidence = e
		return s
	}
	alert := func(code uint32, name string) *pb.TLSEvidence {
		return &pb.TLSEvidence{Alert: &pb.TLSAlert{Code: code, Name: name}}
	}
	moved := step(exchanged, "203.0.113.10:443", 9*ms, pb.Failure_FAILURE_DNS_NXDOMAIN)
	moved.Evidence = &pb.Evidence{Text: "the redirect to http://nx.example/: dns_nxdomain", Http: &pb.HTTPEvidence{Redirects: []*pb.Redirect{{Status: 302}}}}
	for name, tc := range map[string]struct {
		step *pb.Step
		want []string
	}{
		"an alert by its name":            {shaken(&pb.Evidence{Tls: alert(80, "internal_error"), Text: "remote error"}, pb.Failure_FAILURE_TLS_ALERT), []string{"alert 80 (internal_error)"}},
		"an alert that the failure names": {shaken(&pb.Evidence{Tls: alert(112, "unrecognized_name")}, pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME), nil},
		"what is spoken in place of TLS":  {shaken(&pb.Evidence{Text: `it begins with "SSH-2.0"`}, pb.Failure_FAILURE_TLS_NOT_TLS), []string{`it begins with "SSH-2.0"`}},
		"a deadline says no more":         {shaken(&pb.Evidence{Text: "i/o timeout"}, pb.Failure_FAILURE_TLS_TIMEOUT), nil},
		"what would be spoken": {
			shaken(&pb.Evidence{Tls: &pb.TLSEvidence{Version: "SSL 3.0", CipherSuite: "TLS_RSA_WITH_RC4_128_MD5", NegotiationOnly: true}}, pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED),
			[]string{"agrees on SSL 3.0 with TLS_RSA_WITH_RC4_128_MD5, and was asked no further than its first flight"},
		},
		"a client certificate that is asked for": {shaken(&pb.Evidence{Tls: &pb.TLSEvidence{ClientCertificateRequested: true}}), []string{"asks for a client certificate"}},
		"one that is needed":                     {shaken(&pb.Evidence{Tls: &pb.TLSEvidence{ClientCertificateRequested: true}}, pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED), nil},
		"a staple that should be there": {
			shaken(&pb.Evidence{Tls: &pb.TLSEvidence{Chain: []*pb.Certificate{{MustStaple: true}}}}),
			[]string{"the certificate asks for a stapled OCSP response, and none was sent"},
		},
		"names that were asked for besides": {
			shaken(&pb.Evidence{Tls: &pb.TLSEvidence{Names: []*pb.NameMatch{{Name: "a.example", San: true}, {Name: "b.example"}}}}),
			[]string{"the certificate is for a.example"},
		},
		"the one name that was asked for":  {shaken(&pb.Evidence{Tls: &pb.TLSEvidence{Names: []*pb.NameMatch{{Name: "a.example", San: true}}}}), nil},
		"a certificate that is none":       {shaken(&pb.Evidence{Tls: &pb.TLSEvidence{Chain: []*pb.Certificate{{ParseError: "x509: malformed"}}}}), []string{"certificate 0 cannot be read: x509: malformed"}},
		"what the agent cannot do":         {shaken(&pb.Evidence{Text: "this agent does not know X"}, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING), []string{"this agent does not know X"}},
		"what broke on a redirect's way":   {moved, []string{"the redirect to http://nx.example/: dns_nxdomain"}},
		"what an expectation says already": {fetched("203.0.113.10:443", 404, pb.Failure_FAILURE_HTTP_STATUS), nil},
	} {
		if diff := cmp.Diff(tc.want, reasons(tc.step)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestVersionsOfHTTP: each by its own name.
func TestVersionsOfHTTP(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"HTTP/1.0": "200 HTTP/1.0", "HTTP/1.1": "200 HTTP/1.1", "HTTP/2.0": "200 HTTP/2"} {
		if got := pageSaid(&pb.HTTPEvidence{Status: 200, Version: version}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestUnprobedAddresses: who looked at some of many addresses says so.
func TestUnprobedAddresses(t *testing.T) {
	t.Parallel()
	q := asking("192.0.2.53:53", "example.com", "A", &pb.DNSReply{})
	q.Evidence.Addresses = []string{"203.0.113.10", "203.0.113.11", "203.0.113.12"}
	one := step(connect, "203.0.113.10:443", ms)
	for want, steps := range map[string][]*pb.Step{
		"2 more addresses of the name were not looked at": {q, one},
		"1 more address of the name was not looked at":    {q, one, step(connect, "203.0.113.11:443", ms)},
		"": {q},
	} {
		if got := unprobed(&pb.Result{Steps: steps}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestTellingVariants: a server that serves a certificate got the hello, whatever is wrong with the certificate.
func TestTellingVariants(t *testing.T) {
	t.Parallel()
	reset := step(handshake, "203.0.113.10:443", ms, pb.Failure_FAILURE_TLS_RESET)
	reset.Evidence = &pb.Evidence{}
	beside := func(e *pb.TLSEvidence, failed ...pb.Failure) *pb.Step {
		s := as(pb.Role_ROLE_VARIANT, step(handshake, "203.0.113.10:443", ms, failed...))
		s.Variant, s.Evidence, s.Beside = pb.Variant_VARIANT_NO_NAME, &pb.Evidence{Tls: e}, proto.Int32(0)
		return s
	}
	for name, tc := range map[string]struct {
		s    *pb.Step
		want bool
	}{
		"it completes":               {beside(&pb.TLSEvidence{}), true},
		"with another certificate":   {beside(&pb.TLSEvidence{Chain: []*pb.Certificate{{}}}, pb.Failure_FAILURE_CERT_NAME_MISMATCH), true},
		"the server's own alert":     {beside(&pb.TLSEvidence{Alert: &pb.TLSAlert{Code: 112}}, pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME), true},
		"it is reset like the first": {beside(nil, pb.Failure_FAILURE_TLS_RESET), false},
	} {
		if got := telling(tc.s, []*pb.Step{reset}); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
