package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The file: meta holds the position; measurements an id → position (8 bytes, big endian) and the
// message; opened a position and an id → nothing, in order of opening; results and late an id, a zero
// byte and a number (4 bytes, big endian) → the message.
var (
	bucketMeta         = []byte("meta")
	bucketMeasurements = []byte("measurements")
	bucketOpened       = []byte("opened")
	bucketResults      = []byte("results")
	bucketLate         = []byte("late")
	keyPosition        = []byte("position")
	keyForgot          = []byte("forgot")
)

func openDB(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("store: %s is in use by another coordinator", path)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketMeasurements, bucketOpened, bucketResults, bucketLate} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %s: %w", path, err), db.Close())
	}
	return db, nil
}

// restore takes up the checkpoint: the position, and the measurements that are open there.
func (s *Store) restore() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		s.position = number(tx.Bucket(bucketMeta).Get(keyPosition))
		s.forgot = number(tx.Bucket(bucketMeta).Get(keyForgot))
		s.forgotOn = s.forgot
		return tx.Bucket(bucketMeasurements).ForEach(func(id, value []byte) error {
			var head pb.Measurement
			if err := proto.Unmarshal(value[8:], &head); err != nil {
				return fmt.Errorf("store: measurement %s: %w", id, err)
			}
			if head.GetState() != pb.State_STATE_RUNNING {
				return nil
			}
			m, err := loadMeasurement(tx, string(id))
			if err != nil {
				return err
			}
			s.live[m.id()] = m
			s.count(m, 1)
			return nil
		})
	})
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// load reads one measurement from disk.
func (s *Store) load(id string) (m *measurement, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		m, err = loadMeasurement(tx, id)
		return err
	})
	if err == nil && m.opened <= s.forgot {
		return nil, ErrNotFound
	}
	return m, err
}

// savedHead reads a measurement without its results, and the position that opened it.
func (s *Store) savedHead(id string) (saved *pb.Measurement, opened uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		saved, opened, err = loadHead(tx, id)
		return err
	})
	return saved, opened, err
}

func loadHead(tx *bbolt.Tx, id string) (saved *pb.Measurement, opened uint64, err error) {
	value := tx.Bucket(bucketMeasurements).Get([]byte(id))
	if len(value) < 8 {
		return nil, 0, ErrNotFound
	}
	saved = &pb.Measurement{}
	if err := proto.Unmarshal(value[8:], saved); err != nil {
		return nil, 0, fmt.Errorf("store: measurement %s: %w", id, err)
	}
	return saved, number(value[:8]), nil
}

func loadMeasurement(tx *bbolt.Tx, id string) (*measurement, error) {
	saved, opened, err := loadHead(tx, id)
	if err != nil {
		return nil, err
	}
	m := newMeasurement(opened, saved)
	if m.results, err = loadResults(tx.Bucket(bucketResults), id); err != nil {
		return nil, err
	}
	if m.late, err = loadResults(tx.Bucket(bucketLate), id); err != nil {
		return nil, err
	}
	for _, r := range slices.Concat(m.results, m.late) {
		m.bytes += int64(proto.Size(r))
	}
	m.savedResults, m.savedLate = len(m.results), len(m.late)
	// A verdict of another judge is made again.
	if v := saved.GetVerdict(); v.GetJudge() == aggregate.Version {
		m.verdict, m.verdictVersion = v, m.version
	}
	return m, nil
}

// resultsOf is what the keys of a measurement's results begin with.
func resultsOf(id []byte) []byte { return append(bytes.Clone(id), 0) }

func loadResults(b *bbolt.Bucket, id string) ([]*pb.Result, error) {
	var results []*pb.Result
	prefix := resultsOf([]byte(id))
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		var r pb.Result
		if err := proto.Unmarshal(v, &r); err != nil {
			return nil, fmt.Errorf("store: result of %s: %w", id, err)
		}
		results = append(results, &r)
	}
	return results, nil
}

