package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

var (
	randomCases = flag.Int("random", 0, "draw that many combinations of faults, and compare what is said with what was drawn")
	randomSeed  = flag.Uint64("seed", 1, "what they are drawn from")
	randomOnly  = flag.Int("only", -1, "the one case to run, by its index")
)

// TestRandom draws faults, makes and proves them, asks Elsewhere, and compares what it says with what
// must be said of what was drawn. It needs -random.
func TestRandom(t *testing.T) {
	if *randomCases == 0 && *randomOnly < 0 {
		t.Log("no cases are asked for: make lab-random SEED=1 N=200")
		return
	}
	cases := drawAll(*randomSeed, *randomCases, *randomOnly)
	scenarios := make([]scenario, 0, len(cases))
	for _, d := range cases {
		scenarios = append(scenarios, d.scenario())
	}
	w := newWorld(t, append(slices.Clone(scenarios), issuing()))
	if *holdWorld {
		w.hold(t)
		return
	}
	sum := &summary{seed: *randomSeed, kinds: map[string]int{}, codes: map[string]int{}}
	t.Cleanup(func() { sum.print(t) })
	for i := 0; i < len(cases); {
		n := i
		for n < len(cases) && cases[n].index/shift == cases[i].index/shift {
			n++
		}
		t.Run(fmt.Sprintf("Shift%d", cases[i].index/shift), func(t *testing.T) { w.runShift(t, sum, cases[i:n], scenarios[i:n]) })
		i = n
	}
}

// drawAll draws n cases, or the one with the index only.
func drawAll(seed uint64, n, only int) []*drawn {
	if only >= 0 {
		return []*drawn{draw(seed, only)}
	}
	cases := make([]*drawn, 0, n)
	for i := range n {
		cases = append(cases, draw(seed, i))
	}
	return cases
}

// runShift makes agents odd, if they are to be, and runs all cases of the shift at once.
func (w *world) runShift(t *testing.T, sum *summary, cases []*drawn, scenarios []scenario) {
	t.Helper()
	well := w.makeOdd(t, cases[0].odd)
	defer well()
	var g errgroup.Group
	for i, d := range cases {
		g.Go(func() error {
			t.Run(d.name(), func(t *testing.T) { w.runDrawn(t, sum, d, scenarios[i]) })
			return nil
		})
	}
	_ = g.Wait() // failures are in the subtests
}

// makeOdd puts agents into a condition, proves it, and returns what ends it.
func (w *world) makeOdd(t *testing.T, c condition) (well func()) {
	t.Helper()
	if c.how == "" {
		return func() {}
	}
	t.Logf("%s: %s", strings.Join(c.agents, " "), c.how)
	if c.how == asleep {
		return w.putToSleep(t, c.agents)
	}
	s := c.scenario(w)
	well = func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(w.lift(ctx, s), w.restart(ctx, c.agents)); err != nil {
			t.Error(err)
		}
	}
	if err := w.impose(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := w.prove(t.Context(), s); err != nil {
		well()
		t.Fatal(err)
	}
	return well
}

// restart ends agents and starts them again: for a minute they would remember the roots that they could not
// reach, and not ask the zone's own servers.
func (w *world) restart(ctx context.Context, agents []string) error {
	for _, id := range agents {
		a := w.agent(id)
		if err := a.proc.signal(syscall.SIGTERM); err != nil { // it says goodbye, and is not online until it is back
			return err
		}
		<-a.proc.done
		if err := w.startAgent(ctx, a); err != nil {
			return err
		}
	}
	return w.online(ctx)
}

