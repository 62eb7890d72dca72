package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	namespace "github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// Where the coordinator is, and the targets. A namespace's link to the core has a /24 of its own.
const (
	coreIP = "10.77.1.1" // on the link to the first coordinator
	// coordinatorIPs are where coordinators are, one or three, in the words of nftables.
	coordinatorIPs = "{ 10.77.1.2, 10.77.8.2, 10.77.9.2 }"
	targetsIP      = "10.77.2.2"
	targetNet      = "198.18.0.0/15" // for benchmarks (RFC 2544): each address of it is a target
	spareIP        = "10.77.4.2"
	control        = "198.18.255.1:443"
	// silentNet never answers.
	silentNet = "198.18.9.0/24"
	// forbidden is where no agent may ever send a packet to.
	forbidden = "{ 10.66.0.0/16, 169.254.169.254 }"
	// region is where the world's own agents say that they stand.
	region = "chaos"
)

const (
	coordinatorDisk = 1 << 30 // half an hour, and beside it what is restored of that
	agentDisk       = 48 << 20
)

// prefix begins the names of this package's namespaces; the process id follows, so that what is left behind can be told
// from what is in use.
const prefix = "ewc-"

// space is a network namespace.
type space = namespace.Named

// world is a network: a core that routes, one coordinator or three, agents, targets, each in a namespace of its own.
type world struct {
	t    testing.TB
	name string // of the world, where there are several
	dir  string
	bin  string
	tls  bool
	// unsafe has the coordinator acknowledge what its disk does not have yet.
	unsafe bool
	// life is how long agents' certificates are good. Default: as long as ever.
	life time.Duration
	log  func(format string, args ...any)

	// several has three coordinators be one service.
	several bool

	core, targets, nowhere, spare, hostile, captive space

	coordinators []*coordinator
	coordinator  *coordinator // the first of them
	agents       []*agent
	lives        lives
	load         *load
	visits       visits
	decisions    decisions
	herds        int          // how often the herd had to be made anew
	evils        atomic.Int64 // how many hostile programs there were
	trust        sync.Mutex   // held by a fault that is about trust

	closing sync.Once
	spaces  []space
	closers []func()
}

// agent is one agent of the world.
type agent struct {
	*program
	id    string
	ip    string
	disk  *disk  // its own; nil: its data are in a directory
	data  string // where its data are
	token string // with which it enrols
	// captive is when a hostile coordinator stood in its way; under program.mu.
	captive []history.Span
}

// newWorld builds a world of so many agents, and starts everything.
func newWorld(t testing.TB, w *world, agents int) *world {
	t.Helper()
	w.t, w.bin, w.tls, w.log = t, needs(t), !*insecurely, t.Logf
	w.dir = filepath.Join(os.TempDir(), fmt.Sprintf("elsewhere-chaos-%d-%s", os.Getpid(), w.name))
	w.lives.world = w
	t.Cleanup(func() { w.close(!t.Failed() && !*keepFiles) })
	w.closeOnSignal()
	ctx := t.Context()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return namespace.RemoveLeft(ctx, prefix) }, removeDirs,
		func(ctx context.Context) error { return w.wire(ctx, agents) }, w.makeDisks, w.listenAtTargets, w.startCoordinators, w.startAgents,
	} {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.load = newLoad(w)
	return w
}

// needs skips the test where there is no world to be had, and returns the directory of the binaries.
func needs(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("test/chaos makes network namespaces and mounts disks: run it as root")
	}
	for _, tool := range []string{"ip", "nft", "nsenter", "mkfs.ext4", "mount", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("test/chaos needs %s (Debian: apt-get install iproute2 nftables util-linux e2fsprogs mount)", tool)
		}
	}
	bin, err := filepath.Abs(*binDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"elsewhere", "elsewhere-agent", "elsewhere-coordinator", "hostile-agent", "hostile-coordinator"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run it by `make chaos`, which builds the programs for it", err)
		}
	}
	return bin
}

