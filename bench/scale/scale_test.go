//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/store"
)

const goldenMeasurements = "../../pkg/aggregate/testdata/golden"

// plans are small ones: a checkpoint comes a few times.
var plans = map[string]plan{
	"few agents, much of each":    {agents: 300, perAgent: 10, checkpoint: 1000, seed: 1},
	"many agents, little of each": {agents: 3000, perAgent: 2, checkpoint: 2000, seed: 2},
}

// TestEverythingThatWasMadeIsThere folds and judges a log: each ledger and outcome is as the measurement was made (the
// follower compares them when it is closed), and all that is there in the end adds up to what was made.
func TestEverythingThatWasMadeIsThere(t *testing.T) {
	for what, p := range plans {
		t.Run(what, func(t *testing.T) {
			f := begin(t, p, filepath.Join(t.TempDir(), store.FileName))
			f.run(t)
			is := tally{Measurements: f.traffic.tally.Measurements, Again: f.traffic.tally.Again} // what comes twice leaves no trace
			for i := range is.Measurements {
				view, err := f.store.Get(id(i))
				if err != nil {
					t.Fatal(err)
				}
				l := view.Measurement.GetLedger()
				if l.GetAsked() != l.GetAnswered()+l.GetLost()+l.GetRefused()+l.GetIneligible() || int(l.GetAnswered()) != len(view.Results) {
					t.Errorf("%s: %v with %d results", id(i), l, len(view.Results))
				}
				is.Asked += int(l.GetAsked())
				is.Results += len(view.Results)
				is.Declined += int(l.GetRefused())
				is.Lost += int(l.GetLost())
				is.Late += len(view.Late)
			}
			for a, next := range f.traffic.next {
				d := f.store.Delivery(name(a))
				if d.GetHighest() != next-1 || d.GetMissing() != 0 {
					t.Errorf("%s has sent %d numbers; the store knows %v", name(a), next-1, d)
				}
				is.Dropped += int(d.GetDropped())
			}
			if is != f.traffic.tally || is.Asked < p.wanted() || is.Late*is.Declined*is.Lost*is.Again*is.Dropped == 0 {
				t.Errorf("there is %+v, made were %+v", is, f.traffic.tally)
			}
			if n := len(f.store.Enrolments()); n != p.agents {
				t.Errorf("%d agents of %d are enrolled", n, p.agents)
			}
			if n, asks := f.store.Running(); n != 0 || asks != 0 {
				t.Errorf("%d measurements of %d agents still run", n, asks)
			}
		})
	}
}

// TestARestartInTheMiddle folds one log in one go, and again with a coordinator that dies in the middle, some messages
// after its last checkpoint: both end at one position with one state.
func TestARestartInTheMiddle(t *testing.T) {
	for what, p := range plans {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			straight := begin(t, p, filepath.Join(dir, "straight.db"))
			straight.run(t)
			position, hash := straight.store.Hash()

			dying := begin(t, p, filepath.Join(dir, "dying.db"))
			for dying.position < position/2 || dying.checkpoints == 0 || dying.unsaved > 0 {
				dying.once(t)
			}
			at := dying.position
			left, err := os.ReadFile(filepath.Join(dir, "dying.db"))
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				dying.once(t)
			}
			if err := os.WriteFile(filepath.Join(dir, "left.db"), left, 0o600); err != nil {
				t.Fatal(err)
			}
			again := begin(t, p, filepath.Join(dir, "left.db"))
			if is, _ := again.store.Position(); is != at || at >= position {
				t.Fatalf("it goes on at %d of %d, where the checkpoint was at %d", is, position, at)
			}
			again.run(t) // what is folded already is left out
			if is, other := again.store.Hash(); is != position || !bytes.Equal(other, hash) {
				t.Errorf("straight %d %x, with a restart %d %x", position, hash, is, other)
			}
		})
	}
}

// TestFigures takes all figures of a small plan, and prints them.
func TestFigures(t *testing.T) {
	shapes, err := loadShapes(goldenMeasurements)
	if err != nil {
		t.Fatal(err)
	}
	f, err := measure(plans["few agents, much of each"], shapes, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(f)
	if f.Results < f.Tally.Results || f.perResult() <= 0 || f.LogBytes < int64(1000*f.Results) || f.File < f.LogBytes || f.Resident < f.Heap ||
		len(f.Tenths) != 10 || f.Checkpoints < 3 || f.Unplaced != 0 || len(text) < 500 {
		t.Errorf("%+v\n%s", f, text)
	}
}

// begin opens a store for a plan's traffic.
func begin(t *testing.T, p plan, path string) *testFollower {
	t.Helper()
	shapes, err := loadShapes(goldenMeasurements)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testFollower{follower{store: s, traffic: newTraffic(p, shapes)}}
}

type testFollower struct{ follower }

// once folds a message and says whether there was one.
func (f *testFollower) once(t *testing.T) bool {
	t.Helper()
	more, err := f.step()
	if err != nil {
		t.Fatal(err)
	}
	return more
}

// run folds to the end.
func (f *testFollower) run(t *testing.T) {
	t.Helper()
	for f.once(t) {
	}
}
