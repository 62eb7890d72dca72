package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/identity"
)

const (
	// authoritiesBucket holds the authorities of several coordinators, under setKey.
	authoritiesBucket = "authorities"
	setKey            = "set"
	// adoptInterval is how often a coordinator looks whether another one has changed the authorities.
	adoptInterval = time.Second
)

// shared is the authorities that several coordinators go by: one value, with the keys, in a bucket that all of them
// have. Each has it in its own files too, by which it finds the others when it starts.
type shared struct {
	bucket  *bus.Bucket
	own     *identity.Authorities
	log     *slog.Logger
	changed func() // hears that own are others than before; nil: nobody needs to yet

	mu       sync.Mutex
	revision uint64 // of the bucket, that own are
}

// begin goes by what the others go by, or has them go by its own if there is nothing yet.
func (s *shared) begin(ctx context.Context) error {
	set, err := s.own.Set()
	if err != nil {
		return err
	}
	if _, err = s.bucket.Create(ctx, setKey, set); err != nil && !errors.Is(err, bus.ErrExists) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.adopt(ctx)
	if errors.Is(err, identity.ErrForeign) {
		err = fmt.Errorf("%w: copy ca.pem and ca.key from another coordinator's directory, and start this one again", err)
	}
	return err
}

// adopt goes by what is in the bucket; mu is held.
func (s *shared) adopt(ctx context.Context) error {
	v, err := s.bucket.Get(ctx, setKey)
	if err != nil || v.Revision == s.revision {
		return err
	}
	changed, err := s.own.Adopt(v.Data)
	if err != nil {
		return err
	}
	s.revision = v.Revision
	if changed {
		s.log.Info("another coordinator has changed the authorities", "authorities", len(s.own.List()), "signs", s.own.Pin().Hex())
		if s.changed != nil {
			s.changed()
		}
	}
	return nil
}

// change has f change the authorities for all coordinators. Where that cannot be written, they are as they were; where
// nobody knows whether it was, they are what the bucket says in the end.
func (s *shared) change(ctx context.Context, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.adopt(ctx); err != nil {
		return err
	}
	before, err := s.own.Set()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := s.own.Set()
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	revision, err := s.bucket.Update(ctx, setKey, after, s.revision)
	if err != nil {
		s.revision = 0 // the next adopt looks what is there
		_, undone := s.own.Adopt(before)
		return errors.Join(err, undone)
	}
	s.revision = revision
	return nil
}

// follow goes by what others change, until ctx ends.
func (s *shared) follow(ctx context.Context) error {
	tick := time.NewTicker(adoptInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		err := s.adopt(ctx)
		s.mu.Unlock()
		switch {
		case err == nil || ctx.Err() != nil:
		case bus.Leaderless(err):
			s.log.Debug("whether the authorities have changed is not known now", "error", err)
		default:
			s.log.Error("this coordinator does not go by the authorities of the others", "error", err)
		}
	}
}
