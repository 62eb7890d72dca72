package results

import (
	"cmp"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// window is what an agent has sent on a stream, and has no answer to yet.
type window struct {
	changed chan struct{} // has one when there was an answer

	mu      sync.Mutex
	lowest  uint64           // the first number that was sent on this stream
	highest uint64           // the last one
	flight  [][]*pb.SeqRange // of each batch on its way, the numbers without an answer
	pause   time.Duration    // before all that has no acknowledgement is sent again; 0: it is not
}

func newWindow() *window { return &window{changed: make(chan struct{}, 1)} }

// look tells how long to wait before all is sent again, if it has to be, and whether there is room for a batch.
func (w *window) look() (pause time.Duration, room bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pause, len(w.flight) < maxInFlight
}

// again forgets what was on its way: it is sent again.
func (w *window) again() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flight, w.pause = nil, 0
}

// send notes a batch that is about to be sent.
func (w *window) send(numbers []*pb.SeqRange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flight = append(w.flight, numbers)
	if w.lowest == 0 {
		w.lowest = numbers[0].GetFirst()
	}
	w.highest = max(w.highest, numbers[len(numbers)-1].GetLast())
}

// check says what is wrong with an acknowledgement. Everything that the spool held between the lowest number and
// the highest was sent: an agent sends in order.
func (w *window) check(ack *pb.Ack) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(ack.GetRanges()) > maxRanges {
		return fmt.Errorf("an acknowledgement of %d ranges; at most %d", len(ack.GetRanges()), maxRanges)
	}
	for _, r := range ack.GetRanges() {
		if w.lowest == 0 || r.GetFirst() < w.lowest || r.GetLast() > w.highest || r.GetLast() < r.GetFirst() || r.GetLast()-r.GetFirst() >= maxGap {
			return fmt.Errorf("an acknowledgement of %d to %d; sent were %d to %d", r.GetFirst(), r.GetLast(), w.lowest, w.highest)
		}
	}
	return nil
}

// ack takes numbers off their batches. A batch with none left is not on its way any more.
func (w *window) ack(ack *pb.Ack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.flight {
		for _, r := range ack.GetRanges() {
			w.flight[i] = without(w.flight[i], r)
		}
	}
	w.flight = slices.DeleteFunc(w.flight, func(left []*pb.SeqRange) bool { return len(left) == 0 })
	w.wake()
}

// retry notes that all without an acknowledgement is to be sent again, after a delay and up to a half more, so
// that not all agents come at once.
func (w *window) retry(after time.Duration) {
	after = min(max(after, time.Millisecond), maxRetryDelay)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pause = max(w.pause, after+mathrand.N(after/2+1))
	w.wake()
}

func (w *window) wake() {
	select {
	case w.changed <- struct{}{}:
	default: // it was told
	}
}

// without takes a range from sorted ranges that do not overlap.
func without(list []*pb.SeqRange, r *pb.SeqRange) []*pb.SeqRange {
	// The first that it may touch, and the first beyond it.
	from, _ := slices.BinarySearchFunc(list, r.GetFirst(), func(l *pb.SeqRange, first uint64) int { return cmp.Compare(l.GetLast(), first) })
	to := from
	var left []*pb.SeqRange
	for ; to < len(list) && list[to].GetFirst() <= r.GetLast(); to++ {
		if list[to].GetFirst() < r.GetFirst() {
			left = append(left, &pb.SeqRange{First: list[to].GetFirst(), Last: r.GetFirst() - 1})
		}
		if list[to].GetLast() > r.GetLast() {
			left = append(left, &pb.SeqRange{First: r.GetLast() + 1, Last: list[to].GetLast()})
		}
	}
	return slices.Replace(list, from, to, left...)
}
