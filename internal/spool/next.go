package spool

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// batchBytes bounds the results of one batch. The contract bounds all of it at 512 KiB; half of that leaves a
// window of batches small.
const batchBytes = 256 << 10

// Next returns what is pending after a number, in order: results and gaps, at most n of each and results of
// 256 KiB. Nothing that is pending is left out before the last number of the batch. If there is nothing the
// batch is empty, and the channel is closed when there is something new.
func (s *Spool) Next(after uint64, n int) (*pb.ResultBatch, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		batch, lost := s.batch(after, n)
		if len(lost) > 0 {
			if err := s.giveUp(pb.GapReason_GAP_REASON_SPOOL_CORRUPT, lost...); err != nil {
				return nil, nil, err
			}
			continue // now they are gaps of the batch
		}
		return batch, s.changed, nil
	}
}

// batch is what Next returns, and the results that could not be read back.
func (s *Spool) batch(after uint64, n int) (batch *pb.ResultBatch, lost []span) {
	batch = &pb.ResultBatch{}
	upTo := uint64(maxSeq) // all that is pending up to here is in the batch
	for _, g := range s.state.gaps {
		if g.GetLast() <= after {
			continue
		}
		if len(batch.Gaps) == n {
			upTo = g.GetFirst() - 1
			break
		}
		batch.Gaps = append(batch.Gaps, g)
	}
	size := 0
	s.each(after+1, func(seg *segment, e entry) bool {
		size += int(e.length)
		if e.seq > upTo || len(batch.Results) == n || size > batchBytes {
			upTo = min(upTo, e.seq-1)
			return false
		}
		if result, ok := s.result(seg, e); ok {
			batch.Results = append(batch.Results, &pb.SpooledResult{Seq: e.seq, Result: result})
		} else {
			lost = append(lost, span{e.seq, e.seq})
		}
		return true
	})
	batch.Gaps = slices.DeleteFunc(batch.Gaps, func(g *pb.Gap) bool { return g.GetFirst() > upTo })
	return batch, lost
}

// each calls visit for the pending results from a number on, in order, until it returns false.
func (s *Spool) each(from uint64, visit func(*segment, entry) bool) {
	for _, seg := range s.segments {
		for _, e := range seg.entries[seg.from(from):] {
			if e.offset != 0 && !visit(seg, e) {
				return
			}
		}
	}
}

// result reads a result back.
func (s *Spool) result(seg *segment, e entry) (*pb.Result, bool) {
	payload, ok := s.payload(seg, e)
	result := &pb.Result{}
	return result, ok && proto.Unmarshal(payload, result) == nil
}

// payload is from memory while it may not be on disk.
func (s *Spool) payload(seg *segment, e entry) ([]byte, bool) {
	tail := s.group.tail
	i, found := slices.BinarySearchFunc(tail, e.seq, func(u unsynced, seq uint64) int { return cmp.Compare(u.seq, seq) })
	if found {
		return tail[i].payload, true
	}
	return seg.read(e)
}
