package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// rejoinEvery is the time between two rounds of joining, about.
	rejoinEvery = 10 * time.Second
	// maxTries bounds the addresses that are tried in a round, one after the other; if there are more, chance decides.
	maxTries = 16
	// complain is the time after which a thing that is still wrong is spoken of again.
	complain = time.Minute
)

// rejoin joins others again and again: memberlist forgets the dead after half a minute, and two halves of a network that
// have forgotten each other stay apart for ever. Those of Join are tried also when they seem to be there: what they think
// may be another thing. One is tried at a time.
type rejoin struct {
	cluster *Cluster
	to      []string
	every   time.Duration
	log     *slog.Logger
	done    chan struct{}

	left    int // addresses that may still be tried in this round
	failing bool
	said    time.Time // of the last complaint
}

func newRejoin(c *Cluster, opts Options) *rejoin {
	r := &rejoin{cluster: c, to: slices.Clone(opts.Join), every: opts.every, log: opts.Log, done: make(chan struct{})}
	if r.every == 0 {
		r.every = rejoinEvery
	}
	return r
}

// run joins until ctx ends.
func (r *rejoin) run(ctx context.Context) {
	defer close(r.done)
	for ctx.Err() == nil {
		r.cluster.members.forget(remembered)
		r.round(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(r.every*4/5 + rand.N(r.every*2/5)): // All may have been started at once.
		}
	}
}

// round tries each once: those to join, and where the lost ones were.
func (r *rejoin) round(ctx context.Context) {
	targets := slices.Clone(r.to)
	for _, addr := range r.cluster.members.lost() {
		targets = append(targets, addr.String())
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	var wrong error
	r.left = maxTries
	for _, target := range targets {
		// That a lost one is lost has been said.
		if err := r.try(ctx, target); err != nil && slices.Contains(r.to, target) {
			wrong = fmt.Errorf("%s: %w", target, err)
		}
	}
	if ctx.Err() == nil {
		r.tell(wrong)
	}
}

// try joins all that a "HOST:PORT" means. One that answers is enough.
func (r *rejoin) try(ctx context.Context, target string) error {
	host, port, err := hostPort(target)
	if err != nil {
		return err
	}
	resolved, cancel := context.WithTimeout(ctx, resolving)
	defer cancel()
	addrs, err := resolveAll(resolved, host) // By itself: memberlist would ask for ANY, and could not be stopped.
	if err != nil {
		return err
	}
	var problems []error
	for _, addr := range addrs {
		at := netip.AddrPortFrom(addr, port)
		if at == r.cluster.addr || r.left == 0 || ctx.Err() != nil {
			continue
		}
		r.left--
		if _, err := r.cluster.list.Join([]string{at.String()}); err != nil {
			problems = append(problems, why(err))
		}
	}
	if len(problems) == len(addrs) {
		return problems[0]
	}
	return nil
}

// tell speaks of the first failure, every minute while there is one, and of its end.
func (r *rejoin) tell(wrong error) {
	switch {
	case wrong != nil && (!r.failing || time.Since(r.said) >= complain):
		r.said = time.Now()
		r.log.Warn("gossip: not all coordinators to join can be joined; goes on trying", "error", wrong)
	case wrong == nil && r.failing:
		r.log.Info("gossip: all coordinators to join are joined")
	}
	r.failing = wrong != nil
}

// reasons are what memberlist says where two do not understand each other, and what that means. They are only texts.
var reasons = []struct{ says, means string }{
	{"keys could decrypt", "it has other keys than this coordinator: give both the same"},
	{"remote state is not encrypted", "it gossips in clear, this coordinator with a key: give both the same"},
	{"encryption is not configured", "it gossips with a key, this coordinator has none: give both the same"},
	{"EOF", "it hangs up: is that the address of a coordinator's gossip?"},
}

// why is what is wrong with a join to one address, in words for people.
func why(err error) error {
	if one := errors.Unwrap(err); one != nil {
		err = one // Without the list that memberlist makes of one error.
	}
	for _, r := range reasons {
		if strings.Contains(err.Error(), r.says) {
			return errors.New(r.means)
		}
	}
	return err
}
