package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// TestSeveral hurts a network of three coordinators in every way, and judges its history.
func TestSeveral(t *testing.T) {
	if *insecurely {
		t.Skip("several coordinators know each other by their certificates: run it without -insecure")
	}
	hurtAndJudge(t, &world{name: "several", several: true}, severalFaults())
}

// wholeWithin is within what time after a fault's end all coordinators have to be one service again. What that takes, and
// what is left over, is for a machine that does much else.
const wholeWithin = time.Minute

// whole waits until every coordinator sees all of them live and ready, with equal states at equal positions.
func (w *world) whole(ctx context.Context) error {
	if !w.several {
		return nil
	}
	began := time.Now()
	for _, c := range w.coordinators {
		conn, err := w.clientOf(c)
		if err != nil {
			return err
		}
		err = eventually(ctx, c.name+" to see all coordinators agree", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			list, err := pb.NewCoordinatorServiceClient(conn).ListCoordinators(ctx, &pb.ListCoordinatorsRequest{})
			if err != nil {
				return err
			}
			return w.agree(list.GetCoordinators())
		})
		if err = errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	if took := time.Since(began); took > wholeWithin {
		return fmt.Errorf("it took %v", took)
	}
	return nil
}

// agree says what of the coordinators is not as it should be.
func (w *world) agree(all []*pb.Coordinator) error {
	if len(all) != len(w.coordinators) {
		return fmt.Errorf("it knows %d coordinators", len(all))
	}
	hashes := map[string][]byte{} // by the way of folding, and the position
	var authorities []byte
	for _, one := range all {
		s := one.GetState()
		switch {
		case one.GetLiveness() != pb.Liveness_LIVENESS_ALIVE:
			return fmt.Errorf("%s is %v", one.GetName(), one.GetLiveness())
		case s == nil:
			return fmt.Errorf("%s says nothing", one.GetName())
		case s.GetUnready() != "":
			return fmt.Errorf("%s is not ready: %s", one.GetName(), s.GetUnready())
		case len(authorities) > 0 && len(s.GetAuthorities()) > 0 && !bytes.Equal(s.GetAuthorities(), authorities):
			return fmt.Errorf("%s has other authorities than one before it", one.GetName())
		case s.GetDiffersFrom() != "":
			return fmt.Errorf("%s differs from %s", one.GetName(), s.GetDiffersFrom())
		}
		authorities = s.GetAuthorities() // none, of the version before
		at := fmt.Sprintf("%s %d", s.GetFoldFormat(), s.GetPosition())
		if h, ok := hashes[at]; ok && !bytes.Equal(h, s.GetStateHash()) {
			return fmt.Errorf("%s has another state at %d", one.GetName(), s.GetPosition())
		}
		hashes[at] = s.GetStateHash()
	}
	return nil
}

// neverDiffered looks into the log for a coordinator that ever had another state than the others.
func (w *world) neverDiffered(ctx context.Context, run *summary) error {
	page, err := pb.NewAccessServiceClient(w.load.conn).ListAuditEvents(ctx,
		&pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_STATES_DIFFER}}, grpc.WaitForReady(true))
	for _, e := range page.GetEvents() {
		run.violate("state: coordinators differed: %s", e.GetDetail())
	}
	return err
}

// view is what a coordinator shows.
type view struct {
	tallies []history.Tally
	folded  []history.Fact
}

// sameEverywhere reads all that each coordinator shows, which has to be the same.
func (w *world) sameEverywhere(ctx context.Context, run *summary) error {
	var first view
	for i, c := range w.coordinators {
		conn, err := w.clientOf(c)
		if err != nil {
			return err
		}
		var s view
		s.tallies, s.folded, err = w.show(ctx, conn)
		if err = errors.Join(err, conn.Close()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		switch {
		case i == 0:
			first = s
		case !slices.Equal(s.tallies, first.tallies):
			run.violate("views: %s shows other measurements than %s", c.name, w.coordinator.name)
		case !slices.Equal(s.folded, first.folded):
			run.violate("views: %s shows other results than %s", c.name, w.coordinator.name)
		}
	}
	return nil
}
