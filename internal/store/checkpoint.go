package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// saving is what a checkpoint writes of one measurement.
type saving struct {
	m             *measurement
	head          *pb.Measurement
	sum           sum
	results, late unsaved
}

// unsaved is the results of a measurement that are not on disk yet.
type unsaved struct {
	results []*pb.Result
	records []record
	encoded [][]byte
	from    int // the number of the first
}

func (u unsaved) end() int { return u.from + len(u.results) }

// write is one value that a checkpoint writes; nil data deletes the key.
type write struct{ bucket, key, data []byte }

// checkpoint is all that one writes.
type checkpoint struct {
	checkpointed
	log    string
	saves  []saving
	spools []*delivered // of writes, those that are to be written again if it fails
	writes []write
	audits []auditEvent
}

// Checkpoint writes what has changed since the last one, in one synced transaction, and lets closed
// measurements beyond the bound out of memory.
//
// What is dirty is taken off the list before it is written: what changes during the write is dirty again and goes into
// the next one. If the write fails all of it is put back; to write an entry twice does no harm, since its key is its
// place in the fold. The position goes into the same transaction, so that the file is the fold at exactly that
// position, whenever the process dies.
func (s *Store) Checkpoint() error {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	s.mu.Lock()
	taken := s.take()
	s.mu.Unlock()
	if taken == nil {
		return nil
	}
	chaos.Point("checkpoint.writing")
	err := s.update(taken.save)
	chaos.Point("checkpoint.written")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = nil
	if err != nil {
		s.putBack(taken)
		return fmt.Errorf("store: %s: %w", s.db.Path(), err)
	}
	s.forgotOn, s.positionOn, s.logOn = taken.forgot, taken.position, taken.log
	s.audits.wrote(taken.position)
	for _, w := range taken.saves {
		w.m.wrote(w.results, w.late)
	}
	s.evict()
	return nil
}

// take takes what a checkpoint has to write; nil if that is nothing.
func (s *Store) take() *checkpoint {
	clean := len(s.dirty) == 0 && s.position == s.positionOn && s.log == s.logOn
	if clean {
		return nil
	}
	c := &checkpoint{
		checkpointed: checkpointed{s.position, s.forgot, s.hash(), s.measurements, s.audits.sum},
		log:          s.log,
		audits:       slices.Clone(s.audits.unsaved),
	}
	for _, m := range s.dirty {
		c.saves = append(c.saves, m.saving())
	}
	for name := range s.registry.dirty {
		c.writes = append(c.writes, write{bucketEnrolments, []byte(name), s.registry.agents[name].encode()})
	}
	for key := range s.deliveries.gone {
		c.writes = append(c.writes, write{bucketSpools, []byte(key), nil})
	}
	for e := range s.deliveries.dirty {
		c.spools = append(c.spools, e)
		c.writes = append(c.writes, write{bucketSpools, e.key(), e.encode()})
	}
	c.sort()
	s.writing, s.dirty = s.dirty, map[string]*measurement{}
	clear(s.registry.dirty)
	clear(s.deliveries.gone)
	clear(s.deliveries.dirty)
	return c
}

// sort puts what is written in the order of the keys. bbolt keeps the keys of a leaf in a slice and splits it at the
// commit alone: a key before others has it move them all, for each of a hundred thousand.
func (c *checkpoint) sort() {
	slices.SortFunc(c.saves, func(a, b saving) int { return cmp.Compare(a.m.id(), b.m.id()) })
	slices.SortFunc(c.writes, func(a, b write) int {
		return cmp.Or(bytes.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key))
	})
}

func (m *measurement) saving() saving {
	head := m.snapshot(true)
	if m.verdictVersion == m.version {
		head.Verdict = m.verdict
	}
	return saving{
		m, head, m.sum,
		unsaved{m.results[m.savedResults:], m.records[m.savedResults:], m.encodedResults, m.savedResults},
		unsaved{m.late[m.savedLate:], m.lateRecords[m.savedLate:], m.encodedLate, m.savedLate},
	}
}

// wrote notes that results are on disk, and lets go of the bytes of the log that they were written from.
func (m *measurement) wrote(results, late unsaved) {
	m.savedResults, m.savedLate = results.end(), late.end()
	m.encodedResults = slices.Clone(m.encodedResults[len(results.encoded):])
	m.encodedLate = slices.Clone(m.encodedLate[len(late.encoded):])
}

