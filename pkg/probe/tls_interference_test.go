package probe

import (
	"net"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// variants returns how each variant of a Result's handshake ended; NONE if it got through.
func variants(t testing.TB, r *pb.Result) map[pb.Variant]pb.Failure {
	t.Helper()
	out := map[pb.Variant]pb.Failure{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT) {
		beside := r.GetSteps()[s.GetBeside()]
		if s.Beside == nil || beside.GetRole() != pb.Role_ROLE_TARGET || beside.GetAddress() != s.GetAddress() || s.GetAttempts() != 1 {
			t.Errorf("a variant beside nothing: %v", s)
		}
		if _, twice := out[s.GetVariant()]; twice {
			t.Errorf("%v twice", s.GetVariant())
		}
		out[s.GetVariant()] = s.GetFailure()
		if isCertificate(s.GetFailure()) {
			out[s.GetVariant()] = pb.Failure_FAILURE_NONE
		}
	}
	return out
}

// checkVariants wants exactly these variants to get through, and the others to end as the target did.
func checkVariants(t testing.TB, r *pb.Result, target pb.Failure, through ...pb.Variant) {
	t.Helper()
	s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if s.GetFailure() != target {
		t.Errorf("the target ends as %s, want %s: %v", Short(s.GetFailure()), Short(target), s.GetEvidence())
	}
	want := map[pb.Variant]pb.Failure{
		pb.Variant_VARIANT_OTHER_NAME: target, pb.Variant_VARIANT_NO_NAME: target,
		pb.Variant_VARIANT_SMALL_HELLO: target, pb.Variant_VARIANT_SMALL_SEGMENTS: target,
	}
	for _, v := range through {
		want[v] = pb.Failure_FAILURE_NONE
	}
	got := variants(t, r)
	for v, f := range want {
		if got[v] != f {
			t.Errorf("%v ends as %s, want %s", v, Short(got[v]), Short(f))
		}
	}
	if len(got) != len(want) {
		t.Errorf("variants %v", got)
	}
}

// TestNameFilters: a middlebox that does not like the name is told by what gets past it.
func TestNameFilters(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	server := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	type filter struct {
		name string
		do   probetest.Behaviour
		want pb.Failure
	}
	all(t, func(tt filter) string { return tt.name }, []filter{
		{"it resets", probetest.Abort, pb.Failure_FAILURE_TLS_RESET},
		{"it goes silent", probetest.Accept, pb.Failure_FAILURE_TLS_TIMEOUT},
		{"it hangs up", probetest.HangUp, pb.Failure_FAILURE_TLS_CLOSED},
	}, func(t *testing.T, tt filter) func(*testing.T) {
		box := must[*probetest.Host](t)(probetest.ListenMiddlebox(at("127.0.0.2"), probetest.Middlebox{To: server.Addr(), Name: "www.example", Do: tt.do}))
		env := newEnv(t, nil)
		env.Roots = roots
		fine := run(t, env, tlsSpec("127.0.0.2", server.Addr().Port(), "www.example"))
		r := run(t, env, tlsSpec("127.0.0.2", box.Addr().Port(), "www.example"))
		return func(t *testing.T) {
			// The fault is the box's: past it, the server is as it should be.
			if s := one(t, fine, pb.StepKind_STEP_KIND_TLS_HANDSHAKE); s.GetFailure() != pb.Failure_FAILURE_NONE || len(variants(t, fine)) != 0 {
				t.Errorf("the server itself: %v", fine)
			}
			checkVariants(t, r, tt.want, pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME)
		}
	})
}

// TestUnknownName: a server that does not know the name answers for others.
func TestUnknownName(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example.com"}}, false)
	host := must[*probetest.Host](t)(probetest.ListenFlight(at("127.0.0.2"), probetest.FlightServer{
		Suites: []uint16{0xc02b}, Name: "www.example.com", Certificates: cert.Certificate,
	}))
	env := newEnv(t, nil)
	r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))
	if got := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE).GetFailure(); got != pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME {
		t.Errorf("%s, want tls_unrecognized_name", Short(got))
	}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT) {
		name := map[pb.Variant]string{
			pb.Variant_VARIANT_OTHER_NAME: "www.example.com", pb.Variant_VARIANT_SMALL_HELLO: "www.example", pb.Variant_VARIANT_SMALL_SEGMENTS: "www.example",
		}[s.GetVariant()]
		if s.GetName() != name || s.GetEvidence().GetTls().GetServerName() != name {
			t.Errorf("%v asked for %q, want %q", s.GetVariant(), s.GetName(), name)
		}
		small := s.GetVariant() == pb.Variant_VARIANT_SMALL_HELLO
		if size := s.GetEvidence().GetTls().GetHelloSize(); size == 0 || small != (size < 512) {
			t.Errorf("%v: a hello of %d bytes", s.GetVariant(), size)
		}
	}
	if n := len(variants(t, r)); n != 4 {
		t.Errorf("%d variants, want 4", n)
	}
}

// TestNoVariants: what the server itself explains, and an address without a name.
func TestNoVariants(t *testing.T) {
	t.Parallel()
	host := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Banner))
	env := newEnv(t, nil)
	if got := variants(t, run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))); len(got) != 0 {
		t.Errorf("variants beside a server that speaks SSH: %v", got)
	}
	host = must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Abort))
	if got := variants(t, run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), ""))); len(got) != 3 {
		t.Errorf("without a name, no variant without one: %v", got)
	}
}

// TestLateReset: a server that ends connections after its own flight, when it has seen the client's, does not
// mind the size of a hello.
func TestLateReset(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, true)
	flight := probetest.FlightServer{Suites: []uint16{0x002f}, Certificates: cert.Certificate}
	host := must[*probetest.Host](t)(probetest.ListenFunc(at("127.0.0.2"), func(c net.Conn) {
		said := make([]byte, 8192)
		n, _ := c.Read(said)
		_, _ = c.Write(flight.Answer(said[:n]))
		_, _ = c.Read(said)
		_ = c.(*net.TCPConn).SetLinger(0)
	}))
	r := run(t, newEnv(t, nil), tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))
	checkVariants(t, r, pb.Failure_FAILURE_TLS_RESET)
}
