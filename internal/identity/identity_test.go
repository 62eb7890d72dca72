package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// clock is a clock that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Now()} }

func open(t testing.TB, c *clock) *Authorities {
	t.Helper()
	a, err := Open(t.TempDir(), Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// enrol makes an agent's identity.
func enrol(t testing.TB, a *Authorities, name string, c *clock) *Keep {
	t.Helper()
	k, err := OpenKeep(t.TempDir(), c.now)
	if err != nil {
		t.Fatal(err)
	}
	renew(t, a, k, name)
	return k
}

// renew gives an agent a new key and its certificate.
func renew(t testing.TB, a *Authorities, k *Keep, name string) *Issued {
	t.Helper()
	request, err := k.Request()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.IssueAgent(name, request)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Store(issued.Certificate); err != nil {
		t.Fatal(err)
	}
	return issued
}

// connected is a connection on loopback: both ends of it can write before anybody reads.
func connected(t testing.TB) (left, right net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if right, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if left, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = left.Close(), right.Close() })
	return left, right
}

// shake shakes hands and returns what each end says, and the server's view.
func shake(t testing.TB, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	left, right := connected(t)
	s, c := tls.Server(left, server), tls.Client(right, client)
	done := make(chan error, 1)
	ctx := t.Context()
	go func() {
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
		_ = left.Close()
	}()
	clientErr = c.HandshakeContext(ctx)
	if clientErr == nil {
		// In TLS 1.3 a client hears with its first read that its certificate was refused.
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = right.Close()
	serverErr = <-done
	return s.ConnectionState(), serverErr, clientErr
}

func TestHandshakes(t *testing.T) {
	c := newClock()
	a, other := open(t, c), open(t, c)
	agent := enrol(t, a, "fra-1", c)
	stranger := enrol(t, other, "fra-1", c)
	later := func(d time.Duration) *clock { return &clock{c.at.Add(d)} }
	old := func(d time.Duration) *Authorities { // the same authorities, seen later
		b, err := Open(a.dir, Options{Now: later(d).now})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	twelve := agent.ClientTLS()
	twelve.MinVersion, twelve.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	for _, s := range []struct {
		what           string
		server, client *tls.Config
		says           string // by either end; none: it works
	}{
		{"an agent and its coordinator", a.ServerTLS("main", nil), agent.ClientTLS(), ""},
		{"an agent and NATS", a.AgentsTLS("main", nil), agent.ClientTLS(), ""},
		{"an API client by name", a.ServerTLS("main", []string{"elsewhere.example"}), &tls.Config{RootCAs: roots, ServerName: "elsewhere.example"}, ""},
		{"an API client by address", a.ServerTLS("main", []string{"192.0.2.7"}), &tls.Config{RootCAs: roots, ServerName: "192.0.2.7"}, ""},
		{"an API client on this machine", a.ServerTLS("main", []string{"", "0.0.0.0"}), &tls.Config{RootCAs: roots, ServerName: "localhost"}, ""},
		{"an API client by a name that is not the coordinator's", a.ServerTLS("main", nil), &tls.Config{RootCAs: roots, ServerName: "elsewhere.example"}, "elsewhere.example"},
		{"an API client has nothing to do at NATS", a.AgentsTLS("main", nil), &tls.Config{RootCAs: roots, ServerName: "localhost"}, "certificate"},
		{"enrolment by the pin", a.ServerTLS("main", nil), PinnedTLS(a.Pin(), c.now), ""},
		{"enrolment with another network's pin", a.ServerTLS("main", nil), PinnedTLS(other.Pin(), c.now), "another coordinator"},
		{"an agent of another network", a.ServerTLS("main", nil), stranger.ClientTLS(), "unknown authority"},
		{"a coordinator of another network", other.ServerTLS("main", nil), agent.ClientTLS(), "unknown authority"},
		{"TLS 1.2", a.ServerTLS("main", nil), twelve, "protocol version"},
		{"an agent that poses as a coordinator", posing(t, agent), agent.ClientTLS(), "no coordinator"},
		{"a certificate that ended an hour ago", old(25*time.Hour).ServerTLS("main", nil), late(agent, later(25*time.Hour)), ""},
		{"a certificate that ended an hour ago, at NATS", old(25*time.Hour).AgentsTLS("main", nil), late(agent, later(25*time.Hour)), "ended"},
		{"a certificate that ended 8 days ago", old(9*24*time.Hour).ServerTLS("main", nil), late(agent, later(9*24*time.Hour)), "expired"},
		{"a clock that is a year ahead", a.ServerTLS("main", nil), late(agent, later(365*24*time.Hour)), "set the clock"},
		{"a clock that is a year behind", a.ServerTLS("main", nil), late(agent, later(-365*24*time.Hour)), "set the clock"},
		{"a clock that is an hour behind", a.ServerTLS("main", nil), late(agent, later(-time.Hour)), ""},
	} {
		t.Run(s.what, func(t *testing.T) {
			_, serverErr, clientErr := shake(t, s.server, s.client)
			err := errors.Join(serverErr, clientErr)
			if s.says == "" && err != nil || s.says != "" && (err == nil || !strings.Contains(err.Error(), s.says)) {
				t.Errorf("server: %v, client: %v; want %q", serverErr, clientErr, s.says)
			}
		})
	}
}

// BenchmarkHandshake is one of an agent with its coordinator, both ends of it, over a new connection on loopback. With
// -cpu 1 it is the processor's time.
func BenchmarkHandshake(b *testing.B) {
	c := newClock()
	a := open(b, c)
	server, client := a.ServerTLS("main", nil), enrol(b, a, "fra-1", c).ClientTLS()
	for b.Loop() {
		if _, serverErr, clientErr := shake(b, server, client); serverErr != nil || clientErr != nil {
			b.Fatal(serverErr, clientErr)
		}
	}
}

// late is an agent's end by another clock.
func late(k *Keep, c *clock) *tls.Config {
	return (&Keep{dir: k.dir, now: c.now, cert: k.cert, name: k.name, cas: k.cas}).ClientTLS()
}

// posing is a server with an agent's certificate.
func posing(t *testing.T, k *Keep) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{*k.cert}}
}

