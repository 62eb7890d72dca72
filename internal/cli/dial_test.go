package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/cli/state"
)

// certificate makes a certificate for 127.0.0.1 and the path of a PEM file to trust it by.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// secured serves a coordinator over TLS.
func secured(t *testing.T, c *coordinator) (address, ca string) {
	t.Helper()
	cert, ca := certificate(t)
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	return c.serve(t, grpc.Creds(creds)), ca
}

func TestTheTokenGoesOverTLSAndNeverInClear(t *testing.T) {
	c := blocked()
	address, ca := secured(t, c)
	got := newWorld(t).run(t, "tcp", "example.com:443", "--coordinator", address, "--ca", ca, "--token", "s3cret\n")
	if got.code != cli.ExitFail {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	inClear := blocked()
	newWorld(t).run(t, "tcp", "example.com:443", "--coordinator", inClear.serve(t), "--insecure", "--token", "s3cret")
	if diff := cmp.Diff([][]string{{"Bearer s3cret"}, {""}}, [][]string{c.tokens, inClear.tokens}); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}

func TestAWrongWayInSaysWhatToDo(t *testing.T) {
	c := blocked()
	secure, _ := secured(t, c)
	_, other := certificate(t)
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"TLS to a coordinator in clear":      {[]string{"--coordinator", blocked().serve(t)}, "add --insecure"},
		"clear to a coordinator with TLS":    {[]string{"--coordinator", secure, "--insecure"}, "leave out --insecure"},
		"a certificate of an unknown CA":     {[]string{"--coordinator", secure}, "--ca FILE"},
		"a certificate of another CA":        {[]string{"--coordinator", secure, "--ca", other}, "--ca FILE"},
		"nobody there, without what is said": {[]string{"--coordinator", nobody(t), "--ca", other}, "elsewhere up"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, what := range []string{"agents", "tls example.com"} {
				got := newWorld(t).run(t, append(fields(what), tc.args...)...)
				if got.code != cli.ExitNetwork || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, tc.says) {
					t.Errorf("%s: exit %d, stdout %q, stderr %q; want %q", what, got.code, got.out, got.err, tc.says)
				}
			}
		})
	}
}

func TestWhatUpLeftIsUsedUnlessAnotherCoordinatorIsNamed(t *testing.T) {
	c, other := blocked(), blocked()
	address, ca := secured(t, c)
	w := newWorld(t)
	if err := state.WriteUp(filepath.Join(w["XDG_STATE_HOME"], "elsewhere"), state.Up{Coordinator: address, CA: ca, Token: "left", PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--coordinator", address}, {"--token", "mine"}} {
		if got := w.run(t, append([]string{"tcp", "example.com:443"}, args...)...); got.code != cli.ExitFail {
			t.Errorf("%v: exit %d, %s", args, got.code, got.err)
		}
	}
	if diff := cmp.Diff([]string{"Bearer left", "Bearer left", "Bearer mine"}, c.tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	if got := w.run(t, "tcp", "example.com:443", "--coordinator", other.serve(t), "--insecure"); got.code != cli.ExitFail || len(other.created) != 1 {
		t.Errorf("another one: exit %d, %s", got.code, got.err)
	}
}
