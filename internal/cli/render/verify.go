package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// widest is how wide the names of rules and what is seen may make their columns.
	widest = 40
	// maxAddresses is how many addresses of agents are listed unasked.
	maxAddresses = 40
)

// Check is one expectation of one rule of an allowlist, and what came of it.
type Check struct {
	// Rule is the rule's name; Expect how the door should be found.
	Rule   string
	Expect pb.Reachability
	// Regions are those that are asked.
	Regions []string
	// Agents is how many are asked.
	Agents int

	before map[string]mark // what each region saw the last time
	m      *pb.Measurement
	rows   []doorRow
	words  []string // what to do
	shown  bool
}

// Since compares the check with its last measurement, of which it keeps what each region saw.
func (c *Check) Since(before *pb.Measurement) {
	c.before = map[string]mark{}
	for _, r := range doorRows(before) {
		c.before[r.region] = r.mark
	}
}

// Verification shows how an allowlist is verified: rows in the order of the file, each as soon as it is
// there. Its methods may be called by several goroutines.
type Verification struct {
	screen  Screen
	checks  []*Check
	against bool
	start   time.Time

	mu       sync.Mutex
	cols     [4]int
	answered int
	line     bool // the last line is progress, to be taken away
	silent   bool // the coordinator does not answer
	err      error
}

// Verify makes what shows the checks, in the order of the file. against says that each is compared with
// the one of its Since.
func (s Screen) Verify(checks []*Check, against bool) *Verification {
	v := &Verification{screen: s, checks: checks, against: against, start: time.Now()}
	v.cols = [4]int{len("RULE"), len("REGION"), len("EXPECTED"), len("SEEN")}
	for _, c := range checks {
		v.cols[0] = max(v.cols[0], min(lipgloss.Width(Clean(c.Rule)), widest))
		for _, region := range c.Regions {
			v.cols[1] = max(v.cols[1], lipgloss.Width(Clean(region)))
		}
		v.cols[3] = max(v.cols[3], len("silent; control passed"))
	}
	if s.Format == Table {
		v.write(s.theme().strong.Render("  " + v.cells("RULE", "REGION", "EXPECTED", "SEEN", "BLOCK", "AGENTS", "SINCE LAST")))
		v.progress()
	}
	return v
}

// Answered notes that n more agents answered.
func (v *Verification) Answered(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answered += n
	v.silent = false
	v.progress()
}

// Waiting says, once for all checks, why nothing comes.
func (v *Verification) Waiting() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.silent && !v.screen.Terminal {
		v.screen.waiting()
	}
	v.silent = true
	v.progress()
}

// Done takes the measurement of a check, with its results, and shows it when it is its turn. Results that
// no more is said of than that are dropped: ten thousand agents may have answered for each door.
func (v *Verification) Done(c *Check, m *pb.Measurement) {
	rows := doorRows(m)
	if v.against {
		since(rows, c.before)
	}
	words := v.todo(c.Rule, m)
	v.mu.Lock()
	defer v.mu.Unlock()
	c.m, c.rows, c.words = m, rows, words
	if f := v.screen.Format; f != JSON && f != JSONL {
		m.Results = nil
	}
	v.flush(false)
	v.progress()
}

// flush shows the checks whose turn it is; all: also those behind one that is missing.
func (v *Verification) flush(all bool) {
	for _, c := range v.checks {
		switch {
		case c.m == nil && !all:
			return
		case c.m == nil || c.shown:
			continue
		}
		c.shown = true
		switch v.screen.Format {
		case JSONL:
			v.keep(writeJSONLine(v.screen.Out, c.m))
			c.m.Results = nil
		case Table:
			for _, r := range c.rows {
				v.write(v.row(c, r))
			}
		case JSON, CSV, JUnit:
		}
	}
}

// End shows the rest, and the conclusion.
func (v *Verification) End() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.flush(true)
	v.clear()
	done := v.done()
	switch v.screen.Format {
	case JSON:
		list := &pb.ListMeasurementsResponse{}
		for _, c := range done {
			list.Measurements = append(list.Measurements, withLedger(c.m).(*pb.Measurement))
		}
		v.keep(WriteJSON(v.screen.Out, list))
	case CSV:
		v.keep(writeDoorsCSV(v.screen.Out, done))
	case JUnit:
		v.keep(writeDoorsJUnit(v.screen.Out, done))
	case JSONL:
	case Table:
		var words []string
		for _, c := range done {
			words = append(words, c.words...)
		}
		if len(words) > 0 {
			words = append(words, "")
		}
		v.write(words...)
		v.write(v.addresses(done)...)
		v.write(v.lastLine(done))
	}
	return v.err
}

// done are the checks that were measured.
func (v *Verification) done() (out []*Check) {
	for _, c := range v.checks {
		if c.m != nil {
			out = append(out, c)
		}
	}
	return out
}

// row is one line of the table.
func (v *Verification) row(c *Check, r doorRow) string {
	t := v.screen.theme()
	rule := cut(Clean(c.Rule), widest)
	return t.mark(r.mark).Render(r.mark.String()) + " " +
		v.cells(rule, r.region, aggregate.ShortReachability(c.Expect), r.seen, r.block, r.agents, r.change)
}

