package aggregate

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What people read is a contract too: one sentence with the values that were seen.
func TestSentences(t *testing.T) {
	drop := tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).
		in("eu", open(ip1)).in("us", open(ip1))
	drop.m.Asks[0].Vantage.ObservedAddress = "198.51.100.7"
	drop.results[3].Steps[0].Evidence.Rtt = durationpb.New(88 * time.Millisecond)

	rejected := tcpWorld().in("ap", blocked(ip1, prohibited)).in("eu", open(ip1))
	rejected.results[0].Steps[0].Evidence.Icmp = &pb.ICMP{Type: 3, Code: 13, Sender: "192.0.2.254"}

	portable := tcpWorld().in("ap", blocked(ip1, refused)).in("eu", open(ip1))
	portable.results[0].Steps[0].Evidence.ErrorQueue = false

	differs := tcpWorld().in("ap/1", open(ip1)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1))
	differs.m.Asks[1].Vantage.Provider = "Example Cloud"

	denied := tcpWorld().in("ap", tcp(ip1, pb.Failure_FAILURE_AGENT_POLICY_DENIED)).
		gone("eu", pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_POLICY_DENIED)
	denied.results[0].Steps[0].Evidence.Text, denied.m.Asks[1].Detail = "10.0.0.1 is special-purpose", "no private ranges"

	deniedTwice := tcpWorld().in("ap", tcp(ip1, pb.Failure_FAILURE_AGENT_POLICY_DENIED), tcp(ip2, pb.Failure_FAILURE_AGENT_POLICY_DENIED))
	for i, text := range []string{"10.0.0.2 is special-purpose", "10.0.0.1 is special-purpose"} {
		deniedTwice.results[0].Steps[i].Evidence.Text = text
	}

	loop := func() []*pb.Step {
		return saying(query(1, pb.Failure_FAILURE_DNS_CNAME_LOOP), func(e *pb.Evidence) {
			e.CnameChain = []*pb.CNAMELink{{Name: "www.example", Target: "one.example"}, {Name: "one.example", Target: "www.example"}}
		})
	}

	for _, c := range []struct {
		sentence      string
		world         *world
		summary, hint string
	}{
		{
			"silence", drop,
			"ap: no answer from 203.0.113.10:443 (2 attempts) while eu and us connect in 20–88 ms; control from ap passed → packets are dropped on the way.",
			"allow the addresses of ap (198.51.100.7) in the firewall in front of 203.0.113.10:443, or check rules by country.",
		},
		{
			"who sent the ICMP error, and that one agent is all there is", rejected,
			"ap: ICMP administratively prohibited for 203.0.113.10:443 (2 attempts, sent by 192.0.2.254, from agent ap only) while eu connects in 20 ms; control from ap passed → something rejects the connection with an ICMP error.",
			"",
		},
		{
			"a RST that may be none", portable,
			"ap: connection refused (RST) by 203.0.113.10:443 (2 attempts, or an ICMP reject, which errno alone does not tell from a RST, from agent ap only) while eu connects in 20 ms; control from ap passed → something rejects the connection with a RST.",
			"",
		},
		{
			"which agent differs, its network, its provider", differs,
			"ap: ap-2 (AS64501, Example Cloud) gets no answer from 203.0.113.10:443, while ap-1 of the same region gets through.",
			"compare the network and provider of ap-2 with those of the other agents of ap.",
		},
		{
			"an expired certificate", tlsWorld().in("ap", tls(ip1, "c0ffee", expired)),
			"ap: 203.0.113.10:443 serves “CN=c0ffee” from “CN=Example CA” (SHA-256 c0ffee), which fails as cert_expired: it ended 2027-02-19 12:00 UTC (from agent ap only).",
			"renew the certificate and load it on every server behind 203.0.113.10:443.",
		},
		{
			"an old answer", dnsWorld("A", "192.0.2.1").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")),
			"expected 192.0.2.1 for www.example; ap (from agent ap only) gets 192.0.2.9 from 198.51.100.1:53.",
			"",
		},
		{
			"who is answered what", dnsWorld("A").in("ap", answers(1, "A", "192.0.2.9")).in("eu", answers(2, "A", "192.0.2.1")).in("us", answers(3, "A", "192.0.2.1")),
			"answers differ: eu and us (198.51.100.2:53 and 198.51.100.3:53) get 192.0.2.1; ap (198.51.100.1:53) gets 192.0.2.9. The evidence does not say why.",
			"",
		},
		{
			"why nothing was judged", tcpWorld().gone("ap", pb.AskState_ASK_STATE_LOST, 0).gone("eu", pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_POLICY_DENIED),
			"nothing was judged: of 2 agents, 1 lost, 1 refused (agent_policy_denied).",
			"",
		},
		{
			"what most of an agent's own steps say, whichever came first",
			expectWorld(wantBlocked).in("ap", tcp(ip1, refused), tcp(ip2, timeout), tcp(v61, timeout)),
			"nothing was judged: of 1 agent, 1 answered with nothing that can be judged (tcp_timeout).",
			"",
		},
		{
			"what the operators do not allow", denied,
			"nothing was judged: of 2 agents, 1 answered with nothing that can be judged (agent_policy_denied), 1 refused (agent_policy_denied).",
			"the agents' operators do not let them go there: “10.0.0.1 is special-purpose” and “no private ranges”; ask agents whose operators do.",
		},
		{
			"what one operator does not allow, of each address", deniedTwice,
			"nothing was judged: of 1 agent, 1 answered with nothing that can be judged (agent_policy_denied).",
			"the agents' operators do not let them go there: “10.0.0.1 is special-purpose” and “10.0.0.2 is special-purpose”; ask agents whose operators do.",
		},
		{
			"which names a loop of CNAMEs is made of", dnsWorld("A").in("ap", loop()).in("eu", loop()),
			"ap and eu: www.example: a CNAME chain that comes back to itself from 198.51.100.1:53 (www.example → one.example → www.example).",
			"take one of the links out, or let it lead out of the circle.",
		},
		{
			"an address of one resolver's own", dnsWorld("A").in("ap", query(1, bogon, "10.0.0.1")).in("eu", answers(2, "A", "192.0.2.1")),
			"ap: www.example: an address that cannot be public from 198.51.100.1:53 (10.0.0.1) (from agent ap only) while the name resolves in eu.",
			"198.51.100.1:53 answers otherwise than the others' resolvers: ask its operator about filters and names of its own; if the address is meant, the agents' operators can allow its range.",
		},
	} {
		f := c.world.judge().GetFindings()[0]
		if f.GetSummary() != c.summary {
			t.Errorf("%s:\n got %s\nwant %s", c.sentence, f.GetSummary(), c.summary)
		}
		if c.hint != "" && f.GetHint() != c.hint {
			t.Errorf("%s:\n got %s\nwant %s", c.sentence, f.GetHint(), c.hint)
		}
	}
}

