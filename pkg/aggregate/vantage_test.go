package aggregate

import (
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestNobodyHint: where nothing is judged, the hint names what would change that.
func TestNobodyHint(t *testing.T) {
	t.Parallel()
	named := func(w *world) *world {
		w.m.Spec.GetDns().Resolver = "198.51.100.1"
		return w
	}
	for _, c := range []struct {
		sentence string
		w        *world
		want     string
	}{
		{"there is no control", dnsWorld("AAAA").in("ap", query(1, pb.Failure_FAILURE_DNS_NODATA)), "give the agents a --control"},
		{"no control is of use", dnsWorld("A").in("ap", query(1, nxdomain), control53(1, pb.Failure_FAILURE_AGENT_POLICY_DENIED)), "give the agents a --control"},
		{"the named server answers nobody", named(dnsWorld("A").in("ap", query(1, pb.Failure_FAILURE_DNS_UNREACHABLE), control53(1, pb.Failure_FAILURE_DNS_UNREACHABLE))), "check its address, its port"},
		{"the agents have no such family", dnsWorld("A").in("ap", query(1, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)), "`agents -6`"},
		{"the agents had no time", dnsWorld("A").in("ap", query(1, pb.Failure_FAILURE_AGENT_DEADLINE)), "ask more agents"},
	} {
		hint := ""
		for _, f := range c.w.judge().GetFindings() {
			if f.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE {
				hint = f.GetHint()
			}
		}
		if !strings.Contains(hint, c.want) {
			t.Errorf("%s: %q", c.sentence, hint)
		}
	}
}

// TestWhichAddressIsABogon: of an answer with public addresses too, the bogon alone is named.
func TestWhichAddressIsABogon(t *testing.T) {
	t.Parallel()
	steps := query(1, pb.Failure_FAILURE_DNS_BOGON, "203.0.113.10", "10.1.2.3")
	steps[0].Evidence.Text = "10.1.2.3 is special-purpose: private use"
	f := dnsWorld("A").in("ap", steps).judge().GetFindings()[0]
	if s := f.GetSummary(); !strings.Contains(s, "(10.1.2.3 is special-purpose: private use)") || strings.Contains(s, "203.0.113.10") {
		t.Error(s)
	}
}

// TestNoIPv4ButIPv6: the hint for a name without A records says that it has others.
func TestNoIPv4ButIPv6(t *testing.T) {
	t.Parallel()
	hint := func(other pb.Failure) string {
		steps := unnamed(1, pb.Failure_FAILURE_DNS_NODATA)
		beside := step(pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_VARIANT, "198.51.100.1:53", other)
		zero := int32(0)
		beside.Variant, beside.Beside = pb.Variant_VARIANT_OTHER_FAMILY, &zero
		return dnsWorld("A").in("ap", append(steps, beside)).judge().GetFindings()[0].GetHint()
	}
	if got := hint(none); !strings.Contains(got, "other family alone") {
		t.Error(got)
	}
	if got := hint(pb.Failure_FAILURE_DNS_NODATA); strings.Contains(got, "family") {
		t.Error(got)
	}
}
