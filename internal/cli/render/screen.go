package render

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Screen is where things are shown, and how. Out and Err are required.
type Screen struct {
	// Out takes the data, Err everything else.
	Out, Err io.Writer
	// Format is how data is written. Default: a table.
	Format Format
	// Terminal says that Out is a terminal that shows colours and lets the cursor be moved.
	Terminal bool
	// Short shows the distinct answers of a dns question alone.
	Short bool
	// Verbose shows all that each agent saw, not only what matters.
	Verbose bool
	// still says that the measurement was over before it was shown.
	still bool
}

// NewScreen makes a Screen of stdout and stderr. Out counts as a terminal if it is one, CI is unset
// and TERM is not "dumb".
func NewScreen(out, errs io.Writer, getenv func(string) string) Screen {
	f, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd())) && getenv("CI") == "" && getenv("TERM") != "dumb"
	return Screen{Out: out, Err: errs, Format: Table, Terminal: terminal}
}

// Reporter shows one measurement while it goes on. Begin comes first; Update when it changed, with
// the results that are new; End once, when it is over, with the results in the measurement, sorted by
// agent. Waiting comes when the coordinator is lost sight of; the next Update says that it is back. Abort gives back the terminal when it is not followed any longer; Update and End may still come.
// The measurements have their asks, and are not changed afterwards.
type Reporter interface {
	Begin(m *pb.Measurement)
	Update(m *pb.Measurement, fresh []*pb.Result)
	Waiting()
	End(m *pb.Measurement) error
	Abort()
}

// Reporter returns the reporter of the screen's format. still: the measurement is over already, and
// nothing has to be shown on the way.
func (s Screen) Reporter(still bool) Reporter {
	s.still = still
	switch {
	case s.Format == JSONL:
		return &lines{screen: s}
	case s.Format != Table && s.Format != "" || s.Short:
		return final{s}
	case s.Terminal && still:
		return final{s}
	case s.Terminal:
		return &live{screen: s}
	}
	return &plain{screen: s}
}

// size is the terminal's size in cells; 0 where there is none.
func (s Screen) size() (width, height int) {
	if f, ok := s.Out.(*os.File); ok && s.Terminal {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			return w, h
		}
	}
	return 0, 0
}

// theme is coloured on a terminal only.
func (s Screen) theme() theme {
	if s.Terminal {
		return colours()
	}
	return theme{}
}

// print writes lines; lipgloss takes out the colours that the terminal or NO_COLOR does not want.
func (s Screen) print(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text := strings.Join(lines, "\n") + "\n"
	var err error
	if s.Terminal {
		_, err = lipgloss.Fprint(s.Out, text)
	} else {
		_, err = io.WriteString(s.Out, text)
	}
	return err
}

// final shows nothing before the end.
type final struct{ screen Screen }

func (final) Begin(*pb.Measurement)                {}
func (final) Update(*pb.Measurement, []*pb.Result) {}
func (final) Abort()                               {}

// Waiting says why nothing comes.
func (f final) Waiting() { f.screen.waiting() }

// End writes the whole measurement.
func (f final) End(m *pb.Measurement) error {
	s := f.screen
	switch s.Format {
	case JSON:
		return WriteJSON(s.Out, m)
	case CSV:
		if isPropagation(m.GetSpec().GetDns()) {
			return writePropagationCSV(s.Out, m)
		}
		return writeCSV(s.Out, m)
	case JUnit:
		return writeJUnit(s.Out, m)
	case Table, JSONL:
	}
	if s.Short && m.GetSpec().GetDns() != nil {
		return writeShort(s.Out, s.Err, m)
	}
	return s.print(s.whole(m))
}

// announce says what is asked, of how many.
func announce(w io.Writer, m *pb.Measurement) {
	fmt.Fprintf(w, "%s: %s asked, %s\n", asked(m), agents(m.GetLedger().GetAsked()), Clean(m.GetId()))
}

// now is the coordinator's time while its measurement is news, and the time of whoever looks at it later.
func (s Screen) now(m *pb.Measurement) time.Time {
	if s.still || m.GetFinishTime() == nil {
		return time.Now()
	}
	return m.GetFinishTime().AsTime()
}

// brief says whether an answer is shown in place of what each agent saw: who serves what, or whether an
// origin can be served.
func (s Screen) brief(m *pb.Measurement) bool {
	return !s.Verbose && (isPropagation(m.GetSpec().GetDns()) || m.GetSpec().GetOrigin() != nil)
}

// spread is who serves what, where that is the question; in depth also in the judge's own words.
func (s Screen) spread(m *pb.Measurement) []string {
	width, _ := s.size()
	lines := propagation(m, s.theme(), s.now(m))
	if s.Verbose {
		lines = append(lines, paragraph("", PropagationOf(m).GetSummary(), width)...)
	}
	return lines
}

// answers are such an answer, and what is remarkable beside it.
func (s Screen) answers(m *pb.Measurement, t theme) []string {
	width, _ := s.size()
	switch {
	case !s.brief(m):
	case PropagationOf(m) != nil:
		return append(s.spread(m), merged(m, t, besidePropagation)...)
	case m.GetSpec().GetOrigin() != nil && len(m.GetVerdict().GetFindings()) > 0:
		return append(served(m, t, width), shared(m, t)...)
	}
	return served(m, t, width)
}

