package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/store"
)

// checkLog refuses a log that is not the one that the checkpoint is of: one that ends before it has lost something that
// was acknowledged.
func (c *Coordinator) checkLog(ctx context.Context) error {
	position, _ := c.store.Position()
	bounds, err := c.settled(ctx, position)
	if err != nil {
		return err
	}
	if bounds.Last < position {
		return fmt.Errorf("the log ends at %d and the checkpoint is at %d: the log in %s has lost what was acknowledged; restore a backup, or move fold.db away to go on without it",
			bounds.Last, position, c.opts.DataDir)
	}
	if err := c.store.SetLog(c.history.ID()); errors.Is(err, store.ErrOtherLog) {
		return fmt.Errorf("%s: %w; put the log back that belongs to fold.db, or move fold.db away", c.opts.DataDir, err)
	}
	if position > 0 {
		return c.checkBeginning(bounds.First)
	}
	return nil
}

const (
	// settleTries and settlePause are how often, and how long, a server that has just begun to lead has to take up what was
	// decided before.
	settleTries, settlePause = 20, 500 * time.Millisecond
)

// settled tells how far the log goes, which is at least to a position if nothing is lost.
func (c *Coordinator) settled(ctx context.Context, position uint64) (bounds bus.Bounds, err error) {
	for range settleTries {
		bounds, err = c.history.Bounds(ctx)
		if err != nil || bounds.Last >= position || c.others == nil {
			return bounds, err
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return bounds, ctx.Err()
		}
	}
	return bounds, nil
}

// checkBeginning refuses a log that begins later than it may: what is not there was not forgotten.
func (c *Coordinator) checkBeginning(first uint64) error {
	if forgot := c.store.Forgot(); first > forgot+1 {
		return fmt.Errorf("the log in %s begins at %d, and only what stands before %d was forgotten: its files are damaged, and it has lost what was acknowledged; restore a backup",
			c.opts.DataDir, first, forgot+1)
	}
	return nil
}
