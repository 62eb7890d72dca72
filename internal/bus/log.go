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
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
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
	// duplicates is the server's window of duplicates, as short as it goes: the fold de-duplicates, and the
	// server's window is no safeguard.
	duplicates = time.Second
	// retryInterval is the pause before a log whose last commit failed is tried again.
	retryInterval = time.Second
	// followRoom is what is kept free for what follows from a commit, in bytes.
	followRoom = 4 << 10
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
	id     string
	queue  chan appendRequest
	// committed is what the fold need not parse.
	committed committed
	last      atomic.Uint64 // position of the last commit of this process
	failed    int           // commits in a row that were not answered

	replicas int           // how many servers it is on
	news     chan struct{} // has one when the log may have grown beyond what the fold has read
	end      atomic.Uint64 // how far it is known to go
	hushed   hushed

	limit   int64 // beyond it only what ends things is taken
	bytes   atomic.Int64
	full    chan struct{} // has one when it is time to forget
	healthy atomic.Bool
}

// Follow says what else happens by a batch that is about to be committed, to go into the same commit.
// after is the position of the commit before, 0 if there was none.
type Follow func(after uint64, batch *pb.LogBatch) []*pb.LogEntry

// Make makes entries of what the log amounts to at its end, at position after. Nothing is committed meanwhile.
type Make func(ctx context.Context, after uint64) ([]*pb.LogEntry, error)

type appendRequest struct {
	entries []*pb.LogEntry
	data    []byte // the entries, as a LogBatch
	make    Make   // in place of entries
	done    chan<- appended
}

type appended struct {
	position uint64
	err      error
}

// ErrFull says that the log has reached its limit: nothing is opened and no result taken until
// something was forgotten.
var ErrFull = errors.New("the log is full until old measurements are forgotten")

// Full has one when the log is nearly full: it is time to forget.
func (l *Log) Full() <-chan struct{} { return l.full }

// ID is the log's name, made with it.
func (l *Log) ID() string { return l.id }

// End is how far the log is known to go.
func (l *Log) End() uint64 { return l.end.Load() }

// Last is the position of the last commit of this process, 0 if there was none.
func (l *Log) Last() uint64 { return l.last.Load() }

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
	data, err := proto.Marshal(&pb.LogBatch{Entries: entries})
	if err != nil {
		return 0, fmt.Errorf("bus: %w", err)
	}
	return l.AppendEncoded(ctx, entries, data)
}

// AppendEncoded is Append of entries that are encoded already: data is a LogBatch of them. Neither they nor data may
// be changed any more.
func (l *Log) AppendEncoded(ctx context.Context, entries []*pb.LogEntry, data []byte) (uint64, error) {
	if len(data) > MaxPayload-1024 {
		return 0, fmt.Errorf("%w: %d bytes; at most %d", ErrTooLarge, len(data), MaxPayload-1024)
	}
	if grows(entries) && l.bytes.Load() >= l.limit {
		return 0, ErrFull
	}
	return l.wait(ctx, appendRequest{entries: entries, data: data})
}

// AppendMade adds the entries that make makes, none if it returns none: nothing comes between what it sees and what it
// adds. It holds up all other commits, so it must be quick; it has 10 s.
func (l *Log) AppendMade(ctx context.Context, make Make) (uint64, error) {
	return l.wait(ctx, appendRequest{make: make})
}

// wait hands a request to Run and waits until it is done.
func (l *Log) wait(ctx context.Context, r appendRequest) (uint64, error) {
	done := make(chan appended, 1)
	r.done = done
	select {
	case l.queue <- r:
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
		first, err := l.next(ctx, next)
		if err != nil {
			return nil
		}
		l.awaitQuiet(ctx, first)
		var batch []appendRequest
		batch, next = l.gather(first)
		position, err := l.commit(ctx, batch, follow)
		for _, r := range batch {
			r.done <- appended{position, err}
		}
		if !errors.Is(err, errNotMade) {
			l.healthy.Store(err == nil)
		}
		if l.replicas > 1 || !errors.Is(err, context.DeadlineExceeded) {
			l.failed = 0 // done, or refused: JetStream answers. Of several servers, others may be what is missing
		} else if l.failed++; l.failed == maxFailures {
			return fmt.Errorf("%d commits in a row were not answered: %w", maxFailures, err)
		}
	}
}

