package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// coordinatorFile is a file of the coordinator's data directory.
func (w *world) coordinatorFile(name string) string { return filepath.Join(w.dir, "coordinator", name) }

// door is how the command line finds the coordinator and is let in, as its administrator.
func (w *world) door() []string {
	return []string{"--coordinator", grpcAddr, "--ca", w.coordinatorFile("ca.pem"), "--token", "@" + w.coordinatorFile("admin.token")}
}

// join is what an agent is started with the first time: a token for it alone. Later it has its certificate.
func (w *world) join(ctx context.Context, a *vantage) (flags []string, err error) {
	if _, err := os.Stat(filepath.Join(w.dir, a.id, "identity", "agent.pem")); err == nil {
		return nil, nil
	}
	err = eventually(ctx, "a token for "+a.id, func(ctx context.Context) error {
		answer := w.run(ctx, "token", "create", "--region", a.region, "--id", a.id)
		if answer.exit != 0 {
			return fmt.Errorf("exit %d: %s", answer.exit, answer.stderr)
		}
		flags = []string{"--join", strings.TrimSpace(string(answer.stdout))}
		return nil
	})
	return flags, err
}

// client opens a connection to the coordinator's API from inside its namespace, as its administrator.
func (w *world) client() (*grpc.ClientConn, error) {
	ca, err := os.ReadFile(w.coordinatorFile("ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	host, _, err := net.SplitHostPort(grpcAddr)
	if err != nil {
		return nil, err
	}
	header, err := w.bearer()
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+grpcAddr, grpc.WithContextDialer(w.coordinator.Dial),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host})),
		grpc.WithPerRPCCredentials(header))
}

// bearer is what a client says with each call.
func (w *world) bearer() (bearer, error) {
	token, err := os.ReadFile(w.coordinatorFile("admin.token"))
	return bearer(strings.TrimSpace(string(token))), err
}

// bearer is a token.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }
