package coordinator

import (
	"context"
	"fmt"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	defaultRetentionAge   = 30 * 24 * time.Hour
	defaultRetentionBytes = 10 << 30
	retentionInterval     = time.Minute
)

// Retention bounds what is kept, whichever bound is met first.
type Retention struct {
	// Age is how long a closed measurement is kept. Default: 30 days.
	Age time.Duration
	// Bytes is the size of the log. Default: 10 GiB.
	Bytes int64
}

func (r Retention) orDefault() Retention {
	if r.Age <= 0 {
		r.Age = defaultRetentionAge
	}
	if r.Bytes <= 0 {
		r.Bytes = defaultRetentionBytes
	}
	return r
}

// retain drops old data, again and again until ctx ends.
func (c *Coordinator) retain(ctx context.Context) error {
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	for {
		if c.owns("retention") {
			if err := c.reading.cut(func() error { return c.forgetOld(ctx) }); err != nil && ctx.Err() == nil {
				c.log.Error("retention: will be tried again", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-c.history.Full():
		case <-ctx.Done():
			return nil
		}
		select { // not with every commit, while what is there still runs
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// forgetOld appends what may be forgotten and, when that is durable, cuts the log there.
func (c *Coordinator) forgetOld(ctx context.Context) error {
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	upTo, err := c.store.Oldest(time.Now().Add(-c.opts.Retention.Age))
	if err != nil {
		return err
	}
	// From 95 % on, since at 100 % nothing is taken any more.
	if excess := int64(bounds.Bytes) - c.opts.Retention.Bytes/20*19; excess > 0 {
		// Messages are of similar size: a share of the bytes is that share of the positions, and a
		// little more, so that it is not needed again at once.
		share := float64(excess)/float64(bounds.Bytes) + 0.05
		upTo = max(upTo, bounds.First+uint64(share*float64(bounds.Last-bounds.First)))
	}
	upTo = min(upTo, bounds.Last) // never what is not there yet
	if open, ok := c.store.FirstOpen(); ok && upTo >= open {
		upTo = open - 1 // what runs stays
	}
	if upTo == 0 || upTo < bounds.First {
		return nil
	}
	if err := c.carry(ctx, upTo); err != nil {
		return err
	}
	if err := c.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Forgotten{Forgotten: &pb.Forgotten{UpTo: upTo}}}); err != nil {
		return err
	}
	if err := c.store.Checkpoint(); err != nil {
		return err
	}
	c.log.Info("forgotten", "up_to", upTo)
	return c.history.Purge(ctx, upTo)
}

// carryBytes bounds what is carried over a cut in one message.
const carryBytes = 1 << 20

// carry appends again what must outlive a cut, so that the log alone still tells all of the state. Each message is made
// where it stands: what is carried is never older than what is before it.
func (c *Coordinator) carry(ctx context.Context, cut uint64) error {
	for next, more := "", true; more; {
		position, err := c.history.AppendMade(ctx, func(ctx context.Context, after uint64) ([]*pb.LogEntry, error) {
			if err := c.folded(ctx, after); err != nil {
				return nil, err
			}
			var entries []*pb.LogEntry
			entries, next = c.store.Carry(cut, next, carryBytes)
			more = next != ""
			return entries, nil
		})
		if err != nil {
			return fmt.Errorf("carried over the cut at %d: %w", cut, err)
		}
		if err := c.folded(ctx, position); err != nil {
			return err
		}
	}
	return nil
}
