package aggregate

import (
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shipped is a profile that comes with the program.
func shipped(t *testing.T, name string) *pb.Profile {
	t.Helper()
	p, err := profile.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A healthy origin is one for every client, and each can tell what it answers to the common causes.
func TestShippedProfiles(t *testing.T) {
	for _, name := range profile.Names() {
		t.Run(name, func(t *testing.T) {
			p := shipped(t, name)
			w := everywhere(p, func() []*pb.Step { return visited(ip1, hands{}, 200) })
			if got := lines(w.judge()); len(got) != 1 || got[0] != "ok" {
				t.Errorf("a healthy origin: %q", got)
			}
			for what, steps := range map[string]func() []*pb.Step{
				"refused": func() []*pb.Step { return blocked(ip1, refused) },
				"silent":  func() []*pb.Step { return blocked(ip1, timeout) },
				"no TLS":  func() []*pb.Step { return visited(ip1, hands{own: notTLS, offer: notTLS}, 0) },
				"502":     func() []*pb.Step { return visited(ip1, hands{}, 502) },
			} {
				v := everywhere(p, steps).judge()
				if len(v.GetFindings()) != 1 || v.GetFindings()[0].GetPrediction().GetText() == "" {
					t.Errorf("%s: %q", what, lines(v))
				}
			}
		})
	}
}

// The three ways to stand behind a load balancer that the AWS blog tells of (docs/origin.md: the three topologies).
func TestTopologies(t *testing.T) {
	p := shipped(t, "cloudfront")
	old := hands{version: "TLS 1.0", suite: suiteCBC, offer: noVersion, accepts: accepting("TLS 1.0", []string{suiteCBC})}
	byItsOwnName := func(o *pb.OriginSpec) { o.Url = "https://alb-1.eu-west-1.elb.amazonaws.com/" }
	runVerdicts(t, []verdictCase{
		{
			"by the load balancer's own name, with a certificate for the custom domain",
			asking(everywhere(p, func() []*pb.Step {
				h := forNames(hands{}, "www.shop.test")
				h.names = []*pb.NameMatch{{Name: "alb-1.eu-west-1.elb.amazonaws.com"}}
				return visited(ip1, h, 200)
			}), byItsOwnName),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_name_mismatch blame=target high → load_balancer_name 502"},
		},
		{
			"by the load balancer's own name, and the Host that the certificate is for is forwarded",
			asking(asking(everywhere(p, func() []*pb.Step {
				h := forNames(hands{}, "www.shop.test")
				h.names = []*pb.NameMatch{{Name: "alb-1.eu-west-1.elb.amazonaws.com"}, {Name: "www.shop.test", San: true}}
				return visited(ip1, h, 200)
			}), byItsOwnName), func(o *pb.OriginSpec) { o.HostHeader = "www.shop.test" }),
			[]string{"ok"},
		},
		{
			"TLS ends at the load balancer, whose targets speak plain HTTP",
			everywhere(p, func() []*pb.Step { return visited(ip1, hands{}, 200) }),
			[]string{"ok"},
		},
		{
			"the load balancer passes TLS on to a server with a certificate that is signed by itself",
			everywhere(p, func() []*pb.Step { return visited(ip1, hands{wrong: []pb.Failure{selfSigned}}, 200) }),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_self_signed blame=target high → self_signed 502"},
		},
		{
			"the same server as a target of a load balancer that ends TLS: nobody looks at its certificate",
			everywhere(shipped(t, "aws-alb"), func() []*pb.Step { return visited(ip1, hands{wrong: []pb.Failure{selfSigned, expired}}, 200) }),
			[]string{"ok"},
		},
		{
			"the server speaks old versions alone, which the client speaks if its settings allow it: that is no error",
			everywhere(p, func() []*pb.Step { return visited(ip1, hands{version: "TLS 1.1", suite: suiteCBC}, 200) }),
			[]string{"ok", "WARN protocol_mismatch [ap eu] at 203.0.113.10:443 blame=target high → protocol 502?"},
		},
		{
			"the same, and the settings that are asked about allow it",
			asking(everywhere(p, func() []*pb.Step { return visited(ip1, hands{version: "TLS 1.1", suite: suiteCBC}, 200) }), func(o *pb.OriginSpec) { o.Versions = []string{"TLS 1.1", "TLS 1.2"} }),
			[]string{"ok"},
		},
		{
			"the server speaks an older version alone than the client is made to speak",
			asking(everywhere(p, func() []*pb.Step { return visited(ip1, old, 200) }), func(o *pb.OriginSpec) { o.Versions = []string{"TLS 1.1", "TLS 1.2"} }),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_version_unsupported blame=target high → protocol 502"},
		},
		{
			"a silent port: documents conflict about the status",
			everywhere(p, func() []*pb.Step { return blocked(ip1, timeout) }),
			[]string{"fail", "ERROR origin_incompatible [ap eu] at 203.0.113.10:443 tcp_timeout block=drop blame=target low → firewall 502 or 504?"},
		},
	})
}

// A check of the handshake alone is judged by the same wishes; what is below it is down for everybody.
func TestTLSForAClient(t *testing.T) {
	check := func(steps func() []*pb.Step) *world {
		w := judgedFor(tlsWorld(), strict())
		w.m.Spec.GetTls().Names = []string{"www.shop.test"}
		return w.in("ap", steps()).in("eu", steps())
	}
	handshake := func(h hands) func() []*pb.Step { return func() []*pb.Step { return shake(ip1, h) } }
	runVerdicts(t, []verdictCase{
		{"all is well", check(handshake(hands{})), []string{"ok"}},
		{
			"no version in common",
			check(handshake(hands{version: "TLS 1.3", suite: suite13, offer: noVersion, accepts: accepting("TLS 1.3", []string{suite13})})),
			[]string{"fail", "ERROR protocol_mismatch [ap eu] at 203.0.113.10:443 tls_version_unsupported blame=target high → protocol 502?"},
		},
		{
			"the agent's library cannot, and the client can",
			check(handshake(hands{own: noSuite})),
			[]string{"ok"},
		},
		{
			"the certificate is for the Host that is named beside",
			check(func() []*pb.Step {
				h := forNames(hands{}, "www.shop.test")
				h.names = []*pb.NameMatch{{Name: "shop.origin.example"}, {Name: "www.shop.test", San: true}}
				return shake(ip1, h)
			}),
			[]string{"ok"},
		},
		{
			"a chain in the wrong order, which is a warning without a profile",
			check(handshake(hands{wrong: []pb.Failure{disorder}})),
			[]string{"fail", "ERROR certificate_problem [ap eu] at 203.0.113.10:443 cert_chain_order blame=target high → chain_order 502"},
		},
		{
			"a closed port is down for everybody",
			check(func() []*pb.Step { return blocked(ip1, refused) }),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
		{
			"IPv6 is looked at too",
			check(func() []*pb.Step { return then(shake(ip1, hands{}), shake(v61, hands{}), blocked(v62, refused)) }),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at [2001:db8::11]:443 tcp_refused block=reject_rst blame=target high → port_closed 502"},
		},
	})
}
