package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Contents is who hears of what a backup holds, as it is read. What it hears is not yet known to be whole: that
// is so when Read returns nil. A nil function hears nothing; the data is good only during the call.
type Contents struct {
	// Begin hears of the manifest, first.
	Begin func(Manifest) error
	// File hears of each file of the data directory.
	File func(name string, data []byte) error
	// Key hears of each key.
	Key func(bucket, key string, value []byte) error
	// Message hears of each message of the log, in order and without a hole.
	Message func(position uint64, data []byte) error
}

// Read reads a backup and checks all of it: every record, the order, and that each byte is as it was written. Of
// what is wrong with the file the errors are ErrForeign, ErrNewer, ErrShort and ErrDamaged.
func Read(in io.Reader, hear Contents) (Manifest, error) {
	r := &reader{raw: &lagging{in: in, sum: sha256.New()}, hear: hear}
	r.tar = tar.NewReader(r.raw)
	err := r.read()
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = ErrShort
	}
	return r.manifest, err
}

// reader is a backup that is being read.
type reader struct {
	raw      *lagging
	tar      *tar.Reader
	hear     Contents
	manifest Manifest

	stage  int             // how far in the order of entries
	seen   map[string]bool // files and buckets
	prefix string          // of the records that come
	number int             // of the entry of them that comes next
	next   uint64          // the position that comes next
	data   []byte          // of the present entry
}

// read reads entry after entry.
func (r *reader) read() error {
	r.seen = map[string]bool{}
	if err := r.begin(); err != nil {
		return err
	}
	for {
		h, err := r.tar.Next()
		switch {
		case errors.Is(err, io.EOF):
			return ErrShort // the archive ends, and its sum did not come
		case err != nil:
			return r.broken(err)
		case h.Name == trailerName:
			return r.end()
		}
		if err := r.entry(h); err != nil {
			return err
		}
	}
}

// begin reads the manifest.
func (r *reader) begin() error {
	h, err := r.tar.Next()
	if err != nil || h.Name != manifestName {
		return ErrForeign
	}
	if err := r.load(h, maxManifest); err != nil {
		return err
	}
	if r.manifest, err = parseManifest(r.data); err != nil {
		return err
	}
	r.next = r.manifest.First
	if r.hear.Begin == nil {
		return nil
	}
	return r.hear.Begin(r.manifest)
}

// The order of entries.
const (
	stageFiles = iota
	stageKeys
	stageLog
)

// segmentName is the name of an entry of records: its bucket, if it has one, and its number.
var segmentName = regexp.MustCompile(`^(?:kv/([A-Za-z0-9_-]{1,50})/|log/)([0-9]{8,})$`)

func (r *reader) entry(h *tar.Header) error {
	name, isFile := strings.CutPrefix(h.Name, filesPrefix)
	if isFile {
		if r.stage > stageFiles || r.seen[h.Name] || !slices.Contains(Files(), name) {
			return r.damaged("the entry %.100q is out of place", h.Name)
		}
		r.seen[h.Name] = true
		if err := r.load(h, maxFile); err != nil || r.hear.File == nil {
			return err
		}
		return r.hear.File(name, r.data)
	}
	match := segmentName.FindStringSubmatch(h.Name)
	if match == nil || !r.follows(match[1], match[2]) {
		return r.damaged("the entry %.100q is out of place", h.Name)
	}
	if err := r.load(h, maxSegment); err != nil {
		return err
	}
	return r.records(match[1])
}

// follows takes up the next entry of records, and says whether it is that.
func (r *reader) follows(bucket, number string) bool {
	stage, prefix := stageLog, logPrefix
	if bucket != "" {
		stage, prefix = stageKeys, keysPrefix+bucket
	}
	if prefix != r.prefix {
		if stage < r.stage || r.seen[prefix] {
			return false
		}
		r.stage, r.prefix, r.number, r.seen[prefix] = stage, prefix, 0, true
	}
	n, err := strconv.Atoi(number)
	r.number++
	return err == nil && n == r.number-1
}

