package agent

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// TestWhereServersMayStand: a coordinator that is hostile can point agents at a victim no more than by a job.
func TestWhereServersMayStand(t *testing.T) {
	a := &Agent{
		opts: Options{Coordinators: []string{"10.0.0.1:7700", "[fd00::1]:7700"}, Env: &probe.Env{
			Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}},
		}},
		strangers: newStrangers(),
	}
	may := a.may(t.Context())
	for _, c := range []struct {
		sentence, addr string
		ok             bool
	}{
		{"a coordinator's own host, on any port", "10.0.0.1:4222", true},
		{"another's", "[fd00::1]:4222", true},
		{"its neighbour", "10.0.0.2:4222", false},
		{"the metadata service", "169.254.169.254:80", false},
		{"the agent itself", "127.0.0.1:22", false},
		{"mail to strangers", "8.8.8.8:25", false},
		{"where the operator lets jobs go", "10.9.0.1:4222", true},
		{"a public address", "8.8.8.8:4222", true},
	} {
		if err := may(netip.MustParseAddrPort(c.addr)); (err == nil) != c.ok {
			t.Errorf("%s (%s): %v", c.sentence, c.addr, err)
		}
	}
	told := 0
	for range 1000 {
		if err := a.may(t.Context())(netip.MustParseAddrPort("8.8.8.8:4222")); err == nil {
			told++
		} else if !errors.Is(err, errTooOften) {
			t.Fatal(err)
		}
	}
	if told > strangersBurst {
		t.Errorf("%d connects, however often it registered", told)
	}
}
