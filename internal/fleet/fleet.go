package fleet

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
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
	// sweepInterval is the time between two removals of those that are gone.
	sweepInterval = time.Minute
	// maxAgents bounds the agents that are known.
	maxAgents = 20_000
)

// ErrFull says that no more agents can be known.
var ErrFull = errors.New("too many agents")

// Fleet is the agents that were heard of. It is safe for concurrent use.
type Fleet struct {
	mu      sync.RWMutex
	agents  map[string]*agent
	order   []*agent      // the same, sorted by name: each measurement looks through all
	swept   time.Time     // when those that are gone were last removed
	changed chan struct{} // closed and replaced at every change that a watcher would see
}

// agent is one agent; what is handed out of it is never changed, but replaced.
type agent struct {
	id      string
	known   *pb.Agent
	words   words         // of known
	seen    time.Time     // zero: it was never heard of
	bound   *pb.Enrolment // nil: it is not enrolled
	version int           // counts changes
	trusts  []byte        // the authorities that its last beat told
	// registered says that it has registered since its last beat: it may be another process, and have forgotten.
	registered bool
	// silent is known in the state that it is in since, if that is another.
	silent atomic.Pointer[silent]
}

type silent struct{ of, agent *pb.Agent }

// New returns a fleet without agents.
func New() *Fleet {
	return &Fleet{agents: map[string]*agent{}, changed: make(chan struct{})}
}

// Enrolled takes up what the log says of an agent: where it may say that it stands, and whether it was revoked.
func (f *Fleet) Enrolled(e *pb.Enrolment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.agents[e.GetId()]
	if a == nil {
		a = f.add(e.GetId())
		a.known = &pb.Agent{Id: e.GetId(), State: pb.AgentState_AGENT_STATE_OFFLINE}
	}
	a.bound = e
	known := proto.CloneOf(a.known)
	a.bind(known)
	a.known, a.words = known, wordsOf(known.GetId(), known.GetVantage())
	f.note(a)
}

// add takes up an agent of which nothing is known yet.
func (f *Fleet) add(id string) *agent {
	a := &agent{id: id}
	f.agents[id] = a
	i, _ := slices.BinarySearchFunc(f.order, id, func(a *agent, id string) int { return cmp.Compare(a.id, id) })
	f.order = slices.Insert(f.order, i, a)
	return a
}

// bind has the enrolment decide what it decides, whatever the agent says.
func (a *agent) bind(next *pb.Agent) {
	e := a.bound
	if e == nil {
		return
	}
	v, given := copied(next.GetVantage()), e.GetVantage()
	v.Region, v.Labels = given.GetRegion(), given.GetLabels()
	v.Country = cmp.Or(given.GetCountry(), v.GetCountry())
	v.City = cmp.Or(given.GetCity(), v.GetCity())
	v.Provider = cmp.Or(given.GetProvider(), v.GetProvider())
	v.Asn = cmp.Or(given.GetAsn(), v.GetAsn())
	next.Vantage, next.EnrollTime, next.ExpireTime = v, e.GetEnrollTime(), e.GetExpireTime()
}

// copied is a vantage that may be changed.
func copied(v *pb.Vantage) *pb.Vantage {
	if v == nil {
		return &pb.Vantage{}
	}
	return proto.CloneOf(v)
}

// Room says whether an agent is known, or one more can be.
func (f *Fleet) Room(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.room(id)
}

// room is Room for who has the lock. Those that are gone make room, looked for at most once a minute.
func (f *Fleet) room(id string) bool {
	if now := time.Now(); now.Sub(f.swept) > sweepInterval {
		f.swept = now
		maps.DeleteFunc(f.agents, func(_ string, a *agent) bool { return a.gone(now) })
		f.order = slices.DeleteFunc(f.order, func(a *agent) bool { return a.gone(now) })
	}
	return f.agents[id] != nil || len(f.agents) < maxAgents
}

// Register takes up an agent, with its vantage as the coordinator sees it.
func (f *Fleet) Register(id, version string, v *pb.Vantage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.room(id) {
		return ErrFull
	}
	next := &pb.Agent{Id: id, State: pb.AgentState_AGENT_STATE_OFFLINE}
	if old := f.agents[id]; old != nil && old.state(time.Now()) == pb.AgentState_AGENT_STATE_ONLINE {
		next = proto.CloneOf(old.known) // it beats, and has lost its stream alone
	}
	next.Vantage, next.Version = v, version
	f.set(next, time.Now())
	f.agents[id].registered = true
	return nil
}

// Moved notes that an agent has registered with another coordinator, which sees it at an address. Its next beat is that of
// one that may have forgotten what it was asked.
func (f *Fleet) Moved(id, observed string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.agents[id]
	if a == nil {
		return // its first beat tells
	}
	a.registered = true
	if observed == a.known.GetVantage().GetObservedAddress() {
		return
	}
	known := proto.CloneOf(a.known)
	known.Vantage = copied(known.GetVantage())
	known.Vantage.ObservedAddress = observed
	a.known = known
	f.note(a)
}

// Beat notes that an agent lives and tells whether it was not online before, or has registered since. An agent that has not
// registered here may have done so with another coordinator, or with this one before a restart.
func (f *Fleet) Beat(b *pb.Beat) (joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.beat(&pb.HeardBeat{Beat: b}, true)
}

// Heard notes what another coordinator has heard of an agent, and tells what Beat tells. What was heard here since counts.
func (f *Fleet) Heard(h *pb.HeardBeat) (joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	age := h.GetAge().AsDuration()
	if old := f.agents[h.GetBeat().GetAgent()]; age < 0 || old != nil && time.Since(old.seen) <= age {
		return false
	}
	return f.beat(h, false)
}

