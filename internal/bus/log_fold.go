package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// idleWait is how long the fold waits for a message before it looks whether there is one that does not come.
	idleWait = 2 * time.Second
	// behindPause is the pause before a copy that is behind is read again.
	behindPause = 2 * time.Millisecond
)

// ErrHole says that something of the log cannot be read, which was there: JetStream leaves out what its checksums do
// not fit, and what its files do not have any more.
var ErrHole = errors.New("the log has a hole: its files are damaged, and something acknowledged is gone; restore a backup")

// Message is one message of the log.
type Message struct {
	// Position is where it stands.
	Position uint64
	// Batch is what it says. It may be shared with who committed it: not to be changed.
	Batch *pb.LogBatch
	// Data is the same as bytes, without the seal.
	Data []byte
}

// errInterrupted says that reading broke off for a reason that says nothing about the log: JetStream did not answer in
// time, as on a machine that is starved.
var errInterrupted = errors.New("reading was interrupted")

// maxInterruptions is how often in a row reading is begun again where it broke off, after a pause each time.
const maxInterruptions, interruptionPause = 30, 2 * time.Second

// Fold calls apply for every message after a position, in order and without a hole, until ctx ends or apply fails.
// After 0 it begins where the log does. Where JetStream does not answer for a while, it goes on afterwards.
func (l *Log) Fold(ctx context.Context, after uint64, apply func(Message) error) error {
	expected, err := l.begin(ctx, after)
	if ctx.Err() != nil {
		return nil
	}
	for failures := 0; err == nil; {
		from := expected
		expected, err = l.foldFrom(ctx, from, apply)
		if failures++; expected > from {
			failures = 0
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errInterrupted) && (failures < maxInterruptions || l.replicas > 1) {
			err = nil
			pause(ctx, l.interruptionPause())
		}
	}
	return err
}

// interruptionPause is the pause before reading is begun again. Of several servers another one may answer.
func (l *Log) interruptionPause() time.Duration {
	if l.replicas > 1 {
		return leaderPause
	}
	return interruptionPause
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// foldFrom folds from a position on, until something ends it. It returns the position that comes next.
func (l *Log) foldFrom(ctx context.Context, expected uint64, apply func(Message) error) (next uint64, err error) {
	r, err := l.newReader()
	if err != nil {
		return expected, err
	}
	defer r.close()
	for ctx.Err() == nil {
		from := expected
		err := r.read(ctx, from, func(at uint64, data []byte) error {
			message, err := l.message(expected, at, data)
			if err == nil {
				err = apply(message)
			}
			if err == nil {
				expected++
			}
			return err
		})
		if err != nil {
			return expected, err
		}
		if expected > from {
			continue
		}
		if err := l.grown(ctx, expected); err != nil {
			return expected, err
		}
	}
	return expected, nil
}

// message is what was read at a position, where another one was expected.
func (l *Log) message(expected, at uint64, sealed []byte) (Message, error) {
	if at != expected {
		return Message{}, fmt.Errorf("bus: %w (after %d comes %d)", ErrHole, expected-1, at)
	}
	data, ok := unsealed(sealed)
	if !ok {
		return Message{}, fmt.Errorf("bus: %w (what stands at %d is not what was written)", ErrHole, at)
	}
	batch := l.committed.take(data)
	if batch == nil {
		batch = &pb.LogBatch{}
		if err := proto.Unmarshal(data, batch); err != nil {
			return Message{}, fmt.Errorf("bus: the log at %d: %w", at, err)
		}
	}
	return Message{at, batch, data}, nil
}

// grown waits until the log may go as far as a position. From time to time it looks: JetStream stops at what it cannot
// read, without a word.
func (l *Log) grown(ctx context.Context, position uint64) error {
	idle := time.NewTimer(idleWait)
	defer idle.Stop()
	for l.end.Load() < position {
		select {
		case <-l.news:
		case <-idle.C:
			return l.readable(ctx, position)
		case <-ctx.Done():
			return nil
		}
	}
	if l.replicas == 1 {
		return l.readable(ctx, position)
	}
	// It is there, and this server's copy does not have it yet.
	pause(ctx, behindPause)
	return nil
}

// learn notes how far the log goes.
func (l *Log) learn(position uint64) {
	for {
		known := l.end.Load()
		if position <= known {
			return
		}
		if l.end.CompareAndSwap(known, position) {
			break
		}
	}
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// readable tells whether a message can be read, if the log goes so far. JetStream answers for what its checksums do not
// fit as for what is not there. Who does not answer, because the machine is starved or the process about to stop, says
// nothing about the message: it is asked again. Of several servers the one that leads is asked: others may be behind.
func (l *Log) readable(ctx context.Context, position uint64) error {
	bounds, err := l.Bounds(ctx)
	if err != nil || position > bounds.Last {
		return nil
	}
	if err = l.leaderHas(ctx, position); errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("bus: %w (at %d of %d)", ErrHole, position, bounds.Last)
	}
	return nil
}

// begin is the position that comes after another one, and looks for holes that no message would tell of.
func (l *Log) begin(ctx context.Context, after uint64) (uint64, error) {
	var state jetstream.StreamState
	err := l.patiently(ctx, func(ctx context.Context) error {
		info, err := l.info(ctx)
		if err == nil {
			state = info.State
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("bus: the log: %w", err)
	}
	if state.NumDeleted > 0 {
		return 0, fmt.Errorf("bus: %w (%d messages of it)", ErrHole, state.NumDeleted)
	}
	if state.NumSubjects > 1 {
		return 0, fmt.Errorf("bus: %w (its messages have %d subjects, and were written with one)", ErrHole, state.NumSubjects)
	}
	empty := state.LastSeq+1 == state.FirstSeq || state.LastSeq == 0
	if !empty {
		// A file that ends too early is not among the deleted.
		if err := l.readable(ctx, state.LastSeq); err != nil {
			return 0, err
		}
	}
	switch {
	case after > 0 && state.FirstSeq > after+1:
		return 0, fmt.Errorf("bus: %w (after %d comes %d)", ErrHole, after, state.FirstSeq)
	case after == 0 && !empty:
		return state.FirstSeq, nil
	case after == 0:
		return state.LastSeq + 1, nil
	default:
		return after + 1, nil
	}
}
