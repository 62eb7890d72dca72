// Package position is how whoever has seen something of the log is told nothing older: each answer of a coordinator has the
// position that it had folded, and the next call, to any coordinator, has it too.
package position

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Header is the metadata in which answers and calls have it: the log's name and the position, "NAME/POSITION".
const Header = "elsewhere-position"

// Seen is what was seen of the log over a connection, whichever coordinator told it. The zero value has seen nothing; it is
// safe for concurrent use.
type Seen struct {
	mu       sync.Mutex
	position string
}

// DialOptions have a connection send along what was seen, and note what is.
func (s *Seen) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var header metadata.MD
			err := invoke(s.context(ctx), method, request, reply, cc, append(opts, grpc.Header(&header))...)
			s.note(header.Get(Header))
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(s.context(ctx), desc, cc, method, opts...)
		}),
	}
}

// note takes up what an answer has told.
func (s *Seen) note(told []string) {
	if len(told) != 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = told[0]
}

func (s *Seen) context(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.position == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, Header, s.position)
}
