package spool

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	spoiledSuffix = ".bad"
	// maxSpoiled bounds the files that are kept although they cannot be read.
	maxSpoiled = 4
)

// Open opens an agent's spool in dir, or makes one. It holds about limit bytes on disk at most. One with
// results of another agent is refused: nobody would take them from this one.
func Open(dir, agent string, limit int64) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	held, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s, err := openOn(directory(dir), agent, limit)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	s.lock = held
	return s, nil
}

// openOn opens the spool on a disk.
func openOn(d disk, agent string, limit int64) (*Spool, error) {
	s := &Spool{
		disk: d, limit: limit, seed: maphash.MakeSeed(),
		changed: make(chan struct{}), drained: make(chan struct{}),
	}
	s.group.synced = sync.NewCond(&s.mu)
	l := &loader{Spool: s}
	err := l.load()
	if err == nil {
		err = l.begin(agent)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// span is numbers from first to last.
type span struct{ first, last uint64 }

// spans are the numbers of what is pending in a segment.
func (seg *segment) spans() (spans []span) {
	for _, e := range seg.entries {
		if e.offset == 0 {
			continue
		}
		if n := len(spans); n > 0 && spans[n-1].last+1 == e.seq {
			spans[n-1].last = e.seq
		} else {
			spans = append(spans, span{e.seq, e.seq})
		}
	}
	return spans
}

// loader finds out what a directory amounts to.
type loader struct {
	*Spool

	agent string
	known bool   // the state could be read, so that it says which epoch counts
	low   uint64 // the lowest number that may be pending
	acked []span
	doubt bool // numbers may have been used that nothing shows
	lost  bool // and with them at least one result
}

// load reads what is there.
func (l *loader) load() error {
	names, err := l.names()
	if err != nil {
		return err
	}
	if l.stateFile, l.state, l.known, err = openState(l.disk); err != nil {
		return err
	}
	l.agent, l.next = l.stateFile.agent, max(l.state.next, 1)
	if len(names) == 0 && l.state.epoch != 0 {
		l.doubt, l.lost = true, true // there always is a segment
	}
	for i, name := range names {
		if err := l.segment(name, i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

// names are the segments' in the order in which they were made. What was not finished is removed.
func (l *loader) names() (segments []string, err error) {
	all, err := l.disk.list()
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var bad []string
	for _, name := range all {
		serial, _, ok := parseSegmentName(name)
		switch {
		case strings.HasSuffix(name, ".tmp"):
			_ = l.disk.remove(name)
		case strings.HasSuffix(name, spoiledSuffix):
			bad = append(bad, name)
		case ok:
			segments = append(segments, name)
			l.serial = max(l.serial, serial)
		}
	}
	for ; len(bad) > maxSpoiled; bad = bad[1:] {
		_ = l.disk.remove(bad[0])
	}
	return segments, nil
}

// segment reads one segment. If the state could not be read, the first segment says which epoch counts, and
// there is doubt about what the state had said.
func (l *loader) segment(name string, last bool) error {
	seg, err := openSegment(l.disk, name)
	if errors.Is(err, errHeader) {
		return l.setAside(name, last)
	}
	if err != nil {
		return err
	}
	if !l.known && len(l.segments) == 0 {
		l.agent, l.state.epoch, l.doubt = seg.agent, seg.epoch, true
	}
	if seg.epoch != l.state.epoch || seg.agent != l.agent {
		_ = seg.file.Close()
		if !l.known {
			return l.setAside(name, true)
		}
		return l.remove(name) // of an epoch that was left, or not begun
	}
	for _, before := range l.segments {
		before.cut(seg.base) // an fsync failed, and what it was about was written again
	}
	l.reaches(seg.base)
	l.segments = append(l.segments, seg)
	return l.scan(seg, last)
}

func (l *loader) remove(name string) error {
	if err := l.disk.remove(name); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// reaches notes where a segment begins.
func (l *loader) reaches(base uint64) {
	l.next = max(l.next, base)
	if l.low == 0 || base < l.low {
		l.low = base
	}
}

// setAside renames a segment that cannot be read. The numbers that it had will be missing; if it is the last
// one, nobody knows up to which.
func (l *loader) setAside(name string, last bool) error {
	_, base, _ := parseSegmentName(name)
	l.reaches(max(base, 1))
	if last {
		l.doubt, l.lost = true, true
	}
	if err := l.disk.rename(name, name+spoiledSuffix); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// scan reads the records of a segment. The end of the last one is cut off if it is torn.
func (l *loader) scan(seg *segment, last bool) error {
	size, err := seg.file.size()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	sc := newScanner(seg.file, seg.seed, min(size, maxSegment))
	r, what := sc.next()
	for ; what == whole || what == spoiled; r, what = sc.next() {
		l.take(seg, r, what, sc.offset-int64(len(r.payload)))
	}
	seg.size = sc.offset
	l.bytes += seg.size
	switch {
	case !last:
		seg.sealed = true // what is missing shows by the next one's base
	case what == damaged || size > maxSegment:
		seg.sealed, l.doubt, l.lost = true, true, true
	case what == torn:
		if err := seg.file.Truncate(seg.size); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

// take takes up one record.
func (l *loader) take(seg *segment, r record, what found, offset int64) {
	switch {
	case r.kind == kindAck && what == whole:
		l.next = max(l.next, r.last()+1)
		if n := len(l.acked); n > 0 && l.acked[n-1].last+1 == r.seq {
			l.acked[n-1].last = r.last()
		} else {
			l.acked = append(l.acked, span{r.seq, r.last()})
		}
	case r.kind == kindAck:
		l.doubt = true // it may be all that showed how far the numbers go
	case r.kind == kindResult:
		l.next = max(l.next, r.seq+1)
		if n := len(seg.entries); what == whole && (n == 0 || seg.entries[n-1].seq < r.seq) {
			seg.note(entry{r.seq, l.hash(keyOf(r.payload)), uint32(offset), uint32(len(r.payload))})
		}
	}
}

// begin makes of what was read a spool that goes on.
func (l *loader) begin(agent string) error {
	for _, a := range l.acked {
		l.forget(a.first, a.last)
	}
	for _, g := range l.state.gaps {
		l.forget(g.GetFirst(), g.GetLast())
		l.next = max(l.next, g.GetLast()+1)
	}
	missing := l.missing()
	if l.lost { // nobody knows how many there were: one shows it
		missing = append(missing, span{l.next, l.next})
	}
	if err := l.settle(agent, missing); err != nil {
		return err
	}
	l.pending = 0
	for _, seg := range l.segments {
		l.pending += seg.live
	}
	if len(l.segments) > 0 && l.next > l.last().base { // the process before may have ended before its fsync
		if err := l.last().file.Sync(); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	l.group.durable = l.next
	if len(l.segments) == 0 || l.last().sealed {
		return l.renew()
	}
	l.prune()
	return nil
}

// missing are the numbers that are nowhere, though there was a segment for them.
func (l *loader) missing() (missing []span) {
	if l.low == 0 {
		return nil
	}
	known := l.acked
	for _, g := range l.state.gaps {
		known = append(known, span{g.GetFirst(), g.GetLast()})
	}
	for _, seg := range l.segments {
		known = append(known, seg.spans()...)
	}
	slices.SortFunc(known, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	at := l.low
	for _, k := range append(known, span{l.next, l.next}) {
		if k.first > at {
			missing = append(missing, span{at, k.first - 1})
		}
		at = max(at, k.last+1)
	}
	return missing
}

// settle brings the state up to date with what was found, for the agent that is to go on.
func (l *loader) settle(agent string, missing []span) error {
	live := len(missing) + len(l.state.gaps)
	for _, seg := range l.segments {
		live += seg.live
	}
	if l.agent != agent {
		if live > 0 {
			return fmt.Errorf("spool: it has results of agent %s that were not delivered: start that one again, or use another directory for %s", l.agent, agent)
		}
		return l.handOver(agent)
	}
	l.stateFile.agent = agent
	l.state.doubt = l.state.doubt || l.doubt
	switch {
	case len(missing) > 0:
		return l.giveUp(pb.GapReason_GAP_REASON_SPOOL_CORRUPT, missing...)
	case l.doubt:
		return l.save(l.state)
	}
	return nil
}

// handOver begins a new spool, of an agent, where none is or that of another one has nothing pending.
func (l *loader) handOver(agent string) error {
	l.stateFile.agent = agent
	if err := l.save(state{next: 1}); err != nil {
		return err
	}
	for _, seg := range l.segments {
		_ = seg.file.Close()
		if err := l.remove(seg.name); err != nil {
			return err
		}
	}
	l.segments, l.bytes, l.next = nil, 0, 1
	return nil
}
