package cli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // has connections ask whether a coordinator is ready
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxCoordinators bounds those that may be named.
	maxCoordinators = 16
	// anyReady has each call go to a coordinator that says that it is ready; the calls of one follow each other around.
	anyReady = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}`
)

// addresses are the coordinators that are named.
func (e Endpoint) addresses() []string { return strings.Split(e.Address, ",") }

// target is what is dialed: one coordinator, or any of several.
func (e Endpoint) target() (string, []grpc.DialOption) {
	all := e.addresses()
	if len(all) == 1 {
		return e.Address, nil
	}
	several := manual.NewBuilderWithScheme("coordinators")
	var state resolver.State
	for _, a := range all {
		host, _, _ := net.SplitHostPort(a) // checkAddress has looked at it
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a, ServerName: host})
	}
	several.InitialState(state)
	return "coordinators:///all", []grpc.DialOption{grpc.WithResolvers(several), grpc.WithDefaultServiceConfig(anyReady)}
}

// seen is what was seen of the log over a connection, whichever coordinator told it.
type seen struct {
	mu       sync.Mutex
	position string
}

// interceptors send along what was seen, and note what is.
func (s *seen) interceptors() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var header metadata.MD
			err := invoke(s.context(ctx), method, request, reply, cc, append(opts, grpc.Header(&header))...)
			s.note(header.Get(pb.PositionHeader))
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(s.context(ctx), desc, cc, method, opts...)
		}),
	}
}

// note takes up what an answer has told.
func (s *seen) note(told []string) {
	if len(told) != 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = told[0]
}

func (s *seen) context(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.position == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pb.PositionHeader, s.position)
}

// checkAddresses checks the coordinators that are named.
func checkAddresses(s string) error {
	all := strings.Split(s, ",")
	if len(all) > maxCoordinators {
		return fmt.Errorf("%d coordinators are named; at most %d", len(all), maxCoordinators)
	}
	for _, a := range all {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}
