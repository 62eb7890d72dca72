package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// The zones of the world. Unbound answers NXDOMAIN for .test by itself (RFC 6761), .example it asks.
const (
	zone          = "lab.example"
	controlZone   = "control.example"
	authoritative = "192.0.2.53" // serves both zones
	refuser       = "192.0.2.54" // the same server, where it refuses everything
)

// service is what listens on a host.
type service int

const (
	serves  service = iota // TLS with a good certificate
	expired                // TLS with a certificate that is over since yesterday
	closed                 // nothing: the kernel answers with RST
)

// host is one address of a target. Its port is 443.
type host struct {
	addr    netip.Addr
	service service
	listen  listener // what serves there in place of service; its ports are its own
	name    string   // of the zone; default: the scenario's. "-": it has none
}

// authority is the certification authority of the world.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate in PEM
}

// newAuthority makes an authority and writes its certificate to dir, and those of others along.
func newAuthority(dir string, others ...*x509.Certificate) (*authority, error) {
	a := &authority{file: filepath.Join(dir, "roots.pem")}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab Root"},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	var blocks []byte
	for _, c := range append(others, a.cert) {
		blocks = append(blocks, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return a, os.WriteFile(a.file, blocks, 0o644)
}

// issue makes a server certificate for names that ends at notAfter.
func (a *authority) issue(notAfter time.Time, names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(notAfter.UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: notAfter.AddDate(0, -3, 0), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// serve starts the targets and the controls.
func (w *world) serve(ctx context.Context) error {
	var err error
	if w.issuer, err = probetest.NewCA("Lab", probetest.CAOptions{}); err != nil {
		return err
	}
	if w.nobody, err = probetest.NewCA("Nobody", probetest.CAOptions{}); err != nil {
		return err
	}
	if w.authority, err = newAuthority(w.dir, w.issuer.Root); err != nil {
		return err
	}
	good, err := w.authority.issue(time.Now().AddDate(0, 2, 0), "*."+zone, "*."+controlZone)
	if err != nil {
		return err
	}
	old, err := w.authority.issue(time.Now().AddDate(0, 0, -1), "*."+zone)
	if err != nil {
		return err
	}
	for _, h := range w.hosts() {
		at, where := netip.AddrPortFrom(h.addr, 443).String(), w.home(h)
		switch {
		case h.listen != nil:
			err = errors.Join(err, w.serveOwn(h))
		case h.service == serves:
			err = errors.Join(err, w.serveTLS(ctx, where, at, good))
		case h.service == expired:
			err = errors.Join(err, w.serveTLS(ctx, where, at, old))
		}
	}
	for _, at := range []string{"198.51.100.10:443", "[2001:db8:51::10]:443", "198.51.100.11:8443", "[2001:db8:51::11]:8443"} {
		err = errors.Join(err, w.serveTLS(ctx, w.controls, at, good))
	}
	return err
}

// serveTLS shakes hands with all who come, and waits until they go.
func (w *world) serveTLS(ctx context.Context, where space, at string, cert tls.Certificate) error {
	plain, err := where.Listen(ctx, at)
	if err != nil {
		return err
	}
	w.onClose(func() { _ = plain.Close() })
	l := tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{cert}})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go hold(conn)
		}
	}()
	return nil
}

// hold reads until the peer closes, at most a minute.
func hold(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // fails only on a closed connection
	_, _ = io.Copy(io.Discard, conn)
}

// serveNames starts the authoritative server and a recursive one per region, and waits for them.
func (w *world) serveNames(ctx context.Context) error {
	files := zoneFiles()
	files["named.conf"], files[zone], files[controlZone] = w.namedConf(), w.zoneFile(), controlZoneFile()
	if err := w.signOverdue(ctx); err != nil {
		return err
	}
	for r, region := range regions() {
		files["unbound-"+region+".conf"] = w.unboundConf(resolverOf(r), region)
	}
	files["unbound-public.conf"] = w.unboundConf(publicName, "")
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := w.start(ctx, w.names, "named", "named", "-g", "-n", "1", "-c", filepath.Join(w.dir, "named.conf")); err != nil {
		return err
	}
	for r, region := range regions() {
		conf := filepath.Join(w.dir, "unbound-"+region+".conf")
		if _, err := w.start(ctx, w.names, "unbound-"+region, "unbound", "-d", "-c", conf); err != nil {
			return err
		}
		if err := w.listening(ctx, w.names, resolverOf(r)+":53"); err != nil {
			return err
		}
	}
	return w.listening(ctx, w.names, authoritative+":53")
}

