package history

import (
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// second is the time of an event that happened so many seconds after the beginning.
func second(n int) int64 { return int64(n) * int64(time.Second) }

func attempted(t int, m, digest string) chaos.Event {
	return chaos.Event{Time: second(t), Op: chaos.Attempted, Measurement: m, Digest: digest}
}

func spooling(t int, m, digest string, seq uint64) chaos.Event {
	return chaos.Event{Time: second(t), Op: chaos.Spooling, Measurement: m, Digest: digest, Epoch: 1, First: seq, Last: seq}
}

func numbers(t int, op chaos.Op, first, last uint64) chaos.Event {
	return chaos.Event{Time: second(t), Op: op, Epoch: 1, First: first, Last: last}
}

// delivered is what an agent does with one result, up to its acknowledgement.
func delivered(t int, m, digest string, seq uint64) []chaos.Event {
	return []chaos.Event{attempted(t, m, digest), spooling(t, m, digest, seq), numbers(t, chaos.Acked, seq, seq)}
}

func fact(m, digest string) Fact { return Fact{Job: Job{Measurement: m, Agent: "a"}, Digest: digest} }

// lives is one life of one agent.
func lives(events ...chaos.Event) map[string]*Life {
	return map[string]*Life{"a": {Agent: "a", Events: events}}
}

func died(l map[string]*Life, at int) map[string]*Life {
	l["a"].Deaths = []time.Time{time.Unix(0, second(at))}
	return l
}

func twoLives(first, second []chaos.Event) map[string]*Life {
	return map[string]*Life{"a": {Agent: "a", Events: first}, "a-clone": {Agent: "a", Events: second}}
}

func TestCheck(t *testing.T) {
	one := delivered(1, "m", "x", 1)
	for _, c := range []struct {
		what  string
		h     History
		says  string // the kind of the violation; "" for none
		count func(*Report) int
	}{
		{"nothing happened", History{}, "", nil},
		{"a result is delivered", History{Lives: lives(one...), Folded: []Fact{fact("m", "x")}}, "", func(r *Report) int { return r.Acked }},
		{"I1: an acknowledged result is gone", History{Lives: lives(one...)}, "lost", func(r *Report) int { return r.Lost }},
		{
			"I1: it is gone although its agent died right after",
			History{Lives: died(lives(one...), 1)},
			"lost", func(r *Report) int { return r.Lost },
		},
		{
			"I1: a number was used twice by one process, and the second result was taken for the first",
			History{Lives: died(lives(append(one, delivered(5, "n", "y", 1)...)...), 2), Folded: []Fact{fact("m", "x")}},
			"lost", func(r *Report) int { return r.Lost },
		},
		{
			"I2: a result is there twice",
			History{Lives: lives(one...), Folded: []Fact{fact("m", "x"), fact("m", "x")}},
			"duplicate", func(r *Report) int { return r.Duplicate },
		},
		{
			"a job was run twice, both were acknowledged, and one is there",
			History{Lives: lives(append(one, delivered(2, "m", "y", 2)...)...), Folded: []Fact{fact("m", "x")}},
			"", func(r *Report) int { return r.RunTwice },
		},
		{
			"I3: a result that nobody made",
			History{Lives: lives(one...), Folded: []Fact{fact("m", "x"), fact("n", "x")}},
			"phantom", func(r *Report) int { return r.Phantom },
		},
		{
			"an agent that tells nothing of itself",
			History{Folded: []Fact{fact("m", "x")}, Mute: func(agent string) bool { return agent == "a" }},
			"", func(r *Report) int { return r.Folded },
		},
		{
			"I3: a result is there with another content",
			History{Lives: lives(one...), Folded: []Fact{fact("m", "z")}},
			"phantom", func(r *Report) int { return r.Phantom },
		},
		{
			"I4: a result is on disk, its agent lives, and nothing comes of it",
			History{Lives: lives(one[:2]...)},
			"missing", func(r *Report) int { return r.Missing },
		},
		{
			"I4: the agent died long after it made the result",
			History{Lives: died(lives(one[:2]...), 60)},
			"missing", func(r *Report) int { return r.Missing },
		},
		{
			"the agent died when it had just made the result",
			History{Lives: died(lives(one[:1]...), 2)},
			"", func(r *Report) int { return r.Unknown },
		},
		{
			"the agent gave it up and said so",
			History{Lives: lives(append(one[:2:2], numbers(2, chaos.Dropped, 1, 1))...)},
			"", func(r *Report) int { return r.Dropped },
		},
		{
			"the agent could not write it",
			History{Lives: lives(append(one[:2:2], chaos.Event{Time: second(2), Op: chaos.Discarded, Measurement: "m", Digest: "x"})...)},
			"", func(r *Report) int { return r.Dropped },
		},
		{
			"it was moved to another epoch, and delivered from there",
			History{
				Lives: lives(append(one[:2:2],
					chaos.Event{Time: second(2), Op: chaos.Moved, FromEpoch: 1, FromSeq: 1, Epoch: 2, First: 9, Last: 9},
					chaos.Event{Time: second(3), Op: chaos.Acked, Epoch: 2, First: 9, Last: 9})...),
			},
			"lost", func(r *Report) int { return r.Lost },
		},
		{
			"a write failed, and the next result got its number",
			History{
				Lives: lives(append([]chaos.Event{
					attempted(1, "m", "x"), spooling(1, "m", "x", 1),
					{Time: second(1), Op: chaos.Discarded, Measurement: "m", Digest: "x"},
				}, delivered(2, "n", "y", 1)...)...),
				Folded: []Fact{fact("n", "y")},
			},
			"", func(r *Report) int { return r.Dropped },
		},
		{
			"two processes with one spool: one number, two results, one is there",
			History{
				Lives:  twoLives([]chaos.Event{attempted(1, "m", "x"), spooling(1, "m", "x", 1), numbers(4, chaos.Acked, 1, 1)}, delivered(2, "n", "y", 1)),
				Folded: []Fact{fact("n", "y")},
			},
			"", func(r *Report) int { return r.Equivocated },
		},
		{
			"I1: the clone's number was acknowledged to the original before, and the original's result is gone",
			History{Lives: twoLives(one, delivered(5, "n", "y", 1)), Folded: []Fact{fact("n", "y")}},
			"lost", func(r *Report) int { return r.Lost },
		},
		{
			"a result was written that no job made",
			History{Lives: lives(spooling(1, "m", "x", 1))},
			"unattempted", nil,
		},
		{
			"what was shown is gone",
			History{Lives: lives(one[:1]...), Shown: []Fact{fact("m", "x")}},
			"changed", func(r *Report) int { return r.Changed },
		},
		{
			"what was shown is another",
			History{Lives: lives(append(one, attempted(2, "m", "y"))...), Shown: []Fact{fact("m", "x")}, Folded: []Fact{fact("m", "y")}},
			"changed", func(r *Report) int { return r.Changed },
		},
		{
			"a measurement does not end",
			History{Tallies: []Tally{{Measurement: "m"}}},
			"endless", func(r *Report) int { return r.Unbalanced },
		},
		{
			"a ledger does not sum",
			History{Tallies: []Tally{{Measurement: "m", Closed: true, Asked: 2, Lost: 1}}},
			"ledger", func(r *Report) int { return r.Unbalanced },
		},
		{
			"a ledger counts a result that is not there",
			History{Tallies: []Tally{{Measurement: "m", Closed: true, Asked: 1, Answered: 1}}},
			"ledger", func(r *Report) int { return r.Unbalanced },
		},
		{
			"a measurement that somebody was told was open is gone",
			History{Opened: []string{"m"}},
			"unopened", func(r *Report) int { return r.Unbalanced },
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := Check(&c.h)
			said := strings.Join(r.Violations, "\n")
			if r.Ok() != (c.says == "") || !strings.Contains(said, c.says) {
				t.Errorf("said %q, want %q", said, c.says)
			}
			if c.count != nil && c.count(r) != 1 {
				t.Errorf("counted %d, want 1: %+v", c.count(r), r)
			}
		})
	}
}

