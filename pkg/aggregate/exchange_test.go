package aggregate

import (
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func httpWorld(url string) *world {
	w := tcpWorld()
	w.m.Spec = &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: url}}}
	return w
}

func expectStatus(w *world, status ...string) *world {
	w.m.Spec.GetHttp().ExpectStatus = status
	return w
}

// response is an exchange with an address that ended in a status, and how.
func response(address string, status uint32, f pb.Failure) *pb.Step {
	s := step(pb.StepKind_STEP_KIND_HTTP_EXCHANGE, pb.Role_ROLE_TARGET, address, f)
	s.Evidence.Http = &pb.HTTPEvidence{Url: "https://www.example/", Status: status}
	return s
}

// gets is a whole exchange over a good handshake.
func gets(address string, status uint32) []*pb.Step {
	f := none
	if status >= 400 {
		f = httpStatus
	}
	return append(tls(address, "c"), response(address, status, f))
}

// byEdge says that the edge of CloudFront made the response.
func byEdge(steps []*pb.Step) []*pb.Step {
	steps[len(steps)-1].Evidence.Http.Edge = &pb.Edge{
		Provider: "CloudFront", Generated: true, Cause: "CloudFront wasn't able to connect to the origin.", RequestId: "abc",
	}
	return steps
}

func unmet(steps []*pb.Step, sentence string) []*pb.Step {
	steps[len(steps)-1].Evidence.Http.Unmet = []string{sentence}
	return steps
}

func TestExchanges(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"every region gets a page: nothing to say",
			httpWorld("https://www.example/").in("ap", gets(ip1, 200)).in("eu", gets(ip1, 301)),
			[]string{"ok"},
		},
		{
			"a connection and a handshake without a response prove nothing: the agent had no time",
			httpWorld("https://www.example/").in("ap", tls(ip1, "c")).in("eu", gets(ip1, 200)),
			[]string{"inconclusive"},
		},
		{
			"the server itself answers 5xx, from one region too: its own word",
			httpWorld("https://www.example/").in("ap", gets(ip1, 502)),
			[]string{"fail", "ERROR upstream_error [ap] at 203.0.113.10:443 http_status blame=target medium"},
		},
		{
			"5xx in one region alone: that region is named, and no block is made of it",
			httpWorld("https://www.example/").in("ap", gets(ip1, 503)).in("eu", gets(ip1, 200)),
			[]string{"fail", "ERROR upstream_error [ap] at 203.0.113.10:443 http_status blame=target medium"},
		},
		{
			"5xx at other addresses in each region: no pair is named that works",
			httpWorld("https://www.example/").in("ap", gets(ip1, 503), gets(ip2, 200)).in("eu", gets(ip1, 503), gets(ip2, 503)),
			[]string{
				"fail", "ERROR upstream_error [ap] at 203.0.113.10:443 http_status blame=target medium",
				"ERROR upstream_error [eu] at 203.0.113.10:443 203.0.113.11:443 http_status blame=target medium",
			},
		},
		{
			"5xx at one address, another way to fail at the other: two causes, told apart",
			httpWorld("https://www.example/").in("ap", gets(ip1, 502), blocked(ip2, timeout)).in("eu", gets(ip1, 502), blocked(ip2, timeout)),
			[]string{
				"fail", "ERROR partial_address_failure [ap eu] at 203.0.113.11:443 tcp_timeout block=drop blame=target high",
				"ERROR upstream_error [ap eu] at 203.0.113.10:443 http_status blame=target high",
			},
		},
		{
			"one agent of a region gets 403 where all others get 502: it differs, and the region is not shut",
			httpWorld("https://www.example/").in("ap/1", gets(ip1, 502)).in("ap/2", gets(ip1, 403)).in("eu", gets(ip1, 502)),
			[]string{
				"fail", "ERROR upstream_error [ap eu] at 203.0.113.10:443 http_status blame=target high",
				"WARN agents_differ [ap] at 203.0.113.10:443 http_status agents=ap-2 blame=unknown medium",
			},
		},
		{
			"the CDN's edge made the page",
			httpWorld("https://www.example/").in("ap", byEdge(gets(ip1, 502))).in("eu", byEdge(gets(ip1, 502))),
			[]string{"fail", "ERROR edge_error [ap eu] at 203.0.113.10:443 http_status blame=target high"},
		},
		{
			"403 in one region alone is a way to be shut out",
			httpWorld("https://www.example/").in("ap", gets(ip1, 403)).in("eu", gets(ip1, 200)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 http_status block=http_deny blame=target medium"},
		},
		{
			"403 made by an edge in one region is no error of the edge's",
			httpWorld("https://www.example/").in("ap", byEdge(gets(ip1, 403))).in("eu", gets(ip1, 200)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 http_status block=http_deny blame=target medium"},
		},
		{
			"404 everywhere (rules 15 and 21)",
			httpWorld("https://www.example/").in("ap", gets(ip1, 404)).in("eu", gets(ip1, 404)),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 http_status blame=target high"},
		},
		{
			"another status than expected: the regions that get it",
			expectStatus(httpWorld("https://www.example/"), "301").in("ap", unmet(gets(ip1, 404), "status 404, expected 301")).in("eu", gets(ip1, 301)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 http_status blame=target medium"},
		},
		{
			"no response to the request, with a passing control",
			httpWorld("https://www.example/").in("ap", append(tls(ip1, "c"), response(ip1, 0, httpHung)), passing4()).in("eu", gets(ip1, 200)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 http_timeout blame=unknown medium"},
		},
		{
			"no response to the request, without a control: unknown",
			httpWorld("https://www.example/").in("ap", append(tls(ip1, "c"), response(ip1, 0, httpHung))).in("eu", gets(ip1, 200)),
			[]string{"inconclusive"},
		},
		{
			"a bad certificate is the first broken stage, whatever the server answers (rule 12)",
			httpWorld("https://www.example/").
				in("ap", append(tls(ip1, "c", expired), response(ip1, 502, httpStatus))).in("eu", append(tls(ip1, "c", expired), response(ip1, 502, httpStatus))),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_expired blame=target high"},
		},
		{
			"a redirect that was followed led to a closed port",
			httpWorld("https://www.example/").
				in("ap", append(tls(ip1, "c"), response(ip1, 302, refused)), passing4()).in("eu", append(tls(ip1, "c"), response(ip1, 302, refused)), passing4()),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target high"},
		},
	})
}

func TestWordsOfAnEdge(t *testing.T) {
	v := httpWorld("https://www.example/").in("ap", byEdge(gets(ip1, 502))).judge()
	f := v.GetFindings()[0]
	for _, want := range []string{"502 Bad Gateway", "CloudFront’s edge", "wasn't able to connect to the origin"} {
		if !strings.Contains(f.GetSummary(), want) {
			t.Errorf("summary without %q: %s", want, f.GetSummary())
		}
	}
	if !strings.Contains(f.GetHint(), "“abc”") {
		t.Errorf("hint without the request id: %s", f.GetHint())
	}
}

// variants adds variants of the last handshake that got through; the others failed as it did.
func variants(steps []*pb.Step, through ...pb.Variant) []*pb.Step {
	i := len(steps) - 1
	for _, v := range []pb.Variant{
		pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME, pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS,
	} {
		f := steps[i].GetFailure()
		if slices.Contains(through, v) {
			f = none
		}
		s := step(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT, steps[i].GetAddress(), f)
		beside := int32(i)
		s.Variant, s.Beside = v, &beside
		steps = append(steps, s)
	}
	return steps
}

// alerted makes the variants' failure an alert.
func alerted(f pb.Failure, steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		if s.GetVariant() == pb.Variant_VARIANT_OTHER_NAME {
			s.Failure, s.Failures = f, []pb.Failure{f}
		}
	}
	return steps
}

