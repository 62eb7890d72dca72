package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxValue bounds one value of a bucket, in bytes.
	maxValue = 64 << 10
	// maxBucket bounds a bucket, in bytes.
	maxBucket = 256 << 20
	// bucketTimeout bounds one call.
	bucketTimeout = 10 * time.Second
	// markerTTL is how long a deleted key leaves a mark for those who watch.
	markerTTL = time.Hour
)

// What a write was decided by. Only these say that nothing was written; after any other error it may have been.
var (
	// ErrExists says that the key is there already.
	ErrExists = errors.New("bus: the key exists")
	// ErrChanged says that the key is not at that revision any more.
	ErrChanged = errors.New("bus: the key was changed by somebody else")
	// ErrNoKey says that there is no such key.
	ErrNoKey = errors.New("bus: no such key")
)

// Bucket is what must be decided once: values by key, in the log's account, each change of which compares the
// revision first. A write that was confirmed is durable. What is read is a hint; the write decides. It is safe for
// concurrent use.
type Bucket struct {
	nc       *nats.Conn
	kv       jetstream.KeyValue
	replicas int // how many servers it is on
}

// Value is a key as it was when it was read.
type Value struct {
	Key  string
	Data []byte
	// Revision is what a change of the key has to name.
	Revision uint64
	// Deleted says that the key is gone. Only Watch tells of such ones.
	Deleted bool
}

// OpenBucket opens a bucket, or makes it. Names are of letters, digits, "-" and "_".
func OpenBucket(ctx context.Context, s Server, name string) (*Bucket, error) {
	nc, err := connect(s, LogUser)
	if err != nil {
		return nil, err
	}
	b, err := openBucket(ctx, nc, name, s.Replicas())
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: bucket %s: %w", name, err)
	}
	return b, nil
}

func openBucket(ctx context.Context, nc *nats.Conn, name string, replicas int) (*Bucket, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	b := &Bucket{nc: nc, replicas: replicas}
	err = patiently(ctx, replicas, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, bucketTimeout)
		defer cancel()
		b.kv, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:         name,
			History:        1,
			Storage:        jetstream.FileStorage,
			Replicas:       replicas,
			MaxValueSize:   maxValue,
			MaxBytes:       maxBucket,
			LimitMarkerTTL: markerTTL, // deleted keys do not stay for ever
		})
		return err
	})
	return b, err
}

// patiently calls what asks the server that leads, again while none does.
func (b *Bucket) patiently(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bucketTimeout)
	defer cancel()
	return patiently(ctx, b.replicas, ask)
}

// Create writes a key that is not there, and returns its revision, or ErrExists.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) (uint64, error) {
	if err := b.bound(key, data); err != nil {
		return 0, err
	}
	revision, err := b.write(ctx, key, data, func(ctx context.Context) (uint64, error) { return b.create(ctx, key, data) })
	return revision, b.wrap(key, err, ErrExists)
}

func (b *Bucket) create(ctx context.Context, key string, data []byte) (uint64, error) {
	revision, err := b.kv.Update(ctx, key, data, 0)
	if !lost(err) {
		return revision, err
	}
	if is, unread := b.newest(ctx, key); unread == nil && is.Deleted { // its mark is there still
		return b.kv.Update(ctx, key, data, is.Revision)
	}
	return 0, err
}

// Update changes a key that is at a revision, and returns the new one, or ErrChanged.
func (b *Bucket) Update(ctx context.Context, key string, data []byte, revision uint64) (uint64, error) {
	if err := b.bound(key, data); err != nil {
		return 0, err
	}
	if revision == 0 {
		return 0, b.wrap(key, ErrChanged, ErrChanged) // it would create the key
	}
	revision, err := b.write(ctx, key, data, func(ctx context.Context) (uint64, error) { return b.kv.Update(ctx, key, data, revision) })
	return revision, b.wrap(key, err, ErrChanged)
}

// write writes what a key is to be. A server that leads may end after it has written and before it says so; then the
// comparison fails the second time, and what is there is what was written.
func (b *Bucket) write(ctx context.Context, key string, data []byte, write func(context.Context) (uint64, error)) (revision uint64, err error) {
	tries := 0
	err = b.patiently(ctx, func(ctx context.Context) error {
		tries++
		revision, err = write(ctx)
		return err
	})
	if tries > 1 && lost(err) {
		if is, unread := b.Get(ctx, key); unread == nil && bytes.Equal(is.Data, data) {
			return is.Revision, nil
		}
	}
	return revision, err
}

// lost says whether an error is a comparison that failed.
func lost(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// Delete deletes a key that is at a revision, or returns ErrChanged.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	if revision == 0 {
		return b.wrap(key, ErrChanged, ErrChanged) // it would delete any revision
	}
	err := b.patiently(ctx, func(ctx context.Context) error {
		return b.kv.Purge(ctx, key, jetstream.LastRevision(revision), jetstream.PurgeTTL(markerTTL))
	})
	return b.wrap(key, err, ErrChanged)
}

// Get reads a key, or returns ErrNoKey.
func (b *Bucket) Get(ctx context.Context, key string) (v Value, err error) {
	err = b.patiently(ctx, func(ctx context.Context) error {
		v, err = b.newest(ctx, key)
		return err
	})
	if err == nil && v.Deleted {
		err = ErrNoKey
	}
	if err != nil {
		v = Value{}
	}
	return v, b.wrap(key, err, ErrChanged)
}

