package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/internal/spool"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxJob bounds the time that a coordinator can ask of a job.
	maxJob = 10 * time.Minute
	// maxKnown bounds the jobs that are remembered, so that none is run twice, and maxDeclined those that were declined.
	maxKnown, maxDeclined = 16 << 10, 1 << 10
	// maxID bounds a measurement's id, in bytes, which is remembered that often and goes into every Result. A
	// coordinator's own have 26.
	maxID = 64
	// maxDetail bounds why a job is declined, in bytes.
	maxDetail = 200
	// spoolHigh is the share of the spool above which no job is taken.
	spoolHigh = 0.8
)

// jobs runs the agent's jobs: each once, so many at a time.
type jobs struct {
	env      *probe.Env
	agent    string
	capacity int
	spool    *spool.Spool
	started  *started
	log      *slog.Logger
	policy   *policy

	wg       sync.WaitGroup
	mu       sync.Mutex
	running  map[spool.Key]context.CancelFunc
	known    recent[struct{}]
	declined recent[*pb.JobReply] // with why
	ended    uint64               // how many have run
	draining bool
	empty    chan struct{} // closed when draining and nothing runs
}

// newJobs has nothing running. What took the agent down too often has its Result from here.
func newJobs(opts Options, agent string, sp *spool.Spool) (*jobs, error) {
	st, err := openStarted(filepath.Join(opts.DataDir, "started"))
	if err != nil {
		return nil, err
	}
	j := &jobs{
		env: opts.Env, agent: agent, capacity: opts.Capacity, spool: sp, started: st, log: opts.Log,
		policy:  newPolicy(opts),
		running: map[spool.Key]context.CancelFunc{},
		known:   newRecent[struct{}](maxKnown), declined: newRecent[*pb.JobReply](maxDeclined),
		empty: make(chan struct{}),
	}
	for key, of := range st.quarantined() {
		j.quarantine(key, of)
	}
	return j, nil
}

// quarantine answers for a job that takes the agent down: it is not run, and its Result says why.
func (j *jobs) quarantine(key spool.Key, of suspect) {
	j.known.note(key, struct{}{})
	if of.crashes > maxCrashes {
		return // it was said
	}
	job := &pb.Job{MeasurementId: key.Measurement, Round: key.Round}
	result := complete(crashResult(of.kind), job, j.agent, time.Now())
	chaos.Result(chaos.Attempted, result, nil)
	err := j.spool.Append(result)
	if err == nil {
		j.started.answered(key, of)
	}
	j.log.Warn("a job is not run any more: the agent died of it, or beside it", "measurement", key.Measurement, "crashes", maxCrashes, "error", err)
}

// take answers for a job and runs it if the answer is yes. A job that is known already is accepted and
// not run again; one that was declined stays so: a coordinator that is told no waits for no result of it.
func (j *jobs) take(job *pb.Job) *pb.JobReply {
	key := spool.Key{Measurement: job.GetMeasurementId(), Round: job.GetRound()}
	if job.GetAgent() != j.agent || key.Measurement == "" || len(key.Measurement) > maxID {
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_INTERNAL, Detail: "the job is not for this agent"}
	}
	if reply := j.said(key); reply != nil {
		return reply
	}
	reply := j.refuse(key, job)
	if reply == nil {
		reply = j.start(key, job)
	}
	if len(reply.GetDetail()) > maxDetail { // it may have words of the job's, of which one can be 256 KiB long
		reply.Detail = strings.ToValidUTF8(strings.Clone(reply.GetDetail()[:maxDetail]), "")
	}
	if final(reply.GetFailure()) {
		j.mu.Lock()
		j.declined.note(key, reply)
		j.mu.Unlock()
	}
	return reply
}

// final tells whether an answer is a no that counts.
func final(f pb.Failure) bool {
	switch f {
	case pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_UNSPECIFIED, pb.Failure_FAILURE_AGENT_DEADLINE:
		return false
	default:
		return true
	}
}

// start runs a job, if there is room for it.
func (j *jobs) start(key spool.Key, job *pb.Job) *pb.JobReply {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.draining:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: "the agent is about to stop"}
	case len(j.running) >= j.policy.capacity():
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: fmt.Sprintf("%d jobs are running, as many as may", len(j.running))}
	}
	remaining := min(job.GetRemaining().AsDuration(), maxJob)
	ctx, cancel := context.WithTimeout(j.policy.work(), remaining)
	j.running[key] = cancel
	j.known.note(key, struct{}{})
	j.started.begin(key, firstKind(job))
	j.wg.Go(func() { j.run(ctx, key, job) })
	return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE}
}

