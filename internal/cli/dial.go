package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/position"
)

const (
	// maxMessage bounds a message from the coordinator, in bytes: the asks of ten thousand agents fit.
	maxMessage = 64 << 20
	// diagnosis is the time that finding out why a coordinator cannot be reached may take.
	diagnosis = 2 * time.Second
	// maxCA bounds the file of the CA, in bytes: the roots of a whole system fit.
	maxCA = 4 << 20
)

// Endpoint is a coordinator and how to be let in.
type Endpoint struct {
	// Address is HOST:PORT, or several of them with commas between: any of them will do.
	Address string
	// Insecure speaks in clear and sends no token.
	Insecure bool
	// Token is the bearer token. Default: none is sent.
	Token string
	// CA is a PEM file with the certificates to trust. Default: the system's roots.
	CA string
	// Unready asks one of several even if none is ready, the first that can be reached.
	Unready bool
}

// Dial prepares a connection; it is made by the first call. The error is about the CA file.
func Dial(e Endpoint) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 25 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// A coordinator that restarts is back soon; gRPC's own limit of two minutes is for large fleets.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	target, any := e.target()
	opts = append(append(opts, any...), new(position.Seen).DialOptions()...)
	if e.Insecure {
		return grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	}
	config, err := e.tls()
	if err != nil {
		return nil, err
	}
	opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if e.Token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(e.Token)))
	}
	return grpc.NewClient(target, opts...)
}

// tls is how the coordinator's certificate is checked.
func (e Endpoint) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
	if e.CA == "" {
		return config, nil
	}
	pem, err := file.Read(e.CA, maxCA)
	if err != nil {
		return nil, fmt.Errorf("the CA file %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA file %q has no PEM certificate in it", e.CA)
	}
	return config, nil
}

// bearer is a token that goes with each call, over TLS only.
type bearer string

// GetRequestMetadata is the header.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity keeps the token off the wire in clear.
func (bearer) RequireTransportSecurity() bool { return true }

// explain says why the first call to a coordinator failed. Where the coordinator could not be reached
// it looks for itself, since gRPC's text does not say what to do.
func (e Endpoint) explain(ctx context.Context, err error) error {
	if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
		return rpcError(ctx, err)
	}
	if why := e.diagnose(ctx); why != nil {
		return &Error{ExitNetwork, why}
	}
	// It is the last coordinator that was tried of which gRPC tells, which may be one that is not there.
	if said := err.Error(); len(e.addresses()) > 1 && (strings.Contains(said, healthpb.HealthCheckResponse_NOT_SERVING.String()) || strings.Contains(said, "connection error:")) {
		return &Error{ExitNetwork, fmt.Errorf("of the coordinators at %s none is ready: they start, or too few of them reach each other; 'elsewhere cluster' says why", e.Address)}
	}
	return &Error{ExitNetwork, fmt.Errorf("the coordinator at %s cannot answer now: %s", e.Address, oneLine(status.Convert(err).Message()))}
}

// diagnose connects once and tries a handshake: nobody there, clear where TLS was expected, TLS where
// clear was, or a certificate that is not trusted. Nil: none of these.
func (e Endpoint) diagnose(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, diagnosis)
	defer cancel()
	conn, address, err := e.anyone(ctx)
	if err != nil {
		return fmt.Errorf("no coordinator at %s (%s); start one with 'elsewhere up', or name yours by --coordinator HOST:PORT", e.Address, cause(err))
	}
	defer func() { _ = conn.Close() }()
	config, err := e.tls()
	if err != nil {
		return err
	}
	config.ServerName, _, _ = net.SplitHostPort(address)
	config.InsecureSkipVerify = e.Insecure // only to learn whether it speaks TLS; nothing is sent
	err = tls.Client(conn, config).HandshakeContext(ctx)
	var untrusted *tls.CertificateVerificationError
	switch {
	case err == nil && e.Insecure:
		return fmt.Errorf("the coordinator at %s speaks TLS; leave out --insecure, and give its CA by --ca FILE and a token by --token", e.Address)
	case errors.As(err, &untrusted):
		return fmt.Errorf("the certificate of the coordinator at %s is not trusted (%s); give its CA by --ca FILE: ca.pem of the coordinator's data directory", e.Address, oneLine(untrusted.Err.Error()))
	case err != nil && !e.Insecure:
		return fmt.Errorf("the coordinator at %s does not answer in TLS (%s); if it runs with --insecure, add --insecure here too", e.Address, cause(err))
	}
	return nil
}

// anyone connects to a coordinator, the first that can be reached.
func (e Endpoint) anyone(ctx context.Context) (conn net.Conn, address string, err error) {
	for _, address = range e.addresses() {
		if conn, err = new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			break
		}
	}
	return conn, address, err
}

// cause is the innermost error of a dial, without the addresses around it.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer"
	}
	return oneLine(err.Error())
}
