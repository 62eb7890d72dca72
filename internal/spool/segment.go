package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

const (
	magic       = "ewspool1"
	headerBytes = int64(len(magic) + 8) // magic, base
	recordBytes = 4 + 4 + 1 + 8         // length, checksum, kind, seq
	kindResult  = byte(1)
	kindAck     = byte(2)
)

// segment is one file of a spool.
type segment struct {
	name string
	file *os.File
	base uint64 // the next number when it was made
	size int64  // up to the last good record
	live int    // results in it without acknowledgement
}

// createSegment makes an empty segment and makes its name durable.
func createSegment(name string, base uint64) (*segment, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	header := binary.LittleEndian.AppendUint64([]byte(magic), base)
	if _, err := file.WriteAt(header, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), file.Close())
	}
	return &segment{name: name, file: file, base: base, size: headerBytes}, syncDir(filepath.Dir(name))
}

// openSegment opens a segment and reads its header. One that was torn before its header was whole is
// empty.
func openSegment(name string) (*segment, error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	header := make([]byte, headerBytes)
	_, err = file.ReadAt(header, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), file.Close())
	}
	seg := &segment{name: name, file: file, size: headerBytes}
	if string(header[:len(magic)]) != magic {
		copy(header, magic)
		_, err = file.WriteAt(header, 0)
	} else {
		err = nil
	}
	seg.base = binary.LittleEndian.Uint64(header[len(magic):])
	return seg, err
}

// scan calls visit for every good record and cuts the file after the last of them.
func (seg *segment) scan(visit func(kind byte, seq uint64, offset int64, payload []byte)) error {
	info, err := seg.file.Stat()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	r := bufio.NewReader(io.NewSectionReader(seg.file, headerBytes, max(0, info.Size()-headerBytes)))
	for {
		kind, seq, payload, ok := readRecord(r)
		if !ok {
			break
		}
		offset := seg.size + recordBytes
		seg.size = offset + int64(len(payload))
		visit(kind, seq, offset, payload)
	}
	if err := seg.file.Truncate(seg.size); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// readRecord reads one record; ok is false at the end, and at the first byte that is not as it was
// written.
func readRecord(r io.Reader) (kind byte, seq uint64, payload []byte, ok bool) {
	var head [recordBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, nil, false
	}
	length := binary.LittleEndian.Uint32(head[0:])
	if length > MaxResult {
		return 0, 0, nil, false
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, 0, nil, false
	}
	if binary.LittleEndian.Uint32(head[4:]) != checksum(head[8:], payload) {
		return 0, 0, nil, false
	}
	return head[8], binary.LittleEndian.Uint64(head[9:]), payload, true
}

func checksum(head, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(head, table), table, payload)
}

// append writes a record and returns where its payload begins. After a failed write the file is cut
// back to the last good record.
func (seg *segment) append(kind byte, seq uint64, payload []byte) (int64, error) {
	buf := make([]byte, recordBytes, recordBytes+len(payload))
	binary.LittleEndian.PutUint32(buf[0:], uint32(len(payload)))
	buf[8] = kind
	binary.LittleEndian.PutUint64(buf[9:], seq)
	binary.LittleEndian.PutUint32(buf[4:], checksum(buf[8:recordBytes], payload))
	buf = append(buf, payload...)
	if _, err := seg.file.WriteAt(buf, seg.size); err != nil {
		return 0, errors.Join(fmt.Errorf("spool: %w", err), seg.file.Truncate(seg.size))
	}
	offset := seg.size + recordBytes
	seg.size += int64(len(buf))
	return offset, nil
}

func (seg *segment) read(offset int64, length int) ([]byte, error) {
	payload := make([]byte, length)
	if _, err := seg.file.ReadAt(payload, offset); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return payload, nil
}

func (seg *segment) sync() error { return seg.file.Sync() }

func (seg *segment) remove() error {
	return errors.Join(seg.file.Close(), os.Remove(seg.name))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
