package coordinator

import (
	"context"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Commit adds to the log, as another coordinator would: this one does not wait until it has folded that.
func (c *Coordinator) Commit(ctx context.Context, entries ...*pb.LogEntry) error {
	_, err := c.commit(ctx, entries...)
	return err
}

// Unasked tells whether a measurement is not known here to have asked an agent.
func (c *Coordinator) Unasked(id, agent string) bool {
	_, _, err := c.store.Asked(id, agent)
	return err != nil
}