// savedIDs lists the ids on disk below before, the newest first, at most n.
func (s *Store) savedIDs(before string, n int) (ids []string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketMeasurements).Cursor()
		var k []byte
		if before == "" {
			k, _ = c.Last()
		} else if k, _ = c.Seek([]byte(before)); k == nil {
			k, _ = c.Last()
		}
		for ; k != nil && len(ids) < n; k, _ = c.Prev() {
			if before == "" || string(k) < before {
				ids = append(ids, string(k))
			}
		}
		return nil
	})
	return ids, err
}

// saving is what a checkpoint writes of one measurement.
type saving struct {
	m             *measurement
	head          *pb.Measurement
	results, late []*pb.Result // not on disk yet
	fromR, fromL  int          // the numbers of their first
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
	position, forgot := s.position, s.forgot
	var saves []saving
	for _, m := range s.dirty {
		head := m.snapshot(true)
		if m.verdictVersion == m.version {
			head.Verdict = m.verdict
		}
		saves = append(saves, saving{m, head, m.results[m.savedResults:], m.late[m.savedLate:], m.savedResults, m.savedLate})
	}
	dirty := maps.Clone(s.dirty)
	clear(s.dirty)
	clean := len(saves) == 0 && forgot == s.forgotOn
	s.mu.Unlock()
	if clean {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error { return save(tx, position, forgot, saves) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for id, m := range dirty {
			s.dirty[id] = m
		}
		return fmt.Errorf("store: %w", err)
	}
	s.forgotOn = forgot
	for _, w := range saves {
		w.m.savedResults, w.m.savedLate = w.fromR+len(w.results), w.fromL+len(w.late)
	}
	s.evict()
	return nil
}

// evict lets closed measurements that are on disk out of memory, the oldest first.
// Only what a checkpoint has written may go: the newest of a measurement is nowhere else.
func (s *Store) evict() {
	for len(s.closed) > 0 && s.bytes > s.recent {
		m := s.closed[0]
		if s.dirty[m.id()] != nil {
			return
		}
		s.closed = s.closed[1:]
		s.bytes -= m.counted
		delete(s.live, m.id())
	}
}

func save(tx *bbolt.Tx, position, forgot uint64, saves []saving) error {
	if err := drop(tx, forgot); err != nil {
		return err
	}
	for _, w := range saves {
		if w.m.opened <= forgot {
			continue
		}
		if err := w.write(tx); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	return errors.Join(
		meta.Put(keyPosition, binary.BigEndian.AppendUint64(nil, position)),
		meta.Put(keyForgot, binary.BigEndian.AppendUint64(nil, forgot)))
}

func (w saving) write(tx *bbolt.Tx) error {
	id := []byte(w.head.GetId())
	opened := binary.BigEndian.AppendUint64(nil, w.m.opened)
	value, err := proto.Marshal(w.head)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketMeasurements).Put(id, slices.Concat(opened, value)),
		tx.Bucket(bucketOpened).Put(slices.Concat(opened, id), nil),
		putResults(tx.Bucket(bucketResults), id, w.fromR, w.results),
		putResults(tx.Bucket(bucketLate), id, w.fromL, w.late))
}

func putResults(b *bbolt.Bucket, id []byte, from int, results []*pb.Result) error {
	for i, r := range results {
		value, err := proto.Marshal(r)
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint32(resultsOf(id), uint32(from+i))
		if err := b.Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes what was opened at or before a position.
func drop(tx *bbolt.Tx, upTo uint64) error {
	opened := tx.Bucket(bucketOpened)
	for {
		k, _ := opened.Cursor().First()
		if k == nil || number(k[:8]) > upTo {
			return nil
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

// Oldest is the highest position such that every measurement opened at or before it was closed before
// a time; 0 if there is none. It sees what is on disk.
func (s *Store) Oldest(before time.Time) (position uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketOpened).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			var m pb.Measurement
			if err := proto.Unmarshal(tx.Bucket(bucketMeasurements).Get(k[8:])[8:], &m); err != nil {
				return fmt.Errorf("store: measurement %s: %w", k[8:], err)
			}
			if m.GetFinishTime() == nil || !m.GetFinishTime().AsTime().Before(before) {
				return nil
			}
			position = number(k[:8])
		}
		return nil
	})
	return position, err
}
