package lab

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

var (
	holdWorld  = flag.Bool("hold", false, "build the world, print how to enter it, and keep it until interrupted")
	keepFiles  = flag.Bool("keep", false, "keep the files and logs, with the stacks of all goroutines, also of a test that passes")
	faultsOnly = flag.Bool("faults", false, "make and prove the faults only, without Elsewhere")
	recordDir  = flag.String("record", "", "write what each scenario was answered, a Measurement in JSON with its results, into this directory")
)

// atOnce is how many scenarios run at the same time: they wait far more than they compute. More
// would make the proofs late on two cores.
const atOnce = 8

// TestLab builds one world and runs everything in it.
func TestLab(t *testing.T) {
	inTargets, inAgents := targetScenarios(), agentScenarios()
	w := newWorld(t, slices.Concat(inTargets, inAgents, metadataWorld()))
	if *holdWorld {
		w.hold(t)
		return
	}
	r := &report{all: len(inTargets) + len(inAgents), began: time.Now()}
	t.Cleanup(func() { r.conclude(t) })
	t.Run("Scenarios", func(t *testing.T) { w.runAll(t, r, inTargets, atOnce) })
	t.Run("Agents", func(t *testing.T) { w.runAll(t, r, inAgents, 1) })
	if *faultsOnly {
		return
	}
	t.Run("Metadata", w.testMetadata)
	t.Run("NobodyMatches", w.testNobodyMatches)
	t.Run("Interrupted", w.testInterrupted)
	t.Run("Grpcurl", w.testGrpcurl)
	t.Run("HealthyUnderLoss", w.testHealthyUnderLoss)
	t.Run("CoordinatorKilled", w.testCoordinatorKilled)
}

// hold says how to enter the world and waits for an interrupt.
func (w *world) hold(t *testing.T) {
	fmt.Printf("ip netns exec %s bash\n", w.agents[0].space)
	for _, s := range w.spaces {
		fmt.Printf("  %s\n", s)
	}
	fmt.Printf("in %s: %s/elsewhere agents %s\n", w.coordinator, w.bin, strings.Join(w.door(), " "))
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
}

// runAll runs scenarios side by side. It is not t.Parallel, whose limit is the number of cores.
func (w *world) runAll(t *testing.T, r *report, scenarios []scenario, limit int) {
	var g errgroup.Group
	g.SetLimit(limit)
	for _, s := range scenarios {
		g.Go(func() error {
			t.Run(s.name, func(t *testing.T) { r.add(w.runScenario(t, s)) })
			return nil
		})
	}
	_ = g.Wait() // failures are in the subtests
}

// runScenario makes the fault, proves it, asks Elsewhere, and compares.
func (w *world) runScenario(t *testing.T, s scenario) row {
	t.Helper()
	result := row{scenario: s, outcome: "no fault"}
	t.Cleanup(func() { // the test's context has ended by then
		if err := w.lift(context.WithoutCancel(t.Context()), s); err != nil {
			t.Error(err)
		}
	})
	if err := w.impose(t.Context(), s); err != nil {
		t.Error(err)
		return result
	}
	if s.before != nil {
		if err := s.before(t.Context(), w); err != nil {
			t.Error(err)
			return result
		}
	}
	if err := w.prove(t.Context(), s); err != nil {
		t.Error(err)
		return result
	}
	if err := w.counted(t.Context(), s); err != nil {
		t.Error(err)
		return result
	}
	if *faultsOnly {
		result.outcome = "fault proved"
		return result
	}
	answer := w.askScenario(t, s)
	m, err := answer.measurement()
	if err != nil {
		t.Error(err)
		result.outcome = "no answer"
		return result
	}
	result.measurement, result.took, result.exit = m, answer.took, answer.exit
	if err := record(s.name, answer); err != nil {
		t.Error(err)
	}
	wrong := slices.Concat(s.want.differences(answer.exit, m), inconsistencies(m), w.unseen(s.want, m))
	result.accused = s.want.falselyAccused(m)
	result.outcome = right
	if len(wrong) > 0 {
		result.outcome = "WRONG"
		t.Errorf("%s\nelsewhere %s\n%s\nit said:\n%s", s.says, s.command(), strings.Join(wrong, "\n"), describe(m))
	}
	return result
}

// record keeps what was said, if it is asked for.
func record(name string, answer said) error {
	if *recordDir == "" {
		return nil
	}
	if err := os.MkdirAll(*recordDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*recordDir, name+".json"), answer.stdout, 0o644)
}

