package spool

import (
	"errors"
	"fmt"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// renewBytes is the size of the segments that a new epoch begins with.
const renewBytes = 1 << 20

// Epoch is the epoch of the spool's numbers, 0 if it has none yet or none that can go on.
func (s *Spool) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.doubt {
		return 0
	}
	return s.state.epoch
}

// NextSeq is the number that the next result will have.
func (s *Spool) NextSeq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// SetEpoch begins another epoch, or does nothing if it is this one. What is pending is numbered anew, from 1
// and in the same order, gaps included; after a crash it is either all in the old epoch or all in the new
// one. Numbers that were handed out before mean nothing any more.
func (s *Spool) SetEpoch(epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.group.syncing {
		s.group.synced.Wait()
	}
	switch {
	case s.broken != nil:
		return s.broken
	case epoch == s.state.epoch && epoch != 0 && !s.state.doubt:
		return nil
	case epoch == s.state.epoch || epoch == 0:
		return fmt.Errorf("spool: epoch %d cannot go on, and a new one is needed", epoch)
	}
	m := &move{spool: s, epoch: epoch, next: 1}
	if err := m.run(); err != nil {
		m.undo()
		return err
	}
	if err := s.save(state{epoch: epoch, next: m.next, gaps: m.gaps}); err != nil {
		return err // both epochs stay on disk, whole, and the state will tell which one counts
	}
	m.finish()
	return nil
}

// move is a spool's way into another epoch.
type move struct {
	spool    *Spool
	epoch    uint64
	next     uint64
	draft    *draft
	segments []*segment
	gaps     []*pb.Gap
}

// run writes everything that is pending into segments of the new epoch.
func (m *move) run() (err error) {
	s := m.spool
	m.begin()
	gaps := s.state.gaps
	s.each(0, func(seg *segment, e entry) bool {
		for len(gaps) > 0 && gaps[0].GetFirst() < e.seq {
			m.gap(gaps[0].GetLast()-gaps[0].GetFirst()+1, gaps[0].GetReason())
			gaps = gaps[1:]
		}
		chaos.Move(&pb.Place{Epoch: s.state.epoch, Seq: e.seq}, &pb.Place{Epoch: m.epoch, Seq: m.next})
		payload, ok := s.payload(seg, e)
		if !ok {
			m.gap(1, pb.GapReason_GAP_REASON_SPOOL_CORRUPT)
			return true
		}
		m.draft.add(record{kindResult, m.next, payload}, e.job)
		m.next++
		if len(m.draft.image) >= renewBytes {
			err = m.write()
			m.begin()
		}
		return err == nil
	})
	for _, g := range gaps {
		m.gap(g.GetLast()-g.GetFirst()+1, g.GetReason())
	}
	return errors.Join(err, m.write())
}

func (m *move) begin() { m.draft = newDraft(m.spool.stateFile.agent, m.epoch, m.next) }

func (m *move) gap(n uint64, reason pb.GapReason) {
	chaos.Numbers(chaos.Dropped, m.epoch, &pb.SeqRange{First: m.next, Last: m.next + n - 1}, reason.String())
	m.gaps = withGaps(m.gaps, &pb.Gap{First: m.next, Last: m.next + n - 1, Reason: reason})
	m.next += n
}

func (m *move) write() error {
	seg, err := m.spool.put(m.draft)
	if err == nil {
		m.segments = append(m.segments, seg)
	}
	return err
}

// undo removes what was written; what cannot be removed is at the next start, since the state knows nothing
// of it.
func (m *move) undo() {
	for _, seg := range m.segments {
		_ = m.spool.disk.remove(seg.name)
		_ = seg.file.Close()
	}
}

// finish goes on with the new segments.
func (m *move) finish() {
	s := m.spool
	old := s.segments
	s.segments, s.next, s.pending, s.bytes = m.segments, m.next, 0, 0
	for _, seg := range s.segments {
		s.pending += seg.live
		s.bytes += seg.size
	}
	s.group.tail, s.group.bytes, s.group.durable = nil, 0, m.next
	for _, g := range s.state.gaps {
		s.forget(g.GetFirst(), g.GetLast())
	}
	for _, seg := range old {
		_ = s.disk.remove(seg.name) // or at the next start
		_ = seg.file.Close()
	}
	_ = s.disk.sync()
	s.wake()
}
