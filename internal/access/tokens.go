package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// TokensBucket is the name of the bucket that holds tokens, each under its id.
	TokensBucket = "tokens"
	// MaxTokens bounds the tokens that are kept.
	MaxTokens = 10_000
	// keepEnded is how long a token is listed after its end.
	keepEnded = 24 * time.Hour
	// maxStale is how long tokens are taken at their word when the bucket cannot be followed.
	maxStale = 2 * time.Second
	// catchUpInterval is how often it is asked what the watch has not told.
	catchUpInterval = time.Second
	// watchPause is the pause before a bucket that could not be followed is tried again.
	watchPause = 250 * time.Millisecond
	// maxRaces bounds how often a change is tried again that somebody else was quicker with.
	maxRaces = 8
)

// What can be wrong with a token.
var (
	// ErrUnknown says that there is no such token, or that its secret is another one.
	ErrUnknown = errors.New("the token is not known")
	// ErrEnded says that the token is over; what wraps it says why.
	ErrEnded = errors.New("the token has ended")
	// ErrFull says that there are as many tokens as are kept.
	ErrFull = fmt.Errorf("there are %d tokens, as many as are kept: revoke some; what ended is dropped a day later", MaxTokens)
	// ErrStale says that nobody can say now which tokens are good.
	ErrStale = errors.New("the coordinator cannot read its tokens now")
)

// Bucket is where tokens are kept: *bus.Bucket.
type Bucket interface {
	Create(ctx context.Context, key string, data []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, data []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, revision uint64) error
	Get(ctx context.Context, key string) (bus.Value, error)
	Since(ctx context.Context, revision uint64) ([]bus.Value, error)
	Watch(ctx context.Context, see func(*bus.Value) error) error
}

// Tokens are the tokens of a network. They are read from memory, which follows the bucket; changes are decided
// there. It is safe for concurrent use.
type Tokens struct {
	bucket Bucket
	now    func() time.Time

	mu     sync.Mutex
	byID   map[string]*held
	behind time.Time // since when the bucket is not followed; zero: it is
	loaded chan struct{}
}

// held is a token as it was last seen.
type held struct {
	token    *pb.Token
	revision uint64
	ended    chan struct{} // closed when it is revoked or gone
}

// NewTokens returns the tokens of a bucket; Run follows it. now is the clock; nil is the system's.
func NewTokens(b Bucket, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{bucket: b, now: now, byID: map[string]*held{}, behind: time.Unix(0, 0), loaded: make(chan struct{})}
}

// Run follows the bucket until ctx ends.
func (t *Tokens) Run(ctx context.Context) {
	var catchingUp sync.WaitGroup
	defer catchingUp.Wait()
	catchingUp.Go(func() { t.catchUp(ctx) })
	for ctx.Err() == nil {
		present := map[string]bool{}
		_ = t.bucket.Watch(ctx, func(v *bus.Value) error { // it is followed again, whatever ended it
			t.see(v, present)
			return nil
		})
		t.mu.Lock()
		if t.behind.IsZero() {
			t.behind = t.now()
		}
		t.mu.Unlock()
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
		}
	}
}

