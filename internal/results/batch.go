package results

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxBatchResults and maxBatchGaps bound one batch.
	maxBatchResults, maxBatchGaps = 256, 256
	// maxBatchBytes bounds the results of one batch, in bytes.
	maxBatchBytes = 512 << 10
	// maxGap bounds the numbers in one gap, and in one range of an acknowledgement.
	maxGap = 1 << 20
	// gapBytes is what a gap takes, about.
	gapBytes = 24
	// maxRanges bounds the ranges of one acknowledgement.
	maxRanges = maxBatchResults + maxBatchGaps
	// maxInFlight bounds the batches of a stream that are on their way.
	maxInFlight = 8
)

// contents are the numbers of a batch as ranges, joined where they follow each other, and about how many
// bytes it has. A batch beyond its bounds, or with a number that comes twice in it, is an error.
func contents(batch *pb.ResultBatch) (numbers []*pb.SeqRange, bytes int, err error) {
	results, gaps := batch.GetResults(), batch.GetGaps()
	if len(results) > maxBatchResults || len(gaps) > maxBatchGaps {
		return nil, 0, fmt.Errorf("a batch of %d results and %d gaps; at most %d and %d", len(results), len(gaps), maxBatchResults, maxBatchGaps)
	}
	numbers = make([]*pb.SeqRange, 0, len(results)+len(gaps))
	for _, r := range results {
		numbers = append(numbers, &pb.SeqRange{First: r.GetSeq(), Last: r.GetSeq()})
		bytes += proto.Size(r)
	}
	if bytes > maxBatchBytes {
		return nil, 0, fmt.Errorf("a batch of %d bytes; at most %d", bytes, maxBatchBytes)
	}
	for _, g := range gaps {
		if g.GetLast() < g.GetFirst() || g.GetLast()-g.GetFirst() >= maxGap {
			return nil, 0, fmt.Errorf("a gap from %d to %d; at most %d numbers", g.GetFirst(), g.GetLast(), maxGap)
		}
		if !agents(g.GetReason()) {
			return nil, 0, fmt.Errorf("a gap for a reason that is the coordinator's: %v", g.GetReason())
		}
		numbers = append(numbers, &pb.SeqRange{First: g.GetFirst(), Last: g.GetLast()})
		bytes += gapBytes
	}
	numbers, err = join(numbers)
	return numbers, bytes, err
}

// agents says whether a reason is one that agents give.
func agents(reason pb.GapReason) bool {
	switch reason {
	case pb.GapReason_GAP_REASON_UNASKED, pb.GapReason_GAP_REASON_DUPLICATE, pb.GapReason_GAP_REASON_REFUSED:
		return false
	default: // a newer agent's may be unknown here
		return true
	}
}

// join sorts ranges and joins those that follow each other, up to maxGap numbers. They must not overlap.
func join(list []*pb.SeqRange) ([]*pb.SeqRange, error) {
	slices.SortFunc(list, func(a, b *pb.SeqRange) int { return cmp.Compare(a.GetFirst(), b.GetFirst()) })
	joined := list[:0]
	before := uint64(0) // the number before, which is used
	for _, r := range list {
		if r.GetFirst() <= before {
			return nil, fmt.Errorf("the number %d comes twice, or is none", r.GetFirst())
		}
		n := len(joined)
		if n > 0 && r.GetFirst() == before+1 && r.GetLast()-joined[n-1].GetFirst() < maxGap {
			joined[n-1].Last = r.GetLast()
		} else {
			joined = append(joined, r)
		}
		before = r.GetLast()
	}
	return joined, nil
}

// bounded is a batch of a spool within the bounds of what is sent: a gap after a number is as many as it takes. What
// does not fit comes with the next batch.
func bounded(batch *pb.ResultBatch, after uint64) *pb.ResultBatch {
	var gaps []*pb.Gap
	for _, g := range batch.GetGaps() {
		for first := max(g.GetFirst(), after+1); first <= g.GetLast(); first += maxGap {
			if len(gaps) == maxBatchGaps {
				// Nothing that is pending is left out before the last number.
				kept := slices.DeleteFunc(batch.GetResults(), func(r *pb.SpooledResult) bool { return r.GetSeq() >= first })
				return &pb.ResultBatch{Results: kept, Gaps: gaps}
			}
			gaps = append(gaps, &pb.Gap{First: first, Last: min(g.GetLast(), first+maxGap-1), Reason: g.GetReason()})
		}
	}
	return &pb.ResultBatch{Results: batch.GetResults(), Gaps: gaps}
}
