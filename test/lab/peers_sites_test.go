package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// site is a server, at an address of its own.
type site struct {
	name  string // below peers.example
	leaf  siteCert
	serve func(context.Context, *peerWorld, *site) error // default: byGo
	port  int                                            // default: 443

	addr string
	cert tls.Certificate
}

func (s *site) host() string { return s.name + "." + peersZone }

func (s *site) at() string { return net.JoinHostPort(s.addr, fmt.Sprint(s.port)) }

// allSites are all servers, with their addresses.
func allSites() []*site {
	var all []*site
	for i, s := range slices.Concat(certificateSites(), negotiationSites(), otherSites(), webSites()) {
		s.addr = fmt.Sprintf("203.0.113.%d", 100+i)
		if s.port == 0 {
			s.port = 443
		}
		all = append(all, &s)
	}
	return all
}

// certificateSites differ in what they serve: badssl.com's list, and what it lacks.
func certificateSites() []site {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("name-%04d.peers.example", i)
	}
	many[0] = "many-names.peers.example"
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	aia := func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://" + aiaAddr + "/inter.der"} }
	return []site{
		{name: "good"},
		{name: "expired", leaf: siteCert{begins: -60 * day, ends: -day}},
		{name: "not-yet-valid", leaf: siteCert{begins: day}},
		{name: "expired-intermediate", leaf: siteCert{issuer: "expired-inter"}},
		{name: "wrong-host", leaf: siteCert{names: []string{"other.peers.example"}}},
		{name: "expired-wrong-host", leaf: siteCert{names: []string{"other.peers.example"}, begins: -60 * day, ends: -day}},
		{name: "self-signed", leaf: siteCert{issuer: "self"}},
		{name: "untrusted-root", leaf: siteCert{issuer: "strange-inter", along: []string{"strange-inter", "strange-root"}}},
		{name: "untrusted-unsent", leaf: siteCert{issuer: "strange-inter"}},
		{name: "incomplete", leaf: siteCert{along: []string{}}},
		{name: "incomplete-aia", leaf: siteCert{along: []string{}, change: aia}},
		{name: "expired-incomplete", leaf: siteCert{along: []string{}, change: aia, begins: -60 * day, ends: -day}},
		{name: "reversed", leaf: siteCert{along: []string{"root", "inter"}}},
		{name: "intermediate-first", leaf: siteCert{behind: true}},
		{name: "root-included", leaf: siteCert{along: []string{"inter", "root"}}},
		{name: "extra", leaf: siteCert{along: []string{"rsa-inter", "inter"}}},
		{name: "duplicate", leaf: siteCert{along: []string{"leaf", "inter"}}},
		{name: "cn-only", leaf: siteCert{nameless: true}},
		{name: "no-common-name", leaf: siteCert{subject: "-"}},
		{name: "wildcard", leaf: siteCert{names: []string{"*.peers.example"}}},
		{name: "deep.wildcard", leaf: siteCert{names: []string{"*.peers.example"}}},
		{name: "apex", leaf: siteCert{names: []string{"*.apex.peers.example"}}},
		{name: "xn--grn-ioa", leaf: siteCert{}},
		{name: "rsa1024", leaf: siteCert{key: "rsa1024"}},
		{name: "rsa4096", leaf: siteCert{key: "rsa4096"}},
		{name: "p384", leaf: siteCert{key: "p384"}},
		{name: "p521", leaf: siteCert{key: "p521"}},
		{name: "ed25519", leaf: siteCert{key: "ed25519"}},
		{name: "sha384", leaf: siteCert{change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }}},
		{name: "sha512", leaf: siteCert{issuer: "rsa-inter", change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA512WithRSA }}},
		{name: "pss-signed", leaf: siteCert{issuer: "rsa-inter", change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS }}},
		{name: "sha1-leaf", leaf: siteCert{issuer: "rsa-inter", change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }}},
		{name: "sha1-intermediate", leaf: siteCert{issuer: "sha1-inter"}},
		{name: "many-names", leaf: siteCert{names: many}},
		{name: "client-only", leaf: siteCert{change: clientOnly}},
		{name: "name-constraints", leaf: siteCert{issuer: "narrow-inter"}},
		{name: "no-authority", leaf: siteCert{issuer: "no-inter"}},
		{name: "path-too-long", leaf: siteCert{issuer: "too-deep", along: []string{"too-deep", "low-inter"}}},
		{name: "stapled-good", leaf: siteCert{staple: "good"}},
		{name: "stapled-revoked", leaf: siteCert{staple: "revoked"}},
		{name: "must-staple", leaf: siteCert{mustStaple: true}},
	}
}

