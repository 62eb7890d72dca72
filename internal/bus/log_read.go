package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readMessages and readBytes bound what is asked for at once.
	readMessages, readBytes = 256, 4 << 20
	// readTimeout bounds the wait for the next of it, elsewhereTimeout that where there are other servers: one that was asked
	// may have died, and whoever waits for the fold waits with it.
	readTimeout, elsewhereTimeout = 5 * time.Second, time.Second
)

// reader reads the log in pieces. Any server that has a copy answers, this process's or another one's, as NATS picks: what
// is folded is the log as some server has it, and copies that differ show only where a piece is read of the wrong one.
//
// These are "batched direct gets" (NATS ADR-31), for which the client library has no call.
type reader struct {
	nc    *nats.Conn
	inbox string
	sub   *nats.Subscription
	asked int // how often it has asked
	// timeout bounds the wait for each message.
	timeout time.Duration
}

func (l *Log) newReader() (*reader, error) {
	r := &reader{nc: l.nc, inbox: l.nc.NewInbox(), timeout: readTimeout}
	if l.replicas > 1 {
		r.timeout = elsewhereTimeout
	}
	var err error
	if r.sub, err = l.nc.SubscribeSync(r.inbox + ".*"); err != nil {
		return nil, fmt.Errorf("bus: the log: %w", err)
	}
	return r, nil
}

func (r *reader) close() { _ = r.sub.Unsubscribe() }

// read calls see for what follows from a position on, some of it; for nothing if that is not there.
func (r *reader) read(ctx context.Context, from uint64, see func(at uint64, data []byte) error) error {
	request, err := json.Marshal(map[string]uint64{"seq": from, "batch": readMessages, "max_bytes": readBytes})
	if err != nil {
		return err
	}
	r.asked++
	reply := r.inbox + "." + strconv.Itoa(r.asked)
	if err := r.nc.PublishRequest("$JS.API.DIRECT.GET."+logName, reply, request); err != nil {
		return fmt.Errorf("bus: the log: %w: %w", errInterrupted, err)
	}
	for {
		m, err := r.next(ctx, reply)
		if err != nil {
			return fmt.Errorf("bus: the log: %w: %w", errInterrupted, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // that was all; nothing is there
			return nil
		default:
			return fmt.Errorf("bus: the log: %w: %s %s", errInterrupted, status, m.Header.Get("Description"))
		}
		at, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return fmt.Errorf("bus: the log: a message without its position: %w", err)
		}
		if err := see(at, m.Data); err != nil {
			return err
		}
	}
}

// next waits for what comes to an inbox. What was asked for before and comes late is left out.
func (r *reader) next(ctx context.Context, reply string) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	for {
		m, err := r.sub.NextMsgWithContext(ctx)
		if err != nil || m.Subject == reply {
			return m, err
		}
	}
}

// leaderHas asks the server that leads for a message: jetstream.ErrMsgNotFound if it has none at a position.
func (l *Log) leaderHas(ctx context.Context, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	m, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+logName, fmt.Appendf(nil, `{"seq":%d}`, position))
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return jetstream.ErrMsgNotFound
	}
	return nil
}
