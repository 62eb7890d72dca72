package bench

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// idleFor is how long an agent is left alone before it is looked at: some beats.
	idleFor = 20 * time.Second
	// hosts is how many addresses there are of each kind of target: an agent looks at one at most 50 times at once,
	// and then 5 times a second.
	hosts = 64
	// checksAtOnce is how many checks are under way.
	checksAtOnce = 32
)

// marks are the numbers of checks after which the agent's memory is looked at.
var marks = []int{1_000, 5_000, 10_000, 20_000}

// BenchmarkAgentMemory is what elsewhere-agent has resident, a process of its own, enrolled and over TLS: idle, and after
// so many checks of servers on loopback, a quarter each dns, tcp, tls and https with HTTP/2. "anon" is without the
// pages of the program's own file.
func BenchmarkAgentMemory(b *testing.B) {
	targets := newTargets(b)
	for b.Loop() {
		s := newSite(b)
		c, _ := s.coordinator(b)
		a, _ := s.agent(b, "one", append(quietAgent(b), "--roots", targets.roots)...)
		look := func(when string) {
			<-time.After(idleFor)
			all, anon := a.memory(b)
			b.ReportMetric(all, when+"-MiB")
			b.ReportMetric(anon, when+"-anon-MiB")
			b.Logf("%s: %.1f MiB, %.1f of them not the program's file", when, all, anon)
		}
		look("idle")
		api, done := pb.NewMeasurementServiceClient(s.api(b)), 0
		for _, mark := range marks {
			began := time.Now()
			group, ctx := errgroup.WithContext(b.Context())
			group.SetLimit(checksAtOnce)
			for ; done < mark; done++ {
				spec := targets.spec(done)
				group.Go(func() error { return check(ctx, api, spec) })
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			b.Logf("until %d checks: %v", mark, time.Since(began).Round(time.Second))
			look(fmt.Sprint("after-", mark))
		}
		a.end(b)
		c.end(b)
	}
	b.ReportMetric(0, "ns/op")
}

// check measures once, and is an error unless all is well.
func check(ctx context.Context, api pb.MeasurementServiceClient, spec *pb.Spec) error {
	created, err := api.CreateMeasurement(ctx, &pb.CreateMeasurementRequest{Spec: spec})
	if err != nil {
		return err
	}
	m, err := ended(ctx, api, created.GetMeasurement().GetId())
	if err == nil && m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
		err = fmt.Errorf("%v: %v", spec, m.GetVerdict())
	}
	return err
}

// targets are servers on loopback.
type targets struct {
	roots string // the file of their authority
	kinds [][]netip.AddrPort
}

// newTargets starts them: hosts of each kind.
func newTargets(b *testing.B) *targets {
	ca, err := probetest.NewCA("bench", probetest.CAOptions{})
	if err != nil {
		b.Fatal(err)
	}
	t := &targets{roots: filepath.Join(b.TempDir(), "roots.pem"), kinds: make([][]netip.AddrPort, 4)}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})
	if err := os.WriteFile(t.roots, text, 0o600); err != nil {
		b.Fatal(err)
	}
	zone := probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}}
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "here") })
	for i := range hosts {
		for kind := range t.kinds {
			ip := netip.AddrFrom4([4]byte{127, 41, byte(kind), byte(i + 1)})
			at := netip.AddrPortFrom(ip, 0)
			cert, err := ca.Issue(probetest.Leaf{Names: []string{ip.String()}})
			if err != nil {
				b.Fatal(err)
			}
			config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			var server interface {
				Addr() netip.AddrPort
				io.Closer
			}
			switch kind {
			case 0:
				server, err = probetest.ServeDNS(at, zone, true)
			case 1:
				server, err = probetest.Listen(at, probetest.Accept)
			case 2:
				server, err = probetest.ListenTLS(at, config)
			case 3:
				config.NextProtos = []string{"h2"}
				server, err = probetest.ListenHTTPS(at, config, page)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = server.Close() })
			t.kinds[kind] = append(t.kinds[kind], server.Addr())
		}
	}
	return t
}

// spec is the nth check.
func (t *targets) spec(n int) *pb.Spec {
	kind := n % len(t.kinds)
	at := t.kinds[kind][n/len(t.kinds)%hosts]
	host, port := at.Addr().String(), uint32(at.Port())
	switch kind {
	case 0:
		return &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", Resolver: at.String()}}}
	case 1:
		return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: host, Port: port}}}
	case 2:
		return &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: host, Port: port}}}
	default:
		return &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://" + at.String() + "/"}}}
	}
}

// quietAgent is the command line of an agent that asks nobody but servers of the benchmark.
func quietAgent(b *testing.B) []string {
	at := netip.MustParseAddrPort("127.0.0.1:0")
	resolver, err := probetest.ServeDNS(at, probetest.Zone{}, true)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = resolver.Close() })
	control, err := probetest.Listen(at, probetest.Accept)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = control.Close() })
	return []string{
		"--resolver", resolver.Addr().String(), "--root-server", resolver.Addr().String(), "--control", control.Addr().String(),
	}
}

// newSite is an empty directory, and an address that is free.
func newSite(b *testing.B) *site {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return &site{dir: b.TempDir(), grpc: l.Addr().String()}
}
