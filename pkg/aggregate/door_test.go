package aggregate

import (
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	wantOpen    = pb.Reachability_REACHABILITY_OPEN
	wantBlocked = pb.Reachability_REACHABILITY_BLOCKED
	wantRefused = pb.Reachability_REACHABILITY_REFUSED
	wantDropped = pb.Reachability_REACHABILITY_DROPPED

	closedEarly = pb.Failure_FAILURE_TCP_CLOSED_EARLY
	notTLS      = pb.Failure_FAILURE_TLS_NOT_TLS
	noHTTP      = pb.Failure_FAILURE_HTTP_MALFORMED
)

func tlsDoor(r pb.Reachability) *world {
	w := tlsWorld()
	w.m.Spec.GetTls().Expect = r
	return w
}

func httpDoor(r pb.Reachability) *world {
	w := httpWorld("https://www.example/")
	w.m.Spec.GetHttp().Expect = r
	return w
}

// unanswered is a request that ends in f without a response, with the control passing.
func unanswered(address string, f pb.Failure) []*pb.Step {
	return slices.Concat(tls(address, "c"), []*pb.Step{response(address, 0, f)}, passing4())
}

func TestExpectedReachability(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"an address that is dropped as it should be is not named beside one that is not",
			expectWorld(pb.Reachability_REACHABILITY_DROPPED).in("ap", blocked(ip1, timeout), blocked(ip2, refused)).
				in("eu", blocked(ip1, refused), blocked(ip2, refused)),
			[]string{
				"fail",
				"ERROR expectation_failed [ap] at 203.0.113.11:443 tcp_refused block=reject_rst blame=path medium",
				"ERROR expectation_failed [eu] at 203.0.113.10:443 203.0.113.11:443 tcp_refused block=reject_rst blame=path medium",
			},
		},
		{
			"open as expected",
			expectWorld(wantOpen).in("ap", open(ip1)).in("eu", open(ip1)),
			[]string{"ok"},
		},
		{
			"an address that a region left unseen is no open one (rule 6)",
			expectWorld(wantOpen).in("ap", open(ip1), tcp(ip2, pb.Failure_FAILURE_AGENT_DEADLINE)).in("eu", open(ip1), open(ip2)),
			[]string{"inconclusive"},
		},
		{
			"shut from one region: the expectation, and no regional_block beside it (rule 11)",
			expectWorld(wantOpen).in("ap", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"shut from everywhere in two ways: each names its regions, no target_down beside it (rule 11)",
			expectWorld(wantOpen).in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, refused)).in("us", blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR expectation_failed [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=target medium",
				"ERROR expectation_failed [eu us] at 203.0.113.10:443 tcp_refused block=reject_rst blame=target medium",
			},
		},
		{
			"one address shut: no partial_address_failure beside it (rule 11)",
			expectWorld(wantOpen).in("ap", open(ip1), blocked(ip2, refused)).in("eu", open(ip1), blocked(ip2, refused)),
			[]string{"fail", "ERROR expectation_failed [ap eu] at 203.0.113.11:443 tcp_refused block=reject_rst blame=target medium"},
		},
		{
			"one agent of the region differs: not the region (rule 7)",
			expectWorld(wantOpen).in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium"},
		},
		{
			"shut as expected, in four explicit ways (rule 8)",
			expectWorld(wantBlocked).in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, refused)).
				in("sa", blocked(ip1, reset)).in("us", blocked(ip1, portUnr)),
			[]string{"ok"},
		},
		{
			"open where it should be shut: exactly those regions, with failure none",
			expectWorld(wantBlocked).in("ap", blocked(ip1, timeout)).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"fail", "ERROR expectation_failed [eu us] at 203.0.113.10:443 blame=target medium"},
		},
		{
			"one agent gets in where nobody should: the door is open, and the agents differ",
			expectWorld(wantBlocked).in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)),
			[]string{
				"fail",
				"ERROR expectation_failed [ap] at 203.0.113.10:443 blame=target medium",
				"WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium",
			},
		},
		{
			"a broken agent is not a shut door (rule 8)",
			expectWorld(wantBlocked).in("ap", tcp(ip1, timeout), failing4()).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"a name that does not resolve is not a shut door (rule 8)",
			expectWorld(wantBlocked).in("ap", unnamed(1, servfail)).in("eu", query(2, none, "203.0.113.10"), blocked(ip1, timeout)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium"},
		},
		{
			"an address that nobody in the region could judge is not a shut door (rule 8)",
			expectWorld(wantBlocked).in("ap", blocked(ip1, refused), tcp(ip2, deadline)).in("eu", blocked(ip1, refused), blocked(ip2, refused)),
			[]string{"inconclusive"},
		},
		{
			"an address of a family that the region's agents do not have is no door for them",
			expectWorld(wantBlocked).in("ap", blocked(ip1, refused), tcp(v61, noFamily)),
			[]string{"ok"},
		},
		{
			"a missing answer is not a shut door (rule 8)",
			expectWorld(wantBlocked).gone("ap", pb.AskState_ASK_STATE_LOST, 0).in("eu", blocked(ip1, refused)),
			[]string{"inconclusive"},
		},
	})
}

