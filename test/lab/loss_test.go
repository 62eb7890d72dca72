package lab

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// loss drops one packet of twenty in each direction, at random, between the agents and everything
// that is not the coordinator.
func loss() scenario {
	return scenario{name: "loss", faults: []fault{
		{"router", "ip saddr 10.0.0.0/24 accept"},
		{"router", "ip daddr 10.0.0.0/24 accept"},
		{"router", "counter"},
		{"router", "numgen random mod 20 == 0 counter drop"},
	}}
}

// testHealthyUnderLoss asks about healthy targets 200 times while packets are lost: no finding may
// be an ERROR.
func (w *world) testHealthyUnderLoss(t *testing.T) {
	lossy := loss()
	if err := w.impose(t.Context(), lossy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.lift(context.WithoutCancel(t.Context()), lossy) })

	const measurements, inFlight = 200, 8
	questions := [][]string{
		{"tcp", "healthy-tcp." + zone + ":443", "-J"},
		{"tls", "healthy-tls." + zone, "-J"},
		{"tcp", "healthy-dns." + zone + ":443", "-J"},
		{"tls", "healthy-dns." + zone, "-J"},
	}
	begin := time.Now()
	took := make([]time.Duration, measurements)
	// The agents' own limit is five jobs a second for one target, after a burst.
	pace := time.NewTicker(time.Second / 10)
	defer pace.Stop()
	var g errgroup.Group
	g.SetLimit(inFlight)
	for i := range measurements {
		<-pace.C
		g.Go(func() error {
			took[i] = w.askHealthy(t, questions[i%len(questions)])
			return nil
		})
	}
	_ = g.Wait() // failures are reported to t
	all, err := counters(t.Context(), w.router, lossy)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	t.Logf("%d measurements in %.0f s, median %s, slowest %s; the router dropped %d of %d packets (%.1f %%)", measurements,
		time.Since(begin).Seconds(), took[measurements/2], took[measurements-1], all[1], all[0], 100*float64(all[1])/float64(all[0]))
	if share := float64(all[1]) / float64(all[0]); share < 0.03 || share > 0.07 {
		t.Errorf("the loss was %.1f %%, want 5 %%", 100*share)
	}
}

// askHealthy asks once; everything but OK with all answers in, or at worst a warning, is wrong.
func (w *world) askHealthy(t *testing.T, question []string) time.Duration {
	t.Helper()
	answer := w.run(t.Context(), question...)
	m, err := answer.measurement()
	if err != nil {
		t.Error(err)
		return answer.took
	}
	wrong := inconsistencies(m)
	for _, f := range serious(m) {
		if f.GetSeverity() == pb.Severity_SEVERITY_ERROR {
			wrong = append(wrong, f.GetSummary())
		}
	}
	if len(wrong) > 0 || answer.exit != 0 || m.GetLedger().GetAnswered() != 8 {
		t.Errorf("%v: exit %d, ledger %v: %v\n%s", question, answer.exit, m.GetLedger(), wrong, describe(m))
	}
	return answer.took
}
