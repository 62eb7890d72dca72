package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	"github.com/elsewhere-net/elsewhere/internal/store"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	defaultTimeout  = 30 * time.Second
	maxTimeout      = 10 * time.Minute // as the proto has it
	createTimeout   = 15 * time.Second
	defaultLimit    = 20
	defaultPageSize = 50
	// maxOpen and maxOpenAsks bound the measurements that run at once and the agents that they ask.
	maxOpen, maxOpenAsks = 10_000, 500_000
	// maxWatchResults bounds the results in one message of a watch: 64 of at most 64 KiB, or those of one message of
	// the log.
	maxWatchResults = 64
	// maxWatchers bounds the watches under way.
	maxWatchers = 4096
)

// measurementService is pb.MeasurementService.
type measurementService struct {
	pb.UnimplementedMeasurementServiceServer
	*Coordinator
}

// CreateMeasurement implements pb.MeasurementServiceServer.
func (s measurementService) CreateMeasurement(ctx context.Context, r *pb.CreateMeasurementRequest) (*pb.CreateMeasurementResponse, error) {
	m, err := s.create(ctx, r, false)
	if err != nil {
		return nil, err
	}
	return &pb.CreateMeasurementResponse{Measurement: m}, nil
}

// create opens a measurement of a client's, or of the canary.
func (s measurementService) create(ctx context.Context, r *pb.CreateMeasurementRequest, canary bool) (*pb.Measurement, error) {
	id, known, err := s.idFor(r)
	if err != nil || known != nil {
		return known, err
	}
	if measurements, asks := s.store.Running(); measurements >= maxOpen || asks >= maxOpenAsks {
		return nil, status.Errorf(codes.ResourceExhausted, "%d measurements of %d agents are running, as many as may; try again later", measurements, asks)
	}
	if err := wholeProfiles(r.GetSpec()); err != nil {
		return nil, err
	}
	if err := cmp.Or(beyondRules(r.GetSpec()), wholeDurations(r.GetPolicy())); err != nil {
		return nil, err
	}
	if err := s.refuseOptedOut(r.GetSpec()); err != nil {
		return nil, err
	}
	if err := s.awaitAgents(ctx); err != nil {
		return nil, err
	}
	asks, err := s.choose(ctx, r, id)
	if err != nil {
		return nil, err
	}
	if err := s.admitMeasurement(ctx, r.GetSpec(), len(asks)); err != nil {
		return nil, err
	}
	now, timeout := time.Now(), timeoutOf(r)
	m := &pb.Measurement{
		Id:         id,
		State:      pb.State_STATE_RUNNING,
		Spec:       r.GetSpec(),
		CreateTime: timestamppb.New(now),
		Deadline:   timestamppb.New(now.Add(timeout)),
		From:       fromOf(r),
		Asks:       asks,
		Policy:     aggregate.Complete(r.GetPolicy()),
		Canary:     canary,
	}
	m.PublicResolvers = publicdns.Asked(s.opts.PublicResolvers, m.GetSpec(), asks)
	// Before it is in the log, so that what is in the log is always closed.
	s.closer.at(id, now.Add(timeout+s.afterOthers(id)))
	// A caller that goes away now leaves a measurement that is asked, not half of one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	if err := s.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: s.opened(ctx, m)}}); err != nil {
		if errors.Is(err, bus.ErrTooLarge) || errors.Is(err, bus.ErrFull) {
			s.closer.forget(id) // it is certainly not in the log: there is nothing to close
		}
		if errors.Is(err, bus.ErrTooLarge) {
			return nil, status.Errorf(codes.ResourceExhausted, "the list of %d agents is too large to be kept (%v); lower the limit", len(asks), err)
		}
		return nil, unavailable(err)
	}
	return s.first(m, r)
}

