package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shelf is a bucket in memory. Its watch sees what is there and, at once, what changes.
type shelf struct {
	mu       sync.Mutex
	revision uint64
	values   map[string]bus.Value
	changes  []chan bus.Value
	before   func() // before a change is decided: somebody else's turn
	broken   bool   // it cannot be watched
	silent   bool   // who watches hears no change, as of a copy that is behind
}

func newShelf() *shelf { return &shelf{values: map[string]bus.Value{}} }

func (s *shelf) change(v bus.Value) uint64 {
	s.revision++
	v.Revision = s.revision
	s.values[v.Key] = v
	for _, c := range s.changes {
		if !s.silent {
			c <- v
		}
	}
	return v.Revision
}

func (s *shelf) Create(_ context.Context, key string, data []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[key]; ok && !v.Deleted {
		return 0, bus.ErrExists
	}
	return s.change(bus.Value{Key: key, Data: data}), nil
}

func (s *shelf) Update(_ context.Context, key string, data []byte, revision uint64) (uint64, error) {
	if f := s.before; f != nil {
		s.before = nil
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[key].Revision != revision {
		return 0, bus.ErrChanged
	}
	return s.change(bus.Value{Key: key, Data: data}), nil
}

func (s *shelf) Delete(_ context.Context, key string, revision uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[key].Revision != revision {
		return bus.ErrChanged
	}
	s.change(bus.Value{Key: key, Deleted: true})
	return nil
}

func (s *shelf) Get(_ context.Context, key string) (bus.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if !ok || v.Deleted {
		return bus.Value{}, bus.ErrNoKey
	}
	return v, nil
}

func (s *shelf) Since(_ context.Context, revision uint64) (all []bus.Value, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return nil, errors.New("broken")
	}
	for _, v := range s.values {
		if v.Revision > revision {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b bus.Value) int { return cmp.Compare(a.Revision, b.Revision) })
	return all, nil
}