// wire makes the namespaces and their links.
func (w *world) wire(ctx context.Context, agents int) error {
	w.core = w.space("core")
	w.targets, w.nowhere, w.spare = w.space("targets"), w.space("nowhere"), w.space("spare")
	w.hostile, w.captive = w.space("hostile"), w.space("captive")
	places := map[int]space{2: w.targets, 3: w.nowhere, 4: w.spare, 5: w.hostile, 6: w.captive}
	if w.several {
		w.coordinators = []*coordinator{w.newCoordinator("c-1", 1), w.newCoordinator("c-2", 8), w.newCoordinator("c-3", 9)}
		places[8], places[9] = w.coordinators[1].where, w.coordinators[2].where
	} else {
		w.coordinators = []*coordinator{w.newCoordinator("coordinator", 1)}
	}
	w.coordinator = w.coordinators[0]
	places[1] = w.coordinator.where
	const firstAgent = 11
	for i := range agents {
		id := fmt.Sprintf("agent-%d", i+1)
		a := &agent{id: id, ip: fmt.Sprintf("10.77.%d.2", firstAgent+i), data: filepath.Join(w.dir, id)}
		where := w.space(id)
		a.program = &program{w: w, name: id, where: where, args: func() []string { return w.agentArgs(a) }}
		w.agents = append(w.agents, a)
		places[firstAgent+i] = where
	}
	var errs []error
	for _, s := range w.spaces {
		errs = append(errs, space("").IP(ctx, "netns add "+string(s)), s.IP(ctx, "link set lo up"))
	}
	for number, s := range places {
		errs = append(errs, w.link(ctx, s, number))
	}
	return errors.Join(append(errs,
		w.core.Sysctl(map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0"}),
		w.core.IP(ctx, "route add "+targetNet+" via "+targetsIP, "route add 10.66.0.0/16 via 10.77.3.2", "route add 169.254.169.254 via 10.77.3.2"),
		w.targets.IP(ctx, "route add local "+targetNet+" dev lo"),
		w.targets.NFT(ctx, "table inet silent { chain input { type filter hook input priority 0; ip daddr "+silentNet+" drop\n}\n}\n"),
		w.core.NFT(ctx, untracked),
		w.core.NFT(ctx, "table inet fault_never { chain forward { type filter hook forward priority -5; ip daddr "+forbidden+" counter drop\n}\n}\n"),
	)...)
}

// link connects a namespace to the core, which is its gateway.
func (w *world) link(ctx context.Context, s space, number int) error {
	port := fmt.Sprintf("to%d", number)
	return errors.Join(
		w.core.IP(ctx,
			fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port, s),
			fmt.Sprintf("addr add 10.77.%d.1/24 dev %s", number, port),
			"link set "+port+" up"),
		s.IP(ctx, fmt.Sprintf("addr add 10.77.%d.2/24 dev eth0", number), "link set eth0 up", fmt.Sprintf("route add default via 10.77.%d.1", number)),
	)
}

func (w *world) space(name string) space {
	s := space(fmt.Sprintf("%s%d-%s-%s", prefix, os.Getpid(), w.name, name))
	w.spaces = append(w.spaces, s)
	return s
}

// makeDisks gives each coordinator and the first agent a disk each, on a file system in memory that stands for
// the medium.
func (w *world) makeDisks(ctx context.Context) (err error) {
	medium := filepath.Join(w.dir, "medium")
	if err := os.MkdirAll(medium, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", medium, "tmpfs", 0, "size=4g"); err != nil {
		return fmt.Errorf("a tmpfs: %w", err)
	}
	for _, c := range w.coordinators {
		if c.disk, err = newDisk(ctx, medium, c.name, coordinatorDisk); err != nil {
			return err
		}
	}
	first := w.agents[0]
	first.disk, err = newDisk(ctx, medium, first.id, agentDisk)
	first.data = filepath.Join(medium, first.id, "data")
	return err
}

// startAgents starts all agents and waits until each has answered.
func (w *world) startAgents(ctx context.Context) error {
	var errs []error
	for _, a := range w.agents {
		if w.tls {
			token, err := w.joinToken(ctx, a.id, region)
			if a.token = token; err != nil {
				return err
			}
		}
		errs = append(errs, a.start(ctx))
	}
	return errors.Join(errs...)
}

func (w *world) agentArgs(a *agent) []string {
	args := []string{
		filepath.Join(w.bin, "elsewhere-agent"), "--coordinator", strings.Join(w.grpcAddrs(), ","), "--data-dir", a.data, "--id", a.id,
		"--resolver", targetsIP, "--root-server", targetsIP, "--control", control, "--allow-target", targetNet,
	}
	if w.tls {
		return append(args, "--join", a.token)
	}
	return append(args, "--region", region, "--insecure")
}

// onClose has fn called when the world ends, what was asked for last first.
func (w *world) onClose(fn func()) { w.closers = append(w.closers, fn) }

// closeOnSignal ends the world on Ctrl-C, and then the test.
func (w *world) closeOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if s, ok := <-signals; ok {
			w.close(!*keepFiles)
			fmt.Fprintln(os.Stderr, "ended by", s)
			os.Exit(130)
		}
	}()
	w.onClose(func() {
		signal.Stop(signals)
		close(signals)
	})
}

// close ends everything; the files go too, if they are not wanted any more.
func (w *world) close(forget bool) {
	w.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for i := range w.closers {
			w.closers[len(w.closers)-1-i]()
		}
		var errs []error
		for _, s := range w.spaces {
			errs = append(errs, s.Remove(ctx))
		}
		errs = append(errs, unmountBelow(w.dir))
		if forget {
			errs = append(errs, os.RemoveAll(w.dir))
		} else {
			w.log("what is left of it: %s", w.dir)
		}
		if err := errors.Join(errs...); err != nil {
			w.log("the world did not end well: %v", err)
		}
	})
}

// tail is the end of a log.
func tail(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-600):]))
}

// visits is what the targets saw.
type visits struct {
	mu  sync.Mutex
	all []history.Visit
}

// listenAtTargets accepts connections at every address of the targets, and notes them.
func (w *world) listenAtTargets(ctx context.Context) error {
	listener, err := w.targets.Listen(ctx, "0.0.0.0:443")
	if err != nil {
		return err
	}
	w.onClose(func() { _ = listener.Close() })
	names := map[string]string{}
	for _, a := range w.agents {
		names[a.ip] = a.id
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			from, target := host(conn.RemoteAddr()), host(conn.LocalAddr())
			go func() { // as a server does that waits for what its client has to say
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
			if name := names[from]; name != "" {
				from = name
			}
			w.visits.add(history.Visit{At: time.Now(), From: from, Target: target})
		}
	}()
	return nil
}

func (v *visits) add(one history.Visit) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, one)
}
