package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// summary is a run, for people and for programs.
type summary struct {
	Verdict    string                  `json:"verdict"`
	Seed       uint64                  `json:"seed"`
	Profile    string                  `json:"profile"`
	TLS        bool                    `json:"tls"`
	Began      time.Time               `json:"began"`
	Seconds    float64                 `json:"seconds"`
	Report     *history.Report         `json:"results"`
	Struck     map[string]int          `json:"faults_struck"`
	Strikes    []strike                `json:"strikes"`
	Reconnect  quantiles               `json:"reconnect_seconds"`
	Drain      quantiles               `json:"drain_seconds"`
	LastDrain  float64                 `json:"last_drain_seconds"`
	Asked      int                     `json:"measurements"`
	Unanswered int                     `json:"calls_failed"`
	Tokens     int                     `json:"calls_for_tokens"`
	Sessions   int                     `json:"calls_for_sessions"`
	Visits     int                     `json:"connections_at_targets"`
	MostVisits int                     `json:"most_connections_of_one_agent_at_one_target"`
	Forbidden  int                     `json:"packets_to_forbidden_networks"`
	Before     map[string]history.Size `json:"before"`
	After      map[string]history.Size `json:"after"`
	Peak       map[string]int64        `json:"peak_resident_bytes"`
	Position   uint64                  `json:"log_position"`
	StateHash  string                  `json:"state_hash"`
	Violations []string                `json:"violations"`

	mu sync.Mutex
}

// quantiles tell how long something took, in seconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func quantilesOf(strikes []strike, of func(strike) float64) quantiles {
	var list []time.Duration
	for _, s := range strikes {
		list = append(list, time.Duration(of(s)*float64(time.Second)))
	}
	return quantiles{history.Quantile(list, .5).Seconds(), history.Quantile(list, .99).Seconds()}
}

func (s *summary) add(one strike) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Strikes = append(s.Strikes, one)
}

func (s *summary) violate(format string, args ...any) {
	s.Violations = append(s.Violations, fmt.Sprintf(format, args...))
}

// allowance is how much larger than at the beginning a program may be at the end. The coordinator keeps up to
// 64 MiB of closed measurements in memory, and what goes with them. At its most a herd comes in while hostile agents
// flood and watchers do not read, and Go's collector lets that double: 190 KiB an agent, 64 MiB of batches, and what waits
// for 20 watchers. Whoever was let in is remembered, 32 KiB of each. Of several, one may have all agents in the end.
func allowance(name string) history.Allowance {
	if isCoordinator(name) {
		return history.Allowance{Resident: 192<<20 + int64(size())<<15, Peak: 512<<20 + int64(size())<<19, Goroutines: 30 + 10*agentCount, Files: 20 + 4*agentCount}
	}
	return history.Allowance{Resident: 24 << 20, Peak: 96 << 20, Goroutines: 20, Files: 8}
}

// settle notes how large all programs are when nothing is to do: the first time as what they are to come back
// to, the second time as what they came back to.
func (w *world) settle(ctx context.Context, s *summary) error {
	return eventually(ctx, "everything to become quiet", func(context.Context) error {
		if err := w.lives.catchUp(); err != nil {
			return err
		}
		sizes := map[string]history.Size{}
		for name, p := range w.everything() {
			size, err := p.size(w.lives.goroutines(name))
			if err != nil {
				return err
			}
			sizes[name] = size
		}
		if s.Before == nil {
			if slices.ContainsFunc(slices.Collect(maps.Values(sizes)), func(s history.Size) bool { return s.Goroutines == 0 }) {
				return errors.New("not every program has told how many goroutines it has")
			}
			s.Before = sizes
			return nil
		}
		s.After = sizes
		return s.grown()
	})
}

// grown says what is larger than it may be.
func (s *summary) grown() error {
	var all []string
	for name, before := range s.Before {
		all = append(all, history.Growth(name, before, s.After[name], allowance(name))...)
	}
	if len(all) > 0 {
		return fmt.Errorf("%s", strings.Join(all, "\n"))
	}
	return nil
}

