package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// severalFaults are those of three coordinators, and of one where it is one of three.
func severalFaults() []fault {
	all := []fault{
		{name: "F3 coordinator killed", inject: coordinatorKilled},
		{name: "F3 coordinator killed while tokens and sessions are raced for", inject: raced},
		{name: "F4 coordinator without power", inject: coordinatorPowerCut},
		{name: "F5 all coordinators without power", inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
			return w.withoutPower(ctx, r, 3)
		}},
		{name: "F5 two coordinators without power", inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
			return w.withoutPower(ctx, r, 2)
		}},
		{name: "F6 one without power while others stand still", inject: cutAmongHalted},
		{name: "F7 partition 1|2", inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
			return w.cutOff(ctx, r, 8*time.Second)
		}},
		{name: "F7 partition 1|1|1", inject: shattered},
		{name: "F7 bridge", inject: bridged},
		{name: "F7 one-way", inject: oneWay},
		{name: "F8 partition longer than gossip remembers", inject: func(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
			return w.cutOff(ctx, r, longerThanGossip())
		}},
		{name: "F10 packets between coordinators lost", inject: lossyBetween},
		{name: "F11 agent stopped", inject: agentStopped},
		{name: "F11 coordinator stopped", inject: coordinatorStoppedLong},
		{name: "F12 coordinators restarted one by one", inject: oneByOne("ended in order", (*coordinator).stop)},
		{name: "F12 coordinators killed one by one", inject: oneByOne("died by SIGKILL", (*coordinator).kill)},
		{name: "F12 all coordinators killed at once", inject: allKilled},
		{name: "F14 coordinator's disk full", inject: coordinatorDiskFull},
		{name: "F16 checkpoint damaged", inject: checkpointDamaged},
		{name: "F17 all data of a coordinator lost", inject: wiped},
		{name: "F20 thundering herd", inject: stampede},
		{name: "F21 everything delivered again", inject: replayed},
		{name: "F25 another authority", inject: rotated, trust: true},
		{name: "F25 agent revoked", inject: revoked},
		{name: "F9 black hole", inject: blackHole, lane: slowLane},
	}
	all = append(all, upgradeFaults()...)
	for _, point := range coordinatorPoints() {
		all = append(all, coordinatorKilledAt(point))
	}
	return all
}

// shuffled are the coordinators, in an order that r tells.
func (w *world) shuffled(r *rand.Rand) []*coordinator {
	all := slices.Clone(w.coordinators)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func namesOf(these []*coordinator) string {
	var names []string
	for _, c := range these {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// withoutPower cuts the power of so many coordinators at one moment.
func (w *world) withoutPower(ctx context.Context, r *rand.Rand, count int) (wound, error) {
	these := w.shuffled(r)[:count]
	if err := passing(ctx, time.Duration(r.IntN(2000))*time.Millisecond); err != nil {
		return wound{}, err
	}
	var machines []machine
	for _, c := range these {
		machines = append(machines, c.machine())
	}
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.powerCut(ctx, machines...) },
		heal:   func(ctx context.Context) error { return w.bring(ctx, these...) },
	}, nil
}

// cutAmongHalted has results acknowledged by two coordinators while the third stands still; then one of the two stands
// still, and the other loses its power. What comes back of that one, and the one that knows nothing of these results, are
// two: they go on, and have to have all that was acknowledged.
func cutAmongHalted(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	order := w.shuffled(r)
	knows, cut, slept := order[0], order[1], order[2]
	if err := w.lives.catchUp(); err != nil {
		return wound{}, err
	}
	if err := slept.halt(ctx); err != nil {
		return wound{}, err
	}
	_, before := w.lives.count()
	return wound{
		struck: func(ctx context.Context) (string, error) {
			without := 0
			err := eventually(ctx, "two to acknowledge", func(context.Context) error {
				err := w.lives.catchUp()
				if _, n := w.lives.count(); err == nil && n-before < enoughWithout {
					err = fmt.Errorf("%d are acknowledged", n-before)
				} else {
					without = n - before
				}
				return err
			})
			if err != nil {
				return "", errors.Join(err, slept.signal(syscall.SIGCONT))
			}
			err = knows.halt(ctx)
			said := ""
			if err == nil {
				said, err = w.powerCut(ctx, cut.machine())
			}
			if err = errors.Join(err, slept.signal(syscall.SIGCONT)); err == nil {
				err = errors.Join(w.bring(ctx, cut), w.ready(ctx, slept))
			}
			return fmt.Sprintf("%d results were acknowledged while %s stood still; then %s did, and %s; the other two were ready",
				without, slept.name, knows.name, said), err
		},
		heal: func(context.Context) error { return knows.signal(syscall.SIGCONT) },
	}, nil
}

// enoughWithout is how many results two coordinators have to acknowledge before it counts that the third was away.
const enoughWithout = 60

// parted are rules that drop what these pairs of coordinators send, the first to the second.
func parted(pairs ...[2]*coordinator) (rules []string) {
	for _, p := range pairs {
		rules = append(rules, fmt.Sprintf("ip saddr %s ip daddr %s counter drop", p[0].ip, p[1].ip))
	}
	return rules
}

// both are the two directions between coordinators.
func both(a, b *coordinator) [][2]*coordinator { return [][2]*coordinator{{a, b}, {b, a}} }

// partition is who cannot reach whom, for some time: it has to be seen that those who cannot reach a second one
// acknowledge nothing meanwhile, and that the others do.
type partition struct {
	pairs [][2]*coordinator
	// alone are those who may acknowledge nothing.
	alone []*coordinator
	// hold is how long it is there, at least.
	hold time.Duration
	// gone tells that each side has to take the other for dead before it ends.
	gone bool
}

func (w *world) part(ctx context.Context, p partition) (wound, error) {
	began := time.Now()
	if err := w.impose(ctx, "partition", parted(p.pairs...)...); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.parted(ctx, p, began) },
		heal:   func(ctx context.Context) error { return w.lift(ctx, "partition") },
	}, nil
}

