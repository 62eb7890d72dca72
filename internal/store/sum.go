package store

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// sum stands for a set of items: the SHA-256 of all of them, added modulo 2^256. Their order does not matter, and one
// is taken away as cheaply as it is added. It is written big endian.
//
// It is there to find mistakes: two folds that should be equal and are not, a file that is not what was written. It is
// not there against those who make up items so that the sum fits.
type sum [4]uint64

func (s *sum) add(o sum) {
	var carry uint64
	for i := 3; i >= 0; i-- {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *sum) sub(o sum) {
	var borrow uint64
	for i := 3; i >= 0; i-- {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

func (s sum) bytes() []byte {
	var b []byte
	for _, n := range s {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func sumFrom(b []byte) (s sum) {
	for i := range s {
		s[i] = number(b[8*i : 8*i+8])
	}
	return s
}

// The kinds of items. A kind's number is never used for another.
const (
	itemOpened   = 1
	itemAsk      = 2
	itemResult   = 3
	itemClosed   = 4
	itemSpan     = 5
	itemDropped  = 6
	itemEnrolled = 7
	itemAudit    = 8
)

// item is one thing that the state consists of, as it is hashed: its kind, then its parts, each of which says how long
// it is.
type item []byte

func newItem(kind byte, whose string) item {
	return append(make(item, 0, 256), kind).text(whose)
}

func (b item) text(s string) item { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

func (b item) data(d []byte) item { return append(binary.AppendUvarint(b, uint64(len(d))), d...) }

func (b item) number(n uint64) item { return binary.BigEndian.AppendUint64(b, n) }

func (b item) sum() sum {
	h := sha256.Sum256(b)
	return sumFrom(h[:])
}

// canonical is a message as bytes, the same for the same message. A message that came from the wire can be written.
func canonical(m proto.Message) []byte {
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return data
}

// openedItem is what a measurement was opened with: what never changes of it.
func (m *measurement) openedItem() sum {
	f := m.facts
	opened := &pb.Measurement{
		Spec: f.GetSpec(), CreateTime: f.GetCreateTime(), From: f.GetFrom(), Deadline: f.GetDeadline(),
		Policy: f.GetPolicy(), PublicResolvers: f.GetPublicResolvers(), Canary: f.GetCanary(), Asks: make([]*pb.Ask, len(m.asks)),
	}
	for i, a := range m.asks {
		opened.Asks[i] = &pb.Ask{Agent: a.GetAgent(), Vantage: a.GetVantage()}
	}
	return newItem(itemOpened, m.id()).number(m.opened).data(canonical(opened)).sum()
}

// askItem is an agent's no. What an answer is the result says; what is lost follows from the end.
func (m *measurement) askItem(a *pb.Ask) sum {
	return newItem(itemAsk, m.id()).text(a.GetAgent()).number(uint64(a.GetState())).
		number(uint64(a.GetFailure())).text(a.GetDetail()).sum()
}

func (m *measurement) resultItem(agent string, r record, late bool) sum {
	b := newItem(itemResult, m.id()).text(agent).number(r.position).number(r.epoch).number(r.seq).data(r.digest[:])
	if late {
		b = append(b, 1)
	}
	return b.sum()
}

func (m *measurement) closedItem() sum {
	t := m.facts.GetFinishTime()
	return newItem(itemClosed, m.id()).number(uint64(m.facts.GetState())).
		number(uint64(t.GetSeconds())).number(uint64(t.GetNanos())).sum()
}

// whole is the sum of a measurement, made anew.
func (m *measurement) whole() sum {
	s := m.openedItem()
	for _, a := range m.asks {
		switch a.GetState() {
		case pb.AskState_ASK_STATE_REFUSED, pb.AskState_ASK_STATE_INELIGIBLE:
			s.add(m.askItem(a))
		case pb.AskState_ASK_STATE_UNSPECIFIED, pb.AskState_ASK_STATE_PENDING, pb.AskState_ASK_STATE_ANSWERED, pb.AskState_ASK_STATE_LOST:
		}
	}
	for i, r := range m.results {
		s.add(m.resultItem(r.GetAgent(), m.records[i], false))
	}
	for i, r := range m.late {
		s.add(m.resultItem(r.GetAgent(), m.lateRecords[i], true))
	}
	if !m.open() {
		s.add(m.closedItem())
	}
	return s
}

// digestOf is SHA-256 of a result.
func digestOf(r *pb.Result) [32]byte { return sha256.Sum256(canonical(r)) }
