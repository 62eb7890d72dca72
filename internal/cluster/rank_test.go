package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// owner is who ranks first.
func owner(key string, names []string) string {
	return names[slices.IndexFunc(names, func(name string) bool { return Rank(key, name, names) == 0 })]
}

func TestRank(t *testing.T) {
	names := []string{"fra-1", "fra-2", "sin-1"}
	const keys = 10_000
	owns := map[string]int{}
	for n := range keys {
		key := fmt.Sprint("key ", n)
		first := owner(key, names)
		owns[first]++
		shuffled := slices.Concat(names, names[:rand.N(3)])
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		places := map[int]bool{}
		for _, name := range names {
			places[Rank(key, name, shuffled)] = true
			if Rank(key, name, names) != Rank(key, name, shuffled) {
				t.Fatalf("%s: the place of %s depends on the order of %v", key, name, shuffled)
			}
		}
		if !places[0] || !places[1] || !places[2] || len(places) != 3 {
			t.Fatalf("%s: the places are %v", key, places)
		}
		if got := Rank(key, "nobody", shuffled); got != 3 {
			t.Fatalf("%s: who is not among them ranks %d", key, got)
		}
		for _, gone := range names {
			left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == gone })
			now := owner(key, left)
			if gone != first && now != first {
				t.Fatalf("%s: %s goes, and %s owns what was of %s", key, gone, now, first)
			}
			if gone == first && Rank(key, now, names) != 1 {
				t.Fatalf("%s: %s inherits, who was not next", key, now)
			}
		}
	}
	for name, n := range owns {
		if n < keys/3*8/10 || n > keys/3*12/10 {
			t.Errorf("%s owns %d of %d", name, n, keys)
		}
	}
	if owner("a measurement", names) != "fra-2" {
		t.Errorf("%s owns it now: coordinators of two versions would not agree", owner("a measurement", names))
	}
	if got := Rank("key", "a", nil); got != 0 {
		t.Errorf("among nobody: %d", got)
	}
}