// What an agent or a target wrote cannot move a cursor, nor make a sentence endless.
func TestHostileTextIsTamed(t *testing.T) {
	evil := "\x1b[2J\u202e" + strings.Repeat("x", 100_000)
	w := dnsWorld("TXT").in("ap", answers(1, "TXT", `"`+evil+`"`)).in("eu", answers(2, "TXT", "fine"))
	w.results[0].Steps[0].Address = evil
	f := w.judge().GetFindings()[0]
	if strings.ContainsAny(f.GetSummary()+f.GetHint(), "\x1b\u202e") || len(f.GetSummary()) > 1000 {
		t.Errorf("summary of %d bytes: %.200q", len(f.GetSummary()), f.GetSummary())
	}
}

// What agents leave out leaves no hole in a sentence.
func TestWhatAgentsLeaveOut(t *testing.T) {
	const address = "203.0.113.10:443"
	alert := func(told *pb.TLSEvidence) *world {
		steps := tls(address, "", pb.Failure_FAILURE_TLS_ALERT)
		steps[len(steps)-1].Evidence.Tls = told
		return tlsWorld().in("ap", steps)
	}
	for what, c := range map[string]struct {
		w    *world
		want string
	}{
		"a response without a status": {httpWorld("https://www.example/").in("ap", append(tls(address, "c"), response(address, 0, httpStatus))), "ap: a response without a status from " + address + " ("},
		"a version without a suite":   {alert(&pb.TLSEvidence{Version: "TLS 1.3"}), "it would speak TLS 1.3,"},
		"an alert without a name":     {alert(&pb.TLSEvidence{Alert: &pb.TLSAlert{Code: 200}}), "alert 200,"},
		"a weak key that is not told": {tlsWorld().in("ap", tls(address, "c", pb.Failure_FAILURE_CERT_WEAK_KEY)), "it has the key (not told)."},
	} {
		if v := c.w.judge(); !strings.Contains(v.GetFindings()[0].GetSummary(), c.want) {
			t.Errorf("%s: %v", what, v)
		}
	}
}

func TestJoinIsBounded(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"a"}, "a"},
		{[]string{"a", "b"}, "a and b"},
		{[]string{"a", "b", "c", "d", "e"}, "a, b, c, d and e"},
		{[]string{"a", "b", "c", "d", "e", "f", "g"}, "a, b, c, d, e and 2 more"},
	} {
		if got := join(c.names); got != c.want {
			t.Errorf("join(%q) = %q, want %q", c.names, got, c.want)
		}
	}
}
