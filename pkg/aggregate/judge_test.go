package aggregate

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// line is a finding on one line: severity code [regions] then, where there are any, addresses,
// failure, block, agents and confidence.
func line(f *pb.Finding) string {
	parts := []string{strings.TrimPrefix(f.GetSeverity().String(), "SEVERITY_"), ShortCode(f.GetCode()), "[" + strings.Join(f.GetRegions(), " ") + "]"}
	if len(f.GetAddresses()) > 0 {
		parts = append(parts, "at", strings.Join(f.GetAddresses(), " "))
	}
	if f.GetFailure() != none {
		parts = append(parts, ShortFailure(f.GetFailure()))
	}
	if f.GetBlock() != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
		parts = append(parts, "block="+ShortBlock(f.GetBlock()))
	}
	if len(f.GetAgents()) > 0 {
		parts = append(parts, "agents="+strings.Join(f.GetAgents(), ","))
	}
	return strings.Join(append(parts, "blame="+ShortBlame(f.GetBlame()), ShortConfidence(f.GetConfidence())), " ")
}

func lines(v *pb.Verdict) []string {
	all := []string{ShortOutcome(v.GetOutcome())}
	for _, f := range v.GetFindings() {
		all = append(all, line(f))
	}
	return all
}

type verdictCase struct {
	sentence string
	world    *world
	want     []string // the outcome, then every finding
}

func runCases(t *testing.T, cases []verdictCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.sentence, func(t *testing.T) {
			got := c.world.judge()
			if diff := cmp.Diff(c.want, lines(got)); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			for _, f := range got.GetFindings() {
				checkFinding(t, c.world, f)
			}
		})
	}
}

// checkFinding holds for every finding: it speaks, it points at steps that exist, and its lists are
// sorted.
func checkFinding(t *testing.T, w *world, f *pb.Finding) {
	t.Helper()
	if _, err := proto.Marshal(f); err != nil {
		t.Error(err)
	}
	if n := len(f.GetSummary()); n < 20 || n > 1200 || strings.Contains(f.GetSummary(), "  ") {
		t.Errorf("summary of %d bytes: %q", n, f.GetSummary())
	}
	for _, list := range [][]string{f.GetRegions(), f.GetAddresses(), f.GetAgents()} {
		if !slices.IsSorted(list) {
			t.Errorf("not sorted: %q", list)
		}
	}
	if (f.GetFailure() == none) != (len(f.GetFailures()) == 0) {
		t.Errorf("failure %v beside failures %v", f.GetFailure(), f.GetFailures())
	}
	if len(f.GetEvidence()) > maxEvidence {
		t.Errorf("%d references", len(f.GetEvidence()))
	}
	if f.GetSeverity() == pb.Severity_SEVERITY_ERROR && (len(f.GetRegions()) == 0 || len(f.GetEvidence()) == 0) {
		t.Errorf("an ERROR without regions or evidence: %v", f)
	}
	for _, ref := range f.GetEvidence() {
		i := slices.IndexFunc(w.results, func(r *pb.Result) bool { return r.GetAgent() == ref.GetAgent() })
		if i < 0 || int(ref.GetStep()) >= len(w.results[i].GetSteps()) {
			t.Errorf("evidence points nowhere: %v", ref)
		}
	}
}
