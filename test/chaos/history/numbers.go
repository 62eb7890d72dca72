package history

import (
	"maps"
	"slices"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// Delivery is what the coordinator says that it knows of the newest epoch of a spool.
type Delivery struct {
	Epoch, Highest uint64
	// Missing is how many numbers up to the highest neither came nor were given up.
	Missing uint64
	// Dropped is how many the agent gave up.
	Dropped uint64
}

// written is a result, as it is known by its number.
type written struct {
	Job
	digest string
}

// number is what its agent knows of one number of its spool.
type number struct {
	written
	acked bool // what came of it is known to the coordinator: a result, or that there is none
	kept  bool // it was acknowledged before anybody gave it up
	given bool // it was given up
}

// spool is what all processes that spoke as an agent know of one epoch.
type spool struct {
	numbers map[uint64]*number
	// gone says that one of the processes did not come back: what it delivered last it may not have noted.
	gone bool
}

func (s *spool) at(seq uint64) *number {
	n := s.numbers[seq]
	if n == nil {
		n = &number{}
		s.numbers[seq] = n
	}
	return n
}

// note takes up what an event says of its numbers.
func (s *spool) note(e chaos.Event, what written) {
	for seq := e.First; seq <= e.Last; seq++ {
		switch n := s.at(seq); e.Op {
		case chaos.Spooling, chaos.Moved: // what was to be here before was not written
			n.written, n.given = what, false
		case chaos.Acked:
			n.acked, n.kept = true, n.kept || !n.given
		case chaos.Dropped:
			n.given = true
		case chaos.Attempted, chaos.Discarded, chaos.Connected, chaos.Dying, chaos.Running:
		}
	}
}

// spoolOf is one epoch of an agent's spool, and the newest epoch of which something was acknowledged.
func (c *checker) spoolOf(agent string, epoch uint64) (s *spool, newest uint64) {
	s = &spool{numbers: map[uint64]*number{}}
	for _, life := range c.history.Lives {
		if life.Agent != agent {
			continue
		}
		s.gone = s.gone || life.Gone
		at := map[place]written{}
		for _, e := range life.Events {
			here := place{e.Epoch, e.First}
			switch e.Op {
			case chaos.Spooling:
				at[here] = written{Job{e.Measurement, e.Round, agent}, e.Digest}
			case chaos.Moved:
				at[here] = at[place{e.FromEpoch, e.FromSeq}]
			case chaos.Acked:
				if life.captive(e.At()) {
					continue // somebody else said so
				}
				newest = max(newest, e.Epoch)
			case chaos.Attempted, chaos.Discarded, chaos.Dropped, chaos.Connected, chaos.Dying, chaos.Running:
			}
			if e.Epoch == epoch {
				s.note(e, at[here])
			}
		}
	}
	return s, newest
}

// checkDelivery compares what the coordinator says of an agent's spool with what the agent knows: each number up to
// the highest is acknowledged or missing, and what was given up is exactly what the agent gave up.
func (c *checker) checkDelivery(agent string, d Delivery) {
	s, newest := c.spoolOf(agent, d.Epoch)
	if newest > d.Epoch {
		c.violation("gap", "%s was acknowledged numbers of epoch %d, and the coordinator knows of epoch %d", agent, newest, d.Epoch)
		return
	}
	var acked, given, either uint64
	for _, seq := range slices.Sorted(maps.Keys(s.numbers)) {
		n := s.numbers[seq]
		switch {
		case n.acked && seq > d.Highest:
			c.violation("gap", "number %d of %s was acknowledged, and the coordinator knows of none beyond %d", seq, agent, d.Highest)
			continue
		case seq > d.Highest:
			continue
		case n.acked:
			acked++
		}
		switch {
		case !n.given || n.kept:
		case s.gone, !n.acked, c.folded[n.Job] == n.digest && n.digest != "": // it came all the same, before it was given up
			either++
		default:
			given++
		}
	}
	c.Numbers += int(d.Highest)
	c.Given += int(d.Dropped)
	switch unknown := d.Highest - acked; {
	case d.Missing > unknown:
		c.violation("gap", "of %d numbers of %s the coordinator misses %d; %d of them were acknowledged", d.Highest, agent, d.Missing, acked)
	case !s.gone && d.Missing < unknown:
		c.violation("gap", "of %d numbers of %s the coordinator misses %d; only %d were acknowledged", d.Highest, agent, d.Missing, acked)
	case !s.gone && d.Missing > 0:
		c.violation("gap", "of the numbers of %s, %d neither came nor were given up", agent, d.Missing)
	}
	if d.Dropped < given || d.Dropped > given+either {
		c.violation("gap", "%s gave up %d numbers, and perhaps %d more; the coordinator says %d", agent, given, either, d.Dropped)
	}
}
