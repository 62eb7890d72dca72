// Package store is what the log amounts to: the fold. It keeps open and recent measurements in
// memory, and all of them in bbolt behind it, a little later.
//
// The fold is deterministic and consults no clock: the same log gives the same state. What is on disk
// is a checkpoint: the state at some position, written in one transaction with that position. The log
// after it is folded again.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ErrNotFound says that there is no such measurement, or not any more.
var ErrNotFound = errors.New("no such measurement")

// ErrNotAsked says that an agent is not on a measurement's list.
var ErrNotAsked = errors.New("the agent was not asked")

// Store is the state of the log at a position. It is safe for concurrent use; Apply has one caller.
type Store struct {
	db     *bbolt.DB
	recent int64 // bytes of closed measurements that memory keeps

	checkpointing sync.Mutex // one checkpoint after the other, or an older state would follow a newer one

	mu       sync.Mutex
	position uint64
	moved    chan struct{} // closed and replaced when position changes
	live     map[string]*measurement
	closed   []*measurement // those in live that are closed, in the order of closing
	bytes    int64          // of closed
	dirty    map[string]*measurement
	running  int    // measurements that are open
	asks     int    // of them
	forgot   uint64 // everything opened at or before it is dropped
	forgotOn uint64 // the same, on disk
}

// Open opens the checkpoint at path, or makes one. Memory keeps open measurements and about recent
// bytes of closed ones.
func Open(path string, recent int64) (*Store, error) {
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db:     db,
		recent: recent,
		moved:  make(chan struct{}),
		live:   map[string]*measurement{},
		dirty:  map[string]*measurement{},
	}
	if err := s.restore(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close writes a last checkpoint and closes the file.
func (s *Store) Close() error { return errors.Join(s.Checkpoint(), s.db.Close()) }

// Change is what one batch of the log did to one measurement.
type Change struct {
	// ID is the measurement.
	ID string
	// Opened and Closed say that it was just opened, or closed.
	Opened, Closed bool
	// Deadline is when it has to be closed.
	Deadline time.Time
	// Settled says that it is open and every agent has answered or declined.
	Settled bool
	// Pending are the agents without an answer, when it was closed.
	Pending []string
}

// Apply folds one batch of the log. Positions only grow; one that is not beyond the present is
// ignored. An error says that the disk could not be read; the state is then not to be used any more.
func (s *Store) Apply(position uint64, batch *pb.LogBatch) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position <= s.position {
		return nil, nil
	}
	touched := map[string]*Change{}
	for _, e := range batch.GetEntries() {
		if err := s.applyEntry(position, e, touched); err != nil {
			return nil, err
		}
	}
	s.position = position
	close(s.moved)
	s.moved = make(chan struct{})
	changes := make([]Change, 0, len(touched))
	for id, c := range touched {
		if m := s.live[id]; m != nil {
			c.Settled = m.open() && m.pending == 0
			c.Deadline = m.facts.GetDeadline().AsTime()
			m.notify()
			changes = append(changes, *c)
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.ID, b.ID) })
	return changes, nil
}

func (s *Store) applyEntry(position uint64, e *pb.LogEntry, touched map[string]*Change) error {
	switch e := e.GetEntry().(type) {
	case *pb.LogEntry_Opened:
		return s.edit(e.Opened.GetMeasurement().GetId(), touched, func(m *measurement, c *Change) bool {
			// One that is known already is left as it is: the first in the log wins.
			c.Opened = c.Opened || m == nil
			return m == nil && s.open(position, e.Opened.GetMeasurement())
		})
	case *pb.LogEntry_Result:
		return s.edit(e.Result.GetMeasurementId(), touched, func(m *measurement, _ *Change) bool {
			return m != nil && m.add(e.Result)
		})
	case *pb.LogEntry_Declined:
		return s.edit(e.Declined.GetMeasurementId(), touched, func(m *measurement, _ *Change) bool {
			return m != nil && m.decline(e.Declined)
		})
	case *pb.LogEntry_Closed:
		return s.edit(e.Closed.GetMeasurementId(), touched, func(m *measurement, c *Change) bool {
			if m == nil || !m.open() {
				return false
			}
			c.Closed, c.Pending = true, m.close(e.Closed)
			s.count(m, -1)
			s.retire(m)
			return true
		})
	case *pb.LogEntry_Forgotten:
		s.forget(e.Forgotten.GetUpTo())
	}
	return nil
}

