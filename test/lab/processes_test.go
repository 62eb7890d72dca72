package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// patience is how long anything may take to come up.
const patience = 20 * time.Second

// process is a program that runs in the world. Its output is in a file of its name.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start starts a program inside a namespace. It runs until the world ends it, not until ctx ends.
func (w *world) start(ctx context.Context, where space, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: name, cmd: where.Command(context.WithoutCancel(ctx), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.procs = append(w.procs, p)
	return p, nil
}

// signal sends a signal to the process, by its id.
func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// dump ends the process with SIGQUIT, which makes a Go program write the stacks of its goroutines, and
// gives it a second for that.
func (p *process) dump() {
	_ = p.signal(syscall.SIGQUIT) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(time.Second):
	}
}

// startCoordinator starts the coordinator, on the data that is there, and waits until it is ready.
func (w *world) startCoordinator(ctx context.Context) error {
	_, err := w.runCoordinator(ctx)
	return err
}

func (w *world) runCoordinator(ctx context.Context) (*process, error) {
	p, err := w.start(ctx, w.coordinator, "coordinator", filepath.Join(w.bin, "elsewhere-coordinator"),
		"--data-dir", filepath.Join(w.dir, "coordinator"),
		"--grpc-addr", grpcAddr, "--nats-addr", natsAddr, "--http-addr", httpAddr)
	if err != nil {
		return nil, err
	}
	return p, w.listening(ctx, w.coordinator, grpcAddr)
}

// startAgents starts all agents and waits until the coordinator knows that they are there.
func (w *world) startAgents(ctx context.Context) error {
	for _, a := range w.agents {
		if err := w.startAgent(ctx, a); err != nil {
			return err
		}
	}
	return w.online(ctx)
}

func (w *world) startAgent(ctx context.Context, a *vantage) (err error) {
	join, err := w.join(ctx, a)
	if err != nil {
		return err
	}
	args := []string{
		filepath.Join(w.bin, "elsewhere-agent"), "--coordinator", grpcAddr,
		"--data-dir", filepath.Join(w.dir, a.id), "--id", a.id, "--region", a.region,
		"--resolver", a.resolver, "--root-server", rootServer, "--roots", w.authority.file,
		"--control", "a." + controlZone + ":443", "--control", "b." + controlZone + ":8443",
		"--allow-target", "203.0.113.0/24", "--allow-target", "198.51.100.0/24", "--allow-target", "2001:db8::/32",
		"--allow-target", "192.0.2.0/24", "--allow-target", crowdNet,
	}
	if strings.HasSuffix(a.id, "-2") { // its operator measures a private network, and means no metadata service by it
		args = append(args, "--allow-target", "169.254.0.0/16", "--allow-target", "fc00::/7")
	}
	if a.asn != "" {
		args = append(args, "--asn", a.asn)
	}
	a.proc, err = w.start(ctx, a.space, a.id, append(args, join...)...)
	return err
}

// online waits until the coordinator sees all agents online.
func (w *world) online(ctx context.Context) error {
	return eventually(ctx, "all agents online", func(ctx context.Context) error {
		said := w.run(ctx, "agents", "-J")
		var fleet pb.ListAgentsResponse
		if err := protojson.Unmarshal(said.stdout, &fleet); err != nil {
			return fmt.Errorf("elsewhere agents: exit %d: %w: %s", said.exit, err, said.stderr)
		}
		n := 0
		for _, a := range fleet.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				n++
			}
		}
		if n != len(w.agents) {
			return fmt.Errorf("%d of %d agents are online", n, len(w.agents))
		}
		return nil
	})
}

// listening waits until something accepts connections at an address of the namespace.
func (w *world) listening(ctx context.Context, where space, address string) error {
	return eventually(ctx, address+" listening", func(ctx context.Context) error {
		conn, err := where.Dial(ctx, address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// eventually asks until there is no error. What is waited for are other processes, which cannot
// tell; nothing else in the lab waits by the clock.
func eventually(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// said is what the command line said.
type said struct {
	exit           int
	stdout, stderr []byte
	took           time.Duration
}

// run runs the command line next to the coordinator, in the directory of the world's files.
func (w *world) run(ctx context.Context, args ...string) said {
	args = append([]string{filepath.Join(w.bin, "elsewhere")}, args...)
	args = append(args, w.door()...)
	cmd := w.coordinator.Command(ctx, args...)
	cmd.Dir = w.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	answer := said{stdout: stdout.Bytes(), stderr: stderr.Bytes(), took: time.Since(begin)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		answer.exit = exit.ExitCode()
	} else if err != nil {
		answer.exit, answer.stderr = -1, []byte(err.Error())
	}
	return answer
}

// measurement reads the one JSON document on stdout.
func (s said) measurement() (*pb.Measurement, error) {
	m := new(pb.Measurement)
	if err := protojson.Unmarshal(s.stdout, m); err != nil {
		return nil, fmt.Errorf("exit %d: %w: stdout %q, stderr %q", s.exit, err, s.stdout, s.stderr)
	}
	return m, nil
}
