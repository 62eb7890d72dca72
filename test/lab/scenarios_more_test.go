package lab

import (
	"fmt"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func resolvers() []scenario {
	regional := func(region string, failure pb.Failure) want {
		return fails(&pb.Finding{
			Code: pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, Regions: []string{region},
			Stage: pb.Stage_STAGE_DNS, Failure: failure, Failures: []pb.Failure{failure}, Block: pb.BlockKind_BLOCK_KIND_DNS,
			// Both agents of the region ask the same resolver: one perspective.
			Confidence: pb.Confidence_CONFIDENCE_MEDIUM,
		})
	}
	return []scenario{
		{
			name: "servfail", says: "the resolver of one region fails for this name",
			hosts:          []host{at("203.0.113.50")},
			resolverFaults: []resolverFault{{"ap-south", "SERVFAIL"}},
			proofs: []proof{
				{"ap-1 ap-2", "dig", "servfail." + zone, "SERVFAIL"},
				{"ap-1 ap-2", "dig", "a." + controlZone, "NOERROR 198.51.100.10"},
				{"us-1 eu-1 sa-1", "dig", "servfail." + zone, "NOERROR 203.0.113.50"},
			},
			ask:  "dns NAME A",
			want: regional("ap-south", pb.Failure_FAILURE_DNS_SERVFAIL),
		},
		{
			name: "nxdomain", says: "the resolver of one region says that the name does not exist",
			hosts:          []host{at("203.0.113.51")},
			resolverFaults: []resolverFault{{"sa-east", "NXDOMAIN"}},
			proofs: []proof{
				{"sa-1 sa-2", "dig", "nxdomain." + zone, "NXDOMAIN"},
				{"sa-1 sa-2", "dig", "a." + controlZone, "NOERROR 198.51.100.10"},
				{"us-1 eu-1 ap-1", "dig", "nxdomain." + zone, "NOERROR 203.0.113.51"},
			},
			ask:  "tcp NAME:443",
			want: regional("sa-east", pb.Failure_FAILURE_DNS_NXDOMAIN),
		},
		{
			name: "unresolvable", says: "the name does not exist anywhere",
			proofs: []proof{
				{all, "dig", "unresolvable." + zone, "NXDOMAIN"},
				{all, "dig", "a." + controlZone, "NOERROR 198.51.100.10"},
			},
			ask: "tls NAME",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_UNRESOLVABLE, Regions: everywhere(),
				Stage: pb.Stage_STAGE_DNS, Failure: pb.Failure_FAILURE_DNS_NXDOMAIN,
			}),
		},
		{
			name: "other-answer", says: "the resolver of one region has another address for the name",
			hosts:          []host{at("203.0.113.52")},
			resolverFaults: []resolverFault{{"eu-west", "203.0.113.53"}},
			proofs: []proof{
				{"eu-1 eu-2", "dig", "other-answer." + zone, "NOERROR 203.0.113.53"},
				{"us-1 ap-1 sa-1", "dig", "other-answer." + zone, "NOERROR 203.0.113.52"},
			},
			ask:  "dns NAME A",
			want: warns(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED, Stage: pb.Stage_STAGE_DNS}),
		},
		{
			name: "big-answer", says: "an answer of 25 KB over TCP, which is 95 KB once it is written out",
			texts:  bigTexts(),
			proofs: []proof{{all, "dig", "big-answer." + zone + " TXT", "NOERROR"}},
			ask:    "dns NAME TXT", want: fine(),
		},
		{
			name: "big-expected", says: "the same, and one of its records is expected, which may be among those left out",
			texts:  bigTexts(),
			proofs: []proof{{all, "dig", "big-expected." + zone + " TXT", "NOERROR"}},
			ask:    `dns NAME TXT --expect "` + bigTexts()[50] + `"`,
			want:   unsure(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, Stage: pb.Stage_STAGE_AGENT}),
		},
		{
			name: "text-expected", says: "a record is expected and there",
			texts:  []string{`v=lab1\255a=b`, "other"},
			proofs: []proof{{all, "dig", "text-expected." + zone + " TXT", "NOERROR"}},
			ask:    `dns NAME TXT --expect "v=lab1\255a=b"`, want: fine().noting(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_PROPAGATION}),
		},
	}
}

// bigTexts are 95 records of 255 octets, each of which takes four characters in presentation format.
// named takes no more than 100 of a type.
func bigTexts() []string {
	texts := make([]string, 95)
	for i := range texts {
		texts[i] = fmt.Sprintf("%03d%s", i, strings.Repeat(`\255`, 252))
	}
	return texts
}

