package render

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progressInterval is the time between two looks at how far something is.
const progressInterval = 100 * time.Millisecond

// Progress shows how far something is that has a size, in one line that is written over, where somebody can
// see it: on a terminal. Elsewhere it shows nothing. Its zero value shows nothing.
type Progress struct {
	out   io.Writer // nil: nobody sees it
	shown time.Time
}

// NewProgress makes a Progress on errs.
func NewProgress(errs io.Writer, getenv func(string) string) *Progress {
	f, ok := errs.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || getenv("CI") != "" || getenv("TERM") == "dumb" {
		return &Progress{}
	}
	return &Progress{out: errs}
}

// Show says how many bytes of how many are done; the second is about right, or 0.
func (p *Progress) Show(what string, done, of int64) {
	if p.out == nil || time.Since(p.shown) < progressInterval {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.out, "\r\x1b[K%s: %s", what, Bytes(done))
	if of >= done {
		fmt.Fprintf(p.out, " of about %s", Bytes(of))
	}
}

// End takes the line away.
func (p *Progress) End() {
	if p.out != nil && !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// Bytes is a size for people: 999 B, 1.5 kB, 20 MB.
func Bytes(n int64) string {
	value, unit := float64(n), 0
	for value >= 999.5 && unit < 4 {
		value /= 1000
		unit++
	}
	if unit == 0 || value >= 9.95 {
		return fmt.Sprintf("%.0f %s", value, [...]string{"B", "kB", "MB", "GB", "TB"}[unit])
	}
	return fmt.Sprintf("%.1f %s", value, [...]string{"B", "kB", "MB", "GB", "TB"}[unit])
}
