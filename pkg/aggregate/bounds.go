package aggregate

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a verdict, so that it fits into a message of gRPC, which is 4 MiB by default, whatever agents there
// are: ten thousand regions with the longest names are 640 KiB in each finding that lists them.
const (
	maxVerdict = 3 << 20 // bytes of the message
	maxListed  = 8 << 10 // entries of a list that is cut for want of room, at first
	minListed  = 64      // and at the least
)

// fit cuts what a verdict has no room for, and says so in the summaries: lists of findings, the longest first, and
// then findings, the least grave first. Few verdicts need it: those of thousands of regions with long names.
func fit(v *pb.Verdict) {
	if proto.Size(v) <= maxVerdict {
		return
	}
	whole := make([][3]int, len(v.GetFindings()))
	for i, f := range v.GetFindings() {
		whole[i] = [3]int{len(f.GetRegions()), len(f.GetAddresses()), len(f.GetAgents())}
	}
	for most := maxListed; most >= minListed && proto.Size(v) > maxVerdict; most /= 2 {
		for _, f := range v.GetFindings() {
			f.Regions, f.Addresses, f.Agents = upTo(most, f.GetRegions()), upTo(most, f.GetAddresses()), upTo(most, f.GetAgents())
		}
	}
	size, kept := 0, 0 // each with its tag and its length: 4 bytes
	for i, f := range v.GetFindings() {
		f.Summary += partly(whole[i][0], len(f.GetRegions()), "regions") + partly(whole[i][1], len(f.GetAddresses()), "addresses") +
			partly(whole[i][2], len(f.GetAgents()), "agents")
		if size += proto.Size(f) + 4; size <= maxVerdict || kept == 0 {
			kept++
		}
	}
	v.Findings[kept-1].Summary += partly(len(v.GetFindings()), kept, "findings")
	v.Findings = v.GetFindings()[:kept]
}

// upTo are the first n of a list.
func upTo(n int, list []string) []string { return list[:min(n, len(list))] }

// partly is a sentence about what is cut, "" if it is whole.
func partly(whole, kept int, what string) string {
	if kept == whole {
		return ""
	}
	return fmt.Sprintf(" Of %d %s the first %d are told.", whole, what, kept)
}