// negotiationSites differ in what they agree to.
func negotiationSites() []site {
	rsaLeaf := siteCert{key: "rsa2048"}
	return []site{
		{name: "tls10", leaf: rsaLeaf, serve: byOpenSSL("-tls1", "-cipher", "ALL:@SECLEVEL=0")},
		{name: "tls11", leaf: rsaLeaf, serve: byOpenSSL("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")},
		{name: "tls12", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2")},
		{name: "tls13", leaf: rsaLeaf, serve: byOpenSSL("-tls1_3")},
		{name: "old-and-new", leaf: rsaLeaf, serve: byOpenSSL("-cipher", "ALL:@SECLEVEL=0", "-serverpref")},
		{name: "cbc-sha384", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384")},
		{name: "cbc-sha384-ecdsa", serve: byOpenSSL("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384")},
		{name: "dhe", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256")},
		{name: "chacha", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305")},
		{name: "ccm", serve: byOpenSSL("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM")},
		{name: "static-rsa", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-cipher", "AES128-SHA")},
		{name: "null", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-cipher", "NULL-SHA256:@SECLEVEL=0")},
		{name: "preference", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-serverpref", "-cipher",
			"ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA:ECDHE-RSA-CHACHA20-POLY1305:AES256-GCM-SHA384")},
		{name: "group-p384", serve: byOpenSSL("-groups", "P-384")},
		{name: "group-p521", serve: byOpenSSL("-tls1_2", "-groups", "P-521")},
		{name: "client-asked-12", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-verify", "1")},
		{name: "client-asked-13", leaf: rsaLeaf, serve: byOpenSSL("-tls1_3", "-verify", "1")},
		{name: "client-needed-12", leaf: rsaLeaf, serve: byOpenSSL("-tls1_2", "-Verify", "1")},
		{name: "client-needed-13", leaf: rsaLeaf, serve: byOpenSSL("-tls1_3", "-Verify", "1")},
		{name: "alpn-http", serve: byOpenSSL("-alpn", "http/1.1")},
		{name: "alpn-alien", serve: byOpenSSL("-alpn", "imap")},
		{name: "unknown-name", serve: byOpenSSL("-servername", "other.peers.example", "-servername_fatal", "-cert2", "", "-key2", "")},
		{name: "second-cert", serve: byOpenSSL("-servername", "second-cert.peers.example", "-cert2", "", "-key2", "")},
		{name: "pss-key", leaf: rsaLeaf, serve: byOpenSSLWithPSS},
		{name: "gnutls", leaf: rsaLeaf, port: 5556, serve: byGnuTLS("NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-CBC:+CAMELLIA-128-CBC")},
		{name: "ssl3", leaf: rsaLeaf, port: 5003, serve: byNSS("ssl3:ssl3", ":0004:0005:000a:002f:0035")},
		{name: "rc4-md5", leaf: rsaLeaf, port: 5004, serve: byNSS("tls1.0:tls1.2", ":0004")},
		{name: "triple-des", leaf: rsaLeaf, port: 5010, serve: byNSS("tls1.0:tls1.2", ":000a")},
	}
}

// otherSites do not get as far as a handshake.
func otherSites() []site {
	return []site{
		{name: "ssh", serve: behaving(probetest.Banner)},
		{name: "resets", serve: behaving(probetest.Reset)},
		{name: "closes", serve: behaving(probetest.CloseAtOnce)},
		{name: "hangs-up", serve: behaving(probetest.HangUp)},
		{name: "aborts", serve: behaving(probetest.Abort)},
		{name: "silent", serve: behaving(probetest.Accept)},
		{name: "plain-http", serve: saying("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")},
		{name: "alert-40", serve: saying("\x15\x03\x01\x00\x02\x02\x28")},
		{name: "alert-80", serve: saying("\x15\x03\x03\x00\x02\x02\x50")},
		{name: "full", serve: func(ctx context.Context, w *peerWorld, s *site) error {
			return w.keep(s, func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenFull(at) })
		}},
	}
}

// serveSites starts all servers and waits for those that are programs.
func (w *peerWorld) serveSites(ctx context.Context) error {
	if err := w.makeNSS(ctx); err != nil {
		return err
	}
	for _, s := range w.sites {
		if s.serve == nil {
			s.serve = byGo
		}
		if err := s.serve(ctx, w, s); err != nil {
			return fmt.Errorf("serve %s: %w", s.name, err)
		}
	}
	expired := *w.site("expired")
	if expired.addr = badAddr6; byGo(ctx, w, &expired) != nil {
		return fmt.Errorf("serve over IPv6 at %s", badAddr6)
	}
	var g errgroup.Group
	for _, s := range w.sites {
		if s.name != "full" {
			g.Go(func() error { return w.listening(ctx, w.there, s.at()) })
		}
	}
	return g.Wait()
}

// byGo serves with Go's own TLS.
func byGo(ctx context.Context, w *peerWorld, s *site) error {
	plain, err := w.there.Listen(ctx, s.at())
	if err != nil {
		return err
	}
	w.onClose(func() { _ = plain.Close() })
	l := tls.NewListener(plain, &tls.Config{
		Certificates: []tls.Certificate{s.cert},
		// OpenSSL 3.0 has no post-quantum groups: what both know is what can be compared.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
	})
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

// byOpenSSL serves with openssl s_server. An empty file behind -cert2 or -key2 is the good site's.
func byOpenSSL(args ...string) func(context.Context, *peerWorld, *site) error {
	return func(ctx context.Context, w *peerWorld, s *site) error {
		all := []string{
			"openssl", "s_server", "-accept", s.at(), "-www", "-serverpref", "-cert", w.pki.file(s.name), "-key", w.pki.file(s.name + ".key"),
			"-cert_chain", w.pki.file("inter"),
		}
		for i, arg := range args {
			if arg == "" {
				arg = w.pki.file("good" + map[string]string{"-cert2": "", "-key2": ".key"}[args[i-1]])
			}
			all = append(all, arg)
		}
		_, err := w.start(ctx, w.there, s.name, all...)
		return err
	}
}

// byOpenSSLWithPSS serves with a key that is for RSA-PSS alone, which Go can neither make nor use.
func byOpenSSLWithPSS(ctx context.Context, w *peerWorld, s *site) error {
	key, leaf := w.pki.file(s.name+".key"), w.pki.file(s.name)
	if err := errors.Join(
		w.tool(ctx, "openssl", "genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key),
		w.tool(ctx, "openssl", "req", "-x509", "-new", "-key", key, "-out", leaf, "-days", "30", "-subj", "/CN="+s.host(),
			"-CA", w.pki.file("inter"), "-CAkey", w.pki.file("inter.key"), "-addext", "subjectAltName=DNS:"+s.host(),
			"-addext", "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
	); err != nil {
		return err
	}
	return byOpenSSL("-tls1_2")(ctx, w, s)
}

// byGnuTLS serves with gnutls-serv, which takes the port at all addresses.
func byGnuTLS(priority string) func(context.Context, *peerWorld, *site) error {
	return func(ctx context.Context, w *peerWorld, s *site) error {
		_, err := w.start(ctx, w.there, s.name, "gnutls-serv", "--http", "--quiet", "-p", fmt.Sprint(s.port), "--priority", priority,
			"--x509certfile", w.pki.file(s.name+".chain"), "--x509keyfile", w.pki.file(s.name+".key"))
		return err
	}
}

// nssPolicy allows NSS all that it still can: SSLv3, RC4 and triple DES. Debian's policy does not.
const nssPolicy = `library=
name=NSS Internal PKCS #11 Module
parameters=configdir='sql:%[1]s' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription=''
NSS=Flags=internal,critical trustOrder=75 cipherOrder=100 slotParams=(1={slotFlags=[ECC,RSA,DSA,DH,RC2,RC4,DES,RANDOM,SHA1,MD5,MD2,SSL,TLS,AES,Camellia,SEED,SHA256,SHA512] askpw=any timeout=30})

library=
name=Policy
NSS=flags=policyOnly,moduleDB
config="allow=all:tls-version-min=ssl3.0:dtls-version-min=0:DSA-MIN=512:RSA-MIN=512:DH-MIN=512"
`

// serveIssuer serves the intermediate where certificates say that it is.
func (w *peerWorld) serveIssuer(ctx context.Context) error {
	l, err := w.there.Listen(ctx, aiaAddr+":80")
	if err != nil {
		return err
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/pkix-cert")
			_, _ = rw.Write(w.pki.all["inter"].cert.Raw) // who hangs up gets nothing
		}),
	}
	w.onClose(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
	return nil
}

// makeNSS makes the database of certificates that NSS serves from.
func (w *peerWorld) makeNSS(ctx context.Context) error {
	db := filepath.Join(w.dir, "nss")
	err := errors.Join(os.MkdirAll(db, 0o755), w.tool(ctx, "certutil", "-N", "-d", "sql:"+db, "--empty-password"))
	for _, name := range []string{"ssl3", "rc4-md5", "triple-des"} {
		p12 := filepath.Join(w.dir, name+".p12")
		err = errors.Join(err,
			w.tool(ctx, "openssl", "pkcs12", "-export", "-inkey", w.pki.file(name+".key"), "-in", w.pki.file(name+".chain"),
				"-name", name, "-passout", "pass:", "-out", p12),
			w.tool(ctx, "pk12util", "-i", p12, "-d", "sql:"+db, "-W", ""))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(db, "pkcs11.txt"), fmt.Appendf(nil, nssPolicy, db), 0o644))
}

// byNSS serves with NSS's selfserv, which takes the port at all addresses.
func byNSS(versions, ciphers string) func(context.Context, *peerWorld, *site) error {
	return func(ctx context.Context, w *peerWorld, s *site) error {
		_, err := w.start(ctx, w.there, s.name, "selfserv", "-d", "sql:"+filepath.Join(w.dir, "nss"), "-n", s.name,
			"-p", fmt.Sprint(s.port), "-V", versions, "-c", ciphers, "-N")
		return err
	}
}

// behaving serves no TLS, but what a host of probetest does.
func behaving(b probetest.Behaviour) func(context.Context, *peerWorld, *site) error {
	return func(_ context.Context, w *peerWorld, s *site) error {
		return w.keep(s, func(at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, b) })
	}
}

// saying answers with these bytes, whatever is asked.
func saying(text string) func(context.Context, *peerWorld, *site) error {
	return func(_ context.Context, w *peerWorld, s *site) error {
		return w.keep(s, func(at netip.AddrPort) (*probetest.Host, error) {
			return probetest.ListenSaying(at, []byte(text))
		})
	}
}

// keep listens inside the namespace of the servers until the world ends.
func (w *peerWorld) keep(s *site, listen func(netip.AddrPort) (*probetest.Host, error)) error {
	return w.there.Do(func() error {
		h, err := listen(netip.MustParseAddrPort(s.at()))
		if err == nil {
			w.onClose(func() { _ = h.Close() })
		}
		return err
	})
}

// site is the site of this name.
func (w *peerWorld) site(name string) *site {
	for _, s := range w.sites {
		if s.name == name {
			return s
		}
	}
	panic("no site " + strings.TrimSpace(name))
}
