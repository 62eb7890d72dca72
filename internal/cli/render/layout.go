package render

import (
	"strings"

	"charm.land/lipgloss/v2"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// gap is what stands between two columns, and between two things in one.
const gap = "  "

// theme is how things look. Its zero value is plain text, for pipes.
type theme struct {
	ok, fail, warn, faint, strong lipgloss.Style
}

// colours is the theme for terminals, in the terminal's own sixteen colours, so that it is readable
// on light and dark. What NO_COLOR or the terminal cannot show is taken out when it is written.
func colours() theme {
	return theme{
		ok:     lipgloss.NewStyle().Foreground(lipgloss.Green),
		fail:   lipgloss.NewStyle().Foreground(lipgloss.Red),
		warn:   lipgloss.NewStyle().Foreground(lipgloss.Yellow),
		faint:  lipgloss.NewStyle().Faint(true),
		strong: lipgloss.NewStyle().Bold(true),
	}
}

// mark is the style of a mark.
func (t theme) mark(m mark) lipgloss.Style {
	switch m {
	case markOK:
		return t.ok
	case markFail:
		return t.fail
	case markUnknown:
		return t.warn
	case markWaiting:
	}
	return t.faint
}

// severity is the style of a severity.
func (t theme) severity(s pb.Severity) lipgloss.Style {
	switch s {
	case pb.Severity_SEVERITY_ERROR:
		return t.fail.Bold(t.strong.GetBold())
	case pb.Severity_SEVERITY_WARN:
		return t.warn
	case pb.Severity_SEVERITY_INFO, pb.Severity_SEVERITY_UNSPECIFIED:
	}
	return t.faint
}

// pad fills s with spaces up to width cells, and leaves what is longer alone.
func pad(s string, width int) string {
	if n := width - lipgloss.Width(s); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// cut shortens s to width cells; 0 is no limit.
func cut(s string, width int) string {
	if width <= 0 || lipgloss.Width(s) <= width {
		return s
	}
	if width == 1 {
		return "…"
	}
	return lipgloss.NewStyle().MaxWidth(width-1).Render(s) + "…"
}

// wrap puts items one after another on lines of at most width cells; 0 is no limit.
func wrap(items []string, width int) []string {
	var lines []string
	line := ""
	for _, item := range items {
		item = cut(item, width)
		switch joined := line + gap + item; {
		case line == "":
			line = item
		case width <= 0 || lipgloss.Width(joined) <= width:
			line = joined
		default:
			lines, line = append(lines, line), item
		}
	}
	return append(lines, line)
}

// columns are the widths of the columns of a measurement's table.
type columns struct{ region, agent, place int }

// fit makes the columns as wide as their widest cell, and drops the place where the terminal is
// narrow.
func fit(all []row, width int) columns {
	var c columns
	for _, r := range all {
		c.region = max(c.region, lipgloss.Width(r.region))
		c.agent = max(c.agent, lipgloss.Width(r.agent))
		c.place = max(c.place, lipgloss.Width(r.place))
	}
	if width > 0 && width < 60 {
		c.place = 0
	}
	return c
}

// head is the left part of a row.
func (c columns) head(r row) string {
	cells := []string{pad(r.region, c.region), pad(r.agent, c.agent)}
	if c.place > 0 {
		cells = append(cells, pad(cut(r.place, c.place), c.place))
	}
	return strings.Join(cells, gap) + gap
}

// grid aligns rows of cells; the last cell of a row is not padded.
func grid(rows [][]string) []string {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		for j, cell := range r {
			if j < len(r)-1 {
				cell = pad(cell, widths[j]) + gap
			}
			out[i] += cell
		}
		out[i] = strings.TrimRight(out[i], " ")
	}
	return out
}
