package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/elsewhere-net/elsewhere/internal/store"
)

// checkLog refuses a log that is not the one that the checkpoint is of: one that ends before it has lost something that
// was acknowledged.
func (c *Coordinator) checkLog(ctx context.Context) error {
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	position, _ := c.store.Position()
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

// checkBeginning refuses a log that begins later than it may: what is not there was not forgotten.
func (c *Coordinator) checkBeginning(first uint64) error {
	if forgot := c.store.Forgot(); first > forgot+1 {
		return fmt.Errorf("the log in %s begins at %d, and only what stands before %d was forgotten: its files are damaged, and it has lost what was acknowledged; restore a backup",
			c.opts.DataDir, first, forgot+1)
	}
	return nil
}
