package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// recallWithin is the time in which all agents come again after the authorities have changed.
	recallWithin = 5 * time.Second
	// namedAgents is how many agents a refusal names.
	namedAgents = 5
)

// coordinatorService is pb.CoordinatorService.
type coordinatorService struct {
	pb.UnimplementedCoordinatorServiceServer
	*Coordinator
}

// ListAuthorities implements pb.CoordinatorServiceServer.
func (s coordinatorService) ListAuthorities(context.Context, *pb.ListAuthoritiesRequest) (*pb.ListAuthoritiesResponse, error) {
	if s.authorities == nil {
		return nil, errNoAuthorities()
	}
	return &pb.ListAuthoritiesResponse{Authorities: s.authorities.List()}, nil
}

// AddAuthority implements pb.CoordinatorServiceServer.
func (s coordinatorService) AddAuthority(ctx context.Context, _ *pb.AddAuthorityRequest) (*pb.AddAuthorityResponse, error) {
	if s.authorities == nil {
		return nil, errNoAuthorities()
	}
	if s.others != nil {
		return nil, errSeveral
	}
	pin, err := s.authorities.Add()
	if err != nil {
		return nil, rotationError(err)
	}
	s.heard.added(pin)
	s.rotated(ctx, "added "+pin)
	return &pb.AddAuthorityResponse{Authority: s.authority(pin)}, nil
}

// UseAuthority implements pb.CoordinatorServiceServer.
func (s coordinatorService) UseAuthority(ctx context.Context, r *pb.UseAuthorityRequest) (*pb.UseAuthorityResponse, error) {
	if s.authorities == nil {
		return nil, errNoAuthorities()
	}
	if s.others != nil {
		return nil, errSeveral
	}
	if s.authorities.Pin().Hex() != r.GetPin() {
		world, err := fleet.ParseSelector("world")
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		if deaf := s.heard.deaf(r.GetPin(), s.fleet.Online(world)); len(deaf) > 0 && !r.GetForce() {
			return nil, status.Errorf(codes.FailedPrecondition,
				"agents that have not heard of it yet: %d (%s). They connect again within seconds: try again then, or use it by force; then they have to enrol again",
				len(deaf), some(deaf))
		}
		if err := s.authorities.Use(r.GetPin()); err != nil {
			return nil, rotationError(err)
		}
		s.rotated(ctx, r.GetPin()+" signs from now on")
	}
	return &pb.UseAuthorityResponse{Authority: s.authority(r.GetPin())}, nil
}

// DropAuthority implements pb.CoordinatorServiceServer.
func (s coordinatorService) DropAuthority(ctx context.Context, r *pb.DropAuthorityRequest) (*pb.DropAuthorityResponse, error) {
	if s.authorities == nil {
		return nil, errNoAuthorities()
	}
	if s.others != nil {
		return nil, errSeveral
	}
	hang := s.dependOn(r.GetPin())
	if len(hang) > 0 && !r.GetForce() && s.authorities.Pin().Hex() != r.GetPin() {
		return nil, status.Errorf(codes.FailedPrecondition,
			"agents that have no certificate but one that it signed: %d (%s). They renew when they connect: wait for them, revoke them, or drop it by force; then they have to enrol again",
			len(hang), some(hang))
	}
	if err := s.authorities.Drop(r.GetPin()); err != nil {
		return nil, rotationError(err)
	}
	s.rotated(ctx, fmt.Sprintf("dropped %s; agents that depended on it: %d", r.GetPin(), len(hang)))
	return &pb.DropAuthorityResponse{Authorities: s.authorities.List()}, nil
}

// dependOn lists the agents that an authority's certificate alone lets in: it signed the newest one, which is good, or
// good to be renewed.
func (c *Coordinator) dependOn(pin string) (agents []string) {
	good := time.Now().Add(-identity.Grace)
	for _, e := range c.store.Enrolments() {
		if e.GetRevokeTime() == nil && fmt.Sprintf("%x", e.GetAuthority()) == pin && e.GetExpireTime().AsTime().After(good) {
			agents = append(agents, e.GetId())
		}
	}
	return agents
}

// some names a few of many.
func some(names []string) string {
	if len(names) <= namedAgents {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:namedAgents], ", "), len(names)-namedAgents)
}

// rotated has all agents come again, to hear which authorities there are now, and notes what was done.
func (c *Coordinator) rotated(ctx context.Context, what string) {
	c.heard.changed() // who has registered and has no stream yet is not recalled
	c.reports.Recall(recallWithin)
	c.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_AUTHORITY_CHANGED, Address: callerAddress(ctx), Detail: what + by(ctx)})
}

// authority is the one with a pin; nil if it is gone again.
func (c *Coordinator) authority(pin string) *pb.Authority {
	for _, a := range c.authorities.List() {
		if a.GetPin() == pin {
			return a
		}
	}
	return nil
}

// errSeveral is what there is for several coordinators, whose files of authorities are each their own.
var errSeveral = status.Error(codes.FailedPrecondition, "several coordinators cannot replace their authority while they run")

// errNoAuthorities is what there is instead of authorities without TLS.
func errNoAuthorities() error {
	return status.Error(codes.FailedPrecondition, "the coordinator runs with --insecure: it has no authorities")
}

// rotationError is what a caller is told.
func rotationError(err error) error {
	switch {
	case errors.Is(err, identity.ErrNoAuthority):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, identity.ErrInUse):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, identity.ErrAuthorities):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
