package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Where things are in the world of the peers. All servers stand behind two routers:
//
//	home 10.0.0.10 ── near ── 10.8.0.0/24 ── far ── there 203.0.113.0/24, 192.0.2.0/24
//
// The agent, the command line and the peers' tools are at home, so that all of them look from one
// place. The faults are the far router's.
const (
	homeAddr, homeAddr6 = "10.0.0.10", "2001:db8:1::10"
	nearAddr            = "10.0.0.1"
	farAddr, farAddr6   = "10.8.0.2", "2001:db8:8::2"

	peersZone    = "peers.example"
	nameRoot     = "192.0.2.51" // named: the root
	nameTop      = "192.0.2.52" // named: what the root delegates
	nameServer   = "192.0.2.53" // named: what is below that
	nameSecond   = "192.0.2.57" // named: an older copy of a zone
	nameServer6  = "2001:db8:113::53"
	nameRefuser  = "192.0.2.54" // named: refuses everything
	nameResolver = "192.0.2.61" // unbound: validates
	nameNobody   = "192.0.2.62" // an address without a name server
	nameSilent   = "192.0.2.63" // an address whose queries are dropped on the way
	aiaAddr      = "203.0.113.10"
	badAddr6     = "2001:db8:113::10" // serves what is expired
)

// peerWorld is the world in which Elsewhere and other tools are asked the same questions.
type peerWorld struct {
	*world
	home, near, far, there space

	pki    *pki
	sites  []*site
	suites suiteNames
}

// peerTools are the programs that Elsewhere is compared with, and those that serve.
func peerTools() []string {
	return []string{
		"ip", "nft", "dig", "kdig", "named", "unbound", "dnssec-keygen", "dnssec-signzone", "openssl", "gnutls-serv",
		"selfserv", "certutil", "pk12util", "nmap", "testssl", "tcptraceroute", "curl", "nginx",
	}
}

const peerPackages = "bind9 bind9-dnsutils knot-dnsutils unbound openssl gnutls-bin libnss3-tools nmap testssl.sh tcptraceroute curl nginx-light"

// newPeerWorld builds the world and starts everything in it.
func newPeerWorld(t *testing.T) *peerWorld {
	t.Helper()
	bin := needs(t)
	for _, tool := range peerTools() {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the comparison needs %s (Debian: apt-get install %s)", tool, peerPackages)
		}
	}
	w := &peerWorld{world: &world{bin: bin, dir: filepath.Join(os.TempDir(), fmt.Sprintf("elsewhere-peers-%d", os.Getpid()))}}
	t.Cleanup(func() { w.close(t.Failed() || *keepFiles) })
	w.closeOnSignal()
	begin := time.Now()
	for _, step := range []func(context.Context) error{
		removeLeft, w.plan, w.wire, w.raiseFaults, w.makeCertificates, w.serveZones, w.serveSites, w.serveIssuer, w.serveQUIC, w.startPeerAgent,
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the world stands after %.1f s; its files and logs: %s", time.Since(begin).Seconds(), w.dir)
	return w
}

// plan names the namespaces.
func (w *peerWorld) plan(context.Context) error {
	for name, s := range map[string]*space{"home": &w.home, "near": &w.near, "far": &w.far, "there": &w.there} {
		*s = space(fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), name))
		w.spaces = append(w.spaces, *s)
	}
	w.coordinator, w.router = w.home, w.far
	w.sites = allSites()
	return os.MkdirAll(w.dir, 0o755)
}

// wire makes the namespaces, the links and the routes.
func (w *peerWorld) wire(ctx context.Context) error {
	var spaces []string
	for _, s := range w.spaces {
		spaces = append(spaces, "netns add "+string(s))
	}
	if err := space("").IP(ctx, spaces...); err != nil {
		return err
	}
	for _, s := range w.spaces {
		if err := w.quicken(s); err != nil {
			return err
		}
	}
	if err := space("").IP(ctx,
		fmt.Sprintf("link add home netns %s type veth peer name eth0 netns %s", w.near, w.home),
		fmt.Sprintf("link add far netns %s type veth peer name near netns %s", w.near, w.far),
		fmt.Sprintf("link add there netns %s type veth peer name eth0 netns %s", w.far, w.there),
	); err != nil {
		return err
	}
	var g errgroup.Group
	for s, batch := range w.ends() {
		g.Go(func() error { return s.IP(ctx, append(up("lo", nil), batch...)...) })
	}
	return g.Wait()
}

