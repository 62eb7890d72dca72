package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// grace is how long before its death a process may have made a result that nobody heard of: the job is done,
// the spool is written and forced to disk, one after the other.
const grace = 2 * time.Second

// examples is how many violations of a kind are said in words.
const examples = 5

// place is a number of one life's spool.
type place struct{ epoch, seq uint64 }

// attempt is one result that a process made.
type attempt struct {
	Job
	digest string
	at     time.Time
	fate   fate
	known  time.Time // when it was acknowledged
}

// fate is what became of an attempt, as far as its own process knows.
type fate int

const (
	pending fate = iota
	acked
	dropped
	equivocated
	taken // acknowledged by a thief
)

// checker collects what a check needs to know.
type checker struct {
	*Report
	history  *History
	attempts map[Job][]*attempt
	lives    map[*attempt]*Life
	folded   map[Job]string
	said     map[string]int
}

// Check judges a history.
func Check(h *History) *Report {
	c := &checker{
		Report: &Report{Violations: []string{}}, history: h,
		attempts: map[Job][]*attempt{}, lives: map[*attempt]*Life{}, folded: map[Job]string{}, said: map[string]int{},
	}
	places := map[string]map[place]*attempt{} // agent → what stands where
	for _, name := range sorted(h.Lives) {
		c.follow(h.Lives[name], places)
	}
	c.checkFolded()
	c.checkShown()
	for _, attempts := range c.attempts {
		c.checkJob(attempts)
	}
	c.checkTallies()
	for _, agent := range sorted(h.Deliveries) {
		c.checkDelivery(agent, h.Deliveries[agent])
	}
	return c.Report
}

// violation notes that something is wrong.
func (c *checker) violation(kind, format string, args ...any) {
	c.said[kind]++
	if c.said[kind] <= examples {
		c.Violations = append(c.Violations, kind+": "+fmt.Sprintf(format, args...))
	}
}

// follow goes through one life and finds what became of each of its attempts. A number is that of the last
// result that was to be written under it: a write that failed leaves it to the next.
func (c *checker) follow(life *Life, places map[string]map[place]*attempt) {
	if places[life.Agent] == nil {
		places[life.Agent] = map[place]*attempt{}
	}
	mine := map[place]*attempt{}
	for _, e := range life.Events {
		job := Job{e.Measurement, e.Round, life.Agent}
		switch e.Op {
		case chaos.Attempted:
			a := &attempt{Job: job, digest: e.Digest, at: e.At()}
			c.attempts[job] = append(c.attempts[job], a)
			c.lives[a] = life
			c.Attempted++
		case chaos.Spooling:
			c.write(life, e, mine, places[life.Agent])
		case chaos.Moved: // the place before is not forgotten: the move may not come to its end
			if a := mine[place{e.FromEpoch, e.FromSeq}]; a != nil {
				mine[place{e.Epoch, e.First}] = a
			}
		case chaos.Discarded:
			if a := c.find(life, job, e.Digest); a != nil && a.fate == pending {
				a.fate = dropped
			}
		case chaos.Acked, chaos.Dropped:
			settle(e, mine, life.captive(e.At()))
		case chaos.Connected, chaos.Dying, chaos.Running: // nothing about results
		}
	}
}

// write notes what is to stand under a number. If another process has written something else under it, which
// of the two counts is not for us to say, unless the other was acknowledged before.
func (c *checker) write(life *Life, e chaos.Event, mine, all map[place]*attempt) {
	a := c.find(life, Job{e.Measurement, e.Round, life.Agent}, e.Digest)
	if a == nil {
		c.violation("unattempted", "%s wrote number %d, which no job made", life.Agent, e.First)
		return
	}
	at := place{e.Epoch, e.First}
	if other := all[at]; other != nil && c.lives[other] != life && other.digest != a.digest {
		a.fate = equivocated
		if other.fate != acked || other.known.After(a.at) {
			other.fate = equivocated
		}
	}
	all[at], mine[at] = a, a
}

// find is the newest attempt of a life with this digest, nil if there is none.
func (c *checker) find(life *Life, job Job, digest string) *attempt {
	for _, a := range slices.Backward(c.attempts[job]) {
		if a.digest == digest && c.lives[a] == life {
			return a
		}
	}
	return nil
}

// settle notes what became of numbers. Captive tells that it was a thief who acknowledged them.
func settle(e chaos.Event, mine map[place]*attempt, captive bool) {
	for at, a := range mine {
		if at.epoch != e.Epoch || at.seq < e.First || at.seq > e.Last || a.fate == equivocated {
			continue
		}
		switch {
		case e.Op == chaos.Acked && captive:
			a.fate = taken
		case e.Op == chaos.Acked:
			a.fate, a.known = acked, e.At()
		case a.fate == pending:
			a.fate = dropped
		}
		delete(mine, at)
	}
}

