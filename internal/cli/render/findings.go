package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxRegions is how many regions the head of a finding names before it counts.
const maxRegions = 8

// conclusion is the findings of a measurement in words, and the last line. A width of 0 is no limit.
func conclusion(m *pb.Measurement, t theme, width int) []string {
	var lines []string
	shown := PropagationOf(m) // above, and at length
	for _, f := range m.GetVerdict().GetFindings() {
		if f == shown {
			if !slices.ContainsFunc(m.GetVerdict().GetFindings(), func(o *pb.Finding) bool { return o != f && o.GetHint() == f.GetHint() }) {
				lines = append(lines, paragraph("hint: ", f.GetHint(), width)...)
			}
			continue
		}
		lines = append(lines, finding(f, t, width)...)
	}
	if m.GetVerdict().GetOutcome() == pb.Outcome_OUTCOME_INCONCLUSIVE && m.GetState() != pb.State_STATE_RUNNING {
		lines = append(lines, unjudged(m, width)...)
	}
	return append(lines, lastLine(m, t))
}

// unjudged says of which regions nothing is known, where no finding does.
func unjudged(m *pb.Measurement, width int) (lines []string) {
	said := map[string]bool{}
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetCode() == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE {
			for _, region := range f.GetRegions() {
				said[region] = true
			}
		}
	}
	for _, region := range regions(m) {
		if why := unknown(m, region); why != "" && !said[region] {
			lines = append(lines, paragraph("not judged: ", region+": "+why, width)...)
		}
	}
	return lines
}

// finding is one finding in words: what, where, how; the summary; the hint.
func finding(f *pb.Finding, t theme, width int) []string {
	lines := headLines(f, t, width)
	lines = append(lines, paragraph("", f.GetSummary(), width)...)
	lines = append(lines, paragraph("hint: ", f.GetHint(), width)...)
	return append(lines, paragraph("source: ", source(f.GetPrediction().GetSource()), width)...)
}

// headLines are what a finding is about, in short names: a line, or one for each part where that is too long.
func headLines(f *pb.Finding, t theme, width int) []string {
	code, regions, facts := shortSeverity(f.GetSeverity())+" "+aggregate.ShortCode(f.GetCode()), regionList(f.GetRegions()), details(f)
	parts := []string{t.severity(f.GetSeverity()).Render(code)}
	if regions != "" {
		parts = append(parts, t.strong.Render(regions))
	}
	if facts != "" {
		parts = append(parts, t.faint.Render(facts))
	}
	if line := strings.Join(parts, gap); width <= 0 || lipgloss.Width(line) <= width {
		return []string{line}
	}
	lines := parts[:1]
	for _, line := range paragraph("", regions, width) {
		lines = append(lines, t.strong.Render(line))
	}
	for _, line := range paragraph("", facts, width) {
		lines = append(lines, t.faint.Render(line))
	}
	return lines
}

// shortSeverity is a severity for people: "ERROR".
func shortSeverity(s pb.Severity) string { return strings.TrimPrefix(s.String(), "SEVERITY_") }

// regionList names the regions, or the first of them and how many more.
func regionList(regions []string) string {
	more := ""
	if len(regions) > maxRegions {
		more = fmt.Sprintf(" and %d more", len(regions)-maxRegions)
		regions = regions[:maxRegions]
	}
	return Clean(strings.Join(regions, ", ")) + more
}

// details are the facts of a finding in short names.
func details(f *pb.Finding) string {
	var words []string
	if f.GetBlock() != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
		words = append(words, aggregate.ShortBlock(f.GetBlock()))
	}
	if len(f.GetFailures()) == 0 && f.GetFailure() > pb.Failure_FAILURE_NONE {
		words = append(words, aggregate.ShortFailure(f.GetFailure()))
	}
	for _, one := range f.GetFailures() {
		words = append(words, aggregate.ShortFailure(one))
	}
	words = append(words, foretold(f.GetPrediction())...)
	if f.GetBlame() != pb.Blame_BLAME_UNSPECIFIED {
		words = append(words, "blame "+aggregate.ShortBlame(f.GetBlame()))
	}
	if f.GetConfidence() != pb.Confidence_CONFIDENCE_UNSPECIFIED {
		words = append(words, "confidence "+aggregate.ShortConfidence(f.GetConfidence()))
	}
	if len(words) == 0 {
		return ""
	}
	return "(" + strings.Join(words, ", ") + ")"
}

// paragraph indents a sentence and breaks it between words at width cells. It breaks nowhere else:
// names of regions have hyphens, and are to be copied.
func paragraph(label, text string, width int) []string {
	if text == "" {
		return nil
	}
	var lines []string
	line := gap
	for word := range strings.SplitSeq(label+Clean(text), " ") {
		if width > 0 && line != gap && lipgloss.Width(line)+lipgloss.Width(word) > width {
			lines, line = append(lines, strings.TrimRight(line, " ")), gap
		}
		line += word + " "
	}
	return append(lines, strings.TrimRight(line, " "))
}

// lastLine is the conclusion in one line: "OK · 8 asked, 8 answered · 1.2 s · id".
func lastLine(m *pb.Measurement, t theme) string {
	style := t.warn
	switch m.GetVerdict().GetOutcome() {
	case pb.Outcome_OUTCOME_OK:
		style = t.ok
	case pb.Outcome_OUTCOME_FAIL:
		style = t.fail
	case pb.Outcome_OUTCOME_INCONCLUSIVE, pb.Outcome_OUTCOME_UNSPECIFIED:
	}
	words := []string{style.Bold(t.strong.GetBold()).Render(shortOutcome(m))}
	if m.GetState() == pb.State_STATE_CANCELLED && m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_UNSPECIFIED {
		words = append(words, "cancelled")
	}
	words = append(words, ledger(m.GetLedger()))
	if d, ok := took(m); ok {
		words = append(words, human(d))
	}
	return strings.Join(append(words, Clean(m.GetId())), " · ")
}

// ledger is the ledger in words; what is zero is left out, but for asked and answered.
func ledger(l *pb.Ledger) string {
	words := fmt.Sprintf("%d asked, %d answered", l.GetAsked(), l.GetAnswered())
	for _, c := range []struct {
		n    int32
		word string
	}{{l.GetLost(), "lost"}, {l.GetRefused(), "refused"}, {l.GetIneligible(), "ineligible"}} {
		if c.n > 0 {
			words += fmt.Sprintf(", %d %s", c.n, c.word)
		}
	}
	return words
}

// took is how long a measurement was open, by the coordinator's clock.
func took(m *pb.Measurement) (time.Duration, bool) {
	if m.GetFinishTime() == nil || m.GetCreateTime() == nil {
		return 0, false
	}
	return m.GetFinishTime().AsTime().Sub(m.GetCreateTime().AsTime()), true
}