// awaitAgents waits until this coordinator knows which agents live: one that has just joined others would ask some.
func (c *Coordinator) awaitAgents(ctx context.Context) error {
	if !c.deaf() {
		return nil
	}
	select {
	case <-c.listening.heard:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// opened is the entry that opens a measurement.
func (c *Coordinator) opened(ctx context.Context, m *pb.Measurement) *pb.Opened {
	o := &pb.Opened{Measurement: m, TokenId: access.FromContext(ctx).Token.GetId()}
	if c.others != nil {
		o.Coordinator = c.name()
	}
	return o
}

// choose freezes the list of agents.
func (s measurementService) choose(ctx context.Context, r *pb.CreateMeasurementRequest, id string) ([]*pb.Ask, error) {
	if earlier := r.GetFrom(); isID(earlier) {
		return s.sameAgents(ctx, earlier)
	}
	selector, err := fleet.ParseSelector(r.GetFrom())
	if err != nil {
		return nil, badSelector(err.Error())
	}
	candidates, err := s.candidates(selector)
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = defaultLimit
	}
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(id)) // never fails
	chosen := fleet.Choose(candidates, limit, mathrand.New(mathrand.NewPCG(seed.Sum64(), 0)))
	asks := make([]*pb.Ask, len(chosen))
	for i, a := range chosen {
		asks[i] = &pb.Ask{Agent: a.GetId(), Vantage: a.GetVantage(), State: pb.AskState_ASK_STATE_PENDING}
	}
	return asks, nil
}

// candidates are the agents that a selector means: those online, and where an item of its list means
// nobody online, those that are known: they will be lost, which says more than leaving the place out. An
// item that means nobody at all is an error, since it is most likely misspelled.
func (s measurementService) candidates(selector fleet.Selector) ([]*pb.Agent, error) {
	var candidates []*pb.Agent
	anyOnline, taken := false, map[string]bool{}
	for _, item := range selector.Alternatives() {
		online := s.fleet.Online(item)
		anyOnline = anyOnline || len(online) > 0
		if len(online) == 0 {
			online, _ = s.fleet.List(item)
		}
		if len(online) == 0 {
			return nil, s.nobody(item.String())
		}
		for _, a := range online {
			if !taken[a.GetId()] {
				taken[a.GetId()] = true
				candidates = append(candidates, a)
			}
		}
	}
	if !anyOnline {
		return nil, noAgent("", "none of the agents that are meant is online")
	}
	return candidates, nil
}

// sameAgents asks those that an earlier measurement asked, whatever the limit. Those that are gone will
// be lost.
func (s measurementService) sameAgents(ctx context.Context, earlier string) ([]*pb.Ask, error) {
	earlier = strings.ToLower(earlier)
	view, err := s.find(ctx, earlier)
	if status.Code(err) == codes.NotFound {
		return nil, badSelector(fmt.Sprintf("there is no measurement %s", earlier))
	}
	if err != nil {
		return nil, err
	}
	var asks []*pb.Ask
	anyOnline := false
	for _, a := range view.Measurement.GetAsks() {
		vantage := a.GetVantage()
		if agent := s.fleet.Get(a.GetAgent()); agent.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
			vantage, anyOnline = agent.GetVantage(), true
		}
		asks = append(asks, &pb.Ask{Agent: a.GetAgent(), Vantage: vantage, State: pb.AskState_ASK_STATE_PENDING})
	}
	if !anyOnline {
		return nil, noAgent(earlier, "none of the agents of that measurement is online")
	}
	return asks, nil
}

// nobody says why a selector means no agent.
func (s measurementService) nobody(from string) error {
	world, _ := fleet.ParseSelector("world")
	var regions []string
	for _, a := range s.fleet.Online(world) {
		regions = append(regions, a.GetVantage().GetRegion())
	}
	slices.Sort(regions)
	regions = slices.Compact(regions)
	if len(regions) == 0 {
		return noAgent(from, "no agent is online")
	}
	return noAgent(from, fmt.Sprintf("no agent matches %q; agents are online in %s", from, strings.Join(regions[:min(len(regions), 10)], ", ")))
}

