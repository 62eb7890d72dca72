package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// networkFaults are those of the way between agents and the coordinator.
func networkFaults() []fault {
	return []fault{
		{name: "F9 black hole", inject: blackHole, lane: slowLane},
		{name: "F9 connections reset", inject: reset},
		{name: "F9 NAT rebinding", inject: rebinding},
		{name: "F10 packets lost", inject: lossy},
		{name: "F10 8 kbit/s", inject: narrow},
		{name: "F10 everything late", inject: slow},
	}
}

// noSession is what an agent's log says when a session has ended.
const noSession = "no session with the coordinator"

// sessionsEnded is how often an agent has said that a session ended.
func (a *agent) sessionsEnded() (int, error) {
	text, err := os.ReadFile(a.log())
	return strings.Count(string(text), noSession), err
}

// blackHole swallows all that passes between the last agent and the coordinator until the agent has noticed.
func blackHole(ctx context.Context, w *world, _ *rand.Rand) (wound, error) {
	a := w.of(slowLane)[0]
	before, err := a.sessionsEnded()
	if err != nil {
		return wound{}, err
	}
	began := time.Now()
	if err := w.impose(ctx, "blackhole", between(a, "counter drop")...); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			err := eventually(ctx, a.id+" to notice", func(context.Context) error {
				n, err := a.sessionsEnded()
				if err == nil && n == before {
					err = errors.New("it did not")
				}
				return err
			})
			noticed := time.Since(began)
			dropped, countErr := w.matched(ctx, "blackhole", 1)
			if err = errors.Join(err, countErr); err == nil && noticed > keepalive {
				err = fmt.Errorf("%s noticed after %v", a.id, noticed)
			}
			return fmt.Sprintf("%d packets were swallowed; %s noticed after %.1f s", dropped, a.id, noticed.Seconds()), err
		},
		heal: func(ctx context.Context) error { return w.lift(ctx, "blackhole") },
	}, nil
}

// keepalive is within what time an agent has to notice that nobody answers: 25 s without a word and 10 s more,
// and something for a busy machine.
const keepalive = 45 * time.Second

// reset answers the packets of some agents with RST.
func reset(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	var rules []string
	for _, a := range w.some(r) {
		rules = append(rules, between(a, "meta l4proto tcp counter reject with tcp reset")...)
	}
	if err := w.impose(ctx, "reset", rules...); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			n, err := w.matched(ctx, "reset", len(rules))
			return fmt.Sprintf("%d packets were answered with RST", n), err
		},
		heal: func(ctx context.Context) error { return w.lift(ctx, "reset") },
	}, nil
}

// some are one to all agents of the main lane.
func (w *world) some(r *rand.Rand) []*agent {
	all := w.of(mainLane)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(len(all))]
}

// rebinding puts a NAT in the way of connections that stand: the coordinator sees them come from elsewhere.
func rebinding(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	began := time.Now()
	err := w.core.NFT(ctx, translating("rebinding", a)+fmt.Sprintf("chain post { type nat hook postrouting priority 100;\n"+
		"ip saddr %s ip daddr %s meta l4proto tcp counter snat ip to %s:20000-29999\n}\n}\n", a.ip, coordinatorIPs, coreIP))
	if err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			n, err := w.matched(ctx, "rebinding", 1)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d connections of %s came from elsewhere, and it connected again", n, a.id), w.reconnected(ctx, a.program, began)
		},
		heal: func(ctx context.Context) error { return w.lift(ctx, "rebinding") },
	}, nil
}

// reconnected waits until an agent has a new result stream.
func (w *world) reconnected(ctx context.Context, p *program, since time.Time) error {
	return eventually(ctx, p.name+" to connect again", func(context.Context) error {
		if err := w.lives.catchUp(); err != nil {
			return err
		}
		if e, ok := w.lives.last(p.name, chaos.Connected); !ok || e.At().Before(since) {
			return errors.New("it has not")
		}
		return nil
	})
}

// limited lets the packets between some agents and the coordinator through as rules say, for some time.
func (w *world) limited(ctx context.Context, name, how string, hold time.Duration, agents []*agent) (wound, error) {
	var rules []string
	for _, a := range agents {
		rules = append(rules, between(a, how)...)
	}
	if err := w.impose(ctx, name, rules...); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := passing(ctx, hold); err != nil {
				return "", err
			}
			n, err := w.matched(ctx, name, 10)
			return fmt.Sprintf("%d packets of %d agents were lost in %v (%s)", n, len(agents), hold, how), err
		},
		heal: func(ctx context.Context) error { return w.lift(ctx, name) },
	}, nil
}

func lossy(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.limited(ctx, "lossy", fmt.Sprintf("numgen random mod 100 < %d counter drop", 5+r.IntN(26)), 8*time.Second, w.some(r))
}

func narrow(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	return w.limited(ctx, "narrow", "limit rate over 1 kbytes/second burst 1 kbytes counter drop", 8*time.Second, []*agent{w.anyone(r)})
}
