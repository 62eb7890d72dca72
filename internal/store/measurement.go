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
	// records and lateRecords are where results and late stood, in the same order.
	records, lateRecords []record
	answers              []int32 // by ask: 0 none, n the n-th result, -n the n-th late one
	sum                  sum     // of all that the measurement consists of
	bytes                int64   // of results and asks, about
	counted              int64   // of bytes, what the store counts as closed

	version int           // counts changes
	changed chan struct{} // closed and replaced at every change

	savedResults, savedLate int // how many are on disk
	// encodedResults and encodedLate are those that are not, as they stand in the log.
	encodedResults, encodedLate [][]byte

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
		answers: make([]int32, len(facts.GetAsks())),
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
func (m *measurement) wants(i int) bool {
	switch m.asks[i].GetState() {
	case pb.AskState_ASK_STATE_PENDING:
		return true
	case pb.AskState_ASK_STATE_LOST:
		return m.answers[i] == 0
	default:
		return false
	}
}

// add keeps a result: the first one of each agent counts, the first one after the end is late.
func (m *measurement) add(r received, at record) bool {
	i, ok := m.index[r.GetAgent()]
	if !ok || !m.wants(i) {
		return false
	}
	m.bytes += int64(r.size())
	m.sum.add(m.resultItem(r.GetAgent(), at, !m.open()))
	if !m.open() {
		m.late, m.lateRecords = append(m.late, r.Result), append(m.lateRecords, at)
		m.encodedLate = append(m.encodedLate, r.encoded)
		m.answers[i] = -int32(len(m.late))
		return true
	}
	m.results, m.records = append(m.results, r.Result), append(m.records, at)
	m.encodedResults = append(m.encodedResults, r.encoded)
	m.answers[i] = int32(len(m.results))
	m.settle(i, func(a *pb.Ask) { a.State = pb.AskState_ASK_STATE_ANSWERED })
	return true
}

// found puts what was read from disk into its place, and tells whether all of it has one.
func (m *measurement) found() bool {
	for n, r := range slices.Concat(m.results, m.late) {
		i, ok := m.index[r.GetAgent()]
		if !ok {
			return false
		}
		if m.answers[i] = int32(n + 1); n >= len(m.results) {
			m.answers[i] = -int32(n + 1 - len(m.results))
		}
		m.bytes += int64(proto.Size(r))
	}
	m.savedResults, m.savedLate = len(m.results), len(m.late)
	return true
}

// answered is where the result of the agent with ask i stood, if there is one.
func (m *measurement) answered(i int) (at record, ok bool) {
	switch n := m.answers[i]; {
	case n > 0:
		return m.records[n-1], true
	case n < 0:
		return m.lateRecords[-n-1], true
	default:
		return record{}, false
	}
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
	m.sum.add(m.askItem(m.asks[i]))
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
	m.sum.add(m.closedItem())
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
		Canary:          m.facts.GetCanary(),
	}
	if asks {
		snapshot.Asks, m.shared = m.asks, true
	}
	return snapshot
}
