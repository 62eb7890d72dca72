package coordinator

import "sync"

// heard is which agents registered here since the authorities last changed: who did before and says hello after it does not
// know them.
type heard struct {
	mu      sync.Mutex
	changes uint64            // of the authorities, since the process started
	agents  map[string]uint64 // the changes that an agent was told of, by name: of agents that are enrolled
}

func newHeard() *heard { return &heard{agents: map[string]uint64{}} }

// changed notes a change of the authorities.
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
