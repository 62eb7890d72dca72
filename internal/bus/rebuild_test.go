package bus_test

import (
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
)

func TestARebuiltLogHasTheSamePositions(t *testing.T) {
	for _, c := range []struct {
		what  string
		first uint64
		n     int
	}{
		{"from the beginning", 1, 1000},
		{"after something was forgotten", 1<<40 + 7, 3},
		{"all is forgotten", 5000, 0},
		{"nothing was there yet", 1, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			s, err := embedded.Start(embedded.Options{Dir: dir, Unsynced: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown()
			r, err := bus.RebuildLog(t.Context(), s, bus.Origin{ID: "01k5", First: c.first})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for range c.n {
				if err := r.Append(t.Context(), []byte("\x0a\x00")); err != nil { // a batch with an entry that is empty
					t.Fatal(err)
				}
			}
			if err := r.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Shutdown()

			s = startServer(t, dir, "127.0.0.1:0")
			l := runLog(t, s, 1<<20)
			if l.ID() != "01k5" {
				t.Errorf("its name is %q", l.ID())
			}
			want := bus.Bounds{First: c.first, Last: c.first + uint64(c.n) - 1}
			got, err := l.Bounds(t.Context())
			if err != nil || got.First != want.First || got.Last != want.Last {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			for p := want.First; p <= want.Last; p++ {
				if data, err := l.Message(t.Context(), p); err != nil || string(data) != "\x0a\x00" {
					t.Fatalf("at %d: %q, %v", p, data, err)
				}
			}
			if _, err := l.Message(t.Context(), want.Last+1); err == nil {
				t.Error("there is a message beyond the last")
			}
			if p, err := l.Append(t.Context(), entry("a", 10)); err != nil || p != want.Last+1 {
				t.Errorf("it goes on at %d, %v; want %d", p, err, want.Last+1)
			}
			if _, err := bus.RebuildLog(t.Context(), s, bus.Origin{ID: "01k5", First: c.first}); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("a log that is there: %v", err)
			}
		})
	}
}
