package probe

import (
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// benchmark runs a job and reports the time of its last step too: a Run that asks DNS waits for late
// replies, and a tcp check watches the connection, beside what they measure.
func benchmark(b *testing.B, env *Env, spec *pb.Spec) {
	b.Helper()
	b.ReportAllocs()
	var inStep time.Duration
	for b.Loop() {
		r := run(b, env, spec)
		s := r.GetSteps()[len(r.GetSteps())-1]
		if s.GetFailure() != pb.Failure_FAILURE_NONE {
			b.Fatal(r)
		}
		inStep += s.GetDuration().AsDuration()
	}
	b.ReportMetric(float64(inStep.Nanoseconds())/float64(b.N), "ns/step")
}

func BenchmarkDNS(b *testing.B) {
	benchmark(b, newEnv(b, nil), dnsSpec("control.example", ""))
}

func BenchmarkConnect(b *testing.B) {
	host := must[*probetest.Host](b)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	b.ReportAllocs()
	for b.Loop() {
		conn, _, err := Connect(b.Context(), host.Addr(), ConnectOptions{})
		if err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
	}
}

func BenchmarkTCP(b *testing.B) {
	host := must[*probetest.Host](b)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	benchmark(b, newEnv(b, nil), tcpSpec("127.0.0.2", host.Addr().Port()))
}

func BenchmarkTLS(b *testing.B) {
	cert, roots := issue(b, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}}, true)
	host := must[*probetest.Host](b)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	env := newEnv(b, nil)
	env.Roots = roots
	benchmark(b, env, tlsSpec("127.0.0.2", host.Addr().Port(), ""))
}
