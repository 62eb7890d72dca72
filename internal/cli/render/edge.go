package render

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// EdgeReport writes what is wrong with the value in a file that an edge function returned.
func (s Screen) EdgeReport(file string, r *pb.EdgeReport) error {
	switch s.Format {
	case JUnit:
		return writeSuites(s.Out, edgeSuite(file, r))
	case CSV, JSON, JSONL:
		items := make([]proto.Message, 0, len(r.GetProblems()))
		rows := [][]string{{"PATH", "RULE", "SEVERITY", "SUMMARY", "STATUS", "SOURCE", "DATE"}}
		for _, p := range r.GetProblems() {
			items = append(items, p)
			rows = append(rows, []string{
				p.GetPath(), p.GetRule(), shortSeverity(p.GetSeverity()), p.GetSummary(), p.GetStatus(),
				p.GetSource().GetDocument(), p.GetSource().GetDate(),
			})
		}
		return s.list(r, items, rows)
	case Table:
	}
	return s.print(s.edgeLines(file, r))
}

// edgeLines is the report for people.
func (s Screen) edgeLines(file string, r *pb.EdgeReport) []string {
	t := s.theme()
	width, _ := s.size()
	var lines []string
	errors := 0
	for _, p := range r.GetProblems() {
		lines = append(lines, t.severity(p.GetSeverity()).Render(shortSeverity(p.GetSeverity())+" "+p.GetRule())+gap+t.strong.Render(Clean(p.GetPath())))
		lines = append(lines, paragraph("", p.GetSummary(), width)...)
		lines = append(lines, paragraph("source: ", source(p.GetSource()), width)...)
		if p.GetSeverity() == pb.Severity_SEVERITY_ERROR {
			errors++
		}
	}
	for _, note := range r.GetNotes() {
		lines = append(lines, paragraph("not checked: ", note, width)...)
	}
	returned := r.GetReturned()
	if returned == "" {
		returned = "value"
	}
	head := fmt.Sprintf(" · a %s for %s, by %s · %s", returned, r.GetEvent(), map[string]string{
		"lambda-edge": "Lambda@Edge", "cloudfront-functions": "CloudFront Functions",
	}[r.GetRuntime()], Clean(file))
	if errors > 0 {
		return append(lines, t.fail.Render("FAIL")+fmt.Sprintf(" · %s broken: viewers get 502", rules(errors))+head)
	}
	return append(lines, t.ok.Render("OK")+head)
}

// rules counts rules.
func rules(n int) string {
	if n == 1 {
		return "1 rule is"
	}
	return fmt.Sprintf("%d rules are", n)
}

// edgeSuite is the report as a test suite: a case for each problem, or one that passes.
func edgeSuite(file string, r *pb.EdgeReport) junitSuite {
	suite := junitSuite{Name: "edge-response " + Clean(file), Time: seconds(0), Properties: []junitProperty{
		{"event", r.GetEvent()}, {"runtime", r.GetRuntime()}, {"returned", r.GetReturned()},
	}}
	for _, p := range r.GetProblems() {
		c := junitCase{Name: p.GetRule() + " " + Clean(p.GetPath()), Class: "elsewhere.edge-response", Time: seconds(0)}
		if p.GetSeverity() == pb.Severity_SEVERITY_ERROR {
			c.Failure = &junitFailure{Type: p.GetRule(), Message: Clean(p.GetSummary()), Text: Clean(p.GetPath() + ": " + p.GetSummary())}
		}
		suite.Cases = append(suite.Cases, c)
	}
	if len(suite.Cases) == 0 {
		suite.Cases = []junitCase{{Name: r.GetEvent(), Class: "elsewhere.edge-response", Time: seconds(0)}}
	}
	return suite
}
