package aggregate

import (
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestResolution(t *testing.T) {
	a := "203.0.113.10"
	runCases(t, []verdictCase{
		{
			"no such name anywhere: the zone",
			tcpWorld().in("ap", unnamed(1, nxdomain)).in("eu", unnamed(2, nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone high"},
		},
		{
			"everywhere, but through one resolver: one perspective (rule 5)",
			tcpWorld().in("ap", unnamed(1, nxdomain)).in("eu", unnamed(1, nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone medium"},
		},
		{
			"no such name, one region asked, and nobody heard the zone's own servers: nobody is blamed",
			tcpWorld().in("ap", unnamed(1, nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap] dns_nxdomain blame=unknown medium"},
		},
		{
			"SERVFAIL, one region asked: it may be that resolver",
			tcpWorld().in("ap", unnamed(1, servfail)),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] dns_servfail blame=unknown low"},
		},
		{
			"SERVFAIL everywhere",
			tcpWorld().in("ap", unnamed(1, servfail)).in("eu", unnamed(2, servfail)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_servfail blame=zone high"},
		},
		{
			"SERVFAIL in one region: its resolver (rule 14)",
			tcpWorld().in("ap", unnamed(1, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium"},
		},
		{
			"SERVFAIL in one, NXDOMAIN in another: an ERROR for each",
			tcpWorld().in("ap", unnamed(1, servfail)).in("sa", unnamed(3, nxdomain)).in("eu", query(2, none, a), open(ip1)),
			[]string{
				"fail",
				"ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium",
				"ERROR regional_resolution_failure [sa] dns_nxdomain block=dns blame=resolver medium",
			},
		},
		{
			"two agents, two resolvers, two networks: high",
			tcpWorld().in("ap/1", unnamed(1, servfail)).in("ap/2", unnamed(3, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver high"},
		},
		{
			"two agents that share a resolver: one perspective, medium (rule 5)",
			tcpWorld().in("ap/1", unnamed(1, servfail)).in("ap/2", unnamed(1, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium"},
		},
		{
			"one private address in one region may be one resolver: medium",
			tcpWorld().in("ap/1", at("192.168.1.1:53", unnamed(1, servfail))).in("ap/2", at("192.168.1.1:53", unnamed(1, servfail))).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium"},
		},
		{
			"one loopback address in two regions is two resolvers",
			tcpWorld().in("ap", at("127.0.0.53:53", unnamed(1, nxdomain))).in("eu", at("127.0.0.53:53", unnamed(1, nxdomain))),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone high"},
		},
		{
			"one private address in two regions is two resolvers",
			tcpWorld().in("ap", at("192.168.1.1:53", unnamed(1, nxdomain))).in("eu", at("192.168.1.1:53", unnamed(1, nxdomain))),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone high"},
		},
		{
			"the resolver fails for the control names too: the agent's trouble (rule 14)",
			tcpWorld().in("ap", query(1, dnsSilent), control53(1, dnsSilent)).in("eu", query(2, none, a), open(ip1)),
			[]string{"inconclusive", "WARN vantage_fault [ap] dns_timeout agents=ap blame=resolver medium"},
		},
		{
			"no control at the resolver: unknown",
			tcpWorld().in("ap", query(1, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"one agent of the region does not resolve it (rule 7)",
			tcpWorld().in("ap/1", unnamed(1, servfail)).in("ap/2", query(3, none, a), open(ip1)).in("eu", query(2, none, a), open(ip1)),
			[]string{"ok", "WARN agents_differ [ap] dns_servfail agents=ap-1 blame=unknown medium"},
		},
		{
			"two agents behind one resolver are no majority over one behind another (rule 5)",
			tcpWorld().in("ap/1", unnamed(1, servfail)).in("ap/2", unnamed(1, servfail)).in("ap/3", query(3, none, a), open(ip1)),
			[]string{"ok", "WARN agents_differ [ap] dns_servfail agents=ap-1,ap-2 blame=unknown medium"},
		},
		{
			"no AAAA beside an A is normal",
			tcpWorld().in("ap", query(1, none, a), unnamed(1, nodata), open(ip1)).in("eu", query(2, none, a), unnamed(2, nodata), open(ip1)),
			[]string{"ok"},
		},
		{
			"neither A nor AAAA: no data",
			tcpWorld().in("ap", unnamed(1, nodata), query(1, nodata)).in("eu", unnamed(2, nodata), query(2, nodata)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nodata blame=zone high"},
		},
		{
			"no A beside a SERVFAIL for AAAA: the SERVFAIL is what stopped it",
			tcpWorld().in("ap", unnamed(1, nodata), query(1, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium"},
		},
		{
			"the first resolver is silent for everything, the second one answers: resolved, and the first is told",
			tcpWorld().in("ap", query(1, dnsSilent), control53(1, dnsSilent), query(3, none, a), open(ip1)).in("eu", query(2, none, a), open(ip1)),
			[]string{"ok", "WARN vantage_fault [ap] dns_timeout agents=ap blame=resolver medium"},
		},
		{
			"one family has no data and nothing is known of the other: unknown",
			tcpWorld().in("ap", query(1, deadline), unnamed(1, nodata)).in("eu", query(2, none, a), open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"one family is a SERVFAIL and nothing is known of the other: unknown",
			tcpWorld().in("ap", query(1, deadline), unnamed(1, servfail)).in("eu", query(2, none, a), open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"no such name is about both families (RFC 8020)",
			tcpWorld().in("ap", query(1, deadline), unnamed(1, nxdomain)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain block=dns blame=resolver medium"},
		},
		{
			"the first resolver is dead, the second one fails for both families: judged by the second",
			tcpWorld().in("ap", query(1, dnsSilent), control53(1, dnsSilent), query(1, dnsSilent), unnamed(3, servfail), query(3, servfail)).
				in("eu", query(2, none, a), open(ip1)),
			[]string{
				"fail",
				"ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium",
				"WARN vantage_fault [ap] dns_timeout agents=ap blame=resolver medium",
			},
		},
		{
			"the same with one family asked for: one query at the second one is enough",
			family4(tcpWorld().in("ap", query(1, dnsSilent), control53(1, dnsSilent), unnamed(3, servfail)).in("eu", query(2, none, a), open(ip1))),
			[]string{
				"fail",
				"ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium",
				"WARN vantage_fault [ap] dns_timeout agents=ap blame=resolver medium",
			},
		},
		{
			"control names that the resolver of a reachable name does not have are no fault of its (rule 14)",
			tcpWorld().in("ap", query(1, none, a), blocked(ip1, refused), control53(1, nxdomain)).in("eu", query(2, none, a), open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium"},
		},
		{
			"a control name without one family says nothing about the resolver",
			tcpWorld().in("ap", query(1, servfail), control53(1, nodata)).in("eu", query(2, none, a), open(ip1)),
			[]string{"inconclusive"},
		},
		{
			"DNS fails in one region, the way is shut in another: one ERROR for each cause (rule 12)",
			tcpWorld().in("ap", unnamed(1, servfail)).in("eu", query(2, none, a), open(ip1)).in("sa", query(3, none, a), blocked(ip1, refused)),
			[]string{
				"fail",
				"ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium",
				"ERROR regional_block [sa] at 203.0.113.10:443 tcp_refused block=reject_rst blame=path medium",
			},
		},
		{
			"a name that resolves and addresses nobody could judge: nothing is healthy yet",
			tcpWorld().in("ap", query(1, none, a), tcp(ip1, deadline)),
			[]string{"inconclusive", "WARN insufficient_vantage [ap] agent_deadline agents=ap blame=unknown low"},
		},
	})
}

// at moves all queries to a resolver at another address.
func at(address string, steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		s.Address = address
	}
	return steps
}

// family4 makes the check one of IPv4 alone.
func family4(w *world) *world {
	w.m.Spec.Family = pb.Family_FAMILY_IPV4
	return w
}

func TestAnswers(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"the same set in another order and with other TTLs",
			dnsWorld("A").in("ap", answers(1, "A", "192.0.2.1", "192.0.2.2")).in("eu", answers(2, "A", "192.0.2.2", "192.0.2.1")),
			[]string{"ok"},
		},
		{
			"names are the same in any case and with or without the final dot",
			dnsWorld("MX").in("ap", answers(1, "MX", "10 Mail.example.")).in("eu", answers(2, "MX", "10 mail.example")),
			[]string{"ok"},
		},
		{
			"one region's resolver answers differently: that region (rule 4)",
			dnsWorld("A").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")).in("us", answers(3, "A", "192.0.2.1")),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"no answer is more common than another: all regions",
			dnsWorld("A").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"ok", "WARN answers_unexplained [ap eu] blame=unknown medium"},
		},
		{
			"one resolver that rotates is one perspective, not two answers (rule 5)",
			dnsWorld("A").in("ap", answers(1, "A", "192.0.2.1")).in("eu", answers(1, "A", "192.0.2.2")),
			[]string{"ok"},
		},
		{
			"a CNAME on the way is not the data asked for",
			dnsWorld("A").in("ap", withCNAME(answers(1, "A", "192.0.2.1"))).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"ok"},
		},
		{
			"regions that connect to different addresses of a host",
			tcpWorld().in("ap", query(1, none, "203.0.113.11"), open(ip2)).
				in("eu", query(2, none, "203.0.113.10"), open(ip1)).in("us", query(3, none, "203.0.113.10"), open(ip1)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"a family that one resolver did not give is not a different answer",
			tcpWorld().in("ap", query(1, none, "203.0.113.10"), query(1, dnsSilent), open(ip1)).
				in("eu", query(2, none, "203.0.113.10"), query(2, none, "2001:db8::10"), open(ip1), open(v61)),
			[]string{"ok"},
		},
		{
			"one of an agent's two resolvers cannot: the name resolves, and that is told",
			dnsWorld("A").in("ap", answers(1, "A", "192.0.2.1"), unnamed(3, servfail)).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"ok", "WARN answers_unexplained [ap] dns_servfail agents=ap blame=resolver medium"},
		},
	})
}

func withCNAME(steps []*pb.Step) []*pb.Step {
	r := steps[0].Evidence.Replies[0]
	r.Answers = append(r.Answers, &pb.Record{Name: "www.example.", Type: "CNAME", Data: "edge.example."})
	return steps
}

func TestExpectedAnswers(t *testing.T) {
	runCases(t, []verdictCase{
		{
			"every perspective has every value, one has more",
			dnsWorld("A", "192.0.2.1").in("ap", answers(1, "A", "192.0.2.1")).in("eu", answers(2, "A", "192.0.2.1", "192.0.2.2")),
			[]string{"ok", "INFO propagation [] blame=unknown high"},
		},
		{
			"one region still has the old value (rule 16); no second opinion about it",
			dnsWorld("", "192.0.2.1").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"fail", "ERROR expectation_failed [ap] agents=ap blame=unknown medium", "INFO propagation [ap] blame=unknown high"},
		},
		{
			"nobody has it: the zone",
			dnsWorld("A", "192.0.2.1").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.9")),
			[]string{"fail", "ERROR expectation_failed [ap eu] agents=ap,eu blame=zone medium", "INFO propagation [ap eu] blame=unknown high"},
		},
		{
			"one of two values is missing",
			dnsWorld("A", "192.0.2.1", "192.0.2.2").in("ap", answers(1, "A", "192.0.2.1")).in("eu", answers(2, "A", "192.0.2.1", "192.0.2.2")),
			[]string{"fail", "ERROR expectation_failed [ap] agents=ap blame=unknown medium", "INFO propagation [ap] blame=unknown high"},
		},
		{
			"one of an agent's two resolvers has the old value: every perspective counts (rule 5)",
			dnsWorld("A", "192.0.2.1").in("ap", answers(1, "A", "192.0.2.1"), answers(3, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"fail", "ERROR expectation_failed [ap] agents=ap blame=unknown medium", "INFO propagation [ap] blame=unknown high"},
		},
		{
			"no such name where a value is expected: the expectation, once (rule 12)",
			dnsWorld("A", "192.0.2.1").in("ap", unnamed(1, nxdomain)).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"fail", "ERROR expectation_failed [ap] dns_nxdomain agents=ap blame=unknown medium", "INFO propagation [ap] blame=unknown high"},
		},
		{
			"a resolver that cannot answer breaks no expectation: a finding of its own (rule 12)",
			dnsWorld("A", "192.0.2.1").in("ap", unnamed(1, servfail)).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium", "INFO propagation [] blame=unknown medium"},
		},
		{
			"no such name from a resolver whose controls fail: nobody is accused (rule 8)",
			dnsWorld("A", "192.0.2.1").in("ap", query(1, nxdomain), control53(1, nxdomain)).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"inconclusive", "WARN vantage_fault [ap] dns_nxdomain agents=ap blame=resolver medium", "INFO propagation [] blame=unknown medium"},
		},
		{
			"an answer that was not recorded lacks nothing and shows nothing",
			dnsWorld("A", "192.0.2.1").in("ap", query(1, none)).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"inconclusive", "INFO propagation [] blame=unknown medium"},
		},
		{
			"an answer of which the addresses alone were recorded",
			dnsWorld("A", "192.0.2.1").in("ap", query(1, none, "192.0.2.9")).in("eu", query(2, none, "192.0.2.1")),
			[]string{"fail", "ERROR expectation_failed [ap] agents=ap blame=unknown medium", "INFO propagation [ap] blame=unknown high"},
		},
		{
			"the zone's own server, asked by name, need not know the control names",
			authorityWorld(true),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone medium"},
		},
		{
			"nor does any other server that the question names: what it says is what was asked for",
			authorityWorld(false),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone medium"},
		},
		{
			"a server that the question names and that is silent is nobody's own trouble",
			silentServer(),
			[]string{"inconclusive", "WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low"},
		},
		{
			"a reply that was cut is not the answer",
			dnsWorld("A", "192.0.2.1").in("ap", cutFirst(answers(1, "A", "192.0.2.1"))).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"ok", "INFO propagation [] blame=unknown high"},
		},
		{
			"answers of which something was left out are not compared",
			dnsWorld("A").in("ap", leftOut(1, answers(1, "A", "192.0.2.9"))).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"ok"},
		},
		{
			"an answer of which something was left out may have it",
			dnsWorld("A", "192.0.2.1").in("ap", leftOut(1, answers(1, "A", "192.0.2.9"))).in("eu", answers(2, "A", "192.0.2.1")),
			[]string{"inconclusive", "INFO propagation [] blame=unknown medium"},
		},
		{
			"an empty reply that was asked again for is not the answer",
			dnsWorld("TXT", "v=1").in("ap", emptyFirst(answers(1, "TXT", "v=1"))).in("eu", answers(2, "TXT", "v=1")),
			[]string{"ok", "INFO propagation [] blame=unknown high"},
		},
		{
			"text with and without quotes, in one piece or several",
			dnsWorld("TXT", "v=spf1 -all").in("ap", answers(1, "TXT", `"v=spf1 -all"`)).in("eu", answers(2, "TXT", `"v=spf1 " "-all"`)),
			[]string{"ok", "INFO propagation [] blame=unknown high"},
		},
	})
}

// leftOut says that n records of the first reply were left out of the Result.
func leftOut(n int32, steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Replies[0].LeftOut = n
	return steps
}

// cutFirst puts a cut UDP reply before the whole one that came over TCP.
func cutFirst(steps []*pb.Step) []*pb.Step {
	e := steps[0].Evidence
	e.Replies = slices.Insert(e.Replies, 0, &pb.DNSReply{
		Rcode: "NOERROR", Truncated: true, Answers: []*pb.Record{{Type: "A", Data: "192.0.2.9"}},
	})
	return steps
}

// emptyFirst puts a reply without data before the one that has it.
func emptyFirst(steps []*pb.Step) []*pb.Step {
	e := steps[0].Evidence
	e.Replies = slices.Insert(e.Replies, 0, &pb.DNSReply{Rcode: "NOERROR"})
	return steps
}

func authorityWorld(authoritative bool) *world {
	said := func() []*pb.Step {
		steps := slices.Concat(query(1, nxdomain), control53(1, pb.Failure_FAILURE_DNS_REFUSED))
		steps[0].Evidence.Replies = []*pb.DNSReply{{Rcode: "NXDOMAIN", Authoritative: authoritative}}
		return steps
	}
	w := dnsWorld("A").in("ap", said()).in("eu", said())
	w.m.Spec.GetDns().Resolver = "198.51.100.1"
	return w
}

// silentServer is asked by name, and answers nobody about anything.
func silentServer() *world {
	w := dnsWorld("A")
	for _, region := range []string{"ap", "eu"} {
		w.in(region, query(1, pb.Failure_FAILURE_DNS_TIMEOUT), control53(1, pb.Failure_FAILURE_DNS_TIMEOUT))
	}
	w.m.Spec.GetDns().Resolver = "198.51.100.1"
	return w
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct{ sentence, kind, a, b string }{
		{"IPv6 in any spelling", "AAAA", "2001:db8:0:0::1", "2001:DB8::1"},
		{"a name in any case", "CNAME", "Edge.Example.", "edge.example"},
		{"a mail exchange", "MX", "10   Mail.example.", "10 mail.example"},
		{"a null MX keeps its root", "MX", "0 .", "0 ."},
		{"text in quotes", "TXT", `"a b"`, "a b"},
		{"text with an escaped quote", "TXT", `"say \"hi\""`, `say "hi"`},
		{"text with an escaped octet", "TXT", `"a\032b"`, "a b"},
		{"a CAA record", "CAA", `0 issue "ca.example"`, "0 issue ca.example"},
		{"a digest in any case", "DS", "1 13 2 ABCD", "1 13 2 abcd"},
		{"a digest in pieces", "TLSA", "3 1 1 01AB 23CD", "3 1 1 01ab23cd"},
		{"a key in pieces", "DNSKEY", "257 3 13 Ab cD==", "257 3 13 AbcD=="},
		{"data without a form of its own", "TYPE65280", `\# 4 0A00 0001`, `\# 4 0a000001`},
		{"a service with and without quotes", "HTTPS", `1 . alpn="h3,h2" port="443"`, "1 . alpn=h3,h2 port=443"},
	} {
		if a, b := canonical(c.kind, c.a), canonical(c.kind, c.b); a != b {
			t.Errorf("%s: %q is not %q", c.sentence, a, b)
		}
	}
	for _, c := range []struct{ sentence, kind, a, b string }{
		{"text has case", "TXT", `"A"`, `"a"`},
		{"preferences count", "MX", "10 mail.example", "20 mail.example"},
		{"keys have case", "DNSKEY", "257 3 13 Ab==", "257 3 13 ab=="},
	} {
		if a, b := canonical(c.kind, c.a), canonical(c.kind, c.b); a == b {
			t.Errorf("%s: %q and %q are one", c.sentence, c.a, c.b)
		}
	}
}

// TestFamiliesInAnyOrder: which of a name's two queries was begun first makes no difference to what is said.
func TestFamiliesInAnyOrder(t *testing.T) {
	asked := func(kind string) []*pb.Step {
		steps := query(1, nxdomain)
		steps[0].Type = kind
		return steps
	}
	said := func(kinds ...string) string {
		w := tcpWorld().in("ap", asked(kinds[0]), asked(kinds[1]), control53(1, none), own(1, "A", "192.0.2.1"), ownSays(1, "AAAA", nodata)).
			in("eu", answers(2, "A", "192.0.2.1"), open("192.0.2.1:443"))
		return w.judge().GetFindings()[0].GetSummary()
	}
	one, other := said("A", "AAAA"), said("AAAA", "A")
	if one != other || !strings.Contains(one, "the zone's own servers say 192.0.2.1 in ap") {
		t.Errorf("%q and %q", one, other)
	}
}

// ownSays asks server n of the zone for a type that it says the name has none of.
func ownSays(n int, kind string, f pb.Failure) []*pb.Step {
	steps := ownFails(n, f)
	steps[0].Type = kind
	return steps
}
