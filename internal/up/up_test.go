package up

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/flags"
)

// elsewhere runs one command line in this process.
func elsewhere(ctx context.Context, out, errs io.Writer, args ...string) int {
	return cli.Program{Out: out, Err: errs, Extra: []*cobra.Command{Command()}}.Run(ctx, args)
}

func TestUp(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("CI", "true")
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	var errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- elsewhere(ctx, write, &errs, "up", "--regions", "a,b,c", "--grpc-addr", "127.0.0.1:0")
		_ = write.Close()
	}()
	line := make([]byte, 100)
	n, err := read.Read(line) // it is ready when it says where
	if err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	addr := strings.TrimSpace(string(line[:n]))

	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	open := target.Addr().String()

	var out bytes.Buffer
	if code := elsewhere(t.Context(), &out, &out, "agents"); code != 0 || strings.Count(out.String(), "online") != 3 {
		t.Errorf("agents, without being told where: exit %d\n%s", code, &out)
	}
	out.Reset()
	if code := elsewhere(t.Context(), &out, &out, "tcp", open, "from", "a,b"); code != 0 || !strings.Contains(out.String(), "2 answered") {
		t.Errorf("a port of this machine that is open: exit %d\n%s", code, &out)
	}
	out.Reset()
	if code := elsewhere(t.Context(), &out, &out, "tcp", "127.0.0.1:1", "from", "last"); code != 1 || !strings.Contains(out.String(), "target_down") {
		t.Errorf("a port of this machine that is closed: exit %d\n%s", code, &out)
	}
	out.Reset()
	_, port, _ := strings.Cut(open, ":")
	if code := elsewhere(t.Context(), &out, &out, "tcp", "localhost:"+port); code != 0 || !strings.Contains(out.String(), open) {
		t.Errorf("a name of this machine: exit %d\n%s", code, &out)
	}
	out.Reset()
	if code := elsewhere(t.Context(), &out, &out, "tcp", addr); code != 3 || !strings.Contains(out.String(), "service of the network of agents") {
		t.Errorf("the coordinator itself: exit %d\n%s", code, &out)
	}
	out.Reset()
	if code := elsewhere(t.Context(), &out, &out, "tcp", "169.254.169.254:80"); code != 3 || !strings.Contains(out.String(), "refused") {
		t.Errorf("where clouds keep credentials: exit %d\n%s", code, &out)
	}

	cancel()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("exit %d after an interrupt: %s", code, &errs)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	out.Reset()
	if code := elsewhere(t.Context(), &out, &out, "agents", "--coordinator", addr); code != 4 {
		t.Errorf("agents of a network that is down: exit %d\n%s", code, &out)
	}
}

func TestUpIsChecked(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for _, c := range []struct {
		what string
		args []string
	}{
		{"an argument", []string{"now"}},
		{"a region with a capital", []string{"--regions", "A"}},
		{"a region twice", []string{"--regions", "a,b,a"}},
		{"no region", []string{"--regions", ""}},
		{"an address for others than this machine", []string{"--grpc-addr", "0.0.0.0:0"}},
		{"a resolver that is a name", []string{"--resolver", "dns.example"}},
		{"a range that is none", []string{"--allow-target", "10.0.0.0/33"}},
		{"a control without a port", []string{"--control", "localhost"}},
		{"a list of resolvers that is not there", []string{"--public-resolvers", "/nonexistent"}},
		{"a file of roots that is not there", []string{"--roots", "/nonexistent"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := elsewhere(t.Context(), &out, &errs, append([]string{"up"}, c.args...)...)
			if code != 2 || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("exit %d, stdout %q, stderr %q; want one line and exit 2", code, &out, &errs)
			}
		})
	}
}

func TestTheEnvironmentIsRead(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv(flags.EnvName("regions"), "NOT a region")
	var out, errs bytes.Buffer
	if code := elsewhere(t.Context(), &out, &errs, "up"); code != 2 || !strings.Contains(errs.String(), "NOT a region") {
		t.Errorf("exit %d: %s", code, &errs)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	elsewhere(ctx, &out, &out, "up", "--grpc-addr", "127.0.0.1:0")
	for _, dir := range []string{os.Getenv("TMPDIR"), os.Getenv("XDG_STATE_HOME")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", dir, left, err)
		}
	}
	if _, err := os.Stat(os.Getenv("TMPDIR")); errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
