package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	logSubject = "log"
	logName    = "LOG"
	// maxBatch bounds one message of the log, in bytes.
	maxBatch = 512 << 10
	// commitTimeout bounds one commit. A commit that is not confirmed may still be in the log:
	// the fold counts everything once.
	commitTimeout = 10 * time.Second
	// maxFailures is the number of commits in a row that may go unanswered: a JetStream whose disk was
	// full does not come back by itself, a process that is started again does.
	maxFailures = 3
	// messageOverhead is what a message takes on disk beside its data, about, in bytes.
	messageOverhead = 40
)

// ErrTooLarge says that entries do not fit a message of the log.
var ErrTooLarge = errors.New("bus: the entries are too large")

// Log is the one truth: everything that happened, in order. It is safe for concurrent use.
type Log struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	queue  chan appendRequest
	last   uint64 // position of the last commit of this process
	failed int    // commits in a row that were not answered

	limit   int64 // beyond it only what ends things is taken
	bytes   atomic.Int64
	full    chan struct{} // has one when it is time to forget
	healthy atomic.Bool
}

// Follow says what else happens by a batch that is about to be committed, to go into the same commit.
// after is the position of the commit before, 0 if there was none.
type Follow func(after uint64, batch *pb.LogBatch) []*pb.LogEntry

type appendRequest struct {
	entries []*pb.LogEntry
	size    int
	done    chan<- appended
}

type appended struct {
	position uint64
	err      error
}

// OpenLog opens the log, or makes it. Beyond maxBytes it takes no results and opens nothing; a tenth
// more is there for what declines, closes and forgets.
func OpenLog(ctx context.Context, s Server, maxBytes int64) (*Log, error) {
	nc, err := connect(s, LogUser)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	present, err := presentBytes(ctx, js)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: the log: %w", err)
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:       logName,
		Subjects:   []string{logSubject},
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardNew,                 // never lose what was acknowledged
		MaxBytes:   max(maxBytes, present) + maxBytes/10, // the limit may have been lowered
		MaxMsgSize: MaxPayload,
		Replicas:   1,
		Duplicates: time.Second, // the fold de-duplicates; the server's window is no safeguard
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: the log: %w", err)
	}
	l := &Log{
		nc: nc, js: js, stream: stream, queue: make(chan appendRequest, 256),
		limit: maxBytes, full: make(chan struct{}, 1),
	}
	l.bytes.Store(present)
	l.healthy.Store(true)
	return l, nil
}

