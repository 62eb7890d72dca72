package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/store"
)

// keys notes in fold.db what a bucket has. JetStream cuts a file off at the first record that it cannot read, without
// a word, and with what had replaced a value goes that it was replaced: one bit, and a token that was revoked is good
// again. The log has no holes, so that it shows there; a bucket has many. It is for one goroutine.
type keys struct {
	bucket  *bus.Bucket
	store   *store.Store
	last    uint64               // what came after this revision is to be looked at
	changed map[string]store.Key // what is to be noted; it may be noted twice
}

// newKeys refuses a bucket that is not what it was.
func newKeys(ctx context.Context, b *bus.Bucket, s *store.Store) (*keys, error) {
	const advice = "what was replaced in it may be back, as a token that was used or revoked: restore a backup, or move fold.db away to go on with what is there"
	had, err := s.Keys(b.Name())
	if err != nil {
		return nil, err
	}
	has, last, err := contents(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("the bucket %s cannot be read, and is damaged if that stays so: %w; %s", b.Name(), err, advice)
	}
	if what := damage(had, has, last); what != "" {
		return nil, fmt.Errorf("the bucket %s is damaged: %s; %s", b.Name(), what, advice)
	}
	k := &keys{b, s, last, map[string]store.Key{}}
	for key, is := range has {
		if had.Has[key] != is {
			k.changed[key] = is
		}
	}
	for key := range had.Has {
		if has[key].Revision == 0 {
			k.changed[key] = store.Key{}
		}
	}
	if last == had.Last && len(k.changed) == 0 {
		return k, nil
	}
	return k, k.write()
}

// openKeys is newKeys. Of several coordinators one that has just begun to lead may not have all of a bucket yet, which
// looks like damage, for a moment.
func (c *Coordinator) openKeys(ctx context.Context, b *bus.Bucket) (k *keys, err error) {
	for range settleTries {
		if k, err = newKeys(ctx, b, c.store); err == nil || c.others == nil {
			return k, err
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return k, err
}

// noteKeys notes what a bucket has. Of several coordinators none may lead it for a moment: it is noted later then.
func (c *Coordinator) noteKeys(ctx context.Context, k *keys) error {
	err := k.note(ctx)
	if c.others != nil && bus.Leaderless(err) {
		c.log.Debug("what a bucket has is noted later", "bucket", k.bucket.Name(), "error", err)
		return nil
	}
	return err
}

// contents are a bucket's keys, and the highest revision that there was.
func contents(ctx context.Context, b *bus.Bucket) (has map[string]store.Key, last uint64, err error) {
	last, err = b.Last(ctx)
	if err != nil {
		return nil, 0, err
	}
	all, err := b.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	has = map[string]store.Key{}
	for _, v := range all {
		has[v.Key], last = store.KeyOf(v.Revision, v.Data), max(last, v.Revision)
	}
	return has, last, nil
}

// damage says what is wrong with a bucket that had keys and now has others, up to a last revision.
func damage(had store.Keys, has map[string]store.Key, last uint64) string {
	if last < had.Last {
		return fmt.Sprintf("it ends at revision %d, and went to %d", last, had.Last)
	}
	for key, is := range has {
		switch was := had.Has[key]; {
		case is.Revision > had.Last || is == was:
		case is.Revision == was.Revision:
			return fmt.Sprintf("what %q says is not what was written", key)
		default:
			return fmt.Sprintf("%q is there with revision %d, which was replaced or never written", key, is.Revision)
		}
	}
	gone := 0
	for key := range had.Has {
		if has[key].Revision == 0 {
			gone++
		}
	}
	// Each that was deleted since then took a revision.
	if since := last - had.Last; uint64(gone) > since {
		return fmt.Sprintf("%d of its keys are gone, and at most %d were deleted", gone, since)
	}
	return ""
}

// note notes what has changed. What came before it is not looked at again: damage that comes meanwhile shows at the next
// start.
func (k *keys) note(ctx context.Context) error {
	last, err := k.bucket.Last(ctx)
	if err != nil || last == k.last && len(k.changed) == 0 {
		return err
	}
	values, err := k.bucket.Since(ctx, k.last)
	if err != nil {
		return err
	}
	k.last = max(k.last, last)
	for _, v := range values {
		if k.last = max(k.last, v.Revision); v.Deleted {
			k.changed[v.Key] = store.Key{}
		} else {
			k.changed[v.Key] = store.KeyOf(v.Revision, v.Data)
		}
	}
	return k.write()
}

func (k *keys) write() error {
	if err := k.store.NoteKeys(k.bucket.Name(), store.Keys{Last: k.last, Has: k.changed}); err != nil {
		return fmt.Errorf("the keys of bucket %s: %w", k.bucket.Name(), err)
	}
	k.changed = map[string]store.Key{}
	return nil
}
