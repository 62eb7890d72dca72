package probe

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestControlsAreChosen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why      string
		controls []string
		target   string
		want     []string
	}{
		{"the target's port, where there is one", []string{"192.0.2.1:443", "192.0.2.2:80"}, "198.51.100.1:443", []string{"192.0.2.1:443"}},
		{"any port otherwise", []string{"192.0.2.1:443", "192.0.2.2:80"}, "198.51.100.1:25", []string{"192.0.2.1:443", "192.0.2.2:80"}},
		{"the target's family alone", []string{"192.0.2.1:443", "[2001:db8::1]:80"}, "[2001:db8::9]:443", []string{"[2001:db8::1]:80"}},
		{"no loopback for the network", []string{"127.0.0.1:443", "192.0.2.1:80"}, "198.51.100.1:443", []string{"192.0.2.1:80"}},
		{"no network for loopback", []string{"127.0.0.1:80", "192.0.2.1:443"}, "127.0.0.2:443", []string{"127.0.0.1:80"}},
		{"a name on the port before an address on another", []string{"control.example:443", "192.0.2.1:80"}, "198.51.100.1:443", []string{"control.example:443"}},
		{"an address on the port before a name", []string{"control.example:443", "192.0.2.1:443"}, "198.51.100.1:443", []string{"192.0.2.1:443"}},
		{"an address on another port before a name on another", []string{"control.example:443", "192.0.2.1:80"}, "198.51.100.1:25", []string{"192.0.2.1:80"}},
		{"no name for loopback where an address is", []string{"control.example:443", "127.0.0.1:80"}, "127.0.0.2:443", []string{"127.0.0.1:80"}},
		{"but one if there is nothing else", []string{"control.example:443", "192.0.2.1:443"}, "127.0.0.2:443", []string{"control.example:443"}},
		{"names alone go by their ports", []string{"a.example:443", "b.example:80"}, "198.51.100.1:443", []string{"a.example:443"}},
		{"what makes no sense is left out", []string{"nonsense", "192.0.2.1:99999", "192.0.2.1:443"}, "198.51.100.1:443", []string{"192.0.2.1:443"}},
		{"none at all", []string{}, "198.51.100.1:443", nil},
	} {
		target := netip.MustParseAddrPort(tt.target)
		g := &tcpGroup{target: target.Addr(), port: target.Port()}
		var got []string
		for _, c := range g.choose((&Env{Controls: tt.controls}).controlHosts()) {
			host := c.name
			if host == "" {
				host = c.addr.String()
			}
			got = append(got, net.JoinHostPort(host, strconv.Itoa(int(c.port))))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.why, diff)
		}
	}
}

func TestShippedControlsCoverBothFamiliesAndThePortsOfTheWeb(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"198.51.100.1:443", "198.51.100.1:80", "[2001:db8::1]:443", "[2001:db8::1]:80"} {
		addr := netip.MustParseAddrPort(target)
		g := &tcpGroup{target: addr.Addr(), port: addr.Port()}
		chosen := g.choose((&Env{}).controlHosts())
		if len(chosen) == 0 {
			t.Errorf("%s: no control", target)
		}
		for _, c := range chosen {
			if c.port != addr.Port() || c.name == "" && (Egress{}).Check(c.addr) != nil {
				t.Errorf("%s: control %v", target, c)
			}
		}
	}
}

func TestAControlThatPolicyRefusesIsNone(t *testing.T) {
	t.Parallel()
	tr := newTrace(&Env{Egress: Egress{Deny: prefixes("0.0.0.0/0")}, Resolvers: []netip.AddrPort{}}, &pb.Job{})
	g := &tcpGroup{target: netip.MustParseAddr("198.51.100.1"), port: 443}
	tr.tcpControls(t.Context(), g)
	tr.running.Wait()
	if len(tr.steps) != 0 {
		t.Errorf("%d steps, want none", len(tr.steps))
	}
}

func TestControlsByNameAreResolvedAtTheAgentsResolvers(t *testing.T) {
	t.Parallel()
	env := newEnv(t, nil)
	control := netip.MustParseAddrPort(env.Controls[0])
	env.Controls = []string{"control.example:" + env.Controls[0][len("127.0.0.9:"):]}
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2")))
	r := run(t, env, tcpSpec("127.0.0.2", closed.Addr().Port()))
	queries := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_CONTROL)
	connects := steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL)
	if len(queries) != 1 || queries[0].GetName() != "control.example" || queries[0].GetAddress() != env.Resolvers[0].String() {
		t.Errorf("queries: %v", queries)
	}
	if len(connects) != 1 || connects[0].GetAddress() != control.String() || connects[0].GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("connects: %v", connects)
	}
}
