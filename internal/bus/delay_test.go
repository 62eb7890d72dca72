package bus

import (
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	for _, c := range []struct {
		what       string
		attempts   int
		late       int32
		low, below time.Duration
	}{
		{"the first attempt", 0, 0, 50 * time.Millisecond, 100 * time.Millisecond},
		{"the third", 2, 0, 200 * time.Millisecond, 400 * time.Millisecond},
		{"the hundredth, of a server that is not there", 100, 0, 1600 * time.Millisecond, 3200 * time.Millisecond},
		{"after a server was too slow once", 1, 1, time.Second, 2 * time.Second},
		{"after it was ten times", 10, 10, 16 * time.Second, 32 * time.Second},
		{"for a day", 1 << 20, 1 << 20, 16 * time.Second, 32 * time.Second},
	} {
		d := &dialer{}
		d.late.Store(c.late)
		for range 100 {
			if got := d.delay(c.attempts); got < c.low || got > c.below {
				t.Errorf("%s: %v", c.what, got)
			}
		}
	}
}