// GetMeasurement implements pb.MeasurementServiceServer.
func (s measurementService) GetMeasurement(ctx context.Context, r *pb.GetMeasurementRequest) (*pb.GetMeasurementResponse, error) {
	view, err := s.find(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &pb.GetMeasurementResponse{Measurement: view.Measurement}, nil
}

// ListMeasurements implements pb.MeasurementServiceServer.
func (s measurementService) ListMeasurements(_ context.Context, r *pb.ListMeasurementsRequest) (*pb.ListMeasurementsResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	page, more, err := s.store.List(r.GetPageToken(), size)
	if err != nil {
		return nil, unavailable(err)
	}
	response := &pb.ListMeasurementsResponse{Measurements: page}
	if more && len(page) > 0 {
		response.NextPageToken = page[len(page)-1].GetId()
	}
	return response, nil
}

// ListResults implements pb.MeasurementServiceServer.
func (s measurementService) ListResults(r *pb.ListResultsRequest, stream pb.MeasurementService_ListResultsServer) error {
	view, err := s.find(stream.Context(), r.GetId())
	if err != nil {
		return err
	}
	for _, result := range view.Results {
		if err := stream.Send(&pb.ListResultsResponse{Result: result}); err != nil {
			return err
		}
	}
	for _, result := range view.Late {
		if err := stream.Send(&pb.ListResultsResponse{Result: result, Late: true}); err != nil {
			return err
		}
	}
	return nil
}

// WatchMeasurement implements pb.MeasurementServiceServer. A slow reader costs nothing: what it has
// not read is in the store, and it is sent the newest.
func (s measurementService) WatchMeasurement(r *pb.WatchMeasurementRequest, stream pb.MeasurementService_WatchMeasurementServer) error {
	done, err := s.watch()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.serving, cancel)()
	if _, err := s.find(stream.Context(), r.GetId()); err != nil {
		return err
	}
	w := watcher{stream: stream, results: r.GetResults(), told: r.GetAfter()}
	if position, _ := s.store.Position(); w.told > position {
		w.told = 0 // of another log: what this one has instead is not known to the reader
	}
	err = s.store.Watch(ctx, r.GetId(), w.send)
	if errors.Is(err, context.Canceled) && s.serving.Err() != nil {
		return status.Error(codes.Unavailable, "the coordinator is about to stop; watch again")
	}
	return apiError(err, r.GetId())
}

// watch counts a watch, of a measurement or of agents, until it is done; or says that there are as many as may be.
func (c *Coordinator) watch() (done func(), err error) {
	done = func() { c.watching.Add(-1) }
	if c.watching.Add(1) > maxWatchers {
		done()
		return nil, status.Errorf(codes.ResourceExhausted, "%d watches are under way, as many as may; try again later", maxWatchers)
	}
	return done, nil
}

// watcher is one watch: what it has sent.
type watcher struct {
	stream  pb.MeasurementService_WatchMeasurementServer
	results bool // whether they are wanted
	begun   bool
	told    uint64 // the results up to this position were sent
}

// send sends a measurement and the results that are new, in messages of bounded size. Each says up to which position
// it tells all, so that the reader can go on there.
func (w *watcher) send(view store.View) error {
	last := &pb.WatchMeasurementResponse{Measurement: view.Measurement, Position: view.Position, Lagged: view.Lagged}
	for w.results {
		part, upTo := view.After(w.told, maxWatchResults)
		if w.told = upTo; upTo == view.Position {
			last.Results = part
			break
		}
		if err := w.say(&pb.WatchMeasurementResponse{
			Measurement: running(last.GetMeasurement()), Results: part, Position: upTo, Lagged: last.GetLagged(),
		}); err != nil {
			return err
		}
		last.Lagged = false // it was said
	}
	return w.say(last)
}

// say sends a message, with the asks if it is the first or the last.
func (w *watcher) say(message *pb.WatchMeasurementResponse) error {
	if w.begun && message.GetMeasurement().GetState() == pb.State_STATE_RUNNING {
		message.Measurement.Asks = nil
	}
	w.begun = true
	return w.stream.Send(message)
}

// running is a measurement as it was before its end: the end is told after the last result.
func running(m *pb.Measurement) *pb.Measurement {
	return &pb.Measurement{
		Id: m.GetId(), State: pb.State_STATE_RUNNING, Spec: m.GetSpec(), From: m.GetFrom(),
		CreateTime: m.GetCreateTime(), Deadline: m.GetDeadline(), Policy: m.GetPolicy(), Ledger: m.GetLedger(), Asks: m.GetAsks(),
	}
}

// CancelMeasurement implements pb.MeasurementServiceServer.
func (s measurementService) CancelMeasurement(ctx context.Context, r *pb.CancelMeasurementRequest) (*pb.CancelMeasurementResponse, error) {
	view, err := s.find(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	if view.Measurement.GetState() == pb.State_STATE_RUNNING {
		if err := s.append(ctx, closed(r.GetId(), true)); err != nil {
			return nil, unavailable(err)
		}
		if view, err = s.store.Get(r.GetId()); err != nil {
			return nil, apiError(err, r.GetId())
		}
	}
	return &pb.CancelMeasurementResponse{Measurement: view.Measurement}, nil
}

// closed is the end of a measurement, now.
func closed(id string, cancelled bool) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{
		MeasurementId: id, Time: timestamppb.Now(), Cancelled: cancelled,
	}}}
}
