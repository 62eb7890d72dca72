package aggregate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// timed gives every result the coordinator's time.
func timed(w *world) *world {
	for _, r := range w.results {
		r.CoordinatorTime = timestamppb.New(judgedTime)
	}
	return w
}

// asPublic makes the steps queries to public resolvers.
func asPublic(steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		if s.Role == pb.Role_ROLE_TARGET {
			s.Role = pb.Role_ROLE_PUBLIC
		}
	}
	return steps
}

// denying puts the zone's SOA beside a denial, with a TTL and the zone's own limit for denials.
func denying(ttl, minimum uint32, steps []*pb.Step) []*pb.Step {
	s := steps[0]
	rcode := "NOERROR"
	if s.Failure == nxdomain {
		rcode = "NXDOMAIN"
	}
	s.Evidence.Replies = []*pb.DNSReply{{Transport: "udp", Rcode: rcode, Authority: []*pb.Record{{
		Name: "example", Ttl: ttl, Type: "SOA", Data: fmt.Sprintf("ns1.example.net. root.example.net. 7 3600 600 86400 %d", minimum),
	}}}}
	return steps
}

// numbers is the propagation that w's verdict has.
func numbers(t *testing.T, w *world) *pb.Finding {
	t.Helper()
	for _, f := range w.judge().GetFindings() {
		if f.GetCode() == pb.FindingCode_FINDING_CODE_PROPAGATION {
			checkFinding(t, w, f)
			return f
		}
	}
	t.Fatal("no propagation")
	return nil
}

