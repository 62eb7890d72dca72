package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// What the checks in depth need of the world besides: a second router with hosts behind it, a cloud's
// metadata service, and the way down from the root to the zones.
const (
	farNet       = "198.51.100.128/25" // behind the second router, transit
	transitAddr  = "198.51.100.129"
	metadataAddr = "169.254.169.254"
	metadataIPv6 = "fd00:ec2::254"

	rootServer = "192.0.2.51" // serves the root
	topServer  = "192.0.2.52" // serves what the root delegates: "example"

	overdueZone = "overdue.example" // signed, and the signatures have expired
	lameZone    = "lame.example"    // one of its two servers does not serve it
	leadsZone   = "leads.example"   // its servers are, so says its parent, a metadata service

	sidewaysZone = "sideways.example" // the same, by a server's name in another zone
)

// validating is the region whose resolver validates.
const validating = "ap-south"

// nameServers are the addresses of named.
func nameServers() []string {
	return append([]string{rootServer, topServer, authoritative, refuser}, differingServers()...)
}

// moreZones are the zones beside the one that has a name for each scenario.
func moreZones() []string { return []string{overdueZone, lameZone, leadsZone, sidewaysZone} }

// isFar says whether an address is behind the second router.
func isFar(addr netip.Addr) bool { return netip.MustParsePrefix(farNet).Contains(addr) }

// home is the namespace of a host.
func (w *world) home(h host) space {
	if isFar(h.addr) {
		return w.far
	}
	return w.targets
}