// command is the scenario's command line.
func (s scenario) command() string {
	return strings.ReplaceAll(s.ask, "NAME", s.name+"."+zone)
}

// askScenario runs the command line, and harms an agent meanwhile if the scenario says so.
func (w *world) askScenario(t *testing.T, s scenario) said {
	t.Helper()
	args := append(strings.Fields(s.command()), "-J")
	if s.harm.how == "" {
		return w.run(t.Context(), args...)
	}
	before, err := w.packets(t.Context(), w.router, s)
	if err != nil {
		t.Error(err)
	}
	var answer said
	var g errgroup.Group
	g.Go(func() error {
		answer = w.run(t.Context(), args...)
		return nil
	})
	// Its region has two agents, each of which sends a SYN at once: two packets mean that both began.
	if err := eventually(t.Context(), "the job to begin", func(ctx context.Context) error {
		return w.began(ctx, s, before+2)
	}); err != nil {
		t.Error(err)
	}
	heal := w.inflict(t, s.harm)
	_ = g.Wait() // never an error
	heal()
	if err := w.online(t.Context()); err != nil {
		t.Error(err)
	}
	return answer
}

// inflict does the harm, and returns what is to be done when the measurement is closed.
func (w *world) inflict(t *testing.T, h harm) (heal func()) {
	t.Helper()
	a := w.agent(h.agent)
	again := func() {
		if err := w.startAgent(t.Context(), a); err != nil {
			t.Error(err)
		}
	}
	signal := func(sig syscall.Signal) {
		if err := a.proc.signal(sig); err != nil {
			t.Error(err)
		}
	}
	switch h.how {
	case "stop":
		signal(syscall.SIGSTOP)
		return func() { signal(syscall.SIGCONT) }
	case "kill":
		a.proc.kill()
		again()
	case "drain":
		signal(syscall.SIGTERM)
		return func() { <-a.proc.done; again() }
	}
	return func() {}
}

func (w *world) began(ctx context.Context, s scenario, packets int) error {
	now, err := w.packets(ctx, w.router, s)
	if err == nil && now < packets {
		err = fmt.Errorf("%d of %d packets were seen", now, packets)
	}
	return err
}

// testNobodyMatches asks agents that are not there.
func (w *world) testNobodyMatches(t *testing.T) {
	answer := w.run(t.Context(), "tcp", "healthy-tcp."+zone+":443", "--from", "atlantis", "-J")
	if answer.exit != 4 || len(answer.stderr) == 0 {
		t.Errorf("exit %d, want 4 and a reason: stdout %q, stderr %q", answer.exit, answer.stdout, answer.stderr)
	}
	if lines := strings.Count(strings.TrimSpace(string(answer.stderr)), "\n"); lines > 0 {
		t.Errorf("more than one line: %q", answer.stderr)
	}
}

// testInterrupted ends the command line by Ctrl-C while it waits for a silent target: the measurement
// is cancelled, and those that had not answered are lost.
func (w *world) testInterrupted(t *testing.T) {
	silence := scenario{name: "interrupted", faults: []fault{{"router", "ip daddr 203.0.113.201 counter drop"}}}
	if err := w.impose(t.Context(), silence); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.lift(context.WithoutCancel(t.Context()), silence) })
	p, err := w.start(t.Context(), w.coordinator, "interrupted",
		append([]string{filepath.Join(w.bin, "elsewhere"), "tcp", "203.0.113.201:443", "-J"}, w.door()...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := eventually(t.Context(), "the jobs to begin", func(ctx context.Context) error {
		return w.began(ctx, silence, len(w.agents))
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if exit := p.cmd.ProcessState.ExitCode(); exit != 130 {
		t.Errorf("exit %d, want 130", exit)
	}
	var list pb.ListMeasurementsResponse
	if err := protojson.Unmarshal(w.run(t.Context(), "measurements", "-J").stdout, &list); err != nil {
		t.Fatal(err)
	}
	m := list.GetMeasurements()[0]
	if m.GetState() != pb.State_STATE_CANCELLED || m.GetLedger().GetLost() != 8 || m.GetSpec().GetTcp().GetHost() != "203.0.113.201" {
		t.Errorf("the newest measurement is %s with ledger %v, want it cancelled and 8 lost", m.GetState(), m.GetLedger())
	}
}
