package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shared returns a tree whose zone "zone.tld" has a zone "low.zone.tld" below it on the same servers, the
// second of which is behind with it. Nobody ever refers to it.
func shared() map[string]probetest.Nameserver {
	servers := tree()
	for ip, serial := range map[string]string{firstNS: "21", secondNS: "20"} {
		servers[ip] = probetest.Nameserver{Zones: map[string][]string{
			"zone.tld": servers[ip].Zones["zone.tld"],
			"low.zone.tld": {
				"low.zone.tld. 300 IN SOA ns1.zone.tld. root.zone.tld. " + serial + " 600 600 600 60",
				"low.zone.tld. 300 IN NS ns1.zone.tld.", "low.zone.tld. 300 IN NS ns2.zone.tld.",
				"low.zone.tld. 60 IN A 127.0.0.4", "www.low.zone.tld. 60 IN A 127.0.0.4",
				"alias.low.zone.tld. 60 IN CNAME www.low.zone.tld.",
			},
		}}
	}
	return servers
}

func TestAZoneOnItsParentsServersHasItsOwnName(t *testing.T) {
	t.Parallel()
	type zone struct {
		name, asked, qtype, apex string
		serials                  map[string]uint32
	}
	behind := map[string]uint32{firstNS: 21, secondNS: 20}
	same := map[string]uint32{firstNS: 7, secondNS: 7}
	all(t, func(z zone) string { return z.name }, []zone{
		{"the name is the apex", "low.zone.tld", "A", "low.zone.tld", behind},
		{"the name is below the apex", "www.low.zone.tld", "A", "low.zone.tld", behind},
		{"the name is an alias", "alias.low.zone.tld", "A", "low.zone.tld", behind},
		{"the SOA beside “no such type” shows it", "www.low.zone.tld", "TXT", "low.zone.tld", behind},
		{"the SOA beside “no such name” shows it", "no.low.zone.tld", "A", "low.zone.tld", behind},
		{"its DS is the upper zone's", "low.zone.tld", "DS", "zone.tld", same},
		{"the upper zone stays what it is", "www.zone.tld", "A", "zone.tld", same},
	}, func(t *testing.T, z zone) func(*testing.T) {
		_, env := grow(t, shared(), www())
		env.Controls = []string{}
		r := run(t, env, authoritative(z.asked, z.qtype))
		return func(t *testing.T) {
			serials := map[string]uint32{}
			for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
				ip, _, _ := strings.Cut(s.GetAddress(), ":")
				if a := s.GetEvidence().GetAuthority(); a.GetZone() != z.apex {
					t.Errorf("%s %s: the zone is %q", s.GetType(), s.GetName(), a.GetZone())
				} else {
					serials[ip] = a.GetSoaSerial()
				}
			}
			if diff := cmp.Diff(z.serials, serials); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// TestTwoZonesSerials: by default the answer alone tells whose it is; no serial is ever another zone's.
func TestTwoZonesSerials(t *testing.T) {
	t.Parallel()
	_, env := grow(t, shared(), www())
	for _, qtype := range []string{"A", "TXT"} {
		r := run(t, env, dnsSpec("www.low.zone.tld", qtype))
		for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
			a := s.GetEvidence().GetAuthority()
			if low := a.GetZone() == "low.zone.tld"; low != (a.GetSoaSerial() > 7) {
				t.Errorf("%s %s: zone %s has serial %d", s.GetType(), s.GetName(), a.GetZone(), a.GetSoaSerial())
			}
		}
	}
}

func TestAZoneBelowIsNotRememberedWithoutServers(t *testing.T) {
	t.Parallel()
	_, env := grow(t, shared(), www())
	env.Delegations = &Delegations{}
	first := told(run(t, env, authoritative("low.zone.tld", "A")), pb.Role_ROLE_AUTHORITY)
	second := told(run(t, env, authoritative("low.zone.tld", "A")), pb.Role_ROLE_AUTHORITY)
	if diff := cmp.Diff(either(first, nil), either(second, nil)); diff != "" || len(first) == 0 {
		t.Error(diff)
	}
}

// TestServersThatAreHardToAsk: with all of a zone's servers asked, what UDP or EDNS does not bring is asked for
// without.
func TestServersThatAreHardToAsk(t *testing.T) {
	t.Parallel()
	type server struct {
		name  string
		how   probetest.Lameness
		every bool
		want  string
		over  string
	}
	all(t, func(s server) string { return s.name }, []server{
		{"one that is silent over UDP is asked over TCP", probetest.NoUDP, true, "none", "tcp"},
		{"by default there is no time for that", probetest.NoUDP, false, "dns_timeout", ""},
		{"one that does not know EDNS is asked without", probetest.NoEDNS, true, "none", "udp"},
		{"also by default", probetest.NoEDNS, false, "none", "udp"},
		{"one that drops queries with EDNS is asked without", probetest.EDNSSilent, true, "none", "udp"},
		{"one that fails, and says that it is in charge, is not lame", probetest.Failing, true, "dns_servfail", "udp"},
	}, func(t *testing.T, s server) func(*testing.T) {
		_, env := grow(t, lame(tree(), subServer, s.how), www())
		env.Controls = []string{}
		spec := dnsSpec("deep.sub.zone.tld", "A")
		spec.GetDns().Authoritative = s.every
		r := run(t, env, spec)
		return func(t *testing.T) {
			own := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY)
			if len(own) == 0 {
				t.Fatal("nobody was asked")
			}
			replies := own[0].GetEvidence().GetReplies()
			over := ""
			if len(replies) > 0 {
				over = replies[len(replies)-1].GetTransport()
			}
			if got := Short(own[0].GetFailure()); got != s.want || over != s.over {
				t.Errorf("%s over %q: %v", got, over, own[0])
			}
			if a := own[0].GetEvidence().GetAuthority(); s.want == "none" && s.every && a.GetSoaSerial() != 9 {
				t.Errorf("its serial is %d: %v", a.GetSoaSerial(), told(r, pb.Role_ROLE_AUTHORITY))
			}
		}
	})
}

func TestAnAnswerThatIsNotWithAuthorityHasNoSerial(t *testing.T) {
	t.Parallel()
	_, env := grow(t, lame(tree(), secondNS, probetest.LameCached), www())
	r := run(t, env, authoritative("zone.tld", "SOA"))
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
		if strings.HasPrefix(s.GetAddress(), secondNS) && s.GetEvidence().GetAuthority().SoaSerial != nil {
			t.Errorf("a cache's serial: %v", s)
		}
	}
}

