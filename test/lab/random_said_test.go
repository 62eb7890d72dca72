package lab

import (
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// verdict is how what was said compares with the truth.
type verdict struct {
	accused []string // ERRORs that are not so
	missed  []string // ERRORs that are not said
	wrong   []string // what else is not right
}

func (v *verdict) all() []string { return slices.Concat(v.accused, v.missed, v.wrong) }

// claims are what a finding states, one by one.
func claims(f *pb.Finding) []claim {
	c := claim{code: f.GetCode()}
	var all []claim
	switch f.GetCode() {
	case pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, pb.FindingCode_FINDING_CODE_AGENTS_DIFFER:
		for _, c.agent = range f.GetAgents() {
			all = append(all, c)
		}
		return all
	case pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED:
		return []claim{c}
	default:
	}
	for _, c.region = range f.GetRegions() {
		if len(f.GetAddresses()) == 0 || f.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE {
			all = append(all, c)
			continue
		}
		for _, addr := range f.GetAddresses() {
			all = append(all, claim{code: c.code, region: c.region, addr: addr})
		}
	}
	return all
}

// compare says where a verdict is not the truth.
func (m must) compare(v *pb.Verdict) verdict {
	var out verdict
	said := map[claim]bool{}
	for _, f := range v.GetFindings() {
		if f.GetSeverity() <= pb.Severity_SEVERITY_INFO {
			continue
		}
		all := claims(f)
		for _, c := range all {
			said[c] = true
			if _, ok := m.claims[c]; ok || m.goesWith(c, all) {
				continue
			}
			text := fmt.Sprintf("%s is not so: %.300s", c, f.GetSummary())
			if f.GetSeverity() == pb.Severity_SEVERITY_ERROR {
				out.accused = append(out.accused, text)
			} else {
				out.wrong = append(out.wrong, text)
			}
		}
		if want := severityOf(f.GetCode()); f.GetSeverity() != want {
			out.wrong = append(out.wrong, fmt.Sprintf("%s has %s, want %s: %.300s", f.GetCode(), f.GetSeverity(), want, f.GetSummary()))
		}
		out.wrong = append(out.wrong, m.manners(f, all)...)
	}
	for c := range m.claims {
		switch {
		case said[c]:
		case severityOf(c.code) == pb.Severity_SEVERITY_ERROR:
			out.missed = append(out.missed, c.String()+" is missing")
		default:
			out.wrong = append(out.wrong, c.String()+" is missing")
		}
	}
	if v.GetOutcome() != m.outcome {
		out.wrong = append(out.wrong, fmt.Sprintf("outcome %s, want %s", v.GetOutcome(), m.outcome))
	}
	return out
}

// goesWith says whether a claim is no more than the crossing of lists: about an address that the region
// never came to, or whose certificate it never got to see, in a finding that is right about the region and
// about the address otherwise.
func (m must) goesWith(c claim, all []claim) bool {
	at := claim{region: c.region, addr: c.addr}
	if c.code == pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM || c.code == pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE {
		at.code = c.code
	}
	if c.addr == "" || m.judgedAt[at] {
		return false
	}
	right := func(same func(claim) bool) bool {
		return slices.ContainsFunc(all, func(o claim) bool { _, ok := m.claims[o]; return ok && same(o) })
	}
	return right(func(o claim) bool { return o.region == c.region }) && right(func(o claim) bool { return o.addr == c.addr })
}

// manners compares how a finding says that it fails.
func (m must) manners(f *pb.Finding, all []claim) []string {
	var wrong []string
	var failures []pb.Failure
	var blocks []pb.BlockKind
	alike := true
	for _, c := range all {
		how, ok := m.claims[c]
		if !ok || len(how.failures) == 0 {
			continue
		}
		failures, blocks = append(failures, how.failures...), append(blocks, how.blocks...)
		alike = alike && how.alike
		if !slices.ContainsFunc(how.failures, func(x pb.Failure) bool { return slices.Contains(f.GetFailures(), x) }) {
			wrong = append(wrong, fmt.Sprintf("%s: failures %v, want one of %v", c, f.GetFailures(), how.failures))
		}
	}
	if len(failures) == 0 {
		return wrong
	}
	for _, x := range append(f.GetFailures(), f.GetFailure()) {
		if !slices.Contains(failures, x) {
			wrong = append(wrong, fmt.Sprintf("%s: failure %s is not among %v", f.GetCode(), x, failures))
		}
	}
	if f.GetStage() == pb.Stage_STAGE_DNS {
		return wrong // the block is the answer
	}
	slices.Sort(blocks)
	if blocks = slices.Compact(blocks); !slices.Contains(blocks, f.GetBlock()) && (len(blocks) == 1 || f.GetBlock() != 0) {
		wrong = append(wrong, fmt.Sprintf("%s: block %s is not among %v", f.GetCode(), f.GetBlock(), blocks))
	}
	if f.GetCode() == pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK && f.GetBlame() == pb.Blame_BLAME_TARGET && f.GetBlock() != pb.BlockKind_BLOCK_KIND_HTTP_DENY {
		wrong = append(wrong, "the target is blamed for a block on the way: "+f.GetSummary())
	}
	return wrong
}

// String is a claim in a few words.
func (c claim) String() string {
	return strings.Join(strings.Fields(strings.Join([]string{shortCode(c.code), c.region, c.addr, c.agent}, " ")), " ")
}
