package store

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// folding is a batch as it is folded.
type folding struct {
	*Store
	at      uint64
	encoded []byte // the result at hand, as it stands in the log; nil if that is not known
	touched map[string]*Change
	applied Applied
}

func (f *folding) entry(number int, entry *pb.LogEntry) error {
	switch e := entry.GetEntry().(type) {
	case *pb.LogEntry_Opened:
		return f.edit(e.Opened.GetMeasurement().GetId(), func(m *measurement, c *Change) *measurement {
			if m != nil {
				return nil // one that is known already is left as it is: the first in the log wins
			}
			c.Opened, c.Entry = true, e.Opened
			return f.open(f.at, e.Opened.GetMeasurement())
		})
	case *pb.LogEntry_Result:
		return f.result(e.Result, entry.GetPlace())
	case *pb.LogEntry_Declined:
		return f.edit(e.Declined.GetMeasurementId(), func(m *measurement, _ *Change) *measurement {
			return m.when(m != nil && m.decline(e.Declined))
		})
	case *pb.LogEntry_Closed:
		return f.edit(e.Closed.GetMeasurementId(), func(m *measurement, c *Change) *measurement {
			if m == nil || !m.open() {
				return nil
			}
			c.Closed, c.Pending = true, m.close(e.Closed)
			f.ended(m)
			f.retire(m)
			return m
		})
	case *pb.LogEntry_Forgotten:
		return f.forget(e.Forgotten.GetUpTo())
	case *pb.LogEntry_Enrolment:
		if changed := f.registry.fold(f.at, e.Enrolment); changed != nil {
			f.applied.Enrolments = append(f.applied.Enrolments, changed)
		}
	case *pb.LogEntry_Audit:
		f.audits.fold(f.at, number, e.Audit)
	case *pb.LogEntry_Gaps:
		return f.gaps(e.Gaps)
	case *pb.LogEntry_Delivered:
		f.deliveries.carried(f.at, e.Delivered)
	}
	return nil
}

// gaps folds numbers that bring no result. Who wrote that nobody had asked for a result had perhaps not folded yet that
// somebody had.
func (f *folding) gaps(g *pb.Gaps) error {
	for _, gap := range g.GetGaps() {
		if id := gap.GetMeasurementId(); id != "" {
			m, err := f.find(id)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if m != nil && m.asked(g.GetAgent()) {
				continue
			}
		}
		f.deliveries.gap(f.at, g, gap)
	}
	return nil
}

// asked tells whether an agent was.
func (m *measurement) asked(agent string) bool {
	_, asked := m.index[agent]
	return asked
}

// when is the measurement if it changed.
func (m *measurement) when(changed bool) *measurement {
	if !changed {
		return nil
	}
	return m
}

// edit hands a measurement, nil if there is none, to change, and notes the one that it returns: the one that changed.
func (f *folding) edit(id string, change func(*measurement, *Change) *measurement) error {
	m, err := f.find(id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c := f.touched[id]
	if c == nil {
		c = &Change{ID: id}
	}
	var before sum
	if m != nil {
		before = m.sum
	}
	m = change(m, c)
	if m == nil {
		return nil
	}
	f.measurements.sub(before)
	f.measurements.add(m.sum)
	f.touched[id], f.dirty[id] = c, m
	if m.counted > 0 { // a late result: what is closed has grown
		f.bytes += m.bytes - m.counted
		m.counted = m.bytes
	}
	return nil
}

// result folds a result. Its number in the spool is noted; one whose number is known is left out, and so is a second
// one for the same job.
func (f *folding) result(r *pb.Result, p *pb.Place) error {
	return f.edit(r.GetMeasurementId(), func(m *measurement, _ *Change) *measurement {
		fate := f.fate(m, r, p)
		if fate == FateEquivocation {
			f.applied.Equivocations = append(f.applied.Equivocations, Equivocation{r.GetAgent(), r.GetMeasurementId(), p})
		}
		if p != nil {
			f.deliveries.add(f.at, r.GetAgent(), p.GetEpoch(), span{p.GetSeq(), p.GetSeq()})
		}
		return m.when(fate == FateWanted && m.add(received{r, f.encoded}, recordOf(f.at, r, p)))
	})
}

// forget drops every measurement that was opened, and every event that happened, at or before a position.
func (f *folding) forget(upTo uint64) error {
	if upTo <= f.forgot {
		return nil
	}
	err := f.view(func(tx *bbolt.Tx) error {
		return errors.Join(f.forgetSaved(tx, upTo), f.audits.forgetSaved(tx, f.forgot, upTo))
	})
	if err != nil {
		return err
	}
	f.forgot = upTo
	f.audits.forget(upTo)
	for id, m := range f.live {
		if m.opened <= f.forgot {
			if m.open() {
				f.ended(m)
			}
			f.measurements.sub(m.sum)
			delete(f.live, id)
			delete(f.dirty, id)
			m.notify()
		}
	}
	f.closed = slices.DeleteFunc(f.closed, func(m *measurement) bool {
		if m.opened > f.forgot {
			return false
		}
		f.bytes -= m.counted
		return true
	})
	return nil
}

// forgetSaved takes the measurements that are on disk alone out of the sum.
func (f *folding) forgetSaved(tx *bbolt.Tx, upTo uint64) error {
	c := tx.Bucket(bucketOpened).Cursor()
	for k, v := c.Seek(openedKey(f.forgot+1, "")); len(k) > 8 && number(k[:8]) <= upTo; k, v = c.Next() {
		total, err := unseal(bucketOpened, k, v)
		if err != nil {
			return err
		}
		if f.live[string(k[8:])] == nil {
			f.measurements.sub(sumFrom(total))
		}
	}
	return nil
}

// Fate is what becomes of a result.
type Fate int

const (
	// FateWanted says that it is kept, in time or late.
	FateWanted Fate = iota
	// FateUnasked says that nobody asked the agent for it, or not any more.
	FateUnasked
	// FateDuplicate says that the job is settled already.
	FateDuplicate
	// FateKnown says that its number in the spool came already.
	FateKnown
	// FateEquivocation says that the agent has said something else, for the same job or under the same number.
	FateEquivocation
)

// Fate tells what would become of a result if it came into the log next. An error is the disk's.
func (s *Store) Fate(r *pb.Result, p *pb.Place) (Fate, error) {
	s.lockFor(r.GetMeasurementId())
	defer s.mu.Unlock()
	m, err := s.find(r.GetMeasurementId())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return FateUnasked, err
	}
	return s.fate(m, r, p), nil
}

