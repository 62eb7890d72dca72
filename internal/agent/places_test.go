package agent

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	start := func() *Agent {
		a, err := New(Options{Coordinators: []string{"127.0.0.1:7700"}, DataDir: dir, ID: "a", Env: &probe.Env{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.spool.Close() })
		return a
	}
	a := start()
	many := make([]string, 100)
	for i := range many {
		many[i] = "192.0.2.1:" + string(rune('a'+i%26))
	}
	for _, c := range []struct {
		says string
		told []string
		want []string
	}{
		{"one that is told of nobody goes where it was named", nil, []string{"127.0.0.1:7700"}},
		{
			"those that it is told of come after the one that it was named, each once",
			[]string{"127.0.0.1:7710", "127.0.0.1:7700", "c.example:7700", "127.0.0.1:7710"},
			[]string{"127.0.0.1:7700", "127.0.0.1:7710", "c.example:7700"},
		},
		{"what is no address is left out", []string{"7700", ":7700", "127.0.0.1:7720"}, []string{"127.0.0.1:7700", "127.0.0.1:7720"}},
		{"nobody told of leaves those before", nil, []string{"127.0.0.1:7700", "127.0.0.1:7720"}},
	} {
		a.notePlaces(c.told)
		if got := a.places(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.says, got)
		}
	}
	a.notePlaces(many)
	if got := a.places(); len(got) > 1+maxPlaces {
		t.Errorf("%d places are kept of %d", len(got), len(many))
	}
	a.notePlaces([]string{"127.0.0.1:7730"})
	_ = a.spool.Close()
	if got := start().places(); !slices.Equal(got, []string{"127.0.0.1:7700", "127.0.0.1:7730"}) {
		t.Errorf("after a restart: %v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, placesFile), []byte(strings.Repeat("x", 2*maxPlacesFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readPlaces(dir); got != nil {
		t.Errorf("of a file that is too large: %v", got)
	}
}

func TestWhomAnAgentMayCall(t *testing.T) {
	env := &probe.Env{}
	env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}
	a := &Agent{opts: Options{Coordinators: []string{"127.0.0.1:7700"}, Env: env}, strangers: newStrangers()}
	for _, c := range []struct {
		says, addr string
		may        bool
	}{
		{"the operator's own", "127.0.0.1:7700", true},
		{"another at the same host", "127.0.0.1:7710", true},
		{"where the operator lets it measure", "127.0.0.9:7700", true},
		{"where he does not", "127.0.0.8:7700", false},
		{"metadata of a cloud", "169.254.169.254:80", false},
		{"no address", "127.0.0.1", false},
	} {
		if err := a.mayCall(context.Background(), c.addr); (err == nil) != c.may {
			t.Errorf("%s: %v", c.says, err)
		}
	}
}