func TestServersThatLoopAreNotLame(t *testing.T) {
	t.Parallel()
	servers := change(tree(), subServer, "sub.zone.tld", "", "one.sub.zone.tld. 60 IN CNAME two.sub.zone.tld.", "two.sub.zone.tld. 60 IN CNAME one.sub.zone.tld.")
	_, env := grow(t, servers, www())
	r := run(t, env, dnsSpec("one.sub.zone.tld", "A"))
	if got := told(r, pb.Role_ROLE_AUTHORITY); len(got) == 0 || got[0] != "A one.sub.zone.tld "+subServer+" dns_cname_loop" {
		t.Error(got)
	}
}

func TestAWalkThatIsAskedForTriesASilentRoot(t *testing.T) {
	t.Parallel()
	tree, env := grow(t, tree(), www())
	env.Delegations = &Delegations{}
	env.Delegations.rootSilent(time.Now())
	run(t, env, dnsSpec("www.zone.tld", "A"))
	if asked := tree.Asked(rootServer); len(asked) != 0 {
		t.Errorf("beside a lookup the root was asked: %v", asked)
	}
	spec := dnsSpec("www.zone.tld", "A")
	spec.GetDns().Trace = true
	run(t, env, spec)
	if len(tree.Asked(rootServer)) == 0 {
		t.Error("nobody asked the root for a trace")
	}
}

func TestErrorsOfSocketsNameNoPorts(t *testing.T) {
	t.Parallel()
	ends := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4242}
	err := &net.OpError{Op: "read", Net: "udp", Source: ends, Addr: ends, Err: os.NewSyscallError("read", syscall.ECONNREFUSED)}
	got := portless(fmt.Errorf("outer: %w", err))
	if want := "read over UDP: connection refused"; got.Error() != want || !errors.Is(got, syscall.ECONNREFUSED) {
		t.Errorf("%v", got)
	}
}

// TestASlowServerIsWaitedFor: the way on is known while a server that was asked for it is still silent over UDP.
func TestASlowServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	_, env := grow(t, lame(tree(), firstNS, probetest.NoUDP), www())
	env.Controls, env.patience = []string{}, 0
	r := run(t, env, authoritative("www.zone.tld", "A"))
	got := told(r, pb.Role_ROLE_AUTHORITY)
	if !slices.Contains(got, "SOA zone.tld "+firstNS+" none") {
		t.Errorf("its serial is not known: %v", got)
	}
}
