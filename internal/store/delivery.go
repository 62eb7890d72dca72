package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxEpochs is how many epochs of an agent's spool are remembered, the newest.
	maxEpochs = 8
	// maxScattered is the number of spans in one epoch from which on no more numbers should be logged: an agent whose
	// numbers follow each other has one, and as many as it has batches on their way.
	maxScattered = 1024
	// maxSpans bounds the spans that one epoch has, whatever was logged. It is beyond maxScattered by more than an
	// agent can have on its way.
	maxSpans = 8192
	// maxSpools bounds the agents whose spools are remembered.
	maxSpools = 1 << 17
)

// deliveries is which numbers of the agents' spools came or were given up.
type deliveries struct {
	agents map[string][]*delivered // the epochs of each, the oldest first
	dirty  map[*delivered]bool     // not on disk
	gone   map[string]bool         // keys that are to be deleted on disk
	sum    sum
}

// delivered is one epoch of an agent's spool.
type delivered struct {
	agent   string
	epoch   uint64
	numbers intervals
	dropped uint64 // how many of them the agent dropped
	since   uint64 // the log from this position on tells all of it
}

func newDeliveries() deliveries {
	return deliveries{agents: map[string][]*delivered{}, dirty: map[*delivered]bool{}, gone: map[string]bool{}}
}

// find returns an epoch of an agent's spool, nil if nothing is known of it.
func (d *deliveries) find(agent string, epoch uint64) *delivered {
	for _, e := range slices.Backward(d.agents[agent]) {
		if e.epoch == epoch {
			return e
		}
	}
	return nil
}

// keyed finds by the key on disk.
func (d *deliveries) keyed(key []byte) *delivered {
	return d.find(string(key[:len(key)-9]), number(key[len(key)-8:]))
}

func (d *deliveries) has(agent string, epoch, seq uint64) bool {
	e := d.find(agent, epoch)
	return e != nil && e.numbers.has(seq)
}

// take is find, and makes the epoch where there is room for it: it takes the place of the oldest one, unless it is
// older itself. Which epochs are there at last does not depend on the order in which they came.
func (d *deliveries) take(position uint64, agent string, epoch uint64) *delivered {
	if e := d.find(agent, epoch); e != nil {
		return e
	}
	if epoch == 0 || !d.room(agent, epoch) {
		return nil
	}
	all := d.agents[agent]
	if len(all) >= maxEpochs {
		d.drop(all[0])
		all = slices.Delete(all, 0, 1)
	}
	e := &delivered{agent: agent, epoch: epoch, since: position}
	i := slices.IndexFunc(all, func(o *delivered) bool { return o.epoch > epoch })
	if i < 0 {
		i = len(all)
	}
	d.agents[agent] = slices.Insert(all, i, e)
	delete(d.gone, string(e.key()))
	return e
}

// room tells whether an epoch that is not known yet can be remembered.
func (d *deliveries) room(agent string, epoch uint64) bool {
	all := d.agents[agent]
	if len(all) == 0 {
		return len(d.agents) < maxSpools
	}
	return len(all) < maxEpochs || epoch > all[0].epoch
}

// drop lets an epoch go.
func (d *deliveries) drop(e *delivered) {
	for _, r := range e.numbers {
		d.sum.sub(e.spanItem(r))
	}
	d.sum.sub(e.droppedItem())
	delete(d.dirty, e)
	d.gone[string(e.key())] = true
}

// add notes numbers of a spool and returns how many of them are new.
func (d *deliveries) add(position uint64, agent string, epoch uint64, numbers span) uint64 {
	if !numbers.valid() {
		return 0
	}
	e := d.take(position, agent, epoch)
	if e == nil {
		return 0
	}
	i, j, whole := e.numbers.joined(numbers)
	if j == i+1 && e.numbers[i] == whole || i == j && len(e.numbers) >= maxSpans {
		return 0
	}
	fresh := whole.size()
	for _, old := range e.numbers[i:j] {
		d.sum.sub(e.spanItem(old))
		fresh -= old.size()
	}
	d.sum.add(e.spanItem(whole))
	e.numbers.replace(i, j, whole)
	d.dirty[e] = true
	return fresh
}

// gap folds one of an agent's gaps: numbers that bring no result. It counts those that the agent dropped.
func (d *deliveries) gap(position uint64, of *pb.Gaps, gap *pb.Gap) {
	fresh := d.add(position, of.GetAgent(), of.GetEpoch(), span{gap.GetFirst(), gap.GetLast()})
	switch gap.GetReason() {
	case pb.GapReason_GAP_REASON_SPOOL_FULL, pb.GapReason_GAP_REASON_SPOOL_CORRUPT:
		if fresh > 0 {
			e := d.find(of.GetAgent(), of.GetEpoch())
			d.setDropped(e, e.dropped+fresh)
		}
	case pb.GapReason_GAP_REASON_UNSPECIFIED, pb.GapReason_GAP_REASON_UNASKED, pb.GapReason_GAP_REASON_DUPLICATE, pb.GapReason_GAP_REASON_REFUSED:
	}
}

