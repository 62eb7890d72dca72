package render

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// board shows a propagation that is asked again and again, on a terminal: bars that fill. When it is over
// it is taken away, and how things stand is written as text.
type board struct {
	screen   Screen
	painting *painting
}

// newBoard starts the bars; left is the time that there is.
func newBoard(s Screen, left time.Duration) *board {
	now := time.Now()
	return &board{screen: s, painting: paint(s, &bars{end: now.Add(left), now: now, theme: colours()})}
}

// Turn draws what is known now.
func (b *board) Turn(m *pb.Measurement, next time.Duration) error {
	b.painting.send(turned{m: m, next: next, behind: time.Since(b.screen.now(m))})
	return nil
}

// Trouble draws what went wrong under the bars.
func (b *board) Trouble(why string, next time.Duration) {
	b.painting.send(turned{why: why, next: next})
}

// End replaces the bars by text.
func (b *board) End(m *pb.Measurement) error {
	b.Abort()
	return b.screen.print(b.screen.whole(m))
}

// Abort takes the bars away.
func (b *board) Abort() {
	b.painting.clear()
	b.painting = nil
}

// turned is a turn that came to its end, or why it did not.
type turned struct {
	m      *pb.Measurement
	why    string
	next   time.Duration
	behind time.Duration // how far the coordinator's clock is behind this one
}

// bars are a bar for all, and one for each region.
type bars struct {
	m             *pb.Measurement
	why           string
	turn          int
	behind        time.Duration
	now, at, end  time.Time // at is when the next turn is
	width, height int
	theme         theme
}

// Init starts the clock.
func (*bars) Init() tea.Cmd { return second() }

// second is the clock's next tick.
func second() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tick(t) })
}

// Update takes what changed.
func (b *bars) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		b.width, b.height = msg.Width, msg.Height
	case tick:
		b.now = time.Time(msg)
		return b, second()
	case turned:
		b.at, b.why = b.now.Add(msg.next), msg.why
		if msg.m != nil {
			b.m, b.behind = msg.m, msg.behind
			b.turn++
		}
	case over:
		return b, tea.Quit
	}
	return b, nil
}

// View is the bars as they stand.
func (b *bars) View() tea.View {
	return tea.View{DisableBracketedPasteMode: true, Content: strings.Join(b.lines(), "\n")}
}

// lines are the bars, never more of them than the terminal is high.
func (b *bars) lines() []string {
	out := []string{b.theme.faint.Render("asking for the first time …")}
	if b.m != nil {
		p := PropagationOf(b.m).GetPropagation()
		out = []string{
			b.theme.strong.Render(asked(b.m)),
			turnSum(b.m, b.now.Add(-b.behind)),
			b.theme.strong.Render(bar(p.GetServing(), p.GetJudged(), 2*barCells)) + gap + fmt.Sprintf("%d/%d", p.GetServing(), p.GetJudged()),
		}
		out = append(out, regionBars(p, b.theme)...)
	}
	foot := b.foot()
	if room := b.height - len(foot) - 1; b.height > 0 && len(out) > room { // the last line is the shell's
		out = out[:max(1, room)]
	}
	out = append(out, foot...)
	for i := range out {
		out[i] = cut(out[i], b.width)
	}
	return out
}

// foot is what comes next, and what went wrong.
func (b *bars) foot() []string {
	if b.turn == 0 && b.why == "" {
		return nil
	}
	next := "asking"
	if b.at.After(b.now) {
		next = "next in " + rough(b.at.Sub(b.now))
	}
	lines := []string{b.theme.faint.Render(fmt.Sprintf("turn %d · %s · until %s, or Ctrl-C", b.turn, next, moment(b.end, b.now)))}
	if b.why != "" {
		lines = append(lines, b.theme.warn.Render(Clean(b.why)))
	}
	return lines
}