// fate is Fate; m is nil if there is no such measurement. Without a place nothing is known of the result but its job.
func (s *Store) fate(m *measurement, r *pb.Result, p *pb.Place) Fate {
	known := p != nil && s.deliveries.has(r.GetAgent(), p.GetEpoch(), p.GetSeq())
	or := func(f Fate) Fate {
		if known {
			return FateKnown
		}
		return f
	}
	if m == nil {
		return or(FateUnasked)
	}
	i, asked := m.index[r.GetAgent()]
	if !asked {
		return or(FateUnasked)
	}
	if at, ok := m.answered(i); ok {
		if p != nil && string(at.digest[:]) != string(p.GetDigest()) {
			return FateEquivocation
		}
		return or(FateDuplicate)
	}
	switch wanted := m.wants(i); {
	case wanted && known:
		return FateEquivocation // the number was another result's, or was given up
	case wanted:
		return FateWanted
	default:
		return or(FateDuplicate)
	}
}

// Asked returns the vantage that an agent was asked at for a measurement, and whether its result is
// still to come; an error if the measurement is unknown or the agent is not on its list.
func (s *Store) Asked(id, agent string) (vantage *pb.Vantage, wanted bool, err error) {
	s.lockFor(id)
	defer s.mu.Unlock()
	m, err := s.find(id)
	if err != nil {
		return nil, false, fmt.Errorf("measurement %s: %w", id, err)
	}
	i, ok := m.index[agent]
	if !ok {
		return nil, false, fmt.Errorf("%w: agent %s, measurement %s", ErrNotAsked, agent, id)
	}
	return m.asks[i].GetVantage(), m.wants(i), nil
}

// place is a number of a spool.
type place struct {
	agent      string
	epoch, seq uint64
}

// Settles tells which open measurements would have no answer to wait for if a batch came next.
func (s *Store) Settles(batch *pb.LogBatch) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answered := map[string]map[string]bool{} // measurement → agents
	came := map[place]bool{}
	for _, entry := range batch.GetEntries() {
		var id, agent string
		switch e := entry.GetEntry().(type) {
		case *pb.LogEntry_Result:
			id, agent = e.Result.GetMeasurementId(), e.Result.GetAgent()
			if p := entry.GetPlace(); p != nil {
				at := place{agent, p.GetEpoch(), p.GetSeq()}
				if came[at] || s.deliveries.has(at.agent, at.epoch, at.seq) {
					continue // it will be left out
				}
				came[at] = true
			}
		case *pb.LogEntry_Declined:
			id, agent = e.Declined.GetMeasurementId(), e.Declined.GetAgent()
		}
		m := s.live[id]
		if m == nil || !m.open() {
			continue
		}
		if i, ok := m.index[agent]; !ok || m.asks[i].GetState() != pb.AskState_ASK_STATE_PENDING {
			continue
		}
		if answered[id] == nil {
			answered[id] = map[string]bool{}
		}
		if answered[id][agent] = true; len(answered[id]) == m.pending {
			ids = append(ids, id)
		}
	}
	return ids
}
