package aggregate

import (
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// beside makes the first of steps a variant of the step before it.
func beside(v pb.Variant, before, steps []*pb.Step) []*pb.Step {
	index := int32(0)
	for _, s := range steps {
		s.Role, s.Variant, s.Beside = pb.Role_ROLE_VARIANT, v, &index
	}
	return slices.Concat(before, steps)
}

// answeredTLS shakes hands, beside a query that is a Result's first step, with what it was answered.
func answeredTLS(before []*pb.Step, address string, failures ...pb.Failure) []*pb.Step {
	return beside(pb.Variant_VARIANT_ANSWERED_ADDRESS, before, tls(address, "c1", failures...))
}

// invented asks the same resolver for a name that does not exist, which gets addresses if there are any.
func invented(before []*pb.Step, addresses ...string) []*pb.Step {
	failure := none
	if len(addresses) == 0 {
		failure = nxdomain
	}
	return beside(pb.Variant_VARIANT_RANDOM_LABEL, before, query(1, failure, addresses...))
}

// zoneSays is two of the zone's own servers that say the same, with a TTL of 60 s.
func zoneSays(data ...string) []*pb.Step {
	return slices.Concat(own(1, "A", data...), own(2, "A", data...))
}

// zoneDenies is the same with a denial.
func zoneDenies(f pb.Failure) []*pb.Step { return slices.Concat(ownFails(1, f), ownFails(2, f)) }

// aged is an answer with a remaining TTL.
func aged(n int, ttl uint32, data ...string) []*pb.Step {
	return living(ttl, addressed(answers(n, "A", data...), data...))
}

// addressed notes the addresses of an answer, as agents do.
func addressed(steps []*pb.Step, addresses ...string) []*pb.Step {
	steps[0].Evidence.Addresses = addresses
	return steps
}

func TestDifferences(t *testing.T) {
	a, b, c := "192.0.2.1", "192.0.2.2", "192.0.2.3"
	same := func(n int) []*pb.Step { return slices.Concat(aged(n, 50, a), zoneSays(a)) }
	const calm = "ok"
	runCases(t, []verdictCase{
		{
			"each region gets what the zone's own servers say there: by place, and nothing is wrong",
			dnsWorld("A").in("ap", aged(1, 50, b), zoneSays(b)).in("eu", same(2)).in("us", same(3)),
			[]string{calm, "INFO answers_geo [ap] blame=zone medium"},
		},
		{
			"the same for the addresses of a host",
			tcpWorld().in("ap", query(1, none, "203.0.113.11"), zoneSays("203.0.113.11"), open(ip2)).
				in("eu", query(2, none, "203.0.113.10"), zoneSays("203.0.113.10"), open(ip1)),
			[]string{calm, "INFO answers_geo [ap eu] blame=zone medium"},
		},
		{
			"a resolver far away gets what the zone gives another place: by place too",
			dnsWorld("A").in("ap", aged(1, 50, a), zoneSays(b)).in("eu", same(2)),
			[]string{calm},
		},
		{
			"servers that choose by turns, within a place too: nothing to say",
			dnsWorld("A").in("ap", aged(1, 50, a), own(1, "A", a), own(2, "A", b)).in("eu", aged(2, 50, b), own(1, "A", b), own(2, "A", a)),
			[]string{calm},
		},
		{
			"one more of many that servers choose from",
			dnsWorld("A").in("ap", aged(1, 50, c), own(1, "A", a), own(2, "A", b)).in("eu", aged(2, 50, a), own(1, "A", b), own(2, "A", a)),
			[]string{calm},
		},
		{
			"an answer that the zone no more has, with a TTL that runs down: from before",
			dnsWorld("A").in("ap", aged(1, 33, c), zoneSays(a)).in("eu", same(2)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"the same from one region alone",
			dnsWorld("A").in("ap", aged(1, 33, c), zoneSays(a)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"a public resolver's is one too",
			dnsWorld("A").in("ap", same(1), asPublic(aged(8, 33, c))),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"the TTL was lowered with the change: caches that count down show that it is from one",
			dnsWorld("A").in("ap", aged(1, 3000, c), zoneSays(a)).in("eu", aged(2, 2500, c), zoneSays(a)),
			[]string{calm, "WARN answers_stale [ap eu] agents=ap,eu blame=resolver medium"},
		},
		{
			"a resolver that says so itself (EDE 3)",
			dnsWorld("A").in("ap", errored(3, aged(1, 3000, c)), zoneSays(a)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"the whole of another TTL, and no other sign: there is no telling",
			dnsWorld("A").in("ap", aged(1, 3600, c), zoneSays(a)).in("eu", same(2)),
			[]string{calm, "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"a zone that steers may give that resolver what nobody here has seen: not from before",
			dnsWorld("A").in("ap", aged(1, 33, c), zoneSays(b)).in("eu", same(2)),
			[]string{calm, "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"the same, and a handshake there shows the name's certificate",
			dnsWorld("A").in("ap", answeredTLS(aged(1, 33, c), c+":443"), zoneSays(b)).in("eu", same(2)),
			[]string{calm, "INFO answers_geo [ap eu] blame=zone medium"},
		},
		{
			"a record that is gone, which a cache still has and does not make up",
			dnsWorld("A").in("ap", invented(aged(1, 33, c)), zoneDenies(nxdomain)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"while all others follow the zone: it resolves nowhere, and the cache is told apart",
			dnsWorld("A").in("ap", invented(aged(1, 33, c)), zoneDenies(nxdomain)).in("eu", unnamed(2, nxdomain), zoneDenies(nxdomain)).in("us", unnamed(3, nxdomain), zoneDenies(nxdomain)),
			[]string{"fail", "ERROR unresolvable [eu us] dns_nxdomain blame=zone high", "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"one region alone follows the zone yet: the zone's own servers confirm it there",
			dnsWorld("A").in("ap", invented(aged(1, 33, c)), zoneDenies(nxdomain)).in("eu", unnamed(2, nxdomain), zoneDenies(nxdomain)),
			[]string{"fail", "ERROR unresolvable [eu] dns_nxdomain blame=zone medium", "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"the cache is that of one agent's second resolver: the first one is not the odd one",
			dnsWorld("A").in("ap", invented(aged(2, 33, c)), unnamed(1, nxdomain), zoneDenies(nxdomain)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"two agents of a region ask the cache and a resolver that follows: the region is told with the others",
			dnsWorld("A").in("ap/1", invented(aged(1, 33, c)), zoneDenies(nxdomain)).in("ap/2", unnamed(2, nxdomain), zoneDenies(nxdomain)).in("us", unnamed(3, nxdomain), zoneDenies(nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap us] dns_nxdomain blame=zone high", "WARN answers_stale [ap] agents=ap-1 blame=resolver medium"},
		},
		{
			"the same with a TTL that nobody has counted down",
			dnsWorld("A").in("ap", invented(aged(1, 3600, c)), zoneDenies(nxdomain)),
			[]string{calm, "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"the TTL was lowered with the change, and one cache alone has the old answer: nobody sets a TTL of 2873",
			dnsWorld("A").in("ap", aged(1, 2873, c), zoneSays(a)),
			[]string{calm, "WARN answers_stale [ap] agents=ap blame=resolver medium"},
		},
		{
			"an answer that was asked for another part of the network is not compared",
			forSubnet(dnsWorld("A").in("ap", aged(1, 33, c), zoneSays(a))),
			[]string{calm},
		},
		{
			"the same, where nobody looked whether it makes things up",
			dnsWorld("A").in("ap", aged(1, 33, c), zoneDenies(nxdomain)),
			[]string{calm, "WARN answers_unexplained [ap] blame=unknown medium"},
		},
		{
			"one of the zone's servers is out of step, and resolvers follow the one or the other: told once",
			dnsWorld("A").many(4, func() []*pb.Step {
				return slices.Concat(aged(1, 50, a), serial(8, own(1, "A", b)), serial(7, own(2, "A", a)))
			}),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"IPv6 addresses that a resolver makes for a name without (DNS64)",
			dnsWorld("AAAA").in("ap", answers(1, "AAAA", "64:ff9b::c000:201"), typed("AAAA", zoneDenies(nodata))),
			[]string{calm},
		},
		{
			"a region whose zone's servers nobody heard, in a zone that steers",
			dnsWorld("A").in("ap", aged(1, 50, b), zoneSays(b)).in("eu", same(2)).in("us", aged(3, 50, c)),
			[]string{calm, "INFO answers_geo [ap eu us] blame=zone medium"},
		},
		{
			"a region whose zone's servers nobody heard, in a zone that does not",
			dnsWorld("A").in("eu", same(2)).in("sa", same(4)).in("us", aged(3, 50, c)),
			[]string{calm, "WARN answers_unexplained [us] blame=unknown medium"},
		},
	})
}

// forSubnet asks for another network's answer.
func forSubnet(w *world) *world {
	w.m.Spec.GetDns().ClientSubnet = "198.51.100.0/24"
	return w
}

// typed sets the type that steps asked for.
func typed(kind string, steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		s.Type = kind
	}
	return steps
}

func TestDenials(t *testing.T) {
	a := "192.0.2.1"
	ok := func(n int) []*pb.Step { return slices.Concat(aged(n, 50, a), zoneSays(a)) }
	runCases(t, []verdictCase{
		{
			"no such name, and the zone's own servers say so: the zone, from one region too",
			dnsWorld("A").in("ap", unnamed(1, nxdomain), zoneDenies(nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap] dns_nxdomain blame=zone medium"},
		},
		{
			"no such name, while the zone's own servers have it: a denial from before, kept with the zone's SOA (RFC 2308)",
			dnsWorld("A").in("ap", denying(40, 60, unnamed(1, nxdomain)), zoneSays(a)).in("eu", ok(2)),
			[]string{"ok", "WARN answers_stale [ap] dns_nxdomain agents=ap blame=resolver medium"},
		},
		{
			"the same where one region is all that was asked: no blame on the zone",
			dnsWorld("A").in("ap", denying(40, 60, unnamed(1, nxdomain)), zoneSays(a)),
			[]string{"ok", "WARN answers_stale [ap] dns_nxdomain agents=ap blame=resolver medium"},
		},
		{
			"no such record, from before",
			dnsWorld("A").in("ap", denying(40, 60, unnamed(1, nodata)), zoneSays(a)),
			[]string{"ok", "WARN answers_stale [ap] dns_nodata agents=ap blame=resolver medium"},
		},
		{
			"a denial without the zone's SOA is no cache's: the resolver withholds it",
			dnsWorld("A").in("ap", unnamed(1, nxdomain), zoneSays(a)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain block=dns blame=resolver medium"},
		},
		{
			"nor one with another zone's",
			dnsWorld("A").in("ap", foreignSOA(denying(40, 60, unnamed(1, nxdomain))), zoneSays(a)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain block=dns blame=resolver medium"},
		},
		{
			"nor one of a resolver that says that it filters (EDE 15)",
			dnsWorld("A").in("ap", errored(15, denying(40, 60, unnamed(1, nxdomain))), zoneSays(a)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain block=dns blame=resolver medium"},
		},
		{
			"a host that a region cannot reach for an old denial: that is told, with how long it lasts",
			tcpWorld().in("ap", denying(40, 60, unnamed(1, nxdomain)), zoneSays("203.0.113.10")).in("eu", query(2, none, "203.0.113.10"), zoneSays("203.0.113.10"), open(ip1)),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain blame=resolver medium"},
		},
		{
			"no such name in either family, while the zone's own servers have IPv4: whichever was asked first",
			tcpWorld().in("ap", typed("AAAA", unnamed(1, nxdomain)), typed("AAAA", ownFails(1, nodata)), unnamed(1, nxdomain), own(1, "A", "203.0.113.10")),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_nxdomain block=dns blame=resolver medium"},
		},
		{
			"one of the zone's servers has no such name: that is why a resolver says so",
			dnsWorld("A").in("ap", denying(40, 60, unnamed(1, nxdomain)), own(1, "A", a), ownFails(2, nxdomain)).in("eu", aged(2, 50, a), own(1, "A", a), ownFails(2, nxdomain)),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"a bogon that the zone's own servers give: the zone",
			dnsWorld("A").in("ap", query(1, bogon, "10.0.0.1"), bogons()).in("eu", query(2, bogon, "10.0.0.1"), bogons()),
			[]string{"fail", "ERROR bogon_answer [ap eu] dns_bogon blame=zone high"},
		},
		{
			"the same where one region's resolver strips it: the zone all the same",
			dnsWorld("A").in("ap", query(1, bogon, "10.0.0.1"), bogons()).in("eu", aged(2, 3600, a), bogons()),
			[]string{"fail", "ERROR bogon_answer [ap] dns_bogon blame=zone medium", "WARN answers_unexplained [eu] blame=unknown medium"},
		},
		{
			"a bogon that only resolvers give: filtering, wherever it was asked",
			dnsWorld("A").in("ap", query(1, bogon, "10.0.0.1"), zoneSays(a)).in("eu", query(2, bogon, "10.0.0.1"), zoneSays(a)),
			[]string{"fail", "ERROR bogon_answer [ap eu] dns_bogon block=dns blame=resolver medium"},
		},
		{
			"what a resolver could not validate is what the zone's own servers give: the zone",
			dnsWorld("A").in("ap", unvalidated(unnamed(1, bogus), a), zoneSays(a)).in("eu", ok(2)),
			[]string{"fail", "ERROR dnssec_bogus [ap] dns_dnssec_bogus blame=zone medium"},
		},
		{
			"what a resolver could not validate is not what the zone's own servers give: something on its way",
			dnsWorld("A").in("ap", unvalidated(unnamed(1, bogus), "192.0.2.66"), zoneSays(a)).in("eu", ok(2)),
			[]string{"fail", "ERROR dnssec_bogus [ap] dns_dnssec_bogus block=dns blame=resolver medium"},
		},
		{
			"the signatures that the zone's own servers give do not come to the resolver",
			dnsWorld("A").in("ap", unsigned(unnamed(1, bogus)), signed(own(1, "A", a))).in("eu", ok(2)),
			[]string{"fail", "ERROR dnssec_bogus [ap] dns_dnssec_bogus block=dns blame=resolver medium"},
		},
		{
			"the zone's own servers give none either",
			dnsWorld("A").in("ap", unsigned(unnamed(1, bogus)), own(1, "A", a)).in("eu", ok(2)),
			[]string{"fail", "ERROR dnssec_bogus [ap] dns_dnssec_bogus blame=zone medium"},
		},
		{
			"a link that a resolver remembers as broken and the zone's own servers have",
			dnsWorld("A").in("ap", denying(40, 60, unnamed(1, brokenName)), aliased("new.example", 60, own(1, "A", a))),
			[]string{"ok", "WARN answers_stale [ap] dns_cname_broken agents=ap blame=resolver medium"},
		},
	})
}

// unvalidated is what the resolver gives without validation.
func unvalidated(before []*pb.Step, data string) []*pb.Step {
	return beside(pb.Variant_VARIANT_CHECKING_DISABLED, before, addressed(answers(1, "A", data), data))
}

// unsigned says that the resolver misses signatures.
func unsigned(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Dnssec = &pb.DNSSECEvidence{Reason: pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING}
	return steps
}

// signed adds a signature to an answer.
func signed(steps []*pb.Step) []*pb.Step {
	r := steps[0].Evidence.Replies[0]
	r.Answers = append(r.Answers, &pb.Record{Name: "www.example", Type: "RRSIG", Data: "A 13 2 60 …"})
	return steps
}

// foreignSOA makes the SOA of a denial another zone's.
func foreignSOA(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Replies[0].Authority[0].Name = "filter.invalid"
	return steps
}

// bogons is a server of the zone that gives an address that cannot be public.
func bogons() []*pb.Step {
	steps := own(1, "A", "10.0.0.1")
	steps[0].Failure, steps[0].Failures = bogon, []pb.Failure{bogon}
	return steps
}

// What is said of differences: who has what, what the zone has, until when, and how it shows.
func TestDifferenceWords(t *testing.T) {
	a, c := "192.0.2.1", "192.0.2.66"
	for _, x := range []struct {
		sentence string
		world    *world
		code     pb.FindingCode
		says     []string
	}{
		{
			"stale, and until when",
			dnsWorld("A").in("ap", aged(1, 33, c), zoneSays(a)),
			pb.FindingCode_FINDING_CODE_ANSWERS_STALE,
			[]string{"198.51.100.1:53 in ap still has 192.0.2.66 until 2026-11-21T12:00:33Z", "from agent ap only", "the zone's own servers say 192.0.2.1 in ap", "wait until 2026-11-21T12:00:33Z"},
		},
		{
			"an old denial in the way of a host",
			tcpWorld().in("ap", denying(40, 60, unnamed(1, nxdomain)), zoneSays(a)),
			pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE,
			[]string{"the zone's own servers say 192.0.2.1 in ap", "keeps a denial from before", "until 2026-11-21T12:00:40Z"},
		},
		{
			"injected",
			dnsWorld("A").in("ap", injected(a, aged(1, 60, c)), zoneSays(a)),
			pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT,
			[]string{"198.51.100.1:53 answers 192.0.2.66 for www.example", "say 192.0.2.1 in ap", "replies with different data came to one query"},
		},
		{
			"a view of its own",
			dnsWorld("A").in("ap", aged(1, 3600, "10.1.2.3"), zoneSays(a)),
			pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED,
			[]string{"gets 10.1.2.3", "say 192.0.2.1 in ap", "split horizon"},
		},
	} {
		t.Run(x.sentence, func(t *testing.T) {
			v := timed(x.world).judge()
			i := slices.IndexFunc(v.GetFindings(), func(f *pb.Finding) bool { return f.GetCode() == x.code })
			if i < 0 {
				t.Fatalf("it is not there: %v", lines(v))
			}
			text := v.GetFindings()[i].GetSummary() + " " + v.GetFindings()[i].GetHint()
			for _, want := range x.says {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in %q", want, text)
				}
			}
		})
	}
}
