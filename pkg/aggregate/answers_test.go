package aggregate

import (
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestTypesByNumber: the spec has a type by number that the agent and its records have by name.
func TestTypesByNumber(t *testing.T) {
	t.Parallel()
	spec := &pb.DNSSpec{Name: "old.example", Type: "TYPE39"}
	f := &facts{m: &pb.Measurement{Spec: &pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}}, canon: map[record]string{}}
	s := &pb.Step{Type: "DNAME", Evidence: &pb.Evidence{Replies: []*pb.DNSReply{
		{Rcode: "NOERROR", Answers: []*pb.Record{{Type: "DNAME", Data: "New.example."}}},
	}}}
	values, whole := f.rrset(s)
	if len(values) != 1 || !whole {
		t.Errorf("%q, whole: %v", values, whole)
	}
	if missing := f.missing(f.askedType(s), []string{"new.EXAMPLE"}, values); len(missing) != 0 {
		t.Errorf("missing: %q", missing)
	}
	s.Type = "" // As of agents that do not say.
	if got := f.askedType(s); got != "TYPE39" {
		t.Error(got)
	}
}
