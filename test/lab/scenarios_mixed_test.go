package lab

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// found is a finding with what rows most often say about it.
func found(code pb.FindingCode, stage pb.Stage, failure pb.Failure, regions []string, addrs ...string) *pb.Finding {
	f := &pb.Finding{Code: code, Regions: regions, Stage: stage, Failure: failure}
	for _, a := range addrs {
		f.Addresses = append(f.Addresses, netip.AddrPortFrom(netip.MustParseAddr(a), 443).String())
	}
	return f
}

// but is all regions except these, as findings list them.
func but(some ...string) []string {
	return slices.DeleteFunc(everywhere(), func(r string) bool { return slices.Contains(some, r) })
}

// twoFaults are two faults at once: each has its finding, or the first one that is met has.
func twoFaults() []scenario {
	dropped := func(region, addr string) *pb.Finding {
		return shut(region, addr, pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)
	}
	return []scenario{
		{
			name: "two-regions", says: "one region's packets are dropped, another one's are answered with RST",
			hosts: []host{at("198.18.200.10")},
			faults: []fault{
				{"router", "ip saddr $ap_south ip daddr 198.18.200.10 counter drop"},
				{"router", "ip saddr $eu_west ip daddr 198.18.200.10 tcp dport 443 counter reject with tcp reset"},
			},
			proofs: []proof{
				{"ap-1 ap-2", "connect", "198.18.200.10:443", "silent"},
				{"eu-1 eu-2", "connect", "198.18.200.10:443", "refused"},
				{"us-1 sa-1", "connect", "198.18.200.10:443", "open"},
			},
			ask: "tcp NAME:443",
			want: fails(dropped("ap-south", "198.18.200.10"),
				shut("eu-west", "198.18.200.10", pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.Failure_FAILURE_TCP_REFUSED)),
		},
		{
			name: "block-and-dead", says: "one region is shut out of one address, the other address is dead",
			hosts:  []host{at("198.18.200.11"), without("198.18.200.12")},
			faults: []fault{{"router", "ip saddr $sa_east ip daddr 198.18.200.11 counter drop"}},
			proofs: []proof{
				{"sa-1 sa-2", "connect", "198.18.200.11:443", "silent"},
				{all, "connect", "198.18.200.12:443", "refused"},
				{"us-1 eu-1 ap-1", "connect", "198.18.200.11:443", "open"},
			},
			ask: "tcp NAME:443",
			want: fails(dropped("sa-east", "198.18.200.11"), found(pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE,
				pb.Stage_STAGE_TCP, pb.Failure_FAILURE_TCP_REFUSED, everywhere(), "198.18.200.12")),
		},
		{
			name: "block-and-expired", says: "one region is shut out of a target whose certificate is over",
			hosts:  []host{outdated("198.18.200.13")},
			faults: []fault{{"router", "ip saddr $us_east ip daddr 198.18.200.13 counter drop"}},
			proofs: []proof{{"us-1 us-2", "connect", "198.18.200.13:443", "silent"}, {"eu-1 ap-1", "openssl", "198.18.200.13:443", "certificate has expired"}},
			ask:    "tls NAME",
			want: fails(dropped("us-east", "198.18.200.13"), found(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM,
				pb.Stage_STAGE_CERTIFICATE, pb.Failure_FAILURE_CERT_EXPIRED, but("us-east"), "198.18.200.13")),
		},
		{
			name: "denial-and-rst", says: "one region's resolver denies the name, another region is refused",
			hosts:          []host{at("198.18.200.14")},
			resolverFaults: []resolverFault{{"us-east", "NXDOMAIN"}},
			faults:         []fault{{"router", "ip saddr $ap_south ip daddr 198.18.200.14 tcp dport 443 counter reject with tcp reset"}},
			proofs: []proof{
				{"us-1 us-2", "dig", "denial-and-rst." + zone, "NXDOMAIN"},
				{"ap-1 ap-2", "connect", "198.18.200.14:443", "refused"},
				{"eu-1 sa-1", "connect", "198.18.200.14:443", "open"},
			},
			ask: "tcp NAME:443",
			want: fails(found(pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, pb.Stage_STAGE_DNS, pb.Failure_FAILURE_DNS_NXDOMAIN, []string{"us-east"}),
				shut("ap-south", "198.18.200.14", pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.Failure_FAILURE_TCP_REFUSED)),
		},
		{
			name: "denial-hides-drop", says: "one region's resolver denies the name, and the way is shut too: the first is told",
			hosts:          []host{at("198.18.200.15")},
			resolverFaults: []resolverFault{{"eu-west", "NXDOMAIN"}},
			faults:         []fault{{"router", "ip saddr $eu_west ip daddr 198.18.200.15 counter drop"}},
			proofs:         []proof{{"eu-1 eu-2", "dig", "denial-hides-drop." + zone, "NXDOMAIN"}, {"eu-1 eu-2", "connect", "198.18.200.15:443", "silent"}},
			ask:            "tcp NAME:443",
			want:           fails(found(pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, pb.Stage_STAGE_DNS, pb.Failure_FAILURE_DNS_NXDOMAIN, []string{"eu-west"})),
		},
		{
			name: "block-and-502", says: "the server answers 502, and one agent does not come to it",
			hosts:  []host{own("198.18.200.16", web(status(502)))},
			faults: []fault{{"router", "ip saddr $sa_2 ip daddr 198.18.200.16 counter drop"}},
			proofs: []proof{{"sa-2", "connect", "198.18.200.16:443", "silent"}, {"sa-1 us-1", "curl", "https://NAME/ 198.18.200.16", "502"}},
			ask:    "http https://NAME/",
			want: fails(found(pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR, pb.Stage_STAGE_HTTP, pb.Failure_FAILURE_HTTP_STATUS, everywhere(), "198.18.200.16")).
				besides(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, Regions: []string{"sa-east"}, Agents: []string{"sa-2"}, Failure: pb.Failure_FAILURE_TCP_TIMEOUT}),
		},
		{
			name: "block-under-loss", says: "one packet of twenty is lost for everybody, and one region's all are",
			hosts: []host{at("198.18.200.17")},
			faults: []fault{
				{"router", "ip saddr $ap_south ip daddr 198.18.200.17 counter drop"},
				{"router", "ip daddr 198.18.200.17 counter"},
				{"router", "ip daddr 198.18.200.17 numgen random mod 20 == 0 drop"},
				{"router", "ip saddr 198.18.200.17 numgen random mod 20 == 0 drop"},
			},
			proofs: []proof{{"ap-1 ap-2", "connect", "198.18.200.17:443", "silent"}, {"us-1", "connect", "198.18.200.17:443", "open"}},
			ask:    "tls NAME",
			want:   fails(dropped("ap-south", "198.18.200.17")),
		},
	}
}

