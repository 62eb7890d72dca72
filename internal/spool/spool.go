// Package spool keeps an agent's results on disk until the coordinator has acknowledged them.
//
// A spool is a directory of segment files and one file of its state. A segment is a header (magic, agent,
// epoch, base, when it was made, checksum) and records; a record is
//
//	length uint32 | kind uint8 | seq uint64 | CRC-32C of the payload | CRC-32C of all that | payload
//
// in little endian, both checksums seeded with the header's. The second one tells where the next record
// begins even if the payload was damaged; beyond a record whose own place is not sure nothing is believed.
//
// Numbers run from 1 in each epoch, without a hole, and are never used twice in it. Each is pending, or
// acknowledged, or in a gap: the spool or its disk was full (the oldest go, or what could not be written), or
// what was on disk could not be read back. Gaps are in the state file, whose blocks are there from the
// beginning, so that they can be written on a full disk; they are handed out like results until they are
// acknowledged.
//
// Where numbers may have been used that nothing shows any more (the last segment is damaged beyond a torn
// end, an acknowledgement cannot be read, the state is gone), the epoch cannot go on: Epoch is 0, and what is
// pending is renumbered into the next.
package spool

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	segmentBytes = 4 << 20
	// MaxResult is the largest result that a spool takes, in bytes.
	MaxResult = 64 << 10
	// retryAfter is how long a spool that could not be written is not tried again.
	retryAfter = 10 * time.Second
)

// Spool holds results that are not acknowledged yet. It is safe for concurrent use.
type Spool struct {
	disk  disk
	limit int64
	seed  maphash.Seed
	lock  *os.File // keeps two agents from one spool

	mu        sync.Mutex
	stateFile *stateFile
	state     state
	segments  []*segment // the oldest first; the last one is written to
	serial    uint64     // of the newest segment
	leftover  []string   // files that could not be finished, nor removed
	next      uint64     // the number of the next result
	bytes     int64      // of all segments
	pending   int        // results without acknowledgement
	changed   chan struct{}
	drained   chan struct{}
	broken    error     // the state could not be saved: what is on disk is not known any more
	refused   error     // why the last Append kept nothing
	when      time.Time // of refused
	group     group
}

// Key is the identity of a job at one agent.
type Key struct {
	Measurement string
	Round       int32
}

// hash is what a spool remembers of a key.
func (s *Spool) hash(k Key) uint64 { return maphash.Comparable(s.seed, k) }

// keyOf finds whose a marshalled result is, without unmarshalling all of it.
func keyOf(payload []byte) (k Key) {
	for len(payload) > 0 {
		number, kind, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return k
		}
		payload = payload[n:]
		switch {
		case number == 1 && kind == protowire.BytesType:
			id, _ := protowire.ConsumeBytes(payload)
			k.Measurement = string(id)
		case number == 2 && kind == protowire.VarintType:
			round, _ := protowire.ConsumeVarint(payload)
			k.Round = int32(round)
		}
		if n = protowire.ConsumeFieldValue(number, kind, payload); n < 0 {
			return k
		}
		payload = payload[n:]
	}
	return k
}

// Append keeps a result. It returns when the result is written; it reaches the disk itself within 50 ms,
// unless it is acknowledged before. When the spool is full the oldest results go, and their numbers are a gap. After an error nothing
// was kept, and the number that the result would have had is a gap.
func (s *Spool) Append(result *pb.Result) error {
	payload, err := proto.Marshal(result)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if len(payload) > MaxResult {
		return fmt.Errorf("spool: a result of %d bytes; at most %d", len(payload), MaxResult)
	}
	job := s.hash(Key{result.GetMeasurementId(), result.GetRound()})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitForRoom()
	chaos.Spool(result, s.state.epoch, s.next)
	if s.broken != nil {
		return s.broken
	}
	if err := s.keep(payload, job); err != nil {
		s.refused, s.when = err, time.Now()
		return errors.Join(err, s.giveUp(pb.GapReason_GAP_REASON_SPOOL_FULL, span{s.next, s.next}))
	}
	s.refused = nil
	s.wake()
	return nil
}

// keep writes a result and takes it up.
func (s *Spool) keep(payload []byte, job uint64) error {
	if err := s.makeRoom(recordBytes + int64(len(payload))); err != nil {
		return err
	}
	offset, err := s.write(record{kindResult, s.next, payload})
	if err != nil {
		return err
	}
	s.last().note(entry{s.next, job, uint32(offset), uint32(len(payload))})
	s.pending++
	s.gather(unsynced{s.next, job, payload})
	s.next++
	return nil
}

