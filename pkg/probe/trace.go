package probe

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trace records what one Run does. Steps get their place when they begin, and many run at once.
type trace struct {
	*record
	running sync.WaitGroup
	aside   bool // It runs beside the pipeline: see besides.
}

// record is what the traces of one Run share.
type record struct {
	env       *Env
	job       *pb.Job
	begin     time.Time
	resolvers []netip.AddrPort
	own       func(netip.Addr) bool // Whether it is an address of the host.
	optOut    OptOut                // The job's.
	badOptOut error                 // Why it is none.
	anchors   func() anchors
	issuers   issuers
	settled   chan struct{} // Closed when the pipeline has ended.
	asides    sync.WaitGroup
	readers   sync.WaitGroup // Of sockets that a Run has for itself.

	mu     sync.Mutex // Guards what follows, and each Step.
	steps  []*step
	groups map[string]bool // The control groups that were begun.
	paid   []payment       // What was taken of the budget.
	broken string          // What panicked.

	late      []*datagram // Those that go on listening after their queries.
	lateUntil time.Time
	given     bool // The Result was given away, and is not changed any more.
}

// step is one Step that is being made.
type step struct {
	t     *trace
	pb    *pb.Step
	index int32
	began time.Time
	// doubted, of a query, finds out more about the server that answered. Nil: there is no more to find.
	doubted func(context.Context, *trace)
}

func newTrace(env *Env, job *pb.Job) *trace {
	optOut, err := ParseOptOut(job.GetOptOuts())
	return &trace{record: &record{
		optOut:    optOut,
		badOptOut: err,
		env:       env,
		job:       job,
		begin:     time.Now(),
		resolvers: env.resolvers(),
		own:       isOwn,
		anchors: sync.OnceValue(func() anchors {
			return newAnchors(slices.Concat(env.Roots, certificatesOf(profileOf(job.GetSpec()).GetRoots())))
		}),
		settled: make(chan struct{}),
	}}
}

// spawn runs f beside the caller; Run returns when all that was spawned has.
func (t *trace) spawn(f func()) {
	t.running.Go(func() { t.guarded(f) })
}

// guarded runs f. What a target sends may make a parser panic: that is the agent's failure, and must not
// take the agent down.
func (r *record) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			_, stack, _ := strings.Cut(string(debug.Stack()), "panic(")
			r.mu.Lock()
			defer r.mu.Unlock()
			r.broken = clean(fmt.Sprintf("panic: %v at %s", p, stack), maxText)
		}
	}()
	f()
}

// lingers notes that a send goes on listening after its query has ended.
func (r *record) lingers(l *datagram, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = append(r.late, l)
	if until.After(r.lateUntil) {
		r.lateUntil = until
	}
}

// lateReplies waits until the sends have listened for long enough, and for those who read for them.
func (r *record) lateReplies(ctx context.Context) {
	r.mu.Lock()
	late, until := r.late, r.lateUntil
	r.mu.Unlock()
	if len(late) > 0 {
		wait(ctx, time.Until(until))
	}
	for _, l := range late {
		l.socket.leave(l)
	}
	r.readers.Wait()
}

// open begins a step.
func (t *trace) open(p *pb.Step) *step {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &step{t: t, pb: p, index: int32(len(t.steps)), began: time.Now()}
	p.Start = durationpb.New(s.began.Sub(t.begin)) // Monotonic, as every duration here.
	p.Evidence = &pb.Evidence{}
	t.steps = append(t.steps, s)
	return s
}

// once says whether key is new, for things that a Run does at most once.
func (t *trace) once(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.groups[key] {
		return false
	}
	if t.groups == nil {
		t.groups = map[string]bool{}
	}
	t.groups[key] = true
	return true
}

// now is the coordinator's time: what it said when it sent the job, and the monotonic time since.
func (t *trace) now() time.Time {
	sent := t.job.GetCoordinatorTime()
	if !sent.IsValid() {
		return time.Now()
	}
	return sent.AsTime().Add(time.Since(t.begin))
}

