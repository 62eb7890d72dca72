package coordinator

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// turns has changes of one agent's enrolment come one after the other.
type turns [64]sync.Mutex

func (t *turns) of(agent string) *sync.Mutex {
	return &t[crc32.ChecksumIEEE([]byte(agent))%uint32(len(t))]
}

// enrolling is an agent that comes with a token.
type enrolling struct {
	*Coordinator
	joining access.Joining
	name    string
	key     []byte // SHA-256 of the SubjectPublicKeyInfo
	request []byte
	address string
}

// Enroll implements pb.RegistrationServiceServer. All of it can be done again with the same token and key.
func (s registrationService) Enroll(ctx context.Context, r *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	if s.opts.Insecure {
		return nil, errNoTokens()
	}
	_, key, err := identity.CheckRequest(r.GetCertificateRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	e := enrolling{Coordinator: s.Coordinator, key: key, request: r.GetCertificateRequest(), address: callerAddress(ctx)}
	if e.joining, err = s.tokens.ShowJoin(ctx, r.GetToken()); err == nil {
		e.name, err = nameFor(e.joining.Token.GetJoin(), r.GetId(), key)
	}
	if err != nil {
		return nil, e.refuse(err)
	}
	if err := s.unhurried(ctx, s.paces.certifying, "token "+e.joining.Token.GetId(), "is used"); err != nil {
		return nil, err
	}
	turn := s.turns.of(e.name)
	turn.Lock()
	defer turn.Unlock()
	return e.enrol(ctx)
}

// errForAnother says that a token is for somebody else.
var errForAnother = errors.New("the token is for another agent")

// nameFor is the name that an agent gets: the one that the token binds, or the one that it would like, or one that is
// made of its key, so that it is the same when the same agent asks again.
func nameFor(join *pb.JoinToken, wish string, key []byte) (string, error) {
	switch bound := join.GetAgent(); {
	case bound != "" && wish != "" && wish != bound:
		return "", fmt.Errorf("%w: %s, not %s", errForAnother, bound, wish)
	case bound != "":
		return bound, nil
	case wish != "":
		return wish, nil
	}
	return "agent-" + hex.EncodeToString(key)[:10], nil
}

// refuse says why an agent does not come in.
func (e *enrolling) refuse(err error) error {
	for _, why := range []error{identity.ErrToken, access.ErrUnknown, access.ErrEnded, access.ErrUsed, errForAnother} {
		if errors.Is(err, why) {
			e.audit(&pb.AuditEvent{
				Kind: pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, Agent: e.name, TokenId: e.joining.Token.GetId(), Address: e.address, Detail: err.Error(),
			})
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if errors.Is(err, errTaken) {
		return status.Errorf(codes.AlreadyExists, "there is an agent %s already: start this one with another --id, or make a token for that name to replace it", e.name)
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return unavailable(err)
}

// enrol uses up the token, takes the name, and writes the enrolment before it answers.
func (e *enrolling) enrol(ctx context.Context) (*pb.EnrollResponse, error) {
	token := e.joining.Token
	err := e.check()
	if err == nil {
		err = e.tokens.Use(ctx, e.joining, e.name, e.key)
	}
	if err == nil {
		err = e.claims.enrol(ctx, e.name, e.key, token)
	}
	if err != nil {
		return nil, e.refuse(err)
	}
	issued, err := e.authorities.IssueAgent(e.name, e.request)
	if err != nil {
		return nil, unavailable(err)
	}
	enrolment := &pb.Enrolment{
		Id: e.name, Vantage: bound(token.GetJoin().GetVantage()), Key: e.key, TokenId: token.GetId(), EnrollTime: timestamppb.Now(),
	}
	again := e.store.Enrolment(e.name)
	if again.GetTokenId() == token.GetId() {
		enrolment.EnrollTime = again.GetEnrollTime()
	}
	if err := e.enrolled(ctx, enrolment, issued); err != nil {
		return nil, err
	}
	if again.GetTokenId() != token.GetId() {
		e.audit(&pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, Agent: e.name, TokenId: token.GetId(), Address: e.address,
			Detail: "in " + enrolment.GetVantage().GetRegion(),
		})
	}
	return &pb.EnrollResponse{Id: e.name, Vantage: enrolment.GetVantage(), Certificate: issued.Certificate}, nil
}

// check says what the log has against an enrolment, before the token is used up for it.
func (e *enrolling) check() error {
	known, token := e.store.Enrolment(e.name), e.joining.Token
	same := bytes.Equal(known.GetKey(), e.key)
	switch {
	case known == nil:
		return nil
	case known.GetRevokeTime() != nil && (same || bytes.Equal(known.GetPreviousKey(), e.key)):
		return welcome(known, e.key)
	case known.GetTokenId() == token.GetId() && !same:
		return fmt.Errorf("%w: by agent %s at %s", access.ErrUsed, known.GetId(), known.GetEnrollTime().AsTime().Format(time.RFC3339))
	case known.GetTokenId() != token.GetId() && token.GetJoin().GetAgent() != e.name:
		return errTaken
	}
	return nil
}

// enrolled writes an enrolment with the certificate that was issued, and says whether it stands: what was written
// first counts, and a revocation may have been.
func (c *Coordinator) enrolled(ctx context.Context, e *pb.Enrolment, issued *identity.Issued) error {
	e.ExpireTime, e.Authority = timestamppb.New(issued.Expires), issued.Authority
	if err := c.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: e}}); err != nil {
		return unavailable(err)
	}
	return welcome(c.store.Enrolment(e.GetId()), issued.Key)
}