func TestGrowth(t *testing.T) {
	before, allowed := Size{Resident: 100, Goroutines: 10, Files: 5}, Allowance{Resident: 50, Goroutines: 2, Files: 1}
	for _, c := range []struct {
		what  string
		after Size
		says  string
	}{
		{"as before", before, ""},
		{"a little more", Size{Resident: 150, Goroutines: 12, Files: 6}, ""},
		{"memory", Size{Resident: 151, Goroutines: 10, Files: 5}, "in memory"},
		{"goroutines", Size{Resident: 100, Goroutines: 13, Files: 5}, "goroutines"},
		{"files", Size{Resident: 100, Goroutines: 10, Files: 7}, "open files"},
	} {
		said := strings.Join(Growth("p", before, c.after, allowed), "\n")
		if (said == "") != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("%s: said %q, want %q", c.what, said, c.says)
		}
	}
}

func TestVisits(t *testing.T) {
	many := func(n int, apart time.Duration) (visits []Visit) {
		for i := range n {
			visits = append(visits, Visit{At: time.Unix(0, 0).Add(time.Duration(i) * apart), From: "a", Target: "t"})
		}
		return visits
	}
	budget := Budget{Burst: 10, PerSecond: 2, Tries: 1}
	for _, c := range []struct {
		what   string
		visits []Visit
		starts int
		wrong  bool
	}{
		{"nobody came", nil, 1, false},
		{"a burst", many(10, time.Millisecond), 1, false},
		{"more than a burst", many(13, time.Millisecond), 1, true},
		{"a burst for each start", many(22, time.Millisecond), 2, false},
		{"a steady pace", many(100, time.Second/2), 1, false},
		{"too fast a pace", many(100, time.Second/5), 1, true},
	} {
		if most, wrong := Visits(c.visits, map[string]int{"a": c.starts}, budget); (len(wrong) > 0) != c.wrong || most != len(c.visits) {
			t.Errorf("%s: %d at most, %q", c.what, most, wrong)
		}
	}
}

func TestQuantile(t *testing.T) {
	list := []time.Duration{4, 1, 3, 2}
	if Quantile(nil, .5) != 0 || Quantile(list, 0) != 1 || Quantile(list, .5) != 3 || Quantile(list, .99) != 4 || Quantile(list, 1) != 4 {
		t.Error("wrong")
	}
}
