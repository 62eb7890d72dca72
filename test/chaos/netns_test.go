package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	namespace "github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// prefix begins the names of this package's namespaces; the process id follows, so that what is left behind
// can be told from what is in use.
const prefix = "ewc-"

// space is a network namespace, by the name that ip-netns(8) knows it by.
type space string

func (s space) path() string { return filepath.Join("/run/netns", string(s)) }

// do runs fn on a thread that is inside the namespace. What fn opens stays inside; goroutines that it starts do not.
func (s space) do(fn func() error) error { return namespace.Do(string(s), fn) }

// command is a program inside the namespace. It is entered without a mount namespace of its own, which would
// keep the disks busy that are cut off. The program has a process group of its own, so that Ctrl-C ends it in
// order, and dies with the test whatever happens to that.
func (s space) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + s.path()}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// output runs a program inside the namespace and returns all that it says.
func (s space) output(ctx context.Context, args ...string) (string, error) {
	out, err := s.command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%v in %s: %w: %s", args, s, err, out)
	}
	return string(out), nil
}

// dial connects from inside the namespace to a literal address.
func (s space) dial(ctx context.Context, address string) (c net.Conn, err error) {
	err = s.do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// listen opens a TCP listener inside the namespace.
func (s space) listen(ctx context.Context, address string) (l net.Listener, err error) {
	err = s.do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	})
	return l, err
}

// nft loads a script into the namespace's nftables.
func (s space) nft(ctx context.Context, script string) error {
	cmd := s.command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s\n%s", s, err, out, script)
	}
	return nil
}

// ip runs a batch of ip(8) commands, in the namespace s, or outside if s is empty.
func (s space) ip(ctx context.Context, batch ...string) error {
	args := []string{"-batch", "-"}
	if s != "" {
		args = append([]string{"-n", string(s)}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// sysctl sets kernel parameters of the namespace, given as paths under /proc/sys.
func (s space) sysctl(values map[string]string) error {
	return s.do(func() error {
		var errs []error
		for key, value := range values {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644))
		}
		return errors.Join(errs...)
	})
}

// gone tells whether a name is of a run whose process is no more.
func gone(name, prefix string) bool {
	text, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	text, _, _ = strings.Cut(text, "-")
	pid, err := strconv.Atoi(text)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// removeSpaces deletes the namespaces of runs that are over, and ends what still runs in them.
func removeSpaces(ctx context.Context) error {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if gone(entry.Name(), prefix) {
			err = errors.Join(err, space(entry.Name()).remove(ctx))
		}
	}
	return err
}

// remove kills what runs in the namespace and deletes it.
func (s space) remove(ctx context.Context) error {
	pids, err := exec.CommandContext(ctx, "ip", "netns", "pids", string(s)).Output()
	for pid := range strings.FieldsSeq(string(pids)) {
		if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() {
			_ = unix.Kill(n, unix.SIGKILL) // it may have ended by itself
		}
	}
	return errors.Join(err, exec.CommandContext(ctx, "ip", "netns", "del", string(s)).Run())
}
