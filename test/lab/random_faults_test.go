package lab

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// scenario makes the case one: its hosts, its rules, its proofs and its question.
func (d *drawn) scenario() scenario {
	s := scenario{name: d.name(), resolverFaults: d.answers, ask: d.ask()}
	for i, h := range d.hosts {
		one := host{addr: h.addr, service: closed}
		if h.does != isClosed {
			one = own(h.addr.String(), d.serving(i))
		}
		if h.stray {
			one = one.called("-")
		}
		s.hosts = append(s.hosts, one)
		if p := d.hostProof(i); p.from != "" {
			s.proofs = append(s.proofs, p)
		}
	}
	for _, f := range d.answers {
		s.proofs = append(s.proofs, d.answerProof(f))
	}
	for i, t := range d.troubles {
		for _, w := range d.ways(i) {
			s.faults = append(s.faults, d.rules(t, w)...)
			s.proofs = append(s.proofs, d.troubleProof(t, w))
		}
		if t.how == sniReset || t.how == sniDrop {
			s.hosts = append(s.hosts, own(d.box(t).String(), d.boxing(t)).called("-"))
		}
	}
	s.proofs = slices.DeleteFunc(s.proofs, func(p proof) bool { return p.tool == "" })
	return s
}

// issuerName is where certificates say that the one that is missing is.
const issuerName = "issuers"

// issuing is what serves it.
func issuing() scenario {
	return scenario{name: issuerName, hosts: []host{own("198.18.0.1", issuers)}}
}

// box is the address of the middlebox before a target.
func (d *drawn) box(t trouble) netip.Addr { return d.address(5+t.to[0], d.hosts[t.to[0]].addr.Is6()) }

func (d *drawn) boxing(t trouble) listener {
	do := probetest.Abort
	if t.how == sniDrop {
		do = probetest.Accept
	}
	return middlebox(d.hosts[t.to[0]].addr.String(), d.name()+"."+zone, do)
}

// rules are those of one trouble for one family.
func (d *drawn) rules(t trouble, w way) []fault {
	six := d.hosts[w.to].addr.Is6()
	ip := "ip"
	if six {
		ip = "ip6"
	}
	var from, to []string
	for _, a := range fleet() {
		switch {
		case slices.Contains(t.from, a.id) && six:
			from = append(from, a.net6+"::/64")
		case slices.Contains(t.from, a.id):
			from = append(from, a.net+".0/24")
		}
	}
	for _, i := range t.to {
		if d.hosts[i].addr.Is6() == six {
			to = append(to, d.hosts[i].addr.String())
		}
	}
	agents, targets := "{ "+strings.Join(from, ", ")+" }", "{ "+strings.Join(to, ", ")+" }"
	up := fmt.Sprintf("%[1]s saddr %[2]s %[1]s daddr %[3]s ", ip, agents, targets)
	down := fmt.Sprintf("%[1]s saddr %[3]s %[1]s daddr %[2]s ", ip, agents, targets)
	switch t.how {
	case dropped:
		return []fault{{"router", up + "counter drop"}}
	case refused:
		return []fault{{"router", up + "meta l4proto tcp counter reject with tcp reset"}}
	case prohibited:
		return []fault{{"router", up + "counter reject with icmpx type admin-prohibited"}}
	case noPort:
		return []fault{{"router", up + "counter reject with icmpx type port-unreachable"}}
	case resetLater:
		return []fault{{"router", up + "tcp flags & (syn|ack|rst) == ack counter reject with tcp reset"}}
	case bigUp:
		return []fault{{"router", up + "meta length > 1300 counter drop"}}
	case bigDown:
		return []fault{{"router", down + "meta length > 1300 counter drop"}}
	case sniReset, sniDrop:
		return []fault{{"middlebox", up + "counter dnat " + ip + " to " + d.box(t).String()}}
	}
	return nil // those of loss are counted apart, and the server itself denies
}

// lossRules drop one packet of twenty in each direction.
func (d *drawn) lossRules() scenario {
	s := scenario{name: d.name() + "-loss"}
	for i, t := range d.troubles {
		if t.how != lossy {
			continue
		}
		for _, w := range d.ways(i) {
			r := d.rules(trouble{how: dropped, from: t.from, to: t.to}, w)[0].rule
			way := strings.TrimSuffix(r, "counter drop")
			back := strings.NewReplacer("saddr", "daddr", "daddr", "saddr").Replace(way)
			for _, both := range []string{way, back} {
				s.faults = append(s.faults, fault{"router", both + "counter"}, fault{"router", both + "numgen random mod 20 == 0 counter drop"})
			}
		}
	}
	return s
}

// socket is a host's address and port, for a proof.
func (d *drawn) socket(i int) string { return netip.AddrPortFrom(d.hosts[i].addr, 443).String() }

// url asks the host with this index for the page.
func (d *drawn) url(i int) string {
	addr := d.hosts[i].addr.String()
	if d.hosts[i].addr.Is6() {
		addr = "[" + addr + "]"
	}
	return "https://NAME/ " + addr
}

