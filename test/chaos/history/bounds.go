package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// sorted are the keys of a map, in order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Size is how large a process is.
type Size struct {
	Resident   int64 `json:"resident_bytes"`
	Goroutines int   `json:"goroutines"`
	Files      int   `json:"files"`
}

// Allowance is how much larger a process may be at the end than at the beginning, when nothing is to do; and
// how much memory it may have at any time.
type Allowance struct {
	Resident, Peak    int64
	Goroutines, Files int
}

// Growth says what of a process did not go back to what it was.
func Growth(name string, before, after Size, a Allowance) (violations []string) {
	if after.Resident > before.Resident+a.Resident {
		violations = append(violations, fmt.Sprintf("growth: %s has %d KiB in memory, %d before", name, after.Resident>>10, before.Resident>>10))
	}
	if after.Goroutines > before.Goroutines+a.Goroutines {
		violations = append(violations, fmt.Sprintf("growth: %s has %d goroutines, %d before", name, after.Goroutines, before.Goroutines))
	}
	if after.Files > before.Files+a.Files {
		violations = append(violations, fmt.Sprintf("growth: %s has %d open files, %d before", name, after.Files, before.Files))
	}
	return violations
}

// Visit is a connection that a target saw.
type Visit struct {
	At     time.Time
	From   string // the agent
	Target string
}

// Budget is how often an agent may visit one target: a burst, then so many a second; and how often it tries.
type Budget struct {
	Burst, PerSecond, Tries int
}

// Visits says which agent visited a target too often. Each start of an agent gives it a new burst: starts is
// how often each was started.
func Visits(visits []Visit, starts map[string]int, b Budget) (most int, violations []string) {
	type pair struct{ from, target string }
	times := map[pair][]time.Time{}
	for _, v := range visits {
		p := pair{v.From, v.Target}
		times[p] = append(times[p], v.At)
	}
	for p, all := range times {
		slices.SortFunc(all, time.Time.Compare)
		most = max(most, len(all))
		span := int(all[len(all)-1].Sub(all[0])/time.Second) + 1
		if allowed := b.Tries * (b.Burst*max(1, starts[p.from]) + b.PerSecond*span); len(all) > allowed {
			violations = append(violations, fmt.Sprintf("budget: %s visited %s %d times in %d s; %d were allowed", p.from, p.target, len(all), span, allowed))
		}
	}
	slices.Sort(violations)
	return most, violations
}

// Quantile is the value that a share of a list does not exceed; 0 for an empty list.
func Quantile(list []time.Duration, share float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(len(list)-1, int(share*float64(len(list))))]
}
