package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// usualPause is the time between two turns where no time to live says when something may change.
	usualPause = 15 * time.Second
	// longestPause is the longest one: caches are also emptied before their time.
	longestPause = time.Minute
	// cacheSlack is how long after a time to live has ended the next turn is: caches round.
	cacheSlack = time.Second
)

// watching asks one question again and again, always of the same agents, until what is expected is served
// everywhere or its time is over. It keeps the last measurement and no more.
type watching struct {
	*asking
	client pb.MeasurementServiceClient
	every  time.Duration // 0: as the times to live say
	turns  render.Turns
	from   string
	last   *pb.Measurement
}

// run watches for a while.
func (w *watching) run(ctx context.Context, while time.Duration) error {
	end := time.Now().Add(while)
	for {
		m, err := w.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return w.interrupted(m)
		case err != nil && (w.last == nil || !passingTurn(err)):
			w.turns.Abort()
			return w.endpoint.explain(ctx, err)
		case err == nil:
			w.keep(m)
		}
		pause := min(w.pause(w.last), time.Until(end))
		over := pause <= 0
		if err != nil && !over {
			w.turns.Trouble(render.Clean(oneLine(rpcError(ctx, err).Error())), pause)
		} else if err == nil {
			over = over || propagated(m)
			if err := w.turns.Turn(m, pause); err != nil {
				w.turns.Abort()
				return written(err)
			}
		}
		if over {
			return w.finish()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return w.interrupted(nil)
		}
	}
}

// keep keeps the last measurement, whose agents are asked again. For people all turns are from the place that
// they named.
func (w *watching) keep(m *pb.Measurement) {
	if w.last == nil {
		w.from = w.request.GetFrom()
	}
	w.last, w.request.From = m, m.GetId()
	if w.screen.Format == render.Table || w.screen.Format == "" {
		m.From = w.from
	}
}

// turn asks once and waits for the answer.
func (w *watching) turn(ctx context.Context) (*pb.Measurement, error) {
	m, err := create(ctx, w.client, w.request)
	if err != nil {
		return nil, err
	}
	w.remember(m)
	f := &follower{client: w.client, errs: w.screen.Err, report: unseen{}, m: m, owned: true}
	return f.run(ctx)
}

// unseen is the reporter of a turn: turns are shown when they are over.
type unseen struct{}

// Begin shows nothing.
func (unseen) Begin(*pb.Measurement) {}

// Update shows nothing.
func (unseen) Update(*pb.Measurement, []*pb.Result) {}

// Waiting shows nothing: the next turn comes when it can.
func (unseen) Waiting() {}

// End shows nothing.
func (unseen) End(*pb.Measurement) error { return nil }

// Abort has nothing to clear away.
func (unseen) Abort() {}

// passingTurn says whether the next turn may go better: not where the question or the asker is refused.
func passingTurn(err error) bool {
	return !slices.Contains([]codes.Code{
		codes.InvalidArgument, codes.NotFound, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented,
	}, status.Code(err))
}

// propagated says whether every perspective serves what is expected, and none of the zone's own servers
// serves something else.
func propagated(m *pb.Measurement) bool {
	p := render.PropagationOf(m).GetPropagation()
	return p.GetJudged() > 0 && p.GetServing() == p.GetJudged() && len(p.GetAuthorities()) == 0
}

// pause is how long to wait before the next turn: until shortly after the first cache lets go of what it
// has, within bounds.
func (w *watching) pause(m *pb.Measurement) time.Duration {
	if w.every != 0 {
		return w.every
	}
	first := usualPause
	known := false
	for _, one := range render.PropagationOf(m).GetPropagation().GetPerspectives() {
		left := usualPause
		switch {
		case one.GetServing() || !one.GetJudged():
			continue
		case one.GetUntil() != nil: // both by the coordinator's clock
			left = one.GetUntil().AsTime().Sub(m.GetFinishTime().AsTime()) + cacheSlack
		}
		if !known || left < first {
			first, known = left, true
		}
	}
	return min(max(first, minEvery), longestPause)
}

// finish shows the last measurement. It counts as a failure if its time was over first, whatever else the
// verdict says.
func (w *watching) finish() error {
	if err := w.turns.End(w.last); err != nil {
		return written(err)
	}
	err := verdict(w.last)
	if err == nil && !propagated(w.last) {
		return &Error{Code: ExitFail}
	}
	return err
}

// interrupted shows what was known: the last measurement that came to its end, or else what came of the
// first one.
func (w *watching) interrupted(m *pb.Measurement) error {
	if w.last == nil {
		w.last = m
	}
	if w.last == nil {
		w.turns.Abort()
		return interrupted()
	}
	if err := w.turns.End(w.last); err != nil {
		return written(err)
	}
	p := render.PropagationOf(w.last).GetPropagation()
	return &Error{ExitInterrupted, fmt.Errorf("interrupted when %d of %d perspectives served it", p.GetServing(), p.GetJudged())}
}