// catchUp asks again and again what has changed. Of several copies of the bucket the one that is watched may be behind, or
// end with its server, of which the watch hears nothing for a while.
func (t *Tokens) catchUp(ctx context.Context) {
	tick := time.NewTicker(catchUpInterval)
	defer tick.Stop()
	for seen := uint64(0); ; {
		changes, err := t.bucket.Since(ctx, seen)
		if err == nil && len(changes) > 0 {
			seen = changes[len(changes)-1].Revision
			t.mu.Lock()
			for _, v := range changes {
				t.take(&v)
			}
			t.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Loaded is closed when all tokens have been read once.
func (t *Tokens) Loaded() <-chan struct{} { return t.loaded }

// see takes a change. present collects the keys of a new watch: at its end what is not among them is gone.
func (t *Tokens) see(v *bus.Value, present map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v == nil {
		for id := range t.byID {
			if !present[id] {
				t.drop(id)
			}
		}
		t.behind = time.Time{}
		select {
		case <-t.loaded:
		default:
			close(t.loaded)
		}
		return
	}
	present[v.Key] = true
	t.take(v)
}

// take is for who holds the lock.
func (t *Tokens) take(v *bus.Value) {
	if v.Deleted {
		t.drop(v.Key)
		return
	}
	var token pb.Token
	if err := proto.Unmarshal(v.Data, &token); err != nil || token.GetId() != v.Key {
		t.drop(v.Key) // what cannot be read lets nobody in
		return
	}
	t.put(&token, v.Revision)
}

// put keeps what is newer than what is there.
func (t *Tokens) put(token *pb.Token, revision uint64) {
	h := t.byID[token.GetId()]
	if h == nil {
		h = &held{ended: make(chan struct{})}
		t.byID[token.GetId()] = h
	}
	if revision <= h.revision {
		return
	}
	h.token, h.revision = token, revision
	if token.GetRevokeTime() != nil {
		h.end()
	}
}

// drop forgets a token.
func (t *Tokens) drop(id string) {
	if h := t.byID[id]; h != nil {
		h.end()
		delete(t.byID, id)
	}
}

// end tells those who wait that the token is good no more.
func (h *held) end() {
	select {
	case <-h.ended:
	default:
		close(h.ended)
	}
}

// Pass is what a good token opens.
type Pass struct {
	// Token is the token, without its hash.
	Token *pb.Token
	// Ended is closed when it is revoked. Its expire_time is for the caller to watch.
	Ended <-chan struct{}
}

// Check reads the text of an API token. Errors: identity.ErrToken, ErrUnknown, ErrEnded, ErrStale.
func (t *Tokens) Check(text string) (Pass, error) {
	shown, err := identity.ParseAPIToken(text)
	if err != nil {
		return Pass{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.behind.IsZero() && t.now().Sub(t.behind) > maxStale {
		return Pass{}, ErrStale
	}
	h := t.byID[shown.ID]
	if h == nil || h.token.GetApi() == nil || !shown.Matches(h.token.GetHash()) {
		return Pass{}, ErrUnknown
	}
	if err := Ended(h.token, t.now()); err != nil {
		return Pass{}, err
	}
	return Pass{public(h.token), h.ended}, nil
}

// Find is a token by its name, without its hash; nil if there is none.
func (t *Tokens) Find(id string) *pb.Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.byID[id]; h != nil {
		return public(h.token)
	}
	return nil
}

// Ended says why a token is good no more at a time: ErrEnded, or nil if it is.
func Ended(token *pb.Token, now time.Time) error {
	switch end := token.GetExpireTime(); {
	case token.GetRevokeTime() != nil:
		return fmt.Errorf("%w: it was revoked at %s", ErrEnded, token.GetRevokeTime().AsTime().Format(time.RFC3339))
	case end != nil && !now.Before(end.AsTime()):
		return fmt.Errorf("%w: it was good until %s", ErrEnded, end.AsTime().Format(time.RFC3339))
	}
	return nil
}

// public is a token as clients may see it: without its hash.
func public(token *pb.Token) *pb.Token {
	token = proto.CloneOf(token)
	token.Hash = nil
	return token
}

// Create keeps a token, which has all but its time, and returns it as clients may see it.
func (t *Tokens) Create(ctx context.Context, token *pb.Token) (*pb.Token, error) {
	token = proto.CloneOf(token)
	token.CreateTime = timestamppb.New(t.now())
	t.mu.Lock()
	full := len(t.byID) >= MaxTokens
	t.mu.Unlock()
	if full {
		return nil, ErrFull
	}
	data, err := proto.Marshal(token)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	revision, err := t.bucket.Create(ctx, token.GetId(), data)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(token, revision)
	return public(token), nil
}

// Revoke ends a token and returns it; changed says whether it was good before. Errors: ErrUnknown.
func (t *Tokens) Revoke(ctx context.Context, id string) (token *pb.Token, changed bool, err error) {
	for range maxRaces {
		v, err := t.bucket.Get(ctx, id)
		if errors.Is(err, bus.ErrNoKey) {
			return nil, false, ErrUnknown
		}
		if err != nil {
			return nil, false, err
		}
		token, changed, err := t.revoke(ctx, v)
		if !errors.Is(err, bus.ErrChanged) {
			return token, changed, err
		}
	}
	return nil, false, fmt.Errorf("token %s: %w", id, bus.ErrChanged)
}

// revoke ends a token as it was read.
func (t *Tokens) revoke(ctx context.Context, v bus.Value) (_ *pb.Token, changed bool, err error) {
	var token pb.Token
	if err := proto.Unmarshal(v.Data, &token); err != nil {
		return nil, false, fmt.Errorf("token %s: %w", v.Key, err)
	}
	if token.GetRevokeTime() != nil {
		return public(&token), false, nil
	}
	token.RevokeTime = timestamppb.New(t.now())
	data, err := proto.Marshal(&token)
	if err != nil {
		return nil, false, fmt.Errorf("token %s: %w", v.Key, err)
	}
	revision, err := t.bucket.Update(ctx, v.Key, data, v.Revision)
	if err != nil {
		return nil, false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(&token, revision)
	return public(&token), true, nil
}

// List is all tokens, the newest first, as clients may see them.
func (t *Tokens) List() []*pb.Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*pb.Token, 0, len(t.byID))
	for _, h := range t.byID {
		list = append(list, public(h.token))
	}
	slices.SortFunc(list, func(a, b *pb.Token) int {
		return cmp.Or(b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return list
}

// Sweep drops what ended more than a day ago.
func (t *Tokens) Sweep(ctx context.Context) error {
	var errs []error
	for id, revision := range t.overdue() {
		err := t.bucket.Delete(ctx, id, revision)
		if errors.Is(err, bus.ErrChanged) {
			continue // somebody was quicker; the watch will tell
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.mu.Lock()
		t.drop(id)
		t.mu.Unlock()
	}
	return errors.Join(errs...)
}

// overdue are the tokens that ended long enough ago, with their revisions.
func (t *Tokens) overdue() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := map[string]uint64{}
	for id, h := range t.byID {
		if end, ok := endOf(h.token); ok && t.now().Sub(end) > keepEnded {
			old[id] = h.revision
		}
	}
	return old
}

// endOf is when a token ended or will, if it does: the first of what ends it.
func endOf(token *pb.Token) (end time.Time, ok bool) {
	for _, at := range []*timestamppb.Timestamp{token.GetExpireTime(), token.GetRevokeTime(), token.GetJoin().GetUseTime()} {
		if at != nil && (!ok || at.AsTime().Before(end)) {
			end, ok = at.AsTime(), true
		}
	}
	return end, ok
}
