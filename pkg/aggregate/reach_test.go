package aggregate

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTargetDown(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"all is well: nothing to say",
			tcpWorld().in("ap", open(ip1)).in("eu", open(ip1)),
			[]string{"ok"},
		},
		{
			"nobody connects, in two ways: one ERROR with the most frequent one (rules 9 and 12)",
			tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, timeout)).in("us", blocked(ip1, refused)),
			[]string{"fail", "ERROR target_down [ap eu us] at 203.0.113.10:443 tcp_timeout block=drop blame=target high"},
		},
		{
			"nobody connects, all agents in one network: medium",
			tcpWorld().from("ap", 64500, blocked(ip1, refused)).from("eu", 64500, blocked(ip1, refused)),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target medium"},
		},
		{
			"nobody connects, to addresses of each region's own",
			tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", blocked(ip2, timeout)),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 203.0.113.11:443 tcp_timeout block=drop blame=target high"},
		},
		{
			"every address of both families fails from everywhere: down, not a broken family",
			tcpWorld().in("ap", blocked(ip1, refused), blocked(v61, refused)).in("eu", blocked(ip1, refused), blocked(v61, refused)),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 [2001:db8::10]:443 tcp_refused block=reject_rst blame=target high"},
		},
		{
			"the handshake hangs everywhere: target_down covers every stage (rule 15)",
			tlsWorld().in("ap", tls(ip1, "", hung), passing4()).in("eu", tls(ip1, "", hung), passing4()),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tls_timeout blame=target high"},
		},
		{
			"a client certificate is wanted everywhere: bytes of the target need no control (rule 15)",
			tlsWorld().in("ap", tls(ip1, "", pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED)).in("eu", tls(ip1, "", pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED)),
			[]string{"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tls_client_cert_required blame=target high"},
		},
		{
			"one region asked alone and silent: too little to say, whatever the number of agents",
			tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=unknown low"},
		},
		{
			"two regions asked, one lost: the other one's failure alone is not the target's",
			tcpWorld().in("ap", blocked(ip1, refused)).gone("eu", pb.AskState_ASK_STATE_LOST, 0),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=unknown low"},
		},
	})
}

