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

// FileName is what the file is called in a coordinator's data directory.
const FileName = "fold.db"

// ErrNotFound says that there is no such measurement, or not any more.
var ErrNotFound = errors.New("no such measurement")

// ErrOtherLog says that the checkpoint is not one of this log.
var ErrOtherLog = errors.New("the checkpoint is another log's")

// ErrNotAsked says that an agent is not on a measurement's list.
var ErrNotAsked = errors.New("the agent was not asked")

// Store is the state of the log at a position. It is safe for concurrent use; Apply has one caller.
type Store struct {
	db     *bbolt.DB
	recent int64 // bytes of closed measurements that memory keeps

	fetching      sync.Mutex // one at a time: it may be large
	checkpointing sync.Mutex // one checkpoint after the other, or an older state would follow a newer one

	mu       sync.Mutex
	position uint64
	moved    chan struct{} // closed and replaced when position changes
	live     map[string]*measurement
	running  map[string]*measurement // those in live that are open: few of them, and looked through for each agent that comes
	closed   []*measurement          // those in live that are closed, in the order of closing
	bytes    int64                   // of closed
	evicted  int                     // how many were let out of memory
	dirty    map[string]*measurement
	writing  map[string]*measurement // those that a checkpoint writes now: the newest of them is not on disk yet
	asks     int                     // of those that run
	forgot   uint64                  // everything opened, and every event, at or before it is dropped
	log      string                  // the log's name

	measurements sum // of all measurements
	registry     registry
	deliveries   deliveries
	audits       audits

	positionOn, forgotOn uint64 // the same, on disk
	logOn                string
}

// Open opens the checkpoint at path, or makes one. Memory keeps open measurements and about recent
// bytes of closed ones.
func Open(path string, recent int64) (*Store, error) {
	db, err := openDB(path)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	s := &Store{
		db:     db,
		recent: recent,
		moved:  make(chan struct{}),
		live:   map[string]*measurement{}, running: map[string]*measurement{},
		dirty: map[string]*measurement{},

		registry: newRegistry(), deliveries: newDeliveries(),
	}
	if err := s.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %s: %w", path, err), db.Close())
	}
	s.positionOn, s.logOn = s.position, s.log
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
	// Entry is what opened it, if it was just opened.
	Entry *pb.Opened
}

// Applied is what one batch of the log did.
type Applied struct {
	// Measurements are those that it changed, in the order of their ids.
	Measurements []Change
	// Enrolments are those that it changed, as they are now.
	Enrolments []*pb.Enrolment
	// Equivocations are the results that it left out because the agent had said something else before.
	Equivocations []Equivocation
}

// Equivocation is a second result for one job, or under one number, that is not the same as the first.
type Equivocation struct {
	Agent, MeasurementID string
	Place                *pb.Place
}

// Apply folds one batch of the log. Positions only grow; one that is not beyond the present is
// ignored. An error says that the disk could not be read; the state is then not to be used any more.
//
// data is the batch as it stands in the log: results are saved as the bytes that they are there. Neither of the two
// may be changed any more.
func (s *Store) Apply(position uint64, batch *pb.LogBatch, data []byte) (Applied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position <= s.position {
		return Applied{}, nil
	}
	f := folding{Store: s, at: position, touched: map[string]*Change{}}
	encoded := resultsIn(data, len(batch.GetEntries()))
	for i, e := range batch.GetEntries() {
		f.encoded = encoded[i]
		if err := f.entry(i, e); err != nil {
			return Applied{}, err
		}
	}
	s.position = position
	close(s.moved)
	s.moved = make(chan struct{})
	for id, c := range f.touched {
		if m := s.live[id]; m != nil {
			c.Settled = m.open() && m.pending == 0
			c.Deadline = m.facts.GetDeadline().AsTime()
			m.notify()
			f.applied.Measurements = append(f.applied.Measurements, *c)
		}
	}
	slices.SortFunc(f.applied.Measurements, func(a, b Change) int { return cmp.Compare(a.ID, b.ID) })
	return f.applied, nil
}

