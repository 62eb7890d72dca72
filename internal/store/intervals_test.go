package store

import (
	"testing"
)

// FuzzIntervals holds the set against a naive one: each byte pair adds a span, and both must have the same numbers,
// the same size, and spans that neither touch nor overlap.
func FuzzIntervals(f *testing.F) {
	f.Add([]byte{1, 0, 2, 0, 3, 0})
	f.Add([]byte{5, 0, 1, 0, 3, 0, 2, 0, 4, 0, 0, 9})
	f.Add([]byte{10, 5, 20, 5, 30, 5, 8, 60, 1, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, naive := newDeliveries(), map[uint64]bool{}
		for ; len(data) >= 2; data = data[2:] {
			add := span{uint64(data[0]) + 1, uint64(data[0]) + 1 + uint64(data[1]%16)}
			fresh := uint64(0)
			for n := add.first; n <= add.last; n++ {
				if !naive[n] {
					fresh++
				}
				naive[n] = true
			}
			if got := d.add(1, "a", 1, add); got != fresh {
				t.Fatalf("%v brought %d numbers, want %d", add, got, fresh)
			}
		}
		e := d.find("a", 1)
		if e == nil {
			return
		}
		compareSets(t, e.numbers, naive)
		again := newDeliveries() // the sum does not depend on the way
		for n := range naive {
			again.add(1, "a", 1, span{n, n})
		}
		if again.sum != d.sum {
			t.Error("the same numbers in another order have another sum")
		}
	})
}

func compareSets(t *testing.T, set intervals, naive map[uint64]bool) {
	t.Helper()
	for n := range uint64(300) {
		if set.has(n) != naive[n] {
			t.Fatalf("%v has %d: %v", set, n, set.has(n))
		}
		if covers := naive[n] && naive[n+1] && naive[n+2]; set.covers(span{n, n + 2}) != covers {
			t.Fatalf("%v covers %d to %d: %v", set, n, n+2, !covers)
		}
	}
	if set.size() != uint64(len(naive)) {
		t.Errorf("%v has %d numbers, want %d", set, set.size(), len(naive))
	}
	for i := 1; i < len(set); i++ {
		if set[i].first <= set[i-1].last+1 {
			t.Errorf("%v: spans that touch", set)
		}
	}
}

func TestHostileNumbersAreBounded(t *testing.T) {
	d := newDeliveries()
	for n := range uint64(3 * maxSpans) {
		d.add(1, "scattered", 1, span{2*n + 1, 2*n + 1})
	}
	if e := d.find("scattered", 1); len(e.numbers) != maxSpans {
		t.Errorf("%d spans, at most %d", len(e.numbers), maxSpans)
	}
	if d.add(1, "scattered", 1, span{2, 2}) != 1 {
		t.Error("at the bound a number that joins two spans must be taken")
	}
	for epoch := range uint64(3 * maxEpochs) {
		d.add(1, "epochs", epoch, span{1, 1})
	}
	if epochs := d.agents["epochs"]; len(epochs) != maxEpochs || epochs[0].epoch != 2*maxEpochs {
		t.Errorf("%d epochs from %d on; want the newest %d", len(epochs), epochs[0].epoch, maxEpochs)
	}
	before := d.sum
	for _, c := range []struct {
		what  string
		epoch uint64
		span  span
	}{
		{"an epoch that was let go", 3, span{1, 1}},
		{"no epoch", 0, span{1, 1}},
		{"the number 0", 20, span{0, 5}},
		{"an end before its beginning", 20, span{9, 3}},
		{"a number without one after it", 20, span{9, ^uint64(0)}},
	} {
		if d.add(1, "epochs", c.epoch, c.span) != 0 || d.sum != before {
			t.Errorf("%s was noted", c.what)
		}
	}
	if d.add(1, "all", 1, span{1, maxSeq}) != maxSeq || d.add(1, "all", 1, span{5, 5}) != 0 {
		t.Error("all numbers there are")
	}
}
