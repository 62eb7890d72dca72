package aggregate

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// predicted is a finding on one line with what the client makes of it: "… → expired 502", and "?" where
// that is not verified.
func predicted(f *pb.Finding) string {
	text := line(f)
	if p := f.GetPrediction(); p != nil {
		text += " → " + strings.TrimSpace(short(p.GetCause().String(), "ORIGIN_CAUSE_")+" "+p.GetStatus())
		if p.GetSource().GetUnverified() {
			text += "?"
		}
	}
	return text
}

// runVerdicts is runCases with predictions; it also holds that every ERROR has one, and words for it.
func runVerdicts(t *testing.T, cases []verdictCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.sentence, func(t *testing.T) {
			v := c.world.judge()
			got := []string{ShortOutcome(v.GetOutcome())}
			for _, f := range v.GetFindings() {
				got = append(got, predicted(f))
				checkFinding(t, c.world, f)
				checkPrediction(t, newClient(c.world.m.Spec), f)
				t.Logf("%s\n%s", f.GetSummary(), f.GetHint())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func checkPrediction(t *testing.T, c *client, f *pb.Finding) {
	t.Helper()
	p := f.GetPrediction()
	if f.GetSeverity() == pb.Severity_SEVERITY_ERROR && p == nil {
		t.Errorf("an ERROR without a prediction: %s", line(f))
	}
	if p == nil || f.GetSeverity() != pb.Severity_SEVERITY_ERROR {
		return
	}
	if f.GetBlock() == pb.BlockKind_BLOCK_KIND_HTTP_DENY { // No row of the profile is about that.
		return
	}
	for _, want := range []string{p.GetStatus(), p.GetText()} {
		if !strings.Contains(f.GetSummary(), want) {
			t.Errorf("summary without %q: %s", want, f.GetSummary())
		}
	}
	if likely := strings.Contains(f.GetSummary(), "(unverified)"); p.GetStatus() != "" && likely != p.GetSource().GetUnverified() {
		t.Errorf("unverified is %v in the source, and the words are: %s", p.GetSource().GetUnverified(), f.GetSummary())
	}
	if !strings.Contains(f.GetHint(), c.row(p.GetCause()).GetFix()) {
		t.Errorf("hint without the fix: %s", f.GetHint())
	}
}

// everywhere is an origin that both regions see alike.
func everywhere(p *pb.Profile, steps func() []*pb.Step) *world {
	return originWorld(p).in("ap", steps()).in("eu", steps())
}

// meets is everywhere, of one address that is shaken hands with.
func meets(h hands) *world {
	return everywhere(strict(), func() []*pb.Step { return visited(ip1, h, 200) })
}

const (
	noVersion  = pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
	noSuite    = pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER
	wantsCert  = pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
	noName     = pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME
	notYet     = pb.Failure_FAILURE_CERT_NOT_YET_VALID
	selfSigned = pb.Failure_FAILURE_CERT_SELF_SIGNED
	untrusted  = pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT
	incomplete = pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE
	disorder   = pb.Failure_FAILURE_CERT_CHAIN_ORDER
	interOver  = pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED
	revoked    = pb.Failure_FAILURE_CERT_REVOKED
	malformed  = pb.Failure_FAILURE_CERT_MALFORMED
	keyUnknown = pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED
	weakSign   = pb.Failure_FAILURE_CERT_WEAK_SIGNATURE
	tooLarge   = pb.Failure_FAILURE_HTTP_TOO_LARGE
)

// keyed is a leaf with another key.
func keyed(key string) *pb.Certificate {
	c := goodLeaf()
	c.Key = key
	return c
}

// forNames is a leaf for other names, and how it compares with the origin's domain.
func forNames(h hands, names ...string) hands {
	h.leaf = goodLeaf()
	h.leaf.DnsNames, h.names, h.wrong = names, []*pb.NameMatch{{Name: "shop.origin.example"}}, append(h.wrong, mismatch)
	return h
}

// otherLeaf is what a variant of the handshake is shown: a certificate for the origin's domain.
func otherLeaf(serverName string) *pb.TLSEvidence {
	return &pb.TLSEvidence{
		Version: "TLS 1.2", ServerName: serverName, Chain: []*pb.Certificate{goodLeaf()},
		Names: []*pb.NameMatch{{Name: "shop.origin.example", San: true}}, JudgedTime: timestamppb.New(judgedTime),
	}
}

// One row for each cause that the five articles name (docs/origin.md), from everywhere.
func TestEveryCause(t *testing.T) {
	shut := func(f pb.Failure) *world {
		return everywhere(strict(), func() []*pb.Step { return blocked(ip1, f) })
	}
	bad := func(failures ...pb.Failure) *world { return meets(hands{wrong: failures}) }
	at := func(u string) func(*pb.OriginSpec) { return func(o *pb.OriginSpec) { o.Url = u } }
	runVerdicts(t, []verdictCase{
		{
			"2, 3, 5: the port refuses connections",
			shut(refused),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
		{
			"3: a port that the client does not connect to, whatever is there",
			asking(meets(hands{}), at("https://shop.origin.example:444/")),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 blame=target high → port_not_allowed 502"},
		},
		{
			"an address as the origin",
			asking(meets(hands{}), at("https://203.0.113.10/")),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 blame=target high → address_origin 502"},
		},
		{
			"4: silence from everywhere, which is what a healthy origin that is locked to its CDN looks like too",
			shut(timeout),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_timeout block=drop blame=target low → firewall 502 or 504"},
		},
		{
			"4: a firewall that says so",
			shut(prohibited),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_admin_prohibited block=reject_icmp blame=target high → firewall 502 or 504"},
		},
		{
			"4: silence for some regions and a reset for others, at one address: something tells them apart",
			originWorld(strict()).in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, refused)),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_refused blame=target high → firewall 502 or 504"},
		},
		{
			"5: connections are accepted and reset at once",
			shut(reset),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_reset block=reset_after_connect blame=target high → not_responding 502"},
		},
		{
			"5: connections are accepted, and the handshake hangs",
			everywhere(strict(), func() []*pb.Step { return then(visited(ip1, hands{own: hung, offer: hung}, 0), passing4()) }),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tls_timeout blame=target high → not_responding 502"},
		},
		{
			"6: HTTP on the port of HTTPS",
			meets(hands{own: notTLS, offer: notTLS}),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tls_not_tls blame=target high → not_tls 502"},
		},
		{
			"6: the handshake ends in an alert that says no more",
			meets(hands{own: tlsAlert, offer: tlsAlert}),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tls_alert blame=target high → tls_negotiation 502"},
		},
		{
			"7: the certificate is for another domain",
			meets(forNames(hands{}, "www.other.test")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → name_mismatch 502"},
		},
		{
			"7: a wildcard stands for one label alone, and nobody’s Host would help",
			meets(forNames(hands{}, "*.example", "*.a.shop.origin.example")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → name_mismatch 502"},
		},
		{
			"8: the certificate is for a name of the same domain, which viewers may ask for, and no Host is forwarded",
			meets(forNames(hands{}, "www.origin.example")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → host_not_forwarded 502"},
		},
		{
			"9: the server has a certificate that would do, for whoever sends no server_name",
			meets(forNames(hands{other: map[pb.Variant]*pb.TLSEvidence{pb.Variant_VARIANT_NO_NAME: otherLeaf("")}}, "www.other.test")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → server_name 502"},
		},
		{
			"10: the origin is named by its load balancer's own name",
			asking(everywhere(strict(), func() []*pb.Step {
				h := forNames(hands{}, "www.origin.example")
				h.names = []*pb.NameMatch{{Name: "lb-1.elb.example"}}
				return visited(ip1, h, 200)
			}), at("https://lb-1.elb.example/")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → load_balancer_name 502"},
		},
		{
			"11: expired", bad(expired),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_expired blame=target high → expired 502"},
		},
		{
			"11: an intermediate expired", bad(interOver),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_intermediate_expired blame=target high → expired 502"},
		},
		{
			"12: not yet valid", bad(notYet),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_not_yet_valid blame=target high → not_yet_valid 502"},
		},
		{
			"13: of an authority that nobody trusts", bad(untrusted),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_untrusted_root blame=target high → untrusted 502"},
		},
		{
			"14: signed by itself", bad(selfSigned),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_self_signed blame=target high → self_signed 502"},
		},
		{
			"15: invalid otherwise", bad(malformed),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_malformed blame=target high → certificate_invalid 502"},
		},
		{
			"15: not for servers",
			meets(hands{wrong: []pb.Failure{untrusted}, chain: &pb.ChainEvidence{Distrust: pb.Distrust_DISTRUST_USAGE}}),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_untrusted_root blame=target high → certificate_invalid 502"},
		},
		{
			"16: revoked, which documents do not say that the client looks for", bad(revoked),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_revoked blame=target high → revoked 502?"},
		},
		{
			"17: an intermediate is missing", bad(incomplete),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_chain_incomplete blame=target high → intermediate_missing 502"},
		},
		{
			"18: the chain is in the wrong order, which this client refuses", bad(disorder),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_chain_order blame=target high → chain_order 502"},
		},
		{
			"19: no suite in common, as the server's versions show",
			meets(hands{version: "TLS 1.2", suite: suiteChaCha, offer: noSuite, accepts: accepting("TLS 1.2", []string{suiteChaCha}, "TLS 1.3", []string{suite13})}),
			[]string{"fail", "ERROR cipher_mismatch [ap eu] at 203.0.113.10:443 tls_no_shared_cipher blame=target high → cipher 502"},
		},
		{
			"19: suites in common, and no group or signature scheme",
			meets(hands{version: "TLS 1.2", suite: suiteRSA, offer: noSuite, accepts: accepting("TLS 1.2", []string{suiteRSA})}),
			[]string{"fail", "ERROR cipher_mismatch [ap eu] at 203.0.113.10:443 tls_no_shared_cipher blame=target high → cipher 502"},
		},
		{
			"20: the server has no version of the client's, and says handshake_failure to that",
			meets(hands{version: "TLS 1.1", suite: suiteCBC, offer: noSuite, accepts: accepting("TLS 1.0", []string{suiteCBC}, "TLS 1.1", []string{suiteCBC})}),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_no_shared_cipher blame=target high → protocol 502"},
		},
		{
			"20: the server just closes on versions that it does not have",
			meets(hands{version: "TLS 1.1", suite: suiteCBC, offer: pb.Failure_FAILURE_TLS_CLOSED, accepts: accepting("TLS 1.1", []string{suiteCBC})}),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_closed blame=target high → protocol 502"},
		},
		{
			"20: TLS 1.3 alone, which documents contradict each other about",
			meets(hands{version: "TLS 1.3", suite: suite13, offer: noVersion, accepts: accepting("TLS 1.3", []string{suite13})}),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_version_unsupported blame=target high → protocol 502?"},
		},
		{
			"20: with SSL 3.0 among its versions the client offers that alone",
			asking(meets(hands{version: "TLS 1.3", suite: suite13, offer: noVersion, accepts: accepting("TLS 1.2", []string{suiteRSA}, "TLS 1.3", []string{suite13})}),
				func(o *pb.OriginSpec) { o.Versions = []string{"SSL 3.0", "TLS 1.2"} }),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_version_unsupported blame=target high → protocol 502"},
		},
		{
			"21: the name does not resolve",
			originWorld(strict()).in("ap", unnamed(1, nxdomain)).in("eu", unnamed(2, nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone high → dns 502"},
		},
		{
			"21: it resolves to a private address, of which documents do not say what viewers get",
			originWorld(strict()).in("ap", unnamed(1, bogon)).in("eu", unnamed(2, bogon)),
			[]string{"fail", "ERROR bogon_answer [ap eu] dns_bogon blame=zone high → dns 502?"},
		},
		{
			"22: it does not resolve in one region",
			originWorld(strict()).in("ap", unnamed(1, servfail)).in("eu", query(2, none, "203.0.113.10"), visited(ip1, hands{}, 200)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium → dns 502"},
		},
		{
			"23: what the origin is a proxy for is broken, and that is passed on",
			everywhere(strict(), func() []*pb.Step { return visited(ip1, hands{}, 502) }),
			[]string{"fail", "ERROR upstream_error [ap eu] at 203.0.113.10:443 http_status blame=target high → upstream 502"},
		},
		{
			"23, 25: the origin is the edge of another CDN",
			everywhere(strict(), func() []*pb.Step { return byEdge(visited(ip1, hands{}, 502)) }),
			[]string{"fail", "ERROR edge_error [ap eu] at 203.0.113.10:443 http_status blame=target high → edge 502"},
		},
		{
			"a certificate of the client is asked for, and not even needed",
			meets(hands{asks: true}),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tls_client_cert_required blame=target high → client_certificate 502"},
		},
		{
			"a certificate of the client is needed",
			meets(hands{own: wantsCert, asks: true}),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tls_client_cert_required blame=target high → client_certificate 502"},
		},
		{
			"a key that is too long",
			meets(hands{leaf: keyed("RSA 8192")}),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_key_unsupported blame=target high → key 502"},
		},
		{
			"a key on a curve that the client does not take",
			meets(hands{leaf: keyed("ECDSA P-521")}),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_key_unsupported blame=target high → key 502"},
		},
		{
			"a key that no signature scheme of the client's is for: the server can sign nothing that it takes",
			meets(hands{leaf: keyed("Ed25519"), version: "TLS 1.3", suite: suite13, offer: noSuite, accepts: accepting("TLS 1.2", []string{suiteECDSA}, "TLS 1.3", []string{suite13})}),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 tls_no_shared_cipher blame=target high → key 502"},
		},
		{
			"a header that is larger than the client takes",
			everywhere(strict(), func() []*pb.Step {
				steps := visited(ip1, hands{}, 200)
				steps[len(steps)-1].Evidence.Http.HeaderSize = 32769
				return steps
			}),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 http_too_large blame=target high → response 504"},
		},
		{
			"no response for as long as the client waits",
			everywhere(strict(), func() []*pb.Step { return silentFor(10, visited(ip1, hands{}, 0)) }),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 http_timeout blame=target high → response 504"},
		},
	})
}

// silentFor makes the exchange at the end wait for a response for some seconds.
func silentFor(seconds int64, steps []*pb.Step) []*pb.Step {
	s := steps[len(steps)-1]
	s.Failure, s.Failures = httpHung, []pb.Failure{httpHung}
	s.Evidence.Tries = []*pb.Attempt{{Failure: httpHung, Duration: &durationpb.Duration{Seconds: seconds}}}
	return then(steps, passing4())
}

// What others refuse, or what looks broken to the agents, and is well for this client.
func TestFalseFriends(t *testing.T) {
	for _, c := range []struct {
		sentence string
		world    *world
	}{
		{"all is well", meets(hands{})},
		{"plain HTTP", asking(everywhere(strict(), func() []*pb.Step { return append(open(ip1), response(ip1, 200, none)) }), func(o *pb.OriginSpec) { o.Url = "http://shop.origin.example/" })},
		{"the agent's library and the server have nothing in common, the client and the server have", meets(hands{own: noSuite})},
		{"the agent's library sees an alert, and the client gets through", meets(hands{own: tlsAlert})},
		{"the agents agree on TLS 1.3, and the client on TLS 1.2", meets(hands{version: "TLS 1.3", suite: suite13})},
		{"a short key that the client takes", meets(hands{leaf: keyed("RSA 1024"), wrong: []pb.Failure{weakKey}})},
		{"a certificate for the forwarded Host, and not for the origin's domain", asking(everywhere(strict(), func() []*pb.Step {
			h := forNames(hands{}, "www.shop.test")
			h.names = []*pb.NameMatch{{Name: "shop.origin.example"}, {Name: "www.shop.test", San: true}}
			return visited(ip1, h, 200)
		}), func(o *pb.OriginSpec) { o.HostHeader = "www.shop.test" })},
		{"a certificate whose common name alone fits, which this client looks at", everywhere(strict(), func() []*pb.Step {
			h := forNames(hands{})
			h.names[0].CommonName = true
			return visited(ip1, h, 200)
		})},
		{"404 is passed on as it is", everywhere(strict(), func() []*pb.Step { return visited(ip1, hands{}, 404) })},
		{"403 everywhere too", everywhere(strict(), func() []*pb.Step { return visited(ip1, hands{}, 403) })},
		{"401 in one region alone is no block", originWorld(strict()).in("ap", visited(ip1, hands{}, 401)).in("eu", visited(ip1, hands{}, 200))},
		{"a redirect", everywhere(strict(), func() []*pb.Step { return visited(ip1, hands{}, 301) })},
		{"a header as large as the client takes", everywhere(strict(), func() []*pb.Step {
			steps := visited(ip1, hands{}, 200)
			steps[len(steps)-1].Evidence.Http.HeaderSize = 32768
			return steps
		})},
		{"whatever is wrong with the certificate, for a client that looks at none", everywhere(lenient(), func() []*pb.Step {
			return visited(ip1, forNames(hands{wrong: []pb.Failure{expired, selfSigned, disorder, weakSign, keyUnknown}, asks: true}, "x.test"), 200)
		})},
		{"a certificate that ends tomorrow, for a client that looks at none", everywhere(lenient(), func() []*pb.Step { return ending(24*time.Hour, visited(ip1, hands{}, 200)) })},
		{"an address, for a client that takes addresses", asking(everywhere(lenient(), func() []*pb.Step { return visited(ip1, hands{}, 200) }),
			func(o *pb.OriginSpec) { o.Url = "https://203.0.113.10/" })},
		{"no answer to the client's hello, where the agent agreed on what the client offers too", meets(hands{offer: hung})},
		{"a certificate is asked for in TLS 1.3 alone, which the client does not speak", everywhere(strict(), func() []*pb.Step {
			steps := visited(ip1, hands{version: "TLS 1.3", suite: suite13}, 200)
			steps[1].Evidence.Tls.ClientCertificateRequested = true
			return steps
		})},
		{"old agents make no hello of the client's", meets(hands{noOffer: true})},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if got := lines(c.world.judge()); len(got) != 1 || got[0] != "ok" {
				t.Errorf("%q, want nothing but ok", got)
			}
		})
	}
}
