// Package agentpolicy is the file in which an agent's operator says what may be measured from there, whatever a
// coordinator asks: docs/agent-policy.md. It reads the file, and reads it again when it changes.
package agentpolicy

import (
	"context"
	"log/slog"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// maxSize bounds a file, in bytes.
const maxSize = 256 << 10

// Policy is what a file says.
type Policy struct {
	probe.Policy

	// Concurrency is the number of jobs that may run at once. 0: as many as the agent is made for.
	Concurrency int

	limits limits
}

// limits are those of a Budget. Two that are equal make one Budget.
type limits struct {
	burst, totalBurst         int
	perSecond, totalPerSecond float64
}

func (l limits) budget() *probe.Budget {
	return &probe.Budget{Burst: l.burst, PerSecond: l.perSecond, TotalBurst: l.totalBurst, TotalPerSecond: l.totalPerSecond}
}

// File is a policy's file, and what it said when it could be read last.
type File struct{ *file.Watched[*Policy] }

// Open reads a policy's file for the first time. The ranges of base, those of the command line, are allowed and denied
// beside the file's. What is wrong with the file is one line each, with its line and what to do.
func Open(path string, base probe.Egress) (*File, error) {
	w, err := file.Watch(path, maxSize, func(data []byte, before *Policy) (*Policy, error) {
		p, err := Parse(path, data)
		if err != nil {
			return nil, err
		}
		p.Egress.Allow = append(p.Egress.Allow, base.Allow...)
		p.Egress.Deny = append(p.Egress.Deny, base.Deny...)
		if before != nil && before.limits == p.limits {
			p.Budget = before.Budget // What targets have used up stays used up.
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return &File{w}, nil
}

// Follow reads the file again whenever it changes, until ctx ends. A version that cannot be read changes nothing: the
// one before holds, and log says so at once and then every minute, until the file is right again.
func (f *File) Follow(ctx context.Context, log *slog.Logger) {
	f.Watched.Follow(ctx, func(changed bool, err error) {
		if err != nil {
			log.Error("the policy file cannot be used: the policy before it still holds", "error", err)
			return
		}
		p, _ := f.Current()
		log.Warn("the policy file holds as it is now", "policy", f.Path(), "changed", changed, "stopped", p.Stopped != "")
	})
}
