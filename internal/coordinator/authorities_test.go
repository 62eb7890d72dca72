package coordinator_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestAuthoritiesAreRotated goes through the steps as clients see them.
func TestAuthoritiesAreRotated(t *testing.T) {
	s := newSecured(t)
	api := pb.NewCoordinatorServiceClient(s.conn(s.admin()))
	before := s.tls()
	list := func() (pins []string) {
		t.Helper()
		r, err := api.ListAuthorities(t.Context(), &pb.ListAuthoritiesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range r.GetAuthorities() {
			if a.GetInUse() != (i == 0) || !strings.HasPrefix(a.GetCertificate(), "-----BEGIN CERTIFICATE") || !a.GetExpireTime().IsValid() {
				t.Errorf("%d: %v", i, a)
			}
			pins = append(pins, a.GetPin())
		}
		return pins
	}
	old := list()[0]
	added, err := api.AddAuthority(t.Context(), &pb.AddAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fresh, both := added.GetAuthority().GetPin(), s.tls()
	if got := list(); !slices.Equal(got, []string{old, fresh}) {
		t.Errorf("after one was added: %v", got)
	}
	trusts := func(what string, config *tls.Config, want bool) {
		t.Helper()
		conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithPerRPCCredentials(bearer(s.admin())))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err = pb.NewCoordinatorServiceClient(conn).ListAuthorities(t.Context(), &pb.ListAuthoritiesRequest{}); (err == nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	trusts("a client with the old one", before, true)
	if _, err := api.UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: fresh}); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, []string{fresh, old}) {
		t.Errorf("after the other one was put to use: %v", got)
	}
	trusts("a client with the old one alone", before, false)
	trusts("a client that was given both", both, true)
	if _, err := api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: fresh, Force: true}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("dropping the one in use: %v", err)
	}
	if _, err := api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: old}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"dropping it again":      second(api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: old})),
		"using one that is gone": second(api.UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: old})),
	} {
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
	trusts("a client that reads the file anew", s.tls(), true)
	s.stop()
	s.start()
	api = pb.NewCoordinatorServiceClient(s.conn(s.admin()))
	if got := list(); !slices.Equal(got, []string{fresh}) {
		t.Errorf("after a restart: %v", got)
	}
	said := auditOf(t, s, pb.AuditKind_AUDIT_KIND_AUTHORITY_CHANGED)
	if len(said) != 3 || !strings.Contains(said[0], "dropped "+old) || !strings.Contains(said[1], fresh+" signs") || !strings.Contains(said[2], "added "+fresh) {
		t.Errorf("audit: %q", said)
	}
}

// second is the error of a call.
func second[T any](_ T, err error) error { return err }

// auditOf lists the words of what was noted of a kind, the newest first.
func auditOf(t *testing.T, s *secured, kind pb.AuditKind) (said []string) {
	t.Helper()
	r, err := s.access(s.admin()).ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{kind}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.GetEvents() {
		said = append(said, e.GetDetail())
	}
	return said
}

func TestWithoutTLSThereAreNoAuthorities(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	api := pb.NewCoordinatorServiceClient(w.conn)
	for what, err := range map[string]error{
		"list": second(api.ListAuthorities(t.Context(), &pb.ListAuthoritiesRequest{})),
		"add":  second(api.AddAuthority(t.Context(), &pb.AddAuthorityRequest{})),
		"use":  second(api.UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: strings.Repeat("0", 64)})),
		"drop": second(api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: strings.Repeat("0", 64)})),
	} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "--insecure") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRotationUnderLoad: one authority takes over from the other while agents measure. None is left out, nothing that
