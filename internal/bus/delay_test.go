package bus

import (
	"testing"
	"time"
)

func TestReconnectDelay(t *testing.T) {
	for n := range 100 {
		if d := reconnectDelay(n); d < 50*time.Millisecond || d > 3200*time.Millisecond {
			t.Errorf("attempt %d: %v", n, d)
		}
	}
}
