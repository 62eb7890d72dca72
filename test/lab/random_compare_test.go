package lab

import (
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// blocked is a case with one region shut out of one of two addresses, and the verdict that is right.
func blocked() (*drawn, *pb.Verdict) {
	d := &drawn{check: "tcp", from: regions(), hosts: []target{
		{addr: netip.MustParseAddr("198.18.0.8"), does: isFine}, {addr: netip.MustParseAddr("198.18.0.9"), does: isFine},
	}, troubles: []trouble{{how: dropped, from: agentsIn("ap-south"), to: []int{1}}}}
	block := shut("ap-south", "198.18.0.9", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)
	block.Severity = pb.Severity_SEVERITY_ERROR
	return d, &pb.Verdict{Outcome: pb.Outcome_OUTCOME_FAIL, Findings: []*pb.Finding{block}}
}

// TestCompare shows that the comparison of the random mode fails where it should.
func TestCompare(t *testing.T) {
	for _, c := range []struct {
		says                   string
		change                 func(*pb.Verdict)
		accused, missed, wrong int
	}{
		{"right", func(*pb.Verdict) {}, 0, 0, 0},
		{"nothing is said", func(v *pb.Verdict) { v.Findings = nil }, 0, 1, 0},
		{"another region is accused", func(v *pb.Verdict) { v.Findings[0].Regions = []string{"us-east"} }, 1, 1, 0},
		{"one more region is accused", func(v *pb.Verdict) { v.Findings[0].Regions = []string{"ap-south", "us-east"} }, 1, 0, 0},
		{"the other address is accused", func(v *pb.Verdict) { v.Findings[0].Addresses = []string{"198.18.0.8:443"} }, 1, 1, 0},
		{"something else is said", func(v *pb.Verdict) { v.Findings[0].Code = pb.FindingCode_FINDING_CODE_TARGET_DOWN }, 1, 1, 0},
		{"another block is said", func(v *pb.Verdict) { v.Findings[0].Block = pb.BlockKind_BLOCK_KIND_REJECT_RST }, 0, 0, 1},
		{"no block is said", func(v *pb.Verdict) { v.Findings[0].Block = pb.BlockKind_BLOCK_KIND_UNSPECIFIED }, 0, 0, 1},
		{"the target is blamed", func(v *pb.Verdict) { v.Findings[0].Blame = pb.Blame_BLAME_TARGET }, 0, 0, 1},
		{"it is but a warning", func(v *pb.Verdict) { v.Findings[0].Severity = pb.Severity_SEVERITY_WARN }, 0, 0, 1},
		{"another outcome", func(v *pb.Verdict) { v.Outcome = pb.Outcome_OUTCOME_INCONCLUSIVE }, 0, 0, 1},
		{"an agent is warned about", func(v *pb.Verdict) {
			v.Findings = append(v.Findings, faulty(pb.Blame_BLAME_AGENT, "us-east", "us-1"))
		}, 0, 0, 1},
		{"what is good to know may be said", func(v *pb.Verdict) {
			v.Findings = append(v.Findings, &pb.Finding{Code: pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER, Severity: pb.Severity_SEVERITY_INFO})
		}, 0, 0, 0},
	} {
		t.Run(c.says, func(t *testing.T) {
			d, v := blocked()
			v = proto.CloneOf(v)
			c.change(v)
			out := d.truth().compare(v)
			if len(out.accused) != c.accused || len(out.missed) != c.missed || len(out.wrong) != c.wrong {
				t.Errorf("accused %q, missed %q, wrong %q; want %d, %d, %d", out.accused, out.missed, out.wrong, c.accused, c.missed, c.wrong)
			}
		})
	}
}

// TestTruth says in words what must be said of some cases, as a check of what is derived.
func TestTruth(t *testing.T) {
	six := target{addr: netip.MustParseAddr("2001:db8:18::9"), does: isFine}
	for _, c := range []struct {
		says   string
		change func(*drawn)
		want   []string // claims and the outcome
	}{
		{"one region", func(*drawn) {}, []string{"OUTCOME_FAIL", "regional_block ap-south 198.18.0.9:443"}},
		{"the same, and its agents are cut off", func(d *drawn) {
			d.odd = condition{cutOffBy, agentsIn("ap-south")}
		}, []string{"OUTCOME_INCONCLUSIVE", "vantage_fault ap-1", "vantage_fault ap-2"}},
		{"the same, and one of its agents is stopped", func(d *drawn) {
			d.odd = condition{asleep, []string{"ap-1"}}
		}, []string{"OUTCOME_FAIL", "regional_block ap-south 198.18.0.9:443"}},
		{"one agent", func(d *drawn) { d.troubles[0].from = []string{"ap-1"} }, []string{"OUTCOME_OK", "agents_differ ap-1"}},
		{"everywhere", func(d *drawn) { d.troubles[0].from, d.from = agentIDs(), []string{"ap-south", "us-east"} }, []string{
			"OUTCOME_FAIL", "partial_address_failure ap-south 198.18.0.9:443", "partial_address_failure us-east 198.18.0.9:443",
		}},
		{"a whole family", func(d *drawn) {
			d.troubles[0].from, d.from, d.hosts[1] = agentIDs(), []string{"ap-south"}, six
		}, []string{"OUTCOME_OK", "family_broken ap-south [2001:db8:18::9]:443"}},
		{"the region alone, and all of it", func(d *drawn) {
			d.troubles[0].to, d.from = []int{0, 1}, []string{"ap-south"}
		}, []string{"OUTCOME_INCONCLUSIVE", "insufficient_vantage ap-south"}},
		{"its resolver is at fault besides: the first broken stage", func(d *drawn) {
			d.answers = []resolverFault{{"ap-south", "NXDOMAIN"}}
		}, []string{"OUTCOME_FAIL", "regional_resolution_failure ap-south"}},
		{"a bad certificate behind the block, and a good one", func(d *drawn) {
			d.check, d.hosts[1].does, d.from = "tls", isExpired, []string{"ap-south", "us-east"}
		}, []string{"OUTCOME_FAIL", "regional_block ap-south 198.18.0.9:443", "regional_certificate us-east 198.18.0.9:443"}},
		{"open is expected", func(d *drawn) { d.expect = "open" }, []string{"OUTCOME_FAIL", "expectation_failed ap-south 198.18.0.9:443"}},
	} {
		t.Run(c.says, func(t *testing.T) {
			d, _ := blocked()
			c.change(d)
			m := d.truth()
			got := []string{m.outcome.String()}
			for claim := range m.claims {
				got = append(got, claim.String())
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
