package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

var (
	seed       = flag.Uint64("seed", 1, "what the schedule of faults, and all that is drawn for them, follows from")
	profile    = flag.String("profile", "quick", "quick: each fault once; long: again and again, for -duration")
	duration   = flag.Duration("duration", 30*time.Minute, "how long faults are made in the long profile")
	only       = flag.String("only", "", "only faults whose name contains one of these words, separated by commas")
	insecurely = flag.Bool("insecure", false, "without TLS and enrolment")
	keepFiles  = flag.Bool("keep", false, "keep logs and events, also of a run that is fine")
	binDir     = flag.String("bin", "../../bin/chaos", "where the programs are")
	outDir     = flag.String("out", "../../bin/chaos", "where summaries go")
)

const (
	// agentCount is how many agents are in namespaces of their own.
	agentCount = 5
	// loadRate is how many measurements are opened in a second.
	loadRate = 12
	// quiet is within what time everything has to be delivered, and read, when nothing is asked any more.
	quiet = 15 * time.Minute
)

// TestChaos hurts a network in every way, and judges its history.
func TestChaos(t *testing.T) {
	hurtAndJudge(t, &world{name: "main"}, faults())
}

// hurtAndJudge makes a network, hurts it by these faults, and judges its history.
func hurtAndJudge(t *testing.T, w *world, list []fault) {
	t.Helper()
	t.Logf("seed %d, profile %s; to replay: %s", *seed, *profile, replay(t))
	newWorld(t, w, agentCount)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := &summary{Seed: *seed, Profile: *profile, Began: time.Now(), TLS: w.tls}
	asking, stopAsking := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { w.load.run(asking, ctx, rand.New(rand.NewPCG(*seed, 0))) })
	beside.Go(func() { w.watchSizes(ctx, run) })
	err := w.warmUp(ctx, run)
	if err == nil {
		w.load.rate.Store(loadRate)
		err = w.hurt(ctx, list, run)
	}
	stopAsking()
	err = errors.Join(err, w.conclude(ctx, run))
	cancel()
	beside.Wait()
	run.conclude(w, err)
	run.print(t)
	if err := run.write(filepath.Join(*outDir, "summary-"+w.name+".json")); err != nil {
		t.Error(err)
	}
	if err != nil || len(run.Violations) > 0 {
		t.Errorf("to replay: %s", replay(t))
	}
}

// replay is the command that does the same again.
func replay(t *testing.T) string {
	return fmt.Sprintf("make chaos PROFILE=%s SEED=%d DURATION=%s HERD=%d ONLY=%q TESTFLAGS=\"-run %s\"", *profile, *seed, *duration, size(), *only, t.Name())
}

// faults are those of one coordinator.
func faults() []fault {
	return slices.Concat(processFaults(), networkFaults(), diskFaults(), agentFaults(), crowdFaults(), trustFaults(), upgradeFaults(), hostileFaults())
}

// chosen are those that the command line wants, in a lane.
func chosen(of []fault, l lane) (list []fault) {
	for _, f := range of {
		wanted := *only == ""
		for word := range strings.SplitSeq(*only, ",") {
			wanted = wanted || strings.Contains(f.name, word)
		}
		if wanted && f.lane == l {
			list = append(list, f)
		}
	}
	return list
}

// hurt makes the faults of all lanes, each lane's one after the other.
func (w *world) hurt(ctx context.Context, list []fault, run *summary) error {
	until := time.Now().Add(*duration)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range []lane{mainLane, slowLane, hostileLane} {
		g.Go(func() error {
			err := w.hurtLane(ctx, chosen(list, l), until, run)
			if err != nil {
				w.log("%v", err)
			}
			return err
		})
	}
	return g.Wait()
}

// hurtLane goes through the faults of a lane in an order that the seed tells: once, or again and again. Each
// fault draws from a source of its own, so that it is the same whatever the others draw.
func (w *world) hurtLane(ctx context.Context, list []fault, until time.Time, run *summary) error {
	if len(list) == 0 {
		return nil
	}
	l := list[0].lane
	order := rand.New(rand.NewPCG(*seed, 1+uint64(l)))
	for n := 0; ; n++ {
		order.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for i, f := range list {
			if *profile != "quick" && !time.Now().Before(until) {
				return nil
			}
			s, err := w.suffer(ctx, f, rand.New(rand.NewPCG(*seed, uint64(1000*(n*len(list)+i)+int(l)+10))))
			if err != nil {
				return err
			}
			run.add(s)
			w.log("%-40s %s; hurt %.1f s, whole after %.1f s, back after %.1f s, delivered after %.1f s", f.name, s.Proof, s.Hurt, s.Whole, s.Reconnect, s.Drain)
		}
		if *profile == "quick" {
			return nil
		}
	}
}

