package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/elsewhere-net/elsewhere/internal/agentpolicy"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// errStopped is why jobs end whose agent was stopped by its operator. They have results, which say so.
var errStopped = errors.New("stopped by the operator")

// policy is the operator's file at work: what jobs run under. Without a file nothing is ever stopped.
type policy struct {
	file *agentpolicy.File // Nil: there is none.
	most int               // The jobs that the agent is made for.

	mu   sync.Mutex
	jobs context.Context // What runs runs under it. It ends when the operator stops the agent.
	stop context.CancelCauseFunc
}

func newPolicy(opts Options) *policy {
	p := &policy{file: opts.Policy, most: opts.Capacity}
	p.jobs, p.stop = context.WithCancelCause(context.Background())
	return p
}

// under makes an Env ask the operator's file. Env's own policy stays what it is if there is none.
func (p *policy) under(env *probe.Env) {
	if p.file != nil {
		env.Policy = func() *probe.Policy {
			now, _ := p.file.Current()
			return &now.Policy
		}
	}
}

// capacity is the number of jobs that may run at once.
func (p *policy) capacity() int {
	if p.file != nil {
		if now, _ := p.file.Current(); now.Concurrency > 0 {
			return min(p.most, now.Concurrency)
		}
	}
	return p.most
}

// work is what a job that begins now runs under.
func (p *policy) work() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jobs
}

// follow reads the file again when it changes, and ends what runs when it says so, until ctx ends.
func (p *policy) follow(ctx context.Context, log *slog.Logger) {
	if p.file == nil {
		return
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { p.file.Follow(ctx, log) })
	for {
		now, changed := p.file.Current()
		if now.Stopped != "" {
			p.halt()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// halt ends all jobs. What begins later has a policy that lets it.
func (p *policy) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop(errStopped)
	p.jobs, p.stop = context.WithCancelCause(context.Background())
}
