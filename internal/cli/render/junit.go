package render

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The JUnit format has no standard; these are the elements that CI systems agree on.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr,omitempty"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
		Skipped *junitSkipped `xml:"skipped,omitempty"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	junitSkipped struct {
		Message string `xml:"message,attr"`
	}
)

// writeJUnit writes a test suite with a test case for each asked region: failed if a finding of
// severity ERROR lists it, skipped if nothing is known of it.
func writeJUnit(w io.Writer, m *pb.Measurement) error {
	suite := newSuite(Question(m.GetSpec()), m)
	suite.Properties = []junitProperty{{"measurement", Clean(m.GetId())}, {"outcome", shortOutcome(m)}, {"from", Clean(m.GetFrom())}}
	for _, region := range regions(m) {
		suite.Cases = append(suite.Cases, regionCase(m, region))
	}
	return writeSuites(w, suite)
}

// newSuite is a suite without cases, with the times of a measurement.
func newSuite(name string, m *pb.Measurement) junitSuite {
	suite := junitSuite{Name: name, Time: seconds(0)}
	if d, ok := took(m); ok {
		suite.Time = seconds(d)
	}
	if m.GetCreateTime() != nil {
		suite.Timestamp = m.GetCreateTime().AsTime().UTC().Format("2006-01-02T15:04:05")
	}
	return suite
}

// writeSuites writes test suites with their cases counted.
func writeSuites(w io.Writer, suites ...junitSuite) error {
	for i := range suites {
		s := &suites[i]
		s.Tests = len(s.Cases)
		for _, c := range s.Cases {
			if c.Failure != nil {
				s.Failures++
			}
			if c.Skipped != nil {
				s.Skipped++
			}
		}
	}
	doc, err := xml.MarshalIndent(junitSuites{Suites: suites}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding XML: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, doc)
	return err
}

// regionCase is one region.
func regionCase(m *pb.Measurement, region string) junitCase {
	class, _, _ := strings.Cut(Question(m.GetSpec()), " ")
	out := junitCase{Name: Clean(region), Class: "elsewhere." + class, Time: seconds(slowest(m, region))}
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetSeverity() != pb.Severity_SEVERITY_ERROR || !slices.Contains(f.GetRegions(), region) {
			continue
		}
		message := strings.TrimSpace(Clean(f.GetSummary()) + " " + Clean(f.GetHint()))
		if out.Failure == nil {
			out.Failure = &junitFailure{Type: aggregate.ShortCode(f.GetCode()), Message: message}
		}
		out.Failure.Text += aggregate.ShortCode(f.GetCode()) + ": " + message + "\n"
		if p := f.GetPrediction(); p != nil {
			out.Failure.Text += strings.Join(append(foretold(p), Clean(source(p.GetSource()))), ", ") + "\n"
		}
	}
	if out.Failure == nil {
		if why := unknown(m, region); why != "" {
			out.Skipped = &junitSkipped{Message: why}
		}
	}
	return out
}

// regions are the regions that were asked, sorted.
func regions(m *pb.Measurement) []string {
	var out []string
	for _, a := range m.GetAsks() {
		out = append(out, a.GetVantage().GetRegion())
	}
	for _, r := range m.GetResults() {
		out = append(out, r.GetVantage().GetRegion())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// unknown says why nothing is known of a region, or "": no agent of it answered, none could look, or
// none is trusted.
func unknown(m *pb.Measurement, region string) string {
	var faulty []string
	for _, f := range m.GetVerdict().GetFindings() {
		switch {
		case f.GetCode() == pb.FindingCode_FINDING_CODE_VANTAGE_FAULT:
			faulty = append(faulty, f.GetAgents()...)
		case f.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE && slices.Contains(f.GetRegions(), region):
			return Clean(f.GetSummary())
		}
	}
	why := "no agent of the region answered"
	for _, r := range m.GetResults() {
		if r.GetVantage().GetRegion() != region {
			continue
		}
		why = "no agent of the region could look"
		seen := func(s sight) bool { return s.mark == markOK || s.mark == markFail }
		if !slices.Contains(faulty, r.GetAgent()) && slices.ContainsFunc(sights(m.GetSpec(), r), seen) {
			return ""
		}
	}
	if m.GetSpec().GetOrigin() != nil && slices.Contains(aggregate.Judged(m, m.GetResults()), region) {
		return "" // The client's own hello got through, where the agent's library cannot go on.
	}
	return why
}

// slowest is how long the slowest agent of a region took.
func slowest(m *pb.Measurement, region string) time.Duration {
	var out time.Duration
	for _, r := range m.GetResults() {
		if r.GetVantage().GetRegion() == region {
			out = max(out, r.GetDuration().AsDuration())
		}
	}
	return out
}

// seconds writes a duration as JUnit has it.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
