package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// renewGrace is how long after its end coordinators renew a certificate, as a rule.
	renewGrace = 7 * 24 * time.Hour
	// replacedSpread is the time in which agents renew when another authority signs.
	replacedSpread = 3 * time.Second
	// refusedPause bounds the pause of an agent that was refused: until somebody does something, nothing will change.
	refusedPause = time.Minute
)

var (
	// ErrNotEnrolled says that there is no identity, and no token to get one with.
	ErrNotEnrolled = errors.New("the agent is not enrolled yet")
	// errRenewed ends a session, so that the next one shows the new certificate.
	errRenewed = errors.New("the certificate was renewed")
)

// Enrol returns the agent's identity in its data directory. If there is none that can still be used, it gets one with
// opts.Join: it waits for a coordinator as long as ctx lasts, and ends with an error when one refuses.
func Enrol(ctx context.Context, opts Options) (*identity.Keep, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	keep, err := identity.OpenKeep(filepath.Join(opts.DataDir, "identity"), nil)
	if err != nil {
		return nil, err
	}
	ended := keep.Name() != "" && time.Since(keep.Expires()) > renewGrace
	switch {
	case keep.Name() != "" && opts.ID != "" && opts.ID != keep.Name():
		return nil, fmt.Errorf("data directory %s is agent %s's, not %s's: use another directory, or delete its identity", opts.DataDir, keep.Name(), opts.ID)
	case keep.Name() != "" && !ended:
		return keep, nil
	case opts.Join == "" && ended:
		return nil, fmt.Errorf("the certificate of agent %s ended at %s, too long ago to be renewed (this machine's clock says %s): make a token for it (`elsewhere token create --id %s`) and start it once with --join TOKEN",
			keep.Name(), keep.Expires().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339), keep.Name())
	case opts.Join == "":
		return nil, fmt.Errorf("%w: start it once with --join TOKEN; `elsewhere token create` makes one", ErrNotEnrolled)
	}
	text, err := identity.ReadToken(opts.Join)
	var token identity.Token
	if err == nil {
		token, err = identity.ParseJoinToken(text)
	}
	if err != nil { // which does not have the token's text
		return nil, fmt.Errorf("--join: %w (%w)", err, ErrNotEnrolled)
	}
	return keep, enrolment{opts, token, keep}.run(ctx)
}

// enrolment is an agent on its way in.
type enrolment struct {
	opts  Options
	token identity.Token
	keep  *identity.Keep
}

// run tries one coordinator after the other until one lets the agent in, or refuses.
func (e enrolment) run(ctx context.Context) error {
	pause := minPause
	for n := 0; ; n++ {
		addr := e.opts.Coordinators[n%len(e.opts.Coordinators)]
		err := e.ask(ctx, addr)
		if err == nil {
			e.opts.Log.Info("enrolled", "agent", e.keep.Name(), "coordinator", addr, "certificate_until", e.keep.Expires())
			return nil
		}
		var refused *refusal
		if errors.As(err, &refused) {
			return err
		}
		wait := pause/2 + mathrand.N(pause)
		e.opts.Log.Warn("not enrolled yet", "coordinator", addr, "error", err, "retry_in", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(pause*8/5, maxPause)
	}
}

// refusal is an error that trying again does not mend.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// ask asks one coordinator. The key is on disk before it is sent, so that the same one is sent again.
func (e enrolment) ask(ctx context.Context, addr string) error {
	request, err := e.keep.Request()
	if err != nil {
		return &refusal{err}
	}
	strange := make(chan error, 1)
	cc, err := dial(addr, e.pinned(strange))
	if err != nil {
		return &refusal{err}
	}
	defer func() { _ = cc.Close() }()
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	r, err := pb.NewRegistrationServiceClient(cc).Enroll(ctx, &pb.EnrollRequest{Token: e.token.Text(), CertificateRequest: request, Id: e.opts.ID})
	select {
	case why := <-strange:
		return &refusal{fmt.Errorf("coordinator %s: %w", addr, why)}
	default:
	}
	switch status.Code(err) {
	case codes.OK:
	case codes.PermissionDenied:
		return &refusal{fmt.Errorf("coordinator %s refuses the token %s: %s; `elsewhere token create` makes another one", addr, e.token.ID, status.Convert(err).Message())}
	case codes.AlreadyExists, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return &refusal{fmt.Errorf("coordinator %s: %s", addr, status.Convert(err).Message())}
	default:
		return err
	}
	if err := e.keep.Store(r.GetCertificate()); err != nil {
		return &refusal{err}
	}
	return nil
}

// pinned is how the agent connects with its token, with word of a coordinator that is another one than the token's.
func (e enrolment) pinned(strange chan<- error) credentials.TransportCredentials {
	config := identity.PinnedTLS(e.token.Pin, nil)
	verify := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		err := verify(s)
		if errors.Is(err, identity.ErrPin) {
			select {
			case strange <- err:
			default:
			}
		}
		return err
	}
	return credentials.NewTLS(config)
}

