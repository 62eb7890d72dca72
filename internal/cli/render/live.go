package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxRows is how many agents are shown one by one; more are folded by region.
	maxRows = 40
	// frame is how often the spinner turns.
	frame = 120 * time.Millisecond
	// spinner is what turns.
	spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
)

// live shows a table that fills in, on a terminal. When the measurement is over the table is taken
// away and written once more as text, so that a long one can be scrolled.
type live struct {
	screen   Screen
	painting *painting
}

// Begin starts the table.
func (l *live) Begin(m *pb.Measurement) {
	table := newModel(m, time.Now())
	table.width, table.height = l.screen.cells()
	l.painting = paint(l.screen, table)
}

// Update passes on what changed, while there is a table.
func (l *live) Update(m *pb.Measurement, fresh []*pb.Result) { l.painting.send(changed{m, fresh}) }

// Waiting says in the table's head why nothing comes.
func (l *live) Waiting() { l.painting.send(silence{}) }

// End replaces the table by text.
func (l *live) End(m *pb.Measurement) error {
	l.Abort()
	return l.screen.print(l.screen.whole(m))
}

// Abort takes the table away and gives the terminal back.
func (l *live) Abort() {
	l.painting.clear()
	l.painting = nil
}

// changed, silence and tick are what the model is told.
type (
	silence struct{}
	changed struct {
		m     *pb.Measurement
		fresh []*pb.Result
	}
	tick time.Time
)

// model is the live table.
type model struct {
	m             *pb.Measurement
	results       map[string]*pb.Result
	width, height int
	start, now    time.Time
	turn          int
	silent        bool // the coordinator does not answer
	theme         theme
}

// newModel is a table without answers.
func newModel(m *pb.Measurement, now time.Time) *model {
	return &model{m: m, results: map[string]*pb.Result{}, start: now, now: now, theme: colours()}
}

// Init starts the spinner.
func (*model) Init() tea.Cmd { return next() }

// next turns the spinner once more.
func next() tea.Cmd {
	return tea.Tick(frame, func(t time.Time) tea.Msg { return tick(t) })
}

// Update takes what changed.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tick:
		m.now, m.turn = time.Time(msg), m.turn+1
		return m, next()
	case changed:
		m.silent = false
		m.take(msg)
	case silence:
		m.silent = true
	case over:
		return m, tea.Quit
	}
	return m, nil
}

// take keeps the newest state, and the first result of each agent.
func (m *model) take(c changed) {
	m.m = c.m
	for _, r := range c.fresh {
		if _, ok := m.results[r.GetAgent()]; !ok {
			m.results[r.GetAgent()] = r
		}
	}
}

// View is the table as it stands.
func (m *model) View() tea.View {
	return tea.View{DisableBracketedPasteMode: true, Content: strings.Join(m.lines(), "\n")}
}

// lines are the table, never more of them than the terminal is high.
func (m *model) lines() []string {
	all := rows(m.m, slices.Collect(maps.Values(m.results)))
	limit := maxRows
	if m.height > 0 {
		limit = max(1, min(limit, m.height-3)) // the head, a rest, and the shell's line
	}
	if len(all) > limit {
		all = byRegion(all)
	}
	rest := 0
	if len(all) > limit {
		all, rest = all[:limit], len(all)-limit
	}
	cols := fit(all, m.width)
	out := []string{cut(m.head(), m.width)}
	for _, r := range all {
		out = append(out, m.line(r, cols))
	}
	if rest > 0 {
		out = append(out, m.theme.faint.Render(fmt.Sprintf("… and %d more regions", rest)))
	}
	return out
}

// head is the first line: what is asked, how many answered, and for how long it goes on.
func (m *model) head() string {
	count := fmt.Sprintf("%d of %d answered", len(m.results), m.m.GetLedger().GetAsked())
	if m.silent {
		count = noAnswer
	}
	return m.theme.strong.Render(asked(m.m)) + gap + m.theme.faint.Render(count+" · "+human(max(0, m.now.Sub(m.start))))
}

// line is one agent on one line: the answers while they fit, else the first ones, the worst first.
func (m *model) line(r row, cols columns) string {
	sign := r.mark().String()
	if r.mark() == markWaiting {
		frames := []rune(spinner)
		sign = string(frames[m.turn%len(frames)])
	}
	slices.SortStableFunc(r.sights, func(a, b sight) int { return int(worse(a.mark)) - int(worse(b.mark)) })
	sign = m.theme.mark(r.mark()).Render(sign)
	return cut(sign+" "+cols.lines(r, m.theme, 0)[0], m.width)
}

// worse orders marks: what failed first.
func worse(m mark) mark {
	if m == markFail {
		return markWaiting
	}
	return m
}