// parted watches what coordinators do while they are parted, and tells.
func (w *world) parted(ctx context.Context, p partition, began time.Time) (string, error) {
	over, end := context.WithCancel(ctx)
	defer end()
	var asking sync.WaitGroup
	refused := make([]int, len(p.alone))
	wrong := make([]error, len(p.alone))
	for i, c := range p.alone {
		asking.Go(func() { refused[i], wrong[i] = w.refuses(over, c) })
	}
	said := ""
	var err error
	if len(p.alone) < len(w.coordinators) {
		said, err = w.goesOn(ctx, began)
	}
	if err == nil && p.gone {
		err = w.takenForDead(ctx, p.alone[0])
	}
	if err == nil {
		err = passing(ctx, p.hold-time.Since(began))
	}
	end()
	asking.Wait()
	err = errors.Join(append(wrong, err)...)
	dropped, countErr := w.matched(ctx, "partition", len(p.pairs))
	if err == nil && len(p.alone) > 0 && slices.Min(refused) == 0 {
		err = errors.New("one of them was never asked")
	}
	if len(p.alone) > 0 {
		said += fmt.Sprintf("; alone were %s, which refused %d writes", namesOf(p.alone), sum(refused))
	}
	return fmt.Sprintf("%d packets were dropped in %.0f s%s", dropped, time.Since(began).Seconds(), said), errors.Join(err, countErr)
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// refuses asks one coordinator to write, again and again until ctx ends: it never may.
func (w *world) refuses(ctx context.Context, c *coordinator) (times int, err error) {
	conn, err := w.clientOf(c)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		if w.load.writes(ctx, conn) == nil {
			return times, fmt.Errorf("%s is alone, and acknowledged a write", c.name)
		}
		times++
		_ = passing(ctx, 200*time.Millisecond)
	}
	return times, nil
}

// goesOn waits until somebody acknowledges a write that was asked for meanwhile, and every agent answers.
func (w *world) goesOn(ctx context.Context, since time.Time) (string, error) {
	err := eventually(ctx, "a write to be acknowledged", func(ctx context.Context) error { return w.load.writes(ctx, w.load.conn) })
	wrote := time.Since(since)
	for _, a := range w.of(mainLane) {
		if err == nil {
			err = eventually(ctx, a.id+" to answer", func(context.Context) error {
				if _, ok := w.load.answered(a.id, since); !ok {
					return errors.New("it does not")
				}
				return nil
			})
		}
	}
	return fmt.Sprintf("; a write was acknowledged after %.1f s, and all agents had answered after %.1f s", wrote.Seconds(), time.Since(since).Seconds()), err
}

