package agentpolicy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/internal/yamlfile"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// TestTheExampleOfTheDocument: what docs/agent-policy.md shows can be read, and says what the page says.
func TestTheExampleOfTheDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/agent-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if example == nil {
		t.Fatal("there is no example")
	}
	got, err := Parse("f.yaml", example[1])
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		Policy: probe.Policy{
			Egress: probe.Egress{
				Allow: prefixes("10.20.0.0/16", "fd12:3456::/32"), Deny: prefixes("198.51.100.0/24", "2001:db8::1/128"),
				Only:  prefixes("0.0.0.0/0", "fd12:3456::/32"),
				Ports: probe.Ports{Allow: []probe.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}, {First: 8000, Last: 8999}}, Deny: []probe.PortRange{{First: 8080, Last: 8080}}},
			},
			Checks: []string{"dns", "tcp", "tls", "http"}, DenyTypes: []uint16{dns.TypeANY}, OwnServers: false,
		},
		Concurrency: 64, limits: limits{burst: 20, perSecond: 2, totalBurst: 500, totalPerSecond: 50},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Policy{}, limits{}), cmpopts.IgnoreFields(probe.Policy{}, "Budget"),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if b := got.Budget; b.Burst != 20 || b.PerSecond != 2 || b.TotalBurst != 500 || b.TotalPerSecond != 50 {
		t.Errorf("%d %v %d %v", b.Burst, b.PerSecond, b.TotalBurst, b.TotalPerSecond)
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestBadFiles(t *testing.T) {
	for _, c := range []struct{ sentence, file, want string }{
		{"an empty file is no policy", "", `f.yaml:1:1: the file is empty; begin with version: 1`},
		{"a file without a version", "stopped: true\n", `f.yaml:1:1: there is no version; begin with version: 1`},
		{"another version", "version: 2\n", `f.yaml:1:10: version "2" is not known; it is 1`},
		{"a key that would go unread", "version: 1\nstoped: true\n", `f.yaml:2:1: unknown key "stoped"; a policy has version, stopped, targets, ports, checks, dns and limits`},
		{"a key that is there twice", "version: 1\nstopped: true\nstopped: false\n", `f.yaml:3:1: stopped is there twice, first in line 2; leave one of them`},
		{"a range that is none", "version: 1\ntargets:\n  deny: [10.0.0.0/33]\n", `f.yaml:3:10: targets.deny: 10.0.0.0/33 is no range of addresses; write it as 10.0.0.0/8 or 2001:db8::1`},
		{"a list that is none", "version: 1\ntargets:\n  deny: 10.0.0.0/8\n", `f.yaml:3:9: targets.deny is "10.0.0.0/8"; it is a list, each item a range, such as 10.0.0.0/8`},
		{"an empty list, which would mean all to one and nothing to another", "version: 1\ntargets:\n  only: []\n", `f.yaml:3:9: targets.only is empty; each item is a range, such as 10.0.0.0/8`},
		{"a port that is none", "version: 1\nports:\n  allow: [0]\n", `f.yaml:3:11: ports.allow: "0" is no port of 1 to 65535 and no range of them, such as 8000-8999`},
		{"a range of ports the wrong way round", "version: 1\nports:\n  allow: [9-8]\n", `f.yaml:3:11: ports.allow: "9-8" is no port`},
		{"a check that is none", "version: 1\nchecks: [icmp]\n", `f.yaml:2:10: checks: "icmp" is no check; they are dns, tcp, tls, http, origin`},
		{"a record type that is none", "version: 1\ndns:\n  deny_types: [ALL]\n", `f.yaml:3:16: dns.deny_types: "ALL" is not a record type`},
		{"servers that are neither", "version: 1\ndns:\n  servers: mine\n", `f.yaml:3:12: dns.servers is "mine"; it is any, or own`},
		{"a rate of nothing", "version: 1\nlimits:\n  target: {burst: 0}\n", `f.yaml:3:19: burst is "0"; it is a number above 0, at most 1048576 (to measure nothing, write stopped: true)`},
		{"a rate that is no number", "version: 1\nlimits:\n  target: {per_second: .nan}\n", `f.yaml:3:24: per_second is ".nan"`},
		{"half a burst", "version: 1\nlimits:\n  concurrency: 1.5\n", `f.yaml:3:16: concurrency is "1.5"`},
		{"a total without its rate", "version: 1\nlimits:\n  total: {burst: 5}\n", `f.yaml:3:10: limits.total needs both burst and per_second`},
		{"a kill switch that is half there", "version: 1\nstopped:\n", `f.yaml:2:9: stopped is empty; it is text, such as true`},
		{"a kill switch that would be thrown by a no", "version: 1\nstopped: No\n", `f.yaml:2:10: stopped is "No"; it is true, false, or in quotes why`},
		{"two documents", "version: 1\n---\nversion: 1\n", `f.yaml:2:1: a second document begins here`},
		{"what is not YAML", "version: [1\n", `f.yaml:1:1: this is not YAML: `},
		{"all that is wrong is said at once", "version: 1\nchecks: [a]\nports: 5\n", "f.yaml:2:10: checks: \"a\" is no check; they are dns, tcp, tls, http, origin\nf.yaml:3:8: ports is \"5\"; it has allow and deny"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.file))
			var problems *yamlfile.Problems
			if !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("version: 1\nstopped: maintenance\ntargets: {deny: [\"::/0\"], only: [10.1.2.3]}\nports: {allow: [25, 80-90]}\n")
	f.Add("version: 1\nchecks: [dns]\ndns: {servers: own, deny_types: [ANY, TYPE65]}\nlimits: {target: {burst: 5, per_second: 0.5}, concurrency: 9}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("f", []byte(text))
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if p == nil {
			return
		}
		for _, r := range append(p.Egress.Ports.Allow, p.Egress.Ports.Deny...) {
			if r.First == 0 || r.Last < r.First {
				t.Errorf("ports %v", r)
			}
		}
		for _, prefix := range append(append(p.Egress.Allow, p.Egress.Deny...), p.Egress.Only...) {
			if !prefix.IsValid() {
				t.Errorf("a range %v", prefix)
			}
		}
	})
}

