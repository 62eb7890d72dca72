package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestDelegationsAreRemembered(t *testing.T) {
	t.Parallel()
	tree, env := grow(t, tree(), www())
	env.Delegations = &Delegations{}
	run(t, env, dnsSpec("www.zone.tld", "A"))
	rootAsked, tldAsked := len(tree.Asked(rootServer)), len(tree.Asked(tldServer))
	if rootAsked != 1 || tldAsked != 1 {
		t.Errorf("the first Run asked the root %d times and the top-level server %d times", rootAsked, tldAsked)
	}
	r := run(t, env, dnsSpec("other.zone.tld", "A"))
	if len(tree.Asked(rootServer)) != rootAsked || len(tree.Asked(tldServer)) != tldAsked {
		t.Errorf("the second Run asked the root or the top-level server: %v %v", tree.Asked(rootServer), tree.Asked(tldServer))
	}
	own := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY)
	if len(own) == 0 || !own[0].GetEvidence().GetAuthority().GetCached() {
		t.Errorf("the delegation came from what the agent knew: %v", own)
	}
	spec := dnsSpec("www.zone.tld", "A")
	spec.GetDns().Trace = true
	if r := run(t, env, spec); len(tree.Asked(rootServer)) != rootAsked+1 || len(told(r, pb.Role_ROLE_REFERRAL)) != 2 {
		t.Errorf("a trace walks from the root: %v", told(r, pb.Role_ROLE_REFERRAL))
	}
}

func TestADelegationThatLeadsNowhereIsForgotten(t *testing.T) {
	t.Parallel()
	tree, env := grow(t, tree(), www())
	env.Delegations = &Delegations{}
	env.Delegations.remember(delegation{
		zone: "zone.tld", ttl: time.Hour, servers: []nameserver{{name: "old.zone.tld", glue: []netip.Addr{netip.MustParseAddr(subServer)}}},
	}, time.Now())
	r := run(t, env, tcp4("www.zone.tld"))
	if n := len(tree.Asked(rootServer)); n != 1 {
		t.Errorf("the root was asked %d times", n)
	}
	if got := told(r, pb.Role_ROLE_AUTHORITY); len(got) != 2 || !strings.Contains(got[0], firstNS) { // Not the old one.
		t.Errorf("authority: %v", got)
	}
}

func TestARootThatIsSilentIsRemembered(t *testing.T) {
	t.Parallel()
	tree, env := grow(t, lame(tree(), rootServer, probetest.LameSilent), www())
	env.Delegations = &Delegations{}
	began := time.Now()
	r := run(t, env, dnsSpec("www.zone.tld", "A"))
	if took := time.Since(began); took >= walkTimeout {
		t.Errorf("took %v, as long as a walk may", took)
	}
	if got := told(r, pb.Role_ROLE_REFERRAL); len(got) != 4 || got[0] != "A www.zone.tld 127.1.0.1 dns_timeout" {
		t.Errorf("referrals: %v", got)
	}
	asked := len(tree.Asked(rootServer))
	run(t, env, dnsSpec("www.zone.tld", "A"))
	if len(tree.Asked(rootServer)) != asked {
		t.Error("the root was asked again at once")
	}
	if env.Delegations.paused(time.Now().Add(2 * rootPause)) {
		t.Error("the root is never asked again")
	}
}

// TestTheWalkKeepsToThePolicy: a zone may be delegated to anywhere; no packet follows it where the operator
// has not allowed it.
func TestTheWalkKeepsToThePolicy(t *testing.T) {
	t.Parallel()
	const inside = "127.9.9.9"
	servers := change(tree(), tldServer, "tld", "ns2.zone", "ns2.zone.tld. 60 IN A "+inside)
	servers[inside] = probetest.Nameserver{Zones: servers[secondNS].Zones}
	tree, env := grow(t, servers, www())
	env.Egress = Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.1.0.0/16")}}
	r := run(t, env, tcp4("www.zone.tld"))
	if asked := tree.Asked(inside); len(asked) != 0 {
		t.Errorf("it was asked: %v", asked)
	}
	if got := told(r, pb.Role_ROLE_AUTHORITY); !slices.Contains(got, "A www.zone.tld "+inside+" agent_policy_denied") {
		t.Errorf("authority: %v", got)
	}
	// The agent's own resolver may be asked by the agent, and by nobody's delegation.
	resolver := env.Resolvers[0]
	tr := newTrace(env, newJob(tcp4("www.zone.tld"), time.Second))
	if tr.permit(resolver, toQuery) != nil || tr.permit(resolver, toStranger) == nil {
		t.Error("a delegation leads to the agent's own resolver")
	}
}

