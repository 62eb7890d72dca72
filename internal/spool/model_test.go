package spool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// modelLimit makes segments of 16 KiB, so that all that happens to a spool happens soon.
const modelLimit = 256 << 10

// model is what a spool must be like, whatever its disk does. It lives in a bubble of synctest, where the spool's own
// goroutine does nothing but while the model waits for it: what happens is the same each time.
type model struct {
	t     *testing.T
	disk  *memory
	spool *Spool

	made   int
	kept   map[string]bool   // what Append took and nobody acknowledged; true: Sync said that it is on disk
	number map[uint64]string // what has a number, in this epoch
	done   map[string]bool   // what was acknowledged
	acked  map[uint64]map[uint64]bool
	lost   int  // numbers of what Append did not take
	hurt   bool // something failed, so that an acknowledgement may be forgotten
	script string
}

func newModel(t *testing.T, d *memory) *model {
	return &model{t: t, disk: d, kept: map[string]bool{}, number: map[uint64]string{}, done: map[string]bool{}, acked: map[uint64]map[uint64]bool{}}
}

func (m *model) note(format string, args ...any) { m.script += fmt.Sprintf(format, args...) + "\n" }

func (m *model) fatal(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf(format+"\nafter:\n%s", append(args, m.script)...)
}

// open opens the spool; a disk that fails meanwhile is tried again when it does not.
func (m *model) open() error {
	s, err := openOn(m.disk, "a", modelLimit)
	if err == nil {
		m.spool = s
	}
	return err
}

func (m *model) append(size int) {
	m.made++
	id := fmt.Sprint("m", m.made)
	before := m.spool.NextSeq()
	err := m.spool.Append(&pb.Result{MeasurementId: id, Agent: "a", Version: strings.Repeat("x", size)})
	synctest.Wait()
	m.note("append %s (%d bytes) as %d: %v", id, size, before, err)
	if err == nil {
		m.kept[id], m.number[before] = false, id
	} else {
		m.hurt = true
		m.lost += int(m.spool.NextSeq() - before)
	}
}

func (m *model) sync() {
	err := m.spool.Sync()
	m.note("sync: %v", err)
	if err != nil {
		return
	}
	for id := range m.kept {
		m.kept[id] = true
	}
}

// view is what a spool would hand out.
type view struct {
	results map[uint64]string
	gaps    map[uint64]pb.GapReason
}

func (m *model) view() view {
	m.t.Helper()
	v := view{map[uint64]string{}, map[uint64]pb.GapReason{}}
	for after := uint64(0); ; {
		batch, _, err := m.spool.Next(after, 5)
		if err != nil {
			m.note("next: %v", err)
			return v
		}
		if len(batch.GetResults())+len(batch.GetGaps()) == 0 {
			return v
		}
		for _, r := range batch.GetResults() {
			if v.results[r.GetSeq()] != "" || r.GetSeq() <= after && len(v.results) > 0 && after != 0 {
				m.fatal("number %d twice", r.GetSeq())
			}
			v.results[r.GetSeq()] = r.GetResult().GetMeasurementId()
		}
		last := after
		for _, g := range batch.GetGaps() {
			for n := max(g.GetFirst(), after+1); n <= g.GetLast(); n++ {
				v.gaps[n] = g.GetReason()
			}
			last = max(last, g.GetLast())
		}
		if n := len(batch.GetResults()); n > 0 {
			last = max(last, batch.GetResults()[n-1].GetSeq())
		}
		after = last
	}
}

func (m *model) ack(first, last uint64) {
	v, epoch := m.view(), m.spool.state.epoch
	next := m.spool.NextSeq()
	err := m.spool.Ack(first, last)
	m.note("ack %d-%d: %v", first, last, err)
	if m.acked[epoch] == nil {
		m.acked[epoch] = map[uint64]bool{}
	}
	for n := first; n <= last && n < next; n++ {
		m.acked[epoch][n] = true
		if id := m.number[n]; v.gaps[n] != 0 || v.results[n] != "" {
			delete(m.kept, id)
			m.done[id] = true
		}
	}
}

