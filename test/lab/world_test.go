package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	namespace "github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// Where the coordinator listens.
const (
	grpcAddr = "10.0.0.10:7700"
	httpAddr = "10.0.0.10:7701"
	natsAddr = "10.0.0.10:7702"
)

// prefix begins the names of the lab's namespaces; the process id follows, so that what is left behind can be told from
// what is in use.
const prefix = "ew-"

// space is a network namespace.
type space = namespace.Named

// removeLeft removes what labs have left behind whose process is gone.
func removeLeft(ctx context.Context) error { return namespace.RemoveLeft(ctx, prefix) }

// world is everything: a router with a link to each namespace, the servers, and the three programs.
type world struct {
	dir, bin string // files of this run; where the binaries are

	router, coordinator, targets, controls, names space
	transit, far, metadata                        space // see world_depth_test.go

	agents    []*vantage
	authority *authority
	issuer    *probetest.CA // with an intermediate, which authority is without
	nobody    *probetest.CA // whom no agent knows
	scenarios []scenario
	wardrobe  wardrobe // see random_faults_test.go
	slow      slowness // see slow_test.go

	closing sync.Once
	mu      sync.Mutex
	spaces  []space
	procs   []*process
	closer  []func()
}

// vantage is one agent's place. Each has a subnet of its own, so that two agents of a region are on
// different networks.
type vantage struct {
	id, region string
	space      space
	net        string // its /16 is the region's, its /24 its own: "10.3.2"
	net6       string // its /64
	resolver   string
	asn        string // empty: the observed address tells its network
	proc       *process
}

// regions are named in the order of their subnets, 10.1.0.0/16 and so on.
func regions() []string { return []string{"us-east", "eu-west", "ap-south", "sa-east"} }

// tools are the programs that the world and the proofs are made with.
func tools() []string {
	return []string{"ip", "nft", "dig", "openssl", "named", "unbound", "knotd", "nsupdate", "dnssec-keygen", "dnssec-signzone", "curl"}
}

// newWorld builds the world, starts everything in it and waits until all agents are there.
func newWorld(t *testing.T, scenarios []scenario) *world {
	t.Helper()
	w := &world{scenarios: scenarios, bin: needs(t)}
	w.dir = filepath.Join(os.TempDir(), fmt.Sprintf("elsewhere-lab-%d", os.Getpid()))
	t.Cleanup(func() { w.close(t.Failed() || *keepFiles) })
	w.closeOnSignal()
	begin := time.Now()
	steps := []func(context.Context) error{removeLeft, w.plan, w.wire, w.wireFar, w.wireCrowd, w.wireDetour, w.serve, w.serveNames, w.serveDiffering, w.serveMetadata}
	if !*faultsOnly {
		steps = append(steps, w.startCoordinator, w.startAgents)
	}
	for _, step := range steps {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the world stands after %.1f s; its files and logs: %s", time.Since(begin).Seconds(), w.dir)
	return w
}

// needs skips the test where there is no world to be had, and returns the directory of the binaries.
func needs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("test/lab makes network namespaces: run it as root")
	}
	for _, tool := range tools() {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("test/lab needs %s (Debian: apt-get install iproute2 nftables bind9 bind9-dnsutils knot unbound openssl curl)", tool)
		}
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"elsewhere", "elsewhere-agent", "elsewhere-coordinator"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil && !*faultsOnly {
			t.Fatalf("%v: run make build first", err)
		}
	}
	return bin
}

// plan names the namespaces and gives the agents their places.
func (w *world) plan(context.Context) error {
	name := func(s string) space {
		full := space(fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), s))
		w.spaces = append(w.spaces, full)
		return full
	}
	w.router, w.coordinator = name("router"), name("coordinator")
	w.targets, w.controls, w.names = name("targets"), name("controls"), name("names")
	w.transit, w.far, w.metadata = name("transit"), name("far"), name("metadata")
	w.agents = fleet()
	for _, a := range w.agents {
		a.space = name(a.id)
	}
	return os.MkdirAll(w.dir, 0o755)
}

// fleet is the agents and their places: two in each region.
func fleet() []*vantage {
	var all []*vantage
	for r, region := range regions() {
		for a := 1; a <= 2; a++ {
			v := &vantage{
				id: fmt.Sprintf("%s-%d", region[:2], a), region: region,
				net: fmt.Sprintf("10.%d.%d", r+1, a), net6: fmt.Sprintf("2001:db8:%d:%d", r+1, a),
				resolver: resolverOf(r),
			}
			if region == "eu-west" { // one region tells its networks by AS number
				v.asn = fmt.Sprint(64500 + a)
			}
			all = append(all, v)
		}
	}
	return all
}

// resolverOf is the address of the recursive resolver of the region with this index.
func resolverOf(region int) string { return fmt.Sprintf("192.0.2.%d", 61+region) }

// link is one namespace's link to the router.
type link struct {
	to       space
	port     string // the router's end
	gateways []string
	own      []string
}

