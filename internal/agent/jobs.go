package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/spool"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxJob bounds the time that a coordinator can ask of a job.
	maxJob = 10 * time.Minute
	// maxKnown bounds the jobs that are remembered, so that none is run twice.
	maxKnown = 16 << 10
	// maxID bounds a measurement's id, in bytes, which is remembered that often and goes into every Result. A
	// coordinator's own have 26.
	maxID = 64
	// spoolHigh is the share of the spool above which no job is taken.
	spoolHigh = 0.8
)

// jobs runs the agent's jobs: each once, so many at a time.
type jobs struct {
	env      *probe.Env
	agent    string
	capacity int
	spool    *spool.Spool
	log      *slog.Logger

	wg       sync.WaitGroup
	mu       sync.Mutex
	running  map[spool.Key]context.CancelFunc
	known    map[spool.Key]struct{}
	order    []spool.Key // of known, the oldest first
	draining bool
	empty    chan struct{} // closed when draining and nothing runs
}

func newJobs(opts Options, agent string, sp *spool.Spool) *jobs {
	return &jobs{
		env: opts.Env, agent: agent, capacity: opts.Capacity, spool: sp, log: opts.Log,
		running: map[spool.Key]context.CancelFunc{},
		known:   map[spool.Key]struct{}{},
		empty:   make(chan struct{}),
	}
}

// take answers for a job and runs it if the answer is yes. A job that is known already is accepted and
// not run again.
func (j *jobs) take(job *pb.Job) *pb.JobReply {
	key := spool.Key{Measurement: job.GetMeasurementId(), Round: job.GetRound()}
	if j.knows(key) {
		return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE}
	}
	if reply := j.refuse(key, job); reply != nil {
		return reply
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.draining:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: "the agent is about to stop"}
	case len(j.running) >= j.capacity:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: fmt.Sprintf("%d jobs are running, as many as may", j.capacity)}
	}
	remaining := min(job.GetRemaining().AsDuration(), maxJob)
	ctx, cancel := context.WithTimeout(context.Background(), remaining)
	j.running[key] = cancel
	j.remember(key)
	j.wg.Go(func() { j.run(ctx, key, job) })
	return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE}
}

// knows tells whether a job was accepted before. Jobs come one at a time, so it stays so.
func (j *jobs) knows(key spool.Key) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.known[key]
	return ok
}

// refuse returns the answer to a job that will not be run, nil if it may be.
func (j *jobs) refuse(key spool.Key, job *pb.Job) *pb.JobReply {
	switch {
	case job.GetAgent() != j.agent || key.Measurement == "" || len(key.Measurement) > maxID:
		return &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_INTERNAL, Detail: "the job is not for this agent"}
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

// remember notes a job, and forgets the oldest beyond the bound.
func (j *jobs) remember(key spool.Key) {
	j.known[key] = struct{}{}
	j.order = append(j.order, key)
	if len(j.order) > maxKnown {
		delete(j.known, j.order[0])
		j.order = j.order[1:]
	}
}

// run runs one job and spools its result, unless the job was cancelled.
func (j *jobs) run(ctx context.Context, key spool.Key, job *pb.Job) {
	began := time.Now()
	result := probe.Run(ctx, j.env, job)
	cancelled := errors.Is(ctx.Err(), context.Canceled)
	var err error
	if !cancelled {
		err = j.spool.Append(complete(result, job, j.agent, began))
	}
	j.mu.Lock()
	j.running[key]()
	delete(j.running, key)
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