// Beats is what is known of the agents that live, for another coordinator.
func (f *Fleet) Beats() []*pb.HeardBeat {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var beats []*pb.HeardBeat
	now := time.Now()
	for _, a := range f.order {
		state := a.state(now)
		if state != pb.AgentState_AGENT_STATE_ONLINE && state != pb.AgentState_AGENT_STATE_DRAINING {
			continue
		}
		beats = append(beats, &pb.HeardBeat{
			Beat: &pb.Beat{
				Agent: a.id, Vantage: a.known.GetVantage(), Version: a.known.GetVersion(), Running: a.known.GetRunning(),
				Capacity: a.known.GetCapacity(), Draining: state == pb.AgentState_AGENT_STATE_DRAINING, Authorities: a.trusts,
			},
			Age: durationpb.New(now.Sub(a.seen)), Registered: a.registered,
		})
	}
	return beats
}

// beat takes up a beat that was heard here, or by another coordinator.
func (f *Fleet) beat(h *pb.HeardBeat, here bool) (joined bool) {
	b := h.GetBeat()
	if !f.room(b.GetAgent()) {
		return false
	}
	old := f.agents[b.GetAgent()]
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
	if old != nil && old.bound != nil {
		if old.bound.GetRevokeTime() != nil {
			return false
		}
		if here {
			next.Vantage = copied(next.GetVantage())
			next.Vantage.ObservedAddress = old.known.GetVantage().GetObservedAddress() // what the agent says of it is no evidence
		}
	}
	joined = old == nil || old.registered || old.state(time.Now()) != pb.AgentState_AGENT_STATE_ONLINE
	f.set(next, time.Now().Add(-h.GetAge().AsDuration()))
	a := f.agents[b.GetAgent()]
	a.registered, a.trusts = h.GetRegistered(), nil
	if len(b.GetAuthorities()) == sha256.Size { // whatever else it may be, it is not kept
		a.trusts = b.GetAuthorities()
	}
	return joined && !b.GetDraining()
}

// set replaces what is known of an agent by what was heard at a time.
func (f *Fleet) set(next *pb.Agent, at time.Time) {
	old := f.agents[next.GetId()]
	if old == nil {
		old = f.add(next.GetId())
	}
	next.LastSeenTime = timestamppb.New(at)
	old.bind(next)
	before := old.known
	old.known, old.seen = next, at
	stands := before != nil && proto.Equal(before.GetVantage(), next.GetVantage())
	if !stands {
		old.words = wordsOf(next.GetId(), next.GetVantage())
	}
	if stands && before.GetState() == next.GetState() && before.GetRunning() == next.GetRunning() {
		return
	}
	f.note(old)
}

// note tells watchers that an agent has changed.
func (f *Fleet) note(a *agent) {
	a.version++
	close(f.changed)
	f.changed = make(chan struct{})
}

// gone says whether an agent is not listed any more now. One that is enrolled is, however long it is silent.
func (a *agent) gone(now time.Time) bool {
	if a.bound != nil && a.bound.GetRevokeTime() == nil {
		return false
	}
	last := a.seen
	if revoked := a.bound.GetRevokeTime(); revoked != nil && revoked.AsTime().After(last) {
		last = revoked.AsTime()
	}
	return now.Sub(last) > forgetAfter
}

// state is the state now, by what was heard and when.
func (a *agent) state(now time.Time) pb.AgentState {
	if a.bound.GetRevokeTime() != nil {
		return pb.AgentState_AGENT_STATE_REVOKED
	}
	if now.Sub(a.seen) > offlineAfter {
		return pb.AgentState_AGENT_STATE_OFFLINE
	}
	return a.known.GetState()
}

// snapshot is the agent in its state now, the same message as long as it is the same.
func (a *agent) snapshot(now time.Time) *pb.Agent {
	state := a.state(now)
	if state == a.known.GetState() {
		return a.known
	}
	if s := a.silent.Load(); s != nil && s.of == a.known && s.agent.GetState() == state {
		return s.agent
	}
	copied := proto.CloneOf(a.known)
	copied.State = state
	a.silent.Store(&silent{a.known, copied})
	return copied
}

// List returns the agents that a selector means, sorted by name, and a channel that is closed when an
// agent changes. They are shared: not to be changed.
func (f *Fleet) List(s Selector) ([]*pb.Agent, <-chan struct{}) {
	return f.list(s, func(a *agent, now time.Time) bool { return !a.gone(now) })
}

// Online returns the agents that a selector means and that can be asked now.
func (f *Fleet) Online(s Selector) []*pb.Agent {
	list, _ := f.list(s, func(a *agent, now time.Time) bool { return a.state(now) == pb.AgentState_AGENT_STATE_ONLINE })
	return list
}

// Deaf lists the agents that can be asked now and whose last beat told other authorities than those of a digest.
func (f *Fleet) Deaf(digest []byte) (names []string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	now := time.Now()
	for _, a := range f.order {
		if a.state(now) == pb.AgentState_AGENT_STATE_ONLINE && !bytes.Equal(a.trusts, digest) {
			names = append(names, a.id)
		}
	}
	return names
}

func (f *Fleet) list(s Selector, want func(*agent, time.Time) bool) ([]*pb.Agent, <-chan struct{}) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var list []*pb.Agent
	now := time.Now()
	for _, a := range f.order {
		if want(a, now) && s.matches(a.words) {
			list = append(list, a.snapshot(now))
		}
	}
	return list, f.changed
}

// Get returns an agent; nil if it is not known.
func (f *Fleet) Get(id string) *pb.Agent {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if a := f.agents[id]; a != nil {
		return a.snapshot(time.Now())
	}
	return nil
}

// Tick returns a channel that says once, after a while, that silence may have changed an agent.
func (f *Fleet) Tick() <-chan time.Time { return time.After(BeatInterval) }