// checkFolded looks for what is there twice, and for what nobody made.
func (c *checker) checkFolded() {
	for _, f := range c.history.Folded {
		c.Folded++
		if f.Late {
			c.Late++
		}
		if _, twice := c.folded[f.Job]; twice {
			c.Duplicate++
			c.violation("duplicate", "%s of %s is there twice", f.Agent, f.Measurement)
			continue
		}
		c.folded[f.Job] = f.Digest
		if c.foreign(f.Measurement) {
			c.Phantom++
			c.violation("phantom", "%s of %s is there, which a thief asked for", f.Agent, f.Measurement)
			continue
		}
		if c.history.Mute != nil && c.history.Mute(f.Agent) {
			continue
		}
		if !slices.ContainsFunc(c.attempts[f.Job], func(a *attempt) bool { return a.digest == f.Digest }) {
			c.Phantom++
			c.violation("phantom", "%s of %s is none of the %d results that its agent made", f.Agent, f.Measurement, len(c.attempts[f.Job]))
		}
	}
}

// checkShown compares what somebody saw with what is there in the end.
func (c *checker) checkShown() {
	for _, f := range c.history.Shown {
		if digest, ok := c.folded[f.Job]; !ok || digest != f.Digest {
			c.Changed++
			c.violation("changed", "%s of %s was shown and is not so any more (there: %t)", f.Agent, f.Measurement, ok)
		}
	}
}

// foreign tells whether a measurement is a thief's.
func (c *checker) foreign(measurement string) bool {
	return c.history.Foreign != nil && c.history.Foreign(measurement)
}

// checkJob judges what became of all attempts of one job.
func (c *checker) checkJob(attempts []*attempt) {
	if c.foreign(attempts[0].Measurement) {
		c.Foreign += len(attempts)
		return
	}
	if len(attempts) > 1 {
		c.RunTwice++
	}
	_, there := c.folded[attempts[0].Job]
	for _, a := range attempts {
		if a.fate == acked {
			c.Acked++
		}
		switch {
		case there:
		case a.fate == acked:
			c.Lost++
			c.violation("lost", "%s of %s was acknowledged and is gone", a.Agent, a.Measurement)
		case a.fate == dropped:
			c.Dropped++
		case a.fate == taken:
			c.Taken++
		case a.fate == equivocated:
			c.Equivocated++
		case c.excused(a):
			c.Unknown++
		default:
			c.Missing++
			c.violation("missing", "%s of %s (made at %s) is not there, and nobody said why", a.Agent, a.Measurement, a.at.Format(time.TimeOnly))
		}
	}
}

// excused tells whether the process of an attempt died before it could have said more, or cannot know of it any more.
func (c *checker) excused(a *attempt) bool {
	life := c.lives[a]
	return life.Gone || Within(life.Spoiled, a.at) || slices.ContainsFunc(life.Deaths, func(death time.Time) bool {
		return !a.at.After(death) && death.Sub(a.at) < grace
	})
}

// checkTallies looks at the ledgers.
func (c *checker) checkTallies() {
	answered, late := map[string]int{}, map[string]int{}
	for _, f := range c.history.Folded {
		if f.Late {
			late[f.Measurement]++
		} else {
			answered[f.Measurement]++
		}
	}
	there := map[string]bool{}
	for _, t := range c.history.Tallies {
		there[t.Measurement] = true
		switch {
		case !t.Closed:
			c.Unbalanced++
			c.violation("endless", "%s is not closed", t.Measurement)
		case t.Asked != t.Answered+t.Lost+t.Refused+t.Ineligible:
			c.Unbalanced++
			c.violation("ledger", "of %s: %d asked, %d answered, %d lost, %d refused, %d ineligible",
				t.Measurement, t.Asked, t.Answered, t.Lost, t.Refused, t.Ineligible)
		case t.Answered != answered[t.Measurement] || t.Late != late[t.Measurement]:
			c.Unbalanced++
			c.violation("ledger", "%s says that %d answered and %d came late; %d and %d results are there",
				t.Measurement, t.Answered, t.Late, answered[t.Measurement], late[t.Measurement])
		}
	}
	for _, id := range c.history.Opened {
		if !there[id] {
			c.Unbalanced++
			c.violation("unopened", "%s was open and is gone", id)
		}
	}
}
