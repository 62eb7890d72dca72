package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// signed says how a zone is signed.
type signed int

const (
	unsigned   signed = iota
	valid             // by dnssec-signzone, for the time being
	overdue           // the signatures expired long ago
	keyless           // the parent has a DS RRset, and the zone no keys
	unattached        // signed, and the parent has no DS RRset
)

// peerZone is a zone of named.
type peerZone struct {
	name    string
	view    string
	signed  signed
	serial  int
	records string
}

// soa is what every zone begins with.
const soa = "$TTL 300\n@ 600 IN SOA ns1.peers.example. root.peers.example. %d 7200 900 1209600 60\n"

// serial is that of all zones; the older copy's is one less.
const zoneSerial = 2026112201

// peerZones are the zones, children before their parents, whose DS RRsets come from them.
func (w *peerWorld) peerZones() []peerZone {
	delegate := func(name, server, glue string) string {
		return fmt.Sprintf("%s 172800 IN NS %s\n%[2]s 172800 IN A %[3]s\n", name, server, glue)
	}
	example := "@ NS b.nic.example.\nb.nic A " + nameTop + "\na.nic A " + nameRoot + "\n"
	for _, name := range []string{"peers", "expired", "nokey", "plain", "unsynced"} {
		example += delegate(name+".example.", "ns1.peers.example.", nameServer)
	}
	example += delegate("unsynced.example.", "ns.unsynced.example.", nameSecond)
	example += delegate("lame.example.", "ns.lame.example.", nameRefuser)
	unsynced := "@ NS ns1.peers.example.\n@ NS ns\nns A " + nameSecond + "\n"
	return []peerZone{
		{peersZone, "zones", valid, zoneSerial, w.peerRecords()},
		{"expired.example", "zones", overdue, zoneSerial, "@ NS ns1.peers.example.\n@ A 203.0.113.20\n"},
		{"nokey.example", "zones", keyless, zoneSerial, "@ NS ns1.peers.example.\n@ A 203.0.113.20\n"},
		{"plain.example", "zones", unsigned, zoneSerial, "@ NS ns1.peers.example.\n@ A 203.0.113.20\n@ AAAA 2001:db8:113::10\n" +
			"over CNAME www.peers.example.\nv6only AAAA 2001:db8:113::10\n"},
		{"unsynced.example", "zones", unsigned, zoneSerial, unsynced + "www A 203.0.113.20\n"},
		{"unsynced.example", "second", unsigned, zoneSerial - 1, unsynced + "www A 203.0.113.21\n"},
		{"113.0.203.in-addr.arpa", "zones", unsigned, zoneSerial, "@ NS ns1.peers.example.\n20 PTR www.peers.example.\n"},
		{"example", "top", valid, zoneSerial, example},
		{".", "root", valid, zoneSerial, "@ NS a.nic.example.\n" + "a.nic.example. 172800 IN A " + nameRoot + "\n" +
			delegate("example.", "b.nic.example.", nameTop) +
			delegate("113.0.203.in-addr.arpa.", "ns1.peers.example.", nameServer)},
	}
}

// peerRecords are the records of the zone that most questions are about, one of each type.
func (w *peerWorld) peerRecords() string {
	var b strings.Builder
	b.WriteString(`@ NS ns1.peers.example.
@ NS ns2.peers.example.
ns1 A ` + nameServer + `
ns1 AAAA ` + nameServer6 + `
ns2 A ` + nameServer + `
@ MX 10 mail.peers.example.
@ MX 20 backup.plain.example.
@ CAA 0 issue "ca.example; account=1"
@ CAA 128 iodef "mailto:root@peers.example"
@ TXT "v=spf1 -all" "second \"quoted\" string"
www A 203.0.113.20
www A 203.0.113.21
www AAAA 2001:db8:113::10
short 30 A 203.0.113.22
alias CNAME www
one CNAME two
two CNAME three.plain.example.
cross CNAME over.plain.example.
loop CNAME pool
pool CNAME loop
dangling CNAME nowhere.plain.example.
_sip._tcp SRV 10 60 5060 sip.peers.example.
_443._tcp.www TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
host SSHFP 4 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
naptr NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:info@peers.example!" .
svc HTTPS 1 . alpn="h3,h2" ipv4hint=203.0.113.20 port=8443
_dns SVCB 1 ns1.peers.example. alpn=dot,doq port=853
odd TYPE65280 \# 4 0a000001
xn--bcher-kva A 203.0.113.23
*.wild A 203.0.113.24
v6only AAAA 2001:db8:113::10
`)
	for i := range 40 { // more than a UDP reply of 1,232 bytes takes
		fmt.Fprintf(&b, "big TXT \"%02d %s\"\n", i, strings.Repeat("x", 60))
	}
	for i := range 12 { // more than 512 bytes, less than 1,232
		fmt.Fprintf(&b, "medium TXT \"%02d %s\"\n", i, strings.Repeat("y", 60))
	}
	for _, s := range w.sites {
		fmt.Fprintf(&b, "%s A %s\n", s.name, s.addr)
	}
	good, bad := w.site("good"), w.site("expired")
	fmt.Fprintf(&b, "pair A %s\npair A %s\n", good.addr, bad.addr)
	fmt.Fprintf(&b, "both A %s\nboth AAAA %s\n", good.addr, badAddr6)
	return b.String()
}