// links are all links of the world. Prefix lengths are part of the addresses.
func (w *world) links() []link {
	all := []link{
		{w.coordinator, "co", []string{"10.0.0.1/24"}, []string{"10.0.0.10/24"}},
		{w.names, "names", []string{"192.0.2.1/24"}, nil},
		w.metadataLink(),
		{
			w.controls, "controls",
			[]string{"198.51.100.1/24", "2001:db8:51::1/64"},
			[]string{"198.51.100.10/24", "198.51.100.11/24", "2001:db8:51::10/64", "2001:db8:51::11/64"},
		},
	}
	for _, server := range append(nameServers(), oldServer, publicName) {
		all[1].own = append(all[1].own, server+"/24")
	}
	for r := range regions() {
		all[1].own = append(all[1].own, resolverOf(r)+"/24")
	}
	targets := link{w.targets, "targets", []string{"203.0.113.1/24", "2001:db8:113::1/64"}, crowdVia()}
	for _, h := range w.hosts() {
		if isFar(h.addr) || isCrowd(h.addr) {
			continue
		}
		bits := "/24"
		if h.addr.Is6() {
			bits = "/64"
		}
		targets.own = append(targets.own, h.addr.String()+bits)
	}
	all = append(all, targets)
	for _, a := range w.agents {
		all = append(all, link{
			a.space, a.id,
			[]string{a.net + ".1/24", a.net6 + "::1/64"},
			[]string{a.net + ".2/24", a.net6 + "::2/64"},
		})
	}
	return all
}

// hosts are the target hosts of all scenarios.
func (w *world) hosts() []host {
	var all []host
	for _, s := range w.scenarios {
		all = append(all, s.hosts...)
	}
	return append(all, silentHosts()...)
}

// wire makes the namespaces and the links.
func (w *world) wire(ctx context.Context) error {
	var spaces, links, ports []string
	for _, s := range w.spaces {
		spaces = append(spaces, "netns add "+string(s))
	}
	if err := space("").IP(ctx, spaces...); err != nil {
		return err
	}
	if err := w.prepare(); err != nil {
		return err
	}
	for _, l := range w.links() {
		links = append(links, fmt.Sprintf("link add %s netns %s type veth peer name eth0 netns %s", l.port, w.router, l.to))
		ports = append(ports, up(l.port, l.gateways)...)
	}
	if err := space("").IP(ctx, links...); err != nil {
		return err
	}
	if err := w.router.IP(ctx, append(up("lo", nil), ports...)...); err != nil {
		return err
	}
	var g errgroup.Group
	for _, l := range w.links() {
		g.Go(func() error { return l.to.IP(ctx, leaf(l)...) })
	}
	return g.Wait()
}

// prepare sets what must be set before there are links.
func (w *world) prepare() error {
	for _, s := range w.spaces {
		// Duplicate address detection keeps link-local addresses unusable for a second or two.
		if err := s.Sysctl(map[string]string{"net/ipv6/conf/default/accept_dad": "0"}); err != nil {
			return err
		}
	}
	return w.router.Sysctl(map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		// Otherwise the kernel holds ICMP errors back and a rejected connect looks like silence.
		"net/ipv4/icmp_ratelimit": "0", "net/ipv4/icmp_msgs_per_sec": "100000", "net/ipv6/icmp/ratelimit": "0",
	})
}

// up is the batch that brings a device up with its addresses, which can be bound at once (nodad).
func up(dev string, addrs []string) []string {
	batch := []string{"link set " + dev + " up"}
	for _, a := range addrs {
		add := "addr add " + a + " dev " + dev
		if strings.Contains(a, ":") {
			add += " nodad"
		}
		batch = append(batch, add)
	}
	return batch
}

// leaf is the batch for the far end of a link: its addresses and its default routes.
func leaf(l link) []string {
	batch := append(up("lo", nil), up("eth0", l.own)...)
	for _, gateway := range l.gateways {
		address, _, _ := strings.Cut(gateway, "/")
		batch = append(batch, "route add default via "+address+" dev eth0")
	}
	return batch
}

// agent is the vantage with this id.
func (w *world) agent(id string) *vantage {
	for _, a := range w.agents {
		if a.id == id {
			return a
		}
	}
	panic("no agent " + id)
}

// onClose adds something to be done when the world ends.
func (w *world) onClose(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closer = append(w.closer, f)
}

// closeOnSignal ends the world in order if the test is interrupted, since testing would not.
func (w *world) closeOnSignal() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-interrupted; ok {
			w.close(*keepFiles)
			os.Exit(130)
		}
	}()
	w.onClose(func() { signal.Stop(interrupted); close(interrupted) })
}

// close ends all processes and removes all namespaces; the files too, unless they should be kept.
// A second caller waits for the first.
func (w *world) close(keep bool) { w.closing.Do(func() { w.tearDown(keep) }) }

// tearDown does not use the test's context, which has ended by then.
func (w *world) tearDown(keep bool) {
	w.mu.Lock()
	procs, closer, spaces := w.procs, w.closer, w.spaces
	w.procs, w.closer, w.spaces = nil, nil, nil
	w.mu.Unlock()
	for _, p := range procs {
		if keep {
			p.dump()
		}
		p.kill()
	}
	for _, f := range closer {
		f()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, s := range spaces {
		_ = s.Remove(ctx) // it may never have been made; a later run removes what is left
	}
	if !keep {
		_ = os.RemoveAll(w.dir)
	}
}
