package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Zones whose servers do not say the same to everybody, and where they are: Debian's named, knotd and
// unbound.
const (
	geoZone   = "geo.example"   // each region gets an answer of its own
	splitZone = "split.example" // one of its two servers has old data
	movedZone = "moved.example" // changes while the world stands
	muteZone  = "mute.example"  // its server is not heard by agents
	swapZone  = "swap.example"  // its parent names other servers than it does itself

	someRewrite = "net" // nothing is in it, and one region's resolver (rewriting) asks who gives an address for that
	allRewrite  = "org" // the same, and all regions' resolvers do

	geoServer   = "192.0.2.71" // named, with a view for each region
	newServer   = "192.0.2.72" // named
	oldServer   = "192.0.2.73" // knotd, with a serial that is one behind
	movedServer = "192.0.2.74" // named, which takes updates
	muteServer  = "192.0.2.75" // named
	publicName  = "192.0.2.66" // unbound, a resolver for everybody
	rewriter    = "192.0.2.67" // named, a provider's resolver that sends whoever mistypes a name to its search page

	searchPage = "198.18.200.90"
)

// rewriting is the region whose resolver rewrites where others do not.
const rewriting = "eu-west"

// differing are the zones of this file with their servers, as resolvers ask them.
func differing() map[string][]string {
	return map[string][]string{
		geoZone: {geoServer}, splitZone: {newServer, oldServer}, movedZone: {movedServer}, swapZone: {newServer}, muteZone: {muteServer},
	}
}

// differingServers are named's addresses for these zones, and as the resolver that rewrites.
func differingServers() []string {
	return []string{geoServer, newServer, movedServer, muteServer, rewriter}
}

// forwarded are the zones that a region's resolver asks another resolver for, the one that rewrites.
func forwarded(region string) []string {
	switch region {
	case rewriting:
		return []string{someRewrite, allRewrite}
	case "": // everybody's
		return nil
	}
	return []string{allRewrite}
}

// geoAddress is what a region gets for www of the zone that answers by region.
func geoAddress(region int) string { return fmt.Sprintf("203.0.113.%d", 211+region) }

// differingFiles are the files of these zones.
func differingFiles() map[string]string {
	head := func(serial int, servers ...string) string {
		text := fmt.Sprintf("$TTL 300\n@ IN SOA ns1 root %d 600 600 600 60\n", serial)
		for i, server := range servers {
			text += fmt.Sprintf("@ NS ns%[1]d\nns%[1]d A %[2]s\n", i+1, server)
		}
		return text
	}
	files := map[string]string{
		"split.new": head(2, newServer, oldServer) + "www A 203.0.113.221\n",
		"split.old": head(1, newServer, oldServer) + "www A 203.0.113.222\n",
		movedZone:   head(1, movedServer) + "www A 203.0.113.223\nold A 203.0.113.224\n",
		muteZone:    head(1, muteServer) + "www A 203.0.113.231\n",
		"rewritten": "$TTL 300\n@ IN SOA ns1 root 1 600 600 600 60\n@ NS ns1\n*." + someRewrite + ". A " + searchPage + "\n*." + allRewrite + ". A " + searchPage + "\n",
		"roothints": ". 3600 NS a.nic.example.\na.nic.example. 3600 A " + rootServer + "\n",
		swapZone:    head(1, newServer) + "@ NS ns9\nns9 A " + movedServer + "\nwww A 203.0.113.226\n",
	}
	for r := range regions() {
		files["geo."+regions()[r]] = head(1, geoServer) + "www A " + geoAddress(r) + "\n"
	}
	return files
}

// differingDelegations are the lines of the parent. The parent of swapZone names oldServer too, which
// the zone does not.
func differingDelegations() string {
	var b strings.Builder
	for name, servers := range differing() {
		if name == swapZone {
			servers = []string{newServer, oldServer}
		}
		for i, server := range servers {
			fmt.Fprintf(&b, "%[1]s. NS ns%[2]d.%[1]s.\nns%[2]d.%[1]s. A %[3]s\n", name, i+1, server)
		}
	}
	return b.String()
}

// differingViews are named's views for these zones.
func differingViews() string {
	var b strings.Builder
	for r, region := range regions() {
		fmt.Fprintf(&b, "view \"geo-%s\" {\n\tmatch-destinations { %s; };\n\tmatch-clients { %s; 10.%d.0.0/16; };\n\tzone %q { type primary; file \"geo.%s\"; };\n};\n",
			region, geoServer, resolverOf(r), r+1, geoZone, region)
	}
	fmt.Fprintf(&b, "view \"new\" {\n\tmatch-destinations { %s; };\n\tzone %q { type primary; file \"split.new\"; };\n\tzone %q { type primary; file %q; };\n};\n",
		newServer, splitZone, swapZone, swapZone)
	fmt.Fprintf(&b, "view \"moved\" {\n\tmatch-destinations { %s; };\n\tzone %q { type primary; file %q; allow-update { any; }; };\n\tzone %q { type primary; file %q; };\n};\n",
		movedServer, movedZone, movedZone, swapZone, swapZone)
	fmt.Fprintf(&b, "view \"mute\" {\n\tmatch-destinations { %s; };\n\tzone %q { type primary; file %q; };\n};\n", muteServer, muteZone, muteZone)
	// What does not exist is looked up in the redirect zone (BIND 9 ARM, "type redirect").
	fmt.Fprintf(&b, "view \"rewrites\" {\n\tmatch-destinations { %s; };\n\trecursion yes;\n\tallow-recursion { any; };\n\tquery-source address %[1]s;\n"+
		"\tzone \".\" { type hint; file \"roothints\"; };\n\tzone \".\" { type redirect; file \"rewritten\"; };\n};\n", rewriter)
	return b.String()
}

// serveDiffering starts knotd, with the old data of one zone and all of another.
func (w *world) serveDiffering(ctx context.Context) error {
	conf := fmt.Sprintf(`server:
    listen: %s@53
    rundir: %q
database:
    storage: %q
log:
  - target: stdout
    any: info
zone:
  - domain: %s
    file: %q
  - domain: %s
    file: %q
`, oldServer, w.dir, filepath.Join(w.dir, "knot"), splitZone, filepath.Join(w.dir, "split.old"), swapZone, filepath.Join(w.dir, swapZone))
	if err := os.WriteFile(filepath.Join(w.dir, "knot.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	if _, err := w.start(ctx, w.names, "knotd", "knotd", "-c", filepath.Join(w.dir, "knot.conf")); err != nil {
		return err
	}
	if err := w.listening(ctx, w.names, oldServer+":53"); err != nil {
		return err
	}
	if _, err := w.start(ctx, w.names, "unbound-public", "unbound", "-d", "-c", filepath.Join(w.dir, "unbound-public.conf")); err != nil {
		return err
	}
	return w.listening(ctx, w.names, publicName+":53")
}

// update changes the zone that takes updates, by lines of nsupdate.
func (w *world) update(ctx context.Context, lines ...string) error {
	cmd := w.names.Command(ctx, "nsupdate")
	cmd.Stdin = strings.NewReader("server " + movedServer + "\nzone " + movedZone + "\n" + strings.Join(lines, "\n") + "\nsend\n")
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		return fmt.Errorf("nsupdate: %w: %s", err, out)
	}
	return nil
}

// prime has the resolver of a region ask for a name, and keep the answer.
func (w *world) prime(ctx context.Context, agent, name string) error {
	_, err := dig(ctx, w.agent(agent), name)
	return err
}

// second is a second in which a cached answer becomes a second older.
func second(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 1100*time.Millisecond)
	defer stop()
	<-ctx.Done()
	return nil
}
