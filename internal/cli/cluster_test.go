package cli

import (
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestWell(t *testing.T) {
	state := func(format string, position uint64, hash string) *pb.CoordinatorState {
		return &pb.CoordinatorState{FoldFormat: format, Position: position, StateHash: []byte(hash)}
	}
	alive := func(s *pb.CoordinatorState) *pb.Coordinator {
		return &pb.Coordinator{Liveness: pb.Liveness_LIVENESS_ALIVE, State: s}
	}
	unready, differs := state("5", 7, "a"), state("5", 7, "a")
	unready.Unready, differs.DiffersFrom = "it folds", "c-1"
	for _, c := range []struct {
		says string
		all  []*pb.Coordinator
		well bool
	}{
		{"equal states at one position", []*pb.Coordinator{alive(state("5", 7, "a")), alive(state("5", 7, "a"))}, true},
		{"different states at different positions", []*pb.Coordinator{alive(state("5", 7, "a")), alive(state("5", 8, "b"))}, true},
		{"different states at one position", []*pb.Coordinator{alive(state("5", 7, "a")), alive(state("5", 7, "b"))}, false},
		{"different states at one position, of two versions", []*pb.Coordinator{alive(state("5", 7, "a")), alive(state("", 7, "b"))}, true},
		{"one that is dead", []*pb.Coordinator{alive(state("5", 7, "a")), {Liveness: pb.Liveness_LIVENESS_DEAD, State: state("5", 7, "a")}}, false},
		{"one that says nothing", []*pb.Coordinator{alive(state("5", 7, "a")), alive(nil)}, false},
		{"one that is not ready", []*pb.Coordinator{alive(unready)}, false},
		{"one that differs", []*pb.Coordinator{alive(differs)}, false},
	} {
		if err := well(c.all); (err == nil) != c.well {
			t.Errorf("%s: %v", c.says, err)
		}
	}
}