// namedConf configures the authoritative server. A resolver that is sent to its second address finds
// a server that refuses, which resolvers call SERVFAIL.
func (w *world) namedConf() string {
	return fmt.Sprintf(`options {
	directory %q; pid-file none; session-keyfile none; lock-file none;
	listen-on { %s; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; notify no; allow-transfer { none; };
};
controls {};
%s
view "refuses" { match-destinations { %s; }; };
`, w.dir, strings.Join(nameServers(), "; "), namedViews(), refuser)
}

const zoneHead = "$TTL 60\n@ IN SOA ns.%[1]s. root.%[1]s. 1 600 600 600 60\n@ IN NS ns\nns IN A " + authoritative + "\n"

// zoneFile has a name for each scenario, with the addresses of its hosts.
func (w *world) zoneFile() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, zoneHead, zone)
	for _, s := range w.scenarios {
		for _, line := range s.records {
			b.WriteString(line + "\n")
		}
		for _, h := range s.hosts {
			kind := "A"
			if h.addr.Is6() {
				kind = "AAAA"
			}
			if h.name != "-" {
				fmt.Fprintf(&b, "%s IN %s %s\n", cmp.Or(h.name, s.name), kind, h.addr)
			}
		}
		for _, text := range s.texts {
			fmt.Fprintf(&b, "%s IN TXT \"%s\"\n", s.name, text)
		}
	}
	return b.String()
}

func controlZoneFile() string {
	return fmt.Sprintf(zoneHead, controlZone) +
		"a IN A 198.51.100.10\na IN AAAA 2001:db8:51::10\nb IN A 198.51.100.11\nb IN AAAA 2001:db8:51::11\n"
}

// unboundConf configures the resolver of a region, with its faults: names that it says do not exist,
// names that it is sent to the wrong server for, and names that it makes up. A resolver for everybody
// has no region and no faults.
func (w *world) unboundConf(address, region string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
	interface: %[1]s
	outgoing-interface: %[1]s
	access-control: 0.0.0.0/0 allow
	directory: %[2]q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	do-ip6: no
%[3]s`, address, w.dir, w.validation(region))
	stubs := differing()
	for _, top := range []string{"example", "com", someRewrite, allRewrite} {
		stubs[top] = []string{topServer}
	}
	for _, name := range append(moreZones(), zone, controlZone) {
		stubs[name] = []string{authoritative}
	}
	for _, s := range w.scenarios {
		name := cmp.Or(s.lies, s.name+"."+zone)
		for _, f := range s.resolverFaults {
			switch {
			case f.region != region:
			case f.answer == "NXDOMAIN":
				fmt.Fprintf(&b, "\tlocal-zone: %q always_nxdomain\n", name)
			case f.answer == "SERVFAIL":
				stubs[name] = []string{refuser}
			default:
				kind := kindOf(netip.MustParseAddr(f.answer))
				fmt.Fprintf(&b, "\tlocal-zone: %q redirect\n\tlocal-data: \"%s %s %s\"\n", name, name, kind, f.answer)
			}
		}
	}
	for _, name := range forwarded(region) {
		delete(stubs, name)
		fmt.Fprintf(&b, "forward-zone:\n\tname: %q\n\tforward-addr: %s\n", name, rewriter)
	}
	for name, servers := range stubs {
		fmt.Fprintf(&b, "stub-zone:\n\tname: %q\n\tstub-addr: %s\n", name, strings.Join(servers, "\n\tstub-addr: "))
	}
	return b.String() + "remote-control:\n\tcontrol-enable: no\n"
}
