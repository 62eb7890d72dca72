package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
)

// logIDKey is what the log's name is called in the stream's metadata.
const logIDKey = "elsewhere-log"

// logConfig is the log's stream, but for what is set at every start: its bounds and its name. What is written here in
// full is what the server would fill in.
func logConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              logName,
		Subjects:          []string{logSubject},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew, // never lose what was acknowledged
		Replicas:          replicas,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        MaxPayload,
		Duplicates:        duplicatesFor(replicas),
		AllowDirect:       true, // no coordinator waits for the leader to read
	}
}

// duplicatesFor is the server's window of duplicates. Of several servers one that leads may end in the middle of a commit,
// which is then tried again.
func duplicatesFor(replicas int) time.Duration {
	if replicas > 1 {
		return 2 * commitTimeout
	}
	return duplicates
}

// OpenLog opens the log, or makes it; where it is on several servers it waits until most of them are there. Beyond maxBytes it takes no results and opens nothing; a tenth
// more is there for what declines, closes and forgets. A log that somebody has configured otherwise is refused: it may
// drop what was acknowledged.
func OpenLog(ctx context.Context, s Server, maxBytes int64) (*Log, error) {
	nc, err := connect(s, LogUser)
	if err != nil {
		return nil, err
	}
	l, err := openLog(ctx, nc, s.Replicas(), maxBytes)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: the log: %w", err)
	}
	return l, nil
}

func openLog(ctx context.Context, nc *nats.Conn, replicas int, maxBytes int64) (*Log, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	l := &Log{
		nc: nc, js: js, queue: make(chan appendRequest, 256), limit: maxBytes, full: make(chan struct{}, 1),
		replicas: replicas, news: make(chan struct{}, 1),
	}
	err = l.patiently(ctx, func(ctx context.Context) error { return l.open(ctx, maxBytes) })
	if err == nil {
		err = l.listen()
	}
	if err != nil {
		return nil, err
	}
	l.healthy.Store(true)
	return l, nil
}

// open finds the log, or makes it.
func (l *Log) open(ctx context.Context, maxBytes int64) error {
	present, err := l.present(ctx)
	if err != nil {
		return err
	}
	fresh := l.id == ""
	if fresh {
		if l.id, err = newID(); err != nil {
			return err
		}
	}
	config := logConfig(l.replicas)
	config.MaxBytes = max(maxBytes, present) + maxBytes/10 // the limit may have been lowered
	config.Metadata = map[string]string{logIDKey: l.id}
	switch {
	case l.stream == nil:
		// Not "or update": of several coordinators that make it at once, one does.
		l.stream, err = l.js.CreateStream(ctx, config)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			l.id = ""
			return errNotYet
		}
	case fresh || !asSet(l.stream.CachedInfo().Config, config): // writing it costs four syncs
		l.stream, err = l.js.UpdateStream(ctx, config)
	}
	l.bytes.Store(present)
	return err
}

func newID() (string, error) {
	id, err := ulid.New(ulid.Now(), rand.Reader)
	return strings.ToLower(id.String()), err
}

// present looks at the log that is there: its name and its size in bytes. It is 0 if there is none yet.
func (l *Log) present(ctx context.Context) (bytes int64, err error) {
	stream, err := l.js.Stream(ctx, logName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	l.stream = stream
	info := stream.CachedInfo()
	l.id = info.Config.Metadata[logIDKey]
	l.learn(info.State.LastSeq)
	return int64(info.State.Bytes), drifted(info.Config, l.replicas)
}

// asSet says whether what is set at every start is so already.
func asSet(is, must jetstream.StreamConfig) bool {
	return is.MaxBytes == must.MaxBytes && is.MaxMsgSize == must.MaxMsgSize && is.Duplicates == must.Duplicates &&
		is.AllowDirect == must.AllowDirect &&
		is.Metadata[logIDKey] == must.Metadata[logIDKey]
}

// drifted says which field of the log's configuration is not as it must be. What is set at every start does not count,
// nor where the log begins.
func drifted(is jetstream.StreamConfig, replicas int) error {
	must := logConfig(replicas)
	must.MaxBytes, must.MaxMsgSize, must.Duplicates, must.AllowDirect = is.MaxBytes, is.MaxMsgSize, is.Duplicates, is.AllowDirect
	must.Metadata, must.FirstSeq = is.Metadata, is.FirstSeq
	a, b := reflect.ValueOf(is), reflect.ValueOf(must)
	for i := range a.NumField() {
		if field := a.Type().Field(i); !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			return fmt.Errorf("its stream has %s %v, where it must be %v: somebody has changed it, and it may lose what was acknowledged; set it back, or restore a backup",
				name, a.Field(i), b.Field(i))
		}
	}
	return nil
}
