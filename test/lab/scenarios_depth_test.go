package lab

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// steps are the steps of a kind and role that a result has.
func steps(r *pb.Result, kind pb.StepKind, role pb.Role) []*pb.Step {
	return slices.DeleteFunc(slices.Clone(r.GetSteps()), func(s *pb.Step) bool { return s.GetKind() != kind || s.GetRole() != role })
}

// each asks about every agent's result, or those of one region, and says whose is wrong.
func each(region string, wrong func(*pb.Result) string) func(*pb.Measurement) []string {
	return func(m *pb.Measurement) (all []string) {
		n := 0
		for _, r := range m.GetResults() {
			if region != "" && r.GetVantage().GetRegion() != region {
				continue
			}
			n++
			if what := wrong(r); what != "" {
				all = append(all, r.GetAgent()+": "+what)
			}
		}
		if n == 0 {
			all = append(all, "nobody's result can be looked at")
		}
		return all
	}
}

// meddled is a region's handshakes that something on the way stops.
func meddled(region, addr string, block pb.BlockKind, failure pb.Failure) *pb.Finding {
	return &pb.Finding{
		Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{region}, Addresses: []string{addr + ":443"},
		Stage: pb.Stage_STAGE_TLS, Block: block, Failure: failure, Failures: []pb.Failure{failure},
		Blame: pb.Blame_BLAME_PATH, Confidence: pb.Confidence_CONFIDENCE_HIGH,
	}
}

// through says whether exactly these variants of the failing handshake got through.
func through(region string, want ...pb.Variant) func(*pb.Measurement) []string {
	return each(region, func(r *pb.Result) string {
		var got []pb.Variant
		for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT) {
			if v := s.GetEvidence().GetTls(); len(v.GetChain()) > 0 || v.GetVersion() != "" {
				got = append(got, s.GetVariant())
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Sprintf("variants %v got through, want %v", got, want)
		}
		return ""
	})
}

func meddling() []scenario {
	const other, none = pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME
	const hello, segments = pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS
	return []scenario{
		{
			name: "sni-reset", says: "a middlebox of one region resets connections that ask for the name",
			hosts:  []host{at("203.0.113.90"), own("203.0.113.91", middlebox("203.0.113.90", "sni-reset."+zone, probetest.Abort)).called("-")},
			faults: []fault{{"middlebox", "ip saddr $ap_south ip daddr 203.0.113.90 counter dnat ip to 203.0.113.91"}},
			proofs: []proof{
				{"ap-1 ap-2", "openssl", "203.0.113.90:443", "reset"},
				{"ap-1", "openssl", "203.0.113.90:443 another." + zone, "ok"},
				{"us-1 eu-1 sa-1", "openssl", "203.0.113.90:443", "ok"},
			},
			ask: "tls NAME",
			want: fails(meddled("ap-south", "203.0.113.90", pb.BlockKind_BLOCK_KIND_SNI_RESET, pb.Failure_FAILURE_TLS_RESET)).
				mentioning("sni-reset." + zone).showing(through("ap-south", other, none)),
		},
		{
			name: "sni-drop", says: "a middlebox of one region swallows connections that ask for the name",
			hosts:  []host{at("203.0.113.92"), own("203.0.113.93", middlebox("203.0.113.92", "sni-drop."+zone, probetest.Accept)).called("-")},
			faults: []fault{{"middlebox", "ip saddr $eu_west ip daddr 203.0.113.92 counter dnat ip to 203.0.113.93"}},
			proofs: []proof{
				{"eu-1 eu-2", "openssl", "203.0.113.92:443", "silent"},
				{"eu-1", "openssl", "203.0.113.92:443 another." + zone, "ok"},
				{"us-1 ap-1 sa-1", "openssl", "203.0.113.92:443", "ok"},
			},
			ask: "tls NAME",
			want: fails(meddled("eu-west", "203.0.113.92", pb.BlockKind_BLOCK_KIND_SNI_DROP, pb.Failure_FAILURE_TLS_TIMEOUT)).
				showing(through("eu-west", other, none)),
		},
		{
			name: "large-packets-up", says: "full-sized packets of one region do not arrive",
			hosts:  []host{at("203.0.113.94")},
			faults: []fault{{"router", "ip saddr $sa_east ip daddr 203.0.113.94 meta length > 1300 counter drop"}},
			proofs: []proof{
				{"sa-1 sa-2", "send", "203.0.113.94:443 1400", "silent"},
				{"sa-1 sa-2", "send", "203.0.113.94:443 1000", "answered"},
				{"us-1 eu-1 ap-1", "send", "203.0.113.94:443 1400", "answered"},
			},
			ask: "tls NAME",
			want: fails(meddled("sa-east", "203.0.113.94", pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP, pb.Failure_FAILURE_TLS_TIMEOUT)).
				showing(through("sa-east", hello, segments)),
		},
		{
			name: "large-packets-down", says: "full-sized packets to one region do not arrive",
			hosts:  []host{own("203.0.113.95", tlsAs(large))},
			faults: []fault{{"router", "ip saddr 203.0.113.95 ip daddr $us_east meta length > 1300 counter drop"}},
			proofs: []proof{
				{"us-1 us-2", "openssl", "203.0.113.95:443", "silent"},
				{"us-1 us-2", "connect", "203.0.113.95:443", "open"},
				{"eu-1 ap-1 sa-1", "openssl", "203.0.113.95:443", "ok"},
			},
			ask: "tls NAME",
			want: fails(meddled("us-east", "203.0.113.95", pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP, pb.Failure_FAILURE_TLS_TIMEOUT)).
				showing(through("us-east", segments)),
		},
	}
}

