package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// patience is how long anything may take to come up on a machine that is busy with much else.
const patience = 10 * time.Minute

// program is one that is started again and again in one place, with one name.
type program struct {
	w     *world
	name  string
	where space
	args  func() []string
	// previous has its next start be that of the version before.
	previous bool

	mu     sync.Mutex
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
	starts int
	ends   []time.Time // when it was killed, or its power cut
	// spoiled is when it wrote results that nobody can find any more.
	spoiled []history.Span
	peak    int64 // the most memory that it had at a look, in bytes
}

// start starts the program. It runs until the world ends it.
func (p *program) start(ctx context.Context) error {
	out, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	args := p.args()
	if p.previous {
		args[0] = filepath.Join(previousDir(), filepath.Base(args[0]))
	}
	cmd := p.where.Command(context.WithoutCancel(ctx), args...)
	cmd.Env = append(cmd.Env, chaos.EventsVariable+"="+p.events(), chaos.PointVariable+"="+p.order())
	cmd.Stdout, cmd.Stderr = out, out
	done := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(done)
	}()
	p.cmd, p.done = cmd, done
	p.starts++
	return nil
}

func (p *program) log() string    { return filepath.Join(p.w.dir, p.name+".log") }
func (p *program) events() string { return filepath.Join(p.w.dir, p.name+".events") }
func (p *program) order() string  { return filepath.Join(p.w.dir, p.name+".order") }

// process is the running one, and a channel that is closed when it ends.
func (p *program) process() (*exec.Cmd, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done
}

func (p *program) signal(sig syscall.Signal) error {
	cmd, _ := p.process()
	return cmd.Process.Signal(sig)
}

// alive tells whether it runs.
func (p *program) alive() bool {
	_, done := p.process()
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// ended notes the time when the process was killed.
func (p *program) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, time.Now())
}

// kill ends the process with SIGKILL, and proves that it died of that.
func (p *program) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.died(time.Second * 10)
}

// died waits until the process is gone, and checks that SIGKILL was the reason.
func (p *program) died(within time.Duration) error {
	cmd, done := p.process()
	select {
	case <-done:
	case <-time.After(within):
		return fmt.Errorf("%s still runs after %v", p.name, within)
	}
	p.ended()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s ended by itself: %s", p.name, cmd.ProcessState)
	}
	return nil
}

// doom has the process die when it passes a point for the nth time, and waits until it knows.
func (p *program) doom(ctx context.Context, point string, n int) error {
	fresh := p.order() + ".new"
	if err := os.WriteFile(fresh, fmt.Appendf(nil, "%s %d\n", point, n), 0o600); err != nil {
		return err
	}
	if err := os.Rename(fresh, p.order()); err != nil {
		return err
	}
	return eventually(ctx, p.name+" to take its orders", func(context.Context) error {
		if _, err := os.Stat(p.order()); err == nil {
			return errors.New("it did not read them")
		}
		return nil
	})
}

// size is how large the process is now; its goroutines are what it told last.
func (p *program) size(goroutines int) (history.Size, error) {
	cmd, _ := p.process()
	dir := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return history.Size{}, err
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return history.Size{}, err
	}
	kib := 0
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			break
		}
	}
	s := history.Size{Resident: int64(kib) << 10, Goroutines: goroutines, Files: len(files)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peak = max(p.peak, s.Resident)
	return s, nil
}

// eventually asks until there is no error. What is waited for are other processes, which cannot tell.
func eventually(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var why error // that it was not so, before the time was over
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, errEnded) { // for good
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(why, ctx.Err()))
		case <-tick.C:
		}
	}
}
