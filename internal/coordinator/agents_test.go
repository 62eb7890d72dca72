package coordinator_test

import (
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestAgentsTellOfTheirDelivery: what the log knows of an agent's spool stands beside the agent.
func TestAgentsTellOfTheirDelivery(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	for range 3 {
		w.end(w.create(w.tcp(w.target)).GetId())
	}
	list, err := w.fleet.ListAgents(t.Context(), &pb.ListAgentsRequest{})
	if err != nil || len(list.GetAgents()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if d := list.GetAgents()[0].GetDelivery(); d.GetHighest() != 3 || d.GetMissing() != 0 || d.GetDropped() != 0 {
		t.Errorf("after three results: %v", d)
	}
}
