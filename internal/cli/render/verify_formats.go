package render

import (
	"io"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// writeDoorsCSV writes a row for each rule, expectation and region.
func writeDoorsCSV(w io.Writer, checks []*Check) error {
	out := [][]string{{"rule", "region", "expected", "seen", "block", "agents", "result", "since_last", "why", "measurement"}}
	for _, c := range checks {
		for _, r := range c.rows {
			result := map[mark]string{markOK: "ok", markFail: "fail", markUnknown: "unknown"}[r.mark]
			out = append(out, []string{
				c.Rule, r.region, aggregate.ShortReachability(c.Expect), r.seen, r.block, r.agents, result, r.change, r.why, c.m.GetId(),
			})
		}
	}
	return writeCSVRows(w, out)
}

// writeDoorsJUnit writes a test suite for each rule, with a case for each expectation and region.
func writeDoorsJUnit(w io.Writer, checks []*Check) error {
	var suites []junitSuite
	byRule := map[string]int{}
	for _, c := range checks {
		i, ok := byRule[c.Rule]
		if !ok {
			i = len(suites)
			byRule[c.Rule] = i
			suites = append(suites, newSuite(Clean(c.Rule), c.m))
		}
		s := &suites[i]
		s.Properties = append(s.Properties, junitProperty{"measurement " + aggregate.ShortReachability(c.Expect), Clean(c.m.GetId())})
		for _, r := range c.rows {
			s.Cases = append(s.Cases, r.junit)
		}
	}
	return writeSuites(w, suites...)
}

// doorCase is one region of a check.
func doorCase(m *pb.Measurement, region string, expect pb.Reachability, r doorRow) junitCase {
	one := regionCase(m, region)
	one.Name, one.Class = r.region+" should find it "+aggregate.ShortReachability(expect), "elsewhere.allowlist"
	if r.mark == markUnknown && one.Failure == nil {
		one.Skipped = &junitSkipped{Message: r.why}
	}
	return one
}