// trodden says whether the path of each agent of a region looks like that, in words.
func trodden(region, words string) func(*pb.Measurement) []string {
	return each(region, func(r *pb.Result) string {
		all := steps(r, pb.StepKind_STEP_KIND_PATH_TRACE, pb.Role_ROLE_TARGET)
		if len(all) != 1 || !strings.Contains(all[0].GetEvidence().GetText(), words) {
			return fmt.Sprintf("no path that says %q: %v", words, all)
		}
		return ""
	})
}

// allOf says all that is wrong.
func allOf(looks ...func(*pb.Measurement) []string) func(*pb.Measurement) []string {
	return func(m *pb.Measurement) (all []string) {
		for _, look := range looks {
			all = append(all, look(m)...)
		}
		return all
	}
}

func traces() []scenario {
	return []scenario{
		{
			name: "path-drop", says: "the second router drops one region's packets to the port",
			hosts:  []host{at("198.51.100.200")},
			faults: []fault{{"transit", "ip saddr $ap_south ip daddr 198.51.100.200 tcp dport 443 counter drop"}},
			proofs: []proof{
				{"ap-1 ap-2", "connect", "198.51.100.200:443", "silent"},
				{"ap-1 ap-2", "connect", "198.51.100.200:80", "refused"},
				{"us-1 eu-1 sa-1", "connect", "198.51.100.200:443", "open"},
			},
			ask: "tcp NAME:443 --path",
			want: fails(shut("ap-south", "198.51.100.200", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)).showing(allOf(
				trodden("ap-south", "hops 1-2 answered, the last is 10.9.0.2; nothing beyond for port 443, while port 80 gets through: packets to port 443 are dropped after hop 2"),
				trodden("us-east", "hops 1-2 answered, the last is 10.9.0.2; port 443 is reached at hop 3"),
			)),
		},
		{
			name: "path-rejected", says: "the second router rejects one region's packets, and says so",
			hosts:  []host{at("198.51.100.201")},
			faults: []fault{{"transit", "ip saddr $eu_west ip daddr 198.51.100.201 counter reject with icmp type admin-prohibited"}},
			proofs: []proof{
				{"eu-1 eu-2", "connect", "198.51.100.201:443", "icmp 3/13 from 10.9.0.2"},
				{"us-1 ap-1 sa-1", "connect", "198.51.100.201:443", "open"},
			},
			ask: "tcp NAME:443 --path",
			want: fails(shut("eu-west", "198.51.100.201", pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED)).showing(
				trodden("eu-west", "10.9.0.2 rejects port 443 by ICMP 3/13")),
		},
	}
}

