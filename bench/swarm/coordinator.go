//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// address is where the coordinator listens.
type address struct{ grpc, nats, http string }

// coordinator is the program under test.
type coordinator struct {
	*options
	address
	*process
}

// process is a child.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
	err   error         // how, once ended is closed
}

// spawn starts a child that dies with this process.
func spawn(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// end kills it and returns when it has ended.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// startCoordinator starts it on free ports.
func (o *options) startCoordinator(ctx context.Context) (*coordinator, error) {
	c := &coordinator{options: o}
	for _, port := range []*string{&c.grpc, &c.nats, &c.http} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*port = l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return c, c.start(ctx)
}

// start starts the program and returns when it is ready.
func (c *coordinator) start(ctx context.Context) error {
	said, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = said.Close() }() // the child has its own
	args := []string{"--data-dir", c.data, "--grpc-addr", c.grpc, "--nats-addr", c.nats, "--http-addr", c.http}
	if c.insecure {
		args = append(args, "--insecure")
	}
	cmd := exec.Command(c.program, args...) //nolint:noctx // it is killed by end
	cmd.Stderr = said
	if c.process, err = spawn(cmd); err != nil {
		return err
	}
	for {
		if r, err := get(ctx, "http://"+c.http+"/readyz"); err == nil {
			_ = r.Body.Close()
			return nil
		}
		select {
		case <-c.ended:
			return c.death()
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *coordinator) logFile() string { return filepath.Join(c.spools, "coordinator.log") }

// death says how it ended, with its last words.
func (c *coordinator) death() error {
	text, err := os.ReadFile(c.logFile())
	return errors.Join(fmt.Errorf("the coordinator ended: %w: %s", c.err, text[max(0, len(text)-4096):]), err)
}

// get is a GET that succeeded.
func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r, err := http.DefaultClient.Do(request)
	if err == nil && r.StatusCode != http.StatusOK {
		_ = r.Body.Close()
		err = fmt.Errorf("%s: %s", url, r.Status)
	}
	return r, err
}

// sample is what the coordinator says of itself at a time.
type sample struct {
	resident, heap, stacks float64 // bytes
	goroutines, online     float64
	cpu                    float64 // seconds
}

// scrape reads the metrics.
func (c *coordinator) scrape(ctx context.Context) (s sample, err error) {
	r, err := get(ctx, "http://"+c.http+"/metrics")
	if err != nil {
		select {
		case <-c.ended:
			return s, c.death()
		case <-time.After(5 * time.Second): // it closes its sockets a little before it has ended
			return s, err
		}
	}
	defer func() { _ = r.Body.Close() }()
	wanted := map[string]*float64{
		"process_resident_memory_bytes": &s.resident, "go_memstats_heap_inuse_bytes": &s.heap, "go_memstats_stack_inuse_bytes": &s.stacks,
		"go_goroutines": &s.goroutines, `elsewhere_agents{state="online"}`: &s.online, "process_cpu_seconds_total": &s.cpu,
	}
	found := 0
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if into := wanted[name]; into != nil {
			if *into, err = strconv.ParseFloat(value, 64); err != nil {
				return s, fmt.Errorf("%s: %w", name, err)
			}
			found++
		}
	}
	if found != len(wanted) {
		return s, fmt.Errorf("only %d of %d metrics were found", found, len(wanted))
	}
	return s, nil
}

// memory is what it says of memory, for people.
func (s sample) memory() string {
	mib := func(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/(1<<20)) }
	return fmt.Sprintf("%s resident (heap %s, stacks %s, %.0f goroutines)", mib(s.resident), mib(s.heap), mib(s.stacks), s.goroutines)
}

// online waits until so many agents are online and says how long that took.
func (c *coordinator) online(ctx context.Context, agents int, crowds []*process) (time.Duration, error) {
	for began := time.Now(); ; {
		s, err := c.scrape(ctx)
		if err != nil {
			select {
			case <-c.ended:
				return 0, err
			default: // while all of them come it may be too busy to answer
			}
		}
		if int(s.online) >= agents {
			return time.Since(began), nil
		}
		for _, p := range crowds {
			select {
			case <-p.ended:
				return 0, fmt.Errorf("agents ended: %w", p.err)
			default:
			}
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%.0f of %d agents are online: %w", s.online, agents, err)
		}
	}
}
