package render

import (
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// What takes a painting away (ECMA-48: CUU, ED).
const (
	cursorUp   = "\x1b[A"
	eraseBelow = "\x1b[J"
)

// drawable is a model that says which lines it draws.
type drawable interface {
	tea.Model
	lines() []string
}

// painting draws a model on a terminal until it is cleared away. A nil painting draws nothing.
type painting struct {
	out     io.Writer
	program *tea.Program
	drawn   chan int // how many lines were drawn last, when it is over
}

// over tells a model that it is.
type over struct{}

// paint begins to draw. It reads no keys, so that Ctrl-C stays a signal, and asks the terminal nothing,
// since nobody would read what it answers.
func paint(s Screen, m drawable) *painting {
	width, height := s.cells()
	p := &painting{out: s.Out, drawn: make(chan int, 1), program: tea.NewProgram(m,
		tea.WithInput(nil), tea.WithOutput(s.Out), tea.WithoutSignalHandler(), tea.WithWindowSize(width, height), tea.WithEnvironment(quiet()))}
	go func() {
		last, err := p.program.Run()
		if shown, ok := last.(drawable); ok && err == nil {
			p.drawn <- len(shown.lines())
		}
		close(p.drawn) // what cannot be drawn is no reason to stop measuring
	}()
	return p
}

// cells is the size of a terminal, also of one that does not say, such as a serial line.
func (s Screen) cells() (width, height int) {
	if width, height = s.size(); width == 0 || height == 0 {
		return 80, 24
	}
	return width, height
}

// send tells the model something.
func (p *painting) send(msg tea.Msg) {
	if p != nil {
		p.program.Send(msg)
	}
}

// clear takes the painting away. bubbletea leaves the last frame standing, with the cursor on its last line.
func (p *painting) clear() {
	if p == nil {
		return
	}
	p.program.Send(over{})
	if n := <-p.drawn; n > 0 {
		_, _ = io.WriteString(p.out, "\r"+strings.Repeat(cursorUp, n-1)+eraseBelow)
	}
}
