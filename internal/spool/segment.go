package spool

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

const (
	segmentSuffix = ".seg"
	// maxSegment bounds what is read of one file.
	maxSegment = 2 * segmentBytes
)

// segment is one file of a spool.
type segment struct {
	header

	name    string
	serial  uint64
	seed    uint32
	file    file
	size    int64   // up to the last good record
	entries []entry // the results in it, by number
	live    int     // how many of them are pending
	sealed  bool    // nothing is written to it any more
}

// entry is where a result stands in its segment.
type entry struct {
	seq    uint64
	job    uint64 // a hash of whose it is
	offset uint32 // of the payload; 0: not pending
	length uint32
}

// segmentName is serial and base: the serial orders the files as they were made, and the base tells whose
// numbers are lost if the file cannot be read.
func segmentName(serial, base uint64) string {
	return fmt.Sprintf("%020d-%020d%s", serial, base, segmentSuffix)
}

func parseSegmentName(name string) (serial, base uint64, ok bool) {
	stem, found := strings.CutSuffix(name, segmentSuffix)
	first, second, two := strings.Cut(stem, "-")
	serial, err1 := strconv.ParseUint(first, 10, 63)
	base, err2 := strconv.ParseUint(second, 10, 62)
	return serial, base, found && two && err1 == nil && err2 == nil
}

// draft is a segment that is not on disk yet.
type draft struct {
	*segment
	image []byte
}

func newDraft(agent string, epoch, base uint64) *draft {
	d := &draft{segment: &segment{header: header{agent, epoch, base, time.Now()}}}
	d.image, d.seed = d.encode()
	return d
}

func (d *draft) add(r record, job uint64) {
	at := len(d.image)
	d.image = append(d.image, r.encode(d.seed)...)
	if r.kind == kindResult {
		d.note(entry{r.seq, job, uint32(at + recordBytes), uint32(len(r.payload))})
	}
}

// note takes up a result that stands in the segment.
func (seg *segment) note(e entry) {
	seg.entries = append(seg.entries, e)
	seg.live++
}

// openSegment opens a segment and reads its header; errHeader if it has none that agrees with its name.
func openSegment(d disk, name string) (*segment, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	seg := &segment{name: name, file: f}
	buf := make([]byte, headerBytes)
	n, _ := f.ReadAt(buf, 0) // what cannot be read is no header
	seg.header, seg.seed, err = decodeHeader(buf[:n])
	serial, base, ok := parseSegmentName(name)
	if err != nil || !ok || base != seg.base {
		_ = f.Close()
		return nil, errHeader
	}
	seg.serial = serial
	return seg, nil
}

// append writes a record and returns where its payload begins. After a failed write the file is cut back to
// the last good record; if not even that works, nothing more is written to it.
func (seg *segment) append(r record) (offset int64, err error) {
	buf := r.encode(seg.seed)
	chaos.Tear("spool.append", seg.file, buf, seg.size)
	if _, err := seg.file.WriteAt(buf, seg.size); err != nil {
		seg.sealed = seg.file.Truncate(seg.size) != nil
		return 0, fmt.Errorf("spool: %w", err)
	}
	offset = seg.size + recordBytes
	seg.size += int64(len(buf))
	return offset, nil
}

// read returns a result's payload; it is not ok if it is not as it was written.
func (seg *segment) read(e entry) (payload []byte, ok bool) {
	buf := make([]byte, recordBytes+int(e.length))
	if _, err := seg.file.ReadAt(buf, int64(e.offset)-recordBytes); err != nil {
		return nil, false
	}
	r, length, sum, ok := decodeHead(buf[:recordBytes], seg.seed)
	payload = buf[recordBytes:]
	return payload, ok && r.seq == e.seq && length == len(payload) && sum == checksum(seg.seed, payload)
}

// from is the index of the first result whose number is seq or more.
func (seg *segment) from(seq uint64) int {
	i, _ := slices.BinarySearchFunc(seg.entries, seq, func(e entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
	return i
}

// forget drops the results first to last and returns how many of them were pending.
func (seg *segment) forget(first, last uint64) (n int) {
	for i := seg.from(first); i < len(seg.entries) && seg.entries[i].seq <= last; i++ {
		if seg.entries[i].offset != 0 {
			seg.entries[i].offset = 0
			n++
		}
	}
	seg.live -= n
	return n
}

// cut takes the results from a number on out of the segment: a later one has them.
func (seg *segment) cut(seq uint64) {
	seg.forget(seq, maxSeq)
	seg.entries = seg.entries[:seg.from(seq)]
}
