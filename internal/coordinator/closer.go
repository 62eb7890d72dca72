package coordinator

import (
	"sync"
	"time"
)

// closeRetry is the pause before a close that failed is tried again.
const closeRetry = time.Second

// closer closes measurements in time. Every open measurement is in it, so that every one ends.
type closer struct {
	end func(id string) error

	mu      sync.Mutex
	timers  map[string]*time.Timer
	stopped bool
	wg      sync.WaitGroup
}

// newCloser returns a closer that calls end, again after a failure.
func newCloser(end func(id string) error) *closer {
	return &closer{end: end, timers: map[string]*time.Timer{}}
}

// at closes a measurement at a time, unless it is closed before.
func (c *closer) at(id string, when time.Time) { c.schedule(id, time.Until(when)) }

func (c *closer) schedule(id string, in time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if t := c.timers[id]; t != nil {
		t.Stop()
	}
	c.timers[id] = time.AfterFunc(in, func() { c.fire(id) })
}

func (c *closer) fire(id string) {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return
	}
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()
	if c.end(id) != nil {
		c.schedule(id, closeRetry)
		return
	}
	c.forget(id)
}

// forget drops a measurement that is closed.
func (c *closer) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.timers[id]; t != nil {
		t.Stop()
		delete(c.timers, id)
	}
}

// stop closes nothing any more and waits for what is under way.
func (c *closer) stop() {
	c.mu.Lock()
	c.stopped = true
	for _, t := range c.timers {
		t.Stop()
	}
	c.mu.Unlock()
	c.wg.Wait()
}
