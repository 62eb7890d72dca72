package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// withResolver runs a program at home with a resolver in /etc/resolv.conf, in a view of its own of the files.
func (w *peerWorld) withResolver(ctx context.Context, args ...string) (string, error) {
	file, err := w.write("resolv.conf", "nameserver "+nameResolver+"\n")
	if err != nil {
		return "", err
	}
	all := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}
	return w.home.Output(ctx, append(all, args...)...)
}

// walkComparisons go down from the root, and to all of a zone's own servers.
func walkComparisons() []comparison {
	var all []comparison
	for _, name := range []string{"www.peers.example", "expired.example", "nowhere.plain.example"} {
		all = append(all, comparison{
			name: "dns-trace-" + name, says: "every referral on the way down, and the answer at its end",
			tool: "dig +trace " + name, peer: digTrace(name), ask: "dns " + name + " +trace", read: walked,
		})
	}
	for _, zone := range []string{"peers.example", "unsynced.example"} {
		all = append(all, comparison{
			name: "dns-authoritative-" + zone, says: "the serial at every address of every server of a zone",
			tool: "dig +nssearch " + zone, peer: nsSearch(zone), ask: "dns " + zone + " SOA --authoritative", read: serials,
		})
	}
	return append(all, comparison{
		name: "dns-quic", says: "over QUIC, and the server's certificate is checked",
		tool: "kdig +quic www.peers.example @" + quicAddr, ask: "dns www.peers.example +quic +tls-hostname=good.peers.example @" + quicAddr,
		peer: askKdig("+tls-ca=ROOT +tls-hostname=good.peers.example +quic www.peers.example @" + quicAddr), read: resolved,
	})
}

// quicAddr is an address of DNS over QUIC, which named does not speak.
const quicAddr = "203.0.113.11"

// serveQUIC answers over QUIC.
func (w *peerWorld) serveQUIC(context.Context) error {
	config := &tls.Config{Certificates: []tls.Certificate{w.site("good").cert}, NextProtos: []string{"doq"}}
	return w.there.Do(func() error {
		h, err := probetest.ListenDNSOverQUIC(netip.MustParseAddrPort(quicAddr+":853"), config, probetest.Reply(func(q *dns.Msg) *dns.Msg {
			reply := new(dns.Msg).SetReply(q)
			reply.Authoritative = true
			if rr, err := dns.NewRR("www.peers.example. 300 IN A 203.0.113.20"); err == nil {
				reply.Answer = []dns.RR{rr}
			}
			return reply.SetEdns0(1232, false)
		}))
		if err == nil {
			w.onClose(func() { _ = h.Close() })
		}
		return err
	})
}

var delegation = regexp.MustCompile(`(?m)^(\S+)\s+(\d+)\s+IN\s+(NS|A|SOA)\s+(.*)$`)

// digTrace has dig walk down. It prints each server's records, and from whom they came.
func digTrace(name string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out, err := w.withResolver(ctx, "dig", "+nocookie", "+trace", "+nodnssec", name)
		if err != nil {
			return nil, err
		}
		var steps []string
		for i, block := range strings.Split(out, "\n\n") {
			records := delegation.FindAllStringSubmatch(block, -1)
			if i == 0 || len(records) == 0 { // The first one is the root's own, from the resolver.
				continue
			}
			var found []string
			for _, r := range records {
				found = append(found, strings.Join(r[1:], " "))
			}
			slices.Sort(found)
			steps = append(steps, found...)
		}
		return facts{"walk": walkFact(steps)}, nil
	}
}

// walkFact keeps NS records of delegations, and what came at the end. The zone's own NS set comes with
// an answer, from some servers.
func walkFact(steps []string) string {
	var kept []string
	for _, s := range steps {
		if !strings.HasPrefix(s, ". ") && !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	slices.Sort(kept)
	return lines(kept)
}

// walked is the same by Elsewhere.
func walked(r *pb.Result) (facts, error) {
	target, err := targetStep(r, pb.StepKind_STEP_KIND_DNS_QUERY)
	if err != nil {
		return nil, err
	}
	var steps []string
	for _, s := range r.GetSteps() {
		if s.GetRole() != pb.Role_ROLE_REFERRAL && s.GetRole() != pb.Role_ROLE_AUTHORITY || s.GetName() != target.GetName() || s.GetType() != target.GetType() {
			continue
		}
		for _, reply := range s.GetEvidence().GetReplies() {
			for _, record := range slices.Concat(reply.GetAnswers(), reply.GetAuthority()) {
				if slices.Contains([]string{"NS", "A", "SOA"}, record.GetType()) {
					owner := strings.TrimSuffix(record.GetName(), ".") + "."
					steps = append(steps, fmt.Sprintf("%s %d %s %s", owner, record.GetTtl(), record.GetType(), record.GetData()))
				}
			}
		}
	}
	return facts{"walk": walkFact(steps)}, nil
}

var soaFrom = regexp.MustCompile(`(?m)^SOA \S+ \S+ (\d+) .* from server (\S+) in \d+ ms\.$`)

// nsSearch has dig ask all of a zone's servers.
func nsSearch(zone string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out, err := w.withResolver(ctx, "dig", "+nocookie", "+nssearch", zone)
		if err != nil {
			return nil, err
		}
		var found []string
		for _, line := range soaFrom.FindAllStringSubmatch(out, -1) {
			found = append(found, line[2]+" "+line[1])
		}
		return serialFact(found)
	}
}

// serialFact says which address has which serial. A server has one, however many names it has.
func serialFact(found []string) (facts, error) {
	if len(found) == 0 {
		return nil, fmt.Errorf("no server said anything")
	}
	slices.Sort(found)
	return facts{"serials": lines(slices.Compact(found))}, nil
}

// serials are those that the zone's own servers told Elsewhere.
func serials(r *pb.Result) (facts, error) {
	var found []string
	for _, s := range r.GetSteps() {
		if a := s.GetEvidence().GetAuthority(); s.GetRole() == pb.Role_ROLE_AUTHORITY && a.SoaSerial != nil {
			at, err := netip.ParseAddrPort(s.GetAddress())
			if err != nil {
				return nil, err
			}
			found = append(found, fmt.Sprintf("%s %d", at.Addr(), a.GetSoaSerial()))
		}
	}
	return serialFact(found)
}
