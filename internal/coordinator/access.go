package coordinator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// joinLifetime is how long a join token is good unless somebody says otherwise.
	joinLifetime = time.Hour
	// sweepInterval is how often tokens are dropped that ended long ago.
	sweepInterval = time.Minute
	// maxTokenFile bounds the file of a token, in bytes.
	maxTokenFile = 1024
)

// accessService is pb.AccessService.
type accessService struct {
	pb.UnimplementedAccessServiceServer
	*Coordinator
}

// CreateJoinToken implements pb.AccessServiceServer.
func (s accessService) CreateJoinToken(ctx context.Context, r *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	if s.opts.Insecure {
		return nil, errNoTokens()
	}
	lifetime := r.GetLifetime()
	if lifetime == nil {
		lifetime = durationpb.New(joinLifetime)
	}
	join := &pb.JoinToken{Agent: r.GetJoin().GetAgent(), Vantage: bound(r.GetJoin().GetVantage())}
	fresh := identity.NewJoinToken(s.authorities.Pin())
	token := &pb.Token{Id: fresh.ID, Hash: fresh.Hash(), Purpose: &pb.Token_Join{Join: join}, ExpireTime: after(lifetime)}
	kept, err := s.createToken(ctx, token, "for an agent in "+join.GetVantage().GetRegion())
	if err != nil {
		return nil, err
	}
	return &pb.CreateJoinTokenResponse{Token: kept, Secret: fresh.Text()}, nil
}

// bound is what of a vantage a token binds.
func bound(v *pb.Vantage) *pb.Vantage {
	return &pb.Vantage{
		Region: v.GetRegion(), Country: v.GetCountry(), City: v.GetCity(),
		Provider: v.GetProvider(), Asn: v.GetAsn(), Labels: v.GetLabels(),
	}
}

// after is the time so long from now; nil is never.
func after(d *durationpb.Duration) *timestamppb.Timestamp {
	if d == nil {
		return nil
	}
	return timestamppb.New(time.Now().Add(d.AsDuration()))
}

// errNoTokens is what there is instead of tokens without TLS.
func errNoTokens() error {
	return status.Error(codes.FailedPrecondition, "the coordinator runs with --insecure: it asks nobody for a token")
}

// CreateAPIToken implements pb.AccessServiceServer.
func (s accessService) CreateAPIToken(ctx context.Context, r *pb.CreateAPITokenRequest) (*pb.CreateAPITokenResponse, error) {
	if s.opts.Insecure {
		return nil, errNoTokens()
	}
	if name := r.GetApi().GetName(); name == backup.AdminFile || strings.HasPrefix(name, backup.AdminFile+" of ") {
		return nil, status.Errorf(codes.InvalidArgument, "api.name: %s is the name of the coordinator's own", backup.AdminFile)
	}
	fresh := identity.NewAPIToken()
	token := &pb.Token{Id: fresh.ID, Hash: fresh.Hash(), Purpose: &pb.Token_Api{Api: r.GetApi()}, ExpireTime: after(r.GetLifetime())}
	kept, err := s.createToken(ctx, token, apiDetail(r.GetApi()))
	if err != nil {
		return nil, err
	}
	return &pb.CreateAPITokenResponse{Token: kept, Secret: fresh.Text()}, nil
}

// apiDetail is a client's token in words.
func apiDetail(t *pb.APIToken) string {
	return fmt.Sprintf("for %q, %s", t.GetName(), strings.ToLower(strings.TrimPrefix(t.GetScope().String(), "SCOPE_")))
}

// createToken keeps a token and says so.
func (c *Coordinator) createToken(ctx context.Context, token *pb.Token, detail string) (*pb.Token, error) {
	kept, err := c.tokens.Create(ctx, token)
	if errors.Is(err, access.ErrFull) {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	if err != nil {
		return nil, unavailable(err)
	}
	c.audit(&pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_TOKEN_CREATED, TokenId: kept.GetId(), Agent: kept.GetJoin().GetAgent(),
		Address: callerAddress(ctx), Detail: detail + by(ctx),
	})
	return kept, nil
}

// by names the token of a caller, for who reads later what he did.
func by(ctx context.Context) string {
	if id := access.FromContext(ctx).Token.GetId(); id != "" {
		return ", by " + id
	}
	return ""
}

// callerAddress is where a caller connects from; empty for the coordinator itself.
func callerAddress(ctx context.Context) string {
	if addr := access.FromContext(ctx).Address; addr.IsValid() {
		return addr.String()
	}
	return ""
}

// ListTokens implements pb.AccessServiceServer.
func (s accessService) ListTokens(context.Context, *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	return &pb.ListTokensResponse{Tokens: s.tokens.List()}, nil
}

// RevokeToken implements pb.AccessServiceServer.
func (s accessService) RevokeToken(ctx context.Context, r *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	token, err := s.revokeToken(ctx, r.GetId())
	if errors.Is(err, access.ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "there is no token %s; those that ended more than a day ago are gone", begin(r.GetId()))
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return &pb.RevokeTokenResponse{Token: token}, nil
}

