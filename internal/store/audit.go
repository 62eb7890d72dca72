package store

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxLooked bounds the events of audit that are looked at for one page.
const maxLooked = 100_000

// audits is what happened about trust: the newest in memory, until they are on disk.
type audits struct {
	unsaved []auditEvent
	saved   uint64 // those up to this position are on disk
	sum     sum
}

// auditEvent is an event and its place in the log.
type auditEvent struct {
	position uint64
	number   uint32
	data     []byte // the message
}

func (a *audits) fold(position uint64, number int, e *pb.AuditEvent) {
	e = proto.CloneOf(e)
	e.Id = "" // its place says it
	event := auditEvent{position, uint32(number), canonical(e)}
	a.unsaved = append(a.unsaved, event)
	a.sum.add(event.item())
}

// forget drops the events up to a position from memory.
func (a *audits) forget(upTo uint64) {
	a.unsaved = slices.DeleteFunc(a.unsaved, func(e auditEvent) bool {
		if e.position > upTo {
			return false
		}
		a.sum.sub(e.item())
		return true
	})
}

// forgetSaved takes those on disk out of the sum, from beyond one position up to another.
func (a *audits) forgetSaved(tx *bbolt.Tx, after, upTo uint64) error {
	c := tx.Bucket(bucketAudit).Cursor()
	upTo = min(upTo, a.saved)
	for k, v := c.Seek(auditKey(after+1, 0)); len(k) == 12 && number(k[:8]) <= upTo; k, v = c.Next() {
		e, err := decodeAudit(k, v)
		if err != nil {
			return err
		}
		a.sum.sub(e.item())
	}
	return nil
}

// wrote notes that what was folded up to a position is on disk.
func (a *audits) wrote(position uint64) {
	a.saved = max(a.saved, position)
	a.unsaved = slices.DeleteFunc(a.unsaved, func(e auditEvent) bool { return e.position <= position })
}

func (e auditEvent) item() sum {
	return newItem(itemAudit, "").number(e.position).number(uint64(e.number)).data(e.data).sum()
}

func (e auditEvent) key() []byte { return auditKey(e.position, e.number) }

func auditKey(position uint64, number uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, position), number)
}

func decodeAudit(key, value []byte) (auditEvent, error) {
	data, err := unseal(bucketAudit, key, value)
	if err != nil {
		return auditEvent{}, err
	}
	return auditEvent{number(key[:8]), binary.BigEndian.Uint32(key[8:12]), data}, nil
}

// id is the event's place, as it is read.
func (e auditEvent) id() string { return fmt.Sprintf("%d.%d", e.position, e.number) }

// message is the event, as it is read.
func (e auditEvent) message() (*pb.AuditEvent, error) {
	var m pb.AuditEvent
	if err := proto.Unmarshal(e.data, &m); err != nil {
		return nil, fmt.Errorf("store: the event %s: %w", e.id(), err)
	}
	m.Id = e.id()
	return &m, nil
}

// parsePlace reads "POSITION.NUMBER"; "" is beyond all.
func parsePlace(s string) ([]byte, error) {
	if s == "" {
		return auditKey(^uint64(0), ^uint32(0)), nil
	}
	p, n, _ := strings.Cut(s, ".")
	position, err := strconv.ParseUint(p, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is no place of an event", ErrNotFound, s)
	}
	number, err := strconv.ParseUint(n, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is no place of an event", ErrNotFound, s)
	}
	return auditKey(position, uint32(number)), nil
}

// auditPage is a page as it is gathered.
type auditPage struct {
	before []byte
	n      int
	want   func(*pb.AuditEvent) bool

	events []*pb.AuditEvent
	looked int
	last   auditEvent
}

// look adds an event if it is wanted, and says whether the page takes more.
func (p *auditPage) look(e auditEvent) (bool, error) {
	m, err := e.message()
	if err != nil {
		return false, err
	}
	p.looked, p.last = p.looked+1, e
	if p.want == nil || p.want(m) {
		p.events = append(p.events, m)
	}
	return len(p.events) < p.n && p.looked < maxLooked, nil
}

// Audit returns the events before a place "POSITION.NUMBER" that are wanted, the newest first, at most n. before is ""
// for the newest of all; a nil want wants all. next is where the next page begins, "" if there is none.
func (s *Store) Audit(before string, n int, want func(*pb.AuditEvent) bool) (events []*pb.AuditEvent, next string, err error) {
	key, err := parsePlace(before)
	if err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	unsaved, forgot := slices.Clone(s.audits.unsaved), s.forgot
	s.mu.Unlock()
	page := auditPage{before: key, n: n, want: want}
	more := true
	for _, e := range slices.Backward(unsaved) {
		if string(e.key()) >= string(page.before) {
			continue
		}
		if more, err = page.look(e); err != nil || !more {
			break
		}
	}
	if err == nil && more {
		if len(unsaved) > 0 && string(unsaved[0].key()) < string(page.before) {
			page.before = unsaved[0].key() // a checkpoint may have written some of these meanwhile
		}
		err = s.view(func(tx *bbolt.Tx) error { more, err = page.disk(tx, forgot); return err })
	}
	if more || err != nil {
		return page.events, "", err
	}
	return page.events, page.last.id(), nil
}

// disk adds what is on disk, and says whether the page takes more.
func (p *auditPage) disk(tx *bbolt.Tx, forgot uint64) (bool, error) {
	c := tx.Bucket(bucketAudit).Cursor()
	step := c.Prev
	if k, _ := c.Seek(p.before); k == nil {
		step = c.Last
	}
	k, v := step()
	for ; len(k) == 12 && number(k[:8]) > forgot; k, v = c.Prev() {
		e, err := decodeAudit(k, v)
		if err != nil {
			return false, err
		}
		if more, err := p.look(e); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
