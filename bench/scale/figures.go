//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/store"
)

// figures is what one number of agents came to. Times are of the processor and, like bytes, totals.
type figures struct {
	Agents     int
	Tally      tally
	Enrolling  spent
	EnrolBytes int64 // of the log
	EnrolHeap  int64 // of what memory holds then

	Results     int // that were folded
	Spent       spent
	Tenths      []float64 // µs a result, of each tenth of the log
	LogBytes    int64
	Checkpoints int
	OnClock     time.Duration // all of them
	Slowest     time.Duration // one of them, on the clock

	Heap     int64         // in use at the end, after a collection
	Resident int64         // the most that the process had at a checkpoint, without the pages of fold.db
	File     int64         // fold.db
	Opening  time.Duration // of fold.db, as at a start, on the clock
	Unplaced int           // agents of whose spools nothing is remembered
}

// measure makes the traffic of a plan, and folds and judges it in a directory.
func measure(p plan, shapes []*shape, dir string) (out figures, err error) {
	out.Agents = p.agents
	path := filepath.Join(dir, store.FileName)
	s, err := store.Open(path, recentBytes)
	if err != nil {
		return out, err
	}
	f := &follower{store: s, traffic: newTraffic(p, shapes)}
	for _, part := range []func(*figures) error{f.enrol, f.follow, f.remains} {
		if err := part(&out); err != nil {
			_ = s.Close() // the first error is the one to tell
			return out, err
		}
	}
	if err := s.Close(); err != nil {
		return out, err
	}
	file, err := os.Stat(path)
	if err != nil {
		return out, err
	}
	out.File = file.Size()
	began := time.Now()
	if s, err = store.Open(path, recentBytes); err != nil {
		return out, err
	}
	out.Opening = time.Since(began)
	return out, s.Close()
}

// enrol folds the enrolments.
func (f *follower) enrol(out *figures) error {
	before := heap()
	for f.traffic.enrolling() {
		if _, err := f.step(); err != nil {
			return err
		}
	}
	if err := f.save(); err != nil {
		return err
	}
	out.EnrolHeap = heap() - before
	out.Enrolling, out.EnrolBytes = f.spent, f.bytes
	*f = follower{store: f.store, traffic: f.traffic, position: f.position, resident: f.resident}
	return nil
}

// follow folds and judges the rest.
func (f *follower) follow(out *figures) error {
	folded, spent := 0, time.Duration(0) // up to the tenth at hand
	for more := true; more; {
		var err error
		if more, err = f.step(); err != nil {
			return err
		}
		if !more {
			if err := f.save(); err != nil {
				return err
			}
		}
		if n := f.results - folded; n >= f.traffic.wanted()/10 || !more && len(out.Tenths) < 10 {
			out.Tenths = append(out.Tenths, micro(f.spent.sum()-spent, n))
			folded, spent = f.results, f.spent.sum()
		}
	}
	out.Tally, out.Results, out.Spent, out.LogBytes = f.traffic.tally, f.results, f.spent, f.bytes
	out.Checkpoints, out.OnClock, out.Slowest = f.checkpoints, f.onClock, f.slowest
	return nil
}

// remains looks at what there is in the end.
func (f *follower) remains(out *figures) error {
	if n, asks := f.store.Running(); n != 0 || asks != 0 {
		return fmt.Errorf("%d measurements of %d agents still run", n, asks)
	}
	for a, next := range f.traffic.next {
		if next > 1 && f.store.Delivery(name(a)) == nil {
			out.Unplaced++
		}
	}
	out.Heap, out.Resident = heap(), f.resident
	return nil
}

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// anonymous is the memory that this process has now, in bytes, without the pages of fold.db, which it maps.
func anonymous() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB$`).FindSubmatch(text)
	if found == nil {
		return 0, errors.New("/proc/self/status has no RssAnon")
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	return kib << 10, err
}

const mib = 1 << 20

// micro is a time in µs for each of n.
func micro(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// perResult is what a result took, in µs.
func (f figures) perResult() float64 { return micro(f.Spent.sum(), f.Results) }

// String is the figures for people.
func (f figures) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	n, t := f.Results, f.Tally
	line("== %d agents: %d results of %d measurements", f.Agents, n, t.Measurements)
	line("µs a result: %.1f read, %.1f folded, %.1f checkpoint, %.1f judged: %.1f, %.0f a second on one processor; without judging %.1f, %.0f",
		micro(f.Spent.Read, n), micro(f.Spent.Fold, n), micro(f.Spent.Checkpoint, n), micro(f.Spent.Judge, n), f.perResult(), 1e6/f.perResult(),
		micro(f.Spent.sum()-f.Spent.Judge, n), float64(n)/(f.Spent.sum()-f.Spent.Judge).Seconds())
	line("µs a result in each tenth of the log: %.1f", f.Tenths)
	line("log: %.0f bytes a result, with what opens and closes; %.0f an enrolment, which takes %.0f µs", float64(f.LogBytes)/float64(n),
		float64(f.EnrolBytes)/float64(f.Agents), micro(f.Enrolling.sum(), f.Agents))
	line("%d checkpoints: %.0f ms on the clock, the slowest %.0f; fold.db %d MiB, %.0f bytes a result; opened in %.2f s", f.Checkpoints,
		f.OnClock.Seconds()*1000/float64(f.Checkpoints), f.Slowest.Seconds()*1000, f.File/mib, float64(f.File)/float64(n), f.Opening.Seconds())
	line("memory: %d MiB resident, %d MiB of heap in use at the end; enrolments %.0f bytes an agent", f.Resident/mib, f.Heap/mib,
		float64(f.EnrolHeap)/float64(f.Agents))
	line("of %d asks %d answered, %d declined, %d lost; %d came late, %d twice, %d were dropped; all ledgers as made", t.Asked, t.Results,
		t.Declined, t.Lost, t.Late, t.Again, t.Dropped)
	if f.Unplaced > 0 {
		line("THE SPOOLS OF %d AGENTS ARE NOT REMEMBERED: there are more agents than the store has places", f.Unplaced)
	}
	return b.String()
}
