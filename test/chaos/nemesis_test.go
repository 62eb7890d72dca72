package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// fault is one way to hurt the world.
type fault struct {
	// name begins with the fault's number in docs/reliability.md.
	name string
	// inject makes it. What it draws, it draws from r.
	inject func(ctx context.Context, w *world, r *rand.Rand) (wound, error)
	// lane is where it happens: faults of different lanes may happen at the same time. Default: the main one.
	lane lane
	// trust says that it is about who trusts whom: one such happens at a time. Who is held captive while an authority is
	// dropped comes back to a network that he does not know any more.
	trust bool
}

// wound is a fault that was made.
type wound struct {
	// struck waits until there is a proof that it was there, and returns that: the kernel's word, or the
	// process's, never that something was asked for.
	struck func(ctx context.Context) (string, error)
	// heal ends it. Nil: there is nothing to end.
	heal func(ctx context.Context) error
}

// lane is a part of the world that one fault at a time may hurt.
type lane int

const (
	mainLane    lane = iota
	slowLane         // the last agent alone, for faults that take their time
	hostileLane      // nobody's but those who mean harm
)

// strike is a fault that struck, as it is told of in the end.
type strike struct {
	Fault     string    `json:"fault"`
	At        time.Time `json:"at"`
	Proof     string    `json:"proof"`
	Hurt      float64   `json:"hurt_seconds"`      // from the fault to its end
	Whole     float64   `json:"whole_seconds"`     // from its end until all coordinators said the same
	Reconnect float64   `json:"reconnect_seconds"` // from its end until every agent had answered again
	Drain     float64   `json:"drain_seconds"`     // … and all that was spooled by then was acknowledged
}

// suffer goes through one fault: it is made, proved, ended, and the network has to recover.
func (w *world) suffer(ctx context.Context, f fault, r *rand.Rand) (strike, error) {
	if f.trust {
		w.trust.Lock()
		defer w.trust.Unlock()
	}
	s := strike{Fault: f.name, At: time.Now()}
	wound, err := f.inject(ctx, w, r)
	if err != nil {
		return s, fmt.Errorf("%s: could not be made: %w", f.name, err)
	}
	s.Proof, err = wound.struck(ctx)
	if err != nil {
		err = fmt.Errorf("%s: did not strike: %w", f.name, err)
	}
	if wound.heal != nil { // also when another lane has failed: what is not healed would be judged with the rest
		if bad := wound.heal(context.WithoutCancel(ctx)); bad != nil {
			err = errors.Join(err, fmt.Errorf("%s: could not be healed: %w", f.name, bad))
		}
	}
	healed := time.Now()
	s.Hurt = healed.Sub(s.At).Seconds()
	if err != nil {
		return s, err
	}
	if f.lane == mainLane {
		if err := w.whole(ctx); err != nil {
			return s, fmt.Errorf("%s: the coordinators are not one service again: %w", f.name, err)
		}
		s.Whole = time.Since(healed).Seconds()
	}
	s.Reconnect, s.Drain, err = w.recover(ctx, healed, w.of(f.lane))
	if err != nil {
		err = fmt.Errorf("%s: no recovery: %w", f.name, err)
	}
	return s, err
}

// recover waits until each of these agents has answered a question that was asked after a time, and until all that was
// in its spool at that time is acknowledged. The times are in seconds.
func (w *world) recover(ctx context.Context, since time.Time, agents []*agent) (reconnect, drain float64, err error) {
	for _, a := range agents {
		err = errors.Join(err, eventually(ctx, a.id+" to answer", func(context.Context) error {
			at, ok := w.load.answered(a.id, since)
			if !ok {
				return errors.New("it does not")
			}
			reconnect = max(reconnect, at.Sub(since).Seconds())
			return nil
		}))
		err = errors.Join(err, eventually(ctx, a.id+" to deliver", func(context.Context) error {
			if err := w.lives.catchUp(); err != nil {
				return err
			}
			if n := w.lives.waiting(a.program, since); n > 0 {
				return fmt.Errorf("%d results wait", n)
			}
			return nil
		}))
	}
	return reconnect, time.Since(since).Seconds(), err
}

// dieAt has a program die at a point, and starts it again afterwards.
func (w *world) dieAt(ctx context.Context, p *program, point string, pass int) (wound, error) {
	if err := p.doom(ctx, point, pass); err != nil {
		return wound{}, err
	}
	struck := func(context.Context) (string, error) {
		if err := p.died(patience); err != nil {
			return "", err
		}
		if err := w.lives.catchUp(); err != nil {
			return "", err
		}
		e, ok := w.lives.last(p.name, chaos.Dying)
		if !ok || e.Detail != point {
			return "", fmt.Errorf("it did not die at %s but at %q", point, e.Detail)
		}
		return fmt.Sprintf("%s died by SIGKILL when it passed %s for the %d. time", p.name, point, pass), nil
	}
	return wound{struck: struck, heal: func(ctx context.Context) error { return w.restart(ctx, p) }}, nil
}

// restart starts a program again, and waits until it is ready if it is a coordinator.
func (w *world) restart(ctx context.Context, p *program) error {
	for _, c := range w.coordinators {
		if c.program == p {
			return w.bring(ctx, c)
		}
	}
	return p.start(ctx)
}

// of are the agents that faults of a lane may hurt.
func (w *world) of(l lane) []*agent {
	last := len(w.agents) - 1
	switch l {
	case slowLane:
		return slices.Clone(w.agents[last:])
	case hostileLane:
		return nil
	case mainLane:
	}
	return slices.Clone(w.agents[:last])
}

// anyone is an agent of the main lane.
func (w *world) anyone(r *rand.Rand) *agent {
	all := w.of(mainLane)
	return all[r.IntN(len(all))]
}