// families are targets of one family, or one of whose families is shut for a region.
func families() []scenario {
	return []scenario{
		{
			name: "six-rejected", says: "a target with IPv6 alone, and one region is answered with ICMPv6 1/1",
			hosts:  []host{at("2001:db8:18::c801")},
			faults: []fault{{"router", "ip6 saddr $sa_east6 ip6 daddr 2001:db8:18::c801 counter reject with icmpv6 type admin-prohibited"}},
			proofs: []proof{
				{"sa-1", "connect", "[2001:db8:18::c801]:443", "icmp 1/1 from 2001:db8:4:1::1"},
				{"us-1 eu-1 ap-1", "connect", "[2001:db8:18::c801]:443", "open"},
			},
			ask: "tcp NAME:443",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{"sa-east"}, Addresses: []string{"[2001:db8:18::c801]:443"},
				Block: pb.BlockKind_BLOCK_KIND_REJECT_ICMP, Failure: pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED, Blame: pb.Blame_BLAME_PATH,
			}),
		},
		{
			name: "six-dropped", says: "one region's IPv6 is dropped, its IPv4 is not",
			hosts:  []host{at("198.18.200.20"), at("2001:db8:18::c802")},
			faults: []fault{{"router", "ip6 saddr $eu_west6 ip6 daddr 2001:db8:18::c802 counter drop"}},
			proofs: []proof{
				{"eu-1 eu-2", "connect", "[2001:db8:18::c802]:443", "silent"},
				{"eu-1 eu-2", "connect", "198.18.200.20:443", "open"},
				{"us-1 ap-1 sa-1", "connect", "[2001:db8:18::c802]:443", "open"},
			},
			ask: "tcp NAME:443",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{"eu-west"}, Addresses: []string{"[2001:db8:18::c802]:443"},
				Block: pb.BlockKind_BLOCK_KIND_DROP, Failure: pb.Failure_FAILURE_TCP_TIMEOUT, Blame: pb.Blame_BLAME_PATH,
			}),
		},
		{
			name: "four-only", says: "a name without IPv6: nothing is wrong with that",
			hosts:  []host{at("198.18.200.21")},
			proofs: []proof{{"us-1 ap-1", "dig", "four-only." + zone + " AAAA", "NOERROR"}, {all, "connect", "198.18.200.21:443", "open"}},
			ask:    "tls NAME", want: fine(),
		},
		{
			name: "four-asked", says: "IPv6 is silent, and only IPv4 is asked about",
			hosts:  []host{at("198.18.200.22"), at("2001:db8:18::c803")},
			faults: []fault{{"router", "ip6 daddr 2001:db8:18::c803 counter drop"}},
			proofs: []proof{{"us-1 ap-1", "connect", "[2001:db8:18::c803]:443", "silent"}, {all, "connect", "198.18.200.22:443", "open"}},
			ask:    "tcp NAME:443 -4", want: fine(),
		},
	}
}

