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

// upgraded has an agent and all coordinators go back to the version before, one by one and with the data that they have, and
// then come up again the same way. Both versions together take what is asked and answered meanwhile.
func upgraded(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	began := time.Now()
	return wound{
		struck: func(ctx context.Context) (string, error) {
			err := w.exchange(ctx, a, w.shuffled(r), true)
			exchanged := time.Since(began)
			for _, c := range w.coordinators {
				err = errors.Join(err, c.runs(ctx, "elsewhere-coordinator"))
			}
			err = errors.Join(err, a.runs(ctx, "elsewhere-agent"))
			said := ""
			if err == nil {
				said, err = w.goesOn(ctx, time.Now())
			}
			return fmt.Sprintf("%s and all coordinators were of the version before after %.1f s%s", a.id, exchanged.Seconds(), said), err
		},
		heal: func(ctx context.Context) error { return w.exchange(ctx, a, w.shuffled(r), false) },
	}, nil
}

// exchange stops an agent and coordinators in order, one by one, and starts them as the version before or as this one.
func (w *world) exchange(ctx context.Context, a *agent, order []*coordinator, previous bool) error {
	for _, c := range order {
		if err := c.stop(); err != nil {
			return err
		}
		c.previous = previous
		if err := w.bring(ctx, c); err != nil {
			return err
		}
		if err := w.whole(ctx); err != nil {
			return err
		}
	}
	if err := a.stop(); err != nil {
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
