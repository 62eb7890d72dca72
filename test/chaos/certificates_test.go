package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// certificateLife is how long certificates are good in this test: agents renew at two thirds of it.
const certificateLife = 12 * time.Second

// TestCertificatesEnd is F25 with time going fast: certificates are renewed again and again while results flow and
// the coordinator is killed, and one agent is away until its certificate has ended.
func TestCertificatesEnd(t *testing.T) {
	if *insecurely {
		t.Log("without TLS there are no certificates: nothing to test")
		return
	}
	w := newWorld(t, &world{name: "certificates", life: certificateLife}, 3)
	asking, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.load.run(asking, t.Context(), rand.New(rand.NewPCG(*seed, 0)))
	}()
	w.load.rate.Store(loadRate)
	began := time.Now()
	if _, _, err := w.recover(t.Context(), began, w.agents); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(w.absent(t.Context(), w.agents[1]), w.coordinator.kill(), w.bring(t.Context(), w.coordinator))
	if err == nil {
		_, _, err = w.recover(t.Context(), time.Now(), w.agents)
	}
	if err == nil {
		err = w.renewedTwice(t.Context(), began)
	}
	stop()
	<-ended
	if err = errors.Join(err, w.drained(t.Context())); err != nil {
		t.Fatal(err)
	}
	h, err := w.history(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := history.Check(h)
	t.Logf("attempted %d, acknowledged %d, there %d, lost %d", r.Attempted, r.Acked, r.Folded, r.Lost)
	for _, v := range r.Violations {
		t.Error(v)
	}
}

// absent stops an agent until its certificate has ended, and waits until it has returned.
func (w *world) absent(ctx context.Context, a *agent) error {
	mine, err := a.certificate()
	if err != nil {
		return err
	}
	wound, err := a.halted(ctx, time.Until(mine.NotAfter)+2*time.Second)
	if err != nil {
		return err
	}
	if _, err := wound.struck(ctx); err != nil {
		return err
	}
	if err := a.signal(syscall.SIGCONT); err != nil {
		return err
	}
	return eventually(ctx, a.id+" to return", func(ctx context.Context) error {
		list, err := pb.NewAccessServiceClient(w.load.conn).ListAuditEvents(ctx, &pb.ListAuditEventsRequest{
			PageSize: 1, Agent: a.id, Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_AGENT_RETURNED},
		}, grpc.WaitForReady(true))
		if err == nil && len(list.GetEvents()) == 0 {
			err = errors.New("nobody says so")
		}
		return err
	})
}

// renewedTwice waits until every agent has a certificate that was made when its first one, and the next, had to be
// renewed.
func (w *world) renewedTwice(ctx context.Context, began time.Time) error {
	for _, a := range w.agents {
		if err := eventually(ctx, a.id+" to renew", func(context.Context) error {
			mine, err := a.certificate()
			if err == nil && mine.NotAfter.Before(began.Add(2*certificateLife)) {
				err = fmt.Errorf("its certificate ends at %s", mine.NotAfter)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
