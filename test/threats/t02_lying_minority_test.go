package threats

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// doorAddr is the address that all agents are asked about.
const doorAddr = "192.0.2.1:443"

// witness is what one agent says about the door.
type witness struct {
	agent, region string
	liar          bool
	failure       pb.Failure
	control       bool // Whether a passing control stands beside a failure.
}

// failures are those that a liar, or a firewall, may show.
var failures = []pb.Failure{pb.Failure_FAILURE_TCP_TIMEOUT, pb.Failure_FAILURE_TCP_REFUSED, pb.Failure_FAILURE_TCP_RESET, pb.Failure_FAILURE_TCP_CLOSED_EARLY}

// result is what an agent sends.
func (w witness) result() *pb.Result {
	s := &pb.Step{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: doorAddr, Attempts: 2,
		Failure: w.failure, Start: durationpb.New(0), Duration: durationpb.New(8 * time.Second), Evidence: &pb.Evidence{},
	}
	r := &pb.Result{MeasurementId: "m", Agent: w.agent, Vantage: &pb.Vantage{Region: w.region}, Steps: []*pb.Step{s}}
	if w.failure == pb.Failure_FAILURE_NONE {
		s.Attempts, s.Duration = 1, durationpb.New(20*time.Millisecond)
		return r
	}
	s.Failures = []pb.Failure{w.failure}
	if w.control {
		beside := int32(0)
		r.Steps = append(r.Steps, &pb.Step{
			Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_CONTROL, Beside: &beside, Address: "192.0.2.9:443", Attempts: 1,
			Failure: pb.Failure_FAILURE_NONE, Start: durationpb.New(time.Second), Duration: durationpb.New(20 * time.Millisecond), Evidence: &pb.Evidence{},
		})
	}
	return r
}

// judge is the verdict over all of them.
func judge(all []witness) *pb.Verdict {
	m := &pb.Measurement{
		Id: "m", State: pb.State_STATE_FINISHED, Policy: aggregate.Complete(nil),
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 443}}},
	}
	var results []*pb.Result
	for _, w := range all {
		m.Asks = append(m.Asks, &pb.Ask{Agent: w.agent, Vantage: &pb.Vantage{Region: w.region}, State: pb.AskState_ASK_STATE_ANSWERED})
		results = append(results, w.result())
	}
	return aggregate.Judge(m, results)
}

// accused are the regions that an ERROR names.
func accused(v *pb.Verdict) (regions []string) {
	for _, f := range v.GetFindings() {
		if f.GetSeverity() == pb.Severity_SEVERITY_ERROR {
			regions = append(regions, f.GetRegions()...)
		}
	}
	return regions
}

// town makes up a door that is open or shut in each region, honest agents that see it so, and liars who say anything.
func town(rng *rand.Rand) (all []witness, shut map[string]bool) {
	shut = map[string]bool{}
	everywhere := rng.IntN(3) == 0
	for r := range 2 + rng.IntN(4) {
		region := fmt.Sprint("r", r)
		shut[region] = everywhere || rng.IntN(3) == 0
		way := failures[rng.IntN(len(failures))]
		for a := range 1 + rng.IntN(4) {
			w := witness{agent: fmt.Sprint(region, "-", a), region: region, control: true, liar: rng.IntN(4) == 0}
			if shut[region] {
				w.failure = way
			} else {
				w.failure = pb.Failure_FAILURE_NONE
			}
			if w.liar {
				w.failure = append(failures, pb.Failure_FAILURE_NONE)[rng.IntN(len(failures)+1)]
				w.control = rng.IntN(4) > 0
			}
			all = append(all, w)
		}
	}
	return all, shut
}

// TestLyingMinorityDoesNotFlipVerdict (T2): what liars can do to the verdict about the way to an address, whatever they say
// of it and however many they are. They decide about regions of theirs alone:
//
//   - no ERROR names a region in which an honest agent gets through, and with one such region nothing is called down;
//   - where a region without a liar is shut, an ERROR names it, if another region is open or min_regions are shut;
//   - so, with fewer liars than honest agents in each region where anything is to be lied about, and one honest agent
//     in each region, liars make no ERROR about a target that works, and hide none of a region without them.
//
// A liar among agents of one region that is shut can hide that: one who gets through opens it (rule 7). He is named then.
func TestLyingMinorityDoesNotFlipVerdict(t *testing.T) {
	t.Parallel()
	lies, flips := 0, 0
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		all, shut := town(rng)
		v := judge(all)
		names := accused(v)
		honest, liars, openBySomebody, shutAltogether := map[string]int{}, map[string]int{}, false, map[string]bool{}
		for _, w := range all {
			if w.liar {
				liars[w.region]++
				lies++
			} else {
				honest[w.region]++
			}
			openBySomebody = openBySomebody || w.failure == pb.Failure_FAILURE_NONE
		}
		for region, isShut := range shut {
			shutAltogether[region] = isShut && liars[region] == 0
			if !isShut && honest[region] > 0 && slices.Contains(names, region) {
				t.Errorf("seed %d: %s works for an honest agent, and an ERROR names it: %v", seed, region, v)
			}
		}
		working := slices.ContainsFunc(all, func(w witness) bool { return !w.liar && w.failure == pb.Failure_FAILURE_NONE })
		for _, f := range v.GetFindings() {
			if working && f.GetCode() == pb.FindingCode_FINDING_CODE_TARGET_DOWN {
				t.Errorf("seed %d: an honest agent gets through, and liars made it down", seed)
			}
		}
		certain := 0
		for _, s := range shutAltogether {
			if s {
				certain++
			}
		}
		for region, s := range shutAltogether {
			if s && (openBySomebody || certain >= 2) && !slices.Contains(names, region) {
				t.Errorf("seed %d: %s is shut for all of its agents, who are honest, and no ERROR names it: %v", seed, region, v)
			}
			if s {
				flips++
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, all)
		}
	}
	if lies < 1000 || flips < 1000 {
		t.Errorf("%d lies, %d regions that are shut: the worlds are too kind", lies, flips)
	}
}

// TestALiarIsNamed: who contradicts his fellows is in the verdict.
func TestALiarIsNamed(t *testing.T) {
	t.Parallel()
	for _, lie := range failures {
		v := judge([]witness{
			{agent: "a", region: "r", failure: pb.Failure_FAILURE_NONE},
			{agent: "b", region: "r", failure: pb.Failure_FAILURE_NONE},
			{agent: "liar", region: "r", failure: lie, control: true},
			{agent: "c", region: "s", failure: pb.Failure_FAILURE_NONE},
		})
		named := slices.ContainsFunc(v.GetFindings(), func(f *pb.Finding) bool {
			return f.GetCode() == pb.FindingCode_FINDING_CODE_AGENTS_DIFFER && slices.Contains(f.GetAgents(), "liar")
		})
		if v.GetOutcome() != pb.Outcome_OUTCOME_OK || !named {
			t.Errorf("%v: %v", lie, v)
		}
	}
}