func TestDoorsThatAreShutInOneWay(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"refused by RST, by ICMP and by RST after connect, as expected",
			expectWorld(wantRefused).in("ap", blocked(ip1, refused)).in("eu", blocked(ip1, prohibited)).in("us", blocked(ip1, reset)),
			[]string{"ok"},
		},
		{
			"silence where it should be refused: that region, with block and failure",
			expectWorld(wantRefused).in("ap", blocked(ip1, refused)).in("eu", blocked(ip1, timeout)),
			[]string{"fail", "ERROR expectation_failed [eu] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"a FIN is no RST",
			expectWorld(wantRefused).in("ap", blocked(ip1, refused)).in("eu", blocked(ip1, closedEarly)),
			[]string{"fail", "ERROR expectation_failed [eu] at 203.0.113.10:443 tcp_closed_early block=reset_after_connect blame=path medium"},
		},
		{
			"dropped as expected",
			expectWorld(wantDropped).in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, timeout)),
			[]string{"ok"},
		},
		{
			"silence without a control says nothing (rule 8)",
			expectWorld(wantDropped).in("ap", tcp(ip1, timeout)).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
		{
			"silence beside a control that fails is the agent's own trouble (rule 8)",
			expectWorld(wantDropped).in("ap", tcp(ip1, timeout), failing4()).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive", "WARN vantage_fault [ap] tcp_timeout agents=ap blame=agent medium"},
		},
		{
			"one silent attempt is not silence (rule 1)",
			expectWorld(wantDropped).in("ap", attemptsOf(1, blocked(ip1, timeout))).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
		{
			"answers where it should be silent: each way names its regions",
			expectWorld(wantDropped).in("ap", blocked(ip1, refused)).in("eu", blocked(ip1, portUnr)).in("us", blocked(ip1, timeout)),
			[]string{
				"fail",
				"ERROR expectation_failed [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
				"ERROR expectation_failed [eu] at 203.0.113.10:443 tcp_port_unreachable block=reject_icmp blame=path medium",
			},
		},
		{
			"open where it should be silent, at one of two addresses (rule 6)",
			expectWorld(wantDropped).in("ap", blocked(ip1, timeout), open(ip2)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.11:443 blame=target medium"},
		},
		{
			"one agent of the region is shut out in another way: listed, and not the region (rule 7)",
			expectWorld(wantRefused).in("ap/1", blocked(ip1, refused)).in("ap/2", blocked(ip1, timeout)),
			[]string{"ok", "WARN agents_differ [ap] at 203.0.113.10:443 tcp_timeout agents=ap-2 blame=unknown medium"},
		},
	})
}

