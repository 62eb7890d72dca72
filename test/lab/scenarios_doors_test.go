package lab

import (
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shutDoors are expected to be shut, in one way or in any.
func shutDoors() []scenario {
	return []scenario{
		{
			name: "expect-refused", says: "a firewall should reject, and drops one region",
			hosts: []host{at("203.0.113.74")},
			faults: []fault{
				{"router", "ip saddr $sa_east ip daddr 203.0.113.74 counter drop"},
				{"router", "ip saddr $us_east ip daddr 203.0.113.74 tcp dport 443 counter reject with tcp reset"},
				{"router", "ip daddr 203.0.113.74 counter reject with icmp type admin-prohibited"},
			},
			proofs: []proof{
				{"sa-1 sa-2", "connect", "203.0.113.74:443", "silent"},
				{"us-1", "connect", "203.0.113.74:443", "refused"},
				{"eu-1", "connect", "203.0.113.74:443", "icmp 3/13 from 10.2.1.1"},
			},
			ask: "tcp NAME:443 --expect refused",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, Regions: []string{"sa-east"}, Addresses: []string{"203.0.113.74:443"},
				Failure: pb.Failure_FAILURE_TCP_TIMEOUT, Block: pb.BlockKind_BLOCK_KIND_DROP, Confidence: pb.Confidence_CONFIDENCE_HIGH,
			}).mentioning("expected refused", "REJECT"),
		},
		{
			name: "expect-blocked-by-name", says: "blocked is expected, and a middlebox resets the handshakes of all by their name",
			hosts:  []host{at("203.0.113.77"), own("203.0.113.78", middlebox("203.0.113.77", "expect-blocked-by-name."+zone, probetest.Abort)).called("-")},
			faults: []fault{{"middlebox", "ip daddr 203.0.113.77 counter dnat ip to 203.0.113.78"}},
			proofs: []proof{
				{"us-1 ap-1", "openssl", "203.0.113.77:443", "reset"},
				{"us-1 ap-1", "openssl", "203.0.113.77:443 another." + zone, "ok"},
			},
			ask: "tls NAME:443 --expect blocked", want: fine(),
		},
	}
}
