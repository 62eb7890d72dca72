// Package agentpolicy is the file in which an agent's operator says what may be measured from there, whatever a
// coordinator asks: docs/agent-policy.md. It reads the file, and reads it again when it changes.
package agentpolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

const (
	// maxSize bounds a file, in bytes.
	maxSize = 256 << 10
	// look is the time between two looks at the file.
	look = 500 * time.Millisecond
	// complain is the time after which a file that is still wrong is spoken of again.
	complain = time.Minute
)

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
type File struct {
	path string
	// base is what the command line says: it is added to what every version of the file says.
	base probe.Egress

	mu      sync.Mutex
	data    []byte
	policy  *Policy
	changed chan struct{} // Closed when the policy is replaced.
}

// Open reads a policy's file for the first time. The ranges of base, those of the command line, are allowed and denied
// beside the file's. What is wrong with the file is one line each, with its line and what to do.
func Open(path string, base probe.Egress) (*File, error) {
	f := &File{path: path, base: base, changed: make(chan struct{})}
	if _, err := f.reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Current is the policy of this moment, and a channel that is closed when another one takes its place.
func (f *File) Current() (*Policy, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policy, f.changed
}

// Follow reads the file again whenever it changes, until ctx ends. A version that cannot be read changes nothing: the
// one before holds, and log says so at once and then every minute, until the file is right again.
func (f *File) Follow(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	wrong, said := "", time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := f.reload()
		switch {
		case err != nil && (err.Error() != wrong || time.Since(said) >= complain):
			wrong, said = err.Error(), time.Now()
			log.Error("the policy file cannot be used: the policy before it still holds", "error", err)
		case err == nil && (changed || wrong != ""):
			wrong = ""
			p, _ := f.Current()
			log.Warn("the policy file holds as it is now", "policy", f.path, "changed", changed, "stopped", p.Stopped != "")
		}
	}
}

// reload reads the file, and puts what it says in force if it says anything new.
func (f *File) reload() (changed bool, err error) {
	data, err := read(f.path)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.policy != nil && bytes.Equal(data, f.data) {
		return false, nil
	}
	p, err := Parse(f.path, data)
	if err != nil {
		return false, err
	}
	p.Egress.Allow = append(p.Egress.Allow, f.base.Allow...)
	p.Egress.Deny = append(p.Egress.Deny, f.base.Deny...)
	if f.policy != nil && f.policy.limits == p.limits {
		p.Budget = f.policy.Budget // What targets have used up stays used up.
	}
	f.data, f.policy = data, p
	close(f.changed)
	f.changed = make(chan struct{})
	return true, nil
}

// read reads a file that nobody but its owner can write.
func read(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: others than its owner can write it (%v): chmod go-w %s", path, mode, path)
	}
	if stranger(info) {
		return nil, fmt.Errorf("%s: it belongs to neither root nor the user that the agent runs as: chown it", path)
	}
	return file.From(in, path, maxSize)
}
