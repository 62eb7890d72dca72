package coordinator_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestEachAgentAsksThePublicResolversOfItsPlace(t *testing.T) {
	world := &pb.PublicResolver{Name: "World", Addresses: []string{"127.0.0.1:9"}}
	local := &pb.PublicResolver{Name: "Local", Where: "r0", Addresses: []string{"[2001:db8::1]:9", "127.0.0.2:9"}}
	nobody := &pb.PublicResolver{Name: "Nobody's", Where: "r7", Addresses: []string{"127.0.0.3:9"}}
	w := newWorld(t, coordinator.Options{PublicResolvers: []*pb.PublicResolver{world, local, nobody}})
	w.agent("a0", "r0", true)
	w.agent("a1", "r1", true)
	for name, tc := range map[string]struct {
		spec *pb.DNSSpec
		want map[string][]string // by agent
		list []*pb.PublicResolver
	}{
		"none are asked unless the question wants it": {&pb.DNSSpec{Name: "a.example"}, map[string][]string{}, nil},
		"those of the place, and those of everywhere": {
			&pb.DNSSpec{Name: "a.example", LocalPublicResolvers: true},
			map[string][]string{"a0": {"127.0.0.1:9", "127.0.0.2:9"}, "a1": {"127.0.0.1:9"}},
			[]*pb.PublicResolver{world, local},
		},
		"beside those that the question names, once each": {
			&pb.DNSSpec{Name: "a.example", LocalPublicResolvers: true, PublicResolvers: []string{"127.0.0.1:9", "127.0.0.4:9"}},
			map[string][]string{"a0": {"127.0.0.1:9", "127.0.0.2:9", "127.0.0.4:9"}, "a1": {"127.0.0.1:9", "127.0.0.4:9"}},
			[]*pb.PublicResolver{world, local},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // nobody answers at these addresses, which takes a while
			asked := &pb.Spec{Check: &pb.Spec_Dns{Dns: tc.spec}}
			m, results := w.end(w.create(&pb.CreateMeasurementRequest{Spec: asked}).GetId())
			if diff := cmp.Diff(asked, m.GetSpec(), protocmp.Transform()); diff != "" {
				t.Errorf("the spec was changed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.list, m.GetPublicResolvers(), protocmp.Transform()); diff != "" {
				t.Errorf("what the measurement says that was asked (-want +got):\n%s", diff)
			}
			got := map[string][]string{}
			for _, r := range results {
				for _, s := range r.GetSteps() {
					if s.GetRole() == pb.Role_ROLE_PUBLIC && !slices.Contains(got[r.GetAgent()], s.GetAddress()) {
						got[r.GetAgent()] = append(got[r.GetAgent()], s.GetAddress())
					}
				}
				slices.Sort(got[r.GetAgent()])
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
