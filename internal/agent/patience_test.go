package agent

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/results"
)

func TestPatience(t *testing.T) {
	gone := attempt{err: status.Error(codes.Unavailable, "connection refused")}
	late := attempt{err: fmt.Errorf("registering: %w", status.Error(codes.DeadlineExceeded, "too late")), took: registerTimeout}
	times := func(n int, a attempt) (list []attempt) {
		for range n {
			list = append(list, a)
		}
		return list
	}
	for _, c := range []struct {
		sentence string
		before   []attempt
		last     attempt
		pause    time.Duration // without its jitter
	}{
		{"a coordinator that is not there is asked again soon", nil, gone, minPause},
		{"and no more than every few seconds for hours", times(1000, gone), gone, maxPause},
		{"one that was too slow has a second at least", nil, late, firstLate},
		{"and much longer when it goes on", times(20, late), late, latePause},
		{"of one that closes what it let wait before it registered, the pause grows", times(20, gone), attempt{err: gone.err, took: time.Minute}, maxPause},
		{"the bus may be what was too slow", nil, attempt{err: fmt.Errorf("bus: %w", context.DeadlineExceeded)}, firstLate},
		{"a session that stood is begun again at once", times(20, late), attempt{err: gone.err, stood: true, took: time.Minute}, minPause},
		{"one that did not stand for long is not", times(20, gone), attempt{err: gone.err, stood: true, took: time.Second}, maxPause},
		{"one that the coordinator ended is", times(20, gone), attempt{err: results.ErrGoAway, stood: true, took: 2 * time.Second}, minPause},
		{"one that a new certificate ended is", times(20, gone), attempt{err: errRenewed, stood: true, took: 2 * time.Second}, minPause},
		{"certificates that end at once are not asked for all the time", times(1000, attempt{err: errRenewed}), attempt{err: errRenewed}, maxPause},
		{"who is refused waits for a person", times(1000, attempt{err: status.Error(codes.PermissionDenied, "revoked")}), attempt{err: status.Error(codes.PermissionDenied, "revoked")}, refusedPause},
	} {
		for range 20 {
			var p patience
			for _, a := range c.before {
				p.after(a)
			}
			if got := p.after(c.last); got < c.pause/2 || got >= c.pause*3/2 {
				t.Errorf("%s: %v", c.sentence, got)
			}
		}
	}
}
