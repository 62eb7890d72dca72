// Package spool keeps an agent's results on disk until the coordinator has acknowledged them.
//
// A spool is a directory of segment files. A segment is a header and records; a record is
//
//	length uint32 | CRC-32C uint32 | kind uint8 | seq uint64 | payload
//
// in little endian, the checksum over kind, seq and payload. Numbers run from 1 and are never used
// twice. What is torn at the end of the last segment is cut at Open; a record with a wrong checksum
// ends the reading of its segment.
package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	segmentBytes = 4 << 20
	// MaxResult is the largest result that a spool takes, in bytes.
	MaxResult = 64 << 10
	// syncDelay is how long a record may wait for company, and for its acknowledgement, before
	// it is forced to disk: most are acknowledged sooner and never need it.
	syncDelay = 50 * time.Millisecond
)

// ErrFull says that the spool has reached its bound.
var ErrFull = errors.New("spool is full")

// Spool holds results that are not acknowledged yet. It is safe for concurrent use.
type Spool struct {
	dir   string
	limit int64

	mu       sync.Mutex
	segments []*segment
	next     uint64            // the number of the next result
	pending  map[uint64]record // results without acknowledgement
	bytes    int64             // on disk
	changed  chan struct{}     // closed and replaced when a result is appended
	drained  chan struct{}     // closed and replaced when pending becomes empty
	timer    *time.Timer       // the sync to come, if any
	failed   error             // the first failed sync; it poisons the spool (fsync(2) may lie after)
	refused  error             // the last Append that could not be written
	when     time.Time         // of refused
	lock     *os.File          // keeps two agents from one spool
}

// record is where a result stands.
type record struct {
	segment *segment
	offset  int64
	length  int
	job     Key
	agent   string
}

// Key is the identity of a job at one agent.
type Key struct {
	Measurement string
	Round       int32
}

// Open opens the spool in dir, or makes one. It never holds more than limit bytes on disk.
func Open(dir string, limit int64) (_ *Spool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{
		dir:     dir,
		limit:   limit,
		next:    1,
		pending: map[uint64]record{},
		changed: make(chan struct{}),
		drained: make(chan struct{}),
	}
	if s.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	slices.Sort(names) // names are fixed-width numbers
	for _, name := range names {
		if err := s.load(name); err != nil {
			return nil, err
		}
	}
	return s, s.rotate()
}

// load reads one segment and takes up what is pending in it.
func (s *Spool) load(name string) error {
	seg, err := openSegment(name)
	if err != nil {
		return err
	}
	s.next = max(s.next, seg.base)
	err = seg.scan(func(kind byte, seq uint64, offset int64, payload []byte) {
		switch kind {
		case kindResult:
			var result pb.Result
			if proto.Unmarshal(payload, &result) != nil {
				return
			}
			s.pending[seq] = record{seg, offset, len(payload), keyOf(&result), result.GetAgent()}
			seg.live++
			s.next = max(s.next, seq+1)
		case kindAck:
			s.forget(seq)
		}
	})
	if err != nil {
		return err
	}
	s.segments = append(s.segments, seg)
	s.bytes += seg.size
	return nil
}

func keyOf(r *pb.Result) Key { return Key{r.GetMeasurementId(), r.GetRound()} }

