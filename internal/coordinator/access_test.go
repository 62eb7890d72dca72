package coordinator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// secured is a coordinator with TLS, which can be started again.
type secured struct {
	t    *testing.T
	dir  string
	opts coordinator.Options
	addr string
	nats netip.AddrPort
	stop func()
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	return newSecuredAs(t, coordinator.Options{NATSAddr: "127.0.0.1:0"})
}

func newSecuredAs(t *testing.T, opts coordinator.Options) *secured {
	t.Helper()
	s := &secured{t: t, dir: t.TempDir(), opts: opts}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *secured) start() {
	s.t.Helper()
	opts := s.opts
	opts.DataDir, opts.GRPCAddr = s.dir, "127.0.0.1:0"
	c, err := coordinator.New(s.t.Context(), opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr, s.nats = c.GRPCAddr().String(), netip.MustParseAddrPort(c.NATSAddr().String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	// admin.token is there when the coordinator serves.
	if _, err := healthpb.NewHealthClient(s.conn("")).Check(s.t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		s.t.Fatal(err)
	}
}

// tls is how a client knows the coordinator.
func (s *secured) tls() *tls.Config {
	pem, err := os.ReadFile(filepath.Join(s.dir, "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}
}

// conn is a connection that shows a token with each call; an empty one shows none.
func (s *secured) conn(token string) *grpc.ClientConn {
	s.t.Helper()
	how := insecure.NewCredentials()
	if !s.opts.Insecure {
		how = credentials.NewTLS(s.tls())
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(how)}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient(s.addr, opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// bearer is what follows "authorization: ".
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

// admin is the text of admin.token.
func (s *secured) admin() string {
	s.t.Helper()
	if s.opts.Insecure {
		return ""
	}
	path := filepath.Join(s.dir, "admin.token")
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		s.t.Errorf("admin.token: %v, %v", info, err)
	}
	return "Bearer " + strings.TrimSpace(string(text))
}

func (s *secured) access(token string) pb.AccessServiceClient {
	return pb.NewAccessServiceClient(s.conn(token))
}

// token makes an API token and returns its id and what follows "authorization: ".
func (s *secured) token(scope pb.Scope, quota *pb.Quota) (id, text string) {
	s.t.Helper()
	made, err := s.access(s.admin()).CreateAPIToken(s.t.Context(), &pb.CreateAPITokenRequest{Api: &pb.APIToken{Name: "test", Scope: scope, Quota: quota}})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(made.GetToken().GetHash()) != 0 {
		s.t.Error("a hash is shown")
	}
	return made.GetToken().GetId(), "Bearer " + made.GetSecret()
}

// revoke ends a token.
func (s *secured) revoke(id string) {
	s.t.Helper()
	if _, err := s.access(s.admin()).RevokeToken(s.t.Context(), &pb.RevokeTokenRequest{Id: id}); err != nil {
		s.t.Fatal(err)
	}
}

func TestScopes(t *testing.T) {
	s := newSecured(t)
	_, read := s.token(pb.Scope_SCOPE_READ, nil)
	_, measure := s.token(pb.Scope_SCOPE_MEASURE, nil)
	ask := &pb.CreateMeasurementRequest{Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 443}}}}
	calls := map[string]func(*grpc.ClientConn) error{
		"list agents": func(c *grpc.ClientConn) error {
			_, err := pb.NewFleetServiceClient(c).ListAgents(t.Context(), &pb.ListAgentsRequest{})
			return err
		},
		"measure": func(c *grpc.ClientConn) error { // there is no agent to ask
			_, err := pb.NewMeasurementServiceClient(c).CreateMeasurement(t.Context(), ask)
			if status.Code(err) == codes.FailedPrecondition {
				return nil
			}
			return err
		},
		"list tokens": func(c *grpc.ClientConn) error {
			_, err := pb.NewAccessServiceClient(c).ListTokens(t.Context(), &pb.ListTokensRequest{})
			return err
		},
		"register": func(c *grpc.ClientConn) error {
			_, err := pb.NewRegistrationServiceClient(c).Register(t.Context(), &pb.RegisterRequest{Id: "a", Vantage: &pb.Vantage{Region: "r"}})
			return err
		},
		"health": func(c *grpc.ClientConn) error {
			_, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{})
			return err
		},
		"reflection": func(c *grpc.ClientConn) error {
			stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
			if err != nil {
				return err
			}
			if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil && !errors.Is(err, context.Canceled) {
				t.Log(err) // Recv says why
			}
			_, err = stream.Recv()
			return err
		},
		"nothing that there is": func(c *grpc.ClientConn) error {
			return c.Invoke(t.Context(), "/elsewhere.v1.FleetService/Nothing", &pb.ListAgentsRequest{}, &pb.ListAgentsResponse{})
		},
	}
	const ok, who, no = codes.OK, codes.Unauthenticated, codes.PermissionDenied
	for _, row := range []struct {
		who, token string
		want       map[string]codes.Code
	}{
		{"a stranger", "", map[string]codes.Code{"list agents": who, "measure": who, "list tokens": who, "register": who, "health": ok, "reflection": who}},
		{"a token to read", read, map[string]codes.Code{"list agents": ok, "measure": no, "list tokens": no, "register": who, "health": ok, "reflection": ok}},
		{"a token to measure", measure, map[string]codes.Code{"list agents": ok, "measure": ok, "list tokens": no, "register": who, "health": ok, "reflection": ok}},
		{"the administrator", s.admin(), map[string]codes.Code{"list agents": ok, "measure": ok, "list tokens": ok, "register": who, "health": ok, "reflection": ok}},
		{"a token that is none", "Bearer ewa1_x", map[string]codes.Code{"list agents": who, "measure": who, "list tokens": who, "health": ok, "reflection": who}},
		{"a token with another secret", read[:len(read)-4] + "aaaa", map[string]codes.Code{"list agents": who, "health": ok}},
		{"no bearer", "Basic " + read[len("Bearer "):], map[string]codes.Code{"list agents": who}},
	} {
		conn := s.conn(row.token)
		row.want["nothing that there is"] = codes.Unimplemented
		for call, want := range row.want {
			err := calls[call](conn)
			if status.Code(err) != want {
				t.Errorf("%s, %s: %v; want %v", row.who, call, err, want)
			}
			if want == no && !strings.Contains(err.Error(), "needs a token with the scope ") {
				t.Errorf("%s, %s: %v: does not name the scope", row.who, call, err)
			}
			if strings.Contains(status.Convert(err).Message(), strings.TrimPrefix(row.token, "Bearer ")) && row.token != "" && row.token != "Bearer ewa1_x" {
				t.Errorf("%s, %s: %v: has the token in it", row.who, call, err)
			}
		}
	}
}

func TestARevokedTokenEndsItsStreams(t *testing.T) {
	s := newSecured(t)
	id, text := s.token(pb.Scope_SCOPE_READ, nil)
	conn := s.conn(text)
	stream, err := pb.NewFleetServiceClient(conn).WatchAgents(t.Context(), &pb.WatchAgentsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.revoke(id)
	_, err = stream.Recv()
	if status.Code(err) != codes.Unauthenticated || time.Since(began) > 5*time.Second {
		t.Errorf("the stream ended after %v with %v", time.Since(began), err)
	}
	if _, err := pb.NewFleetServiceClient(conn).ListAgents(t.Context(), &pb.ListAgentsRequest{}); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a call with the token that was revoked: %v", err)
	}
	s.revoke(id) // again changes nothing
	if _, err := s.access(s.admin()).RevokeToken(t.Context(), &pb.RevokeTokenRequest{Id: "nosuchone"}); status.Code(err) != codes.NotFound {
		t.Errorf("revoking what is not there: %v", err)
	}
}

func TestTheAdministratorsToken(t *testing.T) {
	s := newSecured(t)
	first := s.admin()
	_, other := s.token(pb.Scope_SCOPE_ADMIN, nil)
	s.stop()
	s.start()
	if s.admin() != first {
		t.Error("a restart makes a new token")
	}
	if err := os.Remove(filepath.Join(s.dir, "admin.token")); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.start()
	list := func(token string) error {
		_, err := s.access(token).ListTokens(t.Context(), &pb.ListTokensRequest{})
		return err
	}
	if err := list(first); status.Code(err) != codes.Unauthenticated || s.admin() == first {
		t.Errorf("the token of the file that was deleted: %v", err)
	}
	for what, token := range map[string]string{"the new one": s.admin(), "another administrator's": other} {
		if err := list(token); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.access(s.admin()).CreateAPIToken(t.Context(), &pb.CreateAPITokenRequest{Api: &pb.APIToken{Name: "admin.token", Scope: pb.Scope_SCOPE_READ}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a token of the name of the coordinator's own: %v", err)
	}
}

func TestSecretsThatOthersMayReadAreRefused(t *testing.T) {
	s := newSecured(t)
	s.stop()
	for _, name := range []string{"admin.token", "ca.key", "agents.secret"} {
		path := filepath.Join(s.dir, name)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := coordinator.New(t.Context(), coordinator.Options{DataDir: s.dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0"})
		if err == nil {
			err = c.Run(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s that anybody may read: %v", name, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooManyBadTokens(t *testing.T) {
	s := newSecured(t)
	_, read := s.token(pb.Scope_SCOPE_READ, nil)
	bad := pb.NewFleetServiceClient(s.conn(read[:len(read)-4] + "aaaa"))
	var err error
	for range 100 {
		if _, err = bad.ListAgents(t.Context(), &pb.ListAgentsRequest{}); status.Code(err) == codes.ResourceExhausted {
			break
		}
	}
	if status.Code(err) != codes.ResourceExhausted || retryDelay(err) <= 0 {
		t.Errorf("a hundred bad tokens: %v; want to be told to wait", err)
	}
	if _, err := pb.NewFleetServiceClient(s.conn(read)).ListAgents(t.Context(), &pb.ListAgentsRequest{}); err != nil {
		t.Errorf("a good token from the same address: %v", err)
	}
}

// retryDelay is when an error says to try again.
func retryDelay(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func TestJoinTokens(t *testing.T) {
	s := newSecured(t)
	admin := s.access(s.admin())
	made, err := admin.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{Join: &pb.JoinToken{
		Agent: "fra-1", Vantage: &pb.Vantage{Region: "eu-central", Ipv4: true, Labels: map[string]string{"tier": "edge"}}, UsedBy: "somebody",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.GetSecret(), "ewj1_"+made.GetToken().GetId()+"_") || strings.Count(made.GetSecret(), "_") != 3 {
		t.Errorf("%q is no join token", made.GetSecret())
	}
	join := made.GetToken().GetJoin()
	if join.GetUsedBy() != "" || join.GetVantage().GetIpv4() || join.GetVantage().GetLabels()["tier"] != "edge" {
		t.Errorf("bound: %v", join)
	}
	if left := time.Until(made.GetToken().GetExpireTime().AsTime()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("good for %v; want an hour", left)
	}
	// It is for an agent to enrol with, and nothing else.
	if _, err := s.access("Bearer "+made.GetSecret()).ListTokens(t.Context(), &pb.ListTokensRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a join token as a bearer token: %v", err)
	}
	for what, r := range map[string]*pb.CreateJoinTokenRequest{
		"no region":     {Join: &pb.JoinToken{Vantage: &pb.Vantage{}}},
		"a short life":  {Join: &pb.JoinToken{Vantage: &pb.Vantage{Region: "r"}}, Lifetime: durationpb.New(time.Second)},
		"nothing bound": {},
	} {
		if _, err := admin.CreateJoinToken(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	list, err := admin.ListTokens(t.Context(), &pb.ListTokensRequest{})
	if err != nil || len(list.GetTokens()) != 2 || list.GetTokens()[0].GetId() != made.GetToken().GetId() {
		t.Errorf("%v, %v; want the new token and then the administrator's", list, err)
	}
}

// TestAPathWithoutASlash asks for a method by a name that no rule has, which some servers take for the one with a slash
// (CVE-2026-33186).
func TestAPathWithoutASlash(t *testing.T) {
	s := newSecured(t)
	_, read := s.token(pb.Scope_SCOPE_READ, nil)
	for path, want := range map[string]string{
		"/elsewhere.v1.FleetService/ListAgents":   "0", // the probe itself works
		"elsewhere.v1.FleetService/ListAgents":    "12",
		"elsewhere.v1.AccessService/ListTokens":   "12",
		"//elsewhere.v1.AccessService/ListTokens": "12",
		"/elsewhere.v1.AccessService/ListTokens/": "12",
		"/elsewhere.v1.AccessService/ListTokens":  "7",
	} {
		if got := s.rawCall(path, read); got != want {
			t.Errorf("%s: grpc-status %q, want %s", path, got, want)
		}
	}
}

// rawCall makes a call without a message's content, by hand, and returns its grpc-status.
func (s *secured) rawCall(path, authorization string) string {
	s.t.Helper()
	config := s.tls()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":path", path},
		{":authority", s.addr},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"authorization", authorization},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			s.t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, make([]byte, 5))) // an empty message
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		headers, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		for _, f := range headers.Fields {
			if f.Name == "grpc-status" {
				return f.Value
			}
		}
	}
}
