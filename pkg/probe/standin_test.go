package probe

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// knowing is what a resolver knows that also knows these NS records, and the addresses of the tree's servers.
func knowing(zone string, servers ...string) probetest.Zone {
	known := www()
	maps.Copy(known, probetest.Zone{
		"ns.tld":       {Records: []string{"ns.tld. 300 IN A " + tldServer}},
		"ns1.zone.tld": {Records: []string{"ns1.zone.tld. 300 IN A " + firstNS}},
		"ns2.zone.tld": {Records: []string{"ns2.zone.tld. 300 IN A " + secondNS}},
	})
	var records []string
	for _, server := range servers {
		records = append(records, zone+". 300 IN NS "+server+".")
	}
	known[zone] = probetest.Name{Records: records}
	return known
}

// rootless is a tree whose root nobody gets to.
func rootless() map[string]probetest.Nameserver {
	servers := tree()
	delete(servers, rootServer)
	return servers
}

// TestStandIn: where no root server answers, the agent's resolver knows where to begin.
func TestStandIn(t *testing.T) {
	t.Parallel()
	own := []string{
		"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 none", "NS zone.tld 127.1.0.X none",
		"SOA zone.tld 127.1.0.3 none", "SOA zone.tld 127.1.0.4 none",
	}
	type standIn struct {
		name     string
		servers  map[string]probetest.Nameserver
		resolver probetest.Zone
		want     []string
		parent   bool // The parent showed them.
	}
	all(t, func(tt standIn) string { return tt.name }, []standIn{
		{"from the top-level domain it goes down as ever", rootless(), knowing("tld", "ns.tld"), own, true},
		{"it knows the zone itself alone", rootless(), knowing("zone.tld", "ns1.zone.tld", "ns2.zone.tld"), own, false},
		{"it knows of no servers", rootless(), www(), nil, false},
		{"it knows the names of servers that have no address", rootless(), knowing("zone.tld", "ns8.zone.tld", "ns9.zone.tld"), nil, false},
		{
			"all refuse: they may be kept for the resolver, and nobody is called lame",
			lame(lame(rootless(), firstNS, probetest.LameRefused), secondNS, probetest.LameRefused),
			knowing("zone.tld", "ns1.zone.tld", "ns2.zone.tld"), nil, false,
		},
		{
			"one refuses an agent that the other one answers",
			lame(rootless(), secondNS, probetest.LameRefused), knowing("zone.tld", "ns1.zone.tld", "ns2.zone.tld"),
			[]string{
				"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 dns_lame", "NS zone.tld 127.1.0.3 none",
				"SOA zone.tld 127.1.0.3 none", "SOA zone.tld 127.1.0.4 dns_lame",
			},
			false,
		},
	}, func(t *testing.T, tt standIn) func(*testing.T) {
		_, env := grow(t, tt.servers, tt.resolver)
		r := run(t, env, dnsSpec("www.zone.tld", "A"))
		return func(t *testing.T) {
			if diff := cmp.Diff(tt.want, either(told(r, pb.Role_ROLE_AUTHORITY), tt.want), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
				if a := s.GetEvidence().GetAuthority(); a.GetInParent() != tt.parent || a.GetZone() != "zone.tld" || !a.GetInChild() {
					t.Errorf("%v", a)
				}
			}
		}
	})
}

// TestStandInIsRemembered: for a minute.
func TestStandInIsRemembered(t *testing.T) {
	t.Parallel()
	tree, env := grow(t, rootless(), knowing("zone.tld", "ns1.zone.tld", "ns2.zone.tld"))
	env.Delegations = &Delegations{}
	for i := range 2 {
		r := run(t, env, dnsSpec("www.zone.tld", "A"))
		if got := len(told(r, pb.Role_ROLE_REFERRAL)); i == 0 && got == 0 || i == 1 && got != 0 {
			t.Errorf("time %d: %v", i, told(r, pb.Role_ROLE_REFERRAL))
		}
	}
	if asked := len(tree.Asked(firstNS)); asked == 0 {
		t.Error("nobody was asked")
	}
}

// TestASilentStandIn: its servers are left alone for a minute, and those of another zone are not, whoever asked for
// which.
func TestASilentStandIn(t *testing.T) {
	t.Parallel()
	servers := lame(lame(rootless(), firstNS, probetest.LameSilent), secondNS, probetest.LameSilent)
	servers[subServer] = probetest.Nameserver{Zones: map[string][]string{"other.test": {
		"other.test. 300 IN SOA ns.other.test. root.other.test. 9 600 600 600 60", "other.test. 300 IN NS ns.other.test.",
		"ns.other.test. 300 IN A " + subServer, "www.other.test. 60 IN A 127.0.0.3",
	}}}
	known := knowing("zone.tld", "ns1.zone.tld", "ns2.zone.tld")
	maps.Copy(known, probetest.Zone{
		"other.test":     {Records: []string{"other.test. 300 IN NS ns.other.test."}},
		"ns.other.test":  {Records: []string{"ns.other.test. 300 IN A " + subServer}},
		"www.other.test": {Records: []string{"www.other.test. 60 IN A 127.0.0.3"}},
	})
	tree, env := grow(t, servers, known)
	env.Delegations = &Delegations{}
	run(t, env, dnsSpec("www.zone.tld", "A"))
	asked := len(tree.Asked(firstNS)) + len(tree.Asked(secondNS))
	if asked == 0 {
		t.Error("nobody was asked")
	}
	run(t, env, dnsSpec("www.zone.tld", "A"))
	if again := len(tree.Asked(firstNS)) + len(tree.Asked(secondNS)); again != asked {
		t.Errorf("servers that had been silent were asked %d times more", again-asked)
	}
	if got := told(run(t, env, dnsSpec("www.other.test", "A")), pb.Role_ROLE_AUTHORITY); len(got) != 3 {
		t.Errorf("another zone's servers: %v", got)
	}
}