// Append keeps a result. It returns when the result is written; it reaches the disk itself within
// 50 ms, unless it is acknowledged before. ErrFull: nothing was kept.
func (s *Spool) Append(result *pb.Result) error {
	payload, err := proto.Marshal(result)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if len(payload) > MaxResult {
		return fmt.Errorf("spool: a result of %d bytes; at most %d", len(payload), MaxResult)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if s.bytes+int64(len(payload)) > s.limit {
		return ErrFull
	}
	offset, err := s.write(kindResult, s.next, payload)
	if err != nil {
		s.refused, s.when = err, time.Now()
		return err
	}
	s.refused = nil
	seg := s.last()
	seg.live++
	s.pending[s.next] = record{seg, offset, len(payload), keyOf(result), result.GetAgent()}
	s.next++
	close(s.changed)
	s.changed = make(chan struct{})
	s.syncSoon()
	return nil
}

// Ack forgets the results first to last; they are durable elsewhere. What cannot be noted on disk is
// sent again after a restart, no more.
func (s *Spool) Ack(first, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	writable := true
	for seq := first; seq <= min(last, s.next-1); seq++ {
		if s.forget(seq) && writable {
			_, err := s.write(kindAck, seq, nil)
			writable = err == nil
		}
	}
	if len(s.pending) > 0 {
		return nil
	}
	close(s.drained)
	s.drained = make(chan struct{})
	return s.prune()
}

// forget drops a pending result, if there is one.
func (s *Spool) forget(seq uint64) bool {
	r, ok := s.pending[seq]
	if ok {
		r.segment.live--
		delete(s.pending, seq)
	}
	return ok
}

// write appends a record to the last segment, after starting a new one if that is full.
func (s *Spool) write(kind byte, seq uint64, payload []byte) (int64, error) {
	if s.last().size > segmentBytes {
		if err := s.rotate(); err != nil {
			return 0, err
		}
	}
	seg := s.last()
	before := seg.size
	offset, err := seg.append(kind, seq, payload)
	s.bytes += seg.size - before
	return offset, err
}

func (s *Spool) last() *segment { return s.segments[len(s.segments)-1] }

// rotate starts a new segment and removes those that nothing is pending in.
func (s *Spool) rotate() error {
	name := filepath.Join(s.dir, fmt.Sprintf("%020d.seg", s.next))
	if n := len(s.segments); n > 0 && s.segments[n-1].name == name {
		return nil // nothing was appended since
	} else if n > 0 && s.segments[n-1].live > 0 {
		if err := s.segments[n-1].sync(); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	seg, err := createSegment(name, s.next)
	if err != nil {
		return err
	}
	s.segments = append(s.segments, seg)
	s.bytes += seg.size
	return s.prune()
}

// prune removes segments without pending results. A last segment of some size is replaced by an
// empty one, whose name keeps the next number.
func (s *Spool) prune() error {
	if len(s.pending) == 0 && s.last().size > segmentBytes/16 {
		return s.rotate()
	}
	kept := s.segments[:0]
	var errs []error
	for i, seg := range s.segments {
		// Acks stand after the results they are about, maybe in a later segment: only the
		// oldest segments go, so that no ack goes before its result.
		if seg.live > 0 || i == len(s.segments)-1 || len(kept) > 0 {
			kept = append(kept, seg)
			continue
		}
		s.bytes -= seg.size
		errs = append(errs, seg.remove())
	}
	s.segments = kept
	return errors.Join(errs...)
}

// syncSoon forces what is written to disk after syncDelay, if it is still pending then.
func (s *Spool) syncSoon() {
	if s.timer != nil {
		return
	}
	s.timer = time.AfterFunc(syncDelay, func() {
		s.mu.Lock()
		s.timer = nil
		seg := s.last()
		idle := len(s.pending) == 0
		s.mu.Unlock()
		if idle {
			return
		}
		if err := seg.sync(); err != nil {
			s.mu.Lock()
			if slices.Contains(s.segments, seg) { // not removed meanwhile
				s.failed = fmt.Errorf("spool: %w", err)
			}
			s.mu.Unlock()
		}
	})
}

// Next returns the pending results after a number, in order, at most n of them and about 512 KiB.
// If there are none it returns a channel that is closed when there is something new.
func (s *Spool) Next(after uint64, n int) ([]*pb.SpooledResult, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var seqs []uint64
	for seq := range s.pending {
		if seq > after {
			seqs = append(seqs, seq)
		}
	}
	if len(seqs) == 0 {
		return nil, s.changed, nil
	}
	slices.Sort(seqs)
	var batch []*pb.SpooledResult
	for size := 0; len(seqs) > 0 && len(batch) < n && size < 512<<10-MaxResult; seqs = seqs[1:] {
		r := s.pending[seqs[0]]
		payload, err := r.segment.read(r.offset, r.length)
		if err != nil {
			return nil, nil, err
		}
		result := &pb.Result{}
		if err := proto.Unmarshal(payload, result); err != nil {
			return nil, nil, fmt.Errorf("spool: result %d: %w", seqs[0], err)
		}
		batch = append(batch, &pb.SpooledResult{Seq: seqs[0], Result: result})
		size += r.length
	}
	return batch, nil, nil
}

// Has tells whether the result of a job is pending.
func (s *Spool) Has(job Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.pending {
		if r.job == job {
			return true
		}
	}
	return false
}

// retryAfter is how long a spool that could not be written is not tried again.
const retryAfter = 10 * time.Second

// Err says why results cannot be kept, nil if they can: the disk is full, or it failed.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && time.Since(s.when) < retryAfter {
		return s.refused
	}
	return s.failed
}

// Foreign names another agent whose results are pending, "" if there is none: nobody would take them
// from this one.
func (s *Spool) Foreign(agent string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.pending {
		if r.agent != agent {
			return r.agent
		}
	}
	return ""
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
	return s.drained, len(s.pending) == 0
}

// Close forces everything to disk and closes the files. Nothing may be called after it.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	var errs []error
	for _, seg := range s.segments {
		errs = append(errs, seg.sync(), seg.file.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
