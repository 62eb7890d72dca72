package fleet

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// BeatInterval is the time between two beats of an agent.
	BeatInterval = 5 * time.Second
	// offlineAfter is the silence after which an agent is not asked any more.
	offlineAfter = 3 * BeatInterval
	// forgetAfter is the silence after which an agent is not listed any more.
	forgetAfter = 24 * time.Hour
	// maxAgents bounds the agents that are known.
	maxAgents = 20_000
)

// ErrFull says that no more agents can be known.
var ErrFull = errors.New("too many agents")

// Fleet is the agents that were heard of. It is safe for concurrent use.
type Fleet struct {
	mu      sync.Mutex
	agents  map[string]*agent
	changed chan struct{} // closed and replaced at every change that a watcher would see
}

// agent is one agent; what is handed out of it is never changed, but replaced.
type agent struct {
	known   *pb.Agent
	seen    time.Time
	version int // counts changes
}

// New returns a fleet without agents.
func New() *Fleet {
	return &Fleet{agents: map[string]*agent{}, changed: make(chan struct{})}
}

// Register takes up an agent, with its vantage as the coordinator sees it.
func (f *Fleet) Register(id, version string, v *pb.Vantage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.agents[id] == nil && len(f.agents) >= maxAgents {
		return ErrFull
	}
	f.set(&pb.Agent{Id: id, Vantage: v, Version: version, State: pb.AgentState_AGENT_STATE_OFFLINE})
	return nil
}

// Beat notes that an agent lives and tells whether it was not online before. An agent that has not
// registered here may have done so with another coordinator, or with this one before a restart.
func (f *Fleet) Beat(b *pb.Beat) (joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.agents[b.GetAgent()]
	if old == nil && len(f.agents) >= maxAgents {
		return false
	}
	next := &pb.Agent{
		Id:       b.GetAgent(),
		Vantage:  b.GetVantage(),
		Version:  b.GetVersion(),
		Running:  b.GetRunning(),
		Capacity: b.GetCapacity(),
		State:    pb.AgentState_AGENT_STATE_ONLINE,
	}
	if b.GetDraining() {
		next.State = pb.AgentState_AGENT_STATE_DRAINING
	}
	joined = old == nil || old.state() != pb.AgentState_AGENT_STATE_ONLINE
	f.set(next)
	return joined && !b.GetDraining()
}

// set replaces what is known of an agent.
func (f *Fleet) set(next *pb.Agent) {
	old := f.agents[next.GetId()]
	if old == nil {
		old = &agent{}
		f.agents[next.GetId()] = old
	}
	now := time.Now()
	next.LastSeenTime = timestamppb.New(now)
	before := old.known
	old.known, old.seen = next, now
	if before.GetState() == next.GetState() && before.GetRunning() == next.GetRunning() && proto.Equal(before.GetVantage(), next.GetVantage()) {
		return
	}
	old.version++
	close(f.changed)
	f.changed = make(chan struct{})
}

// state is the state by what was heard and when.
func (a *agent) state() pb.AgentState {
	if time.Since(a.seen) > offlineAfter {
		return pb.AgentState_AGENT_STATE_OFFLINE
	}
	return a.known.GetState()
}

func (a *agent) snapshot() *pb.Agent {
	if state := a.state(); state != a.known.GetState() {
		copied, _ := proto.Clone(a.known).(*pb.Agent)
		copied.State = state
		return copied
	}
	return a.known
}

// List returns the agents that a selector means, sorted by name, and a channel that is closed when an
// agent changes. They are shared: not to be changed.
func (f *Fleet) List(s Selector) ([]*pb.Agent, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.agents, func(_ string, a *agent) bool { return time.Since(a.seen) > forgetAfter })
	var list []*pb.Agent
	for _, a := range f.agents {
		if s.Matches(a.known.GetId(), a.known.GetVantage()) {
			list = append(list, a.snapshot())
		}
	}
	slices.SortFunc(list, func(a, b *pb.Agent) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return list, f.changed
}

// Online returns the agents that a selector means and that can be asked now.
func (f *Fleet) Online(s Selector) []*pb.Agent {
	list, _ := f.List(s)
	return slices.DeleteFunc(list, func(a *pb.Agent) bool { return a.GetState() != pb.AgentState_AGENT_STATE_ONLINE })
}

// Get returns an agent; nil if it is not known.
func (f *Fleet) Get(id string) *pb.Agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.agents[id]; a != nil {
		return a.snapshot()
	}
	return nil
}

// Tick returns a channel that says once, after a while, that silence may have changed an agent.
func (f *Fleet) Tick() <-chan time.Time { return time.After(BeatInterval) }
