package probe

import (
	"context"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// besides runs f beside the pipeline, on a trace of its own into the same Result. Its steps are evidence
// for the judge and never about the target itself, so they must not make a Job long: f has until grace
// after the pipeline's end, and what is not done by then is left out of the Result.
func (t *trace) besides(ctx context.Context, grace time.Duration, f func(context.Context, *trace)) {
	t.asides.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-t.settled:
				wait(ctx, grace+2*t.env.patience) // Twice: one silent server alone is waited for once as much longer.
				cancel()
			case <-ctx.Done():
			}
		}()
		side := &trace{record: t.record, aside: true}
		side.spawn(func() { f(ctx, side) })
		side.running.Wait()
	})
}

// kept returns the steps that belong into the Result, with the references between them put right.
func (r *record) kept() []*step {
	var out []*step
	place := make([]int32, len(r.steps))
	for i, s := range r.steps {
		place[i] = -1
		if s.t.aside && s.pb.GetFailure() == pb.Failure_FAILURE_AGENT_DEADLINE {
			continue
		}
		place[i] = int32(len(out))
		out = append(out, s)
	}
	for _, s := range out {
		moved(&s.pb.Beside, place)
		for _, redirect := range s.pb.GetEvidence().GetHttp().GetRedirects() {
			moved(&redirect.Step, place)
		}
	}
	return out
}

// moved puts a reference to a step right; it is none if the step is gone. Several steps may share the
// number that a reference points to, which therefore stays as it is.
func moved(ref **int32, place []int32) {
	if *ref == nil {
		return
	}
	to := place[**ref]
	*ref = &to
	if to < 0 {
		*ref = nil
	}
}
