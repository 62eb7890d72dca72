package coordinator

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// startAlone starts a coordinator and waits until its fold has reached the log's end.
func startAlone(t *testing.T, dir string) (c *Coordinator, stop func()) {
	t.Helper()
	c, err := New(t.Context(), Options{
		DataDir: dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true,
		Retention: Retention{Age: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !c.recovered.Load() {
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatal(err)
		}
	}
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestTheLogAloneIsEnough cuts the log and moves the checkpoint away: what is folded from the log alone must be the same
// state, at the same position.
func TestTheLogAloneIsEnough(t *testing.T) {
	dir := t.TempDir()
	c, stop := startAlone(t, dir)
	past := timestamppb.New(time.Now().Add(-2 * time.Hour))
	for _, e := range [][]*pb.LogEntry{
		{{Entry: &pb.LogEntry_Enrolment{Enrolment: &pb.Enrolment{Id: "a", EnrollTime: past, RevokeTime: past}}}},
		{{Entry: &pb.LogEntry_Enrolment{Enrolment: &pb.Enrolment{Id: "b", EnrollTime: past}}}},
		{{Entry: &pb.LogEntry_Gaps{Gaps: &pb.Gaps{Agent: "b", Epoch: 4, Gaps: []*pb.Gap{
			{First: 1, Last: 7, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}, {First: 9, Last: 9, Reason: pb.GapReason_GAP_REASON_UNASKED},
		}}}}},
		{{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_FLOOD}}}},
		{ // at once, or the closer would close it now
			{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: &pb.Measurement{Id: "old", State: pb.State_STATE_RUNNING, Deadline: past}}}},
			{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: "old", Time: past}}},
		},
		{{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_QUOTA_REACHED}}}},
	} {
		if err := c.append(t.Context(), e...); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := c.forgetOld(t.Context()); err != nil {
		t.Fatal(err)
	}
	bounds, err := c.history.Bounds(t.Context())
	if err != nil || bounds.First < 5 {
		t.Fatalf("the log was not cut: %+v, %v", bounds, err)
	}
	position, hash := c.store.Hash()
	stop()
	if err := os.Rename(filepath.Join(dir, "fold.db"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	c, stop = startAlone(t, dir)
	defer stop()
	again, rebuilt := c.store.Hash()
	if again != position || string(rebuilt) != string(hash) {
		t.Errorf("at %d the state is %x; from the log alone at %d it is %x", position, hash, again, rebuilt)
	}
	if d := c.store.Delivery("b"); c.store.Enrolment("a").GetRevokeTime() == nil || d.GetDropped() != 7 || d.GetHighest() != 9 {
		t.Errorf("what was carried over the cut: %v, %v", c.store.Enrolments(), d)
	}
}

func TestACheckpointOfAnotherLogIsRefused(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		c, stop := startAlone(t, d)
		for range 3 {
			if err := c.append(t.Context(), &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{}}}); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
	if err := os.Rename(filepath.Join(other, "fold.db"), filepath.Join(dir, "fold.db")); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Options{DataDir: dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true})
	if err == nil {
		t.Error("it was folded on")
	}
	t.Log(err)
}
