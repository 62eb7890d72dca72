package store

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Carry lists what the log would not tell any more if it were cut after a position: enrolments, and what is known of
// spools. These entries have to be appended at the state's own position, with nothing between, before the cut.
//
// It lists them in an order of their own, as many as fit into size bytes, but one at least; after is the mark of the
// list before, "" for the first. next is the mark of this one, "" if it is the last.
func (s *Store) Carry(cut uint64, after string, size int) (entries []*pb.LogEntry, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := s.carried(cut, after)
	slices.Sort(marks)
	for _, mark := range marks {
		e := s.carriedEntry(mark)
		if size -= proto.Size(e) + 4; size < 0 && len(entries) > 0 {
			return entries, next
		}
		entries, next = append(entries, e), mark
	}
	return entries, ""
}

// carried lists the marks of what is to be carried, beyond a mark.
func (s *Store) carried(cut uint64, after string) (marks []string) {
	for name, e := range s.registry.agents {
		if e.since > cut {
			continue // the usual case: nothing is said of it
		}
		if mark := "enrolment " + name; mark > after {
			marks = append(marks, mark)
		}
	}
	for _, epochs := range s.deliveries.agents {
		for _, e := range epochs {
			if e.since > cut {
				continue
			}
			if mark := "spool " + string(e.key()); mark > after {
				marks = append(marks, mark)
			}
		}
	}
	return marks
}

func (s *Store) carriedEntry(mark string) *pb.LogEntry {
	if name, ok := strings.CutPrefix(mark, "enrolment "); ok {
		return &pb.LogEntry{Entry: &pb.LogEntry_Enrolment{Enrolment: s.registry.agents[name].enrolment}}
	}
	key, _ := strings.CutPrefix(mark, "spool ")
	e := s.deliveries.keyed([]byte(key))
	return &pb.LogEntry{Entry: &pb.LogEntry_Delivered{Delivered: &pb.Delivered{
		Agent: e.agent, Epoch: e.epoch, Ranges: e.numbers.ranges(), Dropped: e.dropped,
	}}}
}