// newest reads the newest change of a key, or of all with ">", from the server that leads; ErrNoKey says that there is none.
// The library asks any copy, also one that is behind: who has just begun a session would be told that there is none.
func (b *Bucket) newest(ctx context.Context, key string) (Value, error) {
	request, err := json.Marshal(map[string]string{"last_by_subj": "$KV." + b.Name() + "." + key})
	if err != nil {
		return Value{}, err
	}
	m, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+b.Name(), request)
	if err != nil {
		return Value{}, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Value{}, err
	}
	is := answer.Message
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Value{}, ErrNoKey
	case answer.Error != nil:
		return Value{}, answer.Error
	}
	return Value{Key: key, Data: is.Data, Revision: is.Sequence, Deleted: len(is.Header) > 0 && gone(is.Header)}, nil
}

// gone says whether a message of a bucket is the mark of a key that was deleted.
func gone(header []byte) bool {
	h, err := nats.DecodeHeadersMsg(header)
	return err == nil && (h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "")
}

// List reads all keys, in the order of their last change.
func (b *Bucket) List(ctx context.Context) ([]Value, error) {
	all, err := b.Since(ctx, 0)
	return slices.DeleteFunc(all, func(v Value) bool { return v.Deleted }), err
}

// Since reads the keys that changed after a revision, in the order of their last change, those included that are gone. Of
// several copies the library reads any, also one that is behind: it is read until it has what the server that leads had.
func (b *Bucket) Since(ctx context.Context, revision uint64) ([]Value, error) {
	ctx, cancel := context.WithTimeout(ctx, bucketTimeout)
	defer cancel()
	for {
		newest, err := b.end(ctx)
		if err != nil || newest <= revision {
			return nil, err
		}
		all, err := b.read(ctx, revision)
		if err != nil || b.replicas == 1 || len(all) > 0 && all[len(all)-1].Revision >= newest {
			return all, err
		}
		if pause(ctx, behindPause); ctx.Err() != nil {
			return nil, fmt.Errorf("bus: bucket %s: the copy that is read stays behind: %w", b.Name(), ctx.Err())
		}
	}
}

// end is the revision of the newest change that is there; 0, there is none.
func (b *Bucket) end(ctx context.Context) (revision uint64, err error) {
	err = b.patiently(ctx, func(ctx context.Context) error {
		is, err := b.newest(ctx, ">")
		revision = is.Revision
		return err
	})
	if errors.Is(err, ErrNoKey) {
		return 0, nil
	}
	return revision, b.wrap(">", err, ErrChanged)
}

// read reads what a copy has.
func (b *Bucket) read(ctx context.Context, after uint64) (all []Value, err error) {
	var opts []jetstream.WatchOpt
	if after > 0 {
		opts = append(opts, jetstream.ResumeFromRevision(after+1))
	}
	err = b.watch(ctx, func(v *Value) error {
		if v == nil {
			return errEnough
		}
		all = append(all, *v)
		return nil
	}, opts...)
	if !errors.Is(err, errEnough) {
		return nil, err
	}
	return all, nil
}

var errEnough = errors.New("enough")

// Watch calls see for every key as it is, once with nil when that was all, and then after each change, until ctx
// ends or see fails. A key that changes often may be seen only as it is in the end.
func (b *Bucket) Watch(ctx context.Context, see func(*Value) error) error {
	err := b.watch(ctx, see)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Last is the highest revision that there was.
func (b *Bucket) Last(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, bucketTimeout)
	defer cancel()
	status, err := b.kv.Status(ctx)
	if err != nil {
		return 0, fmt.Errorf("bus: bucket %s: %w", b.Name(), err)
	}
	of, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return 0, fmt.Errorf("bus: bucket %s: its stream is not known", b.Name())
	}
	return of.StreamInfo().State.LastSeq, nil
}

// Name is the bucket's name.
func (b *Bucket) Name() string { return b.kv.Bucket() }

func (b *Bucket) watch(ctx context.Context, see func(*Value) error, opts ...jetstream.WatchOpt) error {
	watcher, err := b.kv.WatchAll(ctx, opts...)
	if err != nil {
		return fmt.Errorf("bus: bucket %s: %w", b.Name(), err)
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("bus: bucket %s: %w", b.Name(), ctx.Err())
		case e, ok := <-watcher.Updates():
			if !ok {
				return fmt.Errorf("bus: bucket %s: the watch ended", b.Name())
			}
			if err := see(seen(e)); err != nil {
				return err
			}
		}
	}
}

// seen is what a watcher tells; nil is the end of what was there.
func seen(e jetstream.KeyValueEntry) *Value {
	if e == nil {
		return nil
	}
	v := value(e)
	return &v
}

func value(e jetstream.KeyValueEntry) Value {
	return Value{Key: e.Key(), Data: e.Value(), Revision: e.Revision(), Deleted: e.Operation() != jetstream.KeyValuePut}
}

// bound refuses a value that is too large: the server would too, but not in words.
func (b *Bucket) bound(key string, data []byte) error {
	if len(data) > maxValue {
		return fmt.Errorf("bus: bucket %s, %s: %w: %d bytes, at most %d", b.Name(), key, ErrTooLarge, len(data), maxValue)
	}
	return nil
}

// wrap says what an error was about; conflict is what a lost comparison is called.
func (b *Bucket) wrap(key string, err, conflict error) error {
	if lost(err) {
		err = conflict
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("bus: bucket %s, %s: %w", b.Name(), key, err)
}

// Close closes the bucket's connection.
func (b *Bucket) Close() { b.nc.Close() }