func (d *deliveries) setDropped(e *delivered, n uint64) {
	d.sum.sub(e.droppedItem())
	e.dropped = n
	d.sum.add(e.droppedItem())
	d.dirty[e] = true
}

// carried folds what is carried over a cut: it is all that was known when it was logged, and changes nothing where
// that is known still.
func (d *deliveries) carried(position uint64, c *pb.Delivered) {
	for _, r := range c.GetRanges() {
		d.add(position, c.GetAgent(), c.GetEpoch(), span{r.GetFirst(), r.GetLast()})
	}
	e := d.find(c.GetAgent(), c.GetEpoch())
	if e == nil {
		return
	}
	if c.GetDropped() != e.dropped {
		d.setDropped(e, c.GetDropped())
	}
	same := slices.EqualFunc(e.numbers, c.GetRanges(), func(a span, b *pb.SeqRange) bool {
		return a == span{b.GetFirst(), b.GetLast()}
	})
	if same {
		e.since = position // this entry tells all of it
		d.dirty[e] = true
	}
}

func (e *delivered) spanItem(r span) sum {
	return newItem(itemSpan, e.agent).number(e.epoch).number(r.first).number(r.last).sum()
}

func (e *delivered) droppedItem() sum {
	if e.dropped == 0 {
		return sum{}
	}
	return newItem(itemDropped, e.agent).number(e.epoch).number(e.dropped).sum()
}

// key is the epoch's on disk.
func (e *delivered) key() []byte {
	return binary.BigEndian.AppendUint64(resultsOf([]byte(e.agent)), e.epoch)
}

// encode is what stands on disk: since, dropped, then the first and the last of each span.
func (e *delivered) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, e.since)
	b = binary.BigEndian.AppendUint64(b, e.dropped)
	for _, r := range e.numbers {
		b = binary.BigEndian.AppendUint64(b, r.first)
		b = binary.BigEndian.AppendUint64(b, r.last)
	}
	return b
}

func decodeDelivered(key, data []byte) (*delivered, error) {
	if len(key) < 9 || len(data) < 16 || len(data)%16 != 0 {
		return nil, fmt.Errorf("%w: the spool %q", ErrDamaged, key)
	}
	e := &delivered{
		agent: string(key[:len(key)-9]), epoch: number(key[len(key)-8:]),
		since: number(data[:8]), dropped: number(data[8:16]),
	}
	for data = data[16:]; len(data) > 0; data = data[16:] {
		e.numbers = append(e.numbers, span{number(data[:8]), number(data[8:16])})
	}
	return e, nil
}

// restore takes up an epoch from disk, in the order of the keys.
func (d *deliveries) restore(e *delivered) {
	d.agents[e.agent] = append(d.agents[e.agent], e)
	for _, r := range e.numbers {
		d.sum.add(e.spanItem(r))
	}
	d.sum.add(e.droppedItem())
}

// Has tells whether a number of a spool came already, or was given up.
func (s *Store) Has(agent string, epoch, seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deliveries.has(agent, epoch, seq)
}

// Covers tells whether all numbers of a gap came already, or were given up.
func (s *Store) Covers(agent string, epoch uint64, g *pb.Gap) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.deliveries.find(agent, epoch)
	return e != nil && e.numbers.covers(span{g.GetFirst(), g.GetLast()})
}

// Room tells whether an agent may send more of an epoch. It may not if its numbers are too scattered: it has to send
// what is missing first, or to say that it is gone. Nor may it if the epoch is older than those that are remembered.
func (s *Store) Room(agent string, epoch uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.deliveries.find(agent, epoch); e != nil {
		return len(e.numbers) < maxScattered
	}
	return epoch > 0 && s.deliveries.room(agent, epoch)
}

// Delivery is what the log knows of the newest epoch of an agent's spool; nil if it knows nothing.
func (s *Store) Delivery(agent string) *pb.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	epochs := s.deliveries.agents[agent]
	if len(epochs) == 0 {
		return nil
	}
	e := epochs[len(epochs)-1]
	highest := e.numbers.highest()
	return &pb.Delivery{Epoch: e.epoch, Highest: highest, Missing: highest - e.numbers.size(), Dropped: e.dropped}
}
