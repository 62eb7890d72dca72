package coordinator_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// join makes a join token for a region, and a name unless it is "".
func (s *secured) join(name, region string) string {
	s.t.Helper()
	made, err := s.access(s.admin()).CreateJoinToken(s.t.Context(), &pb.CreateJoinTokenRequest{
		Join: &pb.JoinToken{Agent: name, Vantage: &pb.Vantage{Region: region}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return made.GetSecret()
}

// agentOptions are an agent's that says of itself that it stands on mars.
func (s *secured) agentOptions(dir, token string) agent.Options {
	env := &probe.Env{Hints: []netip.AddrPort{}, Resolvers: []netip.AddrPort{}, Controls: []string{}}
	env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	return agent.Options{
		Coordinators: []string{s.addr}, DataDir: dir, Join: token, Env: env, DrainTimeout: 200 * time.Millisecond,
		Vantage: &pb.Vantage{Region: "mars", City: "Olympus"},
	}
}

// enrol gives an agent an identity.
func (s *secured) enrol(dir, token string) *identity.Keep {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	keep, err := agent.Enrol(ctx, s.agentOptions(dir, token))
	if err != nil {
		s.t.Fatal(err)
	}
	return keep
}

// run runs an agent, which enrols first if it has to.
func (s *secured) run(dir, token string) (stop func()) {
	s.t.Helper()
	opts := s.agentOptions(dir, token)
	opts.Identity = s.enrol(dir, token)
	return s.runs(opts)
}

// runs runs an agent.
func (s *secured) runs(opts agent.Options) (stop func()) {
	s.t.Helper()
	a, err := agent.New(opts)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

// await waits until an agent is as wanted.
func (s *secured) await(what, id string, wanted func(*pb.Agent) bool) *pb.Agent {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	fleet := pb.NewFleetServiceClient(s.conn(s.admin()))
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		r, err := fleet.ListAgents(ctx, &pb.ListAgentsRequest{From: id})
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if len(r.GetAgents()) == 1 && wanted(r.GetAgents()[0]) {
			return r.GetAgents()[0]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("%s: not within a minute: %v", what, r.GetAgents())
		}
	}
}

func online(a *pb.Agent) bool { return a.GetState() == pb.AgentState_AGENT_STATE_ONLINE }

// audited waits for an event of a kind about an agent.
func (s *secured) audited(kind pb.AuditKind, agent string) *pb.AuditEvent {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		r, err := s.access(s.admin()).ListAuditEvents(ctx, &pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{kind}, Agent: agent})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(r.GetEvents()) > 0 {
			return r.GetEvents()[0]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("no %v of %s was audited within a minute", kind, agent)
		}
	}
}

// measure asks everybody to connect somewhere and returns the measurement when it has ended.
func (s *secured) measure(target netip.AddrPort) *pb.Measurement {
	s.t.Helper()
	api := pb.NewMeasurementServiceClient(s.conn(s.admin()))
	created, err := api.CreateMeasurement(s.t.Context(), &pb.CreateMeasurementRequest{
		Timeout: durationpb.New(10 * time.Second),
		Spec:    &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	stream, err := api.WatchMeasurement(s.t.Context(), &pb.WatchMeasurementRequest{Id: created.GetMeasurement().GetId()})
	for err == nil {
		var r *pb.WatchMeasurementResponse
		if r, err = stream.Recv(); r.GetMeasurement().GetState() == pb.State_STATE_FINISHED {
			return r.GetMeasurement()
		}
	}
	s.t.Fatalf("measuring: %v", err)
	return nil
}

// as is a connection that shows an agent's certificate.
func (s *secured) as(keep *identity.Keep) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(credentials.NewTLS(keep.ClientTLS())))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAnAgentComesIn(t *testing.T) {
	s := newSecured(t)
	dir, token := t.TempDir(), s.join("fra-1", "eu-central")
	stop := s.run(dir, token)
	a := s.await("the first start", "fra-1", online)
	if a.GetVantage().GetRegion() != "eu-central" || a.GetVantage().GetCity() != "Olympus" || a.GetEnrollTime() == nil || a.GetExpireTime() == nil {
		t.Errorf("%v", a)
	}
	if m := s.measure(shutPort(t)); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("%v", m)
	}
	s.audited(pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, "fra-1")
	stop()
	s.stop()
	s.start() // the enrolment is in the log
	stop = s.run(dir, token)
	s.await("a start with the token that was used", "fra-1", online)
	stop()
	s.run(dir, "")
	s.await("a start without a token", "fra-1", online)
}

// asker enrols by the call alone.
func (s *secured) ask(token, id string, request []byte) (*pb.EnrollResponse, error) {
	s.t.Helper()
	return pb.NewRegistrationServiceClient(s.conn("")).Enroll(s.t.Context(), &pb.EnrollRequest{Token: token, Id: id, CertificateRequest: request})
}

// newRequest is a request for a fresh key.
func newRequest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func TestEnroll(t *testing.T) {
	s := newSecured(t)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaRequest, err := identity.NewRequest(big)
	if err != nil {
		t.Fatal(err)
	}
	request := newRequest(t)
	free, named, revoked := s.join("", "eu"), s.join("b", "eu"), s.join("", "eu")
	parsed, err := identity.ParseJoinToken(revoked)
	if err != nil {
		t.Fatal(err)
	}
	s.revoke(parsed.ID)
	for _, row := range []struct {
		what, token, id string
		request         []byte
		code            codes.Code
		name            string
	}{
		{"no token of ours", identity.NewJoinToken(parsed.Pin).Text(), "a", request, codes.PermissionDenied, ""},
		{"no token at all", "secret", "a", request, codes.PermissionDenied, ""},
		{"a token that was revoked", revoked, "a", request, codes.PermissionDenied, ""},
		{"an RSA key", free, "a", rsaRequest, codes.InvalidArgument, ""},
		{"nonsense for a request", free, "a", []byte("x"), codes.InvalidArgument, ""},
		{"a name that is none", free, "A!", request, codes.InvalidArgument, ""},
		{"a name of its own", free, "a", request, codes.OK, "a"},
		{"the same once more, since an answer can be lost", free, "a", request, codes.OK, "a"},
		{"the same without the name", free, "", request, codes.PermissionDenied, ""},
		{"a token that was used, another key", free, "a", newRequest(t), codes.PermissionDenied, ""},
		{"a token that was used, another name", free, "c", request, codes.PermissionDenied, ""},
		{"a name that is taken", s.join("", "eu"), "a", newRequest(t), codes.AlreadyExists, ""},
		{"a token for somebody else", named, "c", newRequest(t), codes.PermissionDenied, ""},
		{"the token's name", named, "", newRequest(t), codes.OK, "b"},
		{"a token for a name that is taken takes it", s.join("a", "us"), "", newRequest(t), codes.OK, "a"},
	} {
		r, err := s.ask(row.token, row.id, row.request)
		if status.Code(err) != row.code || r.GetId() != row.name {
			t.Errorf("%s: %v, %v; want %v %q", row.what, r.GetId(), err, row.code, row.name)
		}
		if err != nil && strings.Contains(err.Error(), strings.Split(free, "_")[2]) {
			t.Errorf("%s: the error has the secret", row.what)
		}
	}
	if a := s.await("enrolled and never seen", "a", func(*pb.Agent) bool { return true }); a.GetVantage().GetRegion() != "us" {
		t.Errorf("%v", a)
	}
}

// TestEnrollAtOnce: of many that come with one token, one is let in.
func TestEnrollAtOnce(t *testing.T) {
	s := newSecured(t)
	token := s.join("", "eu")
	var wg sync.WaitGroup
	won := make(chan string, 20)
	client := pb.NewRegistrationServiceClient(s.conn(""))
	for range 20 {
		request := newRequest(t)
		wg.Go(func() {
			r, err := client.Enroll(context.Background(), &pb.EnrollRequest{Token: token, CertificateRequest: request})
			if err == nil {
				won <- r.GetId()
			} else if status.Code(err) != codes.PermissionDenied {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 20 were let in", len(won))
	}
}

func TestAnAgentThatIsRefusedSaysSoAtOnce(t *testing.T) {
	s := newSecured(t)
	other := newSecured(t)
	gone := s.join("", "eu")
	parsed, err := identity.ParseJoinToken(gone)
	if err != nil {
		t.Fatal(err)
	}
	s.revoke(parsed.ID)
	for what, row := range map[string]struct{ token, says string }{
		"a token that was revoked":      {gone, "refuses the token"},
		"another coordinator's token":   {other.join("", "eu"), "another coordinator"},
		"no token":                      {"", "--join"},
		"a token that is cut in halves": {gone[:40], "complete"},
	} {
		_, err := agent.Enrol(t.Context(), s.agentOptions(t.TempDir(), row.token))
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v; want %q", what, err, row.says)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	opts := s.agentOptions(t.TempDir(), s.join("", "eu"))
	opts.Coordinators = []string{shutPort(t).String()}
	done := make(chan error, 1)
	go func() { _, err := agent.Enrol(ctx, opts); done <- err }()
	select {
	case err := <-done:
		t.Errorf("a coordinator that is not there is waited for: %v", err)
	case <-time.After(time.Second):
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestAJoinTokenInAFile is looked at once: the next start finds the identity, and the file may be gone.
func TestAJoinTokenInAFile(t *testing.T) {
	s := newSecured(t)
	file, dir := filepath.Join(t.TempDir(), "token"), t.TempDir()
	if err := os.WriteFile(file, []byte(s.join("a", "eu")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name := s.enrol(dir, "@"+file).Name(); name != "a" {
		t.Errorf("it is %q", name)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.enrol(dir, "@"+file)
	if _, err := agent.Enrol(t.Context(), s.agentOptions(t.TempDir(), "@"+file)); !errors.Is(err, agent.ErrNotEnrolled) || !strings.Contains(err.Error(), file) {
		t.Errorf("another agent: %v", err)
	}
}

// short has certificates end soon.
func short(life time.Duration) coordinator.Options {
	return coordinator.Options{NATSAddr: "127.0.0.1:0", Identity: identity.Options{AgentLife: life}}
}

// TestCertificatesAreRenewed: an agent outlives its certificate several times, and does its work meanwhile.
func TestCertificatesAreRenewed(t *testing.T) {
	s := newSecuredAs(t, short(6*time.Second))
	s.run(t.TempDir(), s.join("a", "eu"))
	first := s.await("online", "a", online).GetExpireTime().AsTime()
	target := shutPort(t)
	for n := 0; ; n++ {
		if m := s.measure(target); m.GetLedger().GetAnswered() != 1 {
			t.Errorf("measurement %d: %v", n, m)
		}
		if a := s.await("online", "a", online); a.GetExpireTime().AsTime().Sub(first) > 8*time.Second {
			return // at least the third
		}
	}
}

// TestAnAgentThatWasAwayComesBack with a certificate that has ended.
func TestAnAgentThatWasAwayComesBack(t *testing.T) {
	s := newSecuredAs(t, short(2*time.Second))
	dir := t.TempDir()
	keep := s.enrol(dir, s.join("a", "eu"))
	<-time.After(time.Until(keep.Expires()) + time.Second)
	if _, err := pb.NewRegistrationServiceClient(s.as(keep)).Register(t.Context(), &pb.RegisterRequest{Id: "a", Vantage: &pb.Vantage{Region: "eu"}}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a certificate that has ended is good for Renew alone: %v", err)
	}
	s.run(dir, "")
	s.await("back", "a", online)
	s.audited(pb.AuditKind_AUDIT_KIND_AGENT_RETURNED, "a")
}

// TestAnAgentWhoseClockIsAhead: by its clock each certificate that it gets has ended, and it comes in all the same.
func TestAnAgentWhoseClockIsAhead(t *testing.T) {
	behind := func() time.Time { return time.Now().Add(-30 * time.Hour) }
	s := newSecuredAs(t, coordinator.Options{NATSAddr: "127.0.0.1:0", Identity: identity.Options{Now: behind}})
	dir := t.TempDir()
	if keep := s.enrol(dir, s.join("a", "eu")); time.Now().Before(keep.Expires()) {
		t.Fatalf("its certificate is good until %v", keep.Expires())
	}
	s.run(dir, "")
	s.await("online", "a", online)
}

// TestALostRenewal: the coordinator has renewed, and the agent has not heard of it.
func TestALostRenewal(t *testing.T) {
	s := newSecured(t)
	keep := s.enrol(t.TempDir(), s.join("a", "eu"))
	client := pb.NewRegistrationServiceClient(s.as(keep))
	request, err := keep.Request()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the answers to the first two are lost
		if _, err := client.Renew(t.Context(), &pb.RenewRequest{CertificateRequest: request}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := client.Renew(t.Context(), &pb.RenewRequest{CertificateRequest: newRequest(t)})
	if err != nil {
		t.Fatalf("another key, since the pending one is lost too: %v", err)
	}
	if err := keep.Store(r.GetCertificate()); err == nil {
		t.Error("a certificate of another key is stored")
	}
	if _, err := client.Renew(t.Context(), &pb.RenewRequest{CertificateRequest: newRequest(t)}); err != nil {
		t.Errorf("the key before is good until the next renewal: %v", err)
	}
}

// TestTwoProcessesWithOneIdentity take each other's session, and it is noted.
func TestTwoProcessesWithOneIdentity(t *testing.T) {
	s := newSecured(t)
	dir, clone := t.TempDir(), t.TempDir()
	s.enrol(dir, s.join("a", "eu"))
	if err := os.CopyFS(filepath.Join(clone, "identity"), os.DirFS(filepath.Join(dir, "identity"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent.key", "agent.pem", "ca.pem"} {
		if err := os.Chmod(filepath.Join(clone, "identity", name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.run(dir, "")
	s.run(clone, "")
	s.audited(pb.AuditKind_AUDIT_KIND_IDENTITY_CONFLICT, "a")
}