// edit hands a measurement, nil if there is none, to change, and notes it if that says it did.
func (s *Store) edit(id string, touched map[string]*Change, change func(*measurement, *Change) bool) error {
	m, err := s.find(id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c := touched[id]
	if c == nil {
		c = &Change{ID: id}
	}
	if change(m, c) {
		touched[id], s.dirty[id] = c, s.live[id]
		if m != nil && m.counted > 0 { // a late result: what is closed has grown
			s.bytes += m.bytes - m.counted
			m.counted = m.bytes
		}
	}
	return nil
}

// open takes up a new measurement.
func (s *Store) open(position uint64, opened *pb.Measurement) bool {
	m := newMeasurement(position, opened)
	s.live[m.id()] = m
	s.count(m, 1)
	return true
}

// find returns a measurement, from disk if need be.
func (s *Store) find(id string) (*measurement, error) {
	if m := s.live[id]; m != nil {
		return m, nil
	}
	m, err := s.load(id)
	if err != nil {
		return nil, err
	}
	// It is closed, or it would be in memory. It takes the place of older ones.
	s.evict()
	s.live[id] = m
	s.retire(m)
	return m, nil
}

// retire puts a closed measurement in the queue of those that memory may let go.
func (s *Store) retire(m *measurement) {
	m.counted = m.bytes
	s.closed = append(s.closed, m)
	s.bytes += m.counted
}

// forget drops every measurement opened at or before a position.
func (s *Store) forget(upTo uint64) {
	s.forgot = max(s.forgot, upTo)
	for id, m := range s.live {
		if m.opened <= s.forgot {
			if m.open() {
				s.count(m, -1)
			}
			delete(s.live, id)
			delete(s.dirty, id)
			m.notify()
		}
	}
	s.closed = slices.DeleteFunc(s.closed, func(m *measurement) bool {
		if m.opened > s.forgot {
			return false
		}
		s.bytes -= m.counted
		return true
	})
}

// Settles tells which open measurements would have no answer to wait for if a batch came next.
func (s *Store) Settles(batch *pb.LogBatch) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answered := map[string]map[string]bool{} // measurement → agents
	for _, e := range batch.GetEntries() {
		var id, agent string
		switch e := e.GetEntry().(type) {
		case *pb.LogEntry_Result:
			id, agent = e.Result.GetMeasurementId(), e.Result.GetAgent()
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

// Position is the position of the last batch that was folded, and a channel that is closed when it
// moves.
func (s *Store) Position() (uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.moved
}

// Open lists the measurements that run, in the order of their ids.
func (s *Store) Open() []*pb.Measurement {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []*pb.Measurement
	for _, m := range s.live {
		if m.open() {
			open = append(open, m.snapshot(true))
		}
	}
	slices.SortFunc(open, func(a, b *pb.Measurement) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return open
}

// Asked returns the vantage that an agent was asked at for a measurement, and whether its result is
// still to come; an error if the measurement is unknown or the agent is not on its list.
func (s *Store) Asked(id, agent string) (vantage *pb.Vantage, wanted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(id)
	if err != nil {
		return nil, false, fmt.Errorf("measurement %s: %w", id, err)
	}
	i, ok := m.index[agent]
	if !ok {
		return nil, false, fmt.Errorf("%w: agent %s, measurement %s", ErrNotAsked, agent, id)
	}
	return m.asks[i].GetVantage(), m.wants(agent, i), nil
}

// count adds a measurement to those that run, or takes it away.
func (s *Store) count(m *measurement, n int) {
	s.running += n
	s.asks += n * len(m.asks)
}

// Running is the number of measurements that run and of the agents that they ask.
func (s *Store) Running() (measurements, asks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, s.asks
}

// FirstOpen is the position of the oldest measurement that runs; ok is false if none does.
func (s *Store) FirstOpen() (position uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.live {
		if m.open() && (!ok || m.opened < position) {
			position, ok = m.opened, true
		}
	}
	return position, ok
}
