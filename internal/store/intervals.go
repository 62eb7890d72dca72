package store

import (
	"math"
	"slices"
	"sort"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxSeq is the highest number of a spool: one more of it is still a number.
const maxSeq = math.MaxUint64 - 1

// span is the numbers from first to last, both included.
type span struct{ first, last uint64 }

// intervals is a set of numbers of a spool, 1 to maxSeq: spans in order that neither overlap nor touch, so that the
// same numbers are always the same spans.
type intervals []span

// at is the index of the first span that ends at or after n.
func (s intervals) at(n uint64) int {
	// The usual case: the numbers come in order.
	if end := len(s) - 1; end >= 0 && s[end].first <= n {
		if s[end].last < n {
			return end + 1
		}
		return end
	}
	return sort.Search(len(s), func(i int) bool { return s[i].last >= n })
}

// has tells whether a number is in the set.
func (s intervals) has(n uint64) bool { return s.covers(span{n, n}) }

// covers tells whether all of a span is in the set.
func (s intervals) covers(r span) bool {
	i := s.at(r.last)
	return i < len(s) && s[i].first <= r.first
}

// highest is the highest number in the set, 0 if it is empty.
func (s intervals) highest() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].last
}

// size is how many numbers are in the set.
func (s intervals) size() (n uint64) {
	for _, r := range s {
		n += r.size()
	}
	return n
}

// joined is the place in the set that a span takes: it stands for those from i to j, j not included, which it overlaps
// or touches, and is then whole.
func (s intervals) joined(add span) (i, j int, whole span) {
	i = s.at(max(add.first, 1) - 1)
	j = i
	for j < len(s) && s[j].first <= add.last+1 {
		j++
	}
	if whole = add; i < j {
		whole = span{min(add.first, s[i].first), max(add.last, s[j-1].last)}
	}
	return i, j, whole
}

// replace puts the span that joined made in its place.
func (s *intervals) replace(i, j int, whole span) {
	if j == i+1 { // the usual case
		(*s)[i] = whole
		return
	}
	*s = slices.Replace(*s, i, j, whole)
}

// ranges is the set as a message.
func (s intervals) ranges() []*pb.SeqRange {
	list := make([]*pb.SeqRange, len(s))
	for i, r := range s {
		list[i] = &pb.SeqRange{First: r.first, Last: r.last}
	}
	return list
}

// size is how many numbers it is.
func (r span) size() uint64 { return r.last - r.first + 1 }

// valid tells whether a span is one of a spool's numbers.
func (r span) valid() bool { return r.first >= 1 && r.first <= r.last && r.last <= maxSeq }
