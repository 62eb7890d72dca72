package aggregate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// newFinding states code about spots that fail: where, what, how, and where to look (rules 10 and 12).
func newFinding(code pb.FindingCode, spots []*spot, contrast []*sight) *pb.Finding {
	f := aboutSights(code, failsOf(spots), contrast)
	f.Regions, f.Addresses = regionsOf(spots), addressesOf(spots)
	return f
}

// aboutSights states code about failing sights.
func aboutSights(code pb.FindingCode, fails, contrast []*sight) *pb.Finding {
	f := plainFinding(code)
	f.Block, f.Failure = mainFailure(fails)
	f.Stage = stageOf(f.Failure)
	f.Failures = failuresOf(fails)
	f.Evidence = evidence(fails, contrast)
	return f
}

// plainFinding states code about nothing yet.
func plainFinding(code pb.FindingCode) *pb.Finding {
	return &pb.Finding{
		Code: code, Severity: severityOf(code), Failure: pb.Failure_FAILURE_NONE, Blame: pb.Blame_BLAME_UNKNOWN,
	}
}

// mainFailure is the most frequent block, and the most frequent failure that it shows in.
func mainFailure(fails []*sight) (pb.BlockKind, pb.Failure) {
	w, _ := wayOf(fails)
	count := map[pb.Failure]int{}
	for _, v := range fails {
		if w == (way{}) || v.way() == w {
			count[v.failure]++
		}
	}
	best := pb.Failure_FAILURE_NONE
	for f, n := range count {
		if n > count[best] || n == count[best] && f < best {
			best = f
		}
	}
	return w.block, best
}

// failuresOf are all failures that were seen, sorted by number. A certificate's are all those that
// make it fail; of other steps it is what stopped them.
func failuresOf(fails []*sight) []pb.Failure {
	var all []pb.Failure
	for _, v := range fails {
		switch {
		case len(v.wrong) > 0:
			all = append(all, v.wrong...)
		case stageOf(v.failure) == pb.Stage_STAGE_CERTIFICATE:
			all = append(all, certFailures(v.at())...)
		default:
			all = append(all, v.failure)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

const (
	maxEvidence = 16 // references in one finding
	maxFailing  = 12 // of them to what fails, when there is something else to show
)

// evidence chooses the steps to look at: of each region in turn one that fails, with the control that
// passed beside the first, then, if there is room, some that went well elsewhere.
func evidence(fails, contrast []*sight) []*pb.EvidenceRef {
	refs := refs{seen: map[ref]bool{}}
	limit := maxFailing
	if len(contrast) == 0 {
		limit = maxEvidence
	}
	for i, v := range inTurn(fails) {
		refs.add(v.agent, v.step, limit)
		if i < 2 {
			refs.add(v.agent, v.control, limit)
		}
	}
	for _, v := range inTurn(contrast) {
		refs.add(v.agent, v.step, maxEvidence)
	}
	slices.SortFunc(refs.list, func(a, b *pb.EvidenceRef) int {
		return cmp.Or(cmp.Compare(a.GetAgent(), b.GetAgent()), cmp.Compare(a.GetStep(), b.GetStep()))
	})
	return refs.list
}

// refs collects references, each once.
type refs struct {
	list []*pb.EvidenceRef
	seen map[ref]bool
}

// ref is one reference, comparable.
type ref struct {
	agent *agent
	step  int
}

// add refers to a step, unless there is none or no room.
func (r *refs) add(a *agent, step, limit int) {
	if step < 0 || len(r.list) >= limit || r.seen[ref{a, step}] {
		return
	}
	r.seen[ref{a, step}] = true
	r.list = append(r.list, &pb.EvidenceRef{Agent: a.id, Step: int32(step)})
}

// inTurn takes from each region in turn, so that the first few stand for all; at most maxEvidence.
func inTurn(sights []*sight) []*sight {
	byRegion := map[string][]*sight{}
	for _, v := range sights {
		name := v.agent.region.name
		if len(byRegion[name]) < maxEvidence {
			byRegion[name] = append(byRegion[name], v)
		}
	}
	names := collect(sights, func(v *sight) string { return v.agent.region.name })
	if len(byRegion[""]) > 0 {
		names = append(names, "")
	}
	var turn []*sight
	for round := 0; len(turn) < maxEvidence; round++ {
		before := len(turn)
		for _, name := range names {
			if round < len(byRegion[name]) {
				turn = append(turn, byRegion[name][round])
			}
		}
		if len(turn) == before {
			break
		}
	}
	return turn[:min(len(turn), maxEvidence)]
}

// regionalConfidence is how sure a statement about each region of spots is: less where the agents of
// a region fail in different ways.
func (f *facts) regionalConfidence(spots []*spot) pb.Confidence {
	for _, s := range spots {
		if _, alike := wayOf(s.fails); !alike {
			return pb.Confidence_CONFIDENCE_MEDIUM
		}
	}
	return f.regionwise(failsOf(spots))
}

// regionwise is as sure as what is known about the least known of the regions.
func (f *facts) regionwise(sights []*sight) pb.Confidence {
	byRegion := map[*region][]*sight{}
	for _, v := range sights {
		byRegion[v.agent.region] = append(byRegion[v.agent.region], v)
	}
	for _, own := range byRegion {
		if f.confidence(own) != pb.Confidence_CONFIDENCE_HIGH {
			return pb.Confidence_CONFIDENCE_MEDIUM
		}
	}
	return pb.Confidence_CONFIDENCE_HIGH
}

// confidence is high if as many witnesses agree as the policy wants; for names they have to ask as many
// different resolvers too (rule 5). An agent whose network is not known is not a different one.
func (f *facts) confidence(sights []*sight) pb.Confidence {
	witnesses, resolvers := map[string]bool{}, map[string]bool{}
	for _, v := range sights {
		if v.agent.witness == "" {
			continue
		}
		witnesses[v.agent.witness] = true
		if v.thing.text == "" {
			resolvers[v.perspective()] = true
		}
	}
	enough := int(f.policy.GetMinNetworks())
	if len(witnesses) < enough || len(resolvers) > 0 && len(resolvers) < enough {
		return pb.Confidence_CONFIDENCE_MEDIUM
	}
	return pb.Confidence_CONFIDENCE_HIGH
}

// maxNames bounds a list in a sentence.
const maxNames = 5

// join lists names for a sentence: "a, b and c", the first five and how many more there are.
func join(names []string) string {
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		return names[0]
	case n > maxNames:
		return strings.Join(names[:maxNames], ", ") + " and " + strconv.Itoa(n-maxNames) + " more"
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}
