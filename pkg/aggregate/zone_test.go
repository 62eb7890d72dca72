package aggregate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	lame      = pb.Failure_FAILURE_DNS_LAME
	forbidden = pb.Failure_FAILURE_AGENT_POLICY_DENIED
)

// own asks server n of the zone, 192.0.2.(200+n), which answers with data, with a TTL of 60 s and serial 7.
func own(n int, kind string, data ...string) []*pb.Step {
	s := step(pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY, fmt.Sprintf("192.0.2.%d:53", 200+n), none)
	s.Name, s.Type = "www.example", kind
	reply := &pb.DNSReply{Transport: "udp", Rcode: "NOERROR", Authoritative: true}
	for _, d := range data {
		reply.Answers = append(reply.Answers, &pb.Record{Name: "www.example", Ttl: 60, Type: kind, Data: d})
	}
	s.Evidence.Replies = []*pb.DNSReply{reply}
	if kind == "A" || kind == "AAAA" {
		s.Evidence.Addresses = data
	}
	serial := uint32(7)
	s.Evidence.Authority = &pb.AuthorityEvidence{
		Zone: "example.net", Server: fmt.Sprintf("ns%d.example.net", n), InParent: true, SoaSerial: &serial,
	}
	return []*pb.Step{s}
}

// ownFails asks server n of the zone, which does not answer so.
func ownFails(n int, f pb.Failure) []*pb.Step {
	steps := own(n, "A")
	s := steps[0]
	s.Failure, s.Failures = f, []pb.Failure{f}
	rcode := map[pb.Failure]string{nxdomain: "NXDOMAIN", nodata: "NOERROR", lame: "REFUSED"}[f]
	if rcode == "" {
		s.Evidence.Replies = nil
		return steps
	}
	s.Evidence.Replies[0].Rcode, s.Evidence.Replies[0].Authoritative = rcode, f != lame
	if f == lame {
		s.Evidence.Text = "it answers REFUSED for a name in example.net"
	}
	return steps
}

// serial sets the zone's serial at the server.
func serial(n uint32, steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Authority.SoaSerial = &n
	return steps
}

// unserialled takes it out: a check of a host does not ask for it.
func unserialled(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Authority.SoaSerial = nil
	return steps
}

// living sets the TTL of what the first step was answered.
func living(ttl uint32, steps []*pb.Step) []*pb.Step {
	for _, r := range steps[0].Evidence.Replies {
		for _, rr := range r.Answers {
			rr.Ttl = ttl
		}
	}
	return steps
}

// scoped makes the answer one for a part of the network alone.
func scoped(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Replies[0].ClientSubnet = &pb.ClientSubnet{Prefix: "198.51.100.0/24", Scope: 24}
	return steps
}

// referred is a server on the way down that refers on.
func referred() []*pb.Step {
	s := step(pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_REFERRAL, "192.0.2.199:53", none)
	s.Name, s.Type = "www.example", "A"
	s.Evidence.Replies = []*pb.DNSReply{{Transport: "udp", Rcode: "NOERROR"}}
	s.Evidence.Authority = &pb.AuthorityEvidence{Zone: "net", Server: "a.nic.net"}
	return []*pb.Step{s}
}

// everyone asks all of a zone's servers, in every way.
func everyone(w *world) *world {
	w.m.Spec.GetDns().Authoritative = true
	return w
}

// many adds n agents, each alone in its network, in regions ap and eu in turn.
func (w *world) many(n int, steps func() []*pb.Step) *world {
	for i := range n {
		w.in(fmt.Sprintf("%s/%d", [...]string{"ap", "eu"}[i%2], i), steps())
	}
	return w
}