// revokeToken ends a token and says so, if it was good before.
func (c *Coordinator) revokeToken(ctx context.Context, id string) (*pb.Token, error) {
	token, changed, err := c.tokens.Revoke(ctx, id)
	if err != nil || !changed {
		return token, err
	}
	c.audit(&pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_TOKEN_REVOKED, TokenId: id, Address: callerAddress(ctx), Detail: "revoked" + by(ctx),
	})
	return token, nil
}

// ListAuditEvents implements pb.AccessServiceServer.
func (s accessService) ListAuditEvents(_ context.Context, r *pb.ListAuditEventsRequest) (*pb.ListAuditEventsResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	wanted := func(e *pb.AuditEvent) bool {
		return (r.GetAgent() == "" || e.GetAgent() == r.GetAgent()) && (len(r.GetKinds()) == 0 || slices.Contains(r.GetKinds(), e.GetKind()))
	}
	events, next, err := s.store.Audit(r.GetPageToken(), size, wanted)
	if errors.Is(err, store.ErrNotFound) {
		return nil, badFields([]*errdetails.BadRequest_FieldViolation{{Field: "page_token", Description: err.Error()}})
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return &pb.ListAuditEventsResponse{Events: events, NextPageToken: next}, nil
}

// sweepTokens drops tokens that ended long ago, again and again until ctx ends.
func (c *Coordinator) sweepTokens(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.tokens.Sweep(ctx); err != nil && ctx.Err() == nil {
				c.log.Error("tokens that ended: will be tried again", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// loadTokens waits until the tokens have been read.
func (c *Coordinator) loadTokens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-c.tokens.Loaded():
	case <-ctx.Done():
		return fmt.Errorf("reading the tokens: %w", ctx.Err())
	}
	if c.opts.Insecure {
		return nil
	}
	return c.adminToken(ctx)
}

// adminToken sees to the file of the token that is there from the first start. If the file was deleted, what was in
// it may be anywhere: that token is revoked, and a new one made. One that somebody revoked stays so.
func (c *Coordinator) adminToken(ctx context.Context) error {
	path := filepath.Join(c.opts.DataDir, backup.AdminFile)
	if err := file.Private(path); err != nil {
		return err
	}
	text, err := file.Read(path, maxTokenFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	switch _, bad := c.tokens.Check(strings.TrimSpace(string(text))); {
	case err != nil, errors.Is(bad, access.ErrUnknown):
		if err := c.newAdminToken(ctx, path); err != nil {
			return err
		}
	case bad != nil:
		c.log.Warn("the administrator's token lets nobody in; delete its file and start again for a new one", "file", path, "reason", bad)
	}
	return c.revokeOrphans(ctx, strings.TrimSpace(string(text)))
}

// revokeOrphans revokes the tokens of files that no coordinator here has: after a restore, those of the coordinator that
// was alone, or of the several, in the backup. What is in this one's own file stays, whatever it is called.
func (c *Coordinator) revokeOrphans(ctx context.Context, own string) error {
	for _, t := range c.tokens.List() {
		name := t.GetApi().GetName()
		of, several := strings.CutPrefix(name, backup.AdminFile+" of ")
		orphan := several && (c.others == nil || !c.others.holds(of)) || name == backup.AdminFile && c.others != nil
		if !orphan || t.GetRevokeTime() != nil {
			continue
		}
		if is, bad := c.tokens.Check(own); bad == nil && is.Token.GetId() == t.GetId() {
			continue
		}
		if _, err := c.revokeToken(ctx, t.GetId()); err != nil {
			return fmt.Errorf("the old %s: %w", name, err)
		}
		c.log.Warn("an administrator's token is revoked: no coordinator here has it in its file any more", "name", name, "token", t.GetId())
	}
	return nil
}

// adminName is what the token of the file is called: each of several coordinators has its own.
func (c *Coordinator) adminName() string {
	if c.others == nil {
		return backup.AdminFile
	}
	return backup.AdminFile + " of " + c.name()
}

// newAdminToken puts a new token in place of those that the file held before.
func (c *Coordinator) newAdminToken(ctx context.Context, path string) error {
	for _, t := range c.tokens.List() {
		if t.GetApi().GetName() != c.adminName() || t.GetRevokeTime() != nil {
			continue
		}
		if _, err := c.revokeToken(ctx, t.GetId()); err != nil {
			return fmt.Errorf("the old %s: %w", backup.AdminFile, err)
		}
		c.log.Warn("the administrator's token was gone from its file: it is revoked, and there is a new one", "file", path, "token", t.GetId())
	}
	fresh := identity.NewAPIToken()
	api := &pb.APIToken{Name: c.adminName(), Scope: pb.Scope_SCOPE_ADMIN}
	token := &pb.Token{Id: fresh.ID, Hash: fresh.Hash(), Purpose: &pb.Token_Api{Api: api}}
	if _, err := c.createToken(ctx, token, apiDetail(api)); err != nil {
		return err
	}
	if err := file.Replace(path, []byte(fresh.Text()+"\n")); err != nil {
		return err
	}
	c.log.Info("there is a token of the administrator", "file", path, "token", fresh.ID)
	return nil
}
