package aggregate

import (
	"cmp"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// spot is what one region saw of one thing.
type spot struct {
	thing  *thing
	region *region
	oks    []*sight
	fails  []*sight

	// disputed: all that fail here are agents that their fellows contradict elsewhere in the region,
	// so that this says something about them and nothing about the region.
	disputed bool
}

// open says whether the thing works from the region: an agent alone that differs does not shut it.
func (s *spot) open() bool { return len(s.oks) > 0 }

// shut says whether it fails for every agent of the region that could judge it.
func (s *spot) shut() bool { return len(s.oks) == 0 && !s.disputed }

// mixed says whether agents of the region contradict each other.
func (s *spot) mixed() bool { return len(s.oks) > 0 && len(s.fails) > 0 }

// dissent is the smaller side of a mixed spot; of two equal sides the failing one.
func (s *spot) dissent() []*sight {
	if voices(s.oks) < voices(s.fails) {
		return s.oks
	}
	return s.fails
}

// voices counts agents, or for names the resolvers they ask: agents that share one are one
// perspective (rule 5).
func voices(sights []*sight) int {
	if len(sights) == 0 || sights[0].thing.text != "" {
		return len(sights)
	}
	seen := map[string]bool{}
	for _, s := range sights {
		seen[s.perspective()] = true
	}
	return len(seen)
}

// survey gathers sights into spots, sorted by thing, then region. Unknown sights are nobody's.
func survey(sights []*sight) []*spot {
	type key struct {
		thing  *thing
		region *region
	}
	byKey := map[key]*spot{}
	var spots []*spot
	for _, v := range sights {
		if v.state == unknown {
			continue
		}
		k := key{v.thing, v.agent.region}
		s := byKey[k]
		if s == nil {
			s = &spot{thing: v.thing, region: v.agent.region}
			byKey[k] = s
			spots = append(spots, s)
		}
		if v.state == good {
			s.oks = append(s.oks, v)
		} else {
			s.fails = append(s.fails, v)
		}
	}
	slices.SortFunc(spots, func(a, b *spot) int {
		return cmp.Or(cmp.Compare(a.thing.text, b.thing.text), cmp.Compare(a.region.name, b.region.name))
	})
	dispute(spots)
	return spots
}

// dispute marks the spots that rest on dissenting agents alone. Without it, an agent with trouble of
// its own that is also the only one of its region with IPv6 would shut the region's IPv6.
func dispute(spots []*spot) {
	dissenters := map[*agent]bool{}
	for _, s := range spots {
		if !s.mixed() {
			continue
		}
		for _, v := range s.dissent() {
			if v.state == bad {
				dissenters[v.agent] = true
			}
		}
	}
	if len(dissenters) == 0 {
		return
	}
	for _, s := range spots {
		s.disputed = len(s.oks) == 0 &&
			!slices.ContainsFunc(s.fails, func(v *sight) bool { return !dissenters[v.agent] })
	}
}

// anyOpen says whether anything is open from anywhere.
func anyOpen(spots []*spot) bool { return slices.ContainsFunc(spots, (*spot).open) }

// only keeps the spots that keep says.
func only(spots []*spot, keep func(*spot) bool) []*spot {
	var kept []*spot
	for _, s := range spots {
		if keep(s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// failsOf are all failing sights of spots.
func failsOf(spots []*spot) []*sight {
	var all []*sight
	for _, s := range spots {
		all = append(all, s.fails...)
	}
	return all
}

// oksOf are all sights of spots that went well.
func oksOf(spots []*spot) []*sight {
	var all []*sight
	for _, s := range spots {
		all = append(all, s.oks...)
	}
	return all
}

// regionsOf names the regions of spots, sorted, each once.
func regionsOf(spots []*spot) []string {
	return collect(spots, func(s *spot) string { return s.region.name })
}

// addressesOf names the addresses of spots, sorted, each once; none for names.
func addressesOf(spots []*spot) []string {
	return collect(spots, func(s *spot) string { return s.thing.text })
}

// agentsOf names the agents of sights, sorted, each once.
func agentsOf(sights []*sight) []string {
	return collect(sights, func(s *sight) string { return s.agent.id })
}

// collect sorts what of says about all, each value once, the empty one left out.
func collect[T any](all []T, of func(T) string) []string {
	seen := map[string]bool{"": true}
	var values []string
	last := ""
	for _, x := range all {
		v := of(x)
		if v != last && !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
		last = v // neighbours are mostly alike; that is cheaper than to look it up
	}
	slices.Sort(values)
	return values
}

// way is how a thing is shut: the kind of block, or the failure where there is no such kind.
type way struct {
	block   pb.BlockKind
	failure pb.Failure
}

// wayOf is the way that most of the failing sights share; with none ahead of the others the block is
// not said. alike says whether all share it.
func wayOf(fails []*sight) (w way, alike bool) {
	count := map[way]int{}
	for _, v := range fails {
		count[v.way()]++
	}
	best, tie := way{}, false
	for w, n := range count {
		switch c := cmp.Compare(n, count[best]); {
		case c > 0:
			best, tie = w, false
		case c == 0:
			tie = true
		}
	}
	if tie {
		return way{}, false
	}
	return best, len(count) == 1
}

func (v *sight) way() way {
	if v.block != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
		return way{block: v.block}
	}
	return way{failure: v.failure}
}

// group is spots that fail in one way.
type group struct {
	way   way
	spots []*spot
}

// byWay groups failing spots by how they are shut: one cause, one statement. Regions that are shut
// altogether and in one way stand together, whichever addresses they could try; the others stand
// with those that are shut at just the same addresses, so that a group never names a pair of region
// and address that is open, or shut in another way.
func byWay(all, failing []*spot) []group {
	type key struct {
		way    way
		region *region
	}
	perRegion := map[key][]*spot{}
	ways := map[*region]int{} // an open address counts as one more way
	for _, s := range failing {
		w, _ := wayOf(s.fails)
		k := key{w, s.region}
		if perRegion[k] == nil {
			ways[s.region]++
		}
		perRegion[k] = append(perRegion[k], s)
	}
	for _, s := range all {
		if s.open() {
			ways[s.region]++
		}
	}
	type bundle struct {
		way       way
		addresses string
	}
	merged := map[bundle][]*spot{}
	for k, spots := range perRegion {
		b := bundle{way: k.way}
		if ways[k.region] > 1 {
			b.addresses = strings.Join(addressesOf(spots), " ")
		}
		merged[b] = append(merged[b], spots...)
	}
	groups := make([]group, 0, len(merged))
	for b, spots := range merged {
		groups = append(groups, group{b.way, sorted(spots)})
	}
	return groups // in no order: findings are sorted at the end
}

// besides are the spots of all that are not among some, taken for open: a group of some must not name
// them, however they end.
func besides(all, some []*spot) []*spot {
	among := map[*spot]bool{}
	for _, s := range some {
		among[s] = true
	}
	var others []*spot
	for _, s := range all {
		if !among[s] {
			others = append(others, &spot{thing: s.thing, region: s.region, oks: slices.Concat(s.oks, s.fails)})
		}
	}
	return others
}

// apart divides some of all spots so that no part names a pair of region and address that is not among
// them: regions with all of their spots among them stand together, whichever addresses they could try;
// the others stand with those of just the same addresses.
func apart(all, some []*spot) [][]*spot {
	rest, perRegion := map[*region]int{}, map[*region][]*spot{}
	for _, s := range all {
		rest[s.region]++
	}
	for _, s := range some {
		rest[s.region]--
		perRegion[s.region] = append(perRegion[s.region], s)
	}
	merged := map[string][]*spot{}
	for r, spots := range perRegion {
		k := ""
		if rest[r] > 0 {
			k = strings.Join(addressesOf(spots), " ")
		}
		merged[k] = append(merged[k], spots...)
	}
	parts := make([][]*spot, 0, len(merged))
	for _, spots := range merged {
		parts = append(parts, sorted(spots))
	}
	return parts // in no order, as in byWay
}

// sorted puts spots by thing, then region.
func sorted(spots []*spot) []*spot {
	slices.SortFunc(spots, func(a, b *spot) int {
		return cmp.Or(cmp.Compare(a.thing.text, b.thing.text), cmp.Compare(a.region.name, b.region.name))
	})
	return spots
}

// byTheirAddresses puts regions together that have spots at just the same addresses, so that no finding names a pair
// of region and address that is not its own.
func byTheirAddresses(spots []*spot) [][]*spot {
	perRegion := map[*region][]*spot{}
	for _, s := range spots {
		perRegion[s.region] = append(perRegion[s.region], s)
	}
	merged := map[string][]*spot{}
	for _, own := range perRegion {
		k := strings.Join(addressesOf(own), " ")
		merged[k] = append(merged[k], own...)
	}
	groups := make([][]*spot, 0, len(merged))
	for _, same := range merged {
		groups = append(groups, sorted(same))
	}
	return groups
}
