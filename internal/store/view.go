package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// judgeInterval is the least time between two judgements of a measurement that runs.
const judgeInterval = 100 * time.Millisecond

// View is a measurement as somebody reads it.
type View struct {
	// Measurement has its asks, its ledger and its current verdict. It is shared: not to be changed.
	Measurement *pb.Measurement
	// Results and Late are the results in the order of the log. They are shared: not to be changed.
	Results, Late []*pb.Result
	// Position is that of the log: the view shows all up to it.
	Position uint64
	// Changed is closed when there is something newer.
	Changed <-chan struct{}
	// Stale says that the verdict is older than the results, because it is too soon for another.
	Stale bool
	// Lagged says that changes before it were not seen, because send was long busy with an older view. Only Watch
	// tells.
	Lagged bool

	version int
	records []record
}

// After are the results that stand in the log after a position: about n at most, but never a part of those that came
// with one message of the log. upTo is the position up to which they are all; it is the view's own when no more follow.
func (v View) After(position uint64, n int) (results []*pb.Result, upTo uint64) {
	from := sort.Search(len(v.records), func(i int) bool { return v.records[i].position > position })
	for to := from; to < len(v.records); {
		at := v.records[to].position
		next := to + sort.Search(len(v.records)-to, func(i int) bool { return v.records[to+i].position > at })
		if to > from && next-from > n {
			return v.Results[from:to], v.records[to-1].position
		}
		to = next
	}
	return v.Results[from:], v.Position
}

// Get returns a measurement as it is. The verdict is made when somebody looks: of a measurement that
// runs at most every 100 ms, until its last result is in.
func (s *Store) Get(id string) (View, error) {
	s.lockFor(id)
	m, err := s.find(id)
	if err != nil {
		s.mu.Unlock()
		return View{}, err
	}
	view := View{
		Measurement: m.snapshot(true), Results: m.results, Late: m.late, Position: s.position, Changed: m.changed,
		version: m.version, records: m.records,
	}
	view.Measurement.Verdict = m.verdict
	version, due := m.version, m.due()
	view.Stale = !due && m.verdictVersion != version && m.pending < len(m.asks)
	s.mu.Unlock()
	if due {
		view.Measurement.Verdict = s.judge(m, view, version)
	}
	return view, nil
}

// judge makes the verdict of a view, or takes the one that somebody else made of it meanwhile. It holds
// no lock of the store: judging ten thousand results takes a while, and the fold must go on.
func (s *Store) judge(m *measurement, view View, version int) *pb.Verdict {
	m.judging.Lock()
	defer m.judging.Unlock()
	s.mu.Lock()
	done, made := m.verdict, m.verdictVersion
	s.mu.Unlock()
	if made == version {
		return done
	}
	verdict := aggregate.Judge(view.Measurement, view.Results)
	s.keep(m, verdict, version)
	return verdict
}

// due tells whether it is time to judge.
func (m *measurement) due() bool {
	switch {
	case m.verdictVersion == m.version:
		return false
	case m.pending == 0:
		return true
	case m.pending == len(m.asks):
		return false // nothing to judge yet
	default:
		return m.verdict == nil || time.Since(m.judged) >= judgeInterval
	}
}

// keep remembers a verdict, unless a newer one is there; that of a closed measurement on disk too.
func (s *Store) keep(m *measurement, v *pb.Verdict, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version <= m.verdictVersion {
		return
	}
	m.verdict, m.verdictVersion, m.judged = v, version, time.Now()
	if !m.open() && s.live[m.id()] == m {
		s.dirty[m.id()] = m
	}
}

// Watch calls send with the measurement as it is, then after each change, until it is closed, ctx
// ends or send fails. Changes that come while send is busy, or sooner than 100 ms after the last
// judgement, are seen together.
func (s *Store) Watch(ctx context.Context, id string, send func(View) error) error {
	before, busy := 0, false // the version that was sent, and whether that took long
	for {
		view, err := s.Get(id)
		if err != nil {
			return err
		}
		view.Lagged = busy && view.version > before+1
		began := time.Now()
		if err := send(view); err != nil || view.Measurement.GetState() != pb.State_STATE_RUNNING {
			return err
		}
		before, busy = view.version, time.Since(began) > judgeInterval
		var again <-chan time.Time
		if view.Stale {
			again = time.After(judgeInterval)
		}
		select {
		case <-view.Changed:
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxPage bounds a page of measurements, in bytes, beside the last one of it.
const maxPage = 2 << 20

// List returns measurements without their asks, the newest first, at most n of those whose id is
// below before ("": of all), and fewer where they are large; more says whether there may be others after them.
func (s *Store) List(before string, n int) (list []*pb.Measurement, more bool, err error) {
	s.mu.Lock()
	var ids []string
	for id := range s.live {
		if before == "" || id < before {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	saved, err := s.savedIDs(before, n)
	if err != nil {
		return nil, false, err
	}
	ids = append(ids, saved...)
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	ids = slices.Compact(ids)
	size := 0
	for i, id := range ids[:min(n, len(ids))] {
		m, err := s.head(id)
		if errors.Is(err, ErrNotFound) {
			continue // forgotten meanwhile
		}
		if err != nil {
			return nil, false, err
		}
		m.Asks = nil
		list = append(list, m)
		if size += proto.Size(m); size > maxPage {
			return list, i+1 < len(ids), nil
		}
	}
	return list, len(ids) >= n, nil
}

// head is a measurement without its results; those on disk are left there if the verdict is.
func (s *Store) head(id string) (*pb.Measurement, error) {
	s.mu.Lock()
	live, forgot := s.live[id] != nil, s.forgot
	s.mu.Unlock()
	if !live {
		saved, opened, err := s.savedHead(id)
		if err != nil || opened <= forgot {
			return nil, errors.Join(err, ErrNotFound)
		}
		if saved.GetVerdict().GetJudge() == aggregate.Version {
			return saved, nil
		}
	}
	view, err := s.Get(id)
	return view.Measurement, err
}
