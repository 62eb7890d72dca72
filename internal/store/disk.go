package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The file: meta holds the format, the state and the log's name; measurements an id → position (8 bytes, big endian)
// and the message; opened a position and an id → the measurement's sum, in order of opening; results and late an id, a
// zero byte and a number (4 bytes, big endian) → the record and the message; enrolments a name → since and the message;
// spools an agent, a zero byte and an epoch → since, dropped and the spans; audit a position and a number (4 bytes) →
// the message; keys the name of a bucket beside the log → its last revision, and with a zero byte and a key → that
// one's. Every value is sealed.
var (
	bucketMeta         = []byte("meta")
	bucketMeasurements = []byte("measurements")
	bucketOpened       = []byte("opened")
	bucketResults      = []byte("results")
	bucketLate         = []byte("late")
	bucketEnrolments   = []byte("enrolments")
	bucketSpools       = []byte("spools")
	bucketAudit        = []byte("audit")
	bucketKeys         = []byte("keys")
	keyFormat          = []byte("format")
	keyState           = []byte("state")
	keyLog             = []byte("log")

	buckets = [][]byte{
		bucketMeta, bucketMeasurements, bucketOpened, bucketResults, bucketLate, bucketEnrolments, bucketSpools, bucketAudit,
		bucketKeys,
	}
)

// Format is what the file is written in, and what it is folded by. A file of another one is made again from the log.
const Format = "5"

func openDB(path string) (db *bbolt.DB, err error) {
	defer guard(&err)()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, errors.New("it is in use by another coordinator")
	}
	if err != nil {
		return nil, err
	}
	if err = db.Update(prepare); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// prepare makes the buckets, and empties a file of another format.
func prepare(tx *bbolt.Tx) error {
	if meta := tx.Bucket(bucketMeta); meta != nil {
		is, err := get(tx, bucketMeta, keyFormat)
		if err != nil {
			return err
		}
		if string(is) == Format {
			return nil
		}
		err = tx.ForEach(func(name []byte, _ *bbolt.Bucket) error { return tx.DeleteBucket(bytes.Clone(name)) })
		if err != nil {
			return err
		}
	}
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return put(tx, bucketMeta, keyFormat, []byte(Format))
}

// checkpointed is what meta says of a checkpoint.
type checkpointed struct {
	position, forgot           uint64
	hash, measurements, audits sum
}

const checkpointedSize = 8 + 8 + 3*32

func (c checkpointed) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.position)
	b = binary.BigEndian.AppendUint64(b, c.forgot)
	return slices.Concat(b, c.hash.bytes(), c.measurements.bytes(), c.audits.bytes())
}

func loadCheckpointed(tx *bbolt.Tx) (checkpointed, error) {
	data, err := get(tx, bucketMeta, keyState)
	if err != nil || data == nil {
		return checkpointed{}, err
	}
	if len(data) != checkpointedSize {
		return checkpointed{}, ErrDamaged
	}
	return checkpointed{number(data[:8]), number(data[8:16]), sumFrom(data[16:48]), sumFrom(data[48:80]), sumFrom(data[80:112])}, nil
}

// restore takes up the checkpoint: the position, the measurements that are open there, the enrolments and the spools.
func (s *Store) restore() error {
	return s.view(func(tx *bbolt.Tx) error {
		at, err := loadCheckpointed(tx)
		if err != nil {
			return err
		}
		s.position, s.forgot, s.forgotOn = at.position, at.forgot, at.forgot
		s.measurements, s.audits.sum, s.audits.saved = at.measurements, at.audits, at.position
		name, err := get(tx, bucketMeta, keyLog)
		if err != nil {
			return err
		}
		s.log = string(name)
		if err := errors.Join(s.restoreRunning(tx), s.restoreTrust(tx)); err != nil {
			return err
		}
		if s.hash() != at.hash {
			return fmt.Errorf("%w: its parts are not of one state", ErrDamaged)
		}
		return nil
	})
}

func (s *Store) restoreRunning(tx *bbolt.Tx) error {
	return each(tx, bucketMeasurements, func(id, data []byte) error {
		head, _, err := decodeHead(id, data)
		if err != nil || head.GetState() != pb.State_STATE_RUNNING {
			return err
		}
		m, err := loadMeasurement(tx, string(id))
		if err != nil {
			return err
		}
		s.live[m.id()] = m
		s.begun(m)
		return nil
	})
}

