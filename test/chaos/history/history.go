// Package history judges what a network of Elsewhere did while it was being hurt: from what each agent
// attempted, wrote and was told, and what the coordinator shows in the end, it finds what was lost, counted
// twice, or made up. It is pure; how the history came about is package chaos's to know.
//
// The categories are those of Jepsen's checkers for queues and sets. A result that an agent attempted is
//
//	ok       the coordinator shows it
//	lost     it was acknowledged and is not shown: never allowed
//	unknown  not acknowledged, and its agent died or was cut off: nobody promised anything
//	dropped  given up, and said so
//	missing  none of that: a silent gap, never allowed
//
// and what the coordinator shows is a phantom if nobody attempted it, and a duplicate if it is there twice.
package history

import (
	"slices"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// Job is what can be counted once: one agent's part of one measurement.
type Job struct {
	Measurement string
	Round       int32
	Agent       string
}

// Fact is a result as the coordinator shows it.
type Fact struct {
	Job
	Digest string
	Late   bool
}

// Life is what one process with one spool did: its events in order, and when it died.
type Life struct {
	// Agent is the agent's name; a clone has that of its original.
	Agent string
	// Events are in the order in which they were written.
	Events []chaos.Event
	// Deaths are when the process was killed, or its machine lost power.
	Deaths []time.Time
	// Gone says that it never came back: what was not acknowledged may be lost with it.
	Gone bool
	// Captive is when a thief stood in the coordinator's place: what he acknowledged nobody else has.
	Captive []Span
	// Spoiled is when results were written of which nobody knows how many there were: the file has a record there that does
	// not say where the next one begins.
	Spoiled []Span
}

// Span is a time from the first to the last moment.
type Span struct{ First, Last time.Time }

// captive tells whether it was a thief who spoke at a time.
func (l *Life) captive(at time.Time) bool { return Within(l.Captive, at) }

// Within tells whether a time is in one of some spans.
func Within(spans []Span, at time.Time) bool {
	return slices.ContainsFunc(spans, func(s Span) bool { return !at.Before(s.First) && !at.After(s.Last) })
}

// History is a whole run.
type History struct {
	// Lives are the agents' processes, by the name of their data directory.
	Lives map[string]*Life
	// Folded is what the coordinator shows in the end, in its order.
	Folded []Fact
	// Shown is what it showed to somebody before: that must not change any more.
	Shown []Fact
	// Opened is the measurements that somebody was told were open.
	Opened []string
	// Mute tells which agents tell nothing of themselves. Their results are counted and not compared.
	Mute func(agent string) bool
	// Foreign tells which measurements are not the coordinator's, but a thief's: nothing of them may be there.
	Foreign func(measurement string) bool
	// Tallies are the measurements' ledgers in the end.
	Tallies []Tally
	// Deliveries is what the coordinator says that it knows of each agent's spool in the end. An agent that is
	// not there is not checked.
	Deliveries map[string]Delivery
}

// Tally is the ledger of one measurement.
type Tally struct {
	Measurement                                string
	Closed                                     bool
	Asked, Answered, Lost, Refused, Ineligible int
	Late                                       int
}

// Report is the judgement.
type Report struct {
	Attempted   int `json:"attempted"`   // results that agents made
	Acked       int `json:"acked"`       // of them, acknowledged
	Folded      int `json:"folded"`      // results that the coordinator shows
	Late        int `json:"late"`        // of them, after their measurement was closed
	Lost        int `json:"lost"`        // acknowledged, and not shown
	Duplicate   int `json:"duplicate"`   // shown more than once
	Phantom     int `json:"phantom"`     // shown, and never attempted
	Unknown     int `json:"unknown"`     // attempted by an agent that died before it was acknowledged, and not shown
	Dropped     int `json:"dropped"`     // given up, and said so
	Missing     int `json:"missing"`     // none of that
	Equivocated int `json:"equivocated"` // of a clone: its number was another result's
	Taken       int `json:"taken"`       // acknowledged by a thief in the coordinator's place, and not shown
	Foreign     int `json:"foreign"`     // results that a thief asked for: none may be shown
	Numbers     int `json:"numbers"`     // numbers of spools that the coordinator says it knows about
	Given       int `json:"given_up"`    // of them, given up by their agents: exactly what these say
	RunTwice    int `json:"run_twice"`   // jobs with more than one result, of which one counts
	Changed     int `json:"changed"`     // shown to somebody once, and different or gone in the end
	Unbalanced  int `json:"unbalanced"`  // ledgers that do not sum, or do not end

	// Violations says what is wrong, in words; the first of each kind.
	Violations []string `json:"violations"`
}

// Ok tells whether nothing is wrong.
func (r *Report) Ok() bool { return len(r.Violations) == 0 }
