package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ErrUsed says that an agent has enrolled with a token already.
var ErrUsed = errors.New("the token was used already")

// Joining is a join token that was shown, as it was at that time.
type Joining struct {
	// Token is the token.
	Token *pb.Token

	revision uint64
}

// ShowJoin reads the text of a join token in the bucket. Errors: identity.ErrToken, ErrUnknown, ErrEnded. Whether it
// was used is for Use to say.
func (t *Tokens) ShowJoin(ctx context.Context, text string) (Joining, error) {
	shown, err := identity.ParseJoinToken(text)
	if err != nil {
		return Joining{}, err
	}
	j, err := t.join(ctx, shown.ID)
	if err != nil {
		return Joining{}, err
	}
	if !shown.Matches(j.Token.GetHash()) {
		return Joining{}, ErrUnknown
	}
	// The end of one that was used is not looked at: its agent may ask again, since an answer can be lost.
	if err := Ended(j.Token, t.now()); err != nil && (j.Token.GetRevokeTime() != nil || j.Token.GetJoin().GetUseTime() == nil) {
		return Joining{}, err
	}
	return j, nil
}

// join reads a join token.
func (t *Tokens) join(ctx context.Context, id string) (Joining, error) {
	v, err := t.bucket.Get(ctx, id)
	if errors.Is(err, bus.ErrNoKey) {
		return Joining{}, ErrUnknown
	}
	if err != nil {
		return Joining{}, err
	}
	var token pb.Token
	if err := proto.Unmarshal(v.Data, &token); err != nil {
		return Joining{}, fmt.Errorf("token %s: %w", id, err)
	}
	if token.GetJoin() == nil {
		return Joining{}, ErrUnknown
	}
	return Joining{&token, v.Revision}, nil
}

// Use uses up a token for an agent and its key, by compare-and-set: of all that try, one succeeds. The one that did
// may ask again with the same name and key. Errors: ErrUsed, ErrEnded; after any other it may have been used or not.
func (t *Tokens) Use(ctx context.Context, j Joining, agent string, key []byte) error {
	for range maxRaces {
		join := j.Token.GetJoin()
		if join.GetUseTime() != nil {
			if join.GetUsedBy() == agent && bytes.Equal(join.GetUsedKey(), key) {
				return nil
			}
			return fmt.Errorf("%w: by agent %s at %s", ErrUsed, join.GetUsedBy(), join.GetUseTime().AsTime().Format(time.RFC3339))
		}
		if err := Ended(j.Token, t.now()); err != nil {
			return err
		}
		err := t.use(ctx, j, agent, key)
		if !errors.Is(err, bus.ErrChanged) {
			return err
		}
		if j, err = t.join(ctx, j.Token.GetId()); err != nil {
			return err
		}
	}
	return fmt.Errorf("token %s: %w", j.Token.GetId(), bus.ErrChanged)
}

// use writes that a token is used.
func (t *Tokens) use(ctx context.Context, j Joining, agent string, key []byte) error {
	used := proto.CloneOf(j.Token)
	join := used.GetJoin()
	join.UsedBy, join.UsedKey, join.UseTime = agent, key, timestamppb.New(t.now())
	data, err := proto.Marshal(used)
	if err != nil {
		return fmt.Errorf("token %s: %w", used.GetId(), err)
	}
	revision, err := t.bucket.Update(ctx, used.GetId(), data, j.revision)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(used, revision)
	return nil
}