// said is the answer that a job had before, if it had one. Jobs come one at a time, so it stays so.
func (j *jobs) said(key spool.Key) *pb.JobReply {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.known.by[key]; ok {
		return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE}
	}
	return j.declined.by[key]
}

// refuse returns the answer to a job that will not be run, nil if it may be.
func (j *jobs) refuse(key spool.Key, job *pb.Job) *pb.JobReply {
	switch {
	case j.spool.Has(key):
		return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE} // its result is on the way
	case j.spool.Err() != nil:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: "results cannot be kept: " + j.spool.Err().Error()}
	case j.spool.Usage() > spoolHigh:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: "too many results wait for a coordinator"}
	case job.GetRemaining().AsDuration() <= 0:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_DEADLINE, Detail: "no time is left"}
	}
	if failure, detail := probe.Admit(j.env, job); failure != pb.Failure_FAILURE_NONE {
		return &pb.JobReply{Failure: failure, Detail: detail}
	}
	return nil
}

// recent is what is remembered of the jobs that came last.
type recent[V any] struct {
	by    map[spool.Key]V
	order []spool.Key // the oldest first
	most  int
}

func newRecent[V any](most int) recent[V] { return recent[V]{by: map[spool.Key]V{}, most: most} }

// note remembers a job, and forgets the oldest beyond the bound.
func (r *recent[V]) note(key spool.Key, v V) {
	r.by[key] = v
	r.order = append(r.order, key)
	if len(r.order) > r.most {
		delete(r.by, r.order[0])
		r.order = r.order[1:]
	}
}

// run runs one job and spools its result, unless the job was cancelled.
func (j *jobs) run(ctx context.Context, key spool.Key, job *pb.Job) {
	began := time.Now()
	result := probe.Run(ctx, j.env, job)
	cancelled := errors.Is(context.Cause(ctx), context.Canceled) // what the operator stopped has a result
	var err error
	if !cancelled {
		chaos.Result(chaos.Attempted, complete(result, job, j.agent, began), nil)
		if err = j.spool.Append(result); err != nil {
			chaos.Result(chaos.Discarded, result, err)
		}
	}
	j.started.end(key)
	j.mu.Lock()
	j.running[key]()
	delete(j.running, key)
	j.ended++
	if j.draining && len(j.running) == 0 {
		close(j.empty)
	}
	j.mu.Unlock()
	j.report(job, result, cancelled, err)
}

// complete makes sure that a result says whose it is.
func complete(r *pb.Result, job *pb.Job, agent string, began time.Time) *pb.Result {
	r.MeasurementId, r.Round, r.Agent = job.GetMeasurementId(), job.GetRound(), agent
	if r.GetStartTime() == nil {
		r.StartTime = timestamppb.New(began)
	}
	return r
}

// report writes the one line of a job.
func (j *jobs) report(job *pb.Job, r *pb.Result, cancelled bool, err error) {
	failures := map[string]int{}
	for _, s := range r.GetSteps() {
		if s.GetFailure() != pb.Failure_FAILURE_NONE {
			failures[s.GetFailure().String()]++
		}
	}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelError
	}
	j.log.Log(context.Background(), level, "job",
		"measurement", job.GetMeasurementId(), "steps", len(r.GetSteps()), "failures", failures,
		"duration", r.GetDuration().AsDuration().Round(time.Microsecond), "cancelled", cancelled, "error", err)
}

// cancel ends a job that is not wanted any more; it leaves no result.
func (j *jobs) cancel(c *pb.Cancel) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if cancel := j.running[spool.Key{Measurement: c.GetMeasurementId(), Round: c.GetRound()}]; cancel != nil {
		cancel()
	}
}

// drain takes nothing new from now on.
func (j *jobs) drain() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.draining {
		j.draining = true
		if len(j.running) == 0 {
			close(j.empty)
		}
	}
}

// idle returns a channel that is closed when, after drain, nothing runs.
func (j *jobs) idle() <-chan struct{} { return j.empty }

func (j *jobs) cancelAll() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, cancel := range j.running {
		cancel()
	}
}

func (j *jobs) wait() { j.wg.Wait() }

// load is the number of jobs under way, and whether nothing new is taken.
func (j *jobs) load() (running int32, draining bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int32(len(j.running)), j.draining
}

// work is the number of jobs under way, and of those that have run.
func (j *jobs) work() (running int32, ended uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return int32(len(j.running)), j.ended
}

// quiet tells moments apart at which the agent has come to rest.
type quiet struct {
	ended uint64 // when it was last looked at
	told  bool
}

// came tells, once after every spell of work and once after the start, that nothing has run since the last look.
func (q *quiet) came(running int32, ended uint64) bool {
	worked := running > 0 || ended != q.ended
	rests := !worked && !q.told
	q.ended, q.told = ended, !worked
	return rests
}
