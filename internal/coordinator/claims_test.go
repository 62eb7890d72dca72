package coordinator

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// newClaims are claims in a bucket of their own.
func newClaims(t *testing.T) claims {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	b, err := bus.OpenBucket(t.Context(), s, claimsBucket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return claims{b}
}

func TestSessions(t *testing.T) {
	c := newClaims(t)
	for i, row := range []struct {
		what           string
		epoch, next    uint64
		instance       string
		known          *pb.Delivery
		session, wants uint64
		who            process
	}{
		{"a new spool", 0, 1, "p", nil, 1, 1, processNew},
		{"it comes back", 1, 5, "p", &pb.Delivery{Epoch: 1, Highest: 3}, 2, 1, processSame},
		{"it was restarted", 1, 5, "q", &pb.Delivery{Epoch: 1, Highest: 4}, 3, 1, processNew},
		{"its spool went back in time", 1, 4, "q", &pb.Delivery{Epoch: 1, Highest: 4}, 4, 2, processSame},
		{"its spool is lost", 0, 1, "r", &pb.Delivery{Epoch: 2, Highest: 1}, 5, 3, processNew},
		{"an epoch that is over", 2, 1, "r", nil, 6, 4, processSame},
		{"an epoch that never was", 9, 1, "r", nil, 7, 10, processSame},
		{"the log knows of a newer one", 10, 1, "r", &pb.Delivery{Epoch: 12}, 8, 13, processSame},
		{"a process of before, after another one", 13, 1, "p", nil, 9, 13, processBack},
		{"and the other one again", 13, 1, "r", nil, 10, 13, processBack},
		{"an epoch after which there would be none", math.MaxUint64, 1, "r", nil, 11, maxEpoch + 1, processSame},
	} {
		r := &pb.RegisterRequest{Id: "a", Epoch: row.epoch, Next: row.next, Instance: row.instance}
		claim, who, err := c.session(t.Context(), r, row.known)
		if err != nil || claim.GetSession() != row.session || claim.GetEpoch() != row.wants || who != row.who {
			t.Errorf("%d, %s: %v, process %v, %v", i, row.what, claim, who, err)
		}
	}
}

// TestSessionsAtOnce: each of them has a number of its own, and each new spool an epoch of its own.
func TestSessionsAtOnce(t *testing.T) {
	c := newClaims(t)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		given  = map[uint64]bool{}
		epochs = map[uint64]bool{}
	)
	const n = 8
	for range n {
		wg.Go(func() {
			for {
				claim, _, err := c.session(context.Background(), &pb.RegisterRequest{Id: "a"}, nil)
				if errors.Is(err, bus.ErrChanged) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if given[claim.GetSession()] || epochs[claim.GetEpoch()] {
					t.Errorf("given twice: %v", claim)
				}
				given[claim.GetSession()], epochs[claim.GetEpoch()] = true, true
				return
			}
		})
	}
	wg.Wait()
	if len(given) != n {
		t.Errorf("%d sessions", len(given))
	}
}

func TestNames(t *testing.T) {
	c := newClaims(t)
	first, second, named := &pb.Token{Id: "1"}, &pb.Token{Id: "2"}, &pb.Token{Id: "3", Purpose: &pb.Token_Join{Join: &pb.JoinToken{Agent: "a"}}}
	for _, row := range []struct {
		what  string
		name  string
		key   string
		token *pb.Token
		want  error
	}{
		{"the first", "a", "k", first, nil},
		{"the same once more", "a", "k", first, nil},
		{"the same token with another key", "a", "l", first, errTaken},
		{"another one", "a", "m", second, errTaken},
		{"another name", "b", "m", second, nil},
		{"a token for this name", "a", "n", named, nil},
		{"a token for another name", "b", "n", named, errTaken},
	} {
		if err := c.enrol(t.Context(), row.name, []byte(row.key), row.token); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.what, err, row.want)
		}
	}
	if claim, _, err := c.session(t.Context(), &pb.RegisterRequest{Id: "a"}, nil); err != nil || string(claim.GetKey()) != "n" {
		t.Errorf("a session forgets whose the name is: %v, %v", claim, err)
	}
}