// slowLinks are slow, and nothing else is wrong with them.
func slowLinks() []scenario {
	return []scenario{
		{
			name: "slow-region", says: "the way from one region takes a fifth of a second",
			hosts:   []host{at("198.18.200.30")},
			detours: []detour{{from: "ap-1 ap-2", to: "198.18.200.30", delay: 200 * time.Millisecond}},
			proofs:  []proof{{"ap-1 ap-2", "time", "198.18.200.30:443 150ms", "slow"}, {"us-1", "connect", "198.18.200.30:443", "open"}},
			ask:     "tcp NAME:443",
			want: fine().noting(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER, Regions: []string{"ap-south"}, Addresses: []string{"198.18.200.30:443"},
			}),
		},
		{
			name: "slow-everywhere", says: "the way takes 1.2 s from everywhere, as by satellite and back",
			hosts:   []host{own("198.18.200.31", web(greet))},
			detours: []detour{{from: all, to: "198.18.200.31", delay: 1200 * time.Millisecond}},
			proofs:  []proof{{"us-1 sa-2", "time", "198.18.200.31:443 1s", "slow"}},
			ask:     "http https://NAME/ --expect-body hello", want: fine(),
		},
		{
			name: "slow-and-rejected", says: "one region's way is slow, another one's is shut",
			hosts:   []host{at("198.18.200.32")},
			detours: []detour{{from: "sa-1 sa-2", to: "198.18.200.32", delay: 400 * time.Millisecond}},
			faults:  []fault{{"router", "ip saddr $us_east ip daddr 198.18.200.32 counter reject with icmp type admin-prohibited"}},
			proofs: []proof{
				{"sa-1 sa-2", "time", "198.18.200.32:443 300ms", "slow"}, {"us-1", "connect", "198.18.200.32:443", "icmp 3/13 from 10.1.1.1"},
			},
			ask: "tcp NAME:443",
			want: fails(shut("us-east", "198.18.200.32", pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED)).saying("3/13").
				noting(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER, Regions: []string{"sa-east"}}),
		},
	}
}

