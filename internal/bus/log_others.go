package bus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// movedSubject is where a coordinator tells the others how far the log goes, and quietSubject where one asks them to
	// leave the log as it is for a moment. They are hints: what they say is looked at.
	movedSubject, quietSubject = logSubject + ".moved", logSubject + ".quiet"
	// quietTime is how long that is at most, and hushPause how long they have to hear it.
	quietTime, hushPause = 500 * time.Millisecond, 5 * time.Millisecond
)

// hushed is until when this coordinator leaves the log as it is, and for whom.
type hushed struct {
	mu    sync.Mutex
	who   string
	until time.Time
	own   string // what this one is called when it asks for it
}

// listen hears from other coordinators how far the log goes, and when to be quiet.
func (l *Log) listen() error {
	if l.replicas == 1 {
		return nil
	}
	l.hushed.own = l.nc.NewInbox() // its own for sure
	_, err := l.nc.Subscribe(movedSubject, func(m *nats.Msg) {
		if position, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			l.learn(position)
		}
		l.hushed.hear(m.Reply, false)
	})
	if err == nil {
		_, err = l.nc.Subscribe(quietSubject, func(m *nats.Msg) { l.hushed.hear(m.Reply, true) })
	}
	return err
}

// tell tells the other coordinators how far the log goes.
func (l *Log) tell(position uint64) {
	if l.replicas > 1 {
		// They look by themselves, a little later.
		_ = l.nc.PublishRequest(movedSubject, l.hushed.own, strconv.AppendUint(nil, position, 10))
	}
}

// hush asks the other coordinators to leave the log as it is until this one has told how far it goes.
func (l *Log) hush(ctx context.Context) {
	if l.replicas > 1 && l.nc.PublishRequest(quietSubject, l.hushed.own, nil) == nil {
		pause(ctx, hushPause)
	}
}

// hear takes up that somebody asks for quiet, or needs it no more.
func (h *hushed) hear(who string, quiet bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case quiet && who != h.own:
		h.who, h.until = who, time.Now().Add(quietTime)
	case !quiet && who == h.who:
		h.until = time.Time{}
	}
}

// left is how long it is still to be quiet.
func (h *hushed) left() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.until)
}

// awaitQuiet waits while another coordinator wants the log to stay as it is. Who asks for that himself does not wait: of
// two, one is quicker.
func (l *Log) awaitQuiet(ctx context.Context, next appendRequest) {
	for next.make == nil && l.replicas > 1 && ctx.Err() == nil && l.hushed.left() > 0 {
		pause(ctx, hushPause)
	}
}
