package aggregate

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestStepsInAnyOrder: what an agent begins at once may stand in any order; what is said stays the same to the
// letter.
func TestStepsInAnyOrder(t *testing.T) {
	names, err := filepath.Glob(golden + "/*.json.gz")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json.gz"), func(t *testing.T) {
			t.Parallel()
			m := &pb.Measurement{}
			readJSON(t, name, m)
			for seed := range uint64(20) {
				checkStepOrder(t, &world{m: m, results: m.GetResults()}, seed)
			}
		})
	}
}

// checkStepOrder judges what was seen once more, in another order.
func checkStepOrder(t *testing.T, w *world, seed uint64) {
	t.Helper()
	results := make([]*pb.Result, len(w.results))
	for i, r := range w.results {
		results[i] = reordered(r, rand.New(rand.NewPCG(seed, uint64(i))))
	}
	want, got := spoken(w.judge()), spoken(Judge(w.m, results))
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("the order of steps matters, seed %d: (-in order +in another)\n%s", seed, diff)
	}
}

// spoken is a verdict without the places in Results that it points to.
func spoken(v *pb.Verdict) *pb.Verdict {
	v = proto.CloneOf(v)
	for _, f := range v.GetFindings() {
		f.Evidence = nil
	}
	return v
}

// reordered is a Result whose queries for the target have changed places, and so have the steps at each of its
// addresses, in their own order.
func reordered(r *pb.Result, random *rand.Rand) *pb.Result {
	r = proto.CloneOf(r)
	var queries, places []int // where such steps stand
	var addresses []string
	at := map[string][]int{}
	for i, s := range r.GetSteps() {
		switch {
		case s.GetRole() != pb.Role_ROLE_TARGET:
		case s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY:
			queries = append(queries, i)
		default:
			places = append(places, i)
			if at[s.GetAddress()] == nil {
				addresses = append(addresses, s.GetAddress())
			}
			at[s.GetAddress()] = append(at[s.GetAddress()], i)
		}
	}
	random.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	var stages []int
	for _, address := range addresses {
		stages = append(stages, at[address]...)
	}
	shuffled := slices.Clone(queries)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	to := map[int32]int32{}
	steps := slices.Clone(r.GetSteps())
	slots := slices.Concat(queries, places)
	for i, from := range slices.Concat(shuffled, stages) {
		here := slots[i]
		to[int32(from)], r.Steps[here] = int32(here), steps[from]
	}
	for _, s := range r.GetSteps() {
		if here, moved := to[s.GetBeside()]; s.Beside != nil && moved {
			s.Beside = proto.Int32(here)
		}
	}
	return r
}