// Renew implements pb.RegistrationServiceServer. The key that shows itself stays good until the next renewal.
func (s registrationService) Renew(ctx context.Context, r *pb.RenewRequest) (*pb.RenewResponse, error) {
	if s.opts.Insecure {
		return nil, status.Error(codes.FailedPrecondition, "the coordinator runs with --insecure: nobody has a certificate")
	}
	caller := access.FromContext(ctx)
	_, key, err := identity.CheckRequest(r.GetCertificateRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.unhurried(ctx, s.paces.certifying, caller.Agent, "renews its certificate"); err != nil {
		return nil, err
	}
	turn := s.turns.of(caller.Agent)
	turn.Lock()
	defer turn.Unlock()
	known := s.store.Enrolment(caller.Agent)
	if err := welcome(known, caller.Key); err != nil {
		return nil, err
	}
	if bytes.Equal(key, caller.Key) || bytes.Equal(key, known.GetPreviousKey()) {
		return nil, status.Error(codes.InvalidArgument, "certificate_request: the key must be a new one")
	}
	issued, err := s.authorities.IssueAgent(caller.Agent, r.GetCertificateRequest())
	if err != nil {
		return nil, unavailable(err)
	}
	next := proto.CloneOf(known)
	next.Key, next.PreviousKey = key, caller.Key
	if err := s.enrolled(ctx, next, issued); err != nil {
		return nil, err
	}
	if caller.Expired {
		s.audit(&pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_AGENT_RETURNED, Agent: caller.Agent, Address: callerAddress(ctx),
			Detail: "its certificate ended at " + caller.Expires.UTC().Format(time.RFC3339),
		})
	}
	s.log.Info("certificate renewed", "agent", caller.Agent, "until", issued.Expires)
	return &pb.RenewResponse{Certificate: issued.Certificate}, nil
}

// RevokeAgent implements pb.FleetServiceServer. What the agent has open ends when the revocation is folded.
func (s fleetService) RevokeAgent(ctx context.Context, r *pb.RevokeAgentRequest) (*pb.RevokeAgentResponse, error) {
	turn := s.turns.of(r.GetId())
	turn.Lock()
	defer turn.Unlock()
	known := s.store.Enrolment(r.GetId())
	if known == nil {
		return nil, status.Errorf(codes.NotFound, "there is no agent %s that is enrolled", r.GetId())
	}
	if known.GetRevokeTime() == nil {
		next := proto.CloneOf(known)
		next.RevokeTime = timestamppb.Now()
		if err := s.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: next}}); err != nil {
			return nil, unavailable(err)
		}
		detail := "revoked" + by(ctx)
		if r.GetReason() != "" {
			detail += ": " + r.GetReason()
		}
		s.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_AGENT_REVOKED, Agent: r.GetId(), Address: callerAddress(ctx), Detail: detail})
		s.fleet.Enrolled(next) // the fold says so too, a little later
	}
	return &pb.RevokeAgentResponse{Agent: s.fleet.Get(r.GetId())}, nil
}