// was asked is lost, and the old one cannot be dropped before all have renewed.
func TestRotationUnderLoad(t *testing.T) {
	s := newSecured(t)
	api := pb.NewCoordinatorServiceClient(s.conn(s.admin()))
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	for i, dir := range dirs {
		name := fmt.Sprint("agent-", i)
		s.run(dir, s.join(name, "here"))
		s.await("before", name, online)
	}
	load := s.measureOnAndOn(listen(t))

	old := authorityInUse(t, api)
	added, err := api.AddAuthority(t.Context(), &pb.AddAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: added.GetAuthority().GetPin()})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "have not heard of it yet: ") {
		t.Errorf("using it before the agents know it: %v", err)
	}
	for _, dir := range dirs {
		until(t, "an agent trusts both", func() bool {
			bundle, err := os.ReadFile(filepath.Join(dir, "identity", "ca.pem"))
			return err == nil && strings.Count(string(bundle), "BEGIN CERTIFICATE") == 2
		})
	}
	if _, err := api.UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: added.GetAuthority().GetPin()}); err != nil {
		t.Fatal(err)
	}
	_, err = api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: old})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no certificate but one that it signed: ") {
		t.Errorf("dropping the old one before all have renewed: %v", err)
	}
	until(t, "the old one can be dropped", func() bool {
		_, err := api.DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: old})
		if err != nil && status.Code(err) != codes.FailedPrecondition {
			t.Fatal(err)
		}
		return err == nil
	})
	until(t, "an agent trusts the new one alone", func() bool {
		bundle, err := os.ReadFile(filepath.Join(dirs[0], "identity", "ca.pem"))
		return err == nil && strings.Count(string(bundle), "BEGIN CERTIFICATE") == 1
	})
	for i := range dirs {
		s.await("after", fmt.Sprint("agent-", i), online)
	}
	asked, lost := load()
	if asked < 30 || lost > 0 {
		t.Errorf("%d were asked meanwhile, and %d of them did not answer", asked, lost)
	}
}

func authorityInUse(t *testing.T, api pb.CoordinatorServiceClient) string {
	t.Helper()
	r, err := api.ListAuthorities(t.Context(), &pb.ListAuthoritiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetAuthorities()[0].GetPin()
}

// rotationPatience is how long a step of a rotation may take: on a machine that does much else, twenty seconds were seen.
const rotationPatience = 4 * time.Minute

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rotationPatience)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); !so(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", rotationPatience, what)
		}
	}
}

// measureOnAndOn asks one question after the other, until it is stopped; then it says how many agents were asked and
// how many of them did not answer.
func (s *secured) measureOnAndOn(target netip.AddrPort) (stop func() (asked, lost int32)) {
	api := pb.NewMeasurementServiceClient(s.conn(s.admin()))
	stopping, done := make(chan struct{}), make(chan error, 1)
	var asked, lost int32
	measure := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), time.Minute)
		defer cancel()
		made, err := api.CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
			Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
		})
		if err != nil {
			return err
		}
		stream, err := api.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: made.GetMeasurement().GetId()})
		var ledger *pb.Ledger
		for err == nil {
			var r *pb.WatchMeasurementResponse
			if r, err = stream.Recv(); err == nil {
				ledger = r.GetMeasurement().GetLedger()
			}
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		asked += ledger.GetAsked()
		lost += ledger.GetAsked() - ledger.GetAnswered()
		return nil
	}
	go func() {
		for {
			select {
			case <-stopping:
				done <- nil
				return
			default:
			}
			if err := measure(); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() (int32, int32) {
		close(stopping)
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		return asked, lost
	}
}

// TestAnAgentBetweenItsCalls registers, and says hello when the authorities have changed meanwhile: it is recalled with
// nobody, since it has no stream, and would hear of the change hours later.
func TestAnAgentBetweenItsCalls(t *testing.T) {
	s := newSecured(t)
	keep := s.enrol(t.TempDir(), s.join("a", "r"))
	r, err := s.register(keep, "a")
	if err != nil {
		t.Fatal(err)
	}
	api := pb.NewCoordinatorServiceClient(s.conn(s.admin()))
	if _, err := api.AddAuthority(t.Context(), &pb.AddAuthorityRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.report(keep, &pb.Hello{Agent: "a", Epoch: r.GetEpoch(), Session: r.GetSession()}).Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "register again") {
		t.Errorf("it has a stream: %v", err)
	}
}
