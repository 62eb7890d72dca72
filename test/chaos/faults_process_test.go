package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processFaults are those of programs: killed, stopped, without power.
func processFaults() []fault {
	all := []fault{
		{name: "F1 agent killed", inject: agentKilled},
		{name: "F2 agent without power", inject: agentPowerCut},
		{name: "F3 coordinator killed", inject: coordinatorKilled},
		{name: "F4 coordinator without power", inject: coordinatorPowerCut},
		{name: "F11 agent stopped", inject: agentStopped},
		{name: "F11 coordinator stopped", inject: coordinatorStopped},
	}
	for _, point := range agentPoints() {
		all = append(all, fault{name: "F1 agent killed at " + point, inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
			return w.agentDiesAt(ctx, w.anyone(r), point, 1+r.IntN(20))
		}})
	}
	for _, point := range coordinatorPoints() {
		all = append(all, coordinatorKilledAt(point))
	}
	return all
}

func coordinatorKilledAt(point string) fault {
	return fault{name: "F3 coordinator killed at " + point, inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
		passes := 30
		if strings.HasPrefix(point, "checkpoint") { // about one a second
			passes = 3
		}
		c := w.anyCoordinator(r)
		if w.several && strings.HasPrefix(point, "keep") { // one that no agent has gone to keeps nothing
			var err error
			if c, err = w.hears(w.anyone(r)); err != nil {
				return wound{}, err
			}
		}
		return w.dieAt(ctx, c.program, point, 1+r.IntN(passes))
	}}
}

// hears is the coordinator that an agent has registered with last, as their logs tell.
func (w *world) hears(a *agent) (by *coordinator, err error) {
	last := ""
	for _, c := range w.coordinators {
		said, err := os.ReadFile(c.log())
		if err != nil {
			return nil, err
		}
		at := bytes.LastIndex(said, []byte(`msg="agent registered" agent=`+a.id+" "))
		if at < 0 {
			continue
		}
		line := said[bytes.LastIndexByte(said[:at], '\n')+1 : at] // it begins with the time
		if string(line) > last {
			last, by = string(line), c
		}
	}
	if by == nil {
		return nil, fmt.Errorf("%s has never registered", a.id)
	}
	return by, nil
}

// agentPoints and coordinatorPoints are where programs can be told to die, as package chaos of the program is
// called: before and after what they promise.
func agentPoints() []string { return []string{"spool.append", "spool.synced", "spool.acked"} }

func coordinatorPoints() []string {
	return []string{"log.publishing", "log.published", "keep.kept", "checkpoint.writing", "checkpoint.written"}
}

// agentDiesAt is dieAt of an agent. What is acknowledged at once is never synced, so that a sync is waited for with nobody to
// acknowledge anything.
func (w *world) agentDiesAt(ctx context.Context, a *agent, point string, n int) (wound, error) {
	hurt, err := w.dieAt(ctx, a.program, point, n)
	if err != nil || point != "spool.synced" {
		return hurt, err
	}
	dies := hurt.struck
	hurt.struck = func(ctx context.Context) (string, error) {
		if err := w.impose(ctx, "noack", fmt.Sprintf("ip saddr %s tcp dport 7700 counter drop", a.ip)); err != nil {
			return "", err
		}
		said, err := dies(ctx)
		return said, errors.Join(err, w.lift(context.WithoutCancel(ctx), "noack"))
	}
	return hurt, nil
}

// killed kills a program at any moment.
func (w *world) killed(p *program, after time.Duration) wound {
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := passing(ctx, after); err != nil {
				return "", err
			}
			return p.name + " died by SIGKILL", p.kill()
		},
		heal: func(ctx context.Context) error { return w.restart(ctx, p) },
	}
}

func agentKilled(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.killed(w.anyone(r).program, time.Duration(r.IntN(1000))*time.Millisecond), nil
}

func coordinatorKilled(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.killed(w.anyCoordinator(r).program, time.Duration(r.IntN(1000))*time.Millisecond), nil
}

// passing waits; what is waited for is nothing but time, in which the load goes on.
func passing(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// state is a process's state by proc(5): "R", "S", "T" …
func (p *program) state() (string, error) {
	cmd, _ := p.process()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat"))
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1], nil
}

// halt stops a process, and waits until the kernel says that it stands still.
func (p *program) halt(ctx context.Context) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return eventually(ctx, p.name+" to stand still", func(context.Context) error {
		if s, err := p.state(); err != nil || s != "T" {
			return errors.Join(fmt.Errorf("its state is %q", s), err)
		}
		return nil
	})
}

// halted is a wound by SIGSTOP, for some time.
func (p *program) halted(ctx context.Context, d time.Duration) (wound, error) {
	if err := p.halt(ctx); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := passing(ctx, d); err != nil {
				return "", err
			}
			s, err := p.state()
			if err == nil && s != "T" {
				err = fmt.Errorf("its state is %q", s)
			}
			return fmt.Sprintf("%s stood still (T) for %v", p.name, d), err
		},
		heal: func(context.Context) error { return p.signal(syscall.SIGCONT) },
	}, nil
}

func agentStopped(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.anyone(r).halted(ctx, time.Duration(2000+r.IntN(6000))*time.Millisecond)
}

func coordinatorStopped(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.anyCoordinator(r).halted(ctx, time.Duration(2000+r.IntN(6000))*time.Millisecond)
}

// enough is how many results have to be acknowledged before a cut of the coordinator's power counts.
const enough = 500

// machine is a program and the disk that it writes to.
type machine struct {
	*program
	disk *disk
}

// powerCut cuts the power of some machines at one moment: nothing of what their kernels have not written yet is there
// when they come back.
func (w *world) powerCut(ctx context.Context, machines ...machine) (string, error) {
	acked := 0
	if err := eventually(ctx, "results to be acknowledged", func(context.Context) error {
		err := w.lives.catchUp()
		if _, acked = w.lives.count(); err == nil && acked < enough {
			err = fmt.Errorf("only %d are", acked)
		}
		return err
	}); err != nil {
		return "", err
	}
	names := make([]string, len(machines))
	for i, m := range machines {
		names[i] = m.name
		if err := m.signal(syscall.SIGSTOP); err != nil { // all of them, and then they are waited for
			return "", err
		}
	}
	for _, m := range machines {
		if err := m.halt(ctx); err != nil {
			return "", err
		}
	}
	for _, m := range machines {
		image, err := m.disk.snapshot(ctx)
		if err != nil {
			return "", err
		}
		if err := errors.Join(m.kill(), m.disk.revert(ctx, image)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s lost power, and with it all that was not synced; %d results were acknowledged before", strings.Join(names, ", "), acked), nil
}

func coordinatorPowerCut(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	c := w.anyCoordinator(r)
	if err := passing(ctx, time.Duration(r.IntN(2000))*time.Millisecond); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.powerCut(ctx, c.machine()) },
		heal:   func(ctx context.Context) error { return w.bring(ctx, c) },
	}, nil
}

func agentPowerCut(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	if err := passing(ctx, time.Duration(r.IntN(2000))*time.Millisecond); err != nil {
		return wound{}, err
	}
	first := w.agents[0]
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.powerCut(ctx, machine{first.program, first.disk}) },
		heal:   first.start,
	}, nil
}