func TestEveryServerAtEveryAddress(t *testing.T) {
	t.Parallel()
	const third, moved = "127.1.0.6", "127.1.0.7"
	servers := tree()
	zone := servers[firstNS].Zones["zone.tld"]
	// The zone itself says that ns2 has moved, and has a third server that its parent does not know.
	zone = slices.DeleteFunc(slices.Clone(zone), func(s string) bool { return strings.HasPrefix(s, "ns2") })
	zone = append(zone, "ns2.zone.tld. 60 IN A "+moved, "zone.tld. 300 IN NS ns3.zone.tld.", "ns3.zone.tld. 60 IN A "+third)
	servers[firstNS] = probetest.Nameserver{Zones: map[string][]string{"zone.tld": zone}}
	behind := slices.Clone(zone)
	behind[0] = strings.Replace(behind[0], " 7 ", " 6 ", 1)
	for _, ip := range []string{secondNS, third, moved} {
		servers[ip] = probetest.Nameserver{Zones: map[string][]string{"zone.tld": behind}}
	}
	_, env := grow(t, servers, www())
	r := run(t, env, authoritative("www.zone.tld", "A"))
	type view struct {
		Server          string
		Parent, Child   bool
		Glue, Addresses []string
		Serial          uint32
	}
	got := map[string]view{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
		if a := s.GetEvidence().GetAuthority(); s.GetType() == "A" {
			ip := netip.MustParseAddrPort(s.GetAddress()).Addr().String()
			got[ip] = view{a.GetServer(), a.GetInParent(), a.GetInChild(), a.GetGlue(), a.GetAddresses(), a.GetSoaSerial()}
		}
	}
	want := map[string]view{
		firstNS:  {"ns1.zone.tld", true, true, []string{firstNS}, []string{firstNS}, 7},
		secondNS: {"ns2.zone.tld", true, true, []string{secondNS}, []string{moved}, 6},
		moved:    {"ns2.zone.tld", true, true, []string{secondNS}, []string{moved}, 6},
		third:    {"ns3.zone.tld", false, true, nil, []string{third}, 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestMazes: delegations made to keep a walk busy. Each walk ends soon and asks little.
func TestMazes(t *testing.T) {
	t.Parallel()
	type maze struct {
		name    string
		servers map[string]probetest.Nameserver
		host    string
		least   int // Queries.
		most    int
	}
	name, thirty := "d0.tld", change(tree(), tldServer, "tld", "", "d0.tld. 60 IN NS ns.d0.tld.", "ns.d0.tld. 60 IN A 127.1.1.0")
	for i := range 30 { // Each label is a zone of its own.
		next := fmt.Sprintf("d%d.%s", i+1, name)
		thirty[fmt.Sprintf("127.1.1.%d", i)] = probetest.Nameserver{Zones: map[string][]string{name: {
			next + ". 60 IN NS ns." + next + ".", fmt.Sprintf("ns.%s. 60 IN A 127.1.1.%d", next, i+1),
		}}}
		name = next
	}
	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("many.tld. 60 IN NS n%d.many.tld.", i), fmt.Sprintf("n%d.many.tld. 60 IN A 127.8.%d.%d", i, i/250, i%250))
	}
	cycle := change(tree(), tldServer, "tld", "", "a.tld. 60 IN NS ns.b.tld.", "b.tld. 60 IN NS ns.c.tld.", "c.tld. 60 IN NS ns.a.tld.")
	var fan []string // Zones whose servers are known by names in zones whose servers are …
	for i := range 40 {
		for k := range 10 {
			fan = append(fan, fmt.Sprintf("f%d.tld. 60 IN NS ns%d.f%d.tld.", i, k, (i*7+k*3+1)%40))
		}
	}
	all(t, func(m maze) string { return m.name }, []maze{
		{"a name of thirty zones", thirty, "www." + name, walkReferrals, walkReferrals},
		{"five hundred servers", change(tree(), tldServer, "tld", "", many...), "www.many.tld", 4, 2 + walkTries + fewServers},
		{"servers known by each other's names", cycle, "www.a.tld", 5, 5},
		{"a fan of servers known by names", change(tree(), tldServer, "tld", "", fan...), "www.f0.tld", 10, 24},
	}, func(t *testing.T, m maze) func(*testing.T) {
		_, env := grow(t, m.servers, nil)
		env.Controls = []string{}
		began := time.Now()
		r := run(t, env, tcp4(m.host))
		took := time.Since(began)
		return func(t *testing.T) {
			n := len(told(r, pb.Role_ROLE_REFERRAL)) + len(told(r, pb.Role_ROLE_AUTHORITY))
			if n < m.least || n > m.most || took > walkTimeout+slack {
				t.Errorf("%d queries in %v, want %d to %d", n, took, m.least, m.most)
			}
			checkTame(t, r)
		}
	})
}

// TestAContradictedAnswerIsTried: the resolver says one address, the zone's own servers another one.
func TestAContradictedAnswerIsTried(t *testing.T) {
	t.Parallel()
	lie := probetest.Zone{"www.zone.tld": {Records: []string{"www.zone.tld. 60 IN A 127.0.0.77"}}}
	dialled := make(chan string, 16)
	for _, tt := range []struct {
		name     string
		resolver probetest.Zone
		asked    int
		want     []string // the addresses that are tried
	}{{"another address, and one of the zone's own", lie, 1, []string{"127.0.0.2:443", "127.0.0.77:443"}}, {"the same address", www(), 0, nil}} {
		_, env := grow(t, tree(), tt.resolver)
		env.Connect = spy(dialled)
		r := run(t, env, dnsSpec("www.zone.tld", "A"))
		tried := ofVariant(r, pb.Variant_VARIANT_ANSWERED_ADDRESS)
		var addresses []string
		for _, s := range tried {
			addresses = append(addresses, s.GetAddress())
		}
		slices.Sort(addresses)
		if diff := cmp.Diff(tt.want, addresses); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if asked := len(ofVariant(r, pb.Variant_VARIANT_RANDOM_LABEL)); asked != tt.asked {
			t.Errorf("%s: the resolver was asked for %d names that do not exist", tt.name, asked)
		}
		for _, s := range tried {
			if s.GetFailure() != pb.Failure_FAILURE_TCP_REFUSED || r.GetSteps()[s.GetBeside()].GetRole() != pb.Role_ROLE_TARGET {
				t.Errorf("%s: %v", tt.name, s)
			}
		}
	}
}

// TestAChainIsFollowedFromZoneToZone: the last zone's servers are asked for what the name leads to.
func TestAChainIsFollowedFromZoneToZone(t *testing.T) {
	t.Parallel()
	servers := change(tree(), firstNS, "zone.tld", "www", "www.zone.tld. 60 IN CNAME www.shop.tld.")
	servers[secondNS] = servers[firstNS]
	servers = change(servers, tldServer, "tld", "", "shop.tld. 60 IN NS ns.shop.tld.", "ns.shop.tld. 60 IN A "+subServer)
	servers[subServer] = probetest.Nameserver{Zones: map[string][]string{"shop.tld": {"www.shop.tld. 60 IN A 127.0.0.4"}}}
	_, env := grow(t, servers, www())
	got := either(told(run(t, env, tcp4("www.zone.tld")), pb.Role_ROLE_AUTHORITY), nil)
	want := []string{"A www.shop.tld 127.1.0.5 none", "A www.zone.tld 127.1.0.X none", "A www.zone.tld 127.1.0.X none"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestAServerWithoutAnAddress: one of the zone's servers is known by a name that does not exist.
func TestAServerWithoutAnAddress(t *testing.T) {
	t.Parallel()
	_, env := grow(t, change(tree(), tldServer, "tld", "ns2.zone", "zone.tld. 60 IN NS gone.tld."), www())
	r := run(t, env, authoritative("www.zone.tld", "A"))
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
		if a := s.GetEvidence().GetAuthority(); a.GetServer() == "gone.tld" {
			if s.GetFailure() != pb.Failure_FAILURE_DNS_LAME || s.GetAddress() != "" || !strings.Contains(s.GetEvidence().GetText(), "leads to no address") || !a.GetInParent() {
				t.Errorf("%v", s)
			}
			return
		}
	}
	t.Errorf("no word of it: %v", r)
}

func TestWalkable(t *testing.T) {
	t.Parallel()
	public, own, none := &Env{}, &Env{Hints: []netip.AddrPort{at("127.0.0.1")}}, &Env{Hints: []netip.AddrPort{}}
	for _, tt := range []struct {
		name              string
		public, own, none bool
	}{
		{"www.iana.org", true, true, false},
		{"www.example", true, true, false},
		{"db.internal", true, true, false},
		{"printer.local", false, true, false},
		{"notlocal", true, true, false},
		{"www.localhost", false, false, false},
	} {
		if public.walkable(tt.name) != tt.public || own.walkable(tt.name) != tt.own || none.walkable(tt.name) != tt.none {
			t.Errorf("%s", tt.name)
		}
	}
	if hints := public.hints(); len(hints) != 26 || hints[0].Port() != 53 || !hints[25].Addr().Is6() {
		t.Errorf("%d root servers: %v", len(hints), hints)
	}
}

func TestDelegationsAreBounded(t *testing.T) {
	t.Parallel()
	d, now := &Delegations{}, time.Now()
	for i := range 3 * maxDelegations {
		d.remember(delegation{zone: fmt.Sprintf("z%d.tld", i), ttl: time.Minute}, now)
	}
	if len(d.known) != maxDelegations || len(d.order) != maxDelegations {
		t.Errorf("%d remembered, %d in order", len(d.known), len(d.order))
	}
	last := fmt.Sprintf("www.z%d.tld", 3*maxDelegations-1)
	if _, ok := d.closest(last, now); !ok {
		t.Error("the newest is forgotten")
	}
	if _, ok := d.closest(last, now.Add(2*time.Minute)); ok {
		t.Error("it outlives its time")
	}
}

func TestReferral(t *testing.T) {
	t.Parallel()
	ns := "zone.tld. 60 IN NS ns.zone.tld."
	for _, tt := range []struct {
		name         string
		ns, extra    []string
		zone         string
		glue, signed bool
	}{
		{"a referral with glue", []string{ns}, []string{"ns.zone.tld. 60 IN A 192.0.2.1"}, "zone.tld", true, false},
		{"glue from outside the parent does not count", []string{"zone.tld. 60 IN NS ns.other."}, []string{"ns.other. 60 IN A 192.0.2.1"}, "zone.tld", false, false},
		{"nor glue for another name", []string{ns}, []string{"www.zone.tld. 60 IN A 192.0.2.1"}, "zone.tld", false, false},
		{"a DS RRset says that it is signed", []string{ns, "zone.tld. 60 IN DS 1 8 2 abcd"}, nil, "zone.tld", false, true},
		{"one for another zone does not", []string{ns, "tld. 60 IN DS 1 8 2 abcd"}, nil, "zone.tld", false, false},
		{"upward is no referral", []string{". 60 IN NS a.root."}, nil, "", false, false},
		{"nor to the zone itself", []string{"tld. 60 IN NS ns.tld."}, nil, "", false, false},
		{"nor to a zone that does not hold the name", []string{"shop.tld. 60 IN NS ns.shop.tld."}, nil, "", false, false},
		{"nor to one that only looks as if", []string{"one.tld. 60 IN NS ns.tld."}, nil, "", false, false},
	} {
		m := &dns.Msg{}
		for _, text := range tt.ns {
			m.Ns = append(m.Ns, parsed(t, text))
		}
		for _, text := range tt.extra {
			m.Extra = append(m.Extra, parsed(t, text))
		}
		d, ok := referral(m, "www.zone.tld", "tld")
		if ok != (tt.zone != "") || d.zone != tt.zone || d.signed != tt.signed || ok && (len(d.servers[0].glue) > 0) != tt.glue {
			t.Errorf("%s: %+v, %v", tt.name, d, ok)
		}
	}
}

func parsed(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// FuzzReferral: whatever a server refers to, it lies between its zone and the name, with bounded lists.
func FuzzReferral(f *testing.F) {
	for _, texts := range [][]string{
		{"zone.tld. 60 IN NS ns.zone.tld.", "zone.tld. 60 IN DS 1 8 2 abcd", "ns.zone.tld. 60 IN A 192.0.2.1"},
		{". 60 IN NS a.root."},
		{"tld. 60 IN NS ns.tld."},
		{`a\.tld. 60 IN NS ns\000.tld.`},
	} {
		m := &dns.Msg{}
		for _, text := range texts {
			rr := parsed(f, text)
			m.Ns, m.Extra = append(m.Ns, rr), append(m.Extra, rr)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := &dns.Msg{}
		if m.Unpack(wire) != nil {
			return
		}
		for _, parent := range []string{".", "tld", "zone.tld"} {
			d, ok := referral(m, "www.zone.tld", parent)
			_ = lameness(m, parent)
			_ = links(m, "www.zone.tld")
			if !ok {
				continue
			}
			if d.zone == parent || !within(d.zone, parent) || !within("www.zone.tld", d.zone) || len(d.servers) > maxServers || d.ttl > maxDelegationTTL {
				t.Fatalf("from %s: %+v", parent, d)
			}
			for _, s := range d.servers {
				if len(s.glue) > maxServerAddrs || len(s.glue) > 0 && !within(s.name, parent) {
					t.Fatalf("glue: %+v", s)
				}
			}
		}
	})
}
