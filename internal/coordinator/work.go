package coordinator

import "sync"

// work is what runs beside the servers and the fold. Those may still start something while it is waited for,
// which a sync.WaitGroup alone does not bear.
type work struct {
	mu      sync.Mutex
	stopped bool
	running sync.WaitGroup
}

// Go runs f and says so, unless the work has stopped.
func (w *work) Go(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.running.Go(f)
	}
	return !w.stopped
}

// stop waits for what runs. Nothing is started from then on: agents are asked again after a restart.
func (w *work) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.running.Wait()
}