// putBack makes dirty again what could not be written, unless it is gone meanwhile.
func (s *Store) putBack(c *checkpoint) {
	for _, w := range c.saves {
		if s.live[w.m.id()] == w.m {
			s.dirty[w.m.id()] = w.m
		}
	}
	for _, e := range c.spools {
		if s.deliveries.find(e.agent, e.epoch) == e {
			s.deliveries.dirty[e] = true
		}
	}
	for _, w := range c.writes {
		switch {
		case string(w.bucket) == string(bucketEnrolments):
			s.registry.dirty[string(w.key)] = true
		case w.data == nil && s.deliveries.keyed(w.key) == nil:
			s.deliveries.gone[string(w.key)] = true
		}
	}
}

// evict lets closed measurements that are on disk out of memory, the oldest first.
// Only what a checkpoint has written may go: the newest of a measurement is nowhere else.
func (s *Store) evict() {
	for len(s.closed) > 0 && s.bytes > s.recent {
		m := s.closed[0]
		if s.dirty[m.id()] != nil || s.writing[m.id()] != nil {
			return
		}
		s.closed[0] = nil // or what is behind the slice would hold it
		s.closed = s.closed[1:]
		s.bytes -= m.counted
		s.evicted++
		delete(s.live, m.id())
	}
}

func (c *checkpoint) save(tx *bbolt.Tx) error {
	if err := drop(tx, c.forgot); err != nil {
		return err
	}
	for _, w := range c.saves {
		if w.m.opened <= c.forgot {
			continue
		}
		if err := w.write(tx); err != nil {
			return err
		}
	}
	for _, w := range c.writes {
		if w.data == nil {
			if err := tx.Bucket(w.bucket).Delete(w.key); err != nil {
				return err
			}
		} else if err := put(tx, w.bucket, w.key, w.data); err != nil {
			return err
		}
	}
	for _, e := range c.audits {
		if err := put(tx, bucketAudit, e.key(), e.data); err != nil {
			return err
		}
	}
	return errors.Join(
		put(tx, bucketMeta, keyState, c.encode()),
		put(tx, bucketMeta, keyLog, []byte(c.log)))
}

func (w saving) write(tx *bbolt.Tx) error {
	id := []byte(w.head.GetId())
	value, err := proto.Marshal(w.head)
	if err != nil {
		return err
	}
	return errors.Join(
		put(tx, bucketMeasurements, id, binary.BigEndian.AppendUint64(nil, w.m.opened), value),
		put(tx, bucketOpened, openedKey(w.m.opened, w.head.GetId()), w.sum.bytes()),
		w.results.write(tx, bucketResults, id),
		w.late.write(tx, bucketLate, id))
}

func (u unsaved) write(tx *bbolt.Tx, bucket, id []byte) error {
	for i, r := range u.results {
		value, err := received{r, u.encoded[i]}.bytes()
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint32(resultsOf(id), uint32(u.from+i))
		if err := put(tx, bucket, key, u.records[i].encode(), value); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes what was opened, or happened, at or before a position.
func drop(tx *bbolt.Tx, upTo uint64) error {
	opened := tx.Bucket(bucketOpened)
	for {
		k, _ := opened.Cursor().First()
		if k == nil || number(k[:8]) > upTo {
			return dropAudit(tx.Bucket(bucketAudit), upTo)
		}
		id := bytes.Clone(k[8:])
		err := errors.Join(
			tx.Bucket(bucketMeasurements).Delete(id),
			dropPrefix(tx.Bucket(bucketResults), resultsOf(id)),
			dropPrefix(tx.Bucket(bucketLate), resultsOf(id)),
			opened.Delete(bytes.Clone(k)))
		if err != nil {
			return err
		}
	}
}

// dropPrefix seeks anew for every key: a cursor may skip one after a deletion.
func dropPrefix(b *bbolt.Bucket, prefix []byte) error {
	for {
		k, _ := b.Cursor().Seek(prefix)
		if !bytes.HasPrefix(k, prefix) || k == nil {
			return nil
		}
		if err := b.Delete(bytes.Clone(k)); err != nil {
			return err
		}
	}
}

func dropAudit(b *bbolt.Bucket, upTo uint64) error {
	for {
		k, _ := b.Cursor().First()
		if k == nil || number(k[:8]) > upTo {
			return nil
		}
		if err := b.Delete(bytes.Clone(k)); err != nil {
			return err
		}
	}
}