// takenForDead waits until a coordinator and the others take each other for dead.
func (w *world) takenForDead(ctx context.Context, alone *coordinator) error {
	for _, c := range w.coordinators {
		conn, err := w.clientOf(c)
		if err != nil {
			return err
		}
		err = eventually(ctx, c.name+" to notice who is dead", func(ctx context.Context) error {
			list, err := pb.NewCoordinatorServiceClient(conn).ListCoordinators(ctx, &pb.ListCoordinatorsRequest{})
			if err != nil {
				return err
			}
			for _, one := range list.GetCoordinators() {
				dead := (one.GetName() == alone.name) != (c == alone)
				if (one.GetLiveness() == pb.Liveness_LIVENESS_DEAD) != dead {
					return fmt.Errorf("%s is %v", one.GetName(), one.GetLiveness())
				}
			}
			return nil
		})
		if err = errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	return nil
}

// cutOff parts one coordinator from the two others.
func (w *world) cutOff(ctx context.Context, r *rand.Rand, hold time.Duration) (wound, error) {
	all := w.shuffled(r)
	return w.part(ctx, partition{
		pairs: append(both(all[0], all[1]), both(all[0], all[2])...), alone: all[:1], hold: hold, gone: hold >= gossipRemembers,
	})
}

// gossipRemembers is how long memberlist tells of the dead (GossipToTheDeadTime of its LAN configuration), after it has
// seen that they are, which takes up to 12 s.
const gossipRemembers = 30*time.Second + 12*time.Second

// longerThanGossip is how long F8 lasts.
func longerThanGossip() time.Duration {
	if *profile == "quick" {
		return gossipRemembers + 5*time.Second
	}
	return 90 * time.Second
}

// shattered parts each from each.
func shattered(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	all := w.shuffled(r)
	return w.part(ctx, partition{
		pairs: slices.Concat(both(all[0], all[1]), both(all[0], all[2]), both(all[1], all[2])), alone: all, hold: 8 * time.Second,
	})
}

// bridged parts two that both reach the third.
func bridged(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	all := w.shuffled(r)
	return w.part(ctx, partition{pairs: both(all[0], all[2]), hold: 8 * time.Second})
}

// oneWay has one hear the others, which do not hear it.
func oneWay(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	all := w.shuffled(r)
	return w.part(ctx, partition{pairs: [][2]*coordinator{{all[0], all[1]}, {all[0], all[2]}}, alone: all[:1], hold: 8 * time.Second})
}

// lossyBetween loses packets between all coordinators.
func lossyBetween(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	const hold = 8 * time.Second
	percent := 5 + r.IntN(26)
	if err := w.impose(ctx, "lossybetween", fmt.Sprintf("ip saddr %s ip daddr %s numgen random mod 100 < %d counter drop", coordinatorIPs, coordinatorIPs, percent)); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := passing(ctx, hold); err != nil {
				return "", err
			}
			n, err := w.matched(ctx, "lossybetween", 10)
			return fmt.Sprintf("%d packets of the coordinators to each other were lost in %v (%d %%)", n, hold, percent), err
		},
		heal: func(ctx context.Context) error { return w.lift(ctx, "lossybetween") },
	}, nil
}

// coordinatorStoppedLong has one stand still for longer than the others wait for it.
func coordinatorStoppedLong(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	most := 86
	if *profile == "quick" {
		most = 11
	}
	return w.anyCoordinator(r).halted(ctx, time.Duration(5+r.IntN(most))*time.Second)
}

