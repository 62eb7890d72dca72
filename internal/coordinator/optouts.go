package coordinator

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/access"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// optOuts are those who do not want to be looked at now.
func (c *Coordinator) optOuts() *access.OptOuts {
	if c.opts.OptOuts == nil {
		return &access.OptOuts{}
	}
	now, _ := c.opts.OptOuts.Current()
	return now
}

// refuseOptedOut refuses a question that names somebody who opted out. Who is found on the way, the agents leave alone.
func (c *Coordinator) refuseOptedOut(spec *pb.Spec) error {
	if err := c.optOuts().Check(spec); err != nil {
		return status.Error(codes.FailedPrecondition, begin(err.Error()))
	}
	return nil
}

// followOptOuts reads the file again when it changes, until ctx ends.
func (c *Coordinator) followOptOuts(ctx context.Context) error {
	if c.opts.OptOuts == nil {
		return nil
	}
	path := c.opts.OptOuts.Path()
	c.opts.OptOuts.Follow(ctx, func(_ bool, err error) {
		if err != nil {
			c.log.Error("the opt-out list cannot be used: the one before it still holds", "error", err)
			return
		}
		c.log.Info("the opt-out list holds as it is now", "file", path, "entries", len(c.optOuts().Entries))
	})
	return nil
}