// broken is a target that fails from everywhere, in the way that bytes of its own show.
func broken(addr string, stage pb.Stage, failure pb.Failure) want {
	return fails(&pb.Finding{
		Code: pb.FindingCode_FINDING_CODE_TARGET_DOWN, Regions: everywhere(), Addresses: []string{addr + ":443"},
		Stage: stage, Failure: failure, Failures: []pb.Failure{failure}, Blame: pb.Blame_BLAME_TARGET,
	})
}

func handshakes() []scenario {
	return []scenario{
		{
			name: "client-certificate", says: "the server wants a certificate of the client",
			hosts: []host{own("203.0.113.100", tlsAs(func(_ *world, c *tls.Config) error {
				c.ClientAuth = tls.RequireAnyClientCert
				return nil
			}))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.100:443 -tls1_2", "alert handshake failure"}},
			ask:    "tls NAME", want: broken("203.0.113.100", pb.Stage_STAGE_TLS, pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED),
		},
		{
			name: "ssl3", says: "the server speaks SSL 3.0 alone",
			hosts:  []host{own("203.0.113.101", one(443, ancient))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.101:443", "alert protocol version"}},
			ask:    "tls NAME", want: broken("203.0.113.101", pb.Stage_STAGE_TLS, pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED),
		},
		{
			name: "ssl3-offered", says: "the same, and SSL 3.0 is what is offered",
			hosts:  []host{own("203.0.113.102", one(443, ancient))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.102:443", "alert protocol version"}},
			ask:    "tls NAME --tls-version ssl3",
			want: fine().showing(each("", func(r *pb.Result) string {
				for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_TARGET) {
					if t := s.GetEvidence().GetTls(); t.GetVersion() == "SSL 3.0" && t.GetCipherSuite() == "TLS_RSA_WITH_3DES_EDE_CBC_SHA" && t.GetNegotiationOnly() {
						return ""
					}
				}
				return "no handshake agreed on SSL 3.0"
			})),
		},
		{
			name: "enumerated", says: "two suites of TLS 1.2, and TLS 1.3: no more and no less",
			hosts:  []host{own("203.0.113.103", tlsAs(picky))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.103:443 -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "ok"}},
			ask:    "tls NAME --enumerate", want: fine().showing(each("", pickyVersions)),
		},
		{
			name: "plain-http", says: "the server speaks HTTP in clear on port 443",
			hosts:  []host{own("203.0.113.104", plainWeb(443, greet))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.104:443", "not tls"}, {"us-1", "curl", "http://203.0.113.104:443/", "200"}},
			ask:    "tls NAME", want: broken("203.0.113.104", pb.Stage_STAGE_TLS, pb.Failure_FAILURE_TLS_NOT_TLS),
		},
		{
			name: "unknown-name", says: "the server does not know the name that it is asked for",
			hosts: []host{own("203.0.113.105", one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
				c, err := w.goodConfig()
				if err != nil {
					return nil, err
				}
				return probetest.ListenFlight(at, probetest.FlightServer{
					Suites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, Certificates: c.Certificates[0].Certificate, Name: "known." + zone,
				})
			}))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.105:443", "alert unrecognized name"}},
			ask:    "tls NAME", want: broken("203.0.113.105", pb.Stage_STAGE_TLS, pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME),
		},
	}
}

// pickyVersions says how what was found differs from what picky serves.
func pickyVersions(r *pb.Result) string {
	var got []string
	for _, s := range r.GetSteps() {
		for _, v := range s.GetEvidence().GetTls().GetVersions() {
			if !v.GetSupported() {
				continue
			}
			suites := v.GetCipherSuites()
			if v.GetVersion() == "TLS 1.3" {
				suites = nil // which ones is the library's business
			}
			got = append(got, strings.Join(append([]string{v.GetVersion()}, slices.Sorted(slices.Values(suites))...), " "))
		}
	}
	want := []string{"TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS 1.3"}
	if slices.Sort(got); !slices.Equal(got, want) {
		return fmt.Sprintf("accepted: %q, want %q", got, want)
	}
	return ""
}

// badCertificate is a certificate that is wrong from everywhere.
func badCertificate(addr string, failures ...pb.Failure) want {
	return fails(&pb.Finding{
		Code: pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, Regions: everywhere(), Addresses: []string{addr + ":443"},
		Stage: pb.Stage_STAGE_CERTIFICATE, Failure: failures[0], Failures: failures, Blame: pb.Blame_BLAME_TARGET,
	})
}

func chains() []scenario {
	url := "http://issuers." + zone + "/inter.crt"
	return []scenario{
		{
			name: "incomplete", says: "the intermediate is missing, and is where the leaf says that it is",
			hosts: []host{
				own("203.0.113.110", withLeaf(probetest.Leaf{Names: []string{"*." + zone}, AIA: url, Serve: probetest.LeafOnly})),
				own("203.0.113.111", issuers).called("issuers"),
			},
			proofs: []proof{
				{"us-1 ap-1", "openssl", "203.0.113.110:443", "unable to verify the first certificate"},
				{"us-1 ap-1", "curl", url + " 203.0.113.111", "200"},
			},
			ask: "tls NAME",
			want: badCertificate("203.0.113.110", pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE).mentioning("Lab Intermediate").showing(each("", func(r *pb.Result) string {
				c := steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_TARGET)[0].GetEvidence().GetTls().GetChainAnalysis()
				if len(c.GetMissing()) != 1 || c.GetMissing()[0].GetCommonName() != "Lab Intermediate" || c.GetIssuerUrl() != url || len(c.GetPath()) != 3 {
					return fmt.Sprintf("the missing intermediate is not proved: %v", c)
				}
				return ""
			})),
		},
		{
			name: "expired-and-other", says: "the certificate is over, and was for another name",
			hosts: []host{own("203.0.113.112", tlsAs(func(w *world, c *tls.Config) error {
				cert, err := w.authority.issue(time.Now().AddDate(0, 0, -1), "other.example")
				c.Certificates = []tls.Certificate{cert}
				return err
			}))},
			proofs: []proof{
				{"us-1 ap-1", "openssl", "203.0.113.112:443 other.example", "certificate has expired"},
				{"us-1 ap-1", "openssl", "203.0.113.112:443 -no_check_time", "hostname mismatch"},
			},
			ask:  "tls NAME",
			want: badCertificate("203.0.113.112", pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_NAME_MISMATCH),
		},
		{
			name: "other-name", says: "the certificate is for another name than the one that is asked for",
			hosts:  []host{at("203.0.113.113")},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.113:443 www.other.example", "hostname mismatch"}},
			ask:    "tls NAME --servername www.other.example",
			want:   badCertificate("203.0.113.113", pb.Failure_FAILURE_CERT_NAME_MISMATCH).mentioning("www.other.example", "*."+zone),
		},
		{
			name: "revoked", says: "the authority's word that the certificate is revoked is stapled",
			hosts:  []host{own("203.0.113.114", tlsAs(revoked))},
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.114:443 -status", "revoked"}},
			ask:    "tls NAME",
			want:   badCertificate("203.0.113.114", pb.Failure_FAILURE_CERT_REVOKED),
		},
	}
}
