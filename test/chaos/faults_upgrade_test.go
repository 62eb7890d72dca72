package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// previousDir is where `make chaos` builds the programs of the version before, of the commit that the file "previous" names.
func previousDir() string { return filepath.Join(*binDir, "previous") }

// upgradeFaults need the programs of the version before. Where git does not have them, `make chaos` says so.
func upgradeFaults() []fault {
	if _, err := os.Stat(filepath.Join(previousDir(), "elsewhere-coordinator")); err != nil {
		return nil
	}
	return []fault{{name: "F26 the version before, and this one again", inject: upgraded}}
}

// upgraded has an agent and all coordinators go back to the version before, at once and with the data that they have, and
// then come up again one by one. Both versions together take what is asked and answered meanwhile.
func upgraded(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	return wound{
		struck: func(ctx context.Context) (string, error) {
			began := time.Now()
			if err := w.exchange(ctx, a, w.coordinators, true); err != nil {
				return "", err
			}
			exchanged := time.Since(began)
			err := a.runs(ctx, "elsewhere-agent")
			for _, c := range w.coordinators {
				err = errors.Join(err, c.runs(ctx, "elsewhere-coordinator"))
			}
			said := ""
			if err == nil {
				said, err = w.goesOn(ctx, time.Now())
			}
			return fmt.Sprintf("%s and all coordinators were of the version before after %.1f s%s", a.id, exchanged.Seconds(), said), err
		},
		heal: func(ctx context.Context) error {
			for _, c := range w.shuffled(r) {
				if err := w.exchange(ctx, nil, []*coordinator{c}, false); err != nil {
					return err
				}
			}
			return w.exchange(ctx, a, nil, false)
		},
	}, nil
}

// exchange stops coordinators and an agent in order, and starts them as the version before or as this one.
func (w *world) exchange(ctx context.Context, a *agent, these []*coordinator, previous bool) error {
	var g errgroup.Group
	for _, c := range these {
		g.Go(c.stop)
	}
	if a != nil {
		g.Go(a.stop)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, c := range these {
		c.previous = previous
	}
	if err := errors.Join(w.bring(ctx, these...), w.whole(ctx)); err != nil || a == nil {
		return err
	}
	a.previous = previous
	return a.start(ctx)
}

// runs proves that a program of the version before runs, when it has left behind what started it in its namespace.
func (p *program) runs(ctx context.Context, name string) error {
	want, err := filepath.Abs(filepath.Join(previousDir(), name))
	if err != nil {
		return err
	}
	return eventually(ctx, p.name+" to be the version before", func(context.Context) error {
		cmd, _ := p.process()
		is, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "exe"))
		if err == nil && is != want {
			err = fmt.Errorf("it is %s", is)
		}
		return err
	})
}
