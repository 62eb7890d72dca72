package access

import (
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// joinToken makes a join token that ends at a time.
func joinToken(t *testing.T, tokens *Tokens, end time.Time) identity.Token {
	t.Helper()
	fresh := identity.NewJoinToken(identity.Pin{})
	_, err := tokens.Create(t.Context(), &pb.Token{
		Id: fresh.ID, Hash: fresh.Hash(), ExpireTime: timestamppb.New(end), Purpose: &pb.Token_Join{Join: &pb.JoinToken{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

func TestJoinTokens(t *testing.T) {
	now := noon
	tokens := NewTokens(newShelf(), func() time.Time { return now })
	fresh := joinToken(t, tokens, noon.Add(time.Hour))
	use := func(agent, key string) error {
		j, err := tokens.ShowJoin(t.Context(), fresh.Text())
		if err != nil {
			return err
		}
		return tokens.Use(t.Context(), j, agent, []byte(key))
	}
	other := identity.NewJoinToken(identity.Pin{})
	if _, err := tokens.ShowJoin(t.Context(), other.Text()); !errors.Is(err, ErrUnknown) {
		t.Errorf("one that nobody made: %v", err)
	}
	other.ID = fresh.ID
	if _, err := tokens.ShowJoin(t.Context(), other.Text()); !errors.Is(err, ErrUnknown) {
		t.Errorf("one with another secret: %v", err)
	}
	if err := use("a", "key of a"); err != nil {
		t.Errorf("the first: %v", err)
	}
	if err := use("a", "key of a"); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if err := use("a", "another key"); !errors.Is(err, ErrUsed) {
		t.Errorf("another key: %v", err)
	}
	if err := use("b", "key of a"); !errors.Is(err, ErrUsed) {
		t.Errorf("another name: %v", err)
	}
	now = noon.Add(2 * time.Hour)
	if err := use("a", "key of a"); err != nil {
		t.Errorf("the same after its end: %v", err)
	}
	if _, _, err := tokens.Revoke(t.Context(), fresh.ID); err != nil {
		t.Fatal(err)
	}
	if err := use("a", "key of a"); !errors.Is(err, ErrEnded) {
		t.Errorf("after it was revoked: %v", err)
	}
	fresh = joinToken(t, tokens, noon.Add(time.Hour))
	if err := use("a", "key of a"); !errors.Is(err, ErrEnded) {
		t.Errorf("one that has ended: %v", err)
	}
}

// TestAJoinTokenIsUsedOnce: of many that try at once, one succeeds.
func TestAJoinTokenIsUsedOnce(t *testing.T) {
	tokens := NewTokens(newShelf(), nil)
	fresh := joinToken(t, tokens, time.Now().Add(time.Hour))
	var wg sync.WaitGroup
	won := make(chan string, 50)
	for i := range 50 {
		wg.Go(func() {
			name := string(rune('a' + i%26))
			j, err := tokens.ShowJoin(t.Context(), fresh.Text())
			if err == nil && tokens.Use(t.Context(), j, name, []byte{byte(i)}) == nil {
				won <- name
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 50 used it", len(won))
	}
}