// makeRoom has the last segment take a record, and the oldest ones go until it is within the bound.
func (s *Spool) makeRoom(need int64) error {
	if seg := s.last(); seg.sealed || seg.size >= s.segmentBytes() {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	for s.bytes+need > s.limit && len(s.segments) > 1 {
		if err := s.dropOldest(); err != nil {
			return err
		}
	}
	return nil
}

// segmentBytes is the size from which on a segment is full: small enough that the oldest one is a small part
// of the spool.
func (s *Spool) segmentBytes() int64 { return min(segmentBytes, s.limit/16) }

// dropOldest gives up what is pending in the oldest segment.
func (s *Spool) dropOldest() error {
	seg := s.segments[0]
	if err := s.giveUp(pb.GapReason_GAP_REASON_SPOOL_FULL, seg.spans()...); err != nil {
		return err
	}
	s.prune()
	if len(s.segments) > 0 && s.segments[0] == seg {
		return fmt.Errorf("spool: %s cannot be removed", seg.name)
	}
	return nil
}

// giveUp makes numbers a gap, durably. The next number is used up if it is one of them.
func (s *Spool) giveUp(reason pb.GapReason, spans ...span) error {
	if len(spans) == 0 {
		return nil
	}
	st := s.state
	st.next = s.next
	more := make([]*pb.Gap, 0, len(spans))
	for _, p := range spans {
		chaos.Numbers(chaos.Dropped, st.epoch, &pb.SeqRange{First: p.first, Last: p.last}, reason.String())
		more = append(more, &pb.Gap{First: p.first, Last: p.last, Reason: reason})
		st.next = max(st.next, p.last+1)
	}
	st.gaps = withGaps(st.gaps, more...)
	if err := s.save(st); err != nil {
		return err
	}
	s.next = st.next
	for _, g := range st.gaps { // a gap wins, also over what stands between gaps that became one
		s.forget(g.GetFirst(), g.GetLast())
	}
	s.wake()
	return nil
}

// save makes a state durable. After an error nobody knows which one is on disk: nothing more is kept.
func (s *Spool) save(st state) error {
	if s.broken != nil {
		return s.broken
	}
	if err := s.stateFile.save(st); err != nil {
		s.broken = err
		return err
	}
	s.state = st
	return nil
}

// wake tells those who wait that there is something to hand out.
func (s *Spool) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Ack forgets the numbers first to last: they are durable elsewhere, or known to bring nothing. What cannot be
// noted on disk is handed out again after a restart, no more.
func (s *Spool) Ack(first, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	chaos.Numbers(chaos.Acked, s.state.epoch, &pb.SeqRange{First: first, Last: last}, "")
	chaos.Point("spool.acked")
	last = min(last, s.next-1)
	if first > last {
		return nil
	}
	gone := overlaps(s.state.gaps, first, last)
	if s.forget(first, last) == 0 && !gone {
		return nil
	}
	// A gap is forgotten only if that it was acknowledged stands where its numbers would be missed.
	if _, err := s.write(ack(first, last)); err == nil && gone {
		st := s.state
		st.gaps = withGaps(withoutGaps(st.gaps, first, last))
		if err := s.save(st); err != nil {
			return err
		}
	}
	s.tidy()
	return nil
}

// overlaps tells whether a gap has one of the numbers first to last.
func overlaps(gaps []*pb.Gap, first, last uint64) bool {
	for _, g := range gaps {
		if g.GetFirst() <= last && g.GetLast() >= first {
			return true
		}
	}
	return false
}

// forget drops pending results and returns how many.
func (s *Spool) forget(first, last uint64) (n int) {
	for _, seg := range s.segments {
		n += seg.forget(first, last)
	}
	if n > 0 {
		s.pending -= n
		s.group.forget(first, last)
	}
	return n
}

// write appends a record to the last segment, if that takes any.
func (s *Spool) write(r record) (offset int64, err error) {
	seg := s.last()
	if seg.sealed {
		return 0, errors.New("spool: no segment can be written to")
	}
	before := seg.size
	offset, err = seg.append(r)
	s.bytes += seg.size - before
	return offset, err
}

func (s *Spool) last() *segment { return s.segments[len(s.segments)-1] }

// Has tells whether the result of a job is pending.
func (s *Spool) Has(job Key) bool {
	hash := s.hash(job)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		for _, e := range seg.entries {
			if e.job == hash && e.offset != 0 {
				return true
			}
		}
	}
	return false
}

// Err says why results cannot be kept, nil if they can or may be tried again: the disk is full, or it failed.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil && time.Since(s.when) < retryAfter {
		return s.refused
	}
	return s.broken
}

// Usage is the share of the bound that is used, from 0 to 1.
func (s *Spool) Usage() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.bytes) / float64(s.limit)
}

// Drained returns a channel that is closed when nothing is pending, and whether that is so now.
func (s *Spool) Drained() (<-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained, s.idle()
}

func (s *Spool) idle() bool { return s.pending == 0 && len(s.state.gaps) == 0 }

// Close forces everything to disk and closes the files. Nothing may be called after it.
func (s *Spool) Close() error {
	err := s.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.group.syncing {
		s.group.synced.Wait()
	}
	s.group.stop()
	s.group.tail = nil // what could not be synced is not tried any more
	return errors.Join(err, s.closeFiles())
}

func (s *Spool) closeFiles() error {
	var errs []error
	for _, seg := range s.segments {
		errs = append(errs, seg.file.Close())
	}
	if s.stateFile != nil && s.stateFile.file != nil {
		errs = append(errs, s.stateFile.file.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
