package space

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
)

// Named is a network namespace, by the name that ip-netns(8) knows it by.
type Named string

// Do runs f on a thread that is inside, as the function Do does.
func (n Named) Do(f func() error) error { return Do(string(n), f) }

// Command is a program inside. It is entered without a mount namespace of its own, which would keep disks busy that a
// test takes away. The program has a bare environment and a process group of its own, so that Ctrl-C ends it in order,
// and dies with the test whatever happens to that.
func (n Named) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + filepath.Join("/run/netns", string(n))}, args...)...) //nolint:gosec // the test says what
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "CI=true", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Output runs a program inside and returns all that it says.
func (n Named) Output(ctx context.Context, args ...string) (string, error) {
	out, err := n.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%v in %s: %w: %s", args, n, err, out)
	}
	return string(out), nil
}

// Dial connects from inside to a literal address.
func (n Named) Dial(ctx context.Context, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// Listen opens a TCP listener inside.
func (n Named) Listen(ctx context.Context, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	})
	return l, err
}

// NFT loads a script into the nftables inside.
func (n Named) NFT(ctx context.Context, script string) error {
	cmd := n.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s\n%s", n, err, out, script)
	}
	return nil
}

// IP runs a batch of ip(8) commands inside, or outside if n is empty.
func (n Named) IP(ctx context.Context, batch ...string) error {
	args := []string{"-batch", "-"}
	if n != "" {
		args = append([]string{"-n", string(n)}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// Sysctl sets kernel parameters inside, given as paths under /proc/sys.
func (n Named) Sysctl(values map[string]string) error {
	return n.Do(func() error {
		var errs []error
		for key, value := range values {
			errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o600))
		}
		return errors.Join(errs...)
	})
}

// Remove kills what runs inside and deletes the namespace.
func (n Named) Remove(ctx context.Context) error {
	pids, err := exec.CommandContext(ctx, "ip", "netns", "pids", string(n)).Output() //nolint:gosec // likewise
	for pid := range strings.FieldsSeq(string(pids)) {
		if id, err := strconv.Atoi(pid); err == nil && id != os.Getpid() {
			_ = unix.Kill(id, unix.SIGKILL) // it may have ended by itself
		}
	}
	return errors.Join(err, exec.CommandContext(ctx, "ip", "netns", "del", string(n)).Run()) //nolint:gosec // likewise
}

// RemoveLeft removes the namespaces of runs that are over: those whose names are left by prefix.
func RemoveLeft(ctx context.Context, prefix string) error {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if Left(entry.Name(), prefix) {
			err = errors.Join(err, Named(entry.Name()).Remove(ctx))
		}
	}
	return err
}

// Left says whether a name, a prefix and the id of a process with what follows a "-", is of a process that is no more.
func Left(name, prefix string) bool {
	text, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	text, _, _ = strings.Cut(text, "-")
	pid, err := strconv.Atoi(text)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
