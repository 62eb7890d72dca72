package coordinator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestSeveralReplaceTheirAuthority: each step is taken at another coordinator, and all of them and all agents take it. One
// that is away is waited for, and takes what it has missed when it comes back.
func TestSeveralReplaceTheirAuthority(t *testing.T) {
	w := newTrioWith(t, true)
	w.agents(4)
	api := func(i int) pb.CoordinatorServiceClient { return pb.NewCoordinatorServiceClient(w.conns[i]) }
	old := w.c[0].authorities.Pin().Hex()

	w.stops[2]()
	added, err := api(0).AddAuthority(t.Context(), &pb.AddAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := added.GetAuthority().GetPin()
	eventually(t, "c-2 has both", func() bool { return slices.Equal(w.pins(1), []string{old, fresh}) })
	_, err = api(1).UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: fresh})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "do not go by the last change of the authorities yet: c-3.") {
		t.Errorf("using it while c-3 is away: %v", err)
	}
	w.start(2)
	w.ready(0, 1, 2)
	if got := w.pins(2); !slices.Equal(got, []string{old, fresh}) {
		t.Errorf("c-3, when it is back, has %v", got)
	}
	w.patiently("use it", func() error {
		_, err := api(1).UseAuthority(t.Context(), &pb.UseAuthorityRequest{Pin: fresh})
		return err
	})
	w.patiently("drop the old one", func() error {
		_, err := api(2).DropAuthority(t.Context(), &pb.DropAuthorityRequest{Pin: old})
		return err
	})
	eventually(t, "all have the new one alone", func() bool {
		return !slices.ContainsFunc([]int{0, 1, 2}, func(i int) bool { return !slices.Equal(w.pins(i), []string{fresh}) })
	})
	eventually(t, "all agents are there", func() bool { return w.online(4) && len(w.c[0].fleet.Deaf(w.c[0].authorities.Digest())) == 0 })
	for i := range w.c { // by their files they find each other
		w.stops[i]()
		w.start(i)
		w.ready(0, 1, 2)
	}
	eventually(t, "all agents are there", func() bool { return w.online(4) })
	for i, o := range w.opts {
		again, err := identity.Open(o.DataDir, identity.Options{})
		if err != nil || again.Pin().Hex() != fresh || len(again.List()) != 1 {
			t.Errorf("%s has other files: %v", name(i), err)
		}
	}
	for i, said := range []string{"dropped " + old, fresh + " signs", "added " + fresh} {
		r, err := pb.NewAccessServiceClient(w.conns[i]).ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_AUTHORITY_CHANGED}})
		if err != nil || len(r.GetEvents()) != 3 || !strings.Contains(r.GetEvents()[i].GetDetail(), said) {
			t.Errorf("the audit of %s: %v, %v", name(i), r.GetEvents(), err)
		}
	}
	w.both(api)
	w.undone()
	w.foreign()
}

// pins are the authorities that a coordinator goes by.
func (w *trio) pins(i int) (pins []string) {
	for _, a := range w.c[i].authorities.List() {
		pins = append(pins, a.GetPin())
	}
	return pins
}

// patiently does what is refused as long as somebody has not heard.
func (w *trio) patiently(what string, do func() error) {
	w.t.Helper()
	eventually(w.t, what, func() bool {
		err := do()
		if err != nil && status.Code(err) != codes.FailedPrecondition {
			w.t.Fatalf("%s: %v", what, err)
		}
		return err == nil
	})
}

// both has two coordinators add an authority at one moment: neither takes the other's away.
func (w *trio) both(api func(int) pb.CoordinatorServiceClient) {
	w.t.Helper()
	before := len(w.pins(0))
	all := make(chan error)
	for i := range 2 {
		go func() {
			_, err := api(i).AddAuthority(w.t.Context(), &pb.AddAuthorityRequest{})
			all <- err
		}()
	}
	done := 0
	for range 2 {
		switch err := <-all; status.Code(err) {
		case codes.OK:
			done++
		case codes.Aborted:
		default:
			w.t.Errorf("two add one: %v", err)
		}
	}
	if done == 0 {
		w.t.Error("of two that add one neither does")
	}
	eventually(w.t, "all go by what was added", func() bool {
		return len(w.pins(0)) == before+done && slices.Equal(w.pins(0), w.pins(1)) && slices.Equal(w.pins(0), w.pins(2))
	})
}

// undone has a change end before it is written: nobody goes by it.
func (w *trio) undone() {
	w.t.Helper()
	before := w.pins(0)
	ctx, cancel := context.WithCancel(w.t.Context())
	err := w.c[0].shared.change(ctx, func() error {
		_, err := w.c[0].authorities.Add()
		cancel()
		return err
	})
	if got := w.pins(0); !errors.Is(err, context.Canceled) || !slices.Equal(got, before) {
		w.t.Errorf("a change that was not written: %v, and there are %v, before %v", err, got, before)
	}
}

// foreign is a coordinator with another network's authority: what it has to do is said, and its files are as they were.
func (w *trio) foreign() {
	w.t.Helper()
	dir := w.t.TempDir()
	other, err := identity.Open(dir, identity.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "ca.pem"))
	err = (&shared{bucket: w.c[0].buckets[2], own: other, log: w.c[0].log}).begin(w.t.Context())
	if !errors.Is(err, identity.ErrForeign) || !strings.Contains(err.Error(), "copy ca.pem and ca.key from another coordinator's directory") {
		w.t.Errorf("another network's: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "ca.pem")); string(after) != string(before) || len(before) == 0 {
		w.t.Error("its files are others now")
	}
}
