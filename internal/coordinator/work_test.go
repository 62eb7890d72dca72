package coordinator

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestWorkStops while some still start something: what was started has ended, and nothing starts after that.
func TestWorkStops(t *testing.T) {
	var w work
	var started, ended atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for w.Go(func() { ended.Add(1) }) {
				started.Add(1)
			}
		})
	}
	w.stop()
	at := ended.Load()
	wg.Wait()
	if started.Load() != at || ended.Load() != at {
		t.Errorf("%d started, %d ended, %d of them when it had stopped", started.Load(), ended.Load(), at)
	}
}
