package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// leaderPause is the pause before what had no leader is tried again.
	leaderPause = 100 * time.Millisecond
	// tryTimeout bounds one attempt where there are others: a leader that dies takes its answers with it.
	tryTimeout = 2 * time.Second
	// heardTime is how long a server that leads may not have heard of a copy that is there: it asks each every second.
	heardTime = 4 * time.Second
)

// errNotYet says that nobody leads what is asked for, or that it is about to be there.
var errNotYet = errors.New("too few coordinators are there to say, or to write anything")

// Leaderless says whether an error is that too few coordinators are there now, so that nobody leads what was asked for:
// it may be gone in a moment. Nothing was done then, or, after a timeout, nobody knows.
func Leaderless(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, errNotYet), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return true
	case errors.As(err, &api):
		return api.Code == 503 // as jetstream.ErrNoLeader's
	}
	return false
}

// patiently calls what asks the server that leads, again while none does, until ctx ends. Of several servers one may not
// answer at all, so that each attempt is bounded. A server that is alone leads from its start: there it is called once.
func patiently(ctx context.Context, replicas int, ask func(context.Context) error) error {
	if replicas == 1 {
		return ask(ctx)
	}
	for {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := ask(try)
		cancel()
		if err == nil || !Leaderless(err) || ctx.Err() != nil {
			return err
		}
		pause(ctx, leaderPause)
	}
}

func (l *Log) patiently(ctx context.Context, ask func(context.Context) error) error {
	return patiently(ctx, l.replicas, ask)
}