func (m *model) setEpoch(epoch uint64) {
	before := m.view()
	err := m.spool.SetEpoch(epoch)
	m.note("epoch %d: %v", epoch, err)
	if err != nil {
		return
	}
	m.acked[epoch] = map[uint64]bool{}
	after := m.view()
	old := slices.Sorted(maps.Keys(before.gaps))
	old = append(old, slices.Collect(maps.Keys(before.results))...)
	slices.Sort(old)
	number := map[uint64]string{}
	for i, n := range old {
		number[uint64(i)+1] = m.number[n]
	}
	m.number = number
	if len(after.results) != len(before.results) || len(after.gaps) != len(before.gaps) {
		m.fatal("%d results and %d gaps before, %d and %d after", len(before.results), len(before.gaps), len(after.results), len(after.gaps))
	}
	if next := m.spool.NextSeq(); int(next) != len(after.results)+len(after.gaps)+1 {
		m.fatal("the next number is %d after %d results and %d gaps", next, len(after.results), len(after.gaps))
	}
}

// check compares the spool with what it must be like. unsynced: what was not synced may be gone.
func (m *model) check(unsynced bool) {
	m.t.Helper()
	v := m.view()
	there := map[string]bool{}
	for n, id := range v.results {
		if there[id] {
			m.fatal("%s is there twice, once as %d", id, n)
		}
		there[id] = true
		if v.gaps[n] != 0 {
			m.fatal("%d is a result and in a gap", n)
		}
		if _, ok := m.kept[id]; !ok && (!m.done[id] || !m.hurt) {
			m.fatal("%s, number %d, which nobody appended or which is done", id, n)
		}
	}
	missing := 0
	for id, synced := range m.kept {
		if !there[id] && (synced || !unsynced) {
			missing++
		}
	}
	if missing > len(v.gaps) {
		m.fatal("%d results are missing, and %d numbers are in gaps", missing, len(v.gaps))
	}
	acked := m.acked[m.spool.state.epoch]
	for n := uint64(1); n < m.spool.NextSeq(); n++ {
		here := v.results[n] != "" || v.gaps[n] != 0
		if !here && !acked[n] {
			m.fatal("number %d is nowhere, the next is %d", n, m.spool.NextSeq())
		}
		if acked[n] && !unsynced && (v.gaps[n] == pb.GapReason_GAP_REASON_SPOOL_CORRUPT || v.gaps[n] != 0 && !m.hurt) {
			m.fatal("number %d was acknowledged and is a gap", n)
		}
	}
}

// work is a life of a spool in which everything happens.
func (m *model) work(heal func()) {
	m.setEpoch(1)
	for i := range 8 {
		m.append(500 + 100*i)
	}
	m.sync()
	m.ack(2, 4)
	for range 6 {
		m.append(6 << 10) // over segments' ends
	}
	m.ack(1, 1)
	m.append(10)
	m.sync()
	m.append(20)
	m.setEpoch(2)
	m.append(30)
	m.sync()
	for range 20 {
		m.append(15 << 10) // the oldest go
	}
	m.sync()
	m.append(40)
	m.ack(1, m.spool.NextSeq()-1)
	m.append(50)
	m.sync()
	m.append(60)
	heal()
	m.check(false)
}

// TestEveryCallFails has each call of the disk fail in turn, once or from then on, and has the process or the
// machine end after it: nothing that Sync said is on disk is gone without a gap, nothing comes back that nobody
// appended, and every number is stored, acknowledged, or in a gap.
func TestEveryCallFails(t *testing.T) {
	var clean *model
	synctest.Test(t, func(t *testing.T) {
		clean = newModel(t, newMemoryDisk())
		if err := clean.open(); err != nil {
			t.Fatal(err)
		}
		clean.work(func() {})
	})
	if clean.disk.calls < 100 {
		t.Fatalf("only %d calls", clean.disk.calls)
	}
	for call := 1; call <= clean.disk.calls; call++ {
		for _, times := range []int{1, 3, 1 << 30} {
			for _, end := range []struct{ power, torn bool }{{}, {true, false}, {true, true}} {
				synctest.Test(t, func(t *testing.T) { oneFault(t, call, times, end.power, end.torn) })
			}
		}
	}
}

func oneFault(t *testing.T, call, times int, power, torn bool) {
	d := newMemoryDisk()
	m := newModel(t, d)
	m.note("call %d fails %d times; power cut %v, torn %v", call, times, power, torn)
	m.hurt = true
	d.fails = func(n int, op string) error {
		if n >= call && n-call < times {
			m.note("  %s fails", op)
			return syscall.EIO
		}
		return nil
	}
	heal := func() { d.fails = nil }
	if m.open() != nil {
		heal()
		if err := m.open(); err != nil {
			m.fatal("a disk that works again: %v", err)
		}
	}
	m.work(heal)
	m.again(power, torn)
}

