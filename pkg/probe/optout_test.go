package probe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestWhoOptedOut(t *testing.T) {
	o, err := ParseOptOut([]string{"Example.com.", "münchen.example", "192.0.2.7", "198.51.100.0/24", "2001:db8::/32", "::ffff:203.0.113.0/120"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"example.com":            "example.com does not want to be measured: it is on the network's opt-out list",
		"a.b.EXAMPLE.com.":       "a.b.example.com does not want to be measured: example.com is on the network's opt-out list",
		"notexample.com":         "",
		"com":                    "",
		"xn--mnchen-3ya.example": "it is on",
		"www.münchen.example":    "xn--mnchen-3ya.example is on",
		"192.0.2.7":              "192.0.2.7 does not want to be measured: it is on",
		"192.0.2.8":              "",
		"::ffff:192.0.2.7":       "192.0.2.7 does not",
		"198.51.100.255":         "198.51.100.0/24 is on",
		"[2001:db8:1::1]":        "2001:db8::/32 is on",
		"2001:db9::1":            "",
		"64:ff9b::198.51.100.1":  "198.51.100.0/24 is on", // NAT64 leads there
		"203.0.113.9":            "::ffff:203.0.113.0/120 is on",
		"":                       "",
	} {
		err := o.Check(host)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", host, err, want)
		}
	}
	for entry, want := range map[string]string{
		"192.0.2.1/24":                    "the network is 192.0.2.0/24",
		"*.example.com":                   `write "example.com"`,
		"192.0.2.300":                     "neither a name nor an address",
		"192.0.2.0-192.0.2.9":             "neither",
		"https://example.com/":            "neither",
		"example.com 192.0.2.1":           "neither",
		"":                                "neither",
		".":                               "neither",
		"fe80::1%eth0":                    "neither",
		"\x1b[2J":                         "neither",
		strings.Repeat("a", 64) + ".test": "neither",
	} {
		if _, err := ParseOptOut([]string{"fine.example", entry}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v, want %q", entry, err, want)
		}
	}
	if _, err := ParseOptOut(make([]string, MaxOptOuts+1)); err == nil || !strings.Contains(err.Error(), "at most 256") {
		t.Errorf("too many: %v", err)
	}
}

// TestWhoOptedOutIsLeftAlone, whatever leads there; and is looked at when the list does not have it, which shows that the
// way is open.
func TestWhoOptedOutIsLeftAlone(t *testing.T) {
	t.Parallel()
	elsewhere := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.3"), nil, maze("")))
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), nil, maze(fmt.Sprintf("http://other.example:%d/", elsewhere.Addr().Port()))))
	env := newEnv(t, probetest.Zone{
		"www.example":   {Records: []string{"www.example. 60 IN A 127.0.0.2"}},
		"alias.example": {Records: []string{"alias.example. 60 IN CNAME other.example.", "other.example. 60 IN A 127.0.0.3"}},
		"other.example": {Records: []string{"other.example. 60 IN A 127.0.0.3"}},
	})
	redirected := httpSpec(&pb.HTTPSpec{Url: fmt.Sprintf("http://www.example:%d/other", host.Addr().Port()), MaxRedirects: 3})
	for what, c := range map[string]struct {
		spec    *pb.Spec
		optOuts []string
		door    bool // whether it shows before anything is asked
	}{
		"its address":                       {tcpSpec("127.0.0.3", elsewhere.Addr().Port()), []string{"127.0.0.3"}, true},
		"its network":                       {tcpSpec("127.0.0.3", elsewhere.Addr().Port()), []string{"192.0.2.1", "127.0.0.2/31"}, true},
		"its name":                          {tcpSpec("other.example", elsewhere.Addr().Port()), []string{"other.example"}, true},
		"a name above":                      {tlsSpec("other.example", elsewhere.Addr().Port(), ""), []string{"example"}, true},
		"a name that leads to its address":  {tcpSpec("other.example", elsewhere.Addr().Port()), []string{"127.0.0.3"}, false},
		"an alias that leads there":         {tcpSpec("alias.example", elsewhere.Addr().Port()), []string{"127.0.0.3"}, false},
		"a redirect to its name":            {redirected, []string{"other.example"}, false},
		"a redirect to its address by name": {redirected, []string{"127.0.0.3"}, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			port := fmt.Sprint("127.0.0.3:", elsewhere.Addr().Port())
			looks := func(optOuts []string) (connected, refused bool) {
				job := newJob(c.spec, 28*time.Second)
				job.OptOuts = optOuts
				r := Run(t.Context(), env, job)
				for _, s := range r.GetSteps() {
					connected = connected || s.GetAddress() == port && s.GetFailure() == pb.Failure_FAILURE_NONE
					refused = refused || s.GetFailure() == pb.Failure_FAILURE_AGENT_POLICY_DENIED && strings.Contains(s.GetEvidence().GetText(), "opt-out list")
				}
				checkTame(t, r)
				return connected, refused
			}
			if connected, refused := looks(nil); !connected || refused {
				t.Errorf("without a list: connected %v, refused %v", connected, refused)
			}
			if connected, refused := looks(c.optOuts); connected || !refused {
				t.Errorf("with it: connected %v, refused %v", connected, refused)
			}
			job := newJob(c.spec, time.Second)
			job.OptOuts = c.optOuts
			if f, why := Admit(env, job); (f == pb.Failure_FAILURE_AGENT_POLICY_DENIED && strings.Contains(why, "opt-out list")) != c.door {
				t.Errorf("at the door: %v %s", f, why)
			}
		})
	}
	job := newJob(tcpSpec("127.0.0.2", host.Addr().Port()), time.Second)
	job.OptOuts = []string{"not an entry"}
	if f, _ := Admit(env, job); f != pb.Failure_FAILURE_AGENT_INTERNAL {
		t.Errorf("a list that cannot be read: %v", f)
	}
	if s := Run(t.Context(), env, job).GetSteps()[0]; s.GetFailure() != pb.Failure_FAILURE_AGENT_INTERNAL {
		t.Errorf("a list that cannot be read: %v", s)
	}
}
