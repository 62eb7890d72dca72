package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// idleWait is how long the fold waits for a message before it looks whether there is one that does not come.
const idleWait = 2 * time.Second

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
		if errors.Is(err, errInterrupted) && failures < maxInterruptions {
			err = nil
			pause(ctx, interruptionPause)
		}
	}
	return err
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
	messages, err := l.messages(ctx, expected)
	if err != nil {
		return expected, fmt.Errorf("bus: the log: %w: %w", errInterrupted, err)
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for ; ; expected++ {
		message, err := l.read(ctx, messages, expected)
		if err != nil {
			return expected, err
		}
		if err := apply(message); err != nil {
			return expected, err
		}
	}
}

// read waits for the message at a position, which is the next.
func (l *Log) read(ctx context.Context, messages jetstream.MessagesContext, position uint64) (Message, error) {
	message, err := messages.Next(jetstream.NextMaxWait(idleWait))
	for errors.Is(err, nats.ErrTimeout) {
		// JetStream may stop at what it cannot read, without a word.
		if err := l.readable(ctx, position); err != nil {
			return Message{}, err
		}
		message, err = messages.Next(jetstream.NextMaxWait(idleWait))
	}
	if err != nil {
		return Message{}, fmt.Errorf("bus: the log: %w: %w", errInterrupted, err)
	}
	meta, err := message.Metadata()
	if err != nil {
		return Message{}, fmt.Errorf("bus: the log: %w", err)
	}
	if at := meta.Sequence.Stream; at != position {
		return Message{}, fmt.Errorf("bus: %w (after %d comes %d)", ErrHole, position-1, at)
	}
	data, ok := unsealed(message.Data())
	if !ok {
		return Message{}, fmt.Errorf("bus: %w (what stands at %d is not what was written)", ErrHole, position)
	}
	batch := l.committed.take(data)
	if batch == nil {
		batch = &pb.LogBatch{}
		if err := proto.Unmarshal(data, batch); err != nil {
			return Message{}, fmt.Errorf("bus: the log at %d: %w", position, err)
		}
	}
	return Message{position, batch, data}, nil
}

// readable tells whether a message can be read, if the log goes so far. JetStream answers for what its checksums do not
// fit as for what is not there. Who does not answer, because the machine is starved or the process about to stop, says
// nothing about the message: it is asked again.
func (l *Log) readable(ctx context.Context, position uint64) error {
	bounds, err := l.Bounds(ctx)
	if err != nil || position > bounds.Last {
		return nil
	}
	if _, err = l.stream.GetMsg(ctx, position); errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("bus: %w (at %d of %d)", ErrHole, position, bounds.Last)
	}
	return nil
}

func (l *Log) messages(ctx context.Context, from uint64) (jetstream.MessagesContext, error) {
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   from,
	})
	if err != nil {
		return nil, err
	}
	return consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(1000, 2*MaxPayload))
}

// begin is the position that comes after another one, and looks for holes that no message would tell of.
func (l *Log) begin(ctx context.Context, after uint64) (uint64, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("bus: the log: %w", err)
	}
	state := info.State
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