// oneByOne ends and starts one after the other, as is done for an upgrade. Somebody measures all the while, with the command
// line, and is answered by all whom he asks, each time.
func oneByOne(words string, end func(*coordinator) error) func(context.Context, *world, *rand.Rand) (wound, error) {
	return func(_ context.Context, w *world, r *rand.Rand) (wound, error) {
		return wound{struck: func(ctx context.Context) (string, error) {
			began := time.Now()
			over, enough := context.WithCancel(ctx)
			defer enough()
			var asking sync.WaitGroup
			answered, failed := 0, error(nil)
			asking.Go(func() { answered, failed = w.asksOn(over) })
			err := w.turns(ctx, w.shuffled(r), end)
			enough()
			asking.Wait()
			if err == nil && failed == nil && answered == 0 {
				err = errors.New("nobody measured")
			}
			return fmt.Sprintf("each %s and was started again, in %.1f s; meanwhile %d measurements were answered by all",
				words, time.Since(began).Seconds(), answered), errors.Join(err, failed)
		}}, nil
	}
}

// turns ends coordinators and starts them again, one after the other.
func (w *world) turns(ctx context.Context, these []*coordinator, end func(*coordinator) error) error {
	for _, c := range these {
		if err := errors.Join(end(c), w.bring(ctx, c), w.whole(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// asksOn measures again and again until ctx ends, one after the other, and tells how often; the first that is not as it
// should be is an error. It asks agents that nobody hurts now, about targets that answer.
func (w *world) asksOn(ctx context.Context) (answered int, err error) {
	var names []string
	for _, a := range w.of(mainLane) {
		names = append(names, a.id)
	}
	for ctx.Err() == nil {
		// It is not ended with ctx: what is asked is answered.
		said, err := w.elsewhere(context.WithoutCancel(ctx), "tcp", fmt.Sprintf("198.18.10.%d:443", 1+answered%250), "--from", strings.Join(names, ","), "--json")
		var m struct {
			Ledger struct{ Asked, Answered int }
		}
		if err == nil { // before it may stand, of standard error, that it waits
			err = json.Unmarshal([]byte(said[max(0, strings.Index(said, "{")):]), &m)
		}
		if err == nil && (m.Ledger.Asked != len(names) || m.Ledger.Answered != len(names)) {
			err = fmt.Errorf("asked %d, answered %d, and not %d", m.Ledger.Asked, m.Ledger.Answered, len(names))
		}
		if err != nil {
			return answered, fmt.Errorf("after %d that were answered one failed: %w: %s", answered, err, said)
		}
		answered++
		_ = passing(ctx, 100*time.Millisecond)
	}
	return answered, nil
}

// stop ends a process in order, and proves that it ended so.
func (p *program) stop() error {
	cmd, done := p.process()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-done:
	case <-time.After(patience):
		return fmt.Errorf("%s still runs after %v", p.name, patience)
	}
	p.ended()
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %d: %s", p.name, code, tail(p.log()))
	}
	return nil
}

// allKilled kills all coordinators at one moment.
func allKilled(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	if err := passing(ctx, time.Duration(r.IntN(1000))*time.Millisecond); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(context.Context) (string, error) {
			return namesOf(w.coordinators) + " died by SIGKILL at one moment", w.killAll(w.coordinators...)
		},
		heal: func(ctx context.Context) error { return w.bring(ctx, w.coordinators...) },
	}, nil
}

// wiped kills a coordinator and removes all that it had. It comes back by its name, with the authority alone, as the
// documentation says, and gets the rest from the others.
func wiped(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	c := w.anyCoordinator(r)
	before, err := w.status(ctx, c)
	if err != nil {
		return wound{}, err
	}
	if err := errors.Join(c.kill(), os.RemoveAll(c.dataDir())); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if _, err := os.Stat(c.dataDir()); !errors.Is(err, os.ErrNotExist) {
				return "", errors.Join(errors.New("its files are there"), err)
			}
			return fmt.Sprintf("%s was killed, and its files removed, at position %d", c.name, before.GetPosition()),
				passing(ctx, time.Duration(r.IntN(3000))*time.Millisecond)
		},
		heal: func(ctx context.Context) error {
			others := slices.DeleteFunc(slices.Clone(w.coordinators), func(other *coordinator) bool { return other == c })
			if err := errors.Join(c.trust(others[0]), c.disk.sync(ctx), w.bring(ctx, c)); err != nil {
				return err
			}
			after, err := w.status(ctx, c)
			if err == nil && after.GetPosition() < before.GetPosition() {
				err = fmt.Errorf("it is ready at position %d, and was at %d", after.GetPosition(), before.GetPosition())
			}
			return err
		},
	}, nil
}