// Hash is the position that is folded, and what stands for all that the log amounts to there: equal positions of one
// log have equal hashes, however often it was restarted, or folded anew. Verdicts are opinions and not in it.
func (s *Store) Hash() (position uint64, hash []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position, s.hash().bytes()
}

func (s *Store) hash() sum {
	total := s.measurements
	total.add(s.registry.sum)
	total.add(s.deliveries.sum)
	total.add(s.audits.sum)
	return total
}

// open takes up a new measurement.
func (s *Store) open(position uint64, opened *pb.Measurement) *measurement {
	m := newMeasurement(position, opened)
	m.sum = m.openedItem()
	s.live[m.id()] = m
	s.begun(m)
	return m
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
	s.admit(m)
	return m, nil
}

// admit takes up a measurement from disk. It is closed, or it would be in memory. It takes the place of older ones.
func (s *Store) admit(m *measurement) {
	s.evict()
	s.live[m.id()] = m
	s.retire(m)
}

// lockFor locks the state, and reads a measurement that is on disk alone before that: a large one takes a while, and
// neither the fold nor anybody else is to wait for it. Whether it is there is for find to say.
func (s *Store) lockFor(id string) {
	s.mu.Lock()
	if s.live[id] != nil {
		return
	}
	s.mu.Unlock()
	s.fetching.Lock()
	defer s.fetching.Unlock()
	s.mu.Lock()
	if s.live[id] != nil {
		return
	}
	evicted := s.evicted
	s.mu.Unlock()
	m, err := s.read(id)
	s.mu.Lock()
	// What was let out of memory meanwhile may have been this one, and then have changed on disk.
	if err == nil && s.live[id] == nil && s.evicted == evicted && m.opened > s.forgot {
		s.admit(m)
	}
}

// retire puts a closed measurement in the queue of those that memory may let go.
func (s *Store) retire(m *measurement) {
	m.counted = m.bytes
	s.closed = append(s.closed, m)
	s.bytes += m.counted
}

// SetLog names the log that is folded. The checkpoint of another one is refused.
func (s *Store) SetLog(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != "" && s.log != id {
		return fmt.Errorf("store: %w: it is of log %s, and this is log %s", ErrOtherLog, s.log, id)
	}
	s.log = id
	return nil
}

// Forgot is the position up to which everything was forgotten.
func (s *Store) Forgot() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forgot
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
	for _, m := range s.running {
		open = append(open, m.snapshot(true))
	}
	slices.SortFunc(open, func(a, b *pb.Measurement) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return open
}

// Awaited is a measurement that runs and waits for an agent's answer.
type Awaited struct {
	// Measurement is as it is now, without the list of agents. It is shared: not to be changed.
	Measurement *pb.Measurement
	// Ask is the agent's. It is shared too.
	Ask *pb.Ask
}

// Awaits lists the measurements that wait for an agent, in the order of their ids. It looks at no other agent of
// them: when all agents come at once, each is looked for.
func (s *Store) Awaits(agent string) (list []Awaited) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.running {
		if i, asked := m.index[agent]; asked && m.asks[i].GetState() == pb.AskState_ASK_STATE_PENDING {
			list = append(list, Awaited{m.snapshot(false), m.asks[i]})
		}
	}
	slices.SortFunc(list, func(a, b Awaited) int { return cmp.Compare(a.Measurement.GetId(), b.Measurement.GetId()) })
	return list
}

// begun adds a measurement to those that run.
func (s *Store) begun(m *measurement) {
	s.running[m.id()] = m
	s.asks += len(m.asks)
}

// ended takes it away.
func (s *Store) ended(m *measurement) {
	delete(s.running, m.id())
	s.asks -= len(m.asks)
}

// Running is the number of measurements that run and of the agents that they ask.
func (s *Store) Running() (measurements, asks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running), s.asks
}

// FirstOpen is the position of the oldest measurement that runs; ok is false if none does.
func (s *Store) FirstOpen() (position uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.running {
		if !ok || m.opened < position {
			position, ok = m.opened, true
		}
	}
	return position, ok
}