// again ends the process or the machine, and begins again.
func (m *model) again(power, torn bool) {
	m.hurt = m.hurt || power
	m.disk = m.disk.crash(power, torn)
	old := m.spool
	if err := m.open(); err != nil {
		m.fatal("after the end: %v", err)
	}
	if !power && old.broken == nil && (m.spool.state.epoch != old.state.epoch || m.spool.next != old.next) {
		m.fatal("epoch %d and next %d after the process ended; before, %d and %d", m.spool.state.epoch, m.spool.next, old.state.epoch, old.next)
	}
	m.note("again: epoch %d, next %d, state %v", m.spool.state.epoch, m.spool.next, m.spool.state.gaps)
	m.check(power || old.broken != nil)
	if !power && !m.hurt {
		for id := range m.kept { // what the process wrote is on disk once the next one has begun
			m.kept[id] = true
		}
	}
	m.append(70)
	if m.sync(); !slices.Contains(slices.Collect(maps.Values(m.view().results)), fmt.Sprint("m", m.made)) {
		m.fatal("it does not go on")
	}
}

// TestAFullDisk: what does not fit any more is a gap, nothing of it is believed, and it goes on when there is
// space.
func TestAFullDisk(t *testing.T) { synctest.Test(t, aFullDisk) }

func aFullDisk(t *testing.T) {
	d := newMemoryDisk()
	m := newModel(t, d)
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	m.setEpoch(1)
	d.space = 100 << 10
	for range 40 {
		m.append(5 << 10)
	}
	if err := m.spool.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	v := m.view()
	if m.lost == 0 || m.lost != len(v.gaps) || len(v.results) != 40-m.lost || m.spool.NextSeq() != 41 {
		t.Fatalf("%d could not be kept; %d are in gaps, %d are there, the next is %d", m.lost, len(v.gaps), len(v.results), m.spool.NextSeq())
	}
	m.check(false)
	d.space = 0
	m.append(5 << 10)
	if err := m.spool.Err(); err != nil || len(m.view().results) != len(v.results)+1 {
		t.Errorf("with space again: %v", err)
	}
	m.sync()
	m.again(true, true)
}

// TestAtRandom does everything in any order, with faults of any length.
func TestAtRandom(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { atRandom(t, seed) })
	}
}

func atRandom(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	m := newModel(t, newMemoryDisk())
	m.note("seed %d", seed)
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	for epoch := uint64(1); epoch < 6; epoch++ {
		m.disk.fails = nil
		m.setEpoch(epoch)
		if from, rate := m.disk.calls+r.IntN(40), r.Float64(); r.IntN(2) == 0 {
			m.hurt = true
			m.disk.fails = func(n int, op string) error {
				if n > from && n < from+20 && r.Float64() < rate {
					m.note("  %s fails", op)
					return syscall.EIO
				}
				return nil
			}
		}
		for range 20 + r.IntN(40) {
			m.step(r)
		}
		m.disk.fails = nil
		m.check(m.spool.broken != nil)
		power := r.IntN(2) == 0
		if power {
			m.sync()
		}
		m.again(power && m.spool.broken == nil, r.IntN(2) == 0)
		if !power && !m.hurt { // an fsync that failed in the life before is not known to this one
			m.again(m.spool.broken == nil, false)
		}
	}
}

func (m *model) step(r *rand.Rand) {
	switch r.IntN(8) {
	case 0:
		m.sync()
	case 1:
		first := 1 + r.Uint64N(m.spool.NextSeq())
		m.ack(first, first+r.Uint64N(20))
	default:
		m.append(r.IntN(8 << 10))
	}
}

// TestACrashAndThenAPowerCut: what the process left in the page cache is on disk once the next one has opened
// it.
func TestACrashAndThenAPowerCut(t *testing.T) { synctest.Test(t, aCrashAndThenAPowerCut) }

func aCrashAndThenAPowerCut(t *testing.T) {
	m := newModel(t, newMemoryDisk())
	for _, power := range []bool{false, true} {
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
		if !power {
			m.setEpoch(1)
			m.append(100)
		}
		m.disk = m.disk.crash(power, false)
	}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	m.check(false)
}
