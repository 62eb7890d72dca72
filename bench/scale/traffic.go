//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// regions is how many regions the agents are spread over.
	regions = 32
	// leastAgents is how many agents there are at least, so that each region has two.
	leastAgents = 2 * regions
	// usual is how many agents most measurements ask, the default; one of hundred asks large, a third of all results.
	usual, large, largeEvery = 20, 1000, 100
	// underWay is how many measurements run at once.
	underWay = 64
	// perMessage is how many entries one message of the log has, about: what comes while a commit is under way.
	perMessage = 64
	// epoch is that of every agent's spool.
	epoch = 1
)

// One of so many asks ends otherwise: the agent declines; it is lost, every second time with a result after the end; its
// result comes twice, as after an acknowledgement that was lost; its spool lost a number before it.
const (
	declinesEvery = 500
	lostEvery     = 500
	againEvery    = 200
	dropsEvery    = 1000
)

// plan is the traffic to make.
type plan struct {
	agents     int
	perAgent   int // results of each agent
	least      int // results at least
	checkpoint int // results between two checkpoints
	seed       uint64
}

// tally counts what was made. Asked is Results and Declined and Lost together.
type tally struct {
	Measurements, Asked, Results, Declined, Lost int
	Late, Again, Dropped                         int // beside them
}

// question is a measurement under way.
type question struct {
	id      string
	shape   *shape
	waiting []int        // agents
	late    []int        // agents that are lost, and answer after the end
	silent  map[int]bool // regions of which no agent has answered
	ended   ledger
}

// ledger is what has to stand in a measurement's.
type ledger struct {
	outcome                        pb.Outcome
	asked, answered, refused, lost int
}

// traffic makes the log, a message at a time: first the agents' enrolments, then measurements and all that comes of them.
// The same plan makes the same log, without a clock.
type traffic struct {
	plan
	shapes   []*shape
	chance   *rand.Rand
	enrolled int
	next     []uint64 // of each agent, the next number of its spool
	open     []*question
	pending  [][]byte // entries that come with the next message
	tally    tally
	ends     map[string]ledger // of the measurements that the message at hand closes
	results  int               // in the message at hand
}

func newTraffic(p plan, shapes []*shape) *traffic {
	t := &traffic{plan: p, shapes: shapes, chance: rand.New(rand.NewPCG(p.seed, uint64(p.agents))), next: make([]uint64, p.agents)}
	for i := range t.next {
		t.next[i] = 1
	}
	return t
}

// wanted is how many asks are made in all; the measurement that reaches it is the last.
func (p plan) wanted() int { return max(p.agents*p.perAgent, p.least) }

// enrolling says that the next message is of enrolments.
func (t *traffic) enrolling() bool { return t.enrolled < t.agents }

// message is the next message of the log, a LogBatch; nil at the end.
func (t *traffic) message() []byte {
	t.ends, t.results = map[string]ledger{}, 0
	if t.enrolling() {
		return t.enrolments()
	}
	entries := t.pending
	t.pending = nil
	for len(entries) < perMessage {
		for len(t.open) < underWay && t.tally.Asked < t.wanted() {
			entries = append(entries, t.ask())
		}
		if len(t.open) == 0 {
			break
		}
		entries = append(entries, t.answer(t.chance.IntN(len(t.open))))
	}
	return batch(entries)
}

// batch is entries as a LogBatch; nil if there is none.
func batch(entries [][]byte) []byte {
	size := 0
	for _, e := range entries {
		size += len(e) + 8
	}
	var data []byte
	for _, e := range entries {
		if data == nil {
			data = make([]byte, 0, size)
		}
		data = field(data, fieldEntries, e)
	}
	return data
}

// The fields that are put together by hand: results are many.
const (
	fieldEntries     = 1 // LogBatch
	fieldResult      = 2 // LogEntry
	fieldMeasurement = 1 // Result
	fieldAgent       = 3
	fieldVantage     = 4
)

func field(b []byte, number protowire.Number, data []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data)
}

// encoded is a message that is certain to be well formed.
func encoded(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// id is a measurement's.
func id(n int) string { return fmt.Sprintf("01m8%022d", n) }

// name is an agent's.
func name(agent int) string { return fmt.Sprintf("agent-%06d", agent) }

// at is a time of the log: a millisecond for each.
func at(n int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond))
}

// enrolments are those of the next agents, each with its event.
func (t *traffic) enrolments() []byte {
	var entries [][]byte
	for ; t.enrolling() && len(entries) < perMessage; t.enrolled++ {
		agent, v := name(t.enrolled), vantage(t.enrolled)
		key, authority := sha256.Sum256([]byte(agent)), sha256.Sum256(nil)
		token := fmt.Sprintf("%012x", key[:6])
		entries = append(entries,
			encoded(&pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: &pb.Enrolment{
				Id: agent, Vantage: &pb.Vantage{Region: v.GetRegion(), Country: v.GetCountry(), City: v.GetCity(), Provider: v.GetProvider()},
				Key: key[:], TokenId: token, EnrollTime: at(t.enrolled), ExpireTime: at(t.enrolled + 86_400_000), Authority: authority[:],
			}}}),
			encoded(&pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{
				Kind: pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, Agent: agent, TokenId: token, Time: at(t.enrolled),
				Address: v.GetObservedAddress(), Detail: "in " + v.GetRegion(),
			}}}))
	}
	return batch(entries)
}

