package bus

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// windowBytes and windowMessages bound what is on its way to a log that is rebuilt.
	windowBytes    = 4 << 20
	windowMessages = 256
)

// Message reads the batch at a position, as bytes.
func (l *Log) Message(ctx context.Context, position uint64) ([]byte, error) {
	m, err := l.stream.GetMsg(ctx, position)
	if err != nil {
		return nil, fmt.Errorf("bus: the log at %d: %w", position, err)
	}
	data, ok := unsealed(m.Data)
	if !ok {
		return nil, fmt.Errorf("bus: %w (what stands at %d is not what was written)", ErrHole, position)
	}
	return data, nil
}

// Rebuilt is a log that is made of the messages of another one, each at the position that it had there. It has one
// user, and nothing else may write into it meanwhile.
type Rebuilt struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	next    uint64
	waiting []jetstream.PubAckFuture
	bytes   int // of what waits
}

// Origin is what a log keeps of the one that it is made of, beside the messages.
type Origin struct {
	// ID is its name.
	ID string
	// First is its first position.
	First uint64
}

// RebuildLog begins a log that has nothing yet and where there is none.
func RebuildLog(ctx context.Context, s Server, of Origin) (*Rebuilt, error) {
	nc, err := connect(s, LogUser)
	if err != nil {
		return nil, err
	}
	r := &Rebuilt{nc: nc, next: of.First}
	config := logConfig(s.Replicas())
	config.FirstSeq = of.First
	config.Metadata = map[string]string{logIDKey: of.ID}
	if r.js, err = jetstream.New(nc); err == nil {
		err = patiently(ctx, s.Replicas(), func(ctx context.Context) error {
			_, err := r.js.CreateStream(ctx, config) // fails where there is a log already
			return err
		})
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: rebuilding the log: %w", err)
	}
	return r, nil
}

// Append adds a batch. It may return before the message is there: Finish waits for all.
func (r *Rebuilt) Append(ctx context.Context, data []byte) error {
	if len(r.waiting) == windowMessages || r.bytes+len(data) > windowBytes {
		if err := r.wait(ctx); err != nil {
			return err
		}
	}
	future, err := r.js.PublishAsync(logSubject, sealed(slices.Clip(data)))
	if err != nil {
		return fmt.Errorf("bus: rebuilding the log: %w", err)
	}
	r.waiting = append(r.waiting, future)
	r.bytes += len(data)
	return nil
}

// wait waits until what was appended is there, each where it has to be.
func (r *Rebuilt) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for _, f := range r.waiting {
		select {
		case ack := <-f.Ok():
			if ack.Sequence != r.next {
				return fmt.Errorf("bus: rebuilding the log: a message came to %d instead of %d", ack.Sequence, r.next)
			}
			r.next++
		case err := <-f.Err():
			return fmt.Errorf("bus: rebuilding the log at %d: %w", r.next, err)
		case <-ctx.Done():
			// JetStream does not say why it does not answer.
			return fmt.Errorf("bus: rebuilding the log at %d: nothing is written any more; the disk may be full, or failing: %w", r.next, ctx.Err())
		}
	}
	r.waiting, r.bytes = r.waiting[:0], 0
	return nil
}

// Finish waits until all of it is there.
func (r *Rebuilt) Finish(ctx context.Context) error { return r.wait(ctx) }

// Close closes the connection.
func (r *Rebuilt) Close() { r.nc.Close() }
