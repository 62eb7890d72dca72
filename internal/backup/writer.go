package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// Writer writes a backup: files, then keys bucket by bucket, then messages, then Close. What it returns an
// error of is no backup.
type Writer struct {
	out      io.Writer
	sum      hash.Hash
	tar      *tar.Writer
	manifest Manifest

	segment []byte // records that wait
	prefix  string // of the entries that they go into
	number  int    // of the next
	next    uint64 // the position that comes next
}

// NewWriter begins a backup. The manifest's format is set here.
func NewWriter(out io.Writer, m Manifest) (*Writer, error) {
	m.Format = Format
	w := &Writer{out: out, sum: sha256.New(), manifest: m, next: m.First}
	w.tar = tar.NewWriter(io.MultiWriter(out, w.sum))
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return w, w.entry(manifestName, append(data, '\n'))
}

// File adds a file of the data directory.
func (w *Writer) File(name string, data []byte) error {
	if len(data) > maxFile {
		return fmt.Errorf("backup: %s: %d bytes; at most %d", name, len(data), maxFile)
	}
	return w.entry(filesPrefix+name, data)
}

// Key adds a key of a bucket.
func (w *Writer) Key(bucket, key string, value []byte) error {
	if len(key) > maxKey {
		return fmt.Errorf("backup: a key of %d bytes; at most %d", len(key), maxKey)
	}
	payload := binary.BigEndian.AppendUint16(nil, uint16(len(key)))
	return w.record(keysPrefix+bucket+"/", append(append(payload, key...), value...))
}

// Message adds the message at a position; they come without a hole.
func (w *Writer) Message(position uint64, data []byte) error {
	if position != w.next || position > w.manifest.Last {
		return fmt.Errorf("backup: the log goes on at %d where %d is expected", position, w.next)
	}
	w.next++
	return w.record(logPrefix, append(binary.BigEndian.AppendUint64(nil, position), data...))
}

// Close writes what is left and the sum.
func (w *Writer) Close() error {
	if w.next != w.manifest.Last+1 {
		return fmt.Errorf("backup: the log ends before %d, at %d", w.manifest.Last, w.next-1)
	}
	if err := errors.Join(w.flush(), w.tar.Flush()); err != nil {
		return err
	}
	end, err := tail(w.sum.Sum(nil), w.manifest.Created)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if _, err := w.out.Write(end); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// record gathers records of one kind into entries.
func (w *Writer) record(prefix string, payload []byte) error {
	if len(payload) > maxPayload {
		return fmt.Errorf("backup: a record of %d bytes; at most %d", len(payload), maxPayload)
	}
	if prefix != w.prefix || len(w.segment) >= segmentBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if prefix != w.prefix {
		w.prefix, w.number = prefix, 0
	}
	w.segment = binary.BigEndian.AppendUint32(w.segment, uint32(len(payload)))
	w.segment = binary.BigEndian.AppendUint32(w.segment, crc32.Checksum(payload, crcTable))
	w.segment = append(w.segment, payload...)
	return nil
}

// flush writes the records that wait as an entry.
func (w *Writer) flush() error {
	if len(w.segment) == 0 {
		return nil
	}
	err := w.entry(fmt.Sprintf("%s%08d", w.prefix, w.number), w.segment)
	w.segment = w.segment[:0]
	w.number++
	return err
}

func (w *Writer) entry(name string, data []byte) error {
	if err := w.tar.WriteHeader(header(name, len(data), w.manifest.Created)); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if _, err := w.tar.Write(data); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}