// wireFar makes the second router and what is behind it, and has the kernel send what it sends in
// packets: otherwise a "packet" between namespaces is as large as what one write holds.
func (w *world) wireFar(ctx context.Context) error {
	own := []string{"198.51.100.254/25"}
	for _, h := range w.hosts() {
		if isFar(h.addr) {
			own = append(own, h.addr.String()+"/25")
		}
	}
	err := space("").IP(ctx,
		fmt.Sprintf("link add transit netns %s type veth peer name router netns %s", w.router, w.transit),
		fmt.Sprintf("link add far netns %s type veth peer name eth0 netns %s", w.transit, w.far))
	err = errors.Join(err,
		w.router.IP(ctx, append(up("transit", []string{"10.9.0.1/30"}), "route add "+farNet+" via 10.9.0.2")...),
		w.transit.IP(ctx, append(append(append(up("lo", nil), up("router", []string{"10.9.0.2/30"})...),
			up("far", []string{transitAddr + "/25"})...), "route add default via 10.9.0.1")...),
		w.far.IP(ctx, append(append(up("lo", nil), up("eth0", own)...), "route add default via "+transitAddr)...),
		w.transit.Sysctl(map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/icmp_ratelimit": "0", "net/ipv4/icmp_msgs_per_sec": "100000"}))
	spaces := []space{w.targets}
	for _, a := range w.agents {
		spaces = append(spaces, a.space)
	}
	for _, s := range spaces {
		err = errors.Join(err, s.IP(ctx, "link set eth0 gso_max_segs 1", "link set eth0 gso_max_size 1500"))
	}
	return err
}

// metadataLink is the link of the namespace with the metadata service.
func (w *world) metadataLink() link {
	return link{
		w.metadata, "metadata",
		[]string{"169.254.169.253/30", "fd00:ec2::253/64"},
		[]string{metadataAddr + "/30", metadataIPv6 + "/64"},
	}
}

// serveMetadata starts what must never be asked, and counts what comes to it.
func (w *world) serveMetadata(ctx context.Context) error {
	for _, ip := range []string{metadataAddr, metadataIPv6} {
		at := netip.AddrPortFrom(netip.MustParseAddr(ip), 80)
		err := w.metadata.Do(func() error {
			h, err := probetest.ListenHTTP(at, nil, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = rw.Write([]byte("secret\n")) // The client may be gone.
			}))
			if err == nil {
				w.onClose(func() { _ = h.Close() })
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return w.metadata.NFT(ctx, fmt.Sprintf(`table inet ew-metadata {
	chain input {
		type filter hook input priority 0;
		ip daddr %[1]s tcp flags & (syn | ack) == syn counter
		ip daddr %[1]s meta l4proto != tcp counter
		ip6 daddr %[2]s tcp flags & (syn | ack) == syn counter
		ip6 daddr %[2]s meta l4proto != { tcp, ipv6-icmp } counter
	}
}
`, metadataAddr, metadataIPv6))
}

// zoneFiles are the zones on the way down, and those beside the one of the scenarios.
func zoneFiles() map[string]string {
	head := "$TTL 60\n@ IN SOA a.nic.example. root.nic.example. 1 600 600 600 60\n"
	delegate := func(name, server string, glue ...string) string {
		lines := name + " NS " + server + "\n"
		for _, g := range glue {
			lines += server + " " + kindOf(netip.MustParseAddr(g)) + " " + g + "\n"
		}
		return lines
	}
	top := delegate("lab.example.", "ns.lab.example.", authoritative) + delegate("control.example.", "ns.control.example.", authoritative) +
		"overdue.example. NS ns.lab.example.\n" +
		"sideways.example. NS md-both.lab.example.\n" +
		"lame.example. NS ns.lab.example.\n" + delegate("lame.example.", "ns.lame.example.", refuser) +
		delegate("leads.example.", "ns.leads.example.", metadataAddr, metadataIPv6) + differingDelegations()
	files := map[string]string{
		"zone.root":  head + "@ NS a.nic.example.\na.nic.example. A " + rootServer + "\n" + delegate("example.", "b.nic.example.", topServer) + "com. NS b.nic.example.\nnet. NS b.nic.example.\norg. NS b.nic.example.\n",
		"zone.empty": head + "@ NS b.nic.example.\n",
		"zone.com":   head + "@ NS b.nic.example.\n" + loadBalancer + ". A 203.0.113.240\n",
		"zone.top":   head + "@ NS b.nic.example.\nb.nic.example. A " + topServer + "\na.nic.example. A " + rootServer + "\n" + top,
		lameZone:     head + "@ NS ns.lab.example.\n@ NS ns\nns A " + refuser + "\nwww A 203.0.113.180\n",
		leadsZone:    head + "@ NS ns\nns A " + metadataAddr + "\nns AAAA " + metadataIPv6 + "\nwww A 203.0.113.181\n",
		sidewaysZone: head + "@ NS md-both.lab.example.\nwww A 203.0.113.183\n",
		overdueZone:  head + "@ NS ns.lab.example.\nwww A 203.0.113.182\n",
	}
	maps.Copy(files, differingFiles())
	return files
}

// kindOf is the record type of an address.
func kindOf(ip netip.Addr) string {
	if ip.Is6() {
		return "AAAA"
	}
	return "A"
}

// namedViews are named's views, all but the one that refuses.
func namedViews() string {
	var b strings.Builder
	view := func(name, at string, files map[string]string) {
		fmt.Fprintf(&b, "view %q {\n\tmatch-destinations { %s; };\n", name, at)
		for zone, file := range files {
			fmt.Fprintf(&b, "\tzone %q { type primary; file %q; };\n", zone, file)
		}
		b.WriteString("};\n")
	}
	view("root", rootServer, map[string]string{".": "zone.root"})
	view("top", topServer, map[string]string{"example": "zone.top", "com": "zone.com", someRewrite: "zone.empty", allRewrite: "zone.empty"})
	view("zones", authoritative, map[string]string{
		zone: zone, controlZone: controlZone, lameZone: lameZone, leadsZone: leadsZone, sidewaysZone: sidewaysZone, overdueZone: overdueZone + ".signed",
	})
	return b.String() + differingViews()
}

// signOverdue signs a zone with signatures that have expired.
func (w *world) signOverdue(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(w.dir, overdueZone), []byte(zoneFiles()[overdueZone]), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", overdueZone},
		// One key signs all (-z); the signatures that come out are not verified (-P).
		{"dnssec-signzone", "-S", "-z", "-P", "-o", overdueZone, "-s", "20260101000000", "-e", "20260201000000", overdueZone},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = w.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	return nil
}

// validation is the part of unbound's configuration that says whether it validates: one of them does,
// below one name, and says why it fails.
func (w *world) validation(region string) string {
	if region != validating {
		return "\tmodule-config: \"iterator\"\n"
	}
	return fmt.Sprintf("\tmodule-config: \"validator iterator\"\n\tede: yes\n\ttrust-anchor-file: %q\n",
		filepath.Join(w.dir, "dsset-"+overdueZone+"."))
}

// listener starts what serves on a host, in the host's namespace.
type listener func(w *world, at netip.Addr) ([]closer, error)

// closer is a server, as far as the end of the world is concerned.
type closer interface{ Close() error }

// serveOwn starts a host that is like no other.
func (w *world) serveOwn(h host) error {
	return w.home(h).Do(func() error {
		servers, err := h.listen(w, h.addr)
		for _, s := range slices.DeleteFunc(servers, func(s closer) bool { return s == nil }) {
			w.onClose(func() { _ = s.Close() })
		}
		return err
	})
}

// own is a host that serves in its own way.
func own(addr string, listen listener) host {
	return host{addr: netip.MustParseAddr(addr), listen: listen}
}

// called is a host under another name than the scenario's; "-" is none.
func (h host) called(name string) host {
	h.name = name
	return h
}