// putToSleep stops agents, until they are woken.
func (w *world) putToSleep(t *testing.T, agents []string) (wake func()) {
	t.Helper()
	signal := func(sig syscall.Signal) {
		for _, id := range agents {
			if err := w.agent(id).proc.signal(sig); err != nil {
				t.Error(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	return func() {
		signal(syscall.SIGCONT)
		if err := w.online(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

// scenario makes the condition one: rules where the agents are, and proofs.
func (c condition) scenario(w *world) scenario {
	s := scenario{name: "odd"}
	for _, id := range c.agents {
		a := w.agent(id)
		out := "oif eth0 ip daddr != { 10.0.0.10, " + a.resolver + " } counter "
		out6 := "oif eth0 meta l4proto tcp meta nfproto ipv6 counter "
		reject := "reject with icmpx type admin-prohibited"
		connect := func(to, sees string) proof { return proof{id, "connect", to, sees} }
		switch c.how {
		case cutOffBy:
			s.faults = append(s.faults, fault{id, out + "drop"}, fault{id, out6 + "drop"})
			s.proofs = append(s.proofs, connect("198.51.100.10:443", "silent"), connect("[2001:db8:51::10]:443", "silent"))
		case rejectedBy:
			s.faults = append(s.faults, fault{id, out + reject}, fault{id, out6 + reject})
			s.proofs = append(s.proofs, connect("198.51.100.10:443", "icmp 3/13 from "+a.net+".2"), connect("[2001:db8:51::10]:443", "icmp 1/1 from "+a.net6+"::2"))
		case withoutIPv6:
			s.faults = append(s.faults, fault{id, out6 + "drop"})
			s.proofs = append(s.proofs, connect("198.51.100.10:443", "open"), connect("[2001:db8:51::10]:443", "silent"))
		case deaf:
			s.faults = append(s.faults, fault{id, "oif eth0 ip daddr " + a.resolver + " counter drop"})
			s.proofs = append(s.proofs, proof{id, "dig", "a." + controlZone, "no reply"})
		}
	}
	return s
}

// runDrawn makes the faults of a case, proves them, asks, and compares.
func (w *world) runDrawn(t *testing.T, sum *summary, d *drawn, s scenario) {
	t.Helper()
	loss := d.lossRules()
	for _, one := range []scenario{s, loss} {
		if err := w.impose(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // the test's context has ended by then
			if err := w.lift(context.WithoutCancel(t.Context()), one); err != nil {
				t.Error(err)
			}
		})
	}
	if err := w.prove(t.Context(), s); err != nil {
		sum.fault(t.Name())
		t.Fatalf("%v\n%s\n%s", err, d, sum.replay(d))
	}
	if err := w.counted(t.Context(), s); err != nil {
		sum.fault(t.Name())
		t.Fatalf("%v\n%s\n%s", err, d, sum.replay(d))
	}
	answer := w.run(t.Context(), append(strings.Fields(s.ask), "-J")...)
	m, err := answer.measurement()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, d, sum.replay(d))
	}
	if err := record(fmt.Sprintf("%d-%s", sum.seed, d.name()), answer); err != nil {
		t.Error(err)
	}
	if err := w.countLoss(t.Context(), sum, loss); err != nil {
		t.Error(err)
	}
	truth := d.truth()
	out := truth.compare(m.GetVerdict())
	out.wrong = append(out.wrong, truth.rest(answer, m)...)
	sum.add(d, m, out)
	if all := out.all(); len(all) > 0 {
		t.Errorf("%s\n%s\nit must be said:\n  %s\nit said:\n%s\nto replay: %s",
			d, strings.Join(all, "\n"), truth, describe(m), sum.replay(d))
	}
}

// rest compares what is not a finding.
func (m must) rest(answer said, got *pb.Measurement) []string {
	wrong := inconsistencies(got)
	exit := map[pb.Outcome]int{pb.Outcome_OUTCOME_FAIL: 1, pb.Outcome_OUTCOME_INCONCLUSIVE: 3}[m.outcome]
	if answer.exit != exit {
		wrong = append(wrong, fmt.Sprintf("exit %d, want %d", answer.exit, exit))
	}
	if l := got.GetLedger(); int(l.GetAnswered()) != m.answering {
		wrong = append(wrong, fmt.Sprintf("ledger %v, want %d answered", l, m.answering))
	}
	return wrong
}

// String is what must be said.
func (m must) String() string {
	lines := []string{m.outcome.String()}
	for c := range m.claims {
		lines = append(lines, c.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n  ")
}

// countLoss adds up what loss was given.
func (w *world) countLoss(ctx context.Context, sum *summary, loss scenario) error {
	if len(loss.faults) == 0 {
		return nil
	}
	all, err := counters(ctx, w.router, loss)
	if err != nil {
		return err
	}
	sum.mu.Lock()
	defer sum.mu.Unlock()
	for i := 0; i+1 < len(all); i += 2 {
		sum.packets, sum.lost = sum.packets+all[i], sum.lost+all[i+1]
	}
	return nil
}

// summary is what came out.
type summary struct {
	seed uint64

	mu                                   sync.Mutex
	cases, right, accused, missed, other int
	unproved                             []string // cases
	packets, lost                        int
	kinds, codes                         map[string]int
	slowest                              time.Duration
}

// replay is the command that runs a case alone.
func (s *summary) replay(d *drawn) string {
	return fmt.Sprintf("make lab-random SEED=%d ONLY=%d", s.seed, d.index)
}

// fault notes a case whose faults could not be proved.
func (s *summary) fault(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unproved = append(s.unproved, name)
}

// add counts a case.
func (s *summary) add(d *drawn, m *pb.Measurement, out verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cases++
	if len(out.all()) == 0 {
		s.right++
	}
	s.accused, s.missed, s.other = s.accused+len(out.accused), s.missed+len(out.missed), s.other+len(out.wrong)
	for _, kind := range d.kinds() {
		s.kinds[kind]++
	}
	for _, f := range serious(m) {
		s.codes[shortCode(f.GetCode())]++
	}
	s.slowest = max(s.slowest, m.GetFinishTime().AsTime().Sub(m.GetCreateTime().AsTime()))
}

// kinds names what is wrong in a case, each once.
func (d *drawn) kinds() []string {
	var kinds []string
	for _, h := range d.hosts {
		if h.does != isFine {
			kinds = append(kinds, h.does)
		}
	}
	for _, t := range d.troubles {
		kinds = append(kinds, t.how)
	}
	for _, f := range d.answers {
		if strings.ContainsAny(f.answer, ".:") {
			f.answer = "another address"
		}
		kinds = append(kinds, "the resolver says "+f.answer)
	}
	if d.odd.how != "" {
		kinds = append(kinds, "agents "+d.odd.how)
	}
	if len(kinds) == 0 {
		kinds = append(kinds, "nothing")
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// figures are what is kept of it.
type figures struct {
	Seed             uint64         `json:"seed"`
	Cases            int            `json:"cases"`
	Right            int            `json:"right"`
	FalseAccusations int            `json:"falseAccusations"`
	Missed           int            `json:"missed"`
	OtherDifferences int            `json:"otherDifferences"`
	NotProved        int            `json:"notProved"`
	LossPercent      float64        `json:"lossPercent"`
	Drawn            map[string]int `json:"drawn"` // in how many cases
	Found            map[string]int `json:"found"` // findings of severity WARN and ERROR
}

// print writes the figures.
func (s *summary) print(t *testing.T) {
	f := figures{
		s.seed, s.cases, s.right, s.accused, s.missed, s.other, len(s.unproved),
		100 * float64(s.lost) / max(1, float64(s.packets)), s.kinds, s.codes,
	}
	list := func(counts map[string]int) string {
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(&b, "  %4d  %s\n", counts[k], k)
		}
		return b.String()
	}
	t.Logf("drawn, in how many cases:\n%sfindings of severity WARN or ERROR:\n%s"+
		"seed %d: %d cases, %d right; %d false accusations, %d missed, %d other differences; %d not proved; loss %.1f %% of %d packets; the longest took %.1f s",
		list(f.Drawn), list(f.Found), f.Seed, f.Cases, f.Right, f.FalseAccusations, f.Missed, f.OtherDifferences, f.NotProved, f.LossPercent, s.packets, s.slowest.Seconds())
	if err := keep("lab-random.json", f); err != nil {
		t.Error(err)
	}
}
