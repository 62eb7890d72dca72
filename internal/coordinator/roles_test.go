package coordinator

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestEveryMethodHasARole walks what the server serves and what the contract has: somebody may call each of them, and
// the door knows who.
func TestEveryMethodHasARole(t *testing.T) {
	c, err := New(t.Context(), Options{DataDir: t.TempDir(), GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.release()
	methods := map[string]bool{}
	for service, info := range c.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			methods["/"+service+"/"+m.Name] = true
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("elsewhere.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				methods["/"+string(m.Parent().FullName())+"/"+string(m.Name())] = true
			}
		}
		return true
	})
	if len(methods) < 25 {
		t.Errorf("only %d methods", len(methods))
	}
	for method := range methods {
		if access.NewRules().Role(method) == access.Nobody {
			t.Errorf("%s has no role", method)
		}
	}
}

// runs is a coordinator that serves until the test ends.
func runs(t *testing.T) *Coordinator {
	t.Helper()
	c, err := New(t.Context(), Options{DataDir: t.TempDir(), GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// agentOf is a connection that shows a certificate of an agent, and SHA-256 of its key.
func agentOf(t *testing.T, c *Coordinator, by *identity.Authorities, name string) (pb.RegistrationServiceClient, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := by.IssueAgent(name, request)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authorities.PEM())
	conn, err := grpc.NewClient(c.GRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{{Certificate: issued.Certificate.GetChain(), PrivateKey: crypto.PrivateKey(key)}},
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewRegistrationServiceClient(conn), issued.Key
}

// TestAgentsAreLetInByTheirKey: a certificate of ours is not enough; its key must be the one that is enrolled.
func TestAgentsAreLetInByTheirKey(t *testing.T) {
	c := runs(t)
	stranger := sha256.Sum256([]byte("another key"))
	for _, row := range []struct {
		what string
		// enrolled is what the log knows of an agent whose key is this one; nil: nothing.
		enrolled func(key []byte) *pb.Enrolment
		says     string // "": it is let in
		code     codes.Code
	}{
		{"nobody-knows", func([]byte) *pb.Enrolment { return nil }, "not enrolled", codes.Unauthenticated},
		{"its-own", func(k []byte) *pb.Enrolment { return &pb.Enrolment{Key: k} }, "", codes.OK},
		{"the-one-before", func(k []byte) *pb.Enrolment { return &pb.Enrolment{Key: stranger[:], PreviousKey: k} }, "", codes.OK},
		{"an-older-one", func([]byte) *pb.Enrolment { return &pb.Enrolment{Key: stranger[:]} }, "another key", codes.PermissionDenied},
		{"revoked", func(k []byte) *pb.Enrolment { return &pb.Enrolment{Key: k, RevokeTime: timestamppb.Now()} }, "revoked", codes.PermissionDenied},
	} {
		agent, key := agentOf(t, c, c.authorities, row.what)
		if e := row.enrolled(key); e != nil {
			e.Id, e.EnrollTime, e.Vantage = row.what, timestamppb.Now(), &pb.Vantage{Region: "r"}
			if err := c.append(t.Context(), &pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: e}}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := agent.Register(t.Context(), &pb.RegisterRequest{Id: row.what, Vantage: &pb.Vantage{Region: "r"}}, grpc.WaitForReady(true))
		if status.Code(err) != row.code || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v; want %v, %q", row.what, err, row.code, row.says)
		}
	}
	if e := c.waitAudit(t, pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED); e.GetAgent() != "an-older-one" {
		t.Errorf("audited: %v; want the one with the older key", e)
	}
}

// waitAudit waits for an event of a kind and returns the newest.
func (c *Coordinator) waitAudit(t *testing.T, kind pb.AuditKind) *pb.AuditEvent {
	t.Helper()
	for {
		_, moved := c.store.Position()
		events, _, err := c.store.Audit("", 1, func(e *pb.AuditEvent) bool { return e.GetKind() == kind })
		if err != nil {
			t.Fatal(err)
		}
		if len(events) > 0 {
			return events[0]
		}
		select {
		case <-moved:
		case <-time.After(time.Minute):
			t.Fatalf("no %v was audited", kind)
		}
	}
}

// TestACertificateOfAnotherNetwork does not even get through the handshake.
func TestACertificateOfAnotherNetwork(t *testing.T) {
	c := runs(t)
	others, err := identity.Open(t.TempDir(), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	agent, _ := agentOf(t, c, others, "a")
	if _, err := agent.Register(t.Context(), &pb.RegisterRequest{Id: "a", Vantage: &pb.Vantage{Region: "r"}}); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}
