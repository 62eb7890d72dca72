package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// TestThePowerCutIsSeen is the control of F4: a coordinator that acknowledges before its disk has anything loses
// acknowledged results when the power is cut, and the checker has to say so. If it does not, F4 shows nothing.
func TestThePowerCutIsSeen(t *testing.T) {
	w := newWorld(t, &world{name: "control", unsafe: true}, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.load.run(ctx, ctx, rand.New(rand.NewPCG(*seed, 0)))
	}()
	w.load.rate.Store(3 * loadRate)
	proof, err := w.powerCut(t.Context(), w.coordinator.machine())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	t.Log(proof)
	w.tls = false // the tokens are gone with the rest
	if err := w.startWithoutPast(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.load.conn, err = w.client(); err != nil {
		t.Fatal(err)
	}
	defer w.load.conn.Close()
	h, err := w.history(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := history.Check(h)
	t.Logf("attempted %d, acknowledged %d, there %d; lost %d; measurements that are gone %d", r.Attempted, r.Acked, r.Folded, r.Lost, r.Unbalanced)
	if r.Lost == 0 || r.Ok() {
		t.Errorf("acknowledged before its disk had it, power cut, and nothing is lost: this test cannot see a loss")
	}
}

// startWithoutPast starts the coordinator. Where it says that its log has lost something, and that it will go on
// without the checkpoint, that is moved away.
func (w *world) startWithoutPast(ctx context.Context) error {
	err := w.bring(ctx, w.coordinator)
	if err == nil {
		return nil
	}
	if said := tail(w.coordinator.log()); !strings.Contains(said, "move fold.db away") {
		return errors.Join(err, errors.New("it does not say what it misses: "+said))
	}
	fold := filepath.Join(w.coordinator.dataDir(), "fold.db")
	if err := os.Rename(fold, fold+".away"); err != nil {
		return err
	}
	return w.bring(ctx, w.coordinator)
}
