package lab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// leastCompared is how many questions must really have been asked of both, and answered alike.
const leastCompared = 200

// facts are what a tool saw, by the fact's name, in words that both sides share.
type facts map[string]string

// comparison is one question, asked of another tool and of Elsewhere, from the same place.
type comparison struct {
	name string
	says string // why it is asked

	peer func(context.Context, *peerWorld) (facts, error)
	tool string // the peer, for the table

	ask  string // Elsewhere's command line, without -J
	read func(*pb.Result) (facts, error)

	// differs names the facts that are not the same, each with the reason. A fact that is named here
	// and is the same all the same is wrong, too.
	differs map[string]string
}

// compared is one line of the table.
type compared struct {
	comparison
	peerSaw, elsewhereSaw facts
	same                  int
	wrong                 []string
}

// TestPeers asks dig, kdig, openssl, nmap, testssl.sh, tcptraceroute and curl what it asks Elsewhere.
func TestPeers(t *testing.T) {
	if *faultsOnly {
		return // Nothing here is without Elsewhere.
	}
	w := newPeerWorld(t)
	if *holdWorld {
		w.hold(t)
		return
	}
	var mu sync.Mutex
	var rows []compared
	asked := 0
	begin := time.Now()
	// Most of them wait more than they compute.
	compareAll := func(all []comparison, limit int) {
		var g errgroup.Group
		g.SetLimit(limit)
		asked += len(all)
		for _, c := range all {
			g.Go(func() error {
				t.Run(c.name, func(t *testing.T) {
					row := w.compare(t, c)
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, row)
				})
				return nil
			})
		}
		_ = g.Wait() // failures are in the subtests
	}
	compareAll(slices.Concat(enumerations(), tcpComparisons(), walkComparisons(), dnsComparisons(), certificateComparisons(), negotiationComparisons(),
		httpComparisons()), atOnce)
	compareAll(afterwards(), 1) // Elsewhere waits a moment only: the server must not be late for it.
	count := w.tabulate(t, rows, time.Since(begin))
	if asked < leastCompared || len(rows) == asked && count < leastCompared { // Fewer have run where -run chose.
		t.Errorf("%d of %d questions were compared, want at least %d", count, asked, leastCompared)
	}
}

// compare asks both and compares what they saw.
func (w *peerWorld) compare(t *testing.T, c comparison) compared {
	t.Helper()
	row := compared{comparison: c}
	var err error
	if row.peerSaw, err = c.peer(t.Context(), w); err != nil {
		t.Errorf("%s: %v", c.tool, err)
		return row
	}
	answer := w.run(t.Context(), append(strings.Fields(c.ask), "-J")...)
	m, err := answer.measurement()
	if err != nil || len(m.GetResults()) != 1 {
		t.Errorf("elsewhere %s: %d results, %v", c.ask, len(m.GetResults()), err)
		return row
	}
	if row.elsewhereSaw, err = c.read(m.GetResults()[0]); err != nil {
		t.Errorf("elsewhere %s: %v\n%v", c.ask, err, m.GetResults()[0])
		return row
	}
	if row.decide(); len(row.wrong) > 0 {
		t.Errorf("%s\n%s\nelsewhere %s\n%s", c.says, c.tool, c.ask, strings.Join(row.wrong, "\n"))
	}
	return row
}

// decide compares fact by fact.
func (row *compared) decide() {
	all := maps.Clone(row.peerSaw)
	maps.Copy(all, row.elsewhereSaw)
	for _, fact := range slices.Sorted(maps.Keys(all)) {
		peer, elsewhere := row.peerSaw[fact], row.elsewhereSaw[fact]
		because, differs := row.differs[fact]
		switch {
		case peer != elsewhere && !differs:
			row.wrong = append(row.wrong, fmt.Sprintf("%s: %s\n  the peer:  %q\n  elsewhere: %q", row.name, fact, peer, elsewhere))
		case peer == elsewhere && differs:
			row.wrong = append(row.wrong, fmt.Sprintf("%s: %s is %q for both, and should differ because %s", row.name, fact, peer, because))
		case peer == elsewhere:
			row.same++
		}
	}
	if row.same == 0 {
		row.wrong = append(row.wrong, row.name+": nothing was compared")
	}
}

// tabulate prints the table, and returns how many questions were answered alike.
func (w *peerWorld) tabulate(t *testing.T, rows []compared, took time.Duration) (count int) {
	t.Helper()
	slices.SortFunc(rows, func(a, b compared) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	for _, row := range rows {
		same := fmt.Sprintf("same (%d facts)", row.same)
		if len(row.wrong) > 0 || row.same == 0 {
			same = "DIFFERENT"
		} else {
			count++
		}
		fmt.Fprintf(&b, "%s | %s | elsewhere %s | %s\n", row.name, row.tool, row.ask, same)
		for _, fact := range slices.Sorted(maps.Keys(row.differs)) {
			fmt.Fprintf(&b, "    %s differs: %q and %q, because %s\n", fact, row.peerSaw[fact], row.elsewhereSaw[fact], row.differs[fact])
		}
	}
	t.Logf("case | peer | elsewhere | same\n%s%d of %d questions compared in %.0f s", b.String(), count, len(rows), took.Seconds())
	return count
}

// targetStep returns the one step of a kind that looked at the target.
func targetStep(r *pb.Result, kind pb.StepKind) (*pb.Step, error) {
	var found []*pb.Step
	for _, s := range r.GetSteps() {
		if s.GetKind() == kind && s.GetRole() == pb.Role_ROLE_TARGET {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d steps of kind %s look at the target, want one", len(found), kind)
	}
	return found[0], nil
}

// short is a failure as people write it.
func short(f pb.Failure) string {
	return strings.ToLower(strings.TrimPrefix(f.String(), "FAILURE_"))
}

// lines joins what a fact lists, in the order that it has.
func lines(list []string) string { return strings.Join(list, "\n") }
