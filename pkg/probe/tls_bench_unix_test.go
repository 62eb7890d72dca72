//go:build unix

package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestServeTLS is no test but the server of the benchmarks, in a process of its own, so that its CPU time
// is not counted as the client's. It says its address and its root, and ends with its stdin.
func TestServeTLS(t *testing.T) {
	if os.Getenv("ELSEWHERE_SERVE_TLS") == "" {
		return
	}
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	fmt.Printf("serving %s %s\n", host.Addr(), base64.StdEncoding.EncodeToString(roots[0].Raw))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serveTLSElsewhere starts the server and returns where it is and by which root it is to be judged.
func serveTLSElsewhere(b *testing.B) (netip.AddrPort, *x509.Certificate) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestServeTLS$")
	cmd.Env = append(os.Environ(), "ELSEWHERE_SERVE_TLS=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(line)
	der, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil {
		b.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(fields[1]), root
}

// handshakes runs op b.N times, some at once, and reports the CPU seconds of this process for 10,000 of
// them.
func handshakes(b *testing.B, op func() error) {
	b.Helper()
	b.ReportAllocs()
	var wg sync.WaitGroup
	turns := make(chan struct{})
	for range 32 {
		wg.Go(func() {
			for range turns {
				if err := op(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	before := cpuTime(b)
	for b.Loop() {
		turns <- struct{}{}
	}
	close(turns)
	wg.Wait()
	b.ReportMetric((cpuTime(b)-before).Seconds()/float64(b.N)*10_000, "cpu-s/10k")
}

// BenchmarkTLSCheck is a whole tls check with the analysis of the chain, and the Result.
func BenchmarkTLSCheck(b *testing.B) {
	addr, root := serveTLSElsewhere(b)
	env := &Env{
		Egress: Egress{Allow: loopback}, Controls: []string{}, Resolvers: []netip.AddrPort{},
		Roots: []*x509.Certificate{root}, Chains: &Chains{},
	}
	job := newJob(tlsSpec(addr.Addr().String(), addr.Port(), "www.example"), 28*time.Second)
	handshakes(b, func() error {
		for _, s := range Run(context.Background(), env, job).GetSteps() {
			if s.GetFailure() != pb.Failure_FAILURE_NONE {
				return fmt.Errorf("%s: %s", Short(s.GetFailure()), s.GetEvidence().GetText())
			}
		}
		return nil
	})
}

// BenchmarkTLSBare is what crypto/tls needs for a handshake with verification, and nothing else.
func BenchmarkTLSBare(b *testing.B) {
	addr, root := serveTLSElsewhere(b)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	config := &tls.Config{ServerName: "www.example", RootCAs: pool, NextProtos: bothVersions}
	handshakes(b, func() error {
		raw, err := net.DialTimeout("tcp", addr.String(), connectTimeout)
		if err != nil {
			return err
		}
		conn := tls.Client(raw, config)
		defer func() { _ = conn.Close() }()
		return conn.HandshakeContext(context.Background())
	})
}