// next is the request that comes next; left is one that did not fit the batch before. After a commit that failed, an
// empty one is tried from time to time: nothing else may come that would tell when it is well again.
func (l *Log) next(ctx context.Context, left appendRequest) (appendRequest, error) {
	if left.done != nil {
		return left, nil
	}
	var again <-chan time.Time
	if !l.healthy.Load() {
		again = time.After(retryInterval)
	}
	select {
	case r := <-l.queue:
		return r, nil
	case <-again:
		return appendRequest{done: make(chan appended, 1)}, nil
	case <-ctx.Done():
		return appendRequest{}, ctx.Err()
	}
}

// gather adds what waits in the queue, as long as it fits; what does not is the next commit's first. What is made is
// alone.
func (l *Log) gather(first appendRequest) (batch []appendRequest, next appendRequest) {
	size := len(first.data)
	batch = []appendRequest{first}
	for first.make == nil {
		select {
		case r := <-l.queue:
			if size += len(r.data); size > maxBatch || r.make != nil {
				return batch, r
			}
			batch = append(batch, r)
		default:
			return batch, appendRequest{}
		}
	}
	return batch, appendRequest{}
}

// errNotMade says that there was nothing to commit.
var errNotMade = errors.New("bus: nothing was made")

func (l *Log) commit(ctx context.Context, batch []appendRequest, follow Follow) (uint64, error) {
	// A commit that has begun is brought to its end, also when the process is about to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if batch[0].make != nil {
		return l.commitMade(ctx, batch[0].make)
	}
	entries, data := joined(batch)
	if follow != nil {
		more := follow(l.last.Load(), &pb.LogBatch{Entries: entries})
		var err error
		if data, err = (proto.MarshalOptions{}).MarshalAppend(data, &pb.LogBatch{Entries: more}); err != nil {
			return 0, fmt.Errorf("bus: %w", err)
		}
		entries = append(entries, more...)
	}
	l.committed.put(data, entries)
	return l.publish(ctx, data)
}

// joined is a batch as one: LogBatches as bytes, one after the other, are a LogBatch of all their entries.
func joined(batch []appendRequest) (entries []*pb.LogEntry, data []byte) {
	if len(batch) == 1 {
		return slices.Clip(batch[0].entries), slices.Clip(batch[0].data)
	}
	size := 0
	for _, r := range batch {
		size += len(r.data)
	}
	data = make([]byte, 0, size+followRoom)
	for _, r := range batch {
		entries, data = append(entries, r.entries...), append(data, r.data...)
	}
	return entries, data
}

// maxQuiet is how often what is made of the log's end is made again because somebody else was quicker.
const maxQuiet = 50

// commitMade commits what is made of the log's end, if the log still ends there. Other coordinators are asked to be quiet
// meanwhile; where one has not heard it, all is made again.
func (l *Log) commitMade(ctx context.Context, make Make) (position uint64, err error) {
	for range maxQuiet {
		l.hush(ctx)
		bounds, err := l.Bounds(ctx)
		if err != nil {
			return 0, err
		}
		position, err = l.commitAfter(ctx, bounds.Last, make)
		if !errors.Is(err, errOvertaken) {
			return position, err
		}
	}
	return 0, err
}

// errOvertaken says that the log has gone on meanwhile.
var errOvertaken = errors.New("bus: somebody else was quicker")