func TestPropagation(t *testing.T) {
	young, old := "192.0.2.1", "192.0.2.9"
	for _, c := range []struct {
		sentence string
		world    *world
		want     string // serving of judged and unknown, until, then perspectives and authorities
	}{
		{
			"everyone has it",
			dnsWorld("A", young).in("ap", answers(1, "A", young)).in("eu", answers(2, "A", young)),
			"2/2+0 | ap 1 ok; eu 2 ok",
		},
		{
			"one has the old one for another 100 s: those that have it come last",
			dnsWorld("A", young).in("ap", answers(1, "A", young)).in("eu", living(100, answers(2, "A", old))),
			"1/2+0 1m40s | eu 2 192.0.2.9 1m40s; ap 1 ok",
		},
		{
			"two agents that share a resolver are one perspective (rule 5), and it lacks it if one of them gets the old one",
			dnsWorld("A", young).in("ap/1", answers(1, "A", young)).in("ap/2", living(50, answers(1, "A", old))),
			"0/1+0 50s | ap 1 192.0.2.9 50s",
		},
		{
			"one address in two regions is counted in each",
			dnsWorld("A", young).in("ap", answers(1, "A", young)).in("eu", answers(1, "A", young)),
			"2/2+0 | ap 1 ok; eu 1 ok",
		},
		{
			"public resolvers count, and one of them alone is enough to say that its users lack it",
			dnsWorld("A", young).in("ap", answers(1, "A", young), asPublic(living(9, answers(8, "A", old)))),
			"1/2+0 9s | ap 8 public 192.0.2.9 9s; ap 1 ok",
		},
		{
			"a resolver whose controls fail is unknown (rule 20)",
			dnsWorld("A", young).in("ap", query(1, nxdomain), control53(1, servfail)).in("eu", answers(2, "A", young)),
			"1/1+1 | ap 1 dns_nxdomain; eu 2 ok",
		},
		{
			"one that fails, beside controls that do not, is unknown too: it serves neither",
			dnsWorld("A", young).in("ap", unnamed(1, servfail)).in("eu", answers(2, "A", young)),
			"1/1+1 | ap 1 dns_servfail; eu 2 ok",
		},
		{
			"a public resolver's failure without controls is unknown",
			dnsWorld("A", young).in("ap", answers(1, "A", young), asPublic(query(8, servfail))),
			"1/1+1 | ap 8 public dns_servfail; ap 1 ok",
		},
		{
			"a denial is kept as long as its SOA's TTL, at most its last field (RFC 2308)",
			dnsWorld("A", young).in("ap", denying(500, 60, unnamed(1, nxdomain))).in("eu", denying(40, 60, unnamed(2, nodata))),
			"0/2+0 1m0s | ap 1 dns_nxdomain 1m0s; eu 2 dns_nodata 40s",
		},
		{
			"a denial without SOA is kept for nobody knows how long",
			dnsWorld("A", young).in("ap", unnamed(1, nxdomain)),
			"0/1+0 | ap 1 dns_nxdomain",
		},
		{
			"what a resolver serves though it has run out (EDE 3) ends nobody knows when",
			dnsWorld("A", young).in("ap", errored(3, living(30, answers(1, "A", old)))),
			"0/1+0 | ap 1 192.0.2.9",
		},
		{
			"one of the zone's own servers has the old one: waiting does not help",
			dnsWorld("A", young).in("ap", living(30, answers(1, "A", old)), own(1, "A", young), own(2, "A", old)),
			"0/1+0 | ap 1 192.0.2.9 30s | ap ns2.example.net 192.0.2.9",
		},
		{
			"one of them has nothing",
			dnsWorld("A", young).in("ap", answers(1, "A", young), own(1, "A", young), ownFails(2, nodata)),
			"1/1+0 | ap 1 ok | ap ns2.example.net dns_nodata",
		},
		{
			"what a server says of the zone itself is not what is asked for",
			dnsWorld("A", young).in("ap", answers(1, "A", young), own(1, "A", young), own(1, "NS", "ns1.example.net"), own(1, "DS", "1 13 2 aa")),
			"1/1+0 | ap 1 ok",
		},
		{
			"unless that is what is asked for",
			dnsWorld("NS", "ns2.example.net").in("ap", answers(1, "NS", "ns2.example.net"), own(1, "NS", "ns1.example.net")),
			"1/1+0 | ap 1 ok | ap ns1.example.net ns1.example.net",
		},
		{
			"a CNAME that changed counts by its own TTL, not by that of what it leads to",
			dnsWorld("A", young).in("ap", aliased("old.example", 40, living(3000, answers(1, "A", old))), aliased("new.example", 60, own(1, "A", young))),
			"0/1+0 40s | ap 1 192.0.2.9 40s",
		},
		{
			"a CNAME that the zone confirms is not what changed",
			dnsWorld("A", young).in("ap", aliased("new.example", 3000, living(40, answers(1, "A", old))), aliased("new.example", 3600, own(1, "A", young))),
			"0/1+0 40s | ap 1 192.0.2.9 40s",
		},
		{
			"octets that are no text are shown as octets",
			dnsWorld("TXT", "new").in("ap", answers(1, "TXT", `"v=1\255\196\128"`)),
			`0/1+0 | ap 1 v=1\255Ā`,
		},
		{
			"an answer that was cut shows neither",
			dnsWorld("A", young).in("ap", leftOut(1, answers(1, "A", old))),
			"0/0+1 | ap 1 unspecified",
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if got := numberLine(numbers(t, timed(c.world)).GetPropagation()); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// aliased puts a CNAME before the answer.
func aliased(target string, ttl uint32, steps []*pb.Step) []*pb.Step {
	r := steps[0].Evidence.Replies[0]
	r.Answers = append([]*pb.Record{{Name: "www.example", Type: "CNAME", Data: target + ".", Ttl: ttl}}, r.Answers...)
	return steps
}

// errored adds an extended error to the first reply.
func errored(code uint32, steps []*pb.Step) []*pb.Step {
	r := steps[0].Evidence.Replies[0]
	r.ExtendedErrors = append(r.ExtendedErrors, &pb.ExtendedError{Code: code})
	return steps
}

// numberLine is a propagation on a line; servers by the last number of their addresses.
func numberLine(n *pb.Propagation) string {
	text := fmt.Sprintf("%d/%d+%d", n.GetServing(), n.GetJudged(), n.GetUnknown()) + sinceStart(n.GetUntil())
	var parts []string
	for _, p := range n.GetPerspectives() {
		parts = append(parts, perspectiveLine(p, strings.TrimSuffix(strings.TrimPrefix(p.GetServer(), "198.51.100."), ":53")))
	}
	text += " | " + strings.Join(parts, "; ")
	parts = nil
	for _, p := range n.GetAuthorities() {
		parts = append(parts, perspectiveLine(p, p.GetName()))
	}
	if len(parts) > 0 {
		text += " | " + strings.Join(parts, "; ")
	}
	return text
}

func perspectiveLine(p *pb.Perspective, server string) string {
	text := p.GetRegion() + " " + server
	if p.GetPublic() {
		text += " public"
	}
	if p.GetServing() {
		return text + " ok"
	}
	if p.GetFailure() != none {
		text += " " + ShortFailure(p.GetFailure())
	}
	if len(p.GetValues()) > 0 {
		text += " " + strings.Join(p.GetValues(), ",")
	}
	return text + sinceStart(p.GetUntil())
}

func sinceStart(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return " " + at.AsTime().Sub(judgedTime).String()
}

// The lists are bounded, and what is missing comes before what is there.
func TestPropagationIsBounded(t *testing.T) {
	w := dnsWorld("A", "192.0.2.1")
	for i := range 300 {
		steps := answers(i%250, "A", "192.0.2.1")
		if i == 299 {
			steps = answers(251, "A", "192.0.2.9")
		}
		w.in(fmt.Sprintf("r%03d", i), steps, own(i%100, "A", "192.0.2.9"))
	}
	n := numbers(t, timed(w)).GetPropagation()
	if len(n.GetPerspectives()) != maxPerspectives || len(n.GetAuthorities()) != maxServers || n.GetJudged() != 300 || n.GetServing() != 299 {
		t.Errorf("%d perspectives, %d authorities, %d of %d", len(n.GetPerspectives()), len(n.GetAuthorities()), n.GetServing(), n.GetJudged())
	}
	if p := n.GetPerspectives()[0]; p.GetServing() || p.GetRegion() != "r299" {
		t.Errorf("first is %v", p)
	}
}

// What is said about it: the words that people act on.
func TestPropagationWords(t *testing.T) {
	young, old := "192.0.2.1", "192.0.2.9"
	for _, c := range []struct {
		sentence string
		world    *world
		summary  []string
		hint     string
	}{
		{
			"caches alone",
			dnsWorld("A", young).in("ap", living(100, answers(1, "A", old)), own(1, "A", young)).in("eu", answers(2, "A", young), own(1, "A", young)),
			[]string{"www.example is 192.0.2.1: 1 of 2 perspectives (50 %)", "ap 0 of 1", "198.51.100.1:53 in ap still has 192.0.2.9 until 2026-11-21T12:01:40Z"},
			"wait; the last of the old answers runs out at 2026-11-21T12:01:40Z",
		},
		{
			"the zone itself",
			dnsWorld("A", young).in("ap", living(100, answers(1, "A", old)), own(1, "A", old)),
			[]string{"of the zone's own servers ns1.example.net (192.0.2.201:53) does not serve it"},
			"waiting does not help: none of the zone's own servers",
		},
		{
			"one of the zone's servers",
			dnsWorld("A", young).in("ap", living(100, answers(1, "A", old)), own(1, "A", old), own(2, "A", young)),
			[]string{"ns1.example.net (192.0.2.201:53) does not serve it"},
			"waiting does not help: ns1.example.net (192.0.2.201:53) of the zone's own servers serves something else",
		},
		{
			"one address in two regions, and no sign whether it is one cache",
			dnsWorld("A", young).in("ap", answers(1, "A", young)).in("eu", answers(1, "A", young)),
			[]string{"198.51.100.1:53 counts once for each region, and nothing shows whether those are different caches"},
			"",
		},
		{
			"a private address is another resolver in each region",
			dnsWorld("A", young).in("ap", at("10.0.0.53:53", answers(1, "A", young))).in("eu", at("10.0.0.53:53", answers(1, "A", young))),
			[]string{"www.example is 192.0.2.1: 2 of 2 perspectives (100 %)."},
			"",
		},
		{
			"the parent still lists a server that the zone has no more",
			dnsWorld("A", young).in("ap", answers(1, "A", young), listedAt(true, true, own(1, "A", young)), listedAt(true, false, own(2, "A", young))),
			[]string{"the parent alone lists ns2.example.net among its NS records"},
			"",
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			f := numbers(t, timed(c.world))
			for _, want := range c.summary {
				if !strings.Contains(f.GetSummary(), want) {
					t.Errorf("no %q in %q", want, f.GetSummary())
				}
			}
			if c.hint == "" != (f.GetHint() == "") || !strings.Contains(f.GetHint(), c.hint) {
				t.Errorf("hint %q, want %q", f.GetHint(), c.hint)
			}
		})
	}
}

// listedAt says where the server is listed.
func listedAt(parent, child bool, steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Authority.InParent, steps[0].Evidence.Authority.InChild = parent, child
	return steps
}

// A public resolver's name is what people call it.
func TestPublicName(t *testing.T) {
	w := dnsWorld("A", "192.0.2.1").in("ap", asPublic(answers(9, "A", "192.0.2.1")))
	w.m.PublicResolvers = []*pb.PublicResolver{{Name: "Example DNS", Addresses: []string{"198.51.100.9"}}}
	got := numbers(t, w).GetPropagation().GetPerspectives()[0]
	want := &pb.Perspective{
		Region: "ap", Server: "198.51.100.9:53", Name: "Example DNS", Agents: []string{"ap"}, Serving: true, Judged: true, Values: []string{"192.0.2.1"},
		Failure: none, Public: true,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A verdict is one message of gRPC, of 4 MiB at most, whatever resolvers and zones serve.
func TestPropagationFitsIntoAMessage(t *testing.T) {
	w := dnsWorld("TXT", "wanted")
	for i := range 300 {
		old := answers(i, "TXT", strings.Repeat("é", 5000), strings.Repeat("\xff", 30_000), strings.Repeat("x", 20_000))
		w.in(fmt.Sprintf("r%d/%d", i%4, i), old, own(i%8+1, "TXT", strings.Repeat("\xff", 60_000)))
	}
	wire, err := proto.Marshal(w.judge())
	if err != nil || len(wire) > 2<<20 {
		t.Errorf("the verdict has %d bytes, %v", len(wire), err)
	}
	all := numbers(t, w).GetPropagation().GetPerspectives()
	if len(all) != maxPerspectives || len(all[0].GetValues()) != 1 || !strings.HasSuffix(all[0].GetValues()[0], "x…") {
		t.Errorf("%d perspectives, the first of which serves %q", len(all), all[0].GetValues())
	}
}
