package aggregate

import (
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// reachFindings judge the way to the addresses: connect and handshake, each address by itself (rule 6).
func (f *facts) reachFindings() []*pb.Finding {
	used, unused := f.split(f.reach)
	spots := survey(used)
	if f.reachability() != pb.Reachability_REACHABILITY_UNSPECIFIED {
		return append(f.differ(spots), f.unexpected(spots)...)
	}
	if f.client.misfit() != pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED {
		return append(f.differ(spots), f.misfit()...)
	}
	findings, spots := f.exchangeFindings(spots)
	findings = append(findings, f.differ(spots)...)
	findings = append(findings, f.brokenUnused(unused, spots)...)
	if !anyOpen(spots) {
		return append(findings, f.allShut(only(spots, (*spot).shut))...)
	}
	p := divide(spots)
	for _, g := range byWay(spots, p.regional) {
		findings = append(findings, f.regionalBlock(g, spots))
	}
	for _, orphans := range p.family {
		if len(orphans) > 0 {
			findings = append(findings, f.familyBroken(orphans, spots))
		}
	}
	for _, g := range byAddresses(p.partial) {
		findings = append(findings, f.partialFailure(g, spots))
	}
	return findings
}

// parts is what fails while something else works.
type parts struct {
	regional []*spot    // the region is what they share
	family   [2][]*spot // a whole address family fails wherever it was tried
	partial  []*spot    // addresses fail wherever they were tried
}

// divide gives each failing spot its one cause: the region, if the address is open from another one;
// or else the family; or else the address. An address that was tried from regions alone that are shut
// altogether, and fails there in the way that they are shut, tells nothing new about itself, and goes
// with them.
func divide(spots []*spot) parts {
	openThing, openRegion, openFamily := map[*thing]bool{}, map[*region]bool{}, [2]bool{}
	for _, s := range spots {
		if s.open() {
			openThing[s.thing], openRegion[s.region], openFamily[s.thing.family()] = true, true, true
		}
	}
	type shutting struct {
		region *region
		way    way
	}
	shutRegion := map[shutting]bool{}
	elsewhere := map[*thing]bool{} // fails from a region that is not shut altogether, or in another way
	failing := only(spots, (*spot).shut)
	for _, s := range failing {
		if w, _ := wayOf(s.fails); openThing[s.thing] && !openRegion[s.region] {
			shutRegion[shutting{s.region, w}] = true
		}
	}
	for _, s := range failing {
		w, _ := wayOf(s.fails)
		elsewhere[s.thing] = elsewhere[s.thing] || !shutRegion[shutting{s.region, w}]
	}
	var p parts
	for _, s := range failing {
		switch family := s.thing.family(); {
		case openThing[s.thing] || !elsewhere[s.thing]:
			p.regional = append(p.regional, s)
		case !openFamily[family]:
			p.family[family] = append(p.family[family], s)
		default:
			p.partial = append(p.partial, s)
		}
	}
	return p
}

// family is 0 for IPv4 and 1 for IPv6.
func (t *thing) family() int {
	if t.six {
		return 1
	}
	return 0
}

// maxBundles bounds the statements about addresses that fail wherever they were tried. A zone that answers each
// query with another dead address would have one made for each.
const maxBundles = 100

// byAddresses groups spots whose addresses fail in one way from the same regions, or, if those are too many groups,
// in one way from wherever each was tried: it is open nowhere.
func byAddresses(failing []*spot) []group {
	perThing := map[*thing][]*spot{}
	for _, s := range failing {
		perThing[s.thing] = append(perThing[s.thing], s)
	}
	type bundle struct {
		way     way
		regions string
	}
	merged, anywhere := map[bundle][]*spot{}, map[bundle][]*spot{}
	for _, spots := range perThing {
		w, _ := wayOf(failsOf(spots))
		b := bundle{w, strings.Join(regionsOf(spots), " ")}
		merged[b] = append(merged[b], spots...)
		anywhere[bundle{way: w}] = append(anywhere[bundle{way: w}], spots...)
	}
	if len(merged) > maxBundles {
		merged = anywhere
	}
	groups := make([]group, 0, len(merged))
	for b, spots := range merged {
		groups = append(groups, group{b.way, sorted(spots)})
	}
	return groups
}

// allShut judges what nobody can reach: down, if enough regions say so; otherwise there is nothing to
// compare with.
func (f *facts) allShut(spots []*spot) []*pb.Finding {
	if f.client != nil {
		return f.allRefused(spots)
	}
	switch regions := regionsOf(spots); {
	case len(regions) == 0:
		return nil
	case !f.enoughRegions(regions):
		return []*pb.Finding{f.loneFailure(spots)}
	}
	return []*pb.Finding{f.targetDown(spots)}
}

// targetDown is what fails from everywhere.
func (f *facts) targetDown(spots []*spot) *pb.Finding {
	down := newFinding(pb.FindingCode_FINDING_CODE_TARGET_DOWN, spots, nil)
	down.Blame = pb.Blame_BLAME_TARGET
	down.Confidence = f.confidence(failsOf(spots))
	down.Summary = f.downSummary(down, spots)
	down.Hint = f.downHint(down)
	return down
}

// loneFailure is a failure that too few regions saw: it may be the target, the path or the region.
func (f *facts) loneFailure(spots []*spot) *pb.Finding {
	weak := newFinding(pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, spots, nil)
	weak.Confidence = pb.Confidence_CONFIDENCE_LOW
	weak.Summary = f.loneSummary(weak, spots)
	weak.Hint = "ask from at least one more region, so that there is something to compare with."
	return weak
}

// regionalBlock is open from some regions and shut from these.
func (f *facts) regionalBlock(g group, all []*spot) *pb.Finding {
	contrast := contrastOf(g.spots, all)
	b := newFinding(pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, g.spots, contrast)
	b.Block = g.way.block
	b.Confidence = f.regionalConfidence(g.spots)
	b.Blame = blameFor(b.GetBlock())
	b.Summary = f.contrastSummary(b, g.spots, contrast)
	b.Hint = f.blockHint(b, g.spots)
	f.foretellBlock(b, failsOf(g.spots))
	return b
}

// blameFor says who shuts a region out while another one gets in.
func blameFor(b pb.BlockKind) pb.Blame {
	switch b {
	case pb.BlockKind_BLOCK_KIND_UNSPECIFIED:
		return pb.Blame_BLAME_UNKNOWN
	case pb.BlockKind_BLOCK_KIND_HTTP_DENY: // the server's own word
		return pb.Blame_BLAME_TARGET
	default:
		return pb.Blame_BLAME_PATH
	}
}

// contrastOf is what went well at the addresses of failing spots, or else anywhere.
func contrastOf(failing, all []*spot) []*sight {
	things := map[*thing]bool{}
	for _, s := range failing {
		things[s.thing] = true
	}
	same := oksOf(only(all, func(s *spot) bool { return things[s.thing] }))
	if len(same) > 0 {
		return same
	}
	return oksOf(all)
}

// familyBroken is one family that fails wherever it was tried while the other works (rule 13).
func (f *facts) familyBroken(spots, all []*spot) *pb.Finding {
	contrast := oksOf(all)
	b := newFinding(pb.FindingCode_FINDING_CODE_FAMILY_BROKEN, spots, contrast)
	b.Confidence = f.confidence(failsOf(spots))
	b.Blame = f.blameTarget(b)
	b.Summary = f.familySummary(b, spots, contrast)
	b.Hint = familyHint(spots[0].thing.six, b)
	return b
}

// partialFailure is addresses that fail wherever they were tried while others work (rule 6).
func (f *facts) partialFailure(g group, all []*spot) *pb.Finding {
	contrast := oksOf(all)
	p := newFinding(pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE, g.spots, contrast)
	p.Confidence = f.confidence(failsOf(g.spots))
	p.Blame = f.blameTarget(p)
	p.Summary = f.contrastSummary(p, g.spots, contrast)
	p.Hint = "take " + join(p.GetAddresses()) + " out of the name's records, or repair the server behind it."
	f.foretell(p, failsOf(g.spots))
	return p
}

// blameTarget blames the target for what fails from enough regions; fewer could be the path's as well.
func (f *facts) blameTarget(about *pb.Finding) pb.Blame {
	if f.enoughRegions(about.GetRegions()) {
		return pb.Blame_BLAME_TARGET
	}
	return pb.Blame_BLAME_UNKNOWN
}

// differ lists the agents that see what their fellows in the region do not (rule 7), in one finding
// for each region and side.
func (f *facts) differ(spots []*spot) []*pb.Finding {
	type key struct {
		region *region
		state  state
	}
	byKey := map[key][]*spot{}
	for _, s := range spots {
		switch {
		case s.mixed():
			k := key{s.region, s.dissent()[0].state}
			byKey[k] = append(byKey[k], s)
		case s.disputed:
			k := key{s.region, bad}
			byKey[k] = append(byKey[k], s)
		}
	}
	var findings []*pb.Finding
	for k, spots := range byKey {
		findings = append(findings, f.difference(k.state, spots))
	}
	return findings
}

// difference states which agents of one region differ, being in state differs.
func (f *facts) difference(differs state, spots []*spot) *pb.Finding {
	d := newFinding(pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, spots, oksOf(spots))
	d.Block = pb.BlockKind_BLOCK_KIND_UNSPECIFIED // nobody says that the region is blocked
	dissenters := failsOf(spots)
	if differs == good {
		dissenters = oksOf(spots)
	}
	d.Agents = agentsOf(dissenters)
	d.Confidence = f.confidence(dissenters)
	d.Summary = f.differSummary(d, differs, spots)
	d.Hint = "compare the network and provider of " + join(d.GetAgents()) + " with those of the other agents of " + join(d.GetRegions()) + "."
	return d
}