func (s *Store) restoreTrust(tx *bbolt.Tx) error {
	err := each(tx, bucketEnrolments, func(key, data []byte) error {
		e, since, err := decodeEnrolled(key, data)
		if err == nil {
			s.registry.restore(e, since)
		}
		return err
	})
	if err != nil {
		return err
	}
	return each(tx, bucketSpools, func(key, data []byte) error {
		e, err := decodeDelivered(key, data)
		if err == nil {
			s.deliveries.restore(e)
		}
		return err
	})
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// read reads one measurement from disk.
func (s *Store) read(id string) (m *measurement, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		m, err = loadMeasurement(tx, id)
		return err
	})
	return m, err
}

// load is read, unless it is forgotten.
func (s *Store) load(id string) (*measurement, error) {
	m, err := s.read(id)
	if err == nil && m.opened <= s.forgot {
		return nil, ErrNotFound
	}
	return m, err
}

// savedHead reads a measurement without its results, and the position that opened it.
func (s *Store) savedHead(id string) (saved *pb.Measurement, opened uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		saved, opened, err = loadHead(tx, id)
		return err
	})
	return saved, opened, err
}

func loadHead(tx *bbolt.Tx, id string) (saved *pb.Measurement, opened uint64, err error) {
	data, err := get(tx, bucketMeasurements, []byte(id))
	if err != nil {
		return nil, 0, err
	}
	if data == nil {
		return nil, 0, ErrNotFound
	}
	return decodeHead([]byte(id), data)
}

func decodeHead(id, data []byte) (saved *pb.Measurement, opened uint64, err error) {
	saved = &pb.Measurement{}
	if len(data) < 8 || proto.Unmarshal(data[8:], saved) != nil || saved.GetId() != string(id) {
		return nil, 0, fmt.Errorf("%w: the measurement %s", ErrDamaged, id)
	}
	return saved, number(data[:8]), nil
}

// openedKey is where a measurement's sum is.
func openedKey(position uint64, id string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, position), id...)
}

func loadMeasurement(tx *bbolt.Tx, id string) (*measurement, error) {
	saved, opened, err := loadHead(tx, id)
	if err != nil {
		return nil, err
	}
	m := newMeasurement(opened, saved)
	total, err := get(tx, bucketOpened, openedKey(opened, id))
	if err != nil {
		return nil, err
	}
	if len(total) != len(m.sum)*8 {
		return nil, fmt.Errorf("%w: the sum of measurement %s", ErrDamaged, id)
	}
	m.sum = sumFrom(total)
	if m.results, m.records, err = loadResults(tx, bucketResults, id); err != nil {
		return nil, err
	}
	if m.late, m.lateRecords, err = loadResults(tx, bucketLate, id); err != nil {
		return nil, err
	}
	if !m.found() {
		return nil, fmt.Errorf("%w: results of %s", ErrDamaged, id)
	}
	// A verdict of another judge is made again.
	if v := saved.GetVerdict(); v.GetJudge() == aggregate.Version {
		m.verdict, m.verdictVersion = v, m.version
	}
	return m, nil
}

// resultsOf is what the keys of a measurement's results begin with.
func resultsOf(id []byte) []byte { return append(bytes.Clone(id), 0) }

func loadResults(tx *bbolt.Tx, bucket []byte, id string) (results []*pb.Result, records []record, err error) {
	prefix := resultsOf([]byte(id))
	c := tx.Bucket(bucket).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		data, err := unseal(bucket, k, v)
		if err != nil {
			return nil, nil, err
		}
		at, r, err := decodeResult(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: a result of %s: %w", ErrDamaged, id, err)
		}
		results, records = append(results, r), append(records, at)
	}
	return results, records, nil
}

// savedIDs lists the ids on disk below before, the newest first, at most n.
func (s *Store) savedIDs(before string, n int) (ids []string, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
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

// Oldest is the highest position such that every measurement opened at or before it was closed before
// a time; 0 if there is none. It sees what is on disk.
func (s *Store) Oldest(before time.Time) (position uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketOpened).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			m, _, err := loadHead(tx, string(k[8:]))
			if err != nil {
				return err
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
