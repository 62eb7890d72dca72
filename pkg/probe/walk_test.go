package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The tree of these tests: a root, a top-level domain "tld", a zone of two servers, and a zone below it.
const (
	rootServer = "127.1.0.1"
	tldServer  = "127.1.0.2"
	firstNS    = "127.1.0.3"
	secondNS   = "127.1.0.4"
	subServer  = "127.1.0.5"
)

// tree returns servers that are all well. Tests change what they are about.
func tree() map[string]probetest.Nameserver {
	zone := map[string][]string{"zone.tld": {
		"zone.tld. 300 IN SOA ns1.zone.tld. root.zone.tld. 7 600 600 600 60",
		"zone.tld. 300 IN NS ns1.zone.tld.", "zone.tld. 300 IN NS ns2.zone.tld.",
		"ns1.zone.tld. 300 IN A " + firstNS, "ns2.zone.tld. 300 IN A " + secondNS,
		"www.zone.tld. 60 IN A 127.0.0.2",
		"sub.zone.tld. 300 IN NS ns.sub.zone.tld.", "ns.sub.zone.tld. 300 IN A " + subServer,
	}}
	return map[string]probetest.Nameserver{
		rootServer: {Zones: map[string][]string{".": {
			". 300 IN SOA a.root. root. 1 600 600 600 60",
			"tld. 172800 IN NS ns.tld.", "ns.tld. 172800 IN A " + tldServer,
			"tld. 86400 IN DS 1 8 2 " + strings.Repeat("ab", 32),
		}}},
		tldServer: {Zones: map[string][]string{"tld": {
			"tld. 300 IN SOA ns.tld. root.tld. 2 600 600 600 60", "tld. 300 IN NS ns.tld.", "ns.tld. 300 IN A " + tldServer,
			"zone.tld. 3600 IN NS ns1.zone.tld.", "zone.tld. 3600 IN NS ns2.zone.tld.",
			"ns1.zone.tld. 3600 IN A " + firstNS, "ns2.zone.tld. 3600 IN A " + secondNS,
		}}},
		firstNS:  {Zones: zone},
		secondNS: {Zones: zone},
		subServer: {Zones: map[string][]string{"sub.zone.tld": {
			"sub.zone.tld. 300 IN SOA ns.sub.zone.tld. root.zone.tld. 9 600 600 600 60",
			"sub.zone.tld. 300 IN NS ns.sub.zone.tld.", "ns.sub.zone.tld. 300 IN A " + subServer,
			"deep.sub.zone.tld. 60 IN A 127.0.0.3",
		}}},
	}
}

// change changes a zone's records at one server: lines with the prefix go, more come.
func change(servers map[string]probetest.Nameserver, ip, zone, without string, more ...string) map[string]probetest.Nameserver {
	kept := slices.DeleteFunc(slices.Clone(servers[ip].Zones[zone]), func(s string) bool {
		return without != "" && strings.HasPrefix(s, without)
	})
	servers[ip] = probetest.Nameserver{Zones: map[string][]string{zone: append(kept, more...)}, Lame: servers[ip].Lame}
	return servers
}

// lame makes a server lame.
func lame(servers map[string]probetest.Nameserver, ip string, how probetest.Lameness) map[string]probetest.Nameserver {
	servers[ip] = probetest.Nameserver{Zones: servers[ip].Zones, Lame: how}
	return servers
}

// grow starts a tree, and returns a world whose root it has. The agent's resolver knows what it is told.
func grow(t testing.TB, servers map[string]probetest.Nameserver, resolver probetest.Zone) (*probetest.Tree, *Env) {
	t.Helper()
	tree := must[*probetest.Tree](t)(probetest.ServeTree(servers))
	env := newEnv(t, resolver)
	env.Hints = []netip.AddrPort{tree.At(rootServer)}
	env.patience = 3 * time.Second
	return tree, env
}

// www is what a resolver knows that is well.
func www() probetest.Zone {
	return probetest.Zone{"www.zone.tld": {Records: []string{"www.zone.tld. 60 IN A 127.0.0.2"}}}
}

