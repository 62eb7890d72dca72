package probe

import (
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTheWholePipeline(t *testing.T) {
	t.Parallel()
	ca, err := probetest.NewCA("Example", probetest.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(probetest.Leaf{Names: []string{"www.example"}})
	if err != nil {
		t.Fatal(err)
	}
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{
		"www.example. 60 IN CNAME origin.example.",
	}}, "origin.example": {Records: []string{"origin.example. 30 IN A 127.0.0.2"}}})
	env.Roots = append(env.Roots, ca.Root)

	r := run(t, env, tlsSpec("WWW.example.", host.Addr().Port(), ""))

	queries := steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET)
	if len(queries) != 2 || queries[0].GetName() != "www.example" {
		t.Errorf("want a query each for A and AAAA of www.example, got %v", queries)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetAttempts() != 1 {
		t.Errorf("connect: %v", s)
	}
	s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetName() != "www.example" || s.GetEvidence().GetTls().GetVersion() != "TLS 1.3" {
		t.Errorf("handshake: %v", s)
	}
	if n := len(s.GetEvidence().GetTls().GetChain()); n != 2 {
		t.Errorf("a chain of %d certificates, want 2", n)
	}
	if len(r.GetSteps()) != 4 {
		t.Errorf("%d steps, want 4: nothing failed, so nothing else was asked:\n%v", len(r.GetSteps()), r)
	}
}