// load reads the present entry.
func (r *reader) load(h *tar.Header, limit int) error {
	if h.Typeflag != tar.TypeReg || h.Size < 0 || h.Size > int64(limit) {
		return r.damaged("the entry %.100q has %d bytes", h.Name, h.Size)
	}
	r.data = slices.Grow(r.data[:0], int(min(h.Size, segmentBytes)))
	b := bytes.NewBuffer(r.data)
	_, err := io.Copy(b, r.tar)
	r.data = b.Bytes()
	if err == nil && int64(len(r.data)) != h.Size {
		err = io.ErrUnexpectedEOF
	}
	return r.broken(err)
}

// records hands on the records of an entry.
func (r *reader) records(bucket string) error {
	for rest := r.data; len(rest) > 0; {
		if len(rest) < frameBytes {
			return r.damaged("a record is cut off")
		}
		size, sum := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
		rest = rest[frameBytes:]
		if size > maxPayload || int(size) > len(rest) {
			return r.damaged("a record is cut off")
		}
		payload := rest[:size]
		if rest = rest[size:]; crc32.Checksum(payload, crcTable) != sum {
			return r.damaged("a record is not as it was written")
		}
		hand := r.message
		if bucket != "" {
			hand = func(payload []byte) error { return r.key(bucket, payload) }
		}
		if err := hand(payload); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) message(payload []byte) error {
	if len(payload) < positionBytes {
		return r.damaged("a message without a position")
	}
	position := binary.BigEndian.Uint64(payload)
	if position != r.next || position > r.manifest.Last {
		return r.damaged("position %d of the log stands where %d is expected", position, r.next)
	}
	r.next++
	if r.hear.Message == nil {
		return nil
	}
	return r.hear.Message(position, payload[positionBytes:])
}

func (r *reader) key(bucket string, payload []byte) error {
	if len(payload) < keyBytes {
		return r.damaged("a key is cut off")
	}
	n := int(binary.BigEndian.Uint16(payload))
	if payload = payload[keyBytes:]; n == 0 || n > len(payload) || n > maxKey {
		return r.damaged("a key is cut off")
	}
	if r.hear.Key == nil {
		return nil
	}
	return r.hear.Key(bucket, string(payload[:n]), payload[n:])
}

// end compares the sum and all that stands behind it with what has to be there.
func (r *reader) end() error {
	if r.next != r.manifest.Last+1 {
		return r.damaged("its log ends at %d instead of %d", r.next-1, r.manifest.Last)
	}
	want, err := tail(r.raw.sum.Sum(nil), r.manifest.Created)
	if err != nil {
		return r.damaged("its time cannot be")
	}
	got, err := io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(r.raw.held), r.raw.in), int64(len(want))+1))
	switch {
	case err != nil:
		return fmt.Errorf("backup: %w", err)
	case len(got) < len(want) && bytes.HasPrefix(want, got):
		return ErrShort
	case !bytes.Equal(got, want):
		return r.damaged("its sum is another, or something stands behind its end")
	}
	return nil
}

func (r *reader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w, before byte %d: %s", ErrDamaged, r.raw.read, fmt.Sprintf(format, args...))
}

// broken is what an error of the archive says of the backup. One of the disk stays what it is.
func (r *reader) broken(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return r.damaged("an entry has no header")
	}
	return err
}

// lagging sums up what is read, but the last block: whether it belongs to what is summed up shows when it was
// read. An archive's header is one block.
type lagging struct {
	in   io.Reader
	sum  hash.Hash
	held []byte
	read int64
}

const block = 512

// Read implements io.Reader.
func (l *lagging) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	l.read += int64(n)
	l.held = append(l.held, p[:n]...)
	if more := len(l.held) - block; more > 0 {
		l.sum.Write(l.held[:more])
		l.held = append(l.held[:0], l.held[more:]...)
	}
	return n, err
}