// told says what steps of a role asked whom, and how it ended, sorted: "A www.zone.tld 127.1.0.3 none".
func told(r *pb.Result, role pb.Role) []string {
	var out []string
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, role) {
		ip, _, _ := strings.Cut(s.GetAddress(), ":")
		out = append(out, fmt.Sprintf("%s %s %s %s", s.GetType(), s.GetName(), ip, Short(s.GetFailure())))
	}
	slices.Sort(out)
	return out
}

func authoritative(name, qtype string) *pb.Spec {
	spec := dnsSpec(name, qtype)
	spec.GetDns().Authoritative = true
	return spec
}

func TestTheWalk(t *testing.T) {
	t.Parallel()
	type walk struct {
		name                string
		servers             map[string]probetest.Nameserver
		spec                *pb.Spec
		referral, authority []string
	}
	down := []string{"A www.zone.tld 127.1.0.1 none", "A www.zone.tld 127.1.0.2 none"}
	own := []string{
		"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 none", "NS zone.tld 127.1.0.X none",
		"SOA zone.tld 127.1.0.3 none", "SOA zone.tld 127.1.0.4 none",
	}
	all(t, func(w walk) string { return w.name }, []walk{
		{"two servers of the zone are asked, found from the root", tree(), dnsSpec("www.zone.tld", "A"), down, own},
		{"a check of a port asks them for its addresses alone", tree(), tcpSpec("www.zone.tld", 1), down, []string{
			"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 none",
			"AAAA www.zone.tld 127.1.0.3 dns_nodata", "AAAA www.zone.tld 127.1.0.4 dns_nodata",
		}},
		{
			"a zone below is walked into", tree(), dnsSpec("deep.sub.zone.tld", "A"),
			[]string{"A deep.sub.zone.tld 127.1.0.1 none", "A deep.sub.zone.tld 127.1.0.2 none", "A deep.sub.zone.tld 127.1.0.X none"},
			[]string{"A deep.sub.zone.tld 127.1.0.5 none", "NS sub.zone.tld 127.1.0.5 none", "SOA sub.zone.tld 127.1.0.5 none"},
		},
		{
			"a top-level domain that does not exist is the root's word", tree(), dnsSpec("www.nowhere", "A"),
			[]string{},
			[]string{"A www.nowhere 127.1.0.1 dns_nxdomain"},
		},
		{
			"a server that refuses is lame", lame(tree(), secondNS, probetest.LameRefused), dnsSpec("www.zone.tld", "A"), down,
			[]string{"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 dns_lame", "NS zone.tld 127.1.0.3 none", "SOA zone.tld 127.1.0.3 none", "SOA zone.tld 127.1.0.4 dns_lame"},
		},
		{
			"a server that fails is lame", lame(lame(tree(), secondNS, probetest.LameServfail), firstNS, probetest.LameEmpty), tcp4("www.zone.tld"), down,
			[]string{"A www.zone.tld 127.1.0.3 dns_lame", "A www.zone.tld 127.1.0.4 dns_lame"},
		},
		{
			"a server that refers upward or to itself is lame", lame(lame(tree(), secondNS, probetest.LameUpward), firstNS, probetest.LameForever), tcp4("www.zone.tld"), down,
			[]string{"A www.zone.tld 127.1.0.3 dns_lame", "A www.zone.tld 127.1.0.4 dns_lame"},
		},
		{
			"a server that answers from a cache is lame, a silent one is silent", lame(lame(tree(), secondNS, probetest.LameCached), firstNS, probetest.LameSilent), tcp4("www.zone.tld"), down,
			[]string{"A www.zone.tld 127.1.0.3 dns_timeout", "A www.zone.tld 127.1.0.4 dns_lame"},
		},
		{
			"a zone below whose only server does not serve it", lame(tree(), subServer, probetest.LameRefused), tcp4("deep.sub.zone.tld"),
			[]string{"A deep.sub.zone.tld 127.1.0.1 none", "A deep.sub.zone.tld 127.1.0.2 none", "A deep.sub.zone.tld 127.1.0.X none"},
			[]string{"A deep.sub.zone.tld 127.1.0.5 dns_lame"},
		},
		{
			"a server without glue is found by its name", change(change(tree(), tldServer, "tld", "ns1.zone", "other.tld. 60 IN NS ns1.zone.tld."), tldServer, "tld", "nothing"),
			tcp4("www.other.tld"),
			[]string{"A ns1.zone.tld 127.1.0.2 none", "A ns1.zone.tld 127.1.0.4 none", "A www.other.tld 127.1.0.1 none", "A www.other.tld 127.1.0.2 none"},
			[]string{"A www.other.tld 127.1.0.3 dns_lame"},
		},
	}, func(t *testing.T, w walk) func(*testing.T) {
		_, env := grow(t, w.servers, www())
		env.Controls = []string{}
		r := run(t, env, w.spec)
		return func(t *testing.T) {
			if diff := cmp.Diff(w.referral, either(told(r, pb.Role_ROLE_REFERRAL), w.referral)); diff != "" {
				t.Errorf("referrals: %s", diff)
			}
			if diff := cmp.Diff(w.authority, either(told(r, pb.Role_ROLE_AUTHORITY), w.authority)); diff != "" {
				t.Errorf("authority: %s", diff)
			}
		}
	})
}