// everything is all programs.
func (w *world) everything() map[string]*program {
	all := map[string]*program{}
	for _, c := range w.coordinators {
		all[c.name] = c.program
	}
	for _, a := range w.agents {
		all[a.name] = a.program
	}
	return all
}

// watchSizes looks once a second how large the programs are.
func (w *world) watchSizes(ctx context.Context, s *summary) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, p := range w.everything() {
				_, _ = p.size(0) // it may just be dead
			}
		case <-ctx.Done():
			return
		}
	}
}

// conclude adds everything up.
func (s *summary) conclude(w *world, err error) {
	s.Seconds = time.Since(s.Began).Seconds()
	s.Struck, s.Peak = map[string]int{}, map[string]int64{}
	for _, one := range s.Strikes {
		s.Struck[one.Fault]++
	}
	for name, p := range w.everything() {
		p.mu.Lock()
		s.Peak[name] = p.peak
		p.mu.Unlock()
		if limit := allowance(name).Peak; s.Peak[name] > limit {
			s.violate("growth: %s had %d MiB in memory", name, s.Peak[name]>>20)
		}
	}
	s.Reconnect = quantilesOf(s.Strikes, func(one strike) float64 { return one.Reconnect })
	s.Drain = quantilesOf(s.Strikes, func(one strike) float64 { return one.Drain })
	w.load.mu.Lock()
	s.Asked, s.Unanswered = len(w.load.created), w.load.refused
	w.load.mu.Unlock()
	if err != nil {
		s.violate("%v", err)
	}
	if s.Report == nil {
		s.Report = &history.Report{}
	}
	s.Violations = append(s.Violations, s.Report.Violations...)
	if s.Verdict = "ok"; len(s.Violations) > 0 {
		s.Verdict = "failed"
	}
}

// write writes the summary for programs.
func (s *summary) write(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

// print writes it for people.
func (s *summary) print(t *testing.T) {
	var b strings.Builder
	r := s.Report
	fmt.Fprintf(&b, "seed %d, %.0f s, %d faults struck:\n", s.Seed, s.Seconds, len(s.Strikes))
	for _, name := range slices.Sorted(maps.Keys(s.Struck)) {
		fmt.Fprintf(&b, "  %4d × %s\n", s.Struck[name], name)
	}
	fmt.Fprintf(&b, "measurements %d; results: attempted %d, acknowledged %d, there %d (late %d)\n", s.Asked, r.Attempted, r.Acked, r.Folded, r.Late)
	fmt.Fprintf(&b, "lost %d, duplicate %d, phantom %d, missing %d, changed %d, ledgers wrong %d; unknown %d, dropped %d, equivocated %d, run twice %d\n",
		r.Lost, r.Duplicate, r.Phantom, r.Missing, r.Changed, r.Unbalanced, r.Unknown, r.Dropped, r.Equivocated, r.RunTwice)
	fmt.Fprintf(&b, "numbers of spools compared %d, of them given up %d; asked for by a thief %d, taken by him %d\n", r.Numbers, r.Given, r.Foreign, r.Taken)
	fmt.Fprintf(&b, "back after p50 %.1f s, p99 %.1f s; delivered after p50 %.1f s, p99 %.1f s\n", s.Reconnect.P50, s.Reconnect.P99, s.Drain.P50, s.Drain.P99)
	coordinators, agents := int64(0), int64(0)
	for name, peak := range s.Peak {
		if isCoordinator(name) {
			coordinators = max(coordinators, peak)
		} else {
			agents = max(agents, peak)
		}
	}
	fmt.Fprintf(&b, "memory at most: a coordinator %d MiB, an agent %d MiB; connections at targets %d, at most %d of one agent to one; to forbidden networks %d\n",
		coordinators>>20, agents>>20, s.Visits, s.MostVisits, s.Forbidden)
	fmt.Fprintf(&b, "the same state, %.16s, at position %d: folded all along, after a restart, and folded anew from the log\n", s.StateHash, s.Position)
	fmt.Fprintf(&b, "verdict: %s", s.Verdict)
	t.Log(b.String())
	for _, v := range s.Violations {
		t.Error(v)
	}
}
