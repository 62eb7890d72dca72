package probe

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Servers of others: what we say of them must be what they were told to do.

// startServer runs a server until the test ends, and waits until it says that it is ready.
func startServer(t *testing.T, ready string, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe() // Its end would end some of them.
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Skipf("needs %s: %v", cmd.Path, err)
	}
	said := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		waiting := true
		for s := bufio.NewScanner(r); s.Scan(); {
			if waiting && strings.Contains(s.Text(), ready) {
				waiting = false
				close(said)
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = w.Close()
		<-read
	})
	select {
	case <-said:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s is not ready", cmd.Path)
	}
}

// TestEnumerationOfOpenSSL: its list, in its order, and its groups, old versions included.
func TestEnumerationOfOpenSSL(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, false)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pem")
	pair := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err := os.WriteFile(file, pair, 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().(*net.TCPAddr).AddrPort()
	_ = free.Close()
	startServer(t, "ACCEPT", exec.CommandContext(t.Context(), "openssl", "s_server", "-accept", addr.String(), "-cert", file, "-key", file, "-no_ticket",
		"-serverpref", "-groups", "P-384:X25519", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256",
		"-cipher", "DHE-RSA-AES256-SHA:ECDHE-RSA-AES256-SHA384:CAMELLIA128-SHA:NULL-SHA@SECLEVEL=0"))
	for _, v := range enumerated(t, addr, 20*time.Second).GetEvidence().GetTls().GetVersions() {
		old := []string{"TLS_DHE_RSA_WITH_AES_256_CBC_SHA", "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA", "TLS_RSA_WITH_NULL_SHA"}
		want := map[string][]string{
			"TLS 1.3": {"TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_CCM_SHA256"},
			"TLS 1.2": slices.Insert(slices.Clone(old), 1, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
			"TLS 1.1": old, "TLS 1.0": old,
		}[v.GetVersion()]
		if !slices.Equal(v.GetCipherSuites(), want) || v.GetServerPreference() != (want != nil) {
			t.Errorf("%v, want %v", v, want)
		}
		if v.GetVersion() >= "TLS 1.2" && !slices.Equal(v.GetGroups(), []string{"secp384r1", "x25519"}) {
			t.Errorf("groups of %s: %v", v.GetVersion(), v.GetGroups())
		}
	}
}

// policy lets NSS speak SSL 3.0.
const policy = `library=
name=NSS Internal PKCS #11 Module
parameters=configdir='sql:.' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription=''
NSS=Flags=internal,critical trustOrder=75 cipherOrder=100 slotParams=(1={slotFlags=[RSA,RC4,DES,RANDOM,SHA1,MD5,SSL,TLS,AES,SHA256] askpw=any timeout=30})

library=
name=Policy
NSS=flags=policyOnly,moduleDB
config="allow=all:tls-version-min=ssl3.0:dtls-version-min=0:DSA-MIN=512:RSA-MIN=512:DH-MIN=512"
`

// TestSSL3 asks the last server that still speaks SSL 3.0, in a namespace since it listens everywhere.
func TestSSL3(t *testing.T) {
	for _, tool := range []string{"certutil", "selfserv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s of NSS: %v", tool, err)
		}
	}
	if !ownNamespace(t) {
		return
	}
	dir := t.TempDir()
	script := `ip link set lo up && certutil -N -d sql:. --empty-password && head -c 64 /dev/urandom > noise &&
		certutil -S -d sql:. -n server -x -s CN=www.example -t CT,, -z noise -k rsa -g 2048 -v 12`
	if out, err := inDir(exec.CommandContext(t.Context(), "sh", "-c", script), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "pkcs11.txt"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, "About to call accept", inDir(exec.CommandContext(t.Context(), "selfserv", "-d", "sql:.", "-n", "server", "-p", "443",
		"-V", "ssl3:ssl3", "-c", ":0004:0005:000A:002F", "-N", "-v"), dir))
	addr := netip.MustParseAddrPort("127.0.0.1:443")
	for _, v := range enumerated(t, addr, 20*time.Second).GetEvidence().GetTls().GetVersions() {
		if old := v.GetVersion() == "SSL 3.0"; v.GetSupported() != old || len(v.GetCipherSuites()) != 4 && old {
			t.Errorf("%v", v)
		}
	}
	s := one(t, run(t, newEnv(t, nil), tlsSpec("127.0.0.1", 443, "www.example")), pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if ev := s.GetEvidence().GetTls(); s.GetFailure() != pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED || ev.GetVersion() != "SSL 3.0" || ev.GetServed() != 1 {
		t.Errorf("%v", s)
	}
	offer := tlsSpec("127.0.0.1", 443, "www.example")
	offer.GetTls().Offer = &pb.TLSOffer{Versions: []string{"SSL 3.0"}, CipherSuites: []string{"RC4-MD5"}}
	s = one(t, run(t, newEnv(t, nil), offer), pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if ev := s.GetEvidence().GetTls(); !isCertificate(s.GetFailure()) || ev.GetCipherSuite() != "TLS_RSA_WITH_RC4_128_MD5" {
		t.Errorf("%v", s)
	}
}

// inDir runs a command in a directory.
func inDir(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	return cmd
}