func certificates() []scenario {
	return []scenario{
		{
			name: "expired-one", says: "one of three addresses still serves the old certificate",
			hosts: []host{at("203.0.113.60"), outdated("203.0.113.61"), at("203.0.113.62")},
			proofs: []proof{
				{"us-1 ap-1", "openssl", "203.0.113.61:443", "certificate has expired"},
				{"us-1 ap-1", "openssl", "203.0.113.60:443", "ok"},
				{"eu-1", "openssl", "203.0.113.62:443", "ok"},
			},
			ask: "tls NAME",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, Regions: everywhere(),
				Addresses: []string{"203.0.113.61:443"}, Stage: pb.Stage_STAGE_CERTIFICATE, Failure: pb.Failure_FAILURE_CERT_EXPIRED,
			}),
		},
		{
			name: "expired-all", says: "the certificate is over",
			hosts:  []host{outdated("203.0.113.63")},
			proofs: []proof{{"us-1 eu-1 ap-1 sa-1", "openssl", "203.0.113.63:443", "certificate has expired"}},
			ask:    "tls NAME",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM, Regions: everywhere(),
				Stage: pb.Stage_STAGE_CERTIFICATE, Failure: pb.Failure_FAILURE_CERT_EXPIRED,
			}),
		},
	}
}

func interception() []scenario {
	return []scenario{{
		name: "intercepted", says: "a middlebox of one region answers with a certificate of its own, long expired",
		hosts:  []host{at("203.0.113.64"), outdated("203.0.113.65")},
		faults: []fault{{"middlebox", "ip saddr $sa_east ip daddr 203.0.113.64 counter dnat ip to 203.0.113.65"}},
		proofs: []proof{
			{"sa-1 sa-2", "openssl", "203.0.113.64:443", "certificate has expired"},
			{"us-1 eu-1 ap-1", "openssl", "203.0.113.64:443", "ok"},
		},
		ask: "tls 203.0.113.64 --servername NAME",
		want: fails(&pb.Finding{
			Code: pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, Regions: []string{"sa-east"},
			Addresses: []string{"203.0.113.64:443"}, Stage: pb.Stage_STAGE_CERTIFICATE, Failure: pb.Failure_FAILURE_CERT_EXPIRED,
		}),
	}}
}

func expectations() []scenario {
	return []scenario{
		{
			name: "expect-open", says: "open is expected, one region is shut out",
			hosts:  []host{at("203.0.113.70")},
			faults: []fault{{"router", "ip saddr $ap_south ip daddr 203.0.113.70 counter drop"}},
			proofs: []proof{
				{"ap-1 ap-2", "connect", "203.0.113.70:443", "silent"},
				{"us-1 eu-1 sa-1", "connect", "203.0.113.70:443", "open"},
			},
			ask: "tcp NAME:443 --expect open",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, Regions: []string{"ap-south"},
				Addresses: []string{"203.0.113.70:443"}, Failure: pb.Failure_FAILURE_TCP_TIMEOUT, Block: pb.BlockKind_BLOCK_KIND_DROP,
			}),
		},
		{
			name: "expect-blocked", says: "blocked is expected, one region gets in",
			hosts:  []host{at("203.0.113.71")},
			faults: []fault{{"router", "ip saddr != $eu_west ip daddr 203.0.113.71 counter reject with icmp type admin-prohibited"}},
			proofs: []proof{
				{"us-1", "connect", "203.0.113.71:443", "icmp 3/13 from 10.1.1.1"},
				{"eu-1 eu-2", "connect", "203.0.113.71:443", "open"},
			},
			ask:  "tcp NAME:443 --expect blocked",
			want: fails(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, Regions: []string{"eu-west"}}),
		},
		{
			name: "expect-blocked-met", says: "blocked is expected, and so it is, in four ways",
			hosts: []host{at("203.0.113.72")},
			faults: []fault{
				{"router", "ip saddr $us_east ip daddr 203.0.113.72 counter drop"},
				{"router", "ip saddr $eu_west ip daddr 203.0.113.72 tcp dport 443 counter reject with tcp reset"},
				{"router", "ip saddr $ap_south ip daddr 203.0.113.72 counter reject with icmp type admin-prohibited"},
				{"router", "ip saddr $sa_east ip daddr 203.0.113.72 counter reject with icmp type port-unreachable"},
			},
			proofs: []proof{
				{"us-1", "connect", "203.0.113.72:443", "silent"},
				{"eu-1", "connect", "203.0.113.72:443", "refused"},
				{"ap-1", "connect", "203.0.113.72:443", "icmp 3/13 from 10.3.1.1"},
				{"sa-1", "connect", "203.0.113.72:443", "icmp 3/3 from 10.4.1.1"},
			},
			ask: "tcp NAME:443 --expect blocked", want: fine(),
		},
	}
}

// agentScenarios make agents faulty, for whatever they are asked: they run one after the other.
func agentScenarios() []scenario {
	return []scenario{
		noEgress(), noEgressBesideBlock(), noEgressInsideBlock(), noEgressByReject(), deafAgent(), deafRegion(), stopped(), killed(), drained(),
		noControls(), withoutSix(),
	}
}

