package chaos

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// status asks a coordinator how far it is and what that amounts to.
func (w *world) status(ctx context.Context, c *coordinator) (*pb.GetStatusResponse, error) {
	conn, err := w.clientOf(c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return w.statusBy(ctx, conn)
}

func (w *world) statusBy(ctx context.Context, conn *grpc.ClientConn) (*pb.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return pb.NewCoordinatorServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{}, grpc.WaitForReady(true))
}

// rebuild ends all agents, so that nothing is asked any more, and compares what the log amounts to for each coordinator:
// as it was folded all along, from the checkpoint after a restart, and folded anew from its log alone.
func (w *world) rebuild(ctx context.Context, run *summary) error {
	for _, a := range w.agents {
		if err := a.kill(); err != nil {
			return err
		}
	}
	if err := w.whole(ctx); err != nil {
		return err
	}
	for i, c := range w.coordinators {
		if err := w.rebuildOne(ctx, c, w.coordinators[(i+1)%len(w.coordinators)], run); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// rebuildOne restarts a coordinator twice. What it amounts to then is what it amounted to before; where there is another
// one, which goes on meanwhile and may add what it has still to say, it is what that one amounts to at the same position.
func (w *world) rebuildOne(ctx context.Context, c, other *coordinator, run *summary) error {
	before, err := w.status(ctx, c)
	if err != nil {
		return err
	}
	fold := filepath.Join(c.dataDir(), "fold.db")
	for _, how := range []struct {
		name string
		do   func() error
	}{
		{"after a restart", func() error { return nil }},
		{"folded anew", func() error { return os.Rename(fold, fold+".away") }},
	} {
		if err := c.kill(); err != nil { // in order, it would log what it has still to say
			return err
		}
		if err := how.do(); err != nil {
			return err
		}
		if err := w.bring(ctx, c); err != nil {
			return err
		}
		var after, should *pb.GetStatusResponse
		err := eventually(ctx, "a position that is the same "+how.name, func(ctx context.Context) (err error) {
			if after, err = w.status(ctx, c); err != nil {
				return err
			}
			if should = before; other != c {
				if should, err = w.status(ctx, other); err != nil {
					return err
				}
			}
			if after.GetPosition() != should.GetPosition() || after.GetPosition() < before.GetPosition() {
				return fmt.Errorf("it is at %d and was at %d, and %s is at %d", after.GetPosition(), before.GetPosition(), other.name, should.GetPosition())
			}
			return nil
		})
		if err != nil {
			return err
		}
		if should, is := hex.EncodeToString(should.GetStateHash()), hex.EncodeToString(after.GetStateHash()); should != is || is == "" {
			run.violate("state: at position %d it should be %q, and of %s %s it is %q", after.GetPosition(), should, c.name, how.name, is)
		}
		run.Position, run.StateHash = after.GetPosition(), hex.EncodeToString(after.GetStateHash())
	}
	return nil
}