// commitAfter commits what is made of the log at its end, if it still ends there.
func (l *Log) commitAfter(ctx context.Context, last uint64, make Make) (uint64, error) {
	entries, err := make(ctx, last)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNotMade, err)
	}
	if len(entries) == 0 {
		return last, nil
	}
	data, err := proto.Marshal(&pb.LogBatch{Entries: entries})
	if err != nil {
		return 0, fmt.Errorf("bus: %w", err)
	}
	if len(data) > MaxPayload-1024 {
		return 0, fmt.Errorf("%w: %w: %d bytes; at most %d", errNotMade, ErrTooLarge, len(data), MaxPayload-1024)
	}
	position, err := l.publish(ctx, data, jetstream.WithExpectLastSequence(last))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence && l.replicas > 1 {
		return 0, errOvertaken
	}
	return position, err
}

func (l *Log) publish(ctx context.Context, data []byte, opts ...jetstream.PublishOpt) (uint64, error) {
	chaos.Point("log.publishing")
	ack, err := l.deliver(ctx, sealed(data), opts)
	if err != nil {
		return 0, fmt.Errorf("bus: the log: %w", err)
	}
	chaos.Point("log.published")
	l.last.Store(ack.Sequence)
	l.learn(ack.Sequence)
	l.tell(ack.Sequence)
	if l.bytes.Add(int64(len(data)+messageOverhead)) > l.limit-l.limit/20 {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	return ack.Sequence, nil
}

// deliver publishes a message. Where several servers hold the log it does so again while none of them leads, or when the
// one that does has not answered: the servers know a message that they have by its name, for a while, and the fold
// counts what is there twice once.
func (l *Log) deliver(ctx context.Context, message []byte, opts []jetstream.PublishOpt) (ack *jetstream.PubAck, err error) {
	if l.replicas == 1 {
		return l.js.Publish(ctx, logSubject, message, opts...)
	}
	opts = append(opts, jetstream.WithMsgID(nuid.Next()), jetstream.WithRetryAttempts(0))
	err = l.patiently(ctx, func(ctx context.Context) (err error) {
		ack, err = l.js.Publish(ctx, logSubject, message, opts...)
		return err
	})
	return ack, err
}

// Bounds are the first and last positions of the log and its size in bytes. A log without messages
// has a first position that is one beyond the last.
type Bounds struct {
	First, Last, Bytes uint64
}

// Bounds tells how far the log goes. Where several servers hold it, it waits until one of them leads.
func (l *Log) Bounds(ctx context.Context) (Bounds, error) {
	var info *jetstream.StreamInfo
	err := l.patiently(ctx, func(ctx context.Context) (err error) {
		info, err = l.info(ctx)
		return err
	})
	if err != nil {
		return Bounds{}, fmt.Errorf("bus: the log: %w", err)
	}
	l.bytes.Store(int64(info.State.Bytes)) // others write too
	l.learn(info.State.LastSeq)
	return Bounds{info.State.FirstSeq, info.State.LastSeq, info.State.Bytes}, nil
}

// info is what the server that leads knows of the log. Where none does, one that holds a copy may answer, and knows no
// more than that.
func (l *Log) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	info, err := l.stream.Info(ctx)
	if err == nil && l.replicas > 1 && !leads(info.Cluster, l.replicas) {
		return nil, errNotYet
	}
	return info, err
}

// leads tells whether somebody leads a stream, and has just heard of a majority of its copies. JetStream's leader that is
// alone goes on calling itself one for 10 to 20 s, while others may have chosen another.
func leads(c *jetstream.ClusterInfo, copies int) bool {
	if c == nil || c.Leader == "" {
		return false
	}
	there := 1
	for _, p := range c.Replicas {
		if p.Active > 0 && p.Active < heardTime { // 0: never
			there++
		}
	}
	return there > copies/2
}

// Purge removes what stands at a position or before it.
func (l *Log) Purge(ctx context.Context, upTo uint64) error {
	err := l.patiently(ctx, func(ctx context.Context) error {
		return l.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
	})
	if err != nil {
		return fmt.Errorf("bus: the log: %w", err)
	}
	_, err = l.Bounds(ctx) // notes its size
	return err
}

// Close closes the log's connection.
func (l *Log) Close() { l.nc.Close() }
