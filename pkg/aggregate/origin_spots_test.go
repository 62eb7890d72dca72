package aggregate

import (
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestWhatIsNotKnownOfAnOrigin(t *testing.T) {
	runVerdicts(t, []verdictCase{
		{
			"no answer to the client's hello, and the agent agreed on what the client does not offer",
			meets(hands{version: "TLS 1.3", suite: suite13, offer: hung}),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low"},
		},
		{
			"one region refused alone: it may be the region",
			originWorld(strict()).in("ap", blocked(ip1, refused)),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=unknown low"},
		},
		{
			"one region asked alone, and the server's own word: it is the server's",
			originWorld(strict()).in("ap", visited(ip1, hands{own: notTLS, offer: notTLS}, 0)),
			[]string{"fail", "ERROR origin_incompatible [ap] at 203.0.113.10:443 tls_not_tls blame=target medium → not_tls 502"},
		},
		{
			"the agent gives up before the client would",
			everywhere(strict(), func() []*pb.Step { return silentFor(6, visited(ip1, hands{}, 0)) }),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] at 203.0.113.10:443 http_timeout blame=unknown low"},
		},
		{
			"one agent of the region gives up, and its fellow gets a response",
			originWorld(strict()).in("ap/1", silentFor(6, visited(ip1, hands{}, 0))).in("ap/2", visited(ip1, hands{}, 200)),
			[]string{"ok"},
		},
		{
			"the client's hello is reset, and the version that was tried beside met silence",
			meets(hands{version: "TLS 1.3", suite: suite13, offer: tlsReset, accepts: append(accepting("TLS 1.3", []string{suite13}), &pb.VersionSupport{Version: "TLS 1.2", Failure: hung})}),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low"},
		},
		{
			"an agent's own trouble is nobody else's",
			originWorld(strict()).in("ap", tcp(ip1, timeout), failing4()).in("eu", visited(ip1, hands{}, 200)),
			[]string{"inconclusive", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"one agent of the region differs",
			originWorld(strict()).in("ap/1", blocked(ip1, timeout)).in("ap/2", visited(ip1, hands{}, 200)).in("eu", visited(ip1, hands{}, 200)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-1 blame=unknown medium"},
		},
		{
			"a key on a curve that documents say nothing of",
			meets(hands{leaf: keyed("ECDSA P-384")}),
			[]string{"ok", "WARN certificate_problem [ap eu] at 203.0.113.10:443 cert_key_unsupported blame=target high → key 502?"},
		},
		{
			"a signature that is weak, and documents say nothing of that",
			meets(hands{wrong: []pb.Failure{weakSign}}),
			[]string{"ok", "WARN certificate_problem [ap eu] at 203.0.113.10:443 cert_weak_signature blame=target high → certificate_invalid 502?"},
		},
		{
			"a root that is served along: documents ask for it to be left out, and do not say what comes of it",
			meets(hands{chain: &pb.ChainEvidence{Ordered: true, RootIncluded: true}}),
			[]string{"ok", "WARN certificate_problem [ap eu] at 203.0.113.10:443 blame=target high → chain_order 502?"},
		},
	})
}

func TestOriginsByRegionAndAddress(t *testing.T) {
	good := func(address string) []*pb.Step { return visited(address, hands{}, 200) }
	runVerdicts(t, []verdictCase{
		{
			"shut to one region: the edges there cannot come in either",
			originWorld(strict()).in("ap", blocked(ip1, timeout)).in("eu", good(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium → firewall 502 or 504"},
		},
		{
			"refused in one region: it is no matter of the port",
			originWorld(strict()).in("ap", blocked(ip1, refused)).in("eu", good(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium → firewall 502 or 504"},
		},
		{
			"denied in one region, which viewers there get to see",
			originWorld(strict()).in("ap", visited(ip1, hands{}, 403)).in("eu", good(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 http_status block=http_deny blame=target medium → upstream 403"},
		},
		{
			"one address of two is closed: the client fails whenever it takes that one",
			everywhere(strict(), func() []*pb.Step { return then(good(ip1), blocked(ip2, refused)) }),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at 203.0.113.11:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
		{
			"one address of two speaks no version of the client's",
			everywhere(strict(), func() []*pb.Step {
				return then(good(ip1), visited(ip2, hands{version: "TLS 1.1", suite: suiteCBC, offer: noVersion, accepts: accepting("TLS 1.1", []string{suiteCBC})}, 200))
			}),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at 203.0.113.11:443 tls_version_unsupported blame=target high → protocol 502"},
		},
		{
			"one address of two has an old certificate",
			everywhere(strict(), func() []*pb.Step { return then(good(ip1), visited(ip2, hands{wrong: []pb.Failure{expired}}, 200)) }),
			[]string{"fail", "ERROR regional_certificate [ap eu] at 203.0.113.11:443 cert_expired blame=target high → expired 502"},
		},
		{
			"one region gets a certificate of somebody else",
			originWorld(strict()).in("ap", visited(ip1, hands{wrong: []pb.Failure{untrusted}}, 200)).in("eu", good(ip1)),
			[]string{"fail", "ERROR regional_certificate [ap] at 203.0.113.10:443 cert_untrusted_root blame=unknown medium → untrusted 502"},
		},
		{
			"two causes at two addresses: one ERROR for each",
			everywhere(strict(), func() []*pb.Step {
				return then(blocked(ip1, refused), visited(ip2, hands{own: notTLS, offer: notTLS}, 0))
			}),
			[]string{
				"fail",
				"ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target high → port_closed 502",
				"ERROR origin_incompatible [ap eu] at 203.0.113.11:443 tls_not_tls blame=target high → not_tls 502",
			},
		},
		{
			"two causes in one certificate: one ERROR, both causes in its words",
			meets(forNames(hands{wrong: []pb.Failure{expired}}, "www.other.test")),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_expired blame=target high → expired 502"},
		},
		{
			"no version in common, and the certificate has expired: the first broken stage is told (rule 12)",
			meets(hands{wrong: []pb.Failure{expired}, version: "TLS 1.1", suite: suiteCBC, offer: noVersion, accepts: accepting("TLS 1.1", []string{suiteCBC})}),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_version_unsupported blame=target high → protocol 502"},
		},
		{
			"IPv6 is broken, and this client never uses it",
			everywhere(strict(), func() []*pb.Step { return then(good(ip1), blocked(v61, refused)) }),
			[]string{"ok", "WARN family_broken [ap eu] at [2001:db8::10]:443 tcp_refused block=reject_rst blame=target high"},
		},
		{
			"one address of IPv6 is broken, and one region cannot reach the other: no more than that either",
			originWorld(strict()).in("ap", then(good(ip1), blocked(v61, refused), blocked(v62, timeout))).in("eu", then(good(ip1), blocked(v61, refused), good(v62))),
			[]string{"ok", "WARN family_broken [ap eu] at [2001:db8::10]:443 [2001:db8::11]:443 tcp_refused block=reject_rst blame=target high"},
		},
		{
			"IPv4 is broken: that IPv6 works is no help",
			everywhere(strict(), func() []*pb.Step { return then(blocked(ip1, refused), good(v61)) }),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
		{
			"the name has addresses of IPv6 alone: nobody gets through as the client comes",
			everywhere(strict(), func() []*pb.Step {
				return then(typed("A", unnamed(1, nodata)), typed("AAAA", query(1, none, "2001:db8::10")), good(v61))
			}),
			[]string{"fail", "ERROR no_ipv4 [ap eu] dns_nodata blame=zone medium → no_ipv4 502"},
		},
		{
			"no IPv4 address in one region alone",
			originWorld(strict()).
				in("ap", then(typed("A", unnamed(1, nodata)), typed("AAAA", query(1, none, "2001:db8::10")), good(v61))).
				in("eu", then(typed("A", query(2, none, "203.0.113.10")), typed("AAAA", query(2, none, "2001:db8::10")), good(ip1), good(v61))),
			[]string{"fail", "ERROR no_ipv4 [ap] dns_nodata blame=zone medium → no_ipv4 502"},
		},
		{
			"the query for IPv4 addresses failed: nobody knows whether there are any",
			everywhere(strict(), func() []*pb.Step {
				return then(typed("A", unnamed(1, servfail)), typed("AAAA", query(1, none, "2001:db8::10")), good(v61))
			}),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low"},
		},
		{
			"an agent without IPv4 sees nothing of the way that the client takes",
			originWorld(strict()).in("ap", then(tcp(ip1, noFamily), good(v61))).in("eu", then(good(ip1), good(v61))),
			[]string{"inconclusive"},
		},
		{
			"a client that is told to come over IPv6, by the question about IPv6 alone",
			func() *world {
				w := everywhere(strict(), func() []*pb.Step {
					return then(typed("AAAA", query(1, none, "2001:db8::10", "2001:db8::11")), good(v61), blocked(v62, refused))
				})
				w.m.Spec.Family = pb.Family_FAMILY_IPV6
				return w
			}(),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at [2001:db8::11]:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
		{
			"a client that uses both",
			everywhere(lenient(), func() []*pb.Step { return then(good(ip1), blocked(v61, refused), good(v62)) }),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at [2001:db8::10]:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
	})
}
