package fleet

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Choose picks at most limit of the agents, spread over regions first and over the networks of each
// region then; chance decides among equals, so that it is not always the same ones. The result is
// sorted by name.
func Choose(agents []*pb.Agent, limit int, chance *rand.Rand) []*pb.Agent {
	chosen := interleave(agents, limit, chance, spread{
		key: func(a *pb.Agent) string { return a.GetVantage().GetRegion() },
		order: func(region []*pb.Agent, n int) []*pb.Agent {
			return interleave(region, n, chance, spread{Network, func(network []*pb.Agent, _ int) []*pb.Agent {
				slices.SortFunc(network, func(a, b *pb.Agent) int { return cmp.Compare(a.GetId(), b.GetId()) }) // chance alone decides, not the order of arrival
				chance.Shuffle(len(network), func(i, j int) { network[i], network[j] = network[j], network[i] })
				return network
			}})
		},
	})
	slices.SortFunc(chosen, func(a, b *pb.Agent) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return chosen
}

// spread is how agents are spread: over the groups that key makes; order puts the n that come first in a group there.
type spread struct {
	key   func(*pb.Agent) string
	order func(group []*pb.Agent, n int) []*pb.Agent
}

// interleave is the first n agents of an order whose every prefix is spread over the groups as evenly as can be: each
// group in turn gives its next one. Groups that give none are not looked into: most are asked for few.
func interleave(agents []*pb.Agent, n int, chance *rand.Rand, by spread) []*pb.Agent {
	groups := map[string][]*pb.Agent{}
	for _, a := range agents {
		k := by.key(a)
		groups[k] = append(groups[k], a)
	}
	names := slices.Sorted(maps.Keys(groups))
	chance.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	n = min(n, len(agents))
	gives := make([]int, len(names))
	for left, turn := n, 0; left > 0; turn++ {
		for i, k := range names {
			if left > 0 && turn < len(groups[k]) {
				gives[i], left = gives[i]+1, left-1
			}
		}
	}
	for i, k := range names {
		if gives[i] > 0 {
			groups[k] = by.order(groups[k], gives[i])
		}
	}
	ordered := make([]*pb.Agent, 0, n)
	for turn := 0; len(ordered) < n; turn++ {
		for i, k := range names {
			if turn < gives[i] {
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
		return "AS" + strconv.FormatUint(uint64(v.GetAsn()), 10)
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
