package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"
)

const (
	magic       = "ewspool\x02" // the last byte is the version
	headerBytes = 128
	maxAgent    = 63
	recordBytes = 4 + 1 + 8 + 4 + 4 // length, kind, number, checksum of the payload, checksum of these
	ackBytes    = 8
	// maxSeq bounds numbers, so that none runs over.
	maxSeq = 1 << 62
)

const (
	kindResult = byte(1)
	kindAck    = byte(2) // from the number to the one in the payload
)

// errHeader says that a file does not begin as a segment does.
var errHeader = errors.New("spool: not the header of a segment")

// header is what a segment begins with.
type header struct {
	agent   string
	epoch   uint64
	base    uint64 // no number in the segment is below it
	created time.Time
}

// encode returns the header's 128 bytes. The last four are their checksum, and the seed of the checksums of
// the segment's records: what an older file left on the same blocks is no record of this one.
func (h header) encode() (buf []byte, seed uint32) {
	buf = make([]byte, headerBytes)
	copy(buf, magic)
	buf[8] = byte(len(h.agent))
	copy(buf[9:], h.agent)
	binary.LittleEndian.PutUint64(buf[72:], h.epoch)
	binary.LittleEndian.PutUint64(buf[80:], h.base)
	binary.LittleEndian.PutUint64(buf[88:], uint64(h.created.UnixNano()))
	seed = checksum(0, buf[:headerBytes-4])
	binary.LittleEndian.PutUint32(buf[headerBytes-4:], seed)
	return buf, seed
}

func decodeHeader(buf []byte) (h header, seed uint32, err error) {
	if len(buf) != headerBytes || string(buf[:8]) != magic {
		return h, 0, errHeader
	}
	seed = binary.LittleEndian.Uint32(buf[headerBytes-4:])
	if seed != checksum(0, buf[:headerBytes-4]) || buf[8] > maxAgent {
		return h, 0, errHeader
	}
	return header{
		agent:   string(buf[9 : 9+buf[8]]),
		epoch:   binary.LittleEndian.Uint64(buf[72:]),
		base:    binary.LittleEndian.Uint64(buf[80:]),
		created: time.Unix(0, int64(binary.LittleEndian.Uint64(buf[88:]))),
	}, seed, nil
}

// record is a result or an acknowledgement.
type record struct {
	kind    byte
	seq     uint64
	payload []byte
}

func ack(first, last uint64) record {
	return record{kindAck, first, binary.LittleEndian.AppendUint64(nil, last)}
}

// last is the end of an acknowledgement.
func (r record) last() uint64 { return binary.LittleEndian.Uint64(r.payload) }

func (r record) encode(seed uint32) []byte {
	buf := make([]byte, recordBytes, recordBytes+len(r.payload))
	binary.LittleEndian.PutUint32(buf[0:], uint32(len(r.payload)))
	buf[4] = r.kind
	binary.LittleEndian.PutUint64(buf[5:], r.seq)
	binary.LittleEndian.PutUint32(buf[13:], checksum(seed, r.payload))
	binary.LittleEndian.PutUint32(buf[17:], checksum(seed, buf[:17]))
	return append(buf, r.payload...)
}

// decodeHead reads what stands before a payload. It is ok if its own checksum is right: then where the
// record ends is sure, whatever became of the payload.
func decodeHead(head []byte, seed uint32) (r record, length int, sum uint32, ok bool) {
	if binary.LittleEndian.Uint32(head[17:]) != checksum(seed, head[:17]) {
		return r, 0, 0, false
	}
	r = record{kind: head[4], seq: binary.LittleEndian.Uint64(head[5:])}
	size := binary.LittleEndian.Uint32(head)
	switch {
	case r.seq == 0 || r.seq >= maxSeq,
		r.kind == kindResult && size > MaxResult,
		r.kind == kindAck && size != ackBytes,
		r.kind != kindResult && r.kind != kindAck:
		return r, 0, 0, false
	}
	return r, int(size), binary.LittleEndian.Uint32(head[13:]), true
}

func checksum(seed uint32, data []byte) uint32 {
	return crc32.Update(seed, crc32.MakeTable(crc32.Castagnoli), data)
}

// found is what a scanner makes of the bytes at a place.
type found int

const (
	whole   found = iota // a record as it was written
	spoiled              // a record whose payload is not as it was written; the next one's place is sure
	torn                 // the file ends inside of it
	damaged              // not even the next one's place is sure: nothing from here on is believed
	end                  // the file ends here
)

// scanner reads the records of a segment in order. It needs 64 KiB, whatever the file holds.
type scanner struct {
	r       *bufio.Reader
	seed    uint32
	offset  int64 // where the next record begins
	left    int64 // from there to the end of the file
	payload [MaxResult]byte
}

// newScanner scans the size bytes of a segment after its header.
func newScanner(file io.ReaderAt, seed uint32, size int64) *scanner {
	left := max(0, size-headerBytes)
	return &scanner{r: bufio.NewReader(io.NewSectionReader(file, headerBytes, left)), seed: seed, offset: headerBytes, left: left}
}

// next returns the next record. Its payload is good until the next call. After torn, damaged and end there
// is nothing more.
func (s *scanner) next() (record, found) {
	if s.left == 0 {
		return record{}, end
	}
	if s.left < recordBytes {
		return record{}, torn
	}
	var head [recordBytes]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return record{}, damaged
	}
	r, length, sum, ok := decodeHead(head[:], s.seed)
	if !ok {
		return record{}, damaged
	}
	size := recordBytes + int64(length)
	if s.left < size {
		return r, torn
	}
	r.payload = s.payload[:length]
	if _, err := io.ReadFull(s.r, r.payload); err != nil {
		return record{}, damaged
	}
	s.offset += size
	s.left -= size
	if checksum(s.seed, r.payload) != sum || r.kind == kindAck && (r.last() < r.seq || r.last() >= maxSeq) {
		return r, spoiled
	}
	return r, whole
}