// hostProof shows what a host does, from where nothing else is in the way.
func (d *drawn) hostProof(i int) proof {
	w := d.prover(func(o obstacle) bool { return o.why == d.hosts[i].does }, []int{i})
	if w == nil {
		return proof{}
	}
	p := proof{from: w.agent.id, tool: "openssl", at: d.socket(i)}
	switch d.hosts[i].does {
	case isClosed:
		p.tool, p.sees = "connect", "refused"
	case isHung:
		p.sees = "silent"
	case isExpired:
		p.sees = "certificate has expired"
	case isSelfMade:
		p.sees = "self-signed certificate"
	case isOther:
		p.sees = "hostname mismatch"
	case isCut:
		p.sees = "unable to verify the first certificate"
	case isBroken:
		p.tool, p.at, p.sees = "curl", d.url(i), "502"
	case isHungPage:
		p.tool, p.at, p.sees = "curl", d.url(i), "silent"
	}
	return p
}

// answerProof shows what a resolver says.
func (d *drawn) answerProof(f resolverFault) proof {
	for _, a := range fleet() {
		if a.region != f.region || d.odd.has(deaf, a.id) {
			continue
		}
		sees := f.answer
		if sees != "NXDOMAIN" && sees != "SERVFAIL" {
			sees = "NOERROR " + sees
		}
		return proof{a.id, "dig", d.name() + "." + zone + " " + kindOf(d.hosts[0].addr), sees}
	}
	return proof{}
}

// troubleProof shows a trouble on a way where it is what is met first.
func (d *drawn) troubleProof(t trouble, w way) proof {
	p := proof{from: w.agent.id, tool: "connect", at: d.socket(w.to)}
	switch t.how {
	case dropped:
		p.sees = "silent"
	case refused:
		p.sees = "refused"
	case prohibited, noPort:
		p.sees = "icmp " + icmpOf(t.how, d.hosts[w.to].addr.Is6()) + " from " + w.agent.gateway(d.hosts[w.to].addr.Is6())
	case resetLater:
		p.sees = "reset after connect"
	case sniReset:
		p.tool, p.sees = "openssl", "reset"
	case sniDrop, bigDown:
		p.tool, p.sees = "openssl", "silent"
	case bigUp:
		p.tool, p.at, p.sees = "send", p.at+" 1400", "silent"
	case denies:
		p.tool, p.at, p.sees = "curl", d.url(w.to), "403"
	case lossy:
		return proof{} // it is counted at the end
	}
	return p
}

// icmpOf is the type and code of a rejection (RFC 792; RFC 4443).
func icmpOf(how string, six bool) string {
	return map[string][2]string{prohibited: {"3/13", "1/1"}, noPort: {"3/3", "1/4"}}[how][map[bool]int{true: 1}[six]]
}

// gateway is the router's address on the agent's network.
func (v *vantage) gateway(six bool) string {
	if six {
		return v.net6 + "::1"
	}
	return v.net + ".1"
}

// serving is what a host does that listens.
func (d *drawn) serving(i int) listener {
	does := d.hosts[i].does
	if does == isHung {
		return one(443, func(_ *world, at netip.AddrPort) (*probetest.Host, error) {
			return probetest.Listen(at, probetest.Accept)
		})
	}
	return one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		cert, err := w.wardrobe.wear(w, does)
		if err != nil {
			return nil, err
		}
		return probetest.ListenHTTP(at, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, d.page(w, i))
	})
}

// page is what a host answers, to those that it serves.
func (d *drawn) page(w *world, i int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch does := d.hosts[i].does; {
		case does == isHungPage:
			<-r.Context().Done()
		case slices.ContainsFunc(w.agents, func(a *vantage) bool { return a.owns(r.RemoteAddr) && d.troubled(denies, a, i) >= 0 }):
			rw.WriteHeader(http.StatusForbidden)
		case does == isBroken:
			rw.WriteHeader(http.StatusBadGateway)
		default:
			greet(rw, r, "")
		}
	})
}

// owns says whether an address is the agent's.
func (v *vantage) owns(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && (strings.HasPrefix(ap.Addr().String(), v.net+".") || strings.HasPrefix(ap.Addr().String(), v.net6+":"))
}

// wardrobe has one certificate of each kind, which all hosts of the kind share: what differs between
// addresses is worth a warning of its own. All of them are large, but for the plain one.
type wardrobe struct {
	mu    sync.Mutex
	certs map[string]tls.Certificate
}

// wear is the certificate of a host that does that.
func (c *wardrobe) wear(w *world, does string) (tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains([]string{isExpired, isSelfMade, isOther, isCut, isPlain}, does) {
		does = isFine
	}
	if cert, ok := c.certs[does]; ok {
		return cert, nil
	}
	cert, err := w.tailor(does)
	if c.certs == nil {
		c.certs = map[string]tls.Certificate{}
	}
	c.certs[does] = cert
	return cert, err
}

// tailor makes a certificate.
func (w *world) tailor(does string) (tls.Certificate, error) {
	names, end := append([]string{"*." + zone}, manyNames()...), time.Now().AddDate(0, 2, 0)
	switch does {
	case isPlain:
		names = names[:1]
	case isExpired:
		end = time.Now().AddDate(0, 0, -1)
	case isOther:
		names[0] = "other.example"
	case isSelfMade, isCut:
		return w.issuer.Issue(probetest.Leaf{
			Names: names, NotBefore: time.Now().AddDate(0, -1, 0), NotAfter: end,
			SelfSigned: does == isSelfMade, Serve: probetest.LeafOnly, AIA: "http://" + issuerName + "." + zone + "/inter.crt",
		})
	}
	return w.authority.issue(end, names...)
}
