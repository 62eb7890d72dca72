package coordinator

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// fleetService is pb.FleetService.
type fleetService struct {
	pb.UnimplementedFleetServiceServer
	*Coordinator
}

// ListAgents implements pb.FleetServiceServer.
func (s fleetService) ListAgents(_ context.Context, r *pb.ListAgentsRequest) (*pb.ListAgentsResponse, error) {
	selector, err := fleet.ParseSelector(r.GetFrom())
	if err != nil {
		return nil, badSelector(err.Error())
	}
	agents, _ := s.fleet.List(selector)
	return &pb.ListAgentsResponse{Agents: agents}, nil
}

// WatchAgents implements pb.FleetServiceServer.
func (s fleetService) WatchAgents(r *pb.WatchAgentsRequest, stream pb.FleetService_WatchAgentsServer) error {
	selector, err := fleet.ParseSelector(r.GetFrom())
	if err != nil {
		return badSelector(err.Error())
	}
	sent := map[string]*pb.Agent{}
	for {
		agents, changed := s.fleet.List(selector)
		news := slices.DeleteFunc(slices.Clone(agents), func(a *pb.Agent) bool { return sameToWatchers(sent[a.GetId()], a) })
		if len(news) > 0 || len(sent) == 0 {
			if err := stream.Send(&pb.WatchAgentsResponse{Agents: news}); err != nil {
				return err
			}
		}
		for _, a := range news {
			sent[a.GetId()] = a
		}
		select {
		case <-changed:
		case <-s.fleet.Tick(): // silence changes an agent too
		case <-s.serving.Done():
			return status.Error(codes.Unavailable, "the coordinator is about to stop; watch again")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func sameToWatchers(a, b *pb.Agent) bool {
	return a.GetState() == b.GetState() && a.GetRunning() == b.GetRunning() && proto.Equal(a.GetVantage(), b.GetVantage())
}

// registrationService is pb.RegistrationService.
type registrationService struct {
	pb.UnimplementedRegistrationServiceServer
	*Coordinator
}

// Register implements pb.RegistrationServiceServer.
func (s registrationService) Register(ctx context.Context, r *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	vantage, _ := proto.Clone(r.GetVantage()).(*pb.Vantage)
	vantage.ObservedAddress = ""
	if p, ok := peer.FromContext(ctx); ok {
		if addr, ok := p.Addr.(*net.TCPAddr); ok {
			vantage.ObservedAddress = addr.AddrPort().Addr().Unmap().String()
		}
	}
	if err := s.fleet.Register(r.GetId(), r.GetVersion(), vantage); errors.Is(err, fleet.ErrFull) {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	s.log.Info("agent registered", "agent", r.GetId(), "region", vantage.GetRegion(), "address", vantage.GetObservedAddress())
	return &pb.RegisterResponse{
		Id:            r.GetId(),
		Vantage:       vantage,
		NatsAddresses: []string{s.natsAddress()},
		Credential:    s.credential(r.GetId()),
		BeatInterval:  durationpb.New(fleet.BeatInterval),
	}, nil
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

// Keep implements results.Sink: what was asked for and is not there yet goes into the log. What was
// not asked for, or is there, is left out for good.
func (c *Coordinator) Keep(ctx context.Context, agent string, batch []*pb.Result) error {
	entries := make([]*pb.LogEntry, 0, len(batch))
	known := c.fleet.Get(agent)
	for _, r := range batch {
		vantage, wanted, err := c.store.Asked(r.GetMeasurementId(), agent)
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrNotAsked) {
			return err // the disk, not the result: it is sent again
		}
		if err != nil {
			c.metrics.results.WithLabelValues("unasked").Inc()
			c.log.Warn("a result that nobody asked for", "agent", agent, "reason", err)
			continue
		}
		if !wanted {
			c.metrics.results.WithLabelValues("duplicate").Inc()
			continue
		}
		if known != nil {
			vantage = known.GetVantage()
		}
		r.Vantage = vantage
		entries = append(entries, &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: r}})
	}
	for part := range slices.Chunk(entries, maxEntries) {
		if err := c.append(ctx, part...); err != nil {
			c.log.Error("results could not be made durable; the agent will send them again", "agent", agent, "error", err)
			return err
		}
		c.metrics.results.WithLabelValues("stored").Add(float64(len(part)))
	}
	return nil
}

// maxEntries bounds the results in one append: 8 of at most 64 KiB fit a message of the log.
const maxEntries = 8

// Refused implements results.Sink.
func (c *Coordinator) Refused(agent string, r *pb.Result) {
	c.metrics.results.WithLabelValues("refused").Inc()
	c.log.Warn("a result of another agent, or too large: refused", "agent", agent, "of", clip(r.GetAgent()), "bytes", proto.Size(r))
}
