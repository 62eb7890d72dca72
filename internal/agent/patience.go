package agent

import (
	"cmp"
	"context"
	"errors"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/results"
)

const (
	// minPause and maxPause bound the pause between two attempts to connect.
	minPause, maxPause = 100 * time.Millisecond, 4 * time.Second
	// firstLate and latePause bound that after an attempt which a coordinator was too slow for.
	firstLate, latePause = time.Second, 30 * time.Second
)

// attempt is how a session ended.
type attempt struct {
	err   error
	stood bool // results could flow
	took  time.Duration
}

// patience is how long an agent waits between attempts: longer each time, until one works.
type patience struct {
	pause time.Duration // the next one; 0 is the shortest
}

// after is the pause after an attempt. Half of it is jitter, so that a fleet does not come at once. There is one after a
// renewal too, where nothing is wrong, should each certificate that comes have ended already.
func (p *patience) after(last attempt) time.Duration {
	pause, longest := cmp.Or(p.pause, minPause), maxPause
	meant := errors.Is(last.err, errRenewed) || errors.Is(last.err, results.ErrGoAway)
	if last.stood && (last.took > maxPause || meant && last.took > time.Second) {
		pause = minPause // it had worked
	}
	switch {
	case refused(last.err):
		longest = refusedPause
	case status.Code(last.err) == codes.DeadlineExceeded, errors.Is(last.err, context.DeadlineExceeded):
		longest, pause = latePause, max(pause, firstLate)
	}
	p.pause = min(pause*8/5, longest)
	return pause/2 + mathrand.N(pause)
}
