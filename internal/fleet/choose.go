package fleet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Choose picks at most limit of the agents, spread over regions first and over the networks of each
// region then; chance decides among equals, so that it is not always the same ones. The result is
// sorted by name.
func Choose(agents []*pb.Agent, limit int, chance *rand.Rand) []*pb.Agent {
	queue := interleave(agents, chance, func(a *pb.Agent) string { return a.GetVantage().GetRegion() },
		func(region []*pb.Agent) []*pb.Agent {
			return interleave(region, chance, Network, nil)
		})
	chosen := slices.Clone(queue[:min(limit, len(queue))])
	slices.SortFunc(chosen, func(a, b *pb.Agent) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return chosen
}

// interleave orders agents so that every prefix is spread over the groups that key makes as evenly as
// can be: each group in turn gives its next one. within, if any, orders a group.
func interleave(agents []*pb.Agent, chance *rand.Rand, key func(*pb.Agent) string, within func([]*pb.Agent) []*pb.Agent) []*pb.Agent {
	groups := map[string][]*pb.Agent{}
	var names []string
	for _, a := range agents {
		k := key(a)
		if groups[k] == nil {
			names = append(names, k)
		}
		groups[k] = append(groups[k], a)
	}
	slices.Sort(names) // chance alone decides, not the order of arrival
	chance.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, k := range names {
		g := groups[k]
		slices.SortFunc(g, func(a, b *pb.Agent) int { return cmp.Compare(a.GetId(), b.GetId()) })
		chance.Shuffle(len(g), func(i, j int) { g[i], g[j] = g[j], g[i] })
		if within != nil {
			groups[k] = within(g)
		}
	}
	ordered := make([]*pb.Agent, 0, len(agents))
	for turn := 0; len(ordered) < len(agents); turn++ {
		for _, k := range names {
			if turn < len(groups[k]) {
				ordered = append(ordered, groups[k][turn])
			}
		}
	}
	return ordered
}

// Network names the network that an agent is in: its AS, or the /24 or /48 that it is seen at.
func Network(a *pb.Agent) string {
	v := a.GetVantage()
	if v.GetAsn() != 0 {
		return fmt.Sprintf("AS%d", v.GetAsn())
	}
	addr, err := netip.ParseAddr(v.GetObservedAddress())
	if err != nil {
		return v.GetProvider()
	}
	bits := 48
	if addr = addr.Unmap(); addr.Is4() {
		bits = 24
	}
	prefix, _ := addr.Prefix(bits) // the lengths fit
	return prefix.String()
}