// endings are ends of connections and responses that single out a region.
func endings() []scenario {
	return []scenario{
		{
			name: "closed-early", says: "a middlebox of one region closes connections once they stand",
			hosts: []host{at("198.18.200.40"), own("198.18.200.41", one(443, func(_ *world, at netip.AddrPort) (*probetest.Host, error) {
				return probetest.Listen(at, probetest.CloseAtOnce)
			})).called("-")},
			faults: []fault{{"middlebox", "ip saddr $us_east ip daddr 198.18.200.40 counter dnat ip to 198.18.200.41"}},
			proofs: []proof{{"us-1 us-2", "connect", "198.18.200.40:443", "closed after connect"}, {"eu-1 ap-1 sa-1", "connect", "198.18.200.40:443", "open"}},
			ask:    "tcp NAME:443",
			want:   fails(shut("us-east", "198.18.200.40", pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT, pb.Failure_FAILURE_TCP_CLOSED_EARLY)),
		},
		{
			name: "legal-reasons", says: "two regions get 451, the others the page",
			hosts: []host{own("198.18.200.42", web(func(rw http.ResponseWriter, r *http.Request, region string) {
				if region == "eu-west" || region == "sa-east" {
					rw.WriteHeader(http.StatusUnavailableForLegalReasons)
					return
				}
				greet(rw, r, region)
			}))},
			proofs: []proof{{"eu-1 sa-1", "curl", "https://NAME/ 198.18.200.42", "451"}, {"us-1 ap-1", "curl", "https://NAME/ 198.18.200.42", "200"}},
			ask:    "http https://NAME/",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{"eu-west", "sa-east"}, Addresses: []string{"198.18.200.42:443"},
				Stage: pb.Stage_STAGE_HTTP, Block: pb.BlockKind_BLOCK_KIND_HTTP_DENY, Blame: pb.Blame_BLAME_TARGET, Confidence: pb.Confidence_CONFIDENCE_HIGH,
			}),
		},
	}
}

// goodCertificates are accepted, and worth a word.
func goodCertificates() []scenario {
	soon := tlsAs(func(w *world, c *tls.Config) error {
		cert, err := w.authority.issue(time.Now().AddDate(0, 0, 5), "*."+zone)
		c.Certificates = []tls.Certificate{cert}
		return err
	})
	another := tlsAs(func(w *world, c *tls.Config) error {
		cert, err := w.authority.issue(time.Now().AddDate(0, 3, 0), "*."+zone)
		c.Certificates = []tls.Certificate{cert}
		return err
	})
	plain := tlsAs(func(*world, *tls.Config) error { return nil })
	weak := withLeaf(probetest.Leaf{Names: []string{"*." + zone}, RSABits: 1024, NotBefore: time.Now().AddDate(0, -1, 0), NotAfter: time.Now().AddDate(0, 2, 0)})
	certificate := func(code pb.FindingCode, regions []string, addrs ...string) *pb.Finding {
		return found(code, pb.Stage_STAGE_CERTIFICATE, 0, regions, addrs...)
	}
	return []scenario{
		{
			name: "ends-soon", says: "the certificate is over in five days",
			hosts:  []host{own("198.18.200.50", soon)},
			proofs: []proof{{"us-1 ap-1", "openssl", "198.18.200.50:443", "ok"}},
			ask:    "tls NAME",
			want:   warns(certificate(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, everywhere(), "198.18.200.50")),
		},
		{
			name: "weak-key", says: "the certificate's key has 1024 bits",
			hosts:  []host{own("198.18.200.51", weak)},
			proofs: []proof{{"us-1 ap-1", "openssl", "198.18.200.51:443 -cipher DEFAULT@SECLEVEL=0", "ok"}},
			ask:    "tls NAME",
			want: warns(found(pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, pb.Stage_STAGE_CERTIFICATE, pb.Failure_FAILURE_CERT_WEAK_KEY,
				everywhere(), "198.18.200.51")),
		},
		{
			name: "two-certificates", says: "one of three addresses serves another certificate, as good",
			hosts:  []host{own("198.18.200.52", plain), own("198.18.200.53", plain), own("198.18.200.54", another)},
			proofs: []proof{{"us-1 ap-1", "openssl", "198.18.200.54:443", "ok"}, {"us-1 ap-1", "openssl", "198.18.200.52:443", "ok"}},
			ask:    "tls NAME",
			want:   warns(certificate(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, everywhere(), "198.18.200.54")),
		},
		{
			name: "steered", says: "one region comes to another server, whose certificate is as good",
			hosts:  []host{own("198.18.200.55", plain), own("198.18.200.56", another).called("-")},
			faults: []fault{{"middlebox", "ip saddr $ap_south ip daddr 198.18.200.55 counter dnat ip to 198.18.200.56"}},
			proofs: []proof{{"us-1 ap-1", "openssl", "198.18.200.55:443", "ok"}},
			ask:    "tls NAME",
			want:   warns(certificate(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, []string{"ap-south"}, "198.18.200.55")),
		},
		{
			name: "inspected", says: "one agent's network puts a certificate of its own, as good, before the server",
			hosts:  []host{own("198.18.200.57", plain), own("198.18.200.58", another).called("-")},
			faults: []fault{{"middlebox", "ip saddr $eu_2 ip daddr 198.18.200.57 counter dnat ip to 198.18.200.58"}},
			proofs: []proof{{"eu-1 eu-2", "openssl", "198.18.200.57:443", "ok"}},
			ask:    "tls NAME",
			want: warns(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, Regions: []string{"eu-west"}, Agents: []string{"eu-2"},
				Addresses: []string{"198.18.200.57:443"}, Stage: pb.Stage_STAGE_CERTIFICATE,
			}),
		},
	}
}

