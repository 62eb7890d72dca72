package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

const (
	// A group of records is forced to disk when it has so many, or so many bytes, or the first is so old.
	groupRecords = 64
	groupBytes   = 256 << 10
	groupDelay   = 50 * time.Millisecond
	// tailBytes bounds what waits for a disk that is slow: Append waits with it.
	tailBytes = 1 << 20
)

// group is what was written since the last fsync of the last segment and is pending. It is kept in memory,
// since a file whose fsync failed holds nobody knows what.
type group struct {
	tail    []unsynced
	bytes   int
	durable uint64 // the first number that may not be on disk
	syncing bool
	synced  *sync.Cond // when syncing ends
	timer   *time.Timer
}

// unsynced is a result that may not be on disk.
type unsynced struct {
	seq     uint64
	job     uint64
	payload []byte
}

func (g *group) full() bool { return len(g.tail) >= groupRecords || g.bytes >= groupBytes }

// forget takes out what was acknowledged: it need not reach the disk any more.
func (g *group) forget(first, last uint64) {
	g.tail = slices.DeleteFunc(g.tail, func(u unsynced) bool { return first <= u.seq && u.seq <= last })
	g.bytes = 0
	for _, u := range g.tail {
		g.bytes += len(u.payload)
	}
}

// through takes out what is on disk.
func (g *group) through(last uint64) {
	g.forget(0, last)
	g.durable = max(g.durable, last+1)
}

func (g *group) stop() {
	if g.timer != nil {
		g.timer.Stop()
	}
}

// gather adds a result and has the group forced to disk when it is time.
func (s *Spool) gather(u unsynced) {
	g := &s.group
	g.tail = append(g.tail, u)
	g.bytes += len(u.payload)
	switch {
	case g.syncing: // whoever does looks again
	case g.full():
		g.syncing = true
		go s.flush()
	case len(g.tail) == 1:
		s.flushAfter(groupDelay)
	}
}

// flushAfter forces what is there to disk after a time, unless it is acknowledged by then.
func (s *Spool) flushAfter(delay time.Duration) {
	s.group.stop()
	s.group.timer = time.AfterFunc(delay, func() {
		s.mu.Lock()
		begin := !s.group.syncing && len(s.group.tail) > 0
		s.group.syncing = s.group.syncing || begin
		s.mu.Unlock()
		if begin {
			s.flush()
		}
	})
}

// flush forces to disk what is there, and what comes meanwhile if that is a whole group. It has syncing.
func (s *Spool) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.syncLast()
	for err == nil && s.group.full() {
		err = s.syncLast()
	}
	switch {
	case err != nil:
		s.refused, s.when = err, time.Now()
		s.flushAfter(retryAfter)
	case len(s.group.tail) > 0:
		s.flushAfter(groupDelay)
	}
	s.group.syncing = false
	s.group.synced.Broadcast()
	chaos.Point("spool.synced")
}

// syncLast forces the last segment to disk, without the lock meanwhile. It has syncing.
func (s *Spool) syncLast() error {
	seg, through := s.last(), s.next-1
	if seg.sealed {
		return s.renew()
	}
	s.mu.Unlock()
	err := seg.file.Sync()
	s.mu.Lock()
	switch {
	case !slices.Contains(s.segments, seg): // everything in it was acknowledged, and it was removed
		return nil
	case err == nil:
		s.group.through(through)
		return nil
	}
	seg.sealed = true
	if again := s.renew(); again != nil {
		return errors.Join(fmt.Errorf("spool: %w", err), again)
	}
	return nil
}

// waitForRoom waits while what Append needs is being synced: the tail is as long as it may be, or a new
// segment has to begin.
func (s *Spool) waitForRoom() {
	for s.group.syncing && (s.group.bytes >= tailBytes || s.last().sealed || s.last().size >= s.segmentBytes()) {
		s.group.synced.Wait()
	}
}

// Sync returns when all that was kept before is on disk, or cannot be brought there.
func (s *Spool) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.group.syncing {
		s.group.synced.Wait()
	}
	if len(s.group.tail) == 0 {
		return nil
	}
	s.group.syncing = true
	err := s.syncLast()
	s.group.syncing = false
	s.group.synced.Broadcast()
	return err
}

// rotate starts a new segment after the last one is on disk.
func (s *Spool) rotate() error {
	if seg := s.last(); len(s.group.tail) > 0 && !seg.sealed {
		err := seg.file.Sync()
		if err == nil {
			s.group.through(s.next - 1)
		}
		seg.sealed = err != nil
	}
	return s.renew()
}

// renew starts a new segment with all that may not be on disk: the tail, and that the numbers between were
// acknowledged. The file before is not written to any more, whether this works or not.
func (s *Spool) renew() error {
	g := &s.group
	for _, before := range s.segments {
		before.sealed = true
	}
	d := newDraft(s.stateFile.agent, s.state.epoch, g.durable)
	at := g.durable
	for _, u := range g.tail {
		if at < u.seq {
			d.add(ack(at, u.seq-1), 0)
		}
		d.add(record{kindResult, u.seq, u.payload}, u.job)
		at = u.seq + 1
	}
	if at < s.next {
		d.add(ack(at, s.next-1), 0)
	}
	seg, err := s.put(d)
	if err != nil {
		return err
	}
	for _, before := range s.segments {
		before.cut(g.durable)
	}
	s.segments = append(s.segments, seg)
	s.bytes += seg.size
	g.through(s.next - 1)
	s.prune()
	return nil
}

// put puts a draft on disk, durably, with everything in it.
func (s *Spool) put(d *draft) (_ *segment, err error) {
	s.serial++
	d.name, d.serial, d.size = segmentName(s.serial, d.base), s.serial, int64(len(d.image))
	if d.file, err = writeWhole(s.disk, d.name, d.image); err == nil {
		return d.segment, nil
	}
	if gone := s.disk.remove(d.name); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		s.leftover = append(s.leftover, d.name) // it may have its name already
	}
	return nil, err
}

// tidy gives space back after an acknowledgement. A last segment of some size in which nothing is pending is
// replaced by an empty one.
func (s *Spool) tidy() {
	if s.idle() {
		close(s.drained)
		s.drained = make(chan struct{})
	}
	if s.pending == 0 && s.last().size > s.segmentBytes()/16 {
		_ = s.renew() // if there is no space for it, none is given back
	}
	s.prune()
}

// prune removes the oldest segments while nothing is pending in them. The ones after may have the
// acknowledgements of what is in those before, so they go in order, each durably before the next.
func (s *Spool) prune() {
	for _, name := range s.leftover {
		if err := s.disk.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	s.leftover = nil
	for len(s.segments) > 1 && s.segments[0].live == 0 {
		seg := s.segments[0]
		if s.disk.remove(seg.name) != nil {
			return // it is tried again with the next one
		}
		s.bytes -= seg.size
		s.segments = s.segments[1:]
		_ = seg.file.Close()
		if s.disk.sync() != nil {
			return
		}
	}
}