func TestRegionalBlock(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"no answer in one region, by two agents on different networks",
			tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path high"},
		},
		{
			"the same by two agents that share a network: medium",
			tcpWorld().from("ap/1", 64500, blocked(ip1, timeout)).from("ap/2", 64500, blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"a network that is not known is not a different one",
			tcpWorld().from("ap/1", 64500, blocked(ip1, timeout)).from("ap/2", 0, blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"two networks that are not known are not different ones",
			tcpWorld().from("ap/1", 0, blocked(ip1, timeout)).from("ap/2", 0, blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"RST in answer to the SYN, by one agent",
			tcpWorld().in("ap", blocked(ip1, refused)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium"},
		},
		{
			"two ICMP errors are one kind of block",
			tcpWorld().in("ap", blocked(ip1, prohibited)).in("sa", blocked(ip1, portUnr)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap sa] at 203.0.113.10:443 tcp_admin_prohibited block=reject_icmp blame=path medium"},
		},
		{
			"a reset right after connect",
			tcpWorld().in("ap", blocked(ip1, reset)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_reset block=reset_after_connect blame=path medium"},
		},
		{
			"a reset of the handshake before a byte came is a reset after connect",
			tlsWorld().in("ap", tls(ip1, "", pb.Failure_FAILURE_TLS_RESET), passing4()).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tls_reset block=reset_after_connect blame=path medium"},
		},
		{
			"a reset of the handshake after the server's bytes is not",
			tlsWorld().in("ap", bytesRead(900, tls(ip1, "", pb.Failure_FAILURE_TLS_RESET)), passing4()).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tls_reset blame=unknown medium"},
		},
		{
			"silence after ClientHello leaves the kind open",
			tlsWorld().in("ap", tls(ip1, "", hung), passing4()).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tls_timeout blame=unknown medium"},
		},
		{
			"drop in one region, RST in another: an ERROR for each, with its own region",
			tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", open(ip1)).in("sa", blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
			},
		},
		{
			"drop in two regions is one ERROR, as sure as the less known region",
			tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).in("sa", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap sa] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"agents of a region fail in different ways: blocked, the kind not said, less sure",
			tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, refused)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_refused blame=unknown medium"},
		},
		{
			"two of three agree on the way: it is the kind, less sure",
			tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).in("ap/3", blocked(ip1, refused)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"all addresses shut from one region: one ERROR with all of them",
			tcpWorld().in("ap", blocked(ip1, timeout), blocked(v61, timeout)).in("eu", open(ip1), open(v61)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 [2001:db8::10]:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"two regions shut altogether, one of them without IPv6, are one ERROR",
			tcpWorld().in("ap", blocked(ip1, timeout), blocked(v61, timeout)).
				in("sa", blocked(ip1, timeout), tcp(v61, noFamily)).in("eu", open(ip1), open(v61)),
			[]string{"fail", "ERROR regional_block [ap sa] at 203.0.113.10:443 [2001:db8::10]:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"a region shut at one of its addresses only: that address",
			tcpWorld().in("ap", blocked(ip1, timeout), open(ip2)).in("eu", open(ip1), open(ip2)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"unless it fails there in another way: that is its own",
			tcpWorld().in("ap", blocked(ip1, timeout), blocked(ip2, refused)).in("eu", open(ip1)),
			[]string{
				"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
				"ERROR partial_address_failure [ap] at 203.0.113.11:443 tcp_refused block=reject_rst blame=unknown medium",
			},
		},
		{
			"an address that only the shut region tried goes with the region",
			tcpWorld().in("ap", blocked(ip1, timeout), blocked(v61, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 [2001:db8::10]:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"where an agent stands is what its ask says, never what its result says",
			tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
	})
}

func TestAddressesAndFamilies(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"one of three addresses is dead from everywhere (rule 6)",
			tcpWorld().in("ap", open(ip1), blocked(ip2, timeout), open(ip3)).in("eu", open(ip1), blocked(ip2, timeout), open(ip3)),
			[]string{"fail", "ERROR partial_address_failure [ap eu] at 203.0.113.11:443 tcp_timeout block=drop blame=target high"},
		},
		{
			"the same seen from one region alone: said, without blaming the target",
			tcpWorld().in("ap", open(ip1), blocked(ip2, refused)),
			[]string{"fail", "ERROR partial_address_failure [ap] at 203.0.113.11:443 tcp_refused block=reject_rst blame=unknown medium"},
		},
		{
			"an address that only one region was given fails: there is no region to compare with",
			tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", open(ip2)).in("us", open(ip2)),
			[]string{"fail", "ERROR partial_address_failure [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=unknown medium"},
		},
		{
			"a dead address and a blocked region: an ERROR for each, no pair of region and address twice",
			tcpWorld().in("ap", blocked(ip1, timeout), blocked(ip2, refused)).
				in("eu", open(ip1), blocked(ip2, refused)).in("us", open(ip1), blocked(ip2, refused)),
			[]string{
				"fail",
				"ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
				"ERROR partial_address_failure [ap eu us] at 203.0.113.11:443 tcp_refused block=reject_rst blame=target high",
			},
		},
		{
			"every IPv6 address fails, IPv4 works: the family, a warning (rule 13)",
			tcpWorld().in("ap", open(ip1), blocked(v61, timeout), blocked(v62, timeout)).
				in("eu", open(ip1), blocked(v61, timeout), blocked(v62, timeout)),
			[]string{"ok", "WARN family_broken [ap eu] at [2001:db8::10]:443 [2001:db8::11]:443 tcp_timeout block=drop blame=target high"},
		},
		{
			"agents without IPv6 are not counted against it",
			tcpWorld().in("ap", open(ip1), tcp(v61, noFamily)).in("eu", open(ip1), open(v61)),
			[]string{"ok"},
		},
		{
			"IPv6 fails where its own control fails: the agent's trouble, not the family's",
			tcpWorld().in("ap", open(ip1), tcp(v61, timeout), ctl("[2001:db8:c::1]:443", timeout), passing4()).in("eu", open(ip1), open(v61)),
			[]string{"ok", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"the control of the other family says nothing",
			tcpWorld().in("ap", open(ip1), tcp(v61, timeout), passing4()).in("eu", open(ip1), open(v61)),
			[]string{"ok"},
		},
		{
			"IPv6 broken and one IPv4 address dead: each said once",
			tcpWorld().in("ap", open(ip1), blocked(ip2, refused), blocked(v61, timeout)).
				in("eu", open(ip1), blocked(ip2, refused), blocked(v61, timeout)),
			[]string{
				"fail",
				"ERROR partial_address_failure [ap eu] at 203.0.113.11:443 tcp_refused block=reject_rst blame=target high",
				"WARN family_broken [ap eu] at [2001:db8::10]:443 tcp_timeout block=drop blame=target high",
			},
		},
		{
			"IPv6 fails from one region and works from another: the region, not the family",
			tcpWorld().in("ap", open(ip1), blocked(v61, timeout)).in("eu", open(ip1), open(v61)),
			[]string{"fail", "ERROR regional_block [ap] at [2001:db8::10]:443 tcp_timeout block=drop blame=path medium"},
		},
	})
}

func TestAgentsDiffer(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"of two agents the one that fails is listed; the region is not blocked (rule 7)",
			tcpWorld().in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium"},
		},
		{
			"of three agents the one that gets through is listed",
			tcpWorld().in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("ap/3", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-1 blame=unknown medium"},
		},
		{
			"a mixed region beside a blocked one and an open one: both are said",
			tcpWorld().in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1)).in("sa", blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
				"WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium",
			},
		},
		{
			"a mixed region is open enough to compare with",
			tcpWorld().in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("sa", blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
				"WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium",
			},
		},
		{
			"an agent that its fellow contradicts does not shut the region's IPv6 by itself",
			tcpWorld().in("ap/1", open(ip1), tcp(v61, noFamily)).in("ap/2", blocked(ip1, timeout), blocked(v61, timeout)).
				in("eu", open(ip1), open(v61)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 [2001:db8::10]:443 tcp_timeout agents=ap-2 blame=unknown medium"},
		},
		{
			"an agent whose state is unknown contradicts nobody",
			tcpWorld().in("ap/1", tcp(ip1, deadline)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
	})
}

func TestControls(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"no control beside the failure: unknown, nobody is accused (rule 2)",
			tcpWorld().in("ap", tcp(ip1, timeout)).in("eu", open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"the control fails too: the agent's trouble (rule 2)",
			tcpWorld().in("ap", tcp(ip1, timeout), failing4()).in("eu", open(ip1)),
			[]string{"inconclusive", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"the control fails beside bytes of the target too: left out all the same",
			tlsWorld().in("ap", tls(ip1, "", pb.Failure_FAILURE_TLS_NOT_TLS), failing4()).in("eu", tls(ip1, "c")),
			[]string{"inconclusive", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"a control that the agent could not send to is its own trouble",
			tcpWorld().in("ap", tcp(ip1, timeout), ctl("192.0.2.1:443", noEgress)).in("eu", open(ip1)),
			[]string{"inconclusive", "WARN vantage_fault [ap] agent_no_egress agents=ap blame=agent medium"},
		},
		{
			"the same beside a healthy fellow: a warning and no more",
			tcpWorld().in("ap/1", tcp(ip1, timeout), failing4()).in("ap/2", open(ip1)).in("eu", open(ip1)),
			[]string{"ok", "WARN vantage_fault [ap] tcp_timeout agents=ap-1 blame=agent medium"},
		},
		{
			"one control of the group is enough",
			tcpWorld().in("ap", tcp(ip1, timeout), failing4(), passing4(), failing4()).in("eu", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"a control that the agent had no time for says nothing, not even about the agent",
			tcpWorld().in("ap", tcp(ip1, timeout), ctl("192.0.2.1:443", deadline)).in("eu", open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"controls fail everywhere: nothing was judged",
			tcpWorld().in("ap", tcp(ip1, timeout), failing4()).in("eu", tcp(ip1, timeout), failing4()),
			[]string{
				"inconclusive",
				"WARN vantage_fault [ap eu] tcp_timeout agents=ap,eu blame=agent medium",
				"WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low",
			},
		},
		{
			"an agent that cannot send is its own trouble",
			tcpWorld().in("ap/1", tcp(ip1, noEgress)).in("ap/2", open(ip1)).in("eu", open(ip1)),
			[]string{"ok", "WARN vantage_fault [ap] agent_no_egress agents=ap-1 blame=agent medium"},
		},
		{
			"silence after one attempt is one lost packet, not a block (rule 1)",
			tcpWorld().in("ap", attemptsOf(1, blocked(ip1, timeout))).in("eu", open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"a connection without its handshake is no success of a TLS check",
			tlsWorld().in("ap", open(ip1)).in("eu", tls(ip1, "c")),
			[]string{"inconclusive"},
		},
		{
			"only the first broken stage is judged (rule 12)",
			tlsWorld().in("ap", blocked(ip1, timeout), tls(ip1, "c", expired)[1:]).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
	})
}

func TestVantage(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"nobody was asked",
			tcpWorld(),
			[]string{"inconclusive", "WARN insufficient_vantage [] blame=unknown low"},
		},
		{
			"all refused by policy: no judgement, with the reason (rule 18)",
			tcpWorld().gone("ap", pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_POLICY_DENIED).
				gone("eu", pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_POLICY_DENIED),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] agent_policy_denied agents=ap,eu blame=unknown low"},
		},
		{
			"policy refuses every resolved address: no judgement, with the reason (rule 18)",
			tcpWorld().in("ap", tcp(ip1, pb.Failure_FAILURE_AGENT_POLICY_DENIED)),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] agent_policy_denied agents=ap blame=unknown low"},
		},
		{
			"a lost agent is not a block (rule 3)",
			tcpWorld().in("ap/1", open(ip1)).gone("ap/2", pb.AskState_ASK_STATE_LOST, 0).in("eu", open(ip1)),
			[]string{"ok"},
		},
		{
			"a region without a judged agent leaves the outcome open",
			tcpWorld().in("ap", open(ip1)).gone("eu", pb.AskState_ASK_STATE_LOST, 0),
			[]string{"inconclusive"},
		},
		{
			"a result that came after the end changes nothing",
			lateWorld(),
			[]string{"ok"},
		},
		{
			"a result of an agent that was not asked is ignored",
			strangerWorld(),
			[]string{"ok"},
		},
		{
			"still running, nobody has answered: nothing is stated yet",
			running(tcpWorld().gone("ap", pb.AskState_ASK_STATE_PENDING, 0)),
			[]string{"inconclusive"},
		},
		{
			"still running, one region is in: what is there is judged",
			running(tcpWorld().in("ap", open(ip1)).gone("eu", pb.AskState_ASK_STATE_PENDING, 0)),
			[]string{"inconclusive"},
		},
	})
}

func lateWorld() *world {
	w := tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", open(ip1)).in("eu", open(ip1))
	w.m.Asks[0].State = pb.AskState_ASK_STATE_LOST
	return w
}

func strangerWorld() *world {
	w := tcpWorld().in("ap", open(ip1)).in("eu", open(ip1)).in("sa", blocked(ip1, timeout))
	w.m.Asks = w.m.Asks[:2]
	return w
}

func running(w *world) *world {
	w.m.State = pb.State_STATE_RUNNING
	return w
}

// An origin that admits its CDN alone is silent for everybody (rule 9): the hint says so, and how to check. A
// port where nobody listens is no such thing.
func TestAnOriginMayBeLockedToItsCDN(t *testing.T) {
	t.Parallel()
	for failure, locked := range map[pb.Failure]bool{timeout: true, prohibited: true, refused: false} {
		down := tcpWorld().in("ap", blocked(ip1, failure)).in("eu", blocked(ip1, failure)).judge().GetFindings()[0]
		if down.GetCode() != pb.FindingCode_FINDING_CODE_TARGET_DOWN || strings.Contains(down.GetHint(), "allowlist cover") != locked {
			t.Errorf("%s: %s, hint: %s", ShortFailure(failure), line(down), down.GetHint())
		}
	}
}

// TestADeadAddressForEachQuery: a zone that answers every agent with another dead address makes no statement for
// each of them, and no work that grows with their square.
func TestADeadAddressForEachQuery(t *testing.T) {
	for _, tt := range []struct{ agents, findings int }{{maxBundles, maxBundles}, {maxBundles + 1, 1}} {
		w := tcpWorld()
		for i := range tt.agents {
			dead := fmt.Sprintf("203.0.113.%d:443", i+1)
			w.in(fmt.Sprintf("r%d", i), answers(1, "A", dead[:len(dead)-4], "198.51.100.99"), blocked(dead, refused), open("198.51.100.99:443"))
		}
		found := w.judge().GetFindings()
		if len(found) != tt.findings {
			t.Errorf("%d agents: %d findings", tt.agents, len(found))
		}
		if f := found[0]; f.GetCode() != pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE || tt.findings == 1 && len(f.GetAddresses()) != tt.agents {
			t.Errorf("%d agents: %s with %d addresses", tt.agents, f.GetCode(), len(f.GetAddresses()))
		}
		for _, f := range found {
			checkFinding(t, w, f)
		}
	}
}