// dial opens a connection to a coordinator; it stands when it is first used.
//
// A connect has a bound of its own: where nothing answers there is nobody who needs patience.
func dial(addr string, how credentials.TransportCredentials) (*grpc.ClientConn, error) {
	dialer := dialer()
	cc, err := grpc.NewClient(addr,
		grpc.WithTransportCredentials(how),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 25 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<20)))
	if err != nil {
		return nil, fmt.Errorf("coordinator %s: %w", addr, err)
	}
	return cc, nil
}

// dialer is how the agent connects to a coordinator, on both ports.
func dialer() *net.Dialer { return &net.Dialer{Timeout: dialTimeout, Control: giveUp} }

// credentials are how the agent shows who it is: by the certificate that it has at the time.
func (a *Agent) credentials() credentials.TransportCredentials {
	if a.opts.Identity == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(a.opts.Identity.ClientTLS())
}

// renew gets a certificate for a new key, and returns errRenewed when it has it.
func (a *Agent) renew(ctx context.Context, cc *grpc.ClientConn) error {
	request, err := a.opts.Identity.Request()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	r, err := pb.NewRegistrationServiceClient(cc).Renew(ctx, &pb.RenewRequest{CertificateRequest: request})
	if err != nil {
		return fmt.Errorf("renewing the certificate: %w", err)
	}
	if err := a.opts.Identity.Store(r.GetCertificate()); err != nil {
		return err
	}
	a.opts.Log.Info("certificate renewed", "until", a.opts.Identity.Expires())
	return errRenewed
}

// come registers the agent. A certificate that has ended is renewed first, and so is one that the coordinator does not
// take any more, since this machine's clock may be behind. Where it is ahead, a certificate that has just come has ended by
// it, and is shown all the same: the coordinator's clock decides.
func (a *Agent) come(ctx context.Context, cc *grpc.ClientConn, addr string) error {
	if keep := a.opts.Identity; keep != nil && keep.MayRenew() && time.Now().After(keep.Expires()) {
		return a.renew(ctx, cc)
	}
	err := a.register(ctx, cc, addr)
	if status.Code(err) != codes.Unauthenticated || a.opts.Identity == nil || !a.opts.Identity.MayRenew() {
		return err
	}
	if renewed := a.renew(ctx, cc); errors.Is(renewed, errRenewed) {
		return renewed
	}
	return err
}

// renewInTime renews the certificate at two thirds of its life, a little later than others, or soon if another authority
// signs now, and returns errRenewed; or when ctx ends.
func (a *Agent) renewInTime(ctx context.Context, cc *grpc.ClientConn) error {
	keep := a.opts.Identity
	spread := time.Until(keep.Expires()) / 10
	wait := max(time.Until(keep.RenewAt()), 0) + mathrand.N(max(spread, time.Millisecond))
	if keep.Replaced() {
		wait = mathrand.N(replacedSpread) // the authority that signed it may soon be dropped
	}
	for pause := time.Second; ; pause = min(pause*2, time.Minute) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		err := a.renew(ctx, cc)
		if errors.Is(err, errRenewed) {
			return err
		}
		wait = pause/2 + mathrand.N(pause)
		a.opts.Log.Warn("the certificate is not renewed yet", "until", keep.Expires(), "error", err, "retry_in", wait.Round(time.Millisecond))
	}
}

// refused says whether a coordinator does not let the agent in, which only a person can mend.
func refused(err error) bool {
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}