// cells aligns the cells of a line; the last one is there only if there is something to compare with.
func (v *Verification) cells(cells ...string) string {
	widths := append(v.cols[:], len("reset_after_connect"), len("AGENTS"))
	if !v.against {
		cells = cells[:len(cells)-1]
	}
	for i, cell := range cells {
		if cell == "" {
			cell = "-"
		}
		if i < len(widths) {
			cell = pad(cell, widths[i])
		}
		cells[i] = cell
	}
	return strings.TrimRight(strings.Join(cells, gap), " ")
}

// todo is what to do about a rule: the findings of a check that is not all as expected, and what is not
// known.
func (v *Verification) todo(rule string, m *pb.Measurement) []string {
	t, width := v.screen.theme(), v.width()
	if v.screen.Verbose {
		return append([]string{""}, v.screen.whole(m)...)
	}
	findings := conclusion(m, t, width)
	if findings = findings[:len(findings)-1]; len(findings) == 0 { // the last line counts agents
		return nil
	}
	return append([]string{"", t.strong.Render(cut(Clean(rule), width)) + gap + t.faint.Render("show "+Clean(m.GetId()))}, findings...)
}

// addresses are what a firewall sees the asked agents at.
func (v *Verification) addresses(done []*Check) []string {
	asked := map[string]bool{}
	var all []agentAddress
	for _, c := range done {
		for _, a := range c.m.GetAsks() {
			if id := a.GetAgent(); !asked[id] {
				asked[id] = true
				all = append(all, agentAddresses(id, a.GetVantage(), c.m.GetSpec().GetFamily())...)
			}
		}
	}
	if len(all) > maxAddresses && !v.screen.Verbose {
		return []string{fmt.Sprintf("asked from %d addresses, which are what a firewall sees; 'elsewhere agents --addresses' lists them", len(all))}
	}
	if len(all) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(all))
	for _, a := range all {
		rows = append(rows, []string{"", Clean(a.region), Clean(a.agent), a.ip.String(), a.note()})
	}
	return append([]string{"asked from, as a firewall sees it:"}, grid(rows)...)
}

// lastLine is the conclusion in one line.
func (v *Verification) lastLine(done []*Check) string {
	count, changed := map[mark]int{}, map[string]int{}
	rules := map[string]bool{}
	for _, c := range v.checks {
		rules[c.Rule] = true
		for _, r := range c.rows {
			count[r.mark]++
			changed[r.change]++
		}
	}
	t := v.screen.theme()
	word, style := "OK", t.ok
	switch v.Outcome() {
	case pb.Outcome_OUTCOME_FAIL:
		word, style = "FAIL", t.fail
	case pb.Outcome_OUTCOME_INCONCLUSIVE, pb.Outcome_OUTCOME_UNSPECIFIED:
		word, style = "INCONCLUSIVE", t.warn
	case pb.Outcome_OUTCOME_OK:
	}
	words := []string{
		style.Bold(t.strong.GetBold()).Render(word), plural(len(rules), "rule"),
		fmt.Sprintf("%d as expected, %d not, %d not known", count[markOK], count[markFail], count[markUnknown]),
	}
	if missing := len(v.checks) - len(done); missing > 0 {
		words = append(words, plural(missing, "door")+" not measured")
	}
	if v.against {
		text := "since last:"
		for i, change := range []string{"newly broken", "newly fixed", "no longer known", "unchanged", "new"} {
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf(" %d %s", changed[change], change)
		}
		words = append(words, text)
	}
	return strings.Join(append(words, human(time.Since(v.start))), " · ")
}

// Outcome is that of all checks together: FAIL if one fails, otherwise INCONCLUSIVE if one is, or was
// not measured.
func (v *Verification) Outcome() pb.Outcome {
	out := pb.Outcome_OUTCOME_OK
	for _, c := range v.checks {
		switch c.m.GetVerdict().GetOutcome() {
		case pb.Outcome_OUTCOME_FAIL:
			return pb.Outcome_OUTCOME_FAIL
		case pb.Outcome_OUTCOME_INCONCLUSIVE, pb.Outcome_OUTCOME_UNSPECIFIED:
			out = pb.Outcome_OUTCOME_INCONCLUSIVE
		case pb.Outcome_OUTCOME_OK:
		}
	}
	return out
}

// progress shows on a terminal how far it is.
func (v *Verification) progress() {
	if !v.screen.Terminal || v.screen.Format != Table {
		return
	}
	v.clear()
	agents := 0
	for _, c := range v.checks {
		agents += c.Agents
	}
	line := fmt.Sprintf("%d of %s measured, %d of %d answers · %s",
		len(v.done()), plural(len(v.checks), "door"), v.answered, agents, human(time.Since(v.start)))
	if v.silent {
		line = noAnswer
	}
	_, _ = lipgloss.Fprint(v.screen.Out, v.screen.theme().faint.Render(cut(line, v.width())))
	v.line = true
}

// clear takes the line of progress away.
func (v *Verification) clear() {
	if v.line {
		_, _ = io.WriteString(v.screen.Out, "\r"+eraseBelow)
		v.line = false
	}
}

func (v *Verification) width() int {
	width, _ := v.screen.size()
	return width
}

// write writes lines and keeps the first error.
func (v *Verification) write(lines ...string) {
	v.clear()
	v.keep(v.screen.print(lines))
}

func (v *Verification) keep(err error) {
	if v.err == nil {
		v.err = err
	}
}

// plural counts things: "1 rule", "2 rules".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