// presentBytes is the size of the log, 0 if there is none yet.
func presentBytes(ctx context.Context, js jetstream.JetStream) (int64, error) {
	stream, err := js.Stream(ctx, logName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return int64(stream.CachedInfo().State.Bytes), nil
}

// ErrFull says that the log has reached its limit: nothing is opened and no result taken until
// something was forgotten.
var ErrFull = errors.New("the log is full until old measurements are forgotten")

// Full has one when the log is nearly full: it is time to forget.
func (l *Log) Full() <-chan struct{} { return l.full }

// Healthy tells whether the last commit was confirmed.
func (l *Log) Healthy() bool { return l.healthy.Load() }

// grows tells whether entries bring more than they end.
func grows(entries []*pb.LogEntry) bool {
	return slices.ContainsFunc(entries, func(e *pb.LogEntry) bool {
		return e.GetOpened() != nil || e.GetResult() != nil
	})
}

// Append adds entries and returns the position of the message that holds them, when it is durable.
// After an error they may be there or not.
func (l *Log) Append(ctx context.Context, entries ...*pb.LogEntry) (uint64, error) {
	size := 0
	for _, e := range entries {
		size += proto.Size(e) + 4
	}
	if size > MaxPayload-1024 {
		return 0, fmt.Errorf("%w: %d bytes; at most %d", ErrTooLarge, size, MaxPayload-1024)
	}
	if grows(entries) && l.bytes.Load() >= l.limit {
		return 0, ErrFull
	}
	done := make(chan appended, 1)
	select {
	case l.queue <- appendRequest{entries, size, done}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case a := <-done:
		return a.position, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Run commits what is appended until ctx ends: one commit is in flight, the next takes what has
// gathered meanwhile, and what follows from it; a nil follow adds nothing.
func (l *Log) Run(ctx context.Context, follow Follow) error {
	var next appendRequest
	for {
		batch := []appendRequest{next}
		if next.done == nil {
			select {
			case batch[0] = <-l.queue:
			case <-ctx.Done():
				return nil
			}
		}
		batch, next = l.gather(batch)
		position, err := l.commit(ctx, batch, follow)
		for _, r := range batch {
			r.done <- appended{position, err}
		}
		l.healthy.Store(err == nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			l.failed = 0 // done, or refused: JetStream answers
		} else if l.failed++; l.failed == maxFailures {
			return fmt.Errorf("%d commits in a row were not answered: %w", maxFailures, err)
		}
	}
}

// gather adds what waits in the queue, as long as it fits; what does not is the next commit's first.
func (l *Log) gather(batch []appendRequest) (fits []appendRequest, next appendRequest) {
	size := batch[0].size
	for {
		select {
		case r := <-l.queue:
			if size += r.size; size > maxBatch {
				return batch, r
			}
			batch = append(batch, r)
		default:
			return batch, appendRequest{}
		}
	}
}

func (l *Log) commit(ctx context.Context, batch []appendRequest, follow Follow) (uint64, error) {
	var message pb.LogBatch
	for _, r := range batch {
		message.Entries = append(message.Entries, r.entries...)
	}
	if follow != nil {
		message.Entries = append(message.Entries, follow(l.last, &message)...)
	}
	data, err := proto.Marshal(&message)
	if err != nil {
		return 0, fmt.Errorf("bus: %w", err)
	}
	// A commit that has begun is brought to its end, also when the process is about to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	ack, err := l.js.Publish(ctx, logSubject, data)
	if err != nil {
		return 0, fmt.Errorf("bus: the log: %w", err)
	}
	l.last = ack.Sequence
	if l.bytes.Add(int64(len(data)+messageOverhead)) > l.limit-l.limit/20 {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	return ack.Sequence, nil
}

// Fold calls apply for every message after a position, in order, until ctx ends or apply fails.
func (l *Log) Fold(ctx context.Context, after uint64, apply func(position uint64, batch *pb.LogBatch) error) error {
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   after + 1,
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bus: the log: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(1000, 2*MaxPayload))
	if err != nil {
		return fmt.Errorf("bus: the log: %w", err)
	}
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		message, err := messages.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bus: the log: %w", err)
		}
		meta, err := message.Metadata()
		if err != nil {
			return fmt.Errorf("bus: the log: %w", err)
		}
		var batch pb.LogBatch
		if err := proto.Unmarshal(message.Data(), &batch); err != nil {
			return fmt.Errorf("bus: the log at %d: %w", meta.Sequence.Stream, err)
		}
		if err := apply(meta.Sequence.Stream, &batch); err != nil {
			return err
		}
	}
}

// Bounds are the first and last positions of the log and its size in bytes. A log without messages
// has a first position that is one beyond the last.
type Bounds struct {
	First, Last, Bytes uint64
}

// Bounds tells how far the log goes.
func (l *Log) Bounds(ctx context.Context) (Bounds, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return Bounds{}, fmt.Errorf("bus: the log: %w", err)
	}
	return Bounds{info.State.FirstSeq, info.State.LastSeq, info.State.Bytes}, nil
}

// Purge removes what stands at a position or before it.
func (l *Log) Purge(ctx context.Context, upTo uint64) error {
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("bus: the log: %w", err)
	}
	bounds, err := l.Bounds(ctx)
	if err == nil {
		l.bytes.Store(int64(bounds.Bytes))
	}
	return err
}

// Close closes the log's connection.
func (l *Log) Close() { l.nc.Close() }