// write puts a file in place at once, as an editor does.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// record is a log that a test reads while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// next waits for the next policy.
func next(t *testing.T, changed <-chan struct{}, f *File) *Policy {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Fatal("nothing changes")
	}
	p, _ := f.Current()
	return p
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, "version: 1\nlimits: {target: {burst: 7}}\n")
	f, err := Open(path, probe.Egress{Deny: prefixes("192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	log := &record{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Follow(ctx, slog.New(slog.NewTextHandler(log, nil))); close(done) }()
	defer func() { cancel(); <-done }()

	first, changed := f.Current()
	write(t, path, "version: 1\nstopped: the line is full\nlimits: {target: {burst: 7}}\n")
	second := next(t, changed, f)
	if second.Stopped != "the agent's operator has stopped it: the line is full" || second.Budget != first.Budget {
		t.Errorf("%q; the same limits have the same budget: %v", second.Stopped, second.Budget == first.Budget)
	}

	_, changed = f.Current()
	write(t, path, "version: 1\nstopped: fals\ntarget: nonsense\n") // It is broken: the kill switch stays thrown.
	for !strings.Contains(log.String(), "unknown key") && t.Context().Err() == nil {
		select {
		case <-changed:
			t.Fatal("a broken file is in force")
		case <-time.After(50 * time.Millisecond):
		}
	}
	if p, _ := f.Current(); p != second {
		t.Error("a broken file changed something")
	}

	write(t, path, "version: 1\nlimits: {target: {burst: 8}}\ntargets: {deny: [198.51.100.0/24]}\n")
	third := next(t, changed, f)
	if third.Stopped != "" || third.Budget == first.Budget || third.Budget.Burst != 8 {
		t.Errorf("%+v", third)
	}
	if want := prefixes("198.51.100.0/24", "192.0.2.0/24"); !cmp.Equal(third.Egress.Deny, want, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) {
		t.Errorf("denied: %v, and the command line's with them", third.Egress.Deny)
	}
	if strings.Count(log.String(), "unknown key") != 1 {
		t.Errorf("said more than once:\n%s", log)
	}
}