// quicken has a namespace forward, and answer at once what it would otherwise hold back: ICMP errors,
// and addresses that it looks for duplicates of.
func (w *peerWorld) quicken(s space) error {
	return s.Sysctl(map[string]string{
		"net/ipv6/conf/default/accept_dad": "0", "net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		"net/ipv4/icmp_ratelimit": "0", "net/ipv4/icmp_msgs_per_sec": "100000", "net/ipv6/icmp/ratelimit": "0",
	})
}

// ends are the addresses and routes of each namespace.
func (w *peerWorld) ends() map[space][]string {
	there := []string{"2001:db8:113::53/64", "2001:db8:113::10/64"}
	for _, a := range []string{nameRoot, nameTop, nameServer, nameSecond, nameRefuser, nameResolver, nameNobody, nameSilent} {
		there = append(there, a+"/24")
	}
	for i := 5; i < 250; i++ {
		there = append(there, fmt.Sprintf("203.0.113.%d/24", i))
	}
	route := func(to, via string) string { return "route add " + to + " via " + via }
	return map[space][]string{
		w.home: append(up("eth0", []string{homeAddr + "/24", homeAddr6 + "/64"}),
			route("default", nearAddr), route("default", "2001:db8:1::1")),
		w.near: append(append(up("home", []string{nearAddr + "/24", "2001:db8:1::1/64"}), up("far", []string{"10.8.0.1/24", "2001:db8:8::1/64"})...),
			route("default", farAddr), route("default", farAddr6)),
		w.far: append(append(up("near", []string{farAddr + "/24", farAddr6 + "/64"}), up("there", []string{"203.0.113.1/24", "192.0.2.1/24", "2001:db8:113::1/64"})...),
			route("10.0.0.0/24", "10.8.0.1"), route("2001:db8:1::/64", "2001:db8:8::1")),
		w.there: append(up("eth0", there), route("default", "203.0.113.1"), route("default", "2001:db8:113::1")),
	}
}

// raiseFaults has the far router reject and drop, by port.
func (w *peerWorld) raiseFaults(ctx context.Context) error {
	var b strings.Builder
	for port, how := range map[int]string{
		1001: "drop",
		1002: "reject with icmp type port-unreachable", 1003: "reject with icmp type admin-prohibited",
		1004: "reject with icmp type host-unreachable", 1005: "reject with icmp type net-unreachable",
		1006: "reject with icmp type host-prohibited", 1007: "reject with icmp type net-prohibited",
		1008: "reject with icmp type prot-unreachable", 1009: "reject with tcp reset",
		1012: "reject with icmpv6 type port-unreachable", 1013: "reject with icmpv6 type admin-prohibited",
		1014: "reject with icmpv6 type addr-unreachable", 1015: "reject with icmpv6 type no-route",
	} {
		fmt.Fprintf(&b, "tcp dport %d %s\n", port, how)
	}
	return w.far.NFT(ctx, fmt.Sprintf(`table inet peers {
	chain forward {
		type filter hook forward priority 0;
		%s
		ip daddr %s drop
	}
}`, b.String(), nameSilent))
}

// startPeerAgent starts the coordinator and the one agent, and waits until it is there.
func (w *peerWorld) startPeerAgent(ctx context.Context) error {
	if err := w.startCoordinator(ctx); err != nil {
		return err
	}
	a := &vantage{id: "home-1", region: "home", space: w.home, resolver: nameResolver}
	w.agents = []*vantage{a}
	join, err := w.join(ctx, a)
	if err != nil {
		return err
	}
	a.proc, err = w.start(ctx, a.space, a.id, append([]string{
		filepath.Join(w.bin, "elsewhere-agent"), "--coordinator", grpcAddr, "--data-dir", filepath.Join(w.dir, a.id), "--id", a.id, "--region", a.region,
		"--resolver", a.resolver, "--root-server", nameRoot, "--roots", w.pki.file("root"), "--control", "good." + peersZone + ":443",
		"--allow-target", "203.0.113.0/24", "--allow-target", "192.0.2.0/24", "--allow-target", "2001:db8::/32",
	}, join...)...)
	if err == nil {
		w.suites, err = openSSLSuites(ctx, w)
	}
	return errors.Join(err, w.online(ctx))
}

// write writes a file of the world and returns its path.
func (w *peerWorld) write(name, text string) (string, error) {
	path := filepath.Join(w.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}