// result ends the trace.
func (t *trace) result() *pb.Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.given = true
	r := &pb.Result{
		MeasurementId: t.job.GetMeasurementId(),
		Round:         t.job.GetRound(),
		Agent:         t.job.GetAgent(),
		StartTime:     timestamppb.New(t.begin),
		Duration:      durationpb.New(time.Since(t.begin)),
		Version:       t.env.Version,
	}
	if sent := t.job.GetCoordinatorTime(); sent.IsValid() {
		r.CoordinatorTime = timestamppb.New(sent.AsTime())         // Its own: fields that nobody knows stay behind.
		r.ClockOffset = durationpb.New(t.begin.Sub(sent.AsTime())) // One wall clock less the other.
	}
	for _, s := range t.kept() {
		if s.pb.GetFailure() == pb.Failure_FAILURE_UNSPECIFIED { // Its goroutine panicked.
			s.pb.Failure = pb.Failure_FAILURE_AGENT_INTERNAL
			s.pb.Failures = []pb.Failure{s.pb.GetFailure()}
			s.pb.Evidence.Text = t.broken
		}
		r.Steps = append(r.Steps, s.pb)
	}
	if len(r.GetSteps()) == 0 { // It panicked before the first one. A Result without steps says nothing.
		r.Steps = []*pb.Step{{
			Kind:     firstKind(t.job.GetSpec()),
			Role:     pb.Role_ROLE_TARGET,
			Failure:  pb.Failure_FAILURE_AGENT_INTERNAL,
			Failures: []pb.Failure{pb.Failure_FAILURE_AGENT_INTERNAL},
			Evidence: &pb.Evidence{Text: t.broken},
		}}
	}
	fit(r)
	return r
}

// instead puts a failure in place of another one, after a closer look told more.
func (s *step) instead(before, f pb.Failure) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	others := slices.DeleteFunc(s.pb.GetFailures(), func(g pb.Failure) bool { return g == before || g == f })
	s.pb.Failure, s.pb.Failures = f, append([]pb.Failure{f}, others...)
}

// failure is how the step ended.
func (s *step) failure() pb.Failure {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.pb.GetFailure()
}

// see changes the step's evidence.
func (s *step) see(f func(*pb.Evidence)) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if !s.t.given {
		f(s.pb.GetEvidence())
	}
}

// say keeps the last error for people.
func (s *step) say(err error) {
	if err != nil {
		s.see(func(e *pb.Evidence) { e.Text = clean(err.Error(), maxText) })
	}
}

// end ends the step: what stopped it first, then all else that was wrong.
func (s *step) end(failures ...pb.Failure) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.pb.Duration = durationpb.New(time.Since(s.began))
	s.pb.Failure = pb.Failure_FAILURE_NONE
	for _, f := range failures {
		if f != pb.Failure_FAILURE_NONE && !slices.Contains(s.pb.GetFailures(), f) {
			s.pb.Failures = append(s.pb.GetFailures(), f)
		}
	}
	if len(s.pb.GetFailures()) > 0 {
		s.pb.Failure = s.pb.GetFailures()[0]
	}
}

// attempt makes one attempt and notes how it failed, if it did.
func (s *step) attempt(ctx context.Context, op func(context.Context) pb.Failure) pb.Failure {
	if over(ctx) {
		return pb.Failure_FAILURE_AGENT_DEADLINE
	}
	began := time.Now()
	s.t.mu.Lock()
	s.pb.Attempts++
	s.t.mu.Unlock()
	f := op(ctx)
	if f != pb.Failure_FAILURE_NONE {
		s.tried(f, time.Since(began))
	}
	return f
}

// tried notes a failed attempt.
func (s *step) tried(f pb.Failure, took time.Duration) {
	s.see(func(e *pb.Evidence) {
		e.Tries = append(e.GetTries(), &pb.Attempt{Failure: f, Duration: durationpb.New(took)})
	})
}

// twice makes a second attempt if the first one failed, at least a second after it began, with the
// controls beside it (docs/findings.md, rules 1 and 2).
func (s *step) twice(ctx context.Context, controls func(), op func(context.Context) pb.Failure) pb.Failure {
	began := time.Now()
	f := s.attempt(ctx, op)
	if settled(f) {
		return f
	}
	if !wait(ctx, time.Until(began.Add(spacing))) {
		return pb.Failure_FAILURE_AGENT_DEADLINE
	}
	controls()
	return s.attempt(ctx, op)
}

// settled says whether a second attempt cannot change anything.
func settled(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_NONE || f == pb.Failure_FAILURE_AGENT_DEADLINE ||
		f == pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING ||
		f >= pb.Failure_FAILURE_HTTP_MALFORMED // The target's own bytes.
}

// wait sleeps and says whether ctx let it.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !over(ctx)
	case <-ctx.Done():
		return false
	}
}

// over says whether ctx has ended. A socket's deadline may fire a moment before the context's timer:
// the time counts, not the timer.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}
