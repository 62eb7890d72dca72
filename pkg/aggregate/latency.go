package aggregate

import (
	"cmp"
	"slices"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// minPeers is how many other regions it takes to say what is usual.
const minPeers = 2

// pace is how fast one region connects.
type pace struct {
	sights []*sight // whose connects they are
	usual  time.Duration
	peers  time.Duration // the same of the other regions
}

// latencyFindings state which regions connect far slower than their peers (INFO). A query's time is its
// resolver's and says nothing about the target; only connects count.
func (f *facts) latencyFindings() []*pb.Finding {
	paces := f.paces()
	if len(paces) <= minPeers {
		return nil
	}
	sorted := make([]time.Duration, 0, len(paces))
	for _, p := range paces {
		sorted = append(sorted, p.usual)
	}
	slices.Sort(sorted)
	middle := (len(sorted) - 1) / 2 // among the others of one; of two in the middle the slower, which claims less
	var slow, rest []pace
	for _, p := range paces {
		p.peers = sorted[middle]
		if p.usual <= p.peers { // It stands before the middle of the others itself.
			p.peers = sorted[middle+1]
		}
		if f.farSlower(p) {
			slow = append(slow, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(slow) == 0 {
		return nil
	}
	return []*pb.Finding{f.latencyOutlier(slow, rest)}
}

// farSlower holds a region's pace against the policy.
func (f *facts) farSlower(p pace) bool {
	return float64(p.usual) > f.policy.GetLatencyFactor()*float64(p.peers) && p.usual-p.peers > f.policy.GetLatencyFloor().AsDuration()
}

// paces are the median times to connect to what is open, by region.
func (f *facts) paces() []pace {
	byRegion, times := map[*region][]*sight{}, map[*region][]time.Duration{}
	for _, v := range f.reach {
		if v.state != good || v.connect < 0 {
			continue
		}
		if took := v.took(); took > 0 {
			byRegion[v.agent.region] = append(byRegion[v.agent.region], v)
			times[v.agent.region] = append(times[v.agent.region], took)
		}
	}
	var paces []pace
	for _, r := range f.regions {
		if all := times[r]; len(all) > 0 {
			slices.Sort(all)
			paces = append(paces, pace{sights: byRegion[r], usual: all[(len(all)-1)/2]})
		}
	}
	return paces
}

// took is how long the connect below v took at the least: a SYN that was lost is sent again after one
// second or several (RFC 6298, 2.1), which says nothing about the distance.
func (v *sight) took() time.Duration {
	return v.agent.steps[v.connect].GetEvidence().GetRtt().AsDuration() % time.Second
}

// latencyOutlier states which regions are slow.
func (f *facts) latencyOutlier(slow, rest []pace) *pb.Finding {
	sights := connectsOf(slow)
	o := plainFinding(pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER)
	o.Regions = regionNames(sights)
	o.Addresses = collect(sights, func(v *sight) string { return v.thing.text })
	o.Stage = pb.Stage_STAGE_TCP
	o.Confidence = f.regionwise(sights)
	o.Evidence = evidence(sights, connectsOf(rest))
	texts := make([]string, 0, len(slow))
	for _, p := range slow {
		texts = append(texts, p.sights[0].agent.region.name+" connects in "+millis(p.usual)+" ms where its peers take "+millis(p.peers)+" ms")
	}
	o.Summary = "far slower than others to " + join(o.GetAddresses()) + ": " + join(texts) + inBrackets(sole(sights)) + ", by the median of each region."
	o.Hint = "trace the way from " + join(o.GetRegions()) + " (`elsewhere tcp --path`): distance, a detour or a full line; a server nearer to it would help against the first."
	return o
}

// connectsOf are the connects below all sights of paces, of each region the fastest first.
func connectsOf(paces []pace) []*sight {
	var all []*sight
	for _, p := range paces {
		for _, v := range slices.SortedStableFunc(slices.Values(p.sights), func(a, b *sight) int { return cmp.Compare(a.took(), b.took()) }) {
			at := *v
			at.step = v.connect
			all = append(all, &at)
		}
	}
	return all
}