func TestDoorsOfTLS(t *testing.T) {
	other := pb.Variant_VARIANT_OTHER_NAME
	runCases(t, []verdictCase{
		{
			"a handshake that comes to its end is an open door, whatever the certificate",
			tlsDoor(wantOpen).in("ap", tls(ip1, "c", expired, mismatch)).in("eu", tls(ip1, "d")),
			[]string{"ok"},
		},
		{
			"and breaks a deny",
			tlsDoor(wantBlocked).in("ap", tls(ip1, "c", expired)).in("eu", blocked(ip1, timeout)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 blame=target medium"},
		},
		{
			"a connection without a handshake is neither: there was no time",
			tlsDoor(wantOpen).in("ap", open(ip1)).in("eu", tls(ip1, "c")),
			[]string{"inconclusive"},
		},
		{
			"and does not break a deny",
			tlsDoor(wantBlocked).in("ap", open(ip1)).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
		{
			"refused below the handshake: shut",
			tlsDoor(wantOpen).in("ap", blocked(ip1, refused)).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium"},
		},
		{
			"an alert is no open door",
			tlsDoor(wantOpen).in("ap", tls(ip1, "", tlsAlert)).in("eu", tls(ip1, "", tlsAlert)),
			[]string{"fail", "ERROR expectation_failed [ap eu] at 203.0.113.10:443 tls_alert blame=target medium"},
		},
		{
			"and no shut one either: the server was reached",
			tlsDoor(wantBlocked).in("ap", tls(ip1, "", tlsAlert)).in("eu", blocked(ip1, timeout)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 blame=target medium"},
		},
		{
			"something else than TLS may be a filter's page: neither open nor explicitly shut (rule 8)",
			tlsDoor(wantBlocked).in("ap", tls(ip1, "", notTLS)).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
		{
			"reset and silence by name, reset and silence after ClientHello are shut doors",
			tlsDoor(wantBlocked).in("ap", variants(tls(ip1, "", tlsReset), other), passing4()).in("eu", variants(tls(ip1, "", hung), other), passing4()).
				in("sa", tls(ip1, "", tlsReset), passing4()).in("us", tls(ip1, "", hung), passing4()),
			[]string{"ok"},
		},
		{
			"silence by name is a dropping door, a reset by name a refusing one",
			tlsDoor(wantDropped).in("ap", variants(tls(ip1, "", tlsReset), other), passing4()).in("eu", variants(tls(ip1, "", hung), other), passing4()),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 tls_reset block=sni_reset blame=path medium"},
		},
		{
			"lost full-sized packets are a broken path, no shut door (rule 8)",
			tlsDoor(wantBlocked).in("ap", variants(tls(ip1, "", hung), pb.Variant_VARIANT_SMALL_HELLO), passing4()).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
		{
			"but not open",
			tlsDoor(wantOpen).in("ap", variants(tls(ip1, "", hung), pb.Variant_VARIANT_SMALL_HELLO), passing4()).in("eu", tls(ip1, "c")),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 tls_timeout block=large_packet_drop blame=path medium"},
		},
		{
			"a reset after the server's bytes is no explicit shut door (rule 8)",
			tlsDoor(wantBlocked).in("ap", bytesRead(900, tls(ip1, "", tlsReset)), passing4()).in("eu", blocked(ip1, timeout)),
			[]string{"inconclusive"},
		},
	})
}

func TestDoorsOfHTTP(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"any response but a denial is an open door: no upstream_error beside it, no certificate",
			httpDoor(wantOpen).in("ap", gets(ip1, 500)).in("eu", gets(ip1, 404)).
				in("us", append(tls(ip1, "c", expired), response(ip1, 200, none))),
			[]string{"ok"},
		},
		{
			"a bad certificate without a response is not yet open",
			httpDoor(wantOpen).in("ap", tls(ip1, "c", expired)).in("eu", gets(ip1, 200)),
			[]string{"inconclusive"},
		},
		{
			"403 from one region is not open: the server's own word",
			httpDoor(wantOpen).in("ap", gets(ip1, 403)).in("eu", gets(ip1, 200)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 http_status block=http_deny blame=target medium"},
		},
		{
			"403, 451, a reset, silence and what lies below are shut",
			httpDoor(wantBlocked).in("ap", gets(ip1, 403)).in("eu", gets(ip1, 451)).in("sa", unanswered(ip1, pb.Failure_FAILURE_HTTP_RESET)).
				in("us", unanswered(ip1, httpHung)).in("za", blocked(ip1, timeout)),
			[]string{"ok"},
		},
		{
			"any other response breaks a deny, whatever it says",
			httpDoor(wantBlocked).in("ap", gets(ip1, 503)).in("eu", gets(ip1, 403)).in("us", gets(ip1, 200)),
			[]string{"fail", "ERROR expectation_failed [ap us] at 203.0.113.10:443 blame=target medium"},
		},
		{
			"a denial is not silence",
			httpDoor(wantDropped).in("ap", gets(ip1, 403)).in("eu", blocked(ip1, timeout)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 http_status block=http_deny blame=target medium"},
		},
		{
			"an alert below the exchange has reached the server",
			httpDoor(wantBlocked).in("ap", tls(ip1, "", tlsAlert)).in("eu", gets(ip1, 403)),
			[]string{"fail", "ERROR expectation_failed [ap] at 203.0.113.10:443 blame=target medium"},
		},
		{
			"what cannot be read as a response is neither (rule 8)",
			httpDoor(wantBlocked).in("ap", unanswered(ip1, noHTTP)).in("eu", gets(ip1, 403)),
			[]string{"inconclusive"},
		},
		{
			"silence without a control is unknown (rule 8)",
			httpDoor(wantBlocked).in("ap", append(tls(ip1, "c"), response(ip1, 0, httpHung))).in("eu", gets(ip1, 403)),
			[]string{"inconclusive"},
		},
	})
}

func TestWordsOfDoors(t *testing.T) {
	for _, c := range []struct {
		sentence string
		world    *world
		want     []string // in summary and hint together
	}{
		{
			"a handshake where it should be shut", tlsDoor(wantBlocked).in("ap", tls(ip1, "c")),
			[]string{"expected blocked: ap", "completes the handshake with 203.0.113.10:443", "shut 203.0.113.10:443"},
		},
		{
			"an alert where it should be shut", tlsDoor(wantBlocked).in("ap", tls(ip1, "", tlsAlert)).in("eu", tls(ip1, "", tlsAlert)),
			[]string{"expected blocked: ap and eu are answered by TLS (tls_alert) from 203.0.113.10:443"},
		},
		{
			"something else than TLS where it should be open", tlsDoor(wantOpen).in("ap", tls(ip1, "", notTLS)),
			[]string{"expected open: ap: something else than TLS", "the port is open and speaks no TLS"},
		},
		{
			"a response where it should be shut", httpDoor(wantRefused).in("ap", gets(ip1, 200)),
			[]string{"expected refused: ap", "gets 200 OK from 203.0.113.10:443"},
		},
		{
			"silence where it should be refused", expectWorld(wantRefused).in("ap", blocked(ip1, timeout)),
			[]string{"expected refused: ap: no answer from", "control from ap passed", "dropped on the way", "REJECT"},
		},
		{
			"a RST where it should be silent", expectWorld(wantDropped).in("ap", blocked(ip1, refused)),
			[]string{"expected dropped: ap: connection refused (RST)", "without an answer"},
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			f := c.world.judge().GetFindings()[0]
			text := f.GetSummary() + "\n" + f.GetHint()
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("without %q:\n%s", want, text)
				}
			}
		})
	}
}
