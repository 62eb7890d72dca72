package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cluster"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// stateInterval is how often a coordinator says how it is.
	stateInterval = time.Second
	// recentHashes is at how many positions, the newest, it is known what the state was.
	recentHashes = 1 << 14
	// unreadyTurns is how many turns in a row a coordinator may be unready before its agents are sent to others.
	unreadyTurns = 2
)

// hashes are what the state was at the newest positions.
type hashes struct {
	at   []uint64
	hash [][]byte
}

func newHashes() hashes { return hashes{make([]uint64, recentHashes), make([][]byte, recentHashes)} }

func (h *hashes) note(position uint64, hash []byte) {
	h.at[position%recentHashes], h.hash[position%recentHashes] = position, hash
}

// was is the state at a position; nil if that is not known any more, or not yet.
func (h *hashes) was(position uint64) []byte {
	if h.at[position%recentHashes] != position {
		return nil
	}
	return h.hash[position%recentHashes]
}

// noteState notes what the log amounts to now. It has one caller: the fold.
func (c *Coordinator) noteState() {
	if c.others == nil {
		return
	}
	position, hash := c.store.Hash()
	c.others.mu.Lock()
	defer c.others.mu.Unlock()
	c.others.hashes.note(position, hash)
}

// state is how this coordinator is, with its state at a position, if it knows that, or the newest.
func (c *Coordinator) state(at uint64) *pb.CoordinatorState {
	position, hash := c.store.Hash()
	s := &pb.CoordinatorState{
		Name: c.name(), Position: position, StateHash: hash, Unready: c.unready(), StartTime: timestamppb.New(c.started),
		FoldFormat: store.Format,
	}
	if end := max(c.history.End(), c.history.Last()); end > position {
		s.Lag = end - position
	}
	for what, who := range c.nats.Leaders() {
		if who == s.GetName() {
			s.Leads = append(s.Leads, ledAs(what))
		}
	}
	slices.Sort(s.Leads)
	if c.authorities != nil {
		s.Authorities = c.authorities.Digest()
	}
	if c.others != nil {
		c.others.mu.Lock()
		s.DiffersFrom = c.others.differ
		if was := c.others.hashes.was(at); was != nil {
			s.Position, s.StateHash = at, was
		}
		c.others.mu.Unlock()
	}
	return s
}

// ledAs is a stream as users know it: LOG is log, KV_tokens tokens.
func ledAs(stream string) string { return strings.ToLower(strings.TrimPrefix(stream, "KV_")) }

// tellState says how this coordinator is, again and again until ctx ends, and sees to what follows from how it is and how
// the others are.
func (c *Coordinator) tellState(ctx context.Context) error {
	if c.others == nil {
		return nil
	}
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	unready, owned, at := 0, "", uint64(0)
	for {
		state := c.state(at)
		if err := c.peers.Say(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_State{State: state}}); err != nil && ctx.Err() == nil {
			c.log.Error("the other coordinators are not told", "error", err)
		}
		if c.deaf() {
			_ = c.peers.Say(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_AgentsWanted{
				AgentsWanted: &pb.AgentsWanted{Coordinator: c.name()},
			}})
		}
		c.compareStates()
		c.tellHealth(state.GetUnready() == "")
		why := c.useless()
		if unready = turn(unready, why != ""); unready == unreadyTurns {
			c.log.Error("not ready: agents are sent to the other coordinators", "reason", why)
			c.reports.Recall(stateInterval)
		}
		if alive := strings.Join(c.others.alive(), ","); alive != owned {
			owned = alive
			c.log.Info("coordinators that live", "names", alive)
			c.inherit()
		}
		c.saveOthers()
		select {
		case <-tick.C:
			at = 0
		case <-c.others.wanted:
			at = c.others.wantedAt.Swap(0)
			c.soon(ctx, at)
		case <-ctx.Done():
			return nil
		}
	}
}

// soon waits a moment until this coordinator has folded the log up to a position, which another one has.
func (c *Coordinator) soon(ctx context.Context, position uint64) {
	ctx, cancel := context.WithTimeout(ctx, freshTimeout/2)
	defer cancel()
	_ = c.folded(ctx, position) // or it is behind, which it says
}

