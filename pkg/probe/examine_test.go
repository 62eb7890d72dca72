package probe

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// handshakeOf serves certificates and returns the handshake with them, in a result that was cut to its bound.
func handshakeOf(t *testing.T, p *pki, serve entities) (*pb.Result, *pb.Step) {
	t.Helper()
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(probetest.Served(serve[0], serve[1:]...))))
	env := newEnv(t, nil)
	env.Roots = []*x509.Certificate{p.root.Certificate}
	r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))
	return r, one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
}

func TestWhatIsMissingIsInTheResult(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	h := newIssuerHost(t)
	h.handle("/i", answering(p.intermediate.DER))
	_, s := handshakeOf(t, p, entities{p.pointing(p.intermediate, h.url+"/i")})
	a := s.GetEvidence().GetTls().GetChainAnalysis()
	if !slices.Equal(s.GetFailures(), []pb.Failure{incomplete}) || len(a.GetMissing()) != 1 {
		t.Fatalf("%v: %v", s.GetFailures(), a)
	}
	if !slices.Equal(a.GetMissing()[0].GetDer(), p.intermediate.DER) || a.GetIssuerUrl() != h.url+"/i" {
		t.Errorf("what is missing cannot be shown: %v", a)
	}
}

func TestTenThousandNamesFit(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	leaf := p.leaf(func(c *x509.Certificate) { c.DNSNames = manyNames(10_000) })
	r, s := handshakeOf(t, p, entities{leaf, p.intermediate})
	names := s.GetEvidence().GetTls().GetNames()
	if s.GetFailure() != pb.Failure_FAILURE_NONE || len(names) != 1 || !names[0].GetSan() {
		t.Errorf("%v: %v", s.GetFailures(), names)
	}
	if n := proto.Size(r); n > maxResult || s.GetEvidence().GetTls().GetServed() != 2 {
		t.Errorf("a result of %d bytes, %d certificates", n, s.GetEvidence().GetTls().GetServed())
	}
}

func TestTheAgentsClockIsNoted(t *testing.T) {
	t.Parallel()
	for _, fast := range []time.Duration{-time.Hour, 0, 48 * time.Hour} {
		job := newJob(tcpSpec("192.0.2.1", 1), time.Second)
		job.CoordinatorTime = timestamppb.New(time.Now().Add(-fast))
		r := Run(t.Context(), &Env{Controls: []string{}}, job)
		if off := r.GetClockOffset().AsDuration() - fast; off.Abs() > time.Minute {
			t.Errorf("%v, want about %v", r.GetClockOffset().AsDuration(), fast)
		}
	}
	if r := Run(t.Context(), &Env{Controls: []string{}}, &pb.Job{Spec: tcpSpec("192.0.2.1", 1)}); r.GetClockOffset() != nil {
		t.Errorf("%v against no clock at all", r.GetClockOffset())
	}
}
