package aggregate

import (
	"slices"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// injected adds a second reply with other data to the first query.
func injected(data string, steps []*pb.Step) []*pb.Step {
	steps[0].Attempts = 1
	e := steps[0].Evidence
	e.Replies = append(e.Replies, &pb.DNSReply{Transport: "udp", Rcode: "NOERROR", Answers: []*pb.Record{{Name: "www.example", Type: "A", Data: data, Ttl: 60}}})
	return steps
}

// overtaken puts a reply without authority before that of a zone's own server, as the agent takes it.
func overtaken(data string, steps []*pb.Step) []*pb.Step {
	e := steps[0].Evidence
	e.Replies = slices.Insert(e.Replies, 0, &pb.DNSReply{Transport: "udp", Rcode: "NOERROR", Answers: []*pb.Record{{Name: "www.example", Type: "A", Data: data, Ttl: 60}}})
	steps[0].Attempts, steps[0].Failure, steps[0].Failures = 1, lame, []pb.Failure{lame}
	return steps
}

// bothClaim has all replies to the first query claim authority.
func bothClaim(steps []*pb.Step) []*pb.Step {
	steps[0].Attempts = 1
	for _, r := range steps[0].Evidence.Replies {
		r.Authoritative = true
	}
	return steps
}

func TestSuspectAnswers(t *testing.T) {
	a, c := "192.0.2.1", "192.0.2.66"
	same := func(n int) []*pb.Step { return slices.Concat(aged(n, 50, a), zoneSays(a)) }
	runCases(t, []verdictCase{
		{
			"two replies with different data to one query: somebody on the way",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), zoneSays(a)).in("eu", same(2)),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=path medium"},
		},
		{
			"two replies to a query that was sent twice: two caches behind one address may differ",
			dnsWorld("A").in("ap", attemptsOf(2, injected(a, aged(1, 33, c))), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"two replies, and what was taken is what the zone says: no harm was done",
			dnsWorld("A").in("ap", injected(c, aged(1, 60, a)), zoneSays(a)).in("eu", same(2)),
			[]string{"ok"},
		},
		{
			"the same to a query to the zone's own servers, one of them with authority: that one is the server's",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), overtaken(c, own(1, "A", a)), overtaken(c, own(2, "A", a))).in("eu", same(2)),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=path medium"},
		},
		{
			"the same from one region alone: no server is lame for what came before its reply",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), overtaken(c, own(1, "A", a)), overtaken(c, own(2, "A", a))),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=path medium"},
		},
		{
			"the same, all of them with authority: the server's is not to be told",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), bothClaim(injected(a, own(1, "A", c)))).in("eu", same(2)),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=path medium"},
		},
		{
			"two replies with the same data",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, a)), zoneSays(a)).in("eu", same(2)),
			[]string{"ok"},
		},
		{
			"two replies of servers that choose by turns",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), own(1, "A", a), own(2, "A", "192.0.2.5")).in("eu", same(2)),
			[]string{"ok"},
		},
		{
			"the certificate there is not the name's, and the TTL is not one that runs down",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 3600, c), a+":443"), c+":443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=resolver medium"},
		},
		{
			"the same with the TTL of before a change, counted down: the old host may be somebody else's by now",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 2873, c), a+":443"), c+":443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"the same with a TTL that is less than the zone's",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 33, c), a+":443"), c+":443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"nor is the one at an address of the zone's own: the name has none to show, or something shows its own for all",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 3600, c), a+":443", mismatch), c+":443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"nothing shakes hands at an address of the zone's own: it may be no name for TLS",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 3600, c), a+":443", hung), c+":443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"nobody shakes hands there: no proof",
			dnsWorld("A").in("ap", answeredTLS(aged(1, 3600, c), c+":443", hung), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"a certificate that has ended is the name's all the same",
			dnsWorld("A").in("ap", answeredTLS(aged(1, 3600, c), c+":443", expired), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"a resolver that says itself that it filters (EDE 17)",
			dnsWorld("A").in("ap", errored(17, aged(1, 33, c)), zoneSays(a)).in("eu", same(2)),
			[]string{"fail", "ERROR answers_suspect [ap] block=dns agents=ap blame=resolver medium"},
		},
		{
			"no such name, and the resolver gives the address that it gives for anything",
			dnsWorld("A").in("ap", invented(aged(1, 33, c), c), zoneDenies(nxdomain)).in("eu", invented(aged(2, 33, c), c), zoneDenies(nxdomain)),
			[]string{"fail", "ERROR answers_suspect [ap eu] agents=ap,eu blame=resolver medium"},
		},
		{
			"the same in one region: those who say that there is no such name are right, and fail nobody",
			dnsWorld("A").in("ap", invented(aged(1, 33, c), c), zoneDenies(nxdomain)).
				in("eu", unnamed(2, nxdomain), zoneDenies(nxdomain)).in("us", unnamed(3, nxdomain), zoneDenies(nxdomain)),
			[]string{
				"fail", "ERROR unresolvable [eu us] dns_nxdomain blame=zone high",
				"ERROR answers_suspect [ap] agents=ap blame=resolver medium",
			},
		},
		{
			"a private address may be a view for who asks from inside (rule 17: allowed there)",
			dnsWorld("A").in("ap", answeredTLS(aged(1, 3600, "10.1.2.3"), "10.1.2.3:443", mismatch), zoneSays(a)).in("eu", same(2)),
			[]string{"ok", "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"a private address is no excuse where the zone's own is private as well",
			dnsWorld("A").in("ap", answeredTLS(answeredTLS(aged(1, 3600, "10.1.2.3"), "10.1.2.1:443"), "10.1.2.3:443", mismatch), zoneSays("10.1.2.1")).
				in("eu", aged(2, 3600, "10.1.2.1"), zoneSays("10.1.2.1")),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=resolver medium"},
		},
		{
			"what a forged answer leads to is not the target's: one cause, one ERROR (rule 12)",
			tcpWorld().in("ap", injected("203.0.113.10", aged(1, 60, "203.0.113.11")), zoneSays("203.0.113.10"), blocked(ip2, refused)).
				in("eu", aged(2, 60, "203.0.113.10"), zoneSays("203.0.113.10"), open(ip1)),
			[]string{"fail", "ERROR answers_suspect [ap] agents=ap blame=path medium"},
		},
	})
}
