package store

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// measurement is one measurement as the log tells it. What it hands out is never changed afterwards:
// asks are replaced, not edited, and results only grow.
type measurement struct {
	opened  uint64          // position in the log
	facts   *pb.Measurement // without asks, results, ledger and verdict
	asks    []*pb.Ask
	shared  bool           // asks was handed out: copy it before a change
	index   map[string]int // agent → ask
	pending int            // asks without an answer
	results []*pb.Result
	late    []*pb.Result
	bytes   int64 // of results and asks, about
	counted int64 // of bytes, what the store counts as closed

	version int           // counts changes
	changed chan struct{} // closed and replaced at every change

	savedResults, savedLate int // how many are on disk

	verdict        *pb.Verdict // of verdictVersion
	verdictVersion int
	judged         time.Time // when, to judge a running measurement not too often
	judging        sync.Mutex
}

func newMeasurement(position uint64, opened *pb.Measurement) *measurement {
	facts, _ := proto.Clone(opened).(*pb.Measurement)
	m := &measurement{
		opened:  position,
		facts:   facts,
		asks:    facts.GetAsks(),
		index:   make(map[string]int, len(facts.GetAsks())),
		changed: make(chan struct{}),
		version: 1,
	}
	facts.Asks, facts.Ledger, facts.Verdict, facts.Results = nil, nil, nil, nil
	for i, a := range m.asks {
		m.index[a.GetAgent()] = i
		m.bytes += int64(proto.Size(a))
		if a.GetState() == pb.AskState_ASK_STATE_PENDING {
			m.pending++
		}
	}
	return m
}

func (m *measurement) id() string { return m.facts.GetId() }

func (m *measurement) open() bool { return m.facts.GetState() == pb.State_STATE_RUNNING }

// notify wakes those who watch.
func (m *measurement) notify() {
	m.version++
	close(m.changed)
	m.changed = make(chan struct{})
}

// wants tells whether a result of the agent with ask i would be kept.
func (m *measurement) wants(agent string, i int) bool {
	switch m.asks[i].GetState() {
	case pb.AskState_ASK_STATE_PENDING:
		return true
	case pb.AskState_ASK_STATE_LOST:
		return !slices.ContainsFunc(m.late, func(r *pb.Result) bool { return r.GetAgent() == agent })
	default:
		return false
	}
}

// add keeps a result: the first one of each agent counts, the first one after the end is late.
func (m *measurement) add(r *pb.Result) bool {
	i, ok := m.index[r.GetAgent()]
	if !ok || !m.wants(r.GetAgent(), i) {
		return false
	}
	m.bytes += int64(proto.Size(r))
	if !m.open() {
		m.late = append(m.late, r)
		return true
	}
	m.results = append(m.results, r)
	m.settle(i, func(a *pb.Ask) { a.State = pb.AskState_ASK_STATE_ANSWERED })
	return true
}

// decline keeps an agent's no. Policy and overload are refusals; with anything else it cannot.
func (m *measurement) decline(d *pb.Declined) bool {
	i, ok := m.index[d.GetAgent()]
	if !ok || !m.open() || m.asks[i].GetState() != pb.AskState_ASK_STATE_PENDING {
		return false
	}
	m.settle(i, func(a *pb.Ask) {
		a.Failure, a.Detail = d.GetFailure(), d.GetDetail()
		switch d.GetFailure() {
		case pb.Failure_FAILURE_AGENT_POLICY_DENIED, pb.Failure_FAILURE_AGENT_OVERLOADED:
			a.State = pb.AskState_ASK_STATE_REFUSED
		default:
			a.State = pb.AskState_ASK_STATE_INELIGIBLE
		}
	})
	return true
}

// settle replaces ask i by one that is edited.
func (m *measurement) settle(i int, edit func(*pb.Ask)) {
	old := m.asks[i]
	edited := &pb.Ask{Agent: old.GetAgent(), Vantage: old.GetVantage(), State: old.GetState()}
	edit(edited)
	if m.shared {
		m.asks, m.shared = slices.Clone(m.asks), false
	}
	m.asks[i] = edited
	m.pending--
}

// close closes the measurement and returns the agents that have not answered: they are lost.
func (m *measurement) close(c *pb.Closed) (lost []string) {
	asks := slices.Clone(m.asks)
	for i, a := range asks {
		if a.GetState() == pb.AskState_ASK_STATE_PENDING {
			asks[i] = &pb.Ask{Agent: a.GetAgent(), Vantage: a.GetVantage(), State: pb.AskState_ASK_STATE_LOST}
			lost = append(lost, a.GetAgent())
		}
	}
	facts, _ := proto.Clone(m.facts).(*pb.Measurement)
	facts.State = pb.State_STATE_FINISHED
	if c.GetCancelled() {
		facts.State = pb.State_STATE_CANCELLED
	}
	facts.FinishTime = c.GetTime()
	m.facts, m.asks, m.shared, m.pending = facts, asks, false, 0
	return lost
}

// snapshot is the measurement as it is, without verdict and results. The parts are shared and never
// change.
func (m *measurement) snapshot(asks bool) *pb.Measurement {
	snapshot := &pb.Measurement{
		Id:         m.facts.GetId(),
		State:      m.facts.GetState(),
		Spec:       m.facts.GetSpec(),
		CreateTime: m.facts.GetCreateTime(),
		FinishTime: m.facts.GetFinishTime(),
		From:       m.facts.GetFrom(),
		Deadline:   m.facts.GetDeadline(),
		Policy:     m.facts.GetPolicy(),
		Ledger:     aggregate.Tally(m.asks),
		Late:       int32(len(m.late)),

		PublicResolvers: m.facts.GetPublicResolvers(),
	}
	if asks {
		snapshot.Asks, m.shared = m.asks, true
	}
	return snapshot
}
