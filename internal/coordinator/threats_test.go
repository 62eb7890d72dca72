package coordinator_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// report opens a stream of results with an agent's certificate and says hello in a name.
func (s *secured) report(keep *identity.Keep, hello *pb.Hello) pb.ResultService_ReportClient {
	s.t.Helper()
	stream, err := pb.NewResultServiceClient(s.as(keep)).Report(s.t.Context())
	if err == nil {
		err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: hello}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
	return stream
}

// register registers an agent by the call alone.
func (s *secured) register(keep *identity.Keep, id string) (*pb.RegisterResponse, error) {
	s.t.Helper()
	return pb.NewRegistrationServiceClient(s.as(keep)).Register(s.t.Context(), &pb.RegisterRequest{
		Id: id, Vantage: &pb.Vantage{Region: "mars", Labels: map[string]string{"tier": "gold"}, ObservedAddress: "203.0.113.9"},
	})
}

// natsConn connects an agent to NATS and returns the connection, and a channel that has a word when a job comes.
func (s *secured) natsConn(keep *identity.Keep, at []string, as string) *bus.AgentConn {
	s.t.Helper()
	conn, err := bus.ConnectAgent(s.t.Context(), bus.AgentOptions{
		Agent: as, TLS: keep.ClientTLS(), Addresses: at,
		Job:       func(*pb.Job) *pb.JobReply { return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE} },
		Cancel:    func(*pb.Cancel) {},
		Connected: func() {},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}

// TestAgentCannotSpoofIdentity (threat T1: an agent claims another name or region). It has a good certificate, and
// everything that it says is a lie.
func TestAgentCannotSpoofIdentity(t *testing.T) {
	s := newSecured(t)
	a := s.enrol(t.TempDir(), s.join("a", "eu"))
	s.run(t.TempDir(), s.join("b", "us"))
	s.await("b", "b", online)

	if _, err := s.register(a, "b"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("registering as b: %v", err)
	}
	s.audited(pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, "a")
	if _, err := s.report(a, &pb.Hello{Agent: "b", Session: 99, Epoch: 1}).Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stream as b: %v", err)
	}

	r, err := s.register(a, "a")
	if err != nil {
		t.Fatal(err)
	}
	if v := r.GetVantage(); v.GetRegion() != "eu" || len(v.GetLabels()) != 0 || v.GetObservedAddress() != "127.0.0.1" {
		t.Errorf("where it says that it stands counts: %v", v)
	}
	nats := s.natsConn(a, r.GetNatsAddresses(), "a")
	if err := nats.Beat(&pb.Beat{Agent: "b", Vantage: &pb.Vantage{Region: "mars"}, Draining: true}); err != nil {
		t.Fatal(err)
	}
	if err := nats.Beat(&pb.Beat{Agent: "a", Vantage: &pb.Vantage{Region: "mars", ObservedAddress: "203.0.113.9"}}); err != nil {
		t.Fatal(err)
	}
	if v := s.await("a beats", "a", online).GetVantage(); v.GetRegion() != "eu" || v.GetObservedAddress() != "127.0.0.1" {
		t.Errorf("where its beat says that it stands counts: %v", v)
	}
	if b := s.await("b", "b", func(*pb.Agent) bool { return true }); b.GetState() != pb.AgentState_AGENT_STATE_ONLINE || b.GetVantage().GetRegion() != "us" {
		t.Errorf("a's beat in b's name counts: %v", b)
	}

	never := &pb.Hello{Agent: "a", Session: r.GetSession() + 1, Epoch: r.GetEpoch()}
	if _, err := s.report(a, never).Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a session that was never given out: %v", err)
	}

	// A result of b's, sent by a, for a job that b has: refused, and b's own is the one that counts.
	stream := s.report(a, &pb.Hello{Agent: "a", Session: r.GetSession(), Epoch: r.GetEpoch()})
	m := s.forge(stream, "b")
	for _, ask := range m.GetAsks() {
		if ask.GetAgent() == "b" && ask.GetState() != pb.AskState_ASK_STATE_ANSWERED {
			t.Errorf("%v", ask)
		}
	}
	results, err := pb.NewMeasurementServiceClient(s.conn(s.admin())).ListResults(t.Context(), &pb.ListResultsRequest{Id: m.GetId()})
	for err == nil {
		var r *pb.ListResultsResponse
		if r, err = results.Recv(); r.GetResult().GetVersion() == forged {
			t.Errorf("the forged result is there: %v", r)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

const forged = "forged"

// forge measures, and sends a result in another agent's name until the measurement has ended.
func (s *secured) forge(stream pb.ResultService_ReportClient, name string) *pb.Measurement {
	s.t.Helper()
	api := pb.NewMeasurementServiceClient(s.conn(s.admin()))
	closed := shutPort(s.t)
	created, err := api.CreateMeasurement(s.t.Context(), &pb.CreateMeasurementRequest{
		From: "a,b", Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: closed.Addr().String(), Port: uint32(closed.Port())}}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	id := created.GetMeasurement().GetId()
	for seq, agent := range []string{name, "a"} {
		err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: &pb.ResultBatch{Results: []*pb.SpooledResult{{
			Seq: uint64(seq + 1), Result: &pb.Result{MeasurementId: id, Agent: agent, Version: map[bool]string{true: forged, false: "own"}[agent == name]},
		}}}}})
		if err != nil {
			s.t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetAck() == nil {
			s.t.Fatalf("what is refused is acknowledged, or it would come for ever: %v, %v", r, err)
		}
	}
	watch, err := api.WatchMeasurement(s.t.Context(), &pb.WatchMeasurementRequest{Id: id})
	for err == nil {
		var r *pb.WatchMeasurementResponse
		if r, err = watch.Recv(); r.GetMeasurement().GetState() == pb.State_STATE_FINISHED {
			return r.GetMeasurement()
		}
	}
	s.t.Fatal(err)
	return nil
}