// ask opens a measurement of agents that chance chooses, spread over the regions as a coordinator does it.
func (t *traffic) ask() []byte {
	n := usual
	if t.tally.Measurements%largeEvery == largeEvery-1 {
		n = min(large, t.agents)
	}
	q := &question{id: id(t.tally.Measurements), shape: t.pick(), waiting: t.choose(n), silent: map[int]bool{}}
	q.ended = ledger{outcome: q.shape.outcome, asked: n}
	for _, a := range q.waiting {
		q.silent[a%regions] = true
	}
	m := &pb.Measurement{
		Id: q.id, State: pb.State_STATE_RUNNING, Spec: q.shape.spec, Policy: q.shape.policy, From: "world",
		CreateTime: at(t.tally.Measurements), Deadline: at(t.tally.Measurements + 30_000),
	}
	for _, a := range slices.Sorted(slices.Values(q.waiting)) {
		m.Asks = append(m.Asks, &pb.Ask{Agent: name(a), Vantage: vantage(a), State: pb.AskState_ASK_STATE_PENDING})
	}
	t.open = append(t.open, q)
	t.tally.Measurements, t.tally.Asked = t.tally.Measurements+1, t.tally.Asked+n
	return encoded(&pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: m}}})
}

// pick is the shape of the next measurement.
func (t *traffic) pick() *shape {
	n := t.chance.IntN(10)
	for _, s := range t.shapes {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	return t.shapes[0]
}

// choose picks n agents, of each region in turn.
func (t *traffic) choose(n int) (chosen []int) {
	taken := map[int]bool{}
	for region := t.chance.IntN(regions); len(chosen) < n; region++ {
		a := region%regions + regions*t.chance.IntN((t.agents+regions-1)/regions)
		if a < t.agents && !taken[a] {
			taken[a] = true
			chosen = append(chosen, a)
		}
	}
	return chosen
}

// one says yes once in so many times.
func (t *traffic) one(in int) bool { return t.chance.IntN(in) == 0 }

// answer is what comes next of a measurement under way: of one of its agents, or its end.
func (t *traffic) answer(i int) []byte {
	q := t.open[i]
	if len(q.waiting) == 0 {
		return t.close(i)
	}
	k := t.chance.IntN(len(q.waiting))
	a := q.waiting[k]
	q.waiting = slices.Delete(q.waiting, k, k+1)
	switch {
	case t.one(declinesEvery):
		q.ended.refused, t.tally.Declined = q.ended.refused+1, t.tally.Declined+1
		return encoded(&pb.LogEntry{Entry: &pb.LogEntry_Declined{Declined: &pb.Declined{
			MeasurementId: q.id, Agent: name(a), Failure: pb.Failure_FAILURE_AGENT_OVERLOADED, Detail: "too many jobs",
		}}})
	case t.one(lostEvery):
		if q.ended.lost, t.tally.Lost = q.ended.lost+1, t.tally.Lost+1; t.one(2) {
			q.late = append(q.late, a)
		}
		return t.answer(i)
	case t.one(dropsEvery):
		t.pending = append(t.pending, t.drop(a))
	}
	q.ended.answered, t.tally.Results = q.ended.answered+1, t.tally.Results+1
	delete(q.silent, a%regions)
	entry := t.result(q, a)
	if t.one(againEvery) {
		t.pending, t.tally.Again = append(t.pending, entry), t.tally.Again+1
	}
	return entry
}

// close ends a measurement. What is late comes with the next message.
func (t *traffic) close(i int) []byte {
	q := t.open[i]
	t.open = slices.Delete(t.open, i, i+1)
	if len(q.silent) > 0 && q.ended.outcome == pb.Outcome_OUTCOME_OK {
		q.ended.outcome = pb.Outcome_OUTCOME_INCONCLUSIVE // of a region that was asked nothing is known
	}
	t.ends[q.id] = q.ended
	for _, a := range q.late {
		t.pending, t.tally.Late = append(t.pending, t.result(q, a)), t.tally.Late+1
	}
	return encoded(&pb.LogEntry{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: q.id, Time: at(t.tally.Measurements)}}})
}

// drop is a number that an agent's spool has lost.
func (t *traffic) drop(a int) []byte {
	n := t.next[a]
	t.next[a]++
	t.tally.Dropped++
	return encoded(&pb.LogEntry{Entry: &pb.LogEntry_Gaps{Gaps: &pb.Gaps{Agent: name(a), Epoch: epoch, Gaps: []*pb.Gap{
		{First: n, Last: n, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL},
	}}}})
}

// result is an agent's, with its place, as coordinator.Keep makes it: where the agent stands is behind the rest.
func (t *traffic) result(q *question, a int) []byte {
	t.results++
	body := q.shape.bodies[a%regions%places][a/regions%variants]
	r := make([]byte, 0, len(body)+256)
	r = field(r, fieldMeasurement, []byte(q.id))
	r = field(r, fieldAgent, []byte(name(a)))
	r = append(r, body...)
	digest := sha256.Sum256(r)
	r = field(r, fieldVantage, encoded(vantage(a)))
	place := encoded(&pb.LogEntry{Place: &pb.Place{Epoch: epoch, Seq: t.next[a], Digest: digest[:]}})
	t.next[a]++
	return append(field(make([]byte, 0, len(r)+len(place)+8), fieldResult, r), place...)
}
