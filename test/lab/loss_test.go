package lab

import (
	"context"
	"flag"
	"slices"
	"strings"
	"sync"
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

// lossMeasurements is how many healthy targets are asked about under loss.
var lossMeasurements = flag.Int("loss", 200, "how many measurements of healthy targets are made while packets are lost")

// healthyQuestions are about targets that are fine, in all ways that there are to ask.
func healthyQuestions() []string {
	return []string{
		"tcp healthy-tcp." + zone + ":443",
		"tls healthy-tls." + zone,
		"http https://healthy-http." + zone + "/",
		"dns healthy-dns." + zone + " A",
		"tcp healthy-dns." + zone + ":443 --expect open",
		"tls healthy-http." + zone + " --expect open",
		"http https://page." + zone + "/ --expect-status 200 --expect-body hello",
		"dns healthy-tls." + zone + " AAAA --expect 2001:db8:113::12",
		"origin https://healthy-origin." + zone + "/ --profile cloudfront",
		"propagation healthy-record." + zone + " A --expect 203.0.113.16",
	}
}

// underLoss is what came of the measurements under loss.
type underLoss struct {
	mu    sync.Mutex
	took  []time.Duration
	warns map[string]int // by finding code
}

// testHealthyUnderLoss asks about healthy targets while packets are lost: no finding may be an ERROR.
func (w *world) testHealthyUnderLoss(t *testing.T) {
	lossy := loss()
	if err := w.impose(t.Context(), lossy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.lift(context.WithoutCancel(t.Context()), lossy) })

	begin := time.Now()
	seen := underLoss{warns: map[string]int{}}
	// The agents' own limit is five jobs a second for one target, after a burst.
	pace := time.NewTicker(time.Second / 10)
	defer pace.Stop()
	var g errgroup.Group
	g.SetLimit(atOnce)
	questions := healthyQuestions()
	for i := range *lossMeasurements {
		<-pace.C
		g.Go(func() error {
			w.askHealthy(t, questions[i%len(questions)], &seen)
			return nil
		})
	}
	_ = g.Wait() // failures are reported to t
	all, err := counters(t.Context(), w.router, lossy)
	if err != nil {
		t.Fatal(err)
	}
	n := len(seen.took)
	if n == 0 {
		t.Fatal("nothing was measured")
	}
	slices.Sort(seen.took)
	t.Logf("%d measurements in %.0f s, median %s, slowest %s; warnings: %v; the router dropped %d of %d packets (%.1f %%)", n,
		time.Since(begin).Seconds(), seen.took[n/2], seen.took[n-1], seen.warns, all[1], all[0], 100*float64(all[1])/float64(all[0]))
	if err := keep("lab-loss.json", map[string]any{"measurements": n, "packets": all[0], "dropped": all[1], "warnings": seen.warns, "failed": t.Failed()}); err != nil {
		t.Error(err)
	}
	if share := float64(all[1]) / float64(all[0]); share < 0.03 || share > 0.07 {
		t.Errorf("the loss was %.1f %%, want 5 %%", 100*share)
	}
}

// askHealthy asks once; everything but OK with all answers in, or at worst a warning, is wrong.
func (w *world) askHealthy(t *testing.T, question string, seen *underLoss) {
	t.Helper()
	answer := w.run(t.Context(), append(strings.Fields(question), "-J")...)
	m, err := answer.measurement()
	if err != nil {
		t.Error(err)
		return
	}
	wrong := inconsistencies(m)
	seen.mu.Lock()
	defer seen.mu.Unlock()
	seen.took = append(seen.took, answer.took)
	for _, f := range serious(m) {
		seen.warns[shortCode(f.GetCode())]++
		if f.GetSeverity() == pb.Severity_SEVERITY_ERROR {
			wrong = append(wrong, f.GetSummary())
		}
	}
	if len(wrong) > 0 || answer.exit != 0 || m.GetLedger().GetAnswered() != 8 {
		t.Errorf("%v: exit %d, ledger %v: %v\n%s", question, answer.exit, m.GetLedger(), wrong, describe(m))
	}
}