// warmUp waits until every agent answers, and notes how large the programs are when nothing is to do again.
func (w *world) warmUp(ctx context.Context, run *summary) error {
	w.load.rate.Store(loadRate)
	if _, _, err := w.recover(ctx, time.Now(), w.agents); err != nil {
		return fmt.Errorf("the network does not work: %w", err)
	}
	w.load.rate.Store(0)
	return errors.Join(w.drained(ctx), w.settle(ctx, run))
}

// conclude waits until everything is delivered and closed, reads what is there, and has it judged.
func (w *world) conclude(ctx context.Context, run *summary) error {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	began := time.Now()
	if err := w.drained(ctx); err != nil {
		return fmt.Errorf("after the last question: %w", err)
	}
	run.LastDrain = time.Since(began).Seconds()
	if err := w.settle(ctx, run); err != nil {
		return err
	}
	h, err := w.history(ctx)
	if err != nil {
		return err
	}
	run.Report = history.Check(h)
	run.Violations = append(run.Violations, w.decisions.check()...)
	run.Tokens, run.Sessions = len(w.decisions.tokens), len(w.decisions.sessions)
	return errors.Join(w.never(ctx, run), w.sameEverywhere(ctx, run), w.neverDiffered(ctx, run), w.rebuild(ctx, run))
}

// drained waits until no measurement runs and no result waits.
func (w *world) drained(ctx context.Context) error {
	if err := w.load.idle(ctx); err != nil {
		return err
	}
	return eventually(ctx, "everything to be delivered", func(context.Context) error {
		if err := w.lives.catchUp(); err != nil {
			return err
		}
		for _, a := range w.agents {
			if n := w.lives.waiting(a.program, time.Now()) + w.lives.givenUp(a.program); n > 0 {
				return fmt.Errorf("%d results and gaps of %s wait", n, a.id)
			}
		}
		return nil
	})
}

// history collects what the checker judges.
func (w *world) history(ctx context.Context) (*history.History, error) {
	if err := w.lives.catchUp(); err != nil {
		return nil, err
	}
	if err := w.whole(ctx); err != nil {
		return nil, err
	}
	tallies, folded, err := w.show(ctx, w.load.conn)
	if err != nil {
		return nil, err
	}
	deliveries, err := w.deliveries(ctx)
	if err != nil {
		return nil, err
	}
	w.load.mu.Lock()
	defer w.load.mu.Unlock()
	return &history.History{
		Deliveries: deliveries,
		Foreign:    foreign,
		Mute: func(agent string) bool {
			return strings.HasPrefix(agent, herdRegion) || strings.HasPrefix(agent, evilPrefix)
		},
		Lives: w.lives.histories(), Folded: folded, Shown: w.load.facts, Opened: w.load.created, Tallies: tallies,
	}, nil
}

// never checks what targets and the rest of the network saw of the agents.
func (w *world) never(ctx context.Context, run *summary) error {
	all, err := w.counted(ctx, "never")
	if err != nil {
		return err
	}
	run.Forbidden = all[0]
	if all[0] > 0 {
		run.violate("forbidden: %d packets went where no agent may send any", all[0])
	}
	starts := map[string]int{}
	for _, a := range w.agents {
		starts[a.id] = a.starts
	}
	w.visits.mu.Lock()
	defer w.visits.mu.Unlock()
	// A connect is tried twice; a control or a variant beside it may be one more.
	own := slices.DeleteFunc(slices.Clone(w.visits.all), func(v history.Visit) bool { return v.From == spareIP }) // many share that
	most, violations := history.Visits(own, starts, history.Budget{Burst: 50, PerSecond: 5, Tries: 2})
	run.Visits, run.MostVisits = len(w.visits.all), most
	run.Violations = append(run.Violations, violations...)
	return nil
}
