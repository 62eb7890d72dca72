package probe

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Servers of others: what we say of them must be what they were told to do.

// startServer runs a server until the test ends, waits until it says that it is ready, and returns that line.
func startServer(t *testing.T, ready string, cmd *exec.Cmd) string {
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
	said := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		waiting := true
		for s := bufio.NewScanner(r); s.Scan(); {
			if waiting && strings.Contains(s.Text(), ready) {
				waiting = false
				said <- s.Text()
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
	case line := <-said:
		return line
	case <-time.After(time.Minute):
	}
	t.Fatalf("%s is not ready", cmd.Path)
	return ""
}

// startOpenSSL runs a server of OpenSSL, which serves one connection after the other.
func startOpenSSL(t *testing.T, cert tls.Certificate, args ...string) netip.AddrPort {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pem")
	pair := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err := os.WriteFile(file, pair, 0o600); err != nil {
		t.Fatal(err)
	}
	line := startServer(t, "ACCEPT", exec.CommandContext(t.Context(), "openssl", append([]string{
		"s_server", "-accept", "127.0.0.2:0", "-cert", file, "-key", file, "-no_ticket",
	}, args...)...))
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(line, "ACCEPT "))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestOriginsOfOpenSSL: what a CDN would meet at a server that is none of ours and has time for one client at once.
func TestOriginsOfOpenSSL(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}, RSABits: 2048, SelfSigned: true}, false)
	const (
		self    = pb.Failure_FAILURE_CERT_SELF_SIGNED // It gets through.
		version = pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
		cipher  = pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER
		missing = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
		fine    = pb.Failure_FAILURE_NONE
	)
	type server struct {
		name                 string
		args                 []string
		offer, own, exchange pb.Failure
		asks                 bool
	}
	all(t, func(s server) string { return s.name }, []server{
		{"as it comes", nil, self, self, fine, false},
		{"TLS 1.3 alone", []string{"-tls1_3"}, version, self, fine, false},
		{"TLS 1.0 alone", []string{"-tls1", "-cipher", "AES128-SHA@SECLEVEL=0"}, self, self, fine, false},
		{"ChaCha20 alone", []string{"-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"}, cipher, self, fine, false},
		{"a suite that the agent's library lacks", []string{"-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"}, self, self, missing, false},
		{"DHE alone, which nobody has", []string{"-tls1_2", "-cipher", "DHE-RSA-AES128-SHA"}, cipher, self, missing, false},
		{"a certificate is asked for", []string{"-tls1_2", "-verify", "1"}, self, self, fine, true},
	}, func(t *testing.T, s server) func(*testing.T) {
		addr := startOpenSSL(t, cert, append(s.args, "-www")...)
		env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
		env.patience = 5 * time.Second
		r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", addr.Port())}))
		return func(t *testing.T) {
			own, offer := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE), met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]
			if own.GetFailure() != s.own || offer.GetFailure() != s.offer {
				t.Errorf("the agent's: %v\nthe CDN's: %v", own, offer)
			}
			if asked := offer.GetEvidence().GetTls().GetClientCertificateRequested(); asked != s.asks {
				t.Errorf("it asks for a certificate: %v", offer)
			}
			if x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); x.GetFailure() != s.exchange {
				t.Errorf("the exchange: %v", x)
			}
			found := steps(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Role_ROLE_VARIANT)
			if apart := s.offer != self; apart != (len(found) == 1) || apart && found[0].GetFailure() != fine {
				t.Errorf("enumerations: %v", found)
			}
		}
	})
}

// TestEnumerationOfOpenSSL: its list, in its order, and its groups, old versions included.
func TestEnumerationOfOpenSSL(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, false)
	addr := startOpenSSL(t, cert, "-serverpref", "-groups", "P-384:X25519", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256",
		"-cipher", "DHE-RSA-AES256-SHA:ECDHE-RSA-AES256-SHA384:CAMELLIA128-SHA:NULL-SHA@SECLEVEL=0")
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
	if !space.Own(t) {
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
	// An agent has never spoken to it, and yet sees what a CDN would see that is made to speak SSL 3.0.
	r := run(t, newEnv(t, nil), originSpec(&pb.OriginSpec{Url: "https://127.0.0.1/", Versions: []string{"SSL 3.0"}}))
	s = met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]
	if ev := s.GetEvidence().GetTls(); !isCertificate(s.GetFailure()) || ev.GetVersion() != "SSL 3.0" || len(ev.GetNames()) != 1 {
		t.Errorf("%v", s)
	}
	if x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); x.GetFailure() != pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING {
		t.Errorf("%v", x)
	}
}

// inDir runs a command in a directory.
func inDir(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	return cmd
}