func TestLameDelegation(t *testing.T) {
	a := "192.0.2.1"
	good := func() []*pb.Step { return slices.Concat(answers(1, "A", a), own(1, "A", a)) }
	runCases(t, []verdictCase{
		{
			"one of two servers refuses: which, from where, and the zone has to act",
			dnsWorld("A").in("ap", good(), ownFails(2, lame)).in("eu", good(), ownFails(2, lame)),
			[]string{"fail", "ERROR lame_delegation [ap eu] at 192.0.2.202:53 dns_lame blame=zone high"},
		},
		{
			"one agent's word is the server's own: medium",
			dnsWorld("A").in("ap", good(), ownFails(2, lame)).in("eu", good()),
			[]string{"fail", "ERROR lame_delegation [ap] at 192.0.2.202:53 dns_lame blame=zone medium"},
		},
		{
			"a server that refuses one region altogether and serves the others",
			dnsWorld("A").in("ap", good(), ownFails(2, lame)).in("eu", good(), own(2, "A", a)),
			[]string{"fail", "ERROR lame_delegation [ap] at 192.0.2.202:53 dns_lame blame=zone medium"},
		},
		{
			"a server that refuses one agent and serves its fellow is not lame",
			dnsWorld("A").in("ap/1", good(), ownFails(2, lame)).in("ap/2", good(), own(2, "A", a)),
			[]string{"ok"},
		},
		{
			"what recurses in the place of a server that serves others may be something on the way",
			dnsWorld("A").in("ap", good(), recursing(ownFails(2, lame))).in("eu", good(), own(2, "A", a)),
			[]string{"ok"},
		},
		{
			"an agent that no server answers with authority may be behind something that answers for them all",
			dnsWorld("A").in("ap", answers(1, "A", a), ownFails(1, lame), ownFails(2, lame)).in("eu", good(), own(2, "A", a)),
			[]string{"ok"},
		},
		{
			"silence from one region alone says nothing of the server",
			everyone(dnsWorld("A").in("ap", good(), ownFails(2, dnsSilent)).in("eu", good())),
			[]string{"ok"},
		},
		{
			"silence from two regions, beside servers that answer there, when all are asked in every way",
			everyone(dnsWorld("A").in("ap", good(), ownFails(2, dnsSilent)).in("eu", good(), ownFails(2, dnsSilent))),
			[]string{"fail", "ERROR lame_delegation [ap eu] at 192.0.2.202:53 dns_timeout blame=zone high"},
		},
		{
			"the same as a quick second look is no more than silence: it may miss what resolvers try",
			dnsWorld("A").in("ap", good(), ownFails(2, dnsSilent)).in("eu", good(), ownFails(2, dnsSilent)),
			[]string{"ok"},
		},
		{
			"silence where no server answers the agent at all is the agent's",
			everyone(dnsWorld("A").in("ap", answers(1, "A", a), ownFails(2, dnsSilent)).in("eu", answers(2, "A", a), ownFails(2, dnsSilent))),
			[]string{"ok"},
		},
		{
			"a server silent for two regions and answering a third is not lame",
			everyone(dnsWorld("A").in("ap", good(), ownFails(2, dnsSilent)).in("eu", good(), ownFails(2, dnsSilent)).in("us", own(2, "A", a), good())),
			[]string{"ok"},
		},
		{
			"all servers refuse and the name resolves nowhere: one cause, one ERROR (rule 12)",
			dnsWorld("A").in("ap", unnamed(1, servfail), ownFails(1, lame), ownFails(2, lame)).in("eu", unnamed(2, servfail), ownFails(1, lame), ownFails(2, lame)),
			[]string{"fail", "ERROR lame_delegation [ap eu] at 192.0.2.201:53 192.0.2.202:53 dns_lame blame=zone high"},
		},
		{
			"all servers are silent, while those above them answer: the zone is dead, said once",
			dnsWorld("A").in("ap", unnamed(1, servfail), referred(), ownFails(1, dnsSilent)).in("eu", unnamed(2, servfail), referred(), ownFails(1, dnsSilent)),
			[]string{"fail", "ERROR lame_delegation [ap eu] at 192.0.2.201:53 dns_timeout blame=zone high"},
		},
		{
			"the same where nobody answers but the agents' own resolvers, which named the servers: a firewall may do that",
			dnsWorld("A").in("ap", unnamed(1, servfail), shownBy(1), ownFails(1, dnsSilent)).in("eu", unnamed(2, servfail), shownBy(2), ownFails(1, dnsSilent)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_servfail blame=zone high"},
		},
		{
			"no server of the zone answers agents, and resolvers have the name: they get there",
			dnsWorld("A").in("ap", answers(1, "A", a), referred(), ownFails(1, dnsSilent)).in("eu", answers(2, "A", a), referred(), ownFails(1, dnsSilent)),
			[]string{"ok"},
		},
		{
			"all servers are silent for one region and answer another: the region's trouble, not the zone's",
			dnsWorld("A").in("ap", unnamed(1, servfail), referred(), ownFails(1, dnsSilent)).in("eu", good()),
			[]string{"fail", "ERROR regional_resolution_failure [ap] dns_servfail blame=path medium"},
		},
		{
			"a zone delegated to a private address: worth a warning, and no more: inside it may work",
			dnsWorld("A").in("ap", good(), inward(ownFails(2, forbidden))),
			[]string{"ok", "WARN lame_delegation [ap] at 10.0.0.53:53 agent_policy_denied blame=zone medium"},
		},
		{
			"a private address that no parent lists is a private zone's",
			dnsWorld("A").in("ap", good(), unlisted(inward(ownFails(2, forbidden)))),
			[]string{"ok"},
		},
		{
			"a public address that the operator forbids is nobody's fault",
			dnsWorld("A").in("ap", good(), ownFails(2, forbidden)),
			[]string{"ok"},
		},
		{
			"a server whose name leads to no address",
			dnsWorld("A").in("ap", good(), nameless(ownFails(2, lame))),
			[]string{"fail", "ERROR lame_delegation [ap] dns_lame blame=zone medium"},
		},
		{
			"a server that serves the zone and fails at the name is not lame",
			dnsWorld("A").in("ap", good(), ownFails(2, servfail)).in("eu", good()),
			[]string{"ok"},
		},
	})
	f := dnsWorld("A").in("ap", good(), ownFails(2, lame)).in("eu", good()).judge().GetFindings()[0]
	for _, want := range []string{"example.net", "ns2.example.net (192.0.2.202:53): it answers REFUSED", "ns1.example.net (192.0.2.201:53) serves it"} {
		if !strings.Contains(f.GetSummary(), want) {
			t.Errorf("no %q in %q", want, f.GetSummary())
		}
	}
}

// recursing sets RA in the first reply.
func recursing(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Replies[0].RecursionAvailable = true
	return steps
}

// inward moves the server to a private address.
func inward(steps []*pb.Step) []*pb.Step {
	steps[0].Address, steps[0].Attempts = "10.0.0.53:53", 0
	return steps
}

// unlisted is a server that no parent was seen to list.
func unlisted(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Authority.InParent = false
	return steps
}

// shownBy is resolver n of the agent naming the zone's servers.
func shownBy(n int) []*pb.Step {
	steps := answers(n, "NS", "ns1.example.net")
	steps[0].Role, steps[0].Name = pb.Role_ROLE_REFERRAL, "example.net"
	return steps
}

// nameless takes the server's address away.
func nameless(steps []*pb.Step) []*pb.Step {
	steps[0].Address, steps[0].Evidence.Text = "", "the server's name ns2.example.net leads to no address"
	return steps
}

func TestUnsynced(t *testing.T) {
	old, young := "192.0.2.9", "192.0.2.1"
	resolved := func() []*pb.Step { return answers(1, "A", young) }
	apart := func() []*pb.Step {
		return slices.Concat(resolved(), serial(8, own(1, "A", young)), serial(7, own(2, "A", old)))
	}
	runCases(t, []verdictCase{
		{
			"the data differs as the serials do, and nothing varies: which servers say what",
			dnsWorld("A").many(4, apart),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"a serial that wraps around is newer (RFC 1982)",
			dnsWorld("A").many(4, func() []*pb.Step {
				return slices.Concat(resolved(), serial(3, own(1, "A", young)), serial(4294967290, own(2, "A", old)))
			}),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"one place and one sample: answers that live long are not chosen for each query",
			dnsWorld("A").in("ap", resolved(), living(3600, serial(8, own(1, "A", young))), living(3600, serial(7, own(2, "A", old)))),
			[]string{"fail", "ERROR answers_unsynced [ap] at 192.0.2.201:53 192.0.2.202:53 blame=zone medium"},
		},
		{
			"the same with a short TTL may be servers that choose, whatever their serials",
			dnsWorld("A").in("ap", apart()),
			[]string{"ok"},
		},
		{
			"serials that differ while the answers agree accuse nobody: they may be made up, or under way",
			dnsWorld("A").many(8, func() []*pb.Step {
				return slices.Concat(resolved(), serial(8, own(1, "A", young)), serial(7, own(2, "A", young)))
			}),
			[]string{"ok"},
		},
		{
			"Route 53 by weight: serial 1 everywhere, and now this and now that",
			func() *world {
				w, i := dnsWorld("A"), 0
				return w.many(8, func() []*pb.Step {
					i++
					return slices.Concat(resolved(), serial(1, own(1, "A", []string{young, old}[i%2])), serial(1, own(2, "A", []string{old, young}[i%3%2])))
				})
			}(),
			[]string{"ok"},
		},
		{
			"by weight, and by luck each server says the same three times: not sure enough",
			dnsWorld("A").many(3, func() []*pb.Step {
				return slices.Concat(resolved(), serial(1, own(1, "A", young)), serial(1, own(2, "A", old)))
			}),
			[]string{"ok"},
		},
		{
			"one serial, and each server says its own every time: somebody forgot to raise it",
			dnsWorld("A").many(8, func() []*pb.Step {
				return slices.Concat(resolved(), own(1, "A", young), own(2, "A", old))
			}),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"a check of a host knows no serials: the same by the number of samples",
			tcpWorld().many(8, func() []*pb.Step {
				return slices.Concat(query(1, none, "203.0.113.10"), open(ip1), unserialled(own(1, "A", "203.0.113.10")), unserialled(own(2, "A", "203.0.113.11")))
			}),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"text is not chosen by weight: two samples are enough",
			dnsWorld("TXT").many(2, func() []*pb.Step {
				return slices.Concat(answers(1, "TXT", "v=2"), own(1, "TXT", "v=2"), own(2, "TXT", "v=1"))
			}),
			[]string{"fail", "ERROR answers_unsynced [ap eu] at 192.0.2.201:53 192.0.2.202:53 blame=zone high"},
		},
		{
			"one server has no such name: no server chooses that",
			dnsWorld("A").in("ap", resolved(), own(1, "A", young), ownFails(2, nxdomain)),
			[]string{"fail", "ERROR answers_unsynced [ap] at 192.0.2.201:53 192.0.2.202:53 blame=zone medium"},
		},
		{
			"one says that there is no such name, the other that there is no such record: there is nothing either way",
			dnsWorld("A").many(8, func() []*pb.Step {
				return slices.Concat(unnamed(1, nodata), ownFails(1, nodata), ownFails(2, nxdomain))
			}),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nodata blame=zone medium"},
		},
		{
			"servers that answer for a part of the network (RFC 7871) choose",
			dnsWorld("A").many(8, func() []*pb.Step {
				return slices.Concat(resolved(), scoped(own(1, "A", young)), own(2, "A", old))
			}),
			[]string{"ok"},
		},
		{
			"geography: each server gives each region its own, and nobody asked two that differ",
			dnsWorld("A").in("ap", answers(1, "A", young), own(1, "A", young), own(2, "A", young)).
				in("eu", answers(1, "A", young), own(3, "A", old), own(4, "A", old)),
			[]string{"ok"},
		},
		{
			"order and spelling of the same data",
			dnsWorld("MX").many(4, func() []*pb.Step {
				return slices.Concat(answers(1, "MX", "10 a.example", "20 b.example"), own(1, "MX", "10 a.example", "20 b.example"), own(2, "MX", "20 B.example.", "10 a.example."))
			}),
			[]string{"ok"},
		},
	})
	f := dnsWorld("A").many(4, apart).judge().GetFindings()[0]
	for _, want := range []string{"ns1.example.net (192.0.2.201:53) (serial 8) says 192.0.2.1", "ns2.example.net (192.0.2.202:53) (serial 7) says 192.0.2.9"} {
		if !strings.Contains(f.GetSummary(), want) {
			t.Errorf("no %q in %q", want, f.GetSummary())
		}
	}
	if want := "ns2.example.net (192.0.2.202:53) is behind serial 8"; !strings.Contains(f.GetHint(), want) {
		t.Errorf("no %q in %q", want, f.GetHint())
	}
}

// TestManyZones: agents may name as many zones as fit into their results, and the verdict still fits into a message.
func TestManyZones(t *testing.T) {
	w := dnsWorld("A")
	for i := range 8 {
		var steps []*pb.Step
		for j := range 1500 {
			refusal := ownFails(1, lame)
			refusal[0].Evidence.Authority.Zone = fmt.Sprintf("z%d-%d.example", i, j)
			steps = append(steps, refusal...)
		}
		w.in(fmt.Sprintf("ap/%d", i), steps)
	}
	v := w.judge()
	last := v.GetFindings()[len(v.GetFindings())-1].GetSummary()
	if proto.Size(v) > maxVerdict || !strings.Contains(last, fmt.Sprintf("Of 12000 findings the first %d are told.", len(v.GetFindings()))) {
		t.Errorf("%d findings, %d bytes: %s", len(v.GetFindings()), proto.Size(v), last)
	}
}
