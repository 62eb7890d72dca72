package threats

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// queriesOfAJob is how many queries one job sends, at most, to a server that answers: a second look, a control.
const queriesOfAJob = 8

// resolver is a DNS server in the world that counts what it is asked. It answers everything with answer.
type resolver struct {
	mu     sync.Mutex
	asked  map[string]int // By transport and type.
	answer func(q dns.Question, n int) []dns.RR
}

// resolve starts one on an address of a namespace.
func resolve(t *testing.T, namespace, addr string, answer func(dns.Question, int) []dns.RR) *resolver {
	t.Helper()
	r := &resolver{asked: map[string]int{}, answer: answer}
	var packets net.PacketConn
	space.Visit(t, namespace, func() (err error) {
		packets, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
		return err
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: r.over("udp")}, {Listener: space.Listen(t, namespace, addr), Handler: r.over("tcp")}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }() // it ends when its socket is closed
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return r
}

func (r *resolver) over(transport string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		r.mu.Lock()
		key := transport + " " + dns.Type(q.Question[0].Qtype).String()
		r.asked[key]++
		r.asked[transport]++
		n := r.asked[transport]
		r.mu.Unlock()
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		m.Answer = r.answer(q.Question[0], n)
		_ = w.WriteMsg(m) // whoever asked is gone
	}
}

// count is how often something was asked: "udp", "tcp ANY".
func (r *resolver) count(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[key]
}

// rr makes a record.
func rr(t *testing.T, text string, args ...any) dns.RR {
	t.Helper()
	record, err := dns.NewRR(fmt.Sprintf(text, args...))
	if err != nil {
		t.Error(err)
	}
	return record
}

// TestT6QueriesPerResolver: who asks for ten thousand lookups a second at a resolver that he names gets no more of them
// than the operator allows, none of them for ANY over UDP, and none at all where only the agent's own are to be asked.
func TestT6QueriesPerResolver(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld())
	for i, c := range []struct{ sentence, policy string }{
		{"any server may be asked", ""},
		{"the agent's own alone", "dns: {servers: own}\n"},
		{"any, and not for ANY", "dns: {deny_types: [ANY]}\n"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			victim := fmt.Sprintf("198.51.100.1%d:53", i)
			r := resolve(t, "world", victim, func(q dns.Question, _ int) []dns.RR {
				return []dns.RR{rr(t, "%s 60 IN A 198.51.100.10", q.Name)}
			})
			policy := write(t, "policy.yaml", fmt.Sprintf("version: 1\ntargets: {allow: [\"198.51.100.0/24\"]}\nlimits: {target: {burst: %d, per_second: %d}}\n%s", burst, perSecond, c.policy))
			w := &world{t: t, home: "world", grpc: fmt.Sprintf("%s:77%02d", coordinatorAddr, i), nats: fmt.Sprintf("%s:42%02d", coordinatorAddr, i)}
			began := time.Now()
			honest := w.coordinate()
			w.agent("a", "--policy", policy, "--resolver", "203.0.113.1", "--root-server", "203.0.113.1", "--control", "203.0.113.1:9")
			w.online(1)
			honest.stop(t) // and somebody else comes with its authority
			did := (lane{}).attack(t, w, "queries", netip.MustParseAddrPort(victim).Addr().String())
			if did.Jobs < 5000 {
				t.Fatalf("the attack did not happen: %+v", did)
			}
			allowed := burst + int(time.Since(began).Seconds()*perSecond) + 1
			total, anyTCP := r.count("udp")+r.count("tcp"), r.count("tcp ANY")
			t.Logf("%d queries of %d jobs that are allowed, of %d; for ANY over TCP: %d; refused: %v", total, allowed, did.Jobs, anyTCP, did.Refusals)
			if total > queriesOfAJob*allowed {
				t.Errorf("%d queries of %d jobs", total, allowed)
			}
			if n := r.count("udp ANY"); n > 0 {
				t.Errorf("%d questions for ANY over UDP", n)
			}
			switch i {
			case 0:
				if total == 0 || anyTCP == 0 {
					t.Error("nothing was asked: the server cannot count")
				}
			case 1:
				if total > 0 || did.Refusals["the agent's policy allows no DNS servers but its own"] == 0 {
					t.Errorf("%d queries: %v", total, did.Refusals)
				}
			case 2:
				if total == 0 || anyTCP > 0 || did.Refusals["the agent's policy does not allow questions for ANY"] == 0 {
					t.Errorf("%d queries, %d for ANY: %v", total, anyTCP, did.Refusals)
				}
			}
		})
	}
}
