package history

import (
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// TestDelivery: what the coordinator says of a spool has to be what its agent knows, number by number.
func TestDelivery(t *testing.T) {
	three := append(append(delivered(1, "m", "x", 1), delivered(2, "n", "y", 2)...), delivered(3, "o", "z", 3)...)
	there := []Fact{fact("m", "x"), fact("n", "y"), fact("o", "z")}
	// The second of three results was lost on the agent's disk, which says so.
	gap := append(append(delivered(1, "m", "x", 1), attempted(2, "n", "y"), spooling(2, "n", "y", 2), numbers(3, chaos.Dropped, 2, 2),
		numbers(4, chaos.Acked, 2, 2)), delivered(5, "o", "z", 3)...)
	ends := []Fact{fact("m", "x"), fact("o", "z")}
	// The coordinator had it before it was given up.
	late := append(append(delivered(1, "m", "x", 1), attempted(2, "n", "y"), spooling(2, "n", "y", 2), numbers(3, chaos.Dropped, 2, 2),
		numbers(4, chaos.Acked, 2, 2)), delivered(5, "o", "z", 3)...)
	// It could not be written; its number was given up, which could not be written either, and became another's.
	again := append([]chaos.Event{
		attempted(1, "m", "x"), spooling(1, "m", "x", 1), numbers(1, chaos.Dropped, 1, 1),
		{Time: second(1), Op: chaos.Discarded, Measurement: "m", Digest: "x"},
	}, delivered(2, "n", "y", 1)...)
	unnoted := append(three[:5:5], numbers(2, chaos.Acked, 1, 1))
	gone := twoLives(unnoted, nil)
	gone["a-clone"].Gone = true
	for _, c := range []struct {
		what   string
		lives  map[string]*Life
		folded []Fact
		says   Delivery
		wrong  string // in the violation; "" for none
	}{
		{"all is there", lives(three...), there, Delivery{Epoch: 1, Highest: 3}, ""},
		{"it misses what it acknowledged", lives(three...), there, Delivery{Epoch: 1, Highest: 3, Missing: 1}, "misses 1"},
		{"it has forgotten the last one", lives(three...), there, Delivery{Epoch: 1, Highest: 2}, "knows of none beyond 2"},
		{"it has forgotten all", lives(three...), there, Delivery{}, "knows of epoch 0"},
		{"it does not miss what was never acknowledged", lives(append(three[:5:5], three[6:]...)...), there, Delivery{Epoch: 1, Highest: 3}, "only 2 were acknowledged"},
		{"it misses that, which is a gap that nobody gave up", lives(append(three[:5:5], three[6:]...)...), there, Delivery{Epoch: 1, Highest: 3, Missing: 1}, "neither came nor were given up"},
		{"one was given up", lives(gap...), ends, Delivery{Epoch: 1, Highest: 3, Dropped: 1}, ""},
		{"it does not say that one was given up", lives(gap...), ends, Delivery{Epoch: 1, Highest: 3}, "says 0"},
		{"it says that more were given up", lives(gap...), ends, Delivery{Epoch: 1, Highest: 3, Dropped: 2}, "says 2"},
		{"it came before it was given up", lives(late...), there, Delivery{Epoch: 1, Highest: 3}, ""},
		{"a number that was given up and became another's", lives(again...), []Fact{fact("n", "y")}, Delivery{Epoch: 1, Highest: 1}, ""},
		{"of a clone that did not come back, one may have come without being noted", gone, there[:2], Delivery{Epoch: 1, Highest: 2}, ""},
		{"or not", gone, there[:2], Delivery{Epoch: 1, Highest: 2, Missing: 1}, ""},
	} {
		h := &History{Lives: c.lives, Folded: c.folded, Deliveries: map[string]Delivery{"a": c.says}}
		said := ""
		for _, v := range Check(h).Violations {
			if strings.HasPrefix(v, "gap: ") {
				said += v
			}
		}
		if (said == "") != (c.wrong == "") || !strings.Contains(said, c.wrong) {
			t.Errorf("%s: said %q, want %q", c.what, said, c.wrong)
		}
	}
}

// TestSpoiled: what stood behind a record that says no more where the next one is may be gone, and nothing else.
func TestSpoiled(t *testing.T) {
	for at, wrong := range map[int]bool{0: false, 3: true} {
		h := History{Lives: lives(attempted(1, "m", "x"))}
		h.Lives["a"].Spoiled = []Span{{time.Unix(0, second(at)), time.Unix(0, second(at+2))}}
		if r := Check(&h); r.Ok() == wrong || r.Unknown+r.Missing != 1 {
			t.Errorf("spoiled from second %d on: %+v", at, r)
		}
	}
}

// TestCaptive: what a thief in the coordinator's place acknowledged may be gone, and nothing that he asked for may be
// there.
func TestCaptive(t *testing.T) {
	captive := lives(delivered(5, "m", "x", 1)...)
	captive["a"].Captive = []Span{{time.Unix(0, second(4)), time.Unix(0, second(6))}}
	before := lives(delivered(3, "m", "x", 1)...)
	before["a"].Captive = captive["a"].Captive
	foreign := func(m string) bool { return m == "m" }
	for _, c := range []struct {
		what   string
		h      History
		wrong  bool
		taken  int
		asides int
	}{
		{"a thief acknowledged it, and it is gone", History{Lives: captive}, false, 1, 0},
		{"the coordinator acknowledged it before", History{Lives: before}, true, 0, 0},
		{"a thief asked for it, and it is not there", History{Lives: captive, Foreign: foreign}, false, 0, 1},
		{"a thief asked for it, and it is there", History{Lives: captive, Foreign: foreign, Folded: []Fact{fact("m", "x")}}, true, 0, 1},
	} {
		if r := Check(&c.h); r.Ok() == c.wrong || r.Taken != c.taken || r.Foreign != c.asides {
			t.Errorf("%s: %+v", c.what, r)
		}
	}
}
