package store

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// Keys are what a bucket beside the log had.
type Keys struct {
	// Last is the revision up to which this is known.
	Last uint64
	// Has is what was there, by key.
	Has map[string]Key
}

// Key is a key as it was.
type Key struct {
	// Revision is that of its value; 0: it is gone.
	Revision uint64
	// Sum is the CRC-32C of its value.
	Sum uint32
}

// KeyOf is a key with a value.
func KeyOf(revision uint64, value []byte) Key {
	return Key{revision, crc32.Checksum(value, castagnoli)}
}

// Keys tells what a bucket had when NoteKeys was last told; Last is 0 if it never was.
func (s *Store) Keys(bucket string) (Keys, error) {
	k := Keys{Has: map[string]Key{}}
	err := s.view(func(tx *bbolt.Tx) error {
		return each(tx, bucketKeys, func(key, data []byte) error {
			name, of, found := bytes.Cut(key, []byte{0})
			switch {
			case string(name) != bucket:
			case found && len(data) == 8+4:
				k.Has[string(of)] = Key{number(data[:8]), binary.BigEndian.Uint32(data[8:])}
			case !found && len(data) == 8:
				k.Last = number(data)
			default:
				return ErrDamaged
			}
			return nil
		})
	})
	return k, err
}

// NoteKeys notes, durably, what a bucket has: all that changed since it was last called, with a zero Key for
// what is gone. It is no part of the fold.
func (s *Store) NoteKeys(bucket string, changed Keys) error {
	return s.update(func(tx *bbolt.Tx) error {
		for key, is := range changed.Has {
			of := append(append([]byte(bucket), 0), key...)
			var err error
			if is.Revision == 0 {
				err = tx.Bucket(bucketKeys).Delete(of)
			} else {
				err = put(tx, bucketKeys, of, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, is.Revision), is.Sum))
			}
			if err != nil {
				return err
			}
		}
		return put(tx, bucketKeys, []byte(bucket), binary.BigEndian.AppendUint64(nil, changed.Last))
	})
}