// watchLead asks again and again whether somebody leads the log, which can be written then, until ctx ends. Once nobody did,
// which is so for one that is cut off, it takes until this one has caught up with the others.
func (c *Coordinator) watchLead(ctx context.Context) error {
	if c.others == nil {
		return nil
	}
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for unled := 0; ; {
		asking, cancel := context.WithTimeout(ctx, stateInterval)
		bounds, err := c.history.Bounds(asking)
		if err == nil && unled > 0 {
			err = c.folded(asking, bounds.Last)
		}
		cancel()
		unled = turn(unled, err != nil)
		c.others.mu.Lock()
		c.others.unled = unled
		c.others.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// turn counts turns in a row.
func turn(n int, again bool) int {
	if again {
		return n + 1
	}
	return 0
}

// saveOthers keeps where the others are now.
func (c *Coordinator) saveOthers() {
	err := c.others.learn(c.log)
	if err == nil {
		err = c.others.keep()
	}
	if err != nil {
		c.log.Error("where the other coordinators are", "error", err)
	}
}

// inherit has agents asked that another coordinator may not have come to, before it died. They run nothing twice.
func (c *Coordinator) inherit() {
	for _, m := range c.store.Open() {
		if !c.owns(m.GetId()) || time.Until(m.GetDeadline().AsTime()) <= 0 {
			continue
		}
		for _, a := range m.GetAsks() {
			if a.GetState() == pb.AskState_ASK_STATE_PENDING {
				c.work.Go(func() { c.ask(m, a) })
			}
		}
	}
}

// askForTheDead has the agents of a measurement asked whose coordinator died before this one knew of it: what there was to
// inherit was inherited then.
func (c *Coordinator) askForTheDead(o *pb.Opened) {
	id := o.GetMeasurement().GetId()
	if c.others == nil || slices.Contains(c.others.alive(), o.GetCoordinator()) || !c.owns(id) {
		return
	}
	c.work.Go(func() {
		if view, err := c.store.Get(id); err == nil {
			c.askAll(view.Measurement)
		}
	})
}

// hearOther takes up what a coordinator says.
func (c *Coordinator) hearOther(message *pb.CoordinatorMessage) {
	switch m := message.GetMessage().(type) {
	case *pb.CoordinatorMessage_State:
		o := c.others
		o.mu.Lock()
		defer o.mu.Unlock()
		if _, member := o.routes[m.State.GetName()]; member {
			o.states[m.State.GetName()] = heardState{m.State, time.Now()}
		}
	case *pb.CoordinatorMessage_Session:
		if c.reports.Fence(m.Session.GetAgent(), m.Session.GetSession()) {
			c.log.Debug("an agent has gone to another coordinator", "agent", m.Session.GetAgent())
		}
		c.fleet.Moved(m.Session.GetAgent(), m.Session.GetObservedAddress())
	case *pb.CoordinatorMessage_Wanted:
		c.others.wantedAt.Store(m.Wanted.GetPosition())
		c.others.wake()
	case *pb.CoordinatorMessage_AgentsWanted:
		if err := c.tellAgents(m.AgentsWanted.GetCoordinator()); err != nil {
			c.log.Debug("another coordinator is not told which agents live", "error", err)
		}
	case *pb.CoordinatorMessage_AgentsHeard:
		c.hearAgents(m.AgentsHeard)
	case *pb.CoordinatorMessage_LogRead:
		if m.LogRead.GetCoordinator() == c.others.name {
			return
		}
		if m.LogRead.GetDone() {
			c.reading.release()
		} else {
			c.reading.extend()
		}
	}
}

// compareStates looks whether others had this coordinator's state at the positions that they told. Equal positions have
// equal states, folded in one way; where two of three agree, the third is wrong, and takes itself out of service.
func (c *Coordinator) compareStates() {
	o := c.others
	o.mu.Lock()
	var equal, other []string
	var at uint64
	for name, heard := range o.states {
		if name == o.name || time.Since(heard.at) > quietAfter || heard.state.GetFoldFormat() != store.Format {
			continue // while they are upgraded one by one, two versions may fold in two ways
		}
		switch is := o.hashes.was(heard.state.GetPosition()); {
		case is == nil:
		case bytes.Equal(is, heard.state.GetStateHash()):
			equal = append(equal, name)
		default:
			other, at = append(other, name), heard.state.GetPosition()
		}
	}
	fresh := len(other) > 0 && !o.alarmed
	if len(other) > 0 {
		o.alarmed = true
	}
	wrong := len(other) > 1 && len(equal) == 0 && o.differ == ""
	if wrong {
		slices.Sort(other)
		o.differ = strings.Join(other, ", ")
	}
	o.mu.Unlock()
	if fresh {
		c.metrics.differing.Set(1)
		c.log.Error("coordinators differ: at one position of the log they have different states; what they tell may be wrong",
			"position", at, "differs", strings.Join(other, ", "), "agrees", strings.Join(equal, ", "))
		c.audit(&pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_STATES_DIFFER, Detail: clip(fmt.Sprintf("at position %d %s has another state than %s", at, strings.Join(other, " and "), o.name)),
		})
	}
	if wrong {
		c.log.Error("this coordinator is the one that differs: it is out of service; stop it, move fold.db away and start it again", "data", c.opts.DataDir)
	}
}

// coordinators lists all that are known. Who has not said how it is since a moment does not live, whatever gossip says.
func (c *Coordinator) coordinators(asked moment) []*pb.Coordinator {
	if c.others == nil {
		return []*pb.Coordinator{{
			Name: c.name(), Liveness: pb.Liveness_LIVENESS_ALIVE, GrpcAddress: c.GRPCAddr().String(), NatsAddress: c.NATSAddr().String(),
			Version: flags.Version(), State: c.state(0), SeenTime: timestamppb.Now(),
		}}
	}
	members, _ := c.others.gossip.Members()
	own := c.state(asked.position)
	c.others.mu.Lock()
	defer c.others.mu.Unlock()
	byName := map[string]*pb.Coordinator{}
	for name, route := range c.others.routes {
		byName[name] = &pb.Coordinator{Name: name, RouteAddress: route, Liveness: pb.Liveness_LIVENESS_DEAD}
	}
	for _, m := range members {
		known := byName[m.Name]
		if known == nil {
			continue
		}
		a := addressesOf(m)
		known.GrpcAddress, known.NatsAddress, known.Version, known.Liveness = a.GetGrpc(), a.GetNats(), a.GetVersion(), livenessOf(m.State)
	}
	var all []*pb.Coordinator
	for name, known := range byName {
		if heard, ok := c.others.states[name]; ok {
			known.State, known.SeenTime = heard.state, timestamppb.New(heard.at)
		}
		if known.GetLiveness() == pb.Liveness_LIVENESS_ALIVE && c.others.states[name].at.Before(asked.at) {
			known.Liveness = pb.Liveness_LIVENESS_DEAD
		}
		if name == c.others.name {
			known.State, known.SeenTime, known.Liveness = own, timestamppb.Now(), pb.Liveness_LIVENESS_ALIVE
		}
		all = append(all, known)
	}
	slices.SortFunc(all, func(a, b *pb.Coordinator) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

func livenessOf(s cluster.State) pb.Liveness {
	switch s {
	case cluster.Alive:
		return pb.Liveness_LIVENESS_ALIVE
	case cluster.Left:
		return pb.Liveness_LIVENESS_LEFT
	case cluster.Dead:
	}
	return pb.Liveness_LIVENESS_DEAD
}

const (
	// freshTimeout bounds the wait for others to say how they are, and freshPause is how often it is looked whether they have.
	freshTimeout, freshPause = 500 * time.Millisecond, 5 * time.Millisecond
	// freshFor is how long what they were asked last serves whoever wants to know: no caller makes them talk more often.
	freshFor = 200 * time.Millisecond
)

// moment is when coordinators were asked how they are, and where in the log their states are compared.
type moment struct {
	at       time.Time
	position uint64
}

// refresh has all coordinators that live say how they are, so that they are seen at one time and, unless they are far
// behind, at one position.
func (c *Coordinator) refresh(ctx context.Context) moment {
	if c.others == nil {
		return moment{}
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	position, _ := c.store.Position()
	asked, first := c.others.askedNow(time.Now(), position)
	if first {
		c.say(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_Wanted{Wanted: &pb.StateWanted{Position: asked.position}}})
	}
	c.soon(ctx, asked.position)
	tick := time.NewTicker(freshPause)
	defer tick.Stop()
	for !c.others.heardSince(asked.at) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return asked
		}
	}
	return asked
}

// askedNow is when others were asked how they are for somebody who wants to know now: a moment ago, or now, by the first. They
// are compared at the newest position that one of them has told, or this one has folded.
func (o *others) askedNow(now time.Time, position uint64) (asked moment, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.asked.at) >= freshFor {
		for _, heard := range o.states {
			position = max(position, heard.state.GetPosition())
		}
		o.asked, first = moment{now, position}, true
	}
	return o.asked, first
}

// heardSince says whether all that live have said how they are since a time.
func (o *others) heardSince(at time.Time) bool {
	alive := o.alive()
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(alive, func(name string) bool { return !o.states[name].at.After(at) })
}

// ListCoordinators implements pb.CoordinatorServiceServer.
func (s coordinatorService) ListCoordinators(ctx context.Context, _ *pb.ListCoordinatorsRequest) (*pb.ListCoordinatorsResponse, error) {
	return &pb.ListCoordinatorsResponse{Coordinators: s.coordinators(s.refresh(ctx))}, nil
}
