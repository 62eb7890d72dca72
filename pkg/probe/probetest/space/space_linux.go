// Package space runs tests in network namespaces of their own, where they may have any addresses and firewalls they
// like, and nothing gets out.
package space

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside is set where a test runs in a namespace of its own; its value says who began it.
const inside = "ELSEWHERE_NAMESPACE"

// Own says whether the test runs in a network namespace of its own. If not, it runs the test again
// in one, in a process that ends with it, and reports what that said.
func Own(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	for _, tool := range []string{"ip", "nft", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") //nolint:gosec // this program
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=uid %d", inside, os.Getuid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("needs root, or user namespaces, to make a network namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("in the namespace: %v\n%s", err, out.String())
	}
	if strings.Contains(out.String(), "--- SKIP: "+t.Name()) {
		t.Skip(out.String())
	}
	t.Log(out.String())
	return false
}

// Build runs a script that makes the namespace's world. Root must be able to.
func Build(t *testing.T, script string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput() //nolint:gosec // the test wrote it
	switch {
	case err == nil:
	case os.Getenv(inside) != "uid 0":
		t.Skipf("needs root to make this world: %v\n%s", err, out)
	default:
		t.Fatalf("cannot make the world: %v\n%s", err, out)
	}
}

// Listen listens in a namespace of `ip netns` until the test ends. As long as nobody accepts, the kernel does.
func Listen(t *testing.T, namespace, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	Visit(t, namespace, func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Visit is Do in a test.
func Visit(t *testing.T, namespace string, f func() error) {
	t.Helper()
	if err := Do(namespace, f); err != nil {
		t.Fatal(err)
	}
}

// Do runs f on a thread that is inside a namespace of `ip netns`. What f opens stays inside; goroutines that it starts
// do not. The thread comes back out: if it ended instead, the kernel would kill the processes that it had started
// before (prctl(2), PR_SET_PDEATHSIG).
func Do(namespace string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("it did not return") // A test that failed in it.
		defer func() { done <- err }()
		runtime.LockOSThread()
		var returned bool
		if returned, err = enter(namespace, f); returned {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}

// enter runs f inside, and says whether the thread is where it was.
func enter(namespace string, f func() error) (returned bool, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, err
	}
	defer home.Close() //nolint:errcheck // it is read alone
	there, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return true, err
	}
	defer there.Close() //nolint:errcheck // likewise
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter %s: %w", namespace, err)
	}
	err = f()
	return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil, err
}
