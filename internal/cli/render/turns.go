package render

import (
	"fmt"
	"io"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Turns shows one propagation that is asked again and again. Turn comes after each measurement, with the
// time until the next one; Trouble where a turn did not come to its end; End once, with the last measurement
// and its results. Abort gives back the terminal; End may still come.
type Turns interface {
	Turn(m *pb.Measurement, next time.Duration) error
	Trouble(why string, next time.Duration)
	End(m *pb.Measurement) error
	Abort()
}

// Turns returns what shows turns in the screen's format; left is the time that they may take. JSON, CSV and
// JUnit are one document, of the last measurement; JSON lines a line for each turn; a terminal has bars
// that fill, and a pipe a line for each change.
func (s Screen) Turns(left time.Duration) Turns {
	switch {
	case s.Format == JSONL:
		return &turnLines{screen: s}
	case s.Format != Table && s.Format != "":
		return silentTurns{final{s}}
	case s.Terminal:
		return newBoard(s, left)
	}
	return &turnChanges{screen: s}
}

// silentTurns show the last measurement alone.
type silentTurns struct{ final }

// Turn shows nothing.
func (silentTurns) Turn(*pb.Measurement, time.Duration) error { return nil }

// Trouble is not data.
func (s silentTurns) Trouble(why string, next time.Duration) { trouble(s.screen.Err, why, next) }

// trouble says that a turn did not come to its end.
func trouble(w io.Writer, why string, next time.Duration) {
	fmt.Fprintf(w, "%s; again in %s\n", Clean(why), rough(next))
}

// turnLines are a JSON line for each measurement, without its results.
type turnLines struct{ screen Screen }

// Turn writes the line.
func (l *turnLines) Turn(m *pb.Measurement, _ time.Duration) error {
	return (&lines{screen: l.screen}).End(m)
}

// Trouble is not data.
func (l *turnLines) Trouble(why string, next time.Duration) { trouble(l.screen.Err, why, next) }

// End has nothing to add.
func (*turnLines) End(*pb.Measurement) error { return nil }

// Abort has nothing to clear away.
func (*turnLines) Abort() {}

// turnChanges are a line for the sum at first and whenever it changes, and one for each perspective that
// has changed since the turn before.
type turnChanges struct {
	screen Screen
	before map[string]string // what each perspective served; of one turn, so that it does not grow
	sum    string
}

// Turn writes what has changed.
func (c *turnChanges) Turn(m *pb.Measurement, next time.Duration) error {
	p := PropagationOf(m).GetPropagation()
	now := c.screen.now(m)
	clock := now.Local().Format("15:04:05") + gap
	if c.before == nil {
		announce(c.screen.Err, m)
	}
	var changed [][]string
	served := map[string]string{}
	for _, one := range p.GetPerspectives() {
		key := one.GetRegion() + " " + one.GetServer()
		served[key] = serves(one)
		if was, known := c.before[key]; known && was != served[key] {
			changed = append(changed, []string{clock + Clean(one.GetRegion()), perspectiveMark(one).String(), Clean(one.GetServer()), resolverOf(one), served[key]})
		}
	}
	out := grid(changed)
	sum := fmt.Sprint(p.GetServing(), p.GetJudged(), p.GetUnknown(), len(p.GetAuthorities()))
	if sum != c.sum {
		out = append(out, clock+turnSum(m, now))
	}
	c.before, c.sum = served, sum
	return c.screen.print(out)
}

// turnSum is the sum of a turn.
func turnSum(m *pb.Measurement, now time.Time) string {
	if PropagationOf(m) == nil {
		return "nothing could be judged: " + ledger(m.GetLedger())
	}
	return headline(m, now)
}

// Trouble is not data.
func (c *turnChanges) Trouble(why string, next time.Duration) { trouble(c.screen.Err, why, next) }

// End writes how it stands.
func (c *turnChanges) End(m *pb.Measurement) error {
	if c.before == nil {
		announce(c.screen.Err, m)
	}
	return c.screen.print(c.screen.answered(m))
}

// Abort has nothing to clear away.
func (*turnChanges) Abort() {}
