package state_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/cli/state"
)

func TestDir(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"XDG_STATE_HOME wins":            {map[string]string{"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/elsewhere"},
		"without it the home is used":    {map[string]string{"HOME": "/h"}, "/h/.local/state/elsewhere"},
		"a relative path is not trusted": {map[string]string{"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/elsewhere"},
		"with neither there is none":     {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := state.Dir(func(k string) string { return c.env[k] }); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUpIsLeftFoundAndRemovedByItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "er")
	up := state.Up{Coordinator: "127.0.0.1:4711", Insecure: true, PID: os.Getpid()}
	if err := state.WriteUp(dir, up); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "up.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, err %v; want 0600: it holds a token", info.Mode(), err)
	}
	if got, ok, err := state.ReadUp(dir); !ok || err != nil || got != up {
		t.Fatalf("got %+v %v %v, want %+v", got, ok, err, up)
	}
	if err := state.RemoveUp(dir, up.PID+1); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := state.ReadUp(dir); !ok {
		t.Fatal("another process removed it")
	}
	if err := state.RemoveUp(dir, up.PID); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := state.ReadUp(dir); ok || err != nil {
		t.Fatalf("still there, or an error: %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 0 {
		t.Errorf("temporary files stay: %v", entries)
	}
}

func TestUpOfAProcessThatIsGoneCountsForNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := state.WriteUp(dir, state.Up{Coordinator: "127.0.0.1:1", PID: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := state.ReadUp(dir); ok || err != nil {
		t.Errorf("ok %v, err %v", ok, err)
	}
}

func TestADamagedUpFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "up.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := state.ReadUp(dir); err == nil {
		t.Error("no error")
	}
}

func TestLastIsKeptByCoordinatorAndBounded(t *testing.T) {
	dir := t.TempDir()
	if got := state.Last(dir, "a:1"); got != "" {
		t.Fatalf("got %q before anything was measured", got)
	}
	for i := range 250 {
		if err := state.Remember(dir, "host:"+strconv.Itoa(i), "id"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := state.Last(dir, "host:249"); got != "id249" {
		t.Errorf("got %q, want id249", got)
	}
	if got := state.Last(dir, "a:1"); got != "" {
		t.Errorf("another coordinator has %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "last.json"))
	if err != nil || info.Size() > 4096 {
		t.Errorf("size %d, err %v: it grows without bound", info.Size(), err)
	}
}

func TestWithoutADirectoryNothingIsRemembered(t *testing.T) {
	if err := state.Remember("", "a:1", "id"); err == nil {
		t.Error("no error")
	}
	if got := state.Last("", "a:1"); got != "" {
		t.Errorf("got %q", got)
	}
}
