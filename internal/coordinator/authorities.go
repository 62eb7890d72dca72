package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/bus"
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
	var pin string
	err := s.rotate(ctx, func() (what string, err error) {
		pin, err = s.authorities.Add()
		return "added " + pin, err
	})
	if err != nil {
		return nil, err
	}
	return &pb.AddAuthorityResponse{Authority: s.authority(pin)}, nil
}

// UseAuthority implements pb.CoordinatorServiceServer.
func (s coordinatorService) UseAuthority(ctx context.Context, r *pb.UseAuthorityRequest) (*pb.UseAuthorityResponse, error) {
	err := s.rotate(ctx, func() (what string, err error) {
		switch is := s.authority(r.GetPin()); {
		case is == nil:
			return "", identity.ErrNoAuthority
		case is.GetInUse():
			return "", nil
		case !r.GetForce():
			if err := s.unheard(ctx); err != nil {
				return "", err
			}
		}
		return r.GetPin() + " signs from now on", s.authorities.Use(r.GetPin())
	})
	if err != nil {
		return nil, err
	}
	return &pb.UseAuthorityResponse{Authority: s.authority(r.GetPin())}, nil
}

// unheard says who does not know the authorities as they are now, nil if nobody.
func (c *Coordinator) unheard(ctx context.Context) error {
	if err := c.unaware(ctx); err != nil {
		return err
	}
	deaf := c.fleet.Deaf(c.authorities.Digest())
	if len(deaf) == 0 {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition,
		"agents that have not heard of it yet: %d (%s). They connect again within seconds: try again then, or use it by force; then they have to enrol again",
		len(deaf), some(deaf))
}

// unaware says which coordinators do not go by the authorities as they are now, nil if none.
func (c *Coordinator) unaware(ctx context.Context) error {
	var unaware []string
	for _, one := range c.coordinators(c.refresh(ctx)) {
		if one.GetLiveness() != pb.Liveness_LIVENESS_ALIVE || !bytes.Equal(one.GetState().GetAuthorities(), c.authorities.Digest()) {
			unaware = append(unaware, one.GetName())
		}
	}
	if len(unaware) == 0 {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition,
		"coordinators that do not go by the last change of the authorities yet: %s. One that lives does within seconds; start one that does not, or do it by force: then it needs ca.pem and ca.key of another one before it starts",
		some(unaware))
}

// DropAuthority implements pb.CoordinatorServiceServer.
func (s coordinatorService) DropAuthority(ctx context.Context, r *pb.DropAuthorityRequest) (*pb.DropAuthorityResponse, error) {
	err := s.rotate(ctx, func() (what string, err error) {
		hang := s.dependOn(r.GetPin())
		if is := s.authority(r.GetPin()); is != nil && !is.GetInUse() && !r.GetForce() {
			if err := s.unaware(ctx); err != nil {
				return "", err
			}
			if len(hang) > 0 {
				return "", status.Errorf(codes.FailedPrecondition,
					"agents that have no certificate but one that it signed: %d (%s). They renew when they connect: wait for them, revoke them, or drop it by force; then they have to enrol again",
					len(hang), some(hang))
			}
		}
		return fmt.Sprintf("dropped %s; agents that depended on it: %d", r.GetPin(), len(hang)), s.authorities.Drop(r.GetPin())
	})
	if err != nil {
		return nil, err
	}
	return &pb.DropAuthorityResponse{Authorities: s.authorities.List()}, nil
}

// rotate has f change the authorities, and says what it did; then all agents come again, to hear which there are now. With
// no words it has changed nothing.
func (c *Coordinator) rotate(ctx context.Context, f func() (what string, err error)) error {
	if c.authorities == nil {
		return errNoAuthorities()
	}
	what := ""
	do := func() (err error) {
		what, err = f()
		return err
	}
	var err error
	if c.shared == nil {
		err = do()
	} else {
		err = c.shared.change(ctx, do)
	}
	if err != nil {
		return rotationError(err)
	}
	if what != "" {
		c.rotated()
		c.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_AUTHORITY_CHANGED, Address: callerAddress(ctx), Detail: what + by(ctx)})
	}
	return nil
}

// rotated has all agents come again.
func (c *Coordinator) rotated() {
	c.heard.changed() // who has registered and has no stream yet is not recalled
	c.reports.Recall(recallWithin)
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

// authority is the one with a pin; nil if it is gone again.
func (c *Coordinator) authority(pin string) *pb.Authority {
	for _, a := range c.authorities.List() {
		if a.GetPin() == pin {
			return a
		}
	}
	return nil
}

// errNoAuthorities is what there is instead of authorities without TLS.
func errNoAuthorities() error {
	return status.Error(codes.FailedPrecondition, "the coordinator runs with --insecure: it has no authorities")
}

// rotationError is what a caller is told.
func rotationError(err error) error {
	_, said := status.FromError(err)
	switch {
	case said:
		return err
	case errors.Is(err, identity.ErrNoAuthority):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, identity.ErrInUse):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, identity.ErrAuthorities):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, bus.ErrChanged):
		return status.Error(codes.Aborted, "another coordinator has changed the authorities at this moment: look, and try again")
	case bus.Leaderless(err):
		return status.Errorf(codes.Unavailable, "it may be done or not: look, and try again: %v", err)
	}
	return status.Error(codes.Internal, err.Error())
}