func TestInterference(t *testing.T) {
	other, noName := pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME
	hello, segments := pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS
	for _, c := range []struct {
		sentence string
		steps    []*pb.Step
		want     pb.BlockKind
	}{
		{"a reset, and another name gets through", variants(tls(ip1, "", tlsReset), other, noName), pb.BlockKind_BLOCK_KIND_SNI_RESET},
		{"silence, and no name gets through", variants(tls(ip1, "", hung), noName), pb.BlockKind_BLOCK_KIND_SNI_DROP},
		{"silence, and small ones alone get through", variants(tls(ip1, "", hung), hello, segments), pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP},
		{"silence, and small segments alone get through: the server's packets are lost", variants(tls(ip1, "", hung), segments), pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP},
		{"all variants but the name get through: it is the name", variants(tls(ip1, "", hung), other, hello, segments), pb.BlockKind_BLOCK_KIND_SNI_DROP},
		{"another name is answered with an alert: by the server, so it is the name", alerted(tlsAlert, variants(tls(ip1, "", tlsReset))), pb.BlockKind_BLOCK_KIND_SNI_RESET},
		{"another name is answered with something else: by whom is not known", alerted(pb.Failure_FAILURE_TLS_NOT_TLS, variants(tls(ip1, "", hung))), pb.BlockKind_BLOCK_KIND_UNSPECIFIED},
		{"silence whatever is sent: a hung server looks so too", variants(tls(ip1, "", hung)), pb.BlockKind_BLOCK_KIND_UNSPECIFIED},
		{"a reset whatever is sent, before a byte came", variants(tls(ip1, "", tlsReset)), pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v := tlsWorld().in("ap", c.steps, passing4()).in("eu", tls(ip1, "c")).judge()
			if f := v.GetFindings()[0]; f.GetCode() != pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK || f.GetBlock() != c.want {
				t.Errorf("%s, want a block of kind %s", line(f), ShortBlock(c.want))
			}
		})
	}
}

// saying adds evidence to the first step.
func saying(steps []*pb.Step, f func(*pb.Evidence)) []*pb.Step {
	f(steps[0].GetEvidence())
	return steps
}

