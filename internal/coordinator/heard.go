package coordinator

import (
	"sync"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// heard is which agents were told of which authorities: one that signs before an agent knows it shuts that agent out.
type heard struct {
	mu      sync.Mutex
	changes uint64            // of the authorities, since the process started
	since   map[string]uint64 // the change that an authority came with, by pin; those from before are not in it
	agents  map[string]uint64 // the changes that an agent was told of, by name: of agents that are enrolled
}

func newHeard() *heard { return &heard{since: map[string]uint64{}, agents: map[string]uint64{}} }

// added notes an authority that whoever is told of the authorities now is told of too.
func (h *heard) added(pin string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.since[pin] = h.changes
}

// changed notes another change of the authorities.
func (h *heard) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
}

// current says whether an agent was told since the last change.
func (h *heard) current(agent string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agents[agent] >= h.changes
}

// now is what an agent will have heard of that is told of the authorities after this.
func (h *heard) now() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changes
}

// told notes what an agent was told.
func (h *heard) told(agent string, changes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.agents[agent] = max(h.agents[agent], changes)
}

// deaf lists those of some agents that were not told of an authority.
func (h *heard) deaf(pin string, agents []*pb.Agent) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range agents {
		if h.agents[a.GetId()] < h.since[pin] {
			names = append(names, a.GetId())
		}
	}
	return names
}