// serveZones signs the zones and starts named and unbound.
func (w *peerWorld) serveZones(ctx context.Context) error {
	views := make(map[string]string) // The zones of each view, as named's configuration has them.
	for _, z := range w.peerZones() {
		file, err := w.makeZone(ctx, z)
		if err != nil {
			return err
		}
		views[z.view] += fmt.Sprintf("\tzone %q { type primary; file %q; };\n", z.name, file)
	}
	conf, err := w.write("named.conf", w.peerNamedConf(views))
	if err != nil {
		return err
	}
	if _, err := w.start(ctx, w.there, "named", "named", "-g", "-n", "1", "-c", conf); err != nil {
		return err
	}
	anchor, err := os.ReadFile(filepath.Join(w.dir, "dsset-."))
	if err != nil {
		return err
	}
	hints, err := w.write("hints", ". 3600000 NS a.nic.example.\na.nic.example. 3600000 A "+nameRoot+"\n")
	if err != nil {
		return err
	}
	conf, err = w.write("unbound.conf", w.peerUnboundConf(hints, string(anchor)))
	if err != nil {
		return err
	}
	if _, err = w.start(ctx, w.there, "unbound", "unbound", "-d", "-c", conf); err != nil {
		return err
	}
	for _, at := range []string{nameServer + ":53", nameServer + ":853", nameServer + ":443", nameRoot + ":53", nameRefuser + ":53", nameResolver + ":53"} {
		err = errors.Join(err, w.listening(ctx, w.there, at))
	}
	return err
}

// makeZone writes a zone, and signs it. It returns the file that is served.
func (w *peerWorld) makeZone(ctx context.Context, z peerZone) (string, error) {
	text := fmt.Sprintf(soa, z.serial) + z.records
	for _, child := range w.peerZones() {
		if parent(child.name) == z.name && (child.signed == valid || child.signed == overdue || child.signed == keyless) {
			text += "$INCLUDE " + filepath.Join(w.dir, "dsset-"+child.name+".") + "\n"
		}
	}
	path, err := w.write("zone."+z.view+"."+z.name, text)
	if err != nil || z.signed == unsigned {
		return path, err
	}
	origin := strings.TrimSuffix(z.name, ".") + "."
	if err := w.tool(ctx, "dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", "-K", w.dir, origin); err != nil {
		return "", err
	}
	// One key signs all (-z). The DS set of the zone is left beside it, for the parent.
	args := []string{"dnssec-signzone", "-S", "-z", "-K", w.dir, "-d", w.dir, "-o", origin, "-N", "keep", "-f", path + ".signed"}
	if z.signed == overdue {
		args = append(args, "-P", "-X", "20361231000000", "-s", "20260101000000", "-e", "20260201000000")
	}
	if err := w.tool(ctx, append(args, path)...); err != nil {
		return "", err
	}
	if z.signed == keyless {
		return path, nil
	}
	return path + ".signed", nil
}

// parent returns the zone that delegates a zone.
func parent(name string) string {
	switch {
	case strings.HasSuffix(name, ".example"):
		return "example"
	case name == ".":
		return ""
	}
	return "."
}

// tool runs a program in the world's directory, outside of any namespace.
func (w *peerWorld) tool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// peerNamedConf serves all zones over every transport that named has.
func (w *peerWorld) peerNamedConf(views map[string]string) string {
	var text strings.Builder
	for _, v := range []struct{ name, at string }{
		{"root", nameRoot},
		{"top", nameTop},
		{"zones", nameServer + "; " + nameServer6},
		{"second", nameSecond},
		{"refuses", nameRefuser},
	} {
		fmt.Fprintf(&text, "view %q { match-destinations { %s; };\n%s};\n", v.name, v.at, views[v.name])
	}
	return fmt.Sprintf(`tls peers { cert-file %q; key-file %q; };
http peers { endpoints { "/dns-query"; }; };
options {
	directory %q; pid-file none; session-keyfile none; lock-file none;
	listen-on { %[7]s; }; listen-on-v6 { %[5]s; };
	listen-on port 853 tls peers { %[4]s; };
	listen-on port 443 tls peers http peers { %[4]s; };
	recursion no; dnssec-validation no; notify no; allow-transfer { none; }; minimal-responses no;
	server-id "ns1-lab"; version "named of the lab";
};
controls {};
view "chaos" chaos { // The built-in one answers three questions a second.
	zone "id.server" chaos { type primary; database "_builtin id"; };
	zone "version.bind" chaos { type primary; database "_builtin version"; };
};
%[6]s`, w.pki.file("good.chain"), w.pki.file("good.key"), w.dir, nameServer, nameServer6, text.String(), strings.Join([]string{nameRoot, nameTop, nameServer, nameSecond, nameRefuser}, "; "))
}

// peerUnboundConf configures a validating resolver that says why validation fails.
func (w *peerWorld) peerUnboundConf(hints, anchor string) string {
	var anchors strings.Builder
	for line := range strings.Lines(anchor) {
		fmt.Fprintf(&anchors, "\ttrust-anchor: %q\n", strings.Join(strings.Fields(line), " "))
	}
	return fmt.Sprintf(`server:
	interface: %s
	access-control: 0.0.0.0/0 allow
	directory: %q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	do-ip6: no
	ede: yes
	nsid: ascii_unbound-lab
	identity: unbound-lab
	version: "unbound of the lab"
	local-zone: "113.0.203.in-addr.arpa." nodefault
	root-hints: %q
%sremote-control:
	control-enable: no
`, nameResolver, w.dir, hints, anchors.String())
}