func (s *shelf) Watch(ctx context.Context, see func(*bus.Value) error) error {
	s.mu.Lock()
	if s.broken {
		s.mu.Unlock()
		return errors.New("broken")
	}
	for _, v := range s.values {
		if err := see(&v); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	changes := make(chan bus.Value, 100)
	s.changes = append(s.changes, changes)
	s.mu.Unlock()
	if err := see(nil); err != nil {
		return err
	}
	for {
		select {
		case v, ok := <-changes:
			if !ok {
				return errors.New("broken")
			}
			if err := see(&v); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cut ends every watch.
func (s *shelf) cut(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.changes {
		close(c)
	}
	s.changes, s.broken = nil, broken
}

// follow returns the tokens of a bucket, loaded.
func follow(t *testing.T, s *shelf) *Tokens {
	t.Helper()
	tokens := NewTokens(s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { tokens.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	<-tokens.Loaded()
	return tokens
}

func api(expires time.Duration) (identity.Token, *pb.Token) {
	fresh := identity.NewAPIToken()
	token := &pb.Token{Id: fresh.ID, Hash: fresh.Hash(), Purpose: &pb.Token_Api{Api: &pb.APIToken{Name: "n", Scope: pb.Scope_SCOPE_READ}}}
	if expires != 0 {
		token.ExpireTime = timestamppb.New(time.Now().Add(expires))
	}
	return fresh, token
}

func create(t *testing.T, tokens *Tokens, expires time.Duration) identity.Token {
	t.Helper()
	fresh, token := api(expires)
	if _, err := tokens.Create(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	return fresh
}

func TestTheLifeOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		here, there := follow(t, s), follow(t, s)
		short, long := create(t, here, time.Hour), create(t, here, 0)
		if _, err := here.Check(long.Text()); err != nil {
			t.Errorf("at once, where it was made: %v", err)
		}
		synctest.Wait()
		pass, err := there.Check(long.Text())
		if err != nil || len(pass.Token.GetHash()) != 0 {
			t.Fatalf("elsewhere: %v, %v; want a token without its hash", pass, err)
		}
		wrong := []byte(long.Text())
		if at := len(wrong) - 3; wrong[at] == 'a' {
			wrong[at] = 'b'
		} else {
			wrong[at] = 'a'
		}
		for text, want := range map[string]error{string(wrong): ErrUnknown, identity.NewAPIToken().Text(): ErrUnknown, "": identity.ErrToken, "ewj1_a_b_c": identity.ErrToken} {
			if _, err := here.Check(text); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", text, err, want)
			}
		}
		time.Sleep(time.Hour)
		if _, err := here.Check(short.Text()); !errors.Is(err, ErrEnded) {
			t.Errorf("after its end: %v", err)
		}
		for i, want := range []bool{true, false} {
			if token, changed, err := here.Revoke(t.Context(), long.ID); err != nil || changed != want || token.GetRevokeTime() == nil {
				t.Errorf("revoked for the %d. time: %v, %v, %v", i+1, token, changed, err)
			}
		}
		synctest.Wait()
		select {
		case <-pass.Ended:
		default:
			t.Error("who came in with it is not told that it is revoked")
		}
		if _, err := there.Check(long.Text()); !errors.Is(err, ErrEnded) {
			t.Errorf("revoked elsewhere: %v", err)
		}
		sweep(t, here, there)
	})
}

// sweep drops what ended a day ago, and not before.
func sweep(t *testing.T, here, there *Tokens) {
	t.Helper()
	for _, row := range []struct {
		after time.Duration
		want  int
	}{{23 * time.Hour, 2}, {2 * time.Hour, 0}} {
		time.Sleep(row.after)
		if err := errors.Join(here.Sweep(t.Context()), there.Sweep(t.Context())); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := len(there.List()); got != row.want || len(here.List()) != got {
			t.Errorf("%v later %d tokens are listed, want %d", row.after, got, row.want)
		}
	}
}

func TestNobodyComesInByWhatMayBeOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		tokens := follow(t, s)
		good := create(t, tokens, 0)
		s.cut(true)
		time.Sleep(time.Second)
		if _, err := tokens.Check(good.Text()); err != nil {
			t.Errorf("a second after the bucket was lost: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := tokens.Check(good.Text()); !errors.Is(err, ErrStale) {
			t.Errorf("three seconds after it was lost: %v, want %v", err, ErrStale)
		}
		// What was deleted meanwhile is gone when it is back.
		if err := s.Delete(t.Context(), good.ID, s.values[good.ID].Revision); err != nil {
			t.Fatal(err)
		}
		s.cut(false)
		time.Sleep(time.Second)
		if _, err := tokens.Check(good.Text()); !errors.Is(err, ErrUnknown) {
			t.Errorf("when it is back: %v, want %v", err, ErrUnknown)
		}
	})
}

// A coordinator that watches a copy which is behind, or whose server has died, hears nothing of what another one does.
func TestARevocationThatTheWatchDoesNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		here, there := follow(t, s), follow(t, s)
		token := create(t, there, 0)
		synctest.Wait()
		s.silent = true
		if _, _, err := there.Revoke(t.Context(), token.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := here.Check(token.Text()); err != nil {
			t.Fatalf("the watch told: %v", err)
		}
		time.Sleep(catchUpInterval)
		synctest.Wait()
		if _, err := here.Check(token.Text()); !errors.Is(err, ErrEnded) {
			t.Errorf("a second later: %v, want %v", err, ErrEnded)
		}
	})
}

func TestWhoIsNotLoadedLetsNobodyIn(t *testing.T) {
	if _, err := NewTokens(newShelf(), nil).Check(identity.NewAPIToken().Text()); !errors.Is(err, ErrStale) {
		t.Errorf("%v, want %v", err, ErrStale)
	}
}

func TestARevocationThatIsRaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		tokens := follow(t, s)
		token := create(t, tokens, 0)
		s.before = func() { // it changes between read and write
			v, err := s.Get(t.Context(), token.ID)
			if err == nil {
				_, err = s.Update(t.Context(), token.ID, v.Data, v.Revision)
			}
			if err != nil {
				t.Error(err)
			}
		}
		if _, changed, err := tokens.Revoke(t.Context(), token.ID); err != nil || !changed {
			t.Errorf("%v, %v", changed, err)
		}
		if _, err := tokens.Check(token.Text()); !errors.Is(err, ErrEnded) {
			t.Errorf("%v, want %v", err, ErrEnded)
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := follow(t, newShelf())
		for i := range MaxTokens {
			if _, err := tokens.Create(t.Context(), &pb.Token{Id: fmt.Sprint(i)}); err != nil {
				t.Fatal(i, err)
			}
			synctest.Wait()
		}
		_, one := api(0)
		if _, err := tokens.Create(t.Context(), one); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "revoke") {
			t.Errorf("one more: %v", err)
		}
	})
}

// TestWhatCannotBeReadLetsNobodyIn: a value that is no token, or another's, is no token.
func TestWhatCannotBeReadLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		tokens := follow(t, s)
		token := create(t, tokens, 0)
		if _, err := s.Update(t.Context(), token.ID, []byte("\xff"), s.values[token.ID].Revision); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := tokens.Check(token.Text()); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v, want %v", err, ErrUnknown)
		}
	})
}
