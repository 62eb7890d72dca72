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

// status asks the coordinator how far it is and what that amounts to.
func (w *world) status(ctx context.Context) (*pb.GetStatusResponse, error) {
	return w.statusBy(ctx, w.load.conn)
}

func (w *world) statusBy(ctx context.Context, conn *grpc.ClientConn) (*pb.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return pb.NewCoordinatorServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{}, grpc.WaitForReady(true))
}

// rebuild ends all agents, so that nothing is appended any more, and compares what the log amounts to: as it was
// folded all along, from the checkpoint after a restart, and folded anew from the log alone.
func (w *world) rebuild(ctx context.Context, run *summary) error {
	for _, a := range w.agents {
		if err := a.kill(); err != nil {
			return err
		}
	}
	before, err := w.status(ctx)
	if err != nil {
		return err
	}
	fold := filepath.Join(w.dataDir(), "fold.db")
	for _, how := range []struct {
		name string
		do   func() error
	}{
		{"after a restart", func() error { return nil }},
		{"folded anew", func() error { return os.Rename(fold, fold+".away") }},
	} {
		if err := w.coordinator.kill(); err != nil { // in order, it would log what it has still to say
			return err
		}
		if err := how.do(); err != nil {
			return err
		}
		if err := w.startCoordinator(ctx); err != nil {
			return err
		}
		after, err := w.status(ctx)
		if err != nil {
			return err
		}
		if after.GetPosition() != before.GetPosition() {
			return fmt.Errorf("%s the log is at %d, and nothing was appended since %d", how.name, after.GetPosition(), before.GetPosition())
		}
		if was, is := hex.EncodeToString(before.GetStateHash()), hex.EncodeToString(after.GetStateHash()); was != is || was == "" {
			run.violate("state: at position %d the state is %q, and %s %q", before.GetPosition(), was, how.name, is)
		}
	}
	run.Position, run.StateHash = before.GetPosition(), hex.EncodeToString(before.GetStateHash())
	return nil
}
