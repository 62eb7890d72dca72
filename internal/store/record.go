package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ErrDamaged says that the checkpoint is not what was written. Nothing of it is to be believed; the log has it all.
var ErrDamaged = errors.New("store: the checkpoint is damaged; move it away, and it is made again from the log")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal is a value as it stands on disk: CRC-32C of bucket, key and data, 4 bytes big endian, then the data. Neither a
// flipped bit nor a value in another's place is taken for what was written.
func seal(bucket, key []byte, data ...[]byte) []byte {
	size := 4
	for _, d := range data {
		size += len(d)
	}
	sealed := make([]byte, 4, size)
	for _, d := range data {
		sealed = append(sealed, d...)
	}
	binary.BigEndian.PutUint32(sealed, checksum(bucket, key, sealed[4:]))
	return sealed
}

// unseal is what was sealed.
func unseal(bucket, key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 || binary.BigEndian.Uint32(sealed) != checksum(bucket, key, sealed[4:]) {
		return nil, fmt.Errorf("%w (%s %q)", ErrDamaged, bucket, key)
	}
	return sealed[4:], nil
}

func checksum(bucket, key, data []byte) uint32 {
	crc := crc32.Update(0, castagnoli, bucket)
	crc = crc32.Update(crc, castagnoli, key)
	return crc32.Update(crc, castagnoli, data)
}

// get reads what was sealed under a key; nil if there is nothing.
func get(tx *bbolt.Tx, bucket, key []byte) ([]byte, error) {
	sealed := tx.Bucket(bucket).Get(key)
	if sealed == nil {
		return nil, nil
	}
	return unseal(bucket, key, sealed)
}

func put(tx *bbolt.Tx, bucket, key []byte, data ...[]byte) error {
	return tx.Bucket(bucket).Put(key, seal(bucket, key, data...))
}

// each calls see with all that a bucket holds.
func each(tx *bbolt.Tx, bucket []byte, see func(key, data []byte) error) error {
	return tx.Bucket(bucket).ForEach(func(key, sealed []byte) error {
		data, err := unseal(bucket, key, sealed)
		if err != nil {
			return err
		}
		return see(key, data)
	})
}

// view and update are bbolt's, but that a page which makes it panic is an error.
func (s *Store) view(f func(*bbolt.Tx) error) (err error) {
	defer guard(&err)()
	return s.db.View(f)
}

func (s *Store) update(f func(*bbolt.Tx) error) (err error) {
	defer guard(&err)()
	return s.db.Update(f)
}

// guard makes a panic an error, also one by an access outside of the file, which bbolt maps into memory.
func guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}
}

// record is where a result stood: its position in the log, and its place in the agent's spool.
type record struct {
	position, epoch, seq uint64
	digest               [32]byte // SHA-256 of the result as it came
}

const recordSize = 8 + 8 + 8 + 32

// recordOf is the record of a result. One without a place, from before there were places, is known by itself alone.
func recordOf(position uint64, r *pb.Result, p *pb.Place) record {
	at := record{position: position, epoch: p.GetEpoch(), seq: p.GetSeq()}
	if len(p.GetDigest()) == len(at.digest) {
		at.digest = [32]byte(p.GetDigest())
	} else {
		at.digest = digestOf(r)
	}
	return at
}

func (r record) encode() []byte {
	b := make([]byte, 0, recordSize)
	b = binary.BigEndian.AppendUint64(b, r.position)
	b = binary.BigEndian.AppendUint64(b, r.epoch)
	b = binary.BigEndian.AppendUint64(b, r.seq)
	return append(b, r.digest[:]...)
}

// decodeResult reads what stands on disk of a result: its record, then the message.
func decodeResult(data []byte) (at record, r *pb.Result, err error) {
	if len(data) < recordSize {
		return at, nil, ErrDamaged
	}
	at = record{position: number(data[:8]), epoch: number(data[8:16]), seq: number(data[16:24]), digest: [32]byte(data[24:recordSize])}
	r = &pb.Result{}
	return at, r, proto.Unmarshal(data[recordSize:], r)
}
