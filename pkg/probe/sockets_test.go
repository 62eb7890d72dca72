package probe

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// pooled returns a world whose resolver answers as a function says, and whose sockets are kept.
func pooled(t *testing.T, answers func(q *dns.Msg) []*dns.Msg) *Env {
	t.Helper()
	server := must[*probetest.Datagrams](t)(probetest.ListenDatagrams(at("127.0.0.1"), func(query []byte) (out [][]byte) {
		var q dns.Msg
		if q.Unpack(query) != nil {
			return nil
		}
		for _, m := range answers(&q) {
			wire, _ := m.Pack()
			out = append(out, wire)
		}
		return out
	}))
	return &Env{
		Resolvers: []netip.AddrPort{server.Addr()}, Controls: []string{}, Hints: []netip.AddrPort{}, Egress: Egress{Allow: loopback},
		Sockets: must[*Sockets](t)(new(Sockets), nil), patience: 10 * time.Second, // What is sent again is answered twice.
	}
}

func TestSocketsAreSharedAndReplaced(t *testing.T) {
	t.Parallel()
	env := pooled(t, func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{replyTo(q)} })
	const n = 2 * socketsPerServer * queriesPerSocket
	steps := make([]*pb.Step, n)
	var wg errgroup.Group
	wg.SetLimit(128) // More at once are lost by a loopback that is busy, and sent again from fresh sockets.
	for i := range n {
		wg.Go(func() error {
			steps[i] = one(t, run(t, env, dnsSpec("www.example", "")), pb.StepKind_STEP_KIND_DNS_QUERY)
			return nil
		})
	}
	_ = wg.Wait()
	used := map[string]int{}
	for _, s := range steps {
		if s.GetFailure() != pb.Failure_FAILURE_NONE || len(s.GetEvidence().GetReplies()) != 1 {
			t.Fatalf("%v", s)
		}
		if s.GetAttempts() == 1 {
			used[s.GetEvidence().GetLocalAddress()]++
		}
	}
	for port, times := range used {
		if times > queriesPerSocket {
			t.Errorf("%s carried %d queries", port, times)
		}
	}
	if len(used) < 2*socketsPerServer || len(used) > n/8 {
		t.Errorf("%d queries from %d sockets", n, len(used))
	}
}

func TestEachQueryHearsItsOwnAnswerOnASharedSocket(t *testing.T) {
	t.Parallel()
	env := pooled(t, func(q *dns.Msg) []*dns.Msg { // Each name has an address of its own.
		var i byte
		_, _ = fmt.Sscanf(q.Question[0].Name, "host%d.example.", &i)
		return []*dns.Msg{replyTo(q, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, i)})}
	})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			s := one(t, run(t, env, dnsSpec(fmt.Sprintf("host%d.example", i), "")), pb.StepKind_STEP_KIND_DNS_QUERY)
			if want := []string{fmt.Sprintf("127.0.0.%d", i)}; !slices.Equal(s.GetEvidence().GetAddresses(), want) {
				t.Errorf("%v, want %v", s.GetEvidence(), want)
			}
		})
	}
	wg.Wait()
}

func TestGuessesOnASharedSocketAreEvidenceForWhoAsked(t *testing.T) {
	t.Parallel()
	env := pooled(t, func(q *dns.Msg) []*dns.Msg {
		forged := replyTo(q)
		if q.Question[0].Name == "target.example." {
			forged.Id++
			return []*dns.Msg{forged, replyTo(q), replyTo(q)}
		}
		return []*dns.Msg{replyTo(q)}
	})
	var wg sync.WaitGroup
	for i := range 64 {
		name, want := "other.example", 1
		if i%2 == 0 {
			name, want = "target.example", 3
		}
		wg.Go(func() {
			s := one(t, run(t, env, dnsSpec(name, "")), pb.StepKind_STEP_KIND_DNS_QUERY)
			// A guess may hit another query about the same name, and is evidence for that one too.
			if n := len(s.GetEvidence().GetReplies()); s.GetFailure() != pb.Failure_FAILURE_NONE || n < want || want == 1 && n != 1 {
				t.Errorf("%s: %s, %d replies, want %d", name, Short(s.GetFailure()), n, want)
			}
		})
	}
	wg.Wait()
}

func TestALateReplyToAQueryThatHasLeftIsNobodysGuess(t *testing.T) {
	t.Parallel()
	record := &record{}
	a := &asker{query: query{name: "www.example", qtype: dns.TypeA}, step: &step{t: &trace{record: record}, pb: &pb.Step{Evidence: &pb.Evidence{}}}}
	s, err := openSocket(t.Context(), netip.MustParseAddrPort("127.0.0.1:53"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.conn.Close() }()
	sends := [2]*datagram{}
	for i := range sends {
		sends[i] = &datagram{asker: a, query: a.message(true)}
		if sends[i].wire, err = sends[i].query.Pack(); err != nil || !s.admit(sends[i]) {
			t.Fatal(err)
		}
	}
	s.leave(sends[0])
	s.heard(zoneAnswer(sends[0].wire), time.Now())
	if replies := a.pb.GetEvidence().GetReplies(); len(replies) != 0 {
		t.Errorf("a reply to a query that has left: %v", replies)
	}
	guess := zoneAnswer(sends[1].wire)
	guess[0]++ // Nobody's ID, and the question of the one who waits.
	guess[1]++
	s.heard(guess, time.Now())
	if replies := a.pb.GetEvidence().GetReplies(); len(replies) != 1 || !replies[0].GetMismatched() {
		t.Errorf("a guess: %v", replies)
	}
}

func TestWhatIsSentAgainComesFromAFreshSocket(t *testing.T) {
	t.Parallel()
	ports := make(chan string, 8)
	server := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{"www.example": {Rcode: dns.RcodeServerFailure}}, true))
	env := &Env{
		Resolvers: []netip.AddrPort{server.Addr()}, Controls: []string{}, Hints: []netip.AddrPort{}, Egress: Egress{Allow: loopback},
		Sockets: must[*Sockets](t)(new(Sockets), nil),
	}
	for range 2 {
		ports <- one(t, run(t, env, dnsSpec("www.example", "")), pb.StepKind_STEP_KIND_DNS_QUERY).GetEvidence().GetLocalAddress()
	}
	env.Sockets.mu.Lock()
	defer env.Sockets.mu.Unlock()
	for range 2 { // The last attempt's: none of those that are kept.
		port := <-ports
		for _, s := range env.Sockets.slots[server.Addr()] {
			if s != nil && s.local == port {
				t.Errorf("sent again from %s, which is kept", port)
			}
		}
	}
}

func TestAClosedPortIsToldToAllWhoShareASocket(t *testing.T) {
	t.Parallel()
	addr, err := closed(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{
		Resolvers: []netip.AddrPort{addr}, Controls: []string{}, Hints: []netip.AddrPort{}, Egress: Egress{Allow: loopback},
		Sockets: must[*Sockets](t)(new(Sockets), nil),
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			s := one(t, run(t, env, dnsSpec("www.example", "")), pb.StepKind_STEP_KIND_DNS_QUERY)
			if s.GetFailure() != pb.Failure_FAILURE_DNS_UNREACHABLE || s.GetEvidence().GetErrno() != "ECONNREFUSED" {
				t.Errorf("%v", s)
			}
		})
	}
	wg.Wait()
}
