package coordinator

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// fleetService is pb.FleetService.
type fleetService struct {
	pb.UnimplementedFleetServiceServer
	*Coordinator
}

// watchRest is the least time between two looks of a watcher: thousands of agents change all the time.
const watchRest = 100 * time.Millisecond

// ListAgents implements pb.FleetServiceServer.
func (s fleetService) ListAgents(_ context.Context, r *pb.ListAgentsRequest) (*pb.ListAgentsResponse, error) {
	selector, err := fleet.ParseSelector(r.GetFrom())
	if err != nil {
		return nil, badSelector(err.Error())
	}
	agents, _ := s.fleet.List(selector)
	return &pb.ListAgentsResponse{Agents: s.withDelivery(agents)}, nil
}

// withDelivery are agents with what the log knows of their spools. Those of the fleet are shared, so these are copies.
func (c *Coordinator) withDelivery(agents []*pb.Agent) []*pb.Agent {
	told := make([]*pb.Agent, len(agents))
	for i, a := range agents {
		told[i] = proto.CloneOf(a)
		told[i].Delivery = c.store.Delivery(a.GetId())
	}
	return told
}

// WatchAgents implements pb.FleetServiceServer.
func (s fleetService) WatchAgents(r *pb.WatchAgentsRequest, stream pb.FleetService_WatchAgentsServer) error {
	selector, err := fleet.ParseSelector(r.GetFrom())
	if err != nil {
		return badSelector(err.Error())
	}
	done, err := s.watch()
	if err != nil {
		return err
	}
	defer done()
	sent := map[string]*pb.Agent{}
	for {
		agents, changed := s.fleet.List(selector)
		news := slices.DeleteFunc(slices.Clone(agents), func(a *pb.Agent) bool { return sameToWatchers(sent[a.GetId()], a) })
		if len(news) > 0 || len(sent) == 0 {
			if err := stream.Send(&pb.WatchAgentsResponse{Agents: s.withDelivery(news)}); err != nil {
				return err
			}
		}
		for _, a := range news {
			sent[a.GetId()] = a
		}
		rest := time.After(watchRest)
		select {
		case <-changed:
		case <-s.fleet.Tick(): // silence changes an agent too
		case <-s.serving.Done():
			return status.Error(codes.Unavailable, "the coordinator is about to stop; watch again")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
		<-rest
	}
}

func sameToWatchers(a, b *pb.Agent) bool {
	return a == b || a.GetState() == b.GetState() && a.GetRunning() == b.GetRunning() && proto.Equal(a.GetVantage(), b.GetVantage())
}

// registrationService is pb.RegistrationService.
type registrationService struct {
	pb.UnimplementedRegistrationServiceServer
	*Coordinator
}

// Register implements pb.RegistrationServiceServer.
func (s registrationService) Register(ctx context.Context, r *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	if err := s.speaksFor(ctx, r.GetId()); err != nil {
		return nil, err
	}
	if err := s.unhurried(ctx, s.paces.registering, r.GetId(), "registers"); err != nil {
		return nil, err
	}
	if err := s.refuseUnready(); err != nil {
		return nil, err
	}
	if !s.fleet.Room(r.GetId()) { // before anything is written of it
		return nil, status.Error(codes.ResourceExhausted, fleet.ErrFull.Error())
	}
	claim, who, err := s.claims.session(ctx, r, s.store.Delivery(r.GetId()))
	if err != nil {
		return nil, unavailable(err)
	}
	ousted := s.reports.Fence(r.GetId(), claim.GetSession())
	s.say(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_Session{Session: &pb.SessionBegun{
		Agent: r.GetId(), Session: claim.GetSession(), ObservedAddress: callerAddress(ctx),
	}}})
	// A process that is new may be the one before, which was killed so that nobody has noticed yet; not again and again.
	if who == processBack || who == processNew && ousted && s.paces.ousting.Take(time.Now(), r.GetId()) > 0 {
		s.audit(&pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_IDENTITY_CONFLICT, Agent: r.GetId(), Address: callerAddress(ctx),
			Detail: "two processes register in turns; revoke the agent if one of them is not yours",
		})
	}
	vantage := proto.CloneOf(r.GetVantage())
	vantage.ObservedAddress = callerAddress(ctx)
	if err := s.fleet.Register(r.GetId(), r.GetVersion(), vantage); errors.Is(err, fleet.ErrFull) {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	vantage = s.fleet.Get(r.GetId()).GetVantage() // as far as it is bound
	s.log.Info("agent registered", "agent", r.GetId(), "region", vantage.GetRegion(), "address", vantage.GetObservedAddress(),
		"session", claim.GetSession(), "epoch", claim.GetEpoch())
	response := &pb.RegisterResponse{
		Id:            r.GetId(),
		Vantage:       vantage,
		NatsAddresses: []string{s.natsAddress()},
		BeatInterval:  durationpb.New(fleet.BeatInterval),
		Epoch:         claim.GetEpoch(),
		Session:       claim.GetSession(),
		Coordinators:  s.places(),
	}
	if s.opts.Insecure {
		response.Credential = s.credential(r.GetId())
	} else {
		changes := s.heard.now()
		response.Authorities = s.authorities.DER()
		s.heard.told(r.GetId(), changes)
	}
	return response, nil
}

// speaksFor says whether a caller is the agent that it says it is. Without TLS everybody is.
func (c *Coordinator) speaksFor(ctx context.Context, agent string) error {
	caller := access.FromContext(ctx)
	if c.opts.Insecure || caller.Agent == agent {
		return nil
	}
	c.audit(&pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, Agent: caller.Agent, Address: callerAddress(ctx),
		Detail: "it spoke in the name of " + clip(agent),
	})
	return status.Errorf(codes.PermissionDenied, "the certificate is of agent %s: it cannot speak for %.63q", caller.Agent, agent)
}

// natsAddress is what agents are told: without a host of its own, the one that they reached.
func (c *Coordinator) natsAddress() string {
	addr, _ := c.nats.Addr().(*net.TCPAddr)
	host := c.opts.Advertise
	if host == "" && !addr.IP.IsUnspecified() {
		host = addr.IP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}
