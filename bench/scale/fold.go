//go:build linux

package main

import (
	"fmt"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// recentBytes is what a coordinator keeps of closed measurements in memory.
const recentBytes = 24 << 20

// spent is processor time, by what it was spent for.
type spent struct {
	Read, Fold, Judge, Checkpoint time.Duration
}

func (s spent) sum() time.Duration { return s.Read + s.Fold + s.Judge + s.Checkpoint }

// follower folds a log as a coordinator does that did not write it, and judges what is closed.
type follower struct {
	store    *store.Store
	traffic  *traffic
	position uint64
	unsaved  int // results since the last checkpoint

	results     int // all that were folded, also late ones and those that came again
	spent       spent
	bytes       int64 // of the log
	checkpoints int
	onClock     time.Duration // all of them
	slowest     time.Duration // one of them, on the clock
	resident    int64         // the most memory at one of them, in bytes
}

// step folds one message, judges the measurements that it closes, and writes a checkpoint when it is time; more is false
// at the log's end.
func (f *follower) step() (more bool, err error) {
	data := f.traffic.message()
	if data == nil {
		return false, nil
	}
	f.position++
	f.bytes += int64(len(data))
	f.results += f.traffic.results
	f.unsaved += f.traffic.results
	var batch pb.LogBatch
	if err := timed(&f.spent.Read, func() error { return proto.Unmarshal(data, &batch) }); err != nil {
		return false, err
	}
	var applied store.Applied
	err = timed(&f.spent.Fold, func() (err error) {
		applied, err = f.store.Apply(f.position, &batch, data)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, c := range applied.Measurements {
		if c.Closed {
			if err := f.judge(c.ID); err != nil {
				return false, err
			}
		}
	}
	if f.unsaved < f.traffic.checkpoint {
		return true, nil
	}
	return true, f.save()
}

// judge judges a measurement that was closed and holds its ledger and its outcome against what was made.
func (f *follower) judge(id string) error {
	var m *pb.Measurement
	err := timed(&f.spent.Judge, func() error {
		view, err := f.store.Get(id)
		m = view.Measurement
		return err
	})
	if err != nil {
		return err
	}
	l := m.GetLedger()
	is := ledger{m.GetVerdict().GetOutcome(), int(l.GetAsked()), int(l.GetAnswered()), int(l.GetRefused()), int(l.GetLost())}
	if want := f.traffic.ends[id]; is != want || m.GetState() != pb.State_STATE_FINISHED {
		return fmt.Errorf("measurement %s: %v %+v, where %+v was made", id, m.GetState(), is, want)
	}
	return nil
}

// save writes a checkpoint.
func (f *follower) save() error {
	f.unsaved = 0
	began := time.Now()
	err := timed(&f.spent.Checkpoint, f.store.Checkpoint)
	took := time.Since(began)
	f.checkpoints, f.onClock, f.slowest = f.checkpoints+1, f.onClock+took, max(f.slowest, took)
	if err != nil {
		return err
	}
	now, err := anonymous()
	f.resident = max(f.resident, now)
	return err
}

// timed adds the processor time that a call takes.
func timed(to *time.Duration, call func() error) error {
	before := cpu()
	err := call()
	*to += cpu() - before
	return err
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // it fails for wrong arguments alone
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
