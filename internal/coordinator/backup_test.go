package coordinator

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRetentionWaitsForABackup: as long as it gets on, and no longer.
func TestRetentionWaitsForABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hold
		cuts := 0
		cut := func(want int, what string) {
			t.Helper()
			if err := h.cut(func() error { cuts++; return nil }); err != nil || cuts != want {
				t.Errorf("%s: cut %d times, %v; want %d", what, cuts, err, want)
			}
		}
		cut(1, "nobody reads")
		h.begin()
		cut(1, "somebody reads")
		for range 10 {
			time.Sleep(holdTime / 2)
			h.extend()
		}
		cut(1, "it gets on")
		time.Sleep(holdTime)
		cut(2, "it stands still")
		h.begin()
		h.release()
		cut(3, "it is done")

		_ = h.cut(func() error {
			if h.cutting.TryLock() {
				t.Error("a backup may begin while the log is cut")
			}
			return nil
		})
	})
}