// TestRevocationLatency (threat T14: an agent's key is stolen): all that a revoked agent has open ends within 5 s, and
// nothing opens again.
func TestRevocationLatency(t *testing.T) {
	s := newSecured(t)
	keep := s.enrol(t.TempDir(), s.join("a", "eu"))
	r, err := s.register(keep, "a")
	if err != nil {
		t.Fatal(err)
	}
	stream := s.report(keep, &pb.Hello{Agent: "a", Session: r.GetSession(), Epoch: r.GetEpoch()})
	nats := s.natsConn(keep, r.GetNatsAddresses(), "a")
	if err := nats.Beat(&pb.Beat{Agent: "a", Vantage: &pb.Vantage{Region: "eu"}}); err != nil {
		t.Fatal(err)
	}
	s.await("the connections stand", "a", online)

	began := time.Now()
	fleet := pb.NewFleetServiceClient(s.conn(s.admin()))
	for range 2 { // revoking it again changes nothing
		revoked, err := fleet.RevokeAgent(t.Context(), &pb.RevokeAgentRequest{Id: "a", Reason: "stolen"})
		if err != nil || revoked.GetAgent().GetState() != pb.AgentState_AGENT_STATE_REVOKED {
			t.Errorf("%v, %v", revoked, err)
		}
	}
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream of results: %v", err)
	}
	ends := time.Since(began)
	for tick := time.NewTicker(10 * time.Millisecond); nats.Beat(&pb.Beat{Agent: "a"}) == nil && time.Since(began) < 30*time.Second; {
		<-tick.C // a beat without a connection is an error
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("after %v the connection to NATS still stands", took)
	}
	t.Logf("the stream ended after %v, the connection to NATS after %v", ends, time.Since(began))

	if _, err := s.register(keep, "a"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("registering: %v", err)
	}
	request, err := keep.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewRegistrationServiceClient(s.as(keep)).Renew(t.Context(), &pb.RenewRequest{CertificateRequest: request}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("renewing: %v", err)
	}
	if event := s.audited(pb.AuditKind_AUDIT_KIND_AGENT_REVOKED, "a"); !bytes.Contains([]byte(event.GetDetail()), []byte("stolen")) {
		t.Errorf("%v", event)
	}
	s.stop()
	s.start() // the log remembers
	if _, err := s.register(keep, "a"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("registering after a restart: %v", err)
	}
	again := s.enrol(t.TempDir(), s.join("a", "eu"))
	if _, err := s.register(again, "a"); err != nil {
		t.Errorf("enrolled anew with a token for its name, and a new key: %v", err)
	}
	if _, err := s.register(keep, "a"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the old key: %v", err)
	}
}

// TestAStreamEndsWithItsCertificate: an agent that does not renew is cut off.
func TestAStreamEndsWithItsCertificate(t *testing.T) {
	s := newSecuredAs(t, short(3*time.Second))
	keep := s.enrol(t.TempDir(), s.join("a", "eu"))
	r, err := s.register(keep, "a")
	if err != nil {
		t.Fatal(err)
	}
	stream := s.report(keep, &pb.Hello{Agent: "a", Session: r.GetSession(), Epoch: r.GetEpoch()})
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v", err)
	}
	if early := time.Until(keep.Expires()); early > 0 {
		t.Errorf("it ended %v too early", early)
	}
}

// relay passes connections on and keeps what it sees.
type relay struct{ lines }

// listen relays from one address to another until the test ends.
func (r *relay) listen(t *testing.T, at, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(io.MultiWriter(out, r), in); _ = out.Close() }()
			go func() { _, _ = io.Copy(io.MultiWriter(in, r), out); _ = in.Close() }()
		}
	}()
	return l.Addr().String()
}

// TestNothingIsReadOnTheWire (threat T12: somebody listens): an agent enrols and works behind a relay that keeps every
// byte, of gRPC and of NATS. Without TLS the same relay reads along, so it would see it.
func TestNothingIsReadOnTheWire(t *testing.T) {
	markers := []string{"agent-of-the-marker", "Olympus", "beats.", "jobs.", "MSG ", "INFO {", "CONNECT {", "PRI * HTTP/2.0"}
	for _, secure := range []bool{false, true} {
		r := &relay{}
		// Agents are told of NATS at the relay's address and NATS's own port.
		s := newSecuredAs(t, coordinator.Options{NATSAddr: "127.0.7.9:0", Advertise: "127.0.7.10", Insecure: !secure})
		opts := s.agentOptions(t.TempDir(), "")
		opts.ID, opts.Coordinators = "agent-of-the-marker", []string{r.listen(t, "127.0.7.10:0", s.addr)}
		r.listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.7.10"), s.nats.Port()).String(), s.nats.String())
		secret := "none"
		if secure {
			opts.Join = s.join("", "eu")
			secret = opts.Join[len("ewj1_0123456789_"):][:52]
			var err error
			if opts.Identity, err = agent.Enrol(t.Context(), opts); err != nil {
				t.Fatal(err)
			}
		}
		s.runs(opts)
		s.await("behind the relay", opts.ID, online)
		if m := s.measure(shutPort(t)); m.GetLedger().GetAnswered() != 1 {
			t.Errorf("%v", m)
		}
		for _, marker := range markers {
			if r.has(marker) == secure {
				t.Errorf("TLS %v: the relay sees %q: %v", secure, marker, r.has(marker))
			}
		}
		if secure && (r.has(secret) || !r.has("\x16\x03")) {
			t.Error("the token's secret is on the wire, or nothing is at all")
		}
	}
}
