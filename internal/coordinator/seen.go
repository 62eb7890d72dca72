package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/position"
	"github.com/elsewhere-net/elsewhere/internal/store"
)

// seenTimeout bounds the wait until what a caller has seen is folded here.
const seenTimeout = 5 * time.Second

// seenUnary has a caller read what it has written, or read, elsewhere.
func (c *Coordinator) seenUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := c.reach(ctx); err != nil {
		return nil, err
	}
	response, err := handle(ctx, request)
	_ = grpc.SetHeader(ctx, metadata.Pairs(position.Header, c.seen())) // fails where the answer is on its way already
	return response, err
}

// seenStream does so for streams.
func (c *Coordinator) seenStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := c.reach(stream.Context()); err != nil {
		return err
	}
	return handle(server, stream)
}

// seen is what this coordinator has folded.
func (c *Coordinator) seen() string {
	at, _ := c.store.Position()
	return c.history.ID() + "/" + strconv.FormatUint(at, 10)
}

// reach waits until what a caller has seen is folded. What it has seen of another log says nothing of this one.
func (c *Coordinator) reach(ctx context.Context) error {
	shown := metadata.ValueFromIncomingContext(ctx, position.Header)
	if len(shown) == 0 {
		return nil
	}
	log, text, _ := strings.Cut(shown[0], "/")
	if log != c.history.ID() {
		return nil
	}
	at, err := strconv.ParseUint(text, 10, 64)
	if err != nil || len(shown) > 1 {
		return status.Errorf(codes.InvalidArgument, "%s must be one that an answer had", position.Header)
	}
	waiting, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	if err := c.folded(waiting, at); err != nil {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		here, _ := c.store.Position()
		return status.Error(codes.Unavailable, fmt.Sprintf("coordinator %s is behind: you have seen the log up to %d, and it up to %d; try again, or another one", c.name(), at, here))
	}
	return nil
}

// find is a measurement as it is now. Of several coordinators one that knows nothing of it may only be behind, and not know
// that: before it says that there is none, it asks how far the log goes, and folds so far.
func (c *Coordinator) find(ctx context.Context, id string) (store.View, error) {
	view, err := c.store.Get(id)
	if !errors.Is(err, store.ErrNotFound) || c.others == nil || !isID(id) {
		return view, apiError(err, id)
	}
	waiting, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	if err := c.catchUp(waiting); err != nil {
		if ctx.Err() != nil {
			return store.View{}, status.FromContextError(ctx.Err()).Err()
		}
		return store.View{}, status.Error(codes.Unavailable, fmt.Sprintf("coordinator %s does not know measurement %s, and cannot tell whether another one does (%v); try again, or another one", c.name(), id, err))
	}
	view, err = c.store.Get(id)
	return view, apiError(err, id)
}

// catchUp folds the log as far as whoever leads it says that it goes.
func (c *Coordinator) catchUp(ctx context.Context) error {
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	return c.folded(ctx, bounds.Last)
}
