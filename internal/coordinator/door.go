package coordinator

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// admitUnary lets a call in, or not.
func (c *Coordinator) admitUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	entry, err := c.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(access.NewContext(ctx, entry.caller), request)
}

// admitStream lets a stream in, or not, and ends it with the token or the certificate that opened it.
func (c *Coordinator) admitStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	entry, err := c.enter(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(access.NewContext(stream.Context(), entry.caller))
	defer cancel(nil)
	if entry.ended != nil {
		go entry.wait(ctx, cancel)
	}
	if entry.caller.Agent != "" {
		defer c.host(entry.caller, cancel)()
	}
	err = handle(server, admitted{stream, ctx})
	if cause := context.Cause(ctx); cause != nil && stream.Context().Err() == nil {
		return cause
	}
	return err
}

// admitted is a stream that ends with the right to it, also where its handler does not look.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (s admitted) Context() context.Context { return s.ctx }

func (s admitted) SendMsg(m any) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return s.ServerStream.SendMsg(m)
}

// entry is a caller who was let in, and what ends that; ended is nil where nothing does.
type entry struct {
	caller access.Caller
	ended  <-chan struct{}
}

// wait ends a stream when its token is revoked or over.
func (e entry) wait(ctx context.Context, cancel context.CancelCauseFunc) {
	var over <-chan time.Time
	if end := e.caller.Token.GetExpireTime(); end != nil {
		timer := time.NewTimer(time.Until(end.AsTime()))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-e.ended:
	case <-over:
	case <-ctx.Done():
		return
	}
	cancel(status.Errorf(codes.Unauthenticated, "the token %s has ended", e.caller.Token.GetId()))
}

// enter says who calls a method, if he may, and counts him otherwise.
func (c *Coordinator) enter(ctx context.Context, method string) (entry, error) {
	e, err := c.identify(ctx, method)
	if err != nil {
		c.metrics.refused.WithLabelValues(status.Code(err).String()).Inc()
	}
	return e, err
}

// identify says who calls a method, if he may.
func (c *Coordinator) identify(ctx context.Context, method string) (entry, error) {
	e := entry{caller: access.Caller{Address: addressOf(ctx)}}
	role := c.rules.Role(method)
	if c.opts.Insecure && role != access.Nobody {
		e.caller.Scope = pb.Scope_SCOPE_ADMIN
		return e, nil
	}
	var err error
	switch role {
	case access.Read, access.Measure, access.Admin:
		err = c.showToken(ctx, &e)
	case access.Agent, access.AgentOnceMore:
		err = c.showCertificate(ctx, &e)
	case access.Anybody, access.Nobody:
	}
	if err != nil {
		return e, err
	}
	return e, refusal(c.rules.Allow(method, e.caller))
}

// addressOf is where a call comes from.
func addressOf(ctx context.Context) netip.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		if addr, ok := p.Addr.(*net.TCPAddr); ok {
			return addr.AddrPort().Addr().Unmap()
		}
	}
	return netip.Addr{}
}

// showToken reads the bearer token of a call (RFC 6750, 2.1). A call without one is a stranger's.
func (c *Coordinator) showToken(ctx context.Context, e *entry) error {
	shown := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(shown) == 0 {
		return nil
	}
	scheme, text, _ := strings.Cut(shown[0], " ")
	if len(shown) > 1 || !strings.EqualFold(scheme, "bearer") {
		return status.Error(codes.Unauthenticated, "authorization must be one \"Bearer TOKEN\"")
	}
	pass, err := c.tokens.Check(strings.TrimSpace(text))
	switch {
	case err == nil:
		e.caller.Token, e.caller.Scope, e.ended = pass.Token, pass.Token.GetApi().GetScope(), pass.Ended
		return nil
	case errors.Is(err, access.ErrStale):
		return status.Error(codes.Unavailable, err.Error())
	}
	return c.badToken(e.caller.Address, err)
}

// showCertificate reads the certificate of a connection. A call without one is a stranger's.
func (c *Coordinator) showCertificate(ctx context.Context, e *entry) error {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	shown, err := c.agentAt(info.State, e.caller.Address)
	if errors.Is(err, identity.ErrNoCertificate) {
		return nil
	}
	if err != nil {
		return err
	}
	e.caller.Agent, e.caller.Key, e.caller.Expires, e.caller.Expired = shown.Agent, shown.Key, shown.Expires, shown.Expired
	return nil
}

// badToken answers a bad token. Who shows many is told to wait; a good one is let in all the same, since others may
// be behind the same address, and 256 bits are not guessed however often one may try.
func (c *Coordinator) badToken(from netip.Addr, why error) error {
	c.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, Address: from.String(), Detail: why.Error()})
	if in := c.failures.Failed(time.Now(), from); in > 0 {
		return retryLater(status.Newf(codes.ResourceExhausted, "too many bad tokens from %s; this one too: %v", from, why), in)
	}
	return status.Error(codes.Unauthenticated, why.Error())
}

// refusal is what a caller is told whom the rules do not let in.
func refusal(err error) error {
	var refused *access.Refusal
	if !errors.As(err, &refused) {
		return err
	}
	if refused.Unknown {
		return status.Error(codes.Unauthenticated, refused.Error())
	}
	return status.Error(codes.PermissionDenied, refused.Error())
}

// retryLater says when to try again: never too early.
func retryLater(s *status.Status, in time.Duration) error {
	return withDetails(s, &errdetails.RetryInfo{RetryDelay: durationpb.New(in.Truncate(time.Millisecond) + time.Millisecond)})
}

// chargeOthers takes of the quotas what a measurement needs that another coordinator has opened.
func (c *Coordinator) chargeOthers(opened *pb.Opened) {
	m := opened.GetMeasurement()
	if c.others == nil || opened.GetCoordinator() == c.name() || m.GetCanary() {
		return
	}
	c.quotas.Charge(time.Now(), c.tokens.Find(opened.GetTokenId()), access.Targets(m.GetSpec()), len(m.GetAsks()))
}

// admitMeasurement takes what a measurement needs of the quotas.
func (c *Coordinator) admitMeasurement(ctx context.Context, spec *pb.Spec, agents int) error {
	caller := access.FromContext(ctx)
	err := c.quotas.Admit(time.Now(), access.Ask{Caller: caller, Targets: access.Targets(spec), Agents: agents})
	var over *access.Exceeded
	if !errors.As(err, &over) {
		return err
	}
	c.audit(&pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_QUOTA_REACHED, TokenId: caller.Token.GetId(), Address: caller.Address.String(), Detail: over.Error(),
	})
	s, err := status.New(codes.ResourceExhausted, over.Error()).WithDetails(&errdetails.QuotaFailure{
		Violations: []*errdetails.QuotaFailure_Violation{{Subject: over.Subject, Description: over.Description}},
	})
	if err != nil || over.RetryAfter == 0 {
		return s.Err()
	}
	return retryLater(s, over.RetryAfter)
}