// cutOff are the rules that leave an agent of ap-south the coordinator and its resolver.
func cutOff(agent string) []fault {
	return []fault{
		{agent, "oif eth0 ip daddr != { 10.0.0.10, 192.0.2.63 } counter drop"},
		{agent, "oif eth0 meta l4proto tcp meta nfproto ipv6 drop"},
	}
}

// faulty says of agents that they have a problem of their own.
func faulty(blame pb.Blame, region string, agents ...string) *pb.Finding {
	return &pb.Finding{
		Code: pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, Severity: pb.Severity_SEVERITY_WARN,
		Regions: []string{region}, Agents: agents, Blame: blame,
	}
}

func noEgress() scenario {
	return scenario{
		name: "no-egress", says: "an agent reaches nothing but the coordinator and its resolver; the target is fine",
		hosts:  []host{at("203.0.113.80")},
		faults: cutOff("ap-2"),
		proofs: []proof{
			{"ap-2", "connect", "203.0.113.80:443", "silent"},
			{"ap-2", "connect", "198.51.100.10:443", "silent"},
			{"ap-2", "dig", "no-egress." + zone, "NOERROR 203.0.113.80"},
			{"ap-1 us-1 eu-1 sa-1", "connect", "203.0.113.80:443", "open"},
		},
		ask: "tcp NAME:443", want: warns(faulty(pb.Blame_BLAME_AGENT, "ap-south", "ap-2")),
	}
}

func noEgressBesideBlock() scenario {
	return scenario{
		name: "no-egress-block", says: "the same, and another region is really blocked",
		hosts:  []host{at("203.0.113.81")},
		faults: append(cutOff("ap-2"), fault{"router", "ip saddr $us_east ip daddr 203.0.113.81 counter drop"}),
		proofs: []proof{
			{"ap-2", "connect", "198.51.100.10:443", "silent"},
			{"us-1 us-2", "connect", "203.0.113.81:443", "silent"},
			{"us-1 us-2", "connect", "198.51.100.10:443", "open"},
			{"ap-1 eu-1 sa-1", "connect", "203.0.113.81:443", "open"},
		},
		ask: "tcp NAME:443",
		want: fails(shut("us-east", "203.0.113.81", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)).
			besides(faulty(pb.Blame_BLAME_AGENT, "ap-south", "ap-2")),
	}
}

func noEgressInsideBlock() scenario {
	block := shut("ap-south", "203.0.113.83", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)
	block.Confidence = pb.Confidence_CONFIDENCE_MEDIUM // its fellow's evidence does not count
	return scenario{
		name: "no-egress-inside", says: "the same, and it is the agent's own region that is blocked",
		hosts:  []host{at("203.0.113.83")},
		faults: append(cutOff("ap-2"), fault{"router", "ip saddr $ap_south ip daddr 203.0.113.83 counter drop"}),
		proofs: []proof{
			{"ap-2", "connect", "198.51.100.10:443", "silent"},
			{"ap-1", "connect", "198.51.100.10:443", "open"},
			{"ap-1 ap-2", "connect", "203.0.113.83:443", "silent"},
			{"us-1 eu-1 sa-1", "connect", "203.0.113.83:443", "open"},
		},
		ask: "tcp NAME:443", want: fails(block).besides(faulty(pb.Blame_BLAME_AGENT, "ap-south", "ap-2")),
	}
}

func noEgressByReject() scenario {
	return scenario{
		name: "no-egress-reject", says: "an agent's own firewall rejects what it sends, and says so at once",
		hosts:  []host{at("203.0.113.87")},
		faults: []fault{{"eu-1", "oif eth0 ip daddr != { 10.0.0.10, 192.0.2.62 } counter reject with icmp type admin-prohibited"}},
		proofs: []proof{
			{"eu-1", "connect", "203.0.113.87:443", "icmp 3/13 from 10.2.1.2"},
			{"eu-1", "connect", "198.51.100.10:443", "icmp 3/13 from 10.2.1.2"},
			{"eu-2 us-1 ap-1 sa-1", "connect", "203.0.113.87:443", "open"},
		},
		ask: "tcp NAME:443", want: warns(faulty(pb.Blame_BLAME_AGENT, "eu-west", "eu-1")),
	}
}

func deafAgent() scenario {
	return scenario{
		name: "no-resolver", says: "an agent's resolver does not answer it, whatever it asks",
		hosts:  []host{at("203.0.113.84")},
		faults: []fault{{"router", "ip saddr $eu_2 ip daddr 192.0.2.62 counter drop"}},
		proofs: []proof{
			{"eu-2", "dig", "no-resolver." + zone, "no reply"},
			{"eu-2", "dig", "a." + controlZone, "no reply"},
			{"eu-1 us-1", "dig", "no-resolver." + zone, "NOERROR 203.0.113.84"},
		},
		ask: "tcp NAME:443", want: warns(faulty(pb.Blame_BLAME_RESOLVER, "eu-west", "eu-2")),
	}
}

