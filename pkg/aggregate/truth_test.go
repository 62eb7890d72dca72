package aggregate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// FuzzTruth holds verdicts against the truth of worlds that are made up: nobody is accused who did
// nothing, and nothing is left out that there is enough evidence for.
func FuzzTruth(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkTruth(t, drawTruth(&dice{data})) })
}

// The same over seeds.
func TestTruth(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10_000) {
		checkTruth(t, drawTruth(&dice{randomBytes(seed)}))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// trial is a verdict and the truth beside it.
type trial struct {
	*testing.T
	*truth
	verdict *pb.Verdict
}

func checkTruth(t *testing.T, world *truth) {
	t.Helper()
	w := world.world()
	x := trial{t, world, w.judge()}
	for _, f := range x.verdict.GetFindings() {
		checkFinding(t, w, f)
		x.checkAgents(f)
		if f.GetSeverity() != pb.Severity_SEVERITY_ERROR {
			continue
		}
		if f.GetStage() == pb.Stage_STAGE_DNS {
			x.checkNames(f)
		} else {
			x.checkPairs(f)
			x.checkCause(f)
		}
	}
	x.checkComplete()
	checkStepOrder(t, w, 1)
	if t.Failed() {
		t.Log(x.describe())
	}
}

// of are the agents of a region whose word about an address is s.
func (x trial) of(region, address string, s state) (found []*actor) {
	for _, a := range x.actors {
		if (region == "" || a.region == region) && x.verdictOn(a, address) == s {
			found = append(found, a)
		}
	}
	return found
}

// breaks says whether what an agent sees of an address is not as it should be.
func (x trial) breaks(a *actor, address string) bool {
	saw, failure := x.verdictOn(a, address), x.fate(a, address).failure
	switch x.spec.GetTcp().GetExpect() {
	case pb.Reachability_REACHABILITY_UNSPECIFIED, pb.Reachability_REACHABILITY_OPEN:
		return saw == bad
	case pb.Reachability_REACHABILITY_BLOCKED:
		return saw == good
	case pb.Reachability_REACHABILITY_REFUSED:
		return saw == good || saw == bad && (failure == timeout || failure == pb.Failure_FAILURE_TCP_CLOSED_EARLY)
	case pb.Reachability_REACHABILITY_DROPPED:
		return saw == good || saw == bad && failure != timeout
	}
	return false
}

// checkPairs: a finding of severity ERROR lists regions and addresses; each region really fails at one
// of these addresses in one of these ways, each address for one of these regions, and no agent that could
// look sees one of the pairs otherwise.
func (x trial) checkPairs(f *pb.Finding) {
	x.Helper()
	shown := func(region, address string) bool {
		return slices.ContainsFunc(x.actors, func(a *actor) bool {
			asSaid := f.GetFailure() == none && x.verdictOn(a, address) == good || slices.Contains(f.GetFailures(), x.fate(a, address).failure)
			return a.region == region && x.breaks(a, address) && asSaid
		})
	}
	for _, region := range f.GetRegions() {
		if !slices.ContainsFunc(f.GetAddresses(), func(a string) bool { return shown(region, a) }) {
			x.Errorf("%s is falsely accused: %s", region, line(f))
		}
		for _, address := range f.GetAddresses() {
			x.checkPair(f, region, address)
		}
	}
	for _, address := range f.GetAddresses() {
		if !slices.ContainsFunc(f.GetRegions(), func(r string) bool { return shown(r, address) }) {
			x.Errorf("%s is falsely accused: %s", address, line(f))
		}
	}
}

// checkPair: what fails for a region at an address fails so for all its agents that could look. That it is
// not shut, one of them can show.
func (x trial) checkPair(f *pb.Finding, region, address string) {
	x.Helper()
	for _, a := range x.actors {
		switch saw := x.verdictOn(a, address); {
		case a.region != region, saw == unknown, f.GetFailure() == none:
		case saw == good || !x.breaks(a, address):
			x.Errorf("%s at %s has nothing to complain of: %s", a.id, address, line(f))
		case f.GetCode() == pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM: // names no pairs
		case !slices.Contains(f.GetFailures(), x.fate(a, address).failure) && !x.listed(region, address):
			x.Errorf("%s meets something else at %s: %s", a.id, address, line(f))
		}
	}
}

// listed says whether agents of a region are told to contradict each other at an address.
func (x trial) listed(region, address string) bool {
	return x.tells(region, address, func(f *pb.Finding) bool { return f.GetCode() == pb.FindingCode_FINDING_CODE_AGENTS_DIFFER })
}

// checkCause: what the code says besides.
func (x trial) checkCause(f *pb.Finding) {
	x.Helper()
	works, way, through := 0, 0, 0 // whom it works for, for whom the way to it is open at least, and who comes through
	for _, address := range f.GetAddresses() {
		works += len(x.of("", address, good))
		way += len(x.of("", address, good))
		for _, a := range x.of("", address, bad) {
			e := x.fate(a, address)
			if e.status >= 500 || stageOf(e.failure) == pb.Stage_STAGE_CERTIFICATE {
				through++
			}
			// A server that says of itself that it is broken is there; one agent of several that hears so is no region.
			if !slices.ContainsFunc(x.of(a.region, address, bad), func(other *actor) bool { return x.fate(other, address).status < 500 }) ||
				stageOf(e.failure) == pb.Stage_STAGE_CERTIFICATE {
				way++
			}
		}
	}
	switch f.GetCode() {
	case pb.FindingCode_FINDING_CODE_TARGET_DOWN, pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE:
		if way > 0 {
			x.Errorf("the way is open for others: %s", line(f))
		}
	case pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM:
		if works > 0 {
			x.Errorf("it works for others: %s", line(f))
		}
	case pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK:
		if works+through == 0 {
			x.Errorf("it works for nobody: %s", line(f))
		}
	case pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR, pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED:
	default:
		x.Errorf("nothing in this world is that: %s", line(f))
	}
	if f.GetBlame() == pb.Blame_BLAME_AGENT {
		x.Errorf("an ERROR that blames agents: %s", line(f))
	}
}

// checkNames: the name fails for every resolver of the regions that works otherwise.
func (x trial) checkNames(f *pb.Finding) {
	x.Helper()
	for _, region := range f.GetRegions() {
		failing := false
		for _, a := range x.actors {
			asked := a.region == region && a.trouble != absent && a.trouble != unwilling && a.trouble != deaf && a.trouble != mute
			why := x.nameless[a.resolver]
			failing = failing || asked && slices.Contains(f.GetFailures(), why)
			if asked && why == 0 {
				x.Errorf("the name resolves for %s: %s", a.id, line(f))
			}
		}
		if !failing {
			x.Errorf("%s is falsely accused: %s", region, line(f))
		}
	}
}

// checkAgents: an agent is said to be at fault only if it is, and to differ only if it does.
func (x trial) checkAgents(f *pb.Finding) {
	x.Helper()
	for _, id := range f.GetAgents() {
		a := x.actors[slices.IndexFunc(x.actors, func(a *actor) bool { return agentID(a.id) == id })]
		switch f.GetCode() {
		case pb.FindingCode_FINDING_CODE_VANTAGE_FAULT:
			if !slices.Contains([]trouble{cut4, cut6, mute, deaf}, a.trouble) {
				x.Errorf("nothing is wrong with %s: %s", id, line(f))
			}
		case pb.FindingCode_FINDING_CODE_AGENTS_DIFFER:
			if f.GetStage() != pb.Stage_STAGE_DNS && !slices.ContainsFunc(x.addresses, func(address string) bool { return x.differs(a, address) }) {
				x.Errorf("%s does not differ: %s", id, line(f))
			}
		default:
		}
	}
}

// differs says whether an agent that could look meets something else at an address than a fellow of its
// region.
func (x trial) differs(a *actor, address string) bool {
	return x.verdictOn(a, address) != unknown && slices.ContainsFunc(x.actors, func(other *actor) bool {
		e := x.fate(other, address)
		known := x.verdictOn(other, address) != unknown || stageOf(e.failure) == pb.Stage_STAGE_HTTP // its certificate was seen
		return other.region == a.region && known && x.fate(a, address) != e
	})
}

// checkComplete: whatever fails for all agents of a region that could look is told, of that region and
// that address; agents that contradict each other are listed.
func (x trial) checkComplete() {
	x.Helper()
	for region := range x.shut {
		for _, address := range x.addresses {
			broken, fine := 0, 0
			open := len(x.of(region, address, good)) > 0
			for _, a := range slices.Concat(x.of(region, address, good), x.of(region, address, bad)) {
				if x.breaks(a, address) {
					broken++
				} else {
					fine++
				}
			}
			code, told := "a failure", broken == 0 || x.tells(region, address, nil)
			shouldBeShut := x.spec.GetTcp().GetExpect() > pb.Reachability_REACHABILITY_OPEN
			if broken > 0 && fine > 0 && (!shouldBeShut || !open) {
				code, told = "a contradiction", x.listed(region, address)
			}
			if !told {
				x.Errorf("%s at %s: %s is not told", region, address, code)
			}
		}
	}
}

// tells says whether a finding names the region and the address.
func (x trial) tells(region, address string, is func(*pb.Finding) bool) bool {
	return slices.ContainsFunc(x.verdict.GetFindings(), func(f *pb.Finding) bool {
		return slices.Contains(f.GetRegions(), region) && slices.Contains(f.GetAddresses(), address) && (is == nil || is(f))
	})
}

// describe is the world and the verdict, to look at.
func (x trial) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v\ndown %v\nshut %v\nnameless %v\n", x.spec, x.addresses, x.down, x.shut, x.nameless)
	for _, a := range x.actors {
		fmt.Fprintf(&b, "%+v:", *a)
		for _, address := range x.addresses {
			fmt.Fprintf(&b, " %s=%s/%d", address, ShortFailure(x.fate(a, address).failure), x.verdictOn(a, address))
		}
		b.WriteString("\n")
	}
	return b.String() + strings.Join(lines(x.verdict), "\n")
}