// doors are expected to be open or shut.
func doors() []scenario {
	unmet := func(failure pb.Failure, region, addr string) want {
		return fails(&pb.Finding{
			Code: pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, Regions: []string{region}, Addresses: []string{addr + ":443"}, Failure: failure,
		})
	}
	return []scenario{
		{
			name: "refused-met", says: "a refusal is expected, and so it is: the port is closed",
			hosts:  []host{without("198.18.200.60")},
			proofs: []proof{{all, "connect", "198.18.200.60:443", "refused"}},
			ask:    "tcp NAME:443 --expect refused", want: fine(),
		},
		{
			name: "dropped-unmet", says: "silence is expected, and one region is refused",
			hosts: []host{at("198.18.200.61")},
			faults: []fault{
				{"router", "ip saddr $eu_west ip daddr 198.18.200.61 tcp dport 443 counter reject with tcp reset"},
				{"router", "ip daddr 198.18.200.61 counter drop"},
			},
			proofs: []proof{{"eu-1 eu-2", "connect", "198.18.200.61:443", "refused"}, {"us-1 ap-1 sa-1", "connect", "198.18.200.61:443", "silent"}},
			ask:    "tcp NAME:443 --expect dropped",
			want:   unmet(pb.Failure_FAILURE_TCP_REFUSED, "eu-west", "198.18.200.61"),
		},
		{
			name: "tls-open-met", says: "the door is expected to be open; that the certificate is over is no matter",
			hosts:  []host{outdated("198.18.200.62")},
			proofs: []proof{{"us-1 ap-1", "openssl", "198.18.200.62:443", "certificate has expired"}},
			ask:    "tls NAME --expect open", want: fine(),
		},
		{
			name: "http-blocked-unmet", says: "the page is expected to be denied, and one region gets it",
			hosts: []host{own("198.18.200.63", web(func(rw http.ResponseWriter, r *http.Request, region string) {
				if region == "sa-east" {
					greet(rw, r, region)
					return
				}
				rw.WriteHeader(http.StatusForbidden)
			}))},
			proofs: []proof{{"sa-1 sa-2", "curl", "https://NAME/ 198.18.200.63", "200"}, {"us-1 eu-1 ap-1", "curl", "https://NAME/ 198.18.200.63", "403"}},
			ask:    "http https://NAME/ --expect blocked",
			want:   unmet(0, "sa-east", "198.18.200.63"),
		},
	}
}