func deafRegion() scenario {
	return scenario{
		name: "no-resolver-region", says: "the resolver of a region is gone: nothing can be said about the region",
		hosts:  []host{at("203.0.113.85")},
		faults: []fault{{"router", "ip saddr $sa_east ip daddr 192.0.2.64 counter drop"}},
		proofs: []proof{
			{"sa-1 sa-2", "dig", "a." + controlZone, "no reply"},
			{"eu-1 us-1 ap-1", "dig", "no-resolver-region." + zone, "NOERROR 203.0.113.85"},
		},
		ask: "tcp NAME:443", want: unsure(faulty(pb.Blame_BLAME_RESOLVER, "sa-east", "sa-1", "sa-2")),
	}
}

func stopped() scenario {
	block := shut("sa-east", "203.0.113.82", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)
	block.Confidence = pb.Confidence_CONFIDENCE_MEDIUM // one agent's evidence
	return scenario{
		name: "stopped", says: "an agent is stopped in the middle; its fellow in the region is still judged",
		hosts:  []host{at("203.0.113.82")},
		faults: []fault{{"router", "ip saddr $sa_east ip daddr 203.0.113.82 counter drop"}},
		proofs: []proof{
			{"sa-1 sa-2", "connect", "203.0.113.82:443", "silent"},
			{"us-1 eu-1 ap-1", "connect", "203.0.113.82:443", "open"},
		},
		harm: harm{"sa-2", "stop"},
		ask:  "tcp NAME:443 --timeout 15s", want: fails(block).losing(1),
	}
}

func killed() scenario {
	return scenario{
		name: "killed-agent", says: "an agent is killed in the middle and comes back: it is asked again",
		hosts:  []host{at("203.0.113.86")},
		faults: []fault{{"router", "ip saddr $sa_east ip daddr 203.0.113.86 counter drop"}},
		proofs: []proof{
			{"sa-1 sa-2", "connect", "203.0.113.86:443", "silent"},
			{"us-1 eu-1 ap-1", "connect", "203.0.113.86:443", "open"},
		},
		harm: harm{"sa-1", "kill"},
		ask:  "tcp NAME:443",
		want: fails(shut("sa-east", "203.0.113.86", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)),
	}
}

func drained() scenario {
	return scenario{
		name: "drained", says: "an agent is told to stop in the middle: it finishes its job and delivers",
		hosts:  []host{at("203.0.113.88")},
		faults: []fault{{"router", "ip saddr $ap_south ip daddr 203.0.113.88 counter drop"}},
		proofs: []proof{
			{"ap-1 ap-2", "connect", "203.0.113.88:443", "silent"},
			{"us-1 eu-1 sa-1", "connect", "203.0.113.88:443", "open"},
		},
		harm: harm{"ap-1", "drain"},
		ask:  "tcp NAME:443",
		want: fails(shut("ap-south", "203.0.113.88", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)),
	}
}

func noControls() scenario {
	return scenario{
		name: "no-controls", says: "the target is silent from everywhere, and so is all that is known to be good: nobody is accused",
		hosts: []host{at("198.18.200.70")},
		faults: []fault{
			{"router", "ip daddr 198.18.200.70 counter drop"},
			{"router", "ip daddr { 198.51.100.10, 198.51.100.11 } counter drop"},
		},
		proofs: []proof{
			{all, "connect", "198.18.200.70:443", "silent"},
			{all, "connect", "198.51.100.10:443", "silent"},
			{all, "connect", "198.51.100.11:8443", "silent"},
		},
		ask: "tcp NAME:443",
		want: unsure(
			&pb.Finding{Code: pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, Regions: everywhere(), Blame: pb.Blame_BLAME_AGENT},
			&pb.Finding{Code: pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, Regions: everywhere()},
		),
	}
}

func withoutSix() scenario {
	s := scenario{
		name: "without-six", says: "a region's agents have lost IPv6, the target has both families",
		hosts:  []host{at("198.18.200.71"), at("2001:db8:18::c871")},
		proofs: []proof{{all, "connect", "198.18.200.71:443", "open"}},
		ask:    "tcp NAME:443", want: warns(faulty(pb.Blame_BLAME_AGENT, "us-east", "us-1", "us-2")),
	}
	for _, a := range agentsIn("us-east") {
		s.faults = append(s.faults, fault{a, "oif eth0 meta l4proto tcp meta nfproto ipv6 counter drop"})
		s.proofs = append(s.proofs, proof{a, "connect", "[2001:db8:51::10]:443", "silent"})
	}
	return s
}
