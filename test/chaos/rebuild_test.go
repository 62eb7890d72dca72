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

// rebuild ends all agents, so that nothing is appended any more, and compares what the log amounts to for each coordinator:
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
	before, err := w.status(ctx, w.coordinator)
	if err != nil {
		return err
	}
	for _, c := range w.coordinators {
		if err := w.rebuildOne(ctx, c, before, run); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	run.Position, run.StateHash = before.GetPosition(), hex.EncodeToString(before.GetStateHash())
	return nil
}

func (w *world) rebuildOne(ctx context.Context, c *coordinator, before *pb.GetStatusResponse, run *summary) error {
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
		after, err := w.status(ctx, c)
		if err != nil {
			return err
		}
		if after.GetPosition() != before.GetPosition() {
			return fmt.Errorf("%s the log is at %d, and nothing was appended since %d", how.name, after.GetPosition(), before.GetPosition())
		}
		if was, is := hex.EncodeToString(before.GetStateHash()), hex.EncodeToString(after.GetStateHash()); was != is || was == "" {
			run.violate("state: at position %d the state is %q, and of %s %s %q", before.GetPosition(), was, c.name, how.name, is)
		}
	}
	return nil
}