// TestDSIsTheParentsToSay: whose servers are asked for a DS RRset are those of the zone above (RFC 4035, 3.1.4.1),
// also where the zone's own are known from before.
func TestDSIsTheParentsToSay(t *testing.T) {
	t.Parallel()
	type ds struct {
		name, zone string
		all        bool
		want       []string
	}
	signed := change(tree(), tldServer, "tld", "nothing", "zone.tld. 60 IN DS 1 8 2 "+strings.Repeat("cd", 32))
	ofZone := []string{"DS zone.tld 127.1.0.2 none", "NS tld 127.1.0.2 none", "SOA tld 127.1.0.2 none"}
	all(t, func(d ds) string { return d.name }, []ds{
		{"a zone's", "zone.tld", false, ofZone},
		{"a zone's, of all servers", "zone.tld", true, ofZone},
		{"a top-level domain's is the root's", "tld", true, []string{"DS tld 127.1.0.1 none", "SOA . 127.1.0.1 none"}},
		{"there is none for a name that is no zone", "www.zone.tld", true, []string{
			"DS www.zone.tld 127.1.0.3 dns_nodata", "DS www.zone.tld 127.1.0.4 dns_nodata", "NS zone.tld 127.1.0.X none",
		}},
	}, func(t *testing.T, d ds) func(*testing.T) {
		_, env := grow(t, signed, www())
		env.Controls, env.Delegations = []string{}, &Delegations{}
		run(t, env, dnsSpec("www.zone.tld", "A"))
		spec := dnsSpec(d.zone, "DS")
		spec.GetDns().Authoritative = d.all
		r := run(t, env, spec)
		return func(t *testing.T) {
			if diff := cmp.Diff(d.want, either(told(r, pb.Role_ROLE_AUTHORITY), d.want)); diff != "" {
				t.Error(diff)
			}
			for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
				if s.GetType() == "DS" && s.GetEvidence().GetAuthority().SoaSerial == nil {
					t.Errorf("without the serial of the zone that says it: %v", s)
				}
			}
		}
	})
}

// either writes 127.1.0.X for one of the zone's two servers where it does not matter which one.
func either(got, want []string) []string {
	out := []string{}
	for _, line := range got {
		if !slices.Contains(want, line) {
			line = strings.NewReplacer(firstNS+" ", "127.1.0.X ", secondNS+" ", "127.1.0.X ").Replace(line)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func tcp4(name string) *pb.Spec {
	spec := tcpSpec(name, 1)
	spec.Family = pb.Family_FAMILY_IPV4
	return spec
}