func TestWrongData(t *testing.T) {
	expiredSignature := func(e *pb.Evidence) { e.Dnssec = &pb.DNSSECEvidence{Detail: "a signature over A ended 2026-11-01"} }
	chain := func(e *pb.Evidence) {
		e.CnameChain = []*pb.CNAMELink{
			{Name: "www.example", Target: "cdn.example"},
			{Name: "cdn.example", Target: "gone.example", Failure: nxdomain, Zone: "example"},
		}
	}
	runCases(t, []verdictCase{
		{
			"an address that cannot be public is what the answer holds: no control is needed to see it",
			dnsWorld("A").in("ap", query(1, bogon, "10.0.0.1")).in("eu", query(2, bogon, "10.0.0.1")),
			[]string{"fail", "ERROR bogon_answer [ap eu] dns_bogon blame=zone high"},
		},
		{
			"a bogon for IPv4 beside a good IPv6 address is found all the same",
			tcpWorld().in("ap", query(1, bogon, "10.0.0.1"), query(1, none, "2001:db8::10"), open(v61)),
			[]string{"fail", "ERROR bogon_answer [ap] dns_bogon blame=zone medium"},
		},
		{
			"signatures that have expired: resolvers that validate fail, others do not",
			dnsWorld("A").in("ap", saying(query(1, bogus), expiredSignature)).in("eu", answers(2, "A", "203.0.113.10")),
			[]string{"fail", "ERROR dnssec_bogus [ap] dns_dnssec_bogus blame=zone medium"},
		},
		{
			"a CNAME that leads nowhere",
			dnsWorld("A").in("ap", saying(query(1, brokenName), chain)).in("eu", saying(query(2, brokenName), chain)),
			[]string{"fail", "ERROR cname_broken [ap eu] dns_cname_broken blame=zone high"},
		},
	})
	v := dnsWorld("A").in("ap", saying(query(1, brokenName), chain)).judge()
	if s := v.GetFindings()[0].GetSummary(); !strings.Contains(s, "cdn.example leads to gone.example: dns_nxdomain in zone example") {
		t.Errorf("the summary does not name the link: %s", s)
	}
}

func TestAMissingIntermediateIsNamed(t *testing.T) {
	steps := tls(ip1, "c", pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
	steps[1].Evidence.Tls.ChainAnalysis = &pb.ChainEvidence{
		Missing: []*pb.Certificate{{Subject: "CN=Example CA R3"}}, IssuerUrl: "http://ca.example/r3.der",
	}
	want := "append the missing intermediate “CN=Example CA R3” (http://ca.example/r3.der) to the chain file"
	if hint := tlsWorld().in("ap", steps).judge().GetFindings()[0].GetHint(); !strings.Contains(hint, want) {
		t.Errorf("hint %q without %q", hint, want)
	}
}

// TestAServerWhoseCertificateIsBad: what carries the queries of a named server is its own, not the zone's.
func TestAServerWhoseCertificateIsBad(t *testing.T) {
	bad := func(n int) []*pb.Step {
		return saying(query(n, pb.Failure_FAILURE_DNS_TRANSPORT_TLS), func(e *pb.Evidence) {
			e.Text, e.Replies = "the server's certificate: cert_expired", []*pb.DNSReply{{Rcode: "NOERROR", Transport: "tls"}}
		})
	}
	named := func(w *world) *world {
		w.m.Spec.GetDns().Resolver = "198.51.100.1"
		return w
	}
	runCases(t, []verdictCase{
		{
			"from everywhere: the server is what is looked at",
			named(dnsWorld("A").in("ap", bad(1)).in("eu", bad(1))),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_transport_tls blame=resolver medium"},
		},
		{
			"from one region",
			named(dnsWorld("A").in("ap", bad(1)).in("eu", answers(1, "A", "203.0.113.10"))),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_transport_tls block=dns blame=resolver medium"},
		},
	})
	for _, c := range []struct {
		w                *world
		summary, outlook string
	}{
		{
			named(dnsWorld("A").in("ap", bad(1)).in("eu", bad(1))),
			"the query’s TLS fails at 198.51.100.1:53 (the server's certificate: cert_expired)", "look at the server that was asked",
		},
		{
			named(dnsWorld("A").in("ap", bad(1)).in("eu", answers(1, "A", "203.0.113.10"))),
			"while the name resolves in eu", "something on the way may answer in its place",
		},
	} {
		f := c.w.judge().GetFindings()[0]
		if !strings.Contains(f.GetSummary(), c.summary) || !strings.Contains(f.GetHint(), c.outlook) {
			t.Errorf("%s\n%s\nwant %q and %q", f.GetSummary(), f.GetHint(), c.summary, c.outlook)
		}
	}
}

func TestWhatIsUnmetIsSaidAsItWasSeen(t *testing.T) {
	sentence := `the body does not match "ok": it begins with "<html>"`
	steps := gets(ip1, 200)
	last := steps[len(steps)-1]
	last.Failure, last.Failures = pb.Failure_FAILURE_HTTP_BODY_MISMATCH, []pb.Failure{pb.Failure_FAILURE_HTTP_BODY_MISMATCH}
	v := httpWorld("https://www.example/").in("ap", unmet(steps, sentence)).judge()
	if s := v.GetFindings()[0].GetSummary(); !strings.Contains(s, sentence) {
		t.Errorf("%s, without %s", s, sentence)
	}
}