// whole is a measurement in words, with what was asked.
func (s Screen) whole(m *pb.Measurement) []string {
	return append([]string{s.theme().strong.Render(asked(m))}, s.answered(m)...)
}

// answered is a measurement in words: the answer, or a row for each agent, and the conclusion.
func (s Screen) answered(m *pb.Measurement) []string {
	width, _ := s.size()
	t := s.theme()
	out := s.answers(m, t)
	if len(out) > 0 && s.brief(m) {
		return append(out, conclusion(m, t, width)...)
	}
	all := rows(m, m.GetResults())
	if len(all) > maxRows && !s.Verbose {
		all = byRegion(all)
	}
	cols := fit(all, width)
	for _, r := range all {
		out = append(out, cols.lines(r, t, width)...)
		if s.Verbose {
			out = append(out, inDepth(m, r.result)...)
		}
	}
	if !s.Verbose {
		out = append(out, shared(m, t)...)
	}
	out = append(out, s.spread(m)...)
	return append(out, conclusion(m, t, width)...)
}

// lines are the lines of one row; what does not fit continues under its own column.
func (c columns) lines(r row, t theme, width int) []string {
	head := c.head(r)
	indent := lipgloss.Width(head)
	left := 0
	if width > 0 {
		left = max(20, width-indent)
	}
	items := r.items()
	for i := range items {
		style := t.mark(r.mark())
		if i < len(r.sights) {
			style = t.mark(r.sights[i].mark)
		}
		items[i] = style.Render(items[i])
	}
	out := wrap(items, left)
	for i := range out {
		if i == 0 {
			out[i] = head + out[i]
		} else {
			out[i] = strings.Repeat(" ", indent) + out[i]
		}
	}
	return out
}

// noAnswer is said while the coordinator is lost sight of.
const noAnswer = "the coordinator does not answer; still trying"

// waiting says so beside the data.
func (s Screen) waiting() { fmt.Fprintln(s.Err, "elsewhere: "+noAnswer) }

// lines writes a JSON line for each result as it comes, and one for the measurement at the end.
type lines struct {
	screen Screen
	err    error
}

func (*lines) Begin(*pb.Measurement) {}
func (*lines) Abort()                {}

// Update writes the new results.
func (l *lines) Update(_ *pb.Measurement, fresh []*pb.Result) {
	for _, r := range fresh {
		if l.err == nil {
			l.err = writeJSONLine(l.screen.Out, r)
		}
	}
}

// Waiting says why nothing comes.
func (l *lines) Waiting() { l.screen.waiting() }

// End writes the measurement without the results, which are there already.
func (l *lines) End(m *pb.Measurement) error {
	if l.err != nil {
		return l.err
	}
	results := m.Results
	m.Results = nil
	defer func() { m.Results = results }()
	return writeJSONLine(l.screen.Out, m)
}

// plain writes a line for each agent as it answers, and the findings at the end.
type plain struct {
	screen Screen
	m      *pb.Measurement
	cols   columns
	done   []string
	err    error
}

// Begin says what is asked, which is not data.
func (p *plain) Begin(m *pb.Measurement) {
	p.m = m
	announce(p.screen.Err, m)
}

// Update writes the agents that answered.
func (p *plain) Update(m *pb.Measurement, fresh []*pb.Result) {
	if p.screen.brief(m) {
		return
	}
	all := rows(m, fresh)
	next := fit(all, 0)
	p.cols = columns{max(p.cols.region, next.region), max(p.cols.agent, next.agent), max(p.cols.place, next.place)}
	for _, r := range all {
		answered := slices.ContainsFunc(fresh, func(f *pb.Result) bool { return Clean(f.GetAgent()) == r.agent })
		if answered {
			p.row(r)
			p.done = append(p.done, r.agent)
		}
	}
}

// Waiting says why nothing comes.
func (p *plain) Waiting() { p.screen.waiting() }

// End writes the agents that did not answer, and the conclusion.
func (p *plain) End(m *pb.Measurement) error {
	if p.screen.brief(m) {
		return p.screen.print(p.screen.answered(m))
	}
	all := rows(m, m.GetResults())
	p.cols = fit(all, 0)
	for _, r := range all {
		if !slices.Contains(p.done, r.agent) {
			p.row(r)
		}
	}
	p.write(served(m, theme{}, 0))
	if !p.screen.Verbose {
		p.write(shared(m, theme{}))
	}
	p.write(p.screen.spread(m))
	p.write(conclusion(m, theme{}, 0))
	return p.err
}

// row writes an agent.
func (p *plain) row(r row) {
	p.write(p.cols.lines(r, theme{}, 0))
	if p.screen.Verbose {
		p.write(inDepth(p.m, r.result))
	}
}

// Abort has nothing to clear away.
func (*plain) Abort() {}

// write writes lines and keeps the first error.
func (p *plain) write(lines []string) {
	if p.err == nil {
		p.err = p.screen.print(lines)
	}
}
