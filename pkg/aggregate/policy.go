package aggregate

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What a Policy's fields are where they are left out.
const (
	defaultMinRegions    = 2
	defaultMinNetworks   = 2
	defaultMinAttempts   = 2
	defaultLatencyFactor = 3
	defaultLatencyFloor  = 100 * time.Millisecond
	defaultExpiryWarning = 14 * 24 * time.Hour
)

// Complete is p with the default in place of each field that is left out; nil leaves out all. A
// Measurement keeps its policy complete, so that a later version with other defaults still judges it
// by what it was asked with. The durations of p are shared, not copied.
func Complete(p *pb.Policy) *pb.Policy {
	return &pb.Policy{
		MinRegions:    cmp.Or(p.GetMinRegions(), defaultMinRegions),
		MinNetworks:   cmp.Or(p.GetMinNetworks(), defaultMinNetworks),
		MinAttempts:   cmp.Or(p.GetMinAttempts(), defaultMinAttempts),
		LatencyFactor: cmp.Or(p.GetLatencyFactor(), defaultLatencyFactor),
		LatencyFloor:  cmp.Or(p.GetLatencyFloor(), durationpb.New(defaultLatencyFloor)),
		ExpiryWarning: cmp.Or(p.GetExpiryWarning(), durationpb.New(defaultExpiryWarning)),
	}
}

// enoughRegions says whether so many regions saw something that it is the target's, and not theirs.
func (f *facts) enoughRegions(regions []string) bool {
	return len(regions) >= int(f.policy.GetMinRegions())
}