func TestPeer(t *testing.T) {
	c := newClock()
	a := open(t, c)
	agent := enrol(t, a, "fra-1", c)
	seen, _, _ := shake(t, a.ServerTLS("main", nil), agent.ClientTLS())
	peer, err := a.Peer(seen)
	if err != nil || peer.Agent != "fra-1" || peer.Expired || !bytes.Equal(peer.Key, Fingerprint(agent.cert.Leaf)) {
		t.Errorf("%+v, %v", peer, err)
	}
	c.at = c.at.Add(24*time.Hour + time.Minute)
	if peer, err := a.Peer(seen); err != nil || !peer.Expired {
		t.Errorf("on a connection that outlives its certificate: %+v, %v", peer, err)
	}
	c.at = c.at.Add(7 * 24 * time.Hour)
	if peer, err := a.Peer(seen); err == nil {
		t.Errorf("after the grace: %+v", peer)
	}
	if _, err := a.Peer(tls.ConnectionState{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := a.Peer(tls.ConnectionState{PeerCertificates: a.certificates()}); err == nil {
		t.Error("an authority is no agent")
	}
}

func TestTheServersCertificateIsKeptNew(t *testing.T) {
	c := newClock()
	a := open(t, c)
	config := a.ServerTLS("main", nil)
	first, err := config.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := config.GetCertificate(nil); same != first {
		t.Error("it is made anew for every connection")
	}
	c.at = renewAt(first.Leaf).Add(time.Second)
	second, err := config.GetCertificate(nil)
	if err != nil || second.Leaf.Equal(first.Leaf) || second.Leaf.NotAfter.Before(c.at.Add(24*time.Hour)) {
		t.Errorf("at two thirds of its life: %v", err)
	}
	c.at = c.at.Add(11 * 365 * 24 * time.Hour)
	if _, err := config.GetCertificate(nil); err == nil {
		t.Error("an authority that has ended signs on")
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{keyFile, bundleFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if again, err := Open(dir, Options{}); err != nil || again.Pin() != first.Pin() || !bytes.Equal(again.PEM(), first.PEM()) {
		t.Errorf("opened again: %v", err)
	}
	key, bundle := filepath.Join(dir, keyFile), filepath.Join(dir, bundleFile)
	for _, s := range []struct {
		what  string
		spoil func() error
		says  string
	}{
		{"others may read the key", func() error { return os.Chmod(key, 0o640) }, "chmod"},
		{"the key is somebody else's", func() error { return copyFile(filepath.Join(open(t, newClock()).dir, keyFile), key) }, "no key"},
		{"the key is no PEM", func() error { return os.WriteFile(key, []byte("x"), 0o600) }, "PEM"},
		{"the key is gone", func() error { return os.Remove(key) }, "backup"},
	} {
		if err := s.spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), s.says) {
			t.Errorf("%s: %v", s.what, err)
		}
		if err := os.Chmod(key, 0o600); err != nil && s.what != "the key is gone" {
			t.Fatal(err)
		}
	}
	if err := os.Remove(bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
}

// A crash between the two files of a first start leaves a key without a certificate.
func TestACrashAtTheFirstStart(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, bundleFile)); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(dir, Options{}); err != nil || again.Pin() != first.Pin() {
		t.Errorf("%v", err)
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

func TestKeep(t *testing.T) {
	c := newClock()
	a := open(t, c)
	k := enrol(t, a, "fra-1", c)
	if again, err := OpenKeep(k.dir, c.now); err != nil || again.Name() != "fra-1" || !again.Expires().Equal(k.Expires()) {
		t.Errorf("read again: %v", err)
	}
	if k.NeedsRenewal() {
		t.Error("a new certificate is to be renewed at once")
	}
	c.at = c.at.Add(16 * time.Hour)
	if !k.NeedsRenewal() {
		t.Error("at two thirds of its life it is not to be renewed")
	}
	before := k.cert.Leaf
	first, err := k.Request()
	if err != nil {
		t.Fatal(err)
	}
	second, err := k.Request()
	_, one, _ := CheckRequest(first)
	_, two, _ := CheckRequest(second)
	if err != nil || !bytes.Equal(one, two) || bytes.Equal(one, Fingerprint(before)) {
		t.Errorf("a request that is made again must be for the same new key: %v", err)
	}
	renew(t, a, k, "fra-1")
	if k.NeedsRenewal() || bytes.Equal(Fingerprint(k.cert.Leaf), Fingerprint(before)) {
		t.Error("it was renewed with the old key, or not at all")
	}
	if _, err := os.Stat(k.path(pendingFile)); err == nil {
		t.Error("the pending key is still pending")
	}
	for _, name := range []string{agentKeyFile, agentCertFile, bundleFile} {
		if info, err := os.Stat(k.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A crash after the certificate was written and before its key was renamed.
func TestACrashWhileACertificateIsStored(t *testing.T) {
	c := newClock()
	a := open(t, c)
	k := enrol(t, a, "fra-1", c)
	oldKey, err := os.ReadFile(k.path(agentKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	renew(t, a, k, "fra-1")
	if err := os.Rename(k.path(agentKeyFile), k.path(pendingFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.path(agentKeyFile), oldKey, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeep(k.dir, c.now)
	if err != nil || !again.cert.Leaf.Equal(k.cert.Leaf) {
		t.Fatalf("%v", err)
	}
	if _, serverErr, clientErr := shake(t, a.ServerTLS("main", nil), again.ClientTLS()); serverErr != nil || clientErr != nil {
		t.Error(serverErr, clientErr)
	}
}

func TestStoreRefuses(t *testing.T) {
	c := newClock()
	a, other := open(t, c), open(t, c)
	k := enrol(t, a, "fra-1", c)
	request, err := k.Request()
	if err != nil {
		t.Fatal(err)
	}
	mixed, err := a.IssueAgent("fra-1", request)
	if err != nil {
		t.Fatal(err)
	}
	mixed.Certificate.Authorities = other.DER()
	if err := k.Store(mixed.Certificate); err == nil {
		t.Error("a certificate that is not of the authorities beside it")
	}
	renamed, err := a.IssueAgent("fra-2", request)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Store(renamed.Certificate); err == nil {
		t.Error("a certificate of another name")
	}
	k.name = ""
	foreign := enrol(t, a, "fra-3", c)
	if err := k.Store(&pb.AgentCertificate{Chain: [][]byte{foreign.cert.Leaf.Raw}, Authorities: a.DER()}); err == nil {
		t.Error("a certificate of another key")
	}
	if err := k.Trust(nil); err == nil {
		t.Error("trust in nobody")
	}
	if err := k.Trust([][]byte{foreign.cert.Leaf.Raw}); err == nil {
		t.Error("trust in an agent's certificate")
	}
}

// TestAnAuthorityThatCouldNotBeReadAgain is not kept: the agent would never start again.
func TestAnAuthorityThatCouldNotBeReadAgain(t *testing.T) {
	c := newClock()
	a := open(t, c)
	k := enrol(t, a, "fra-1", c)
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, NotAfter: c.at.Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 999, 1}, Value: make([]byte, maxFile)}},
	}
	huge, err := sign(template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Trust(append(a.DER(), huge.Raw)); err == nil {
		t.Error("it is trusted")
	}
	if again, err := OpenKeep(k.dir, c.now); err != nil || again.Name() != "fra-1" {
		t.Errorf("after it: %v", err)
	}
}

func TestTrust(t *testing.T) {
	c := newClock()
	a, next := open(t, c), open(t, c)
	k := enrol(t, a, "fra-1", c)
	if err := k.Trust(append(a.DER(), next.DER()...)); err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeep(k.dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, clientErr := shake(t, next.ServerTLS("main", nil), again.ClientTLS()); strings.Contains(clientErr.Error(), "unknown authority") {
		t.Error(clientErr)
	}
}

func TestRequests(t *testing.T) {
	key := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	p256 := key(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	for _, c := range []struct {
		what string
		key  crypto.Signer
		ok   bool
	}{
		{"P-256", p256, true},
		{"P-384", key(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), true},
		{"Ed25519", key(edwards, err), true},
		{"P-224", key(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), false},
		{"P-521", key(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), false},
		{"RSA", key(rsa.GenerateKey(rand.Reader, 2048)), false},
	} {
		der, err := NewRequest(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := CheckRequest(der); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	forged, err := NewRequest(p256)
	if err != nil {
		t.Fatal(err)
	}
	forged[len(forged)-1] ^= 1
	if _, _, err := CheckRequest(forged); err == nil {
		t.Error("a request that its key has not signed")
	}
	if _, _, err := CheckRequest(make([]byte, maxRequest+1)); err == nil {
		t.Error("a request that is too large")
	}
}
