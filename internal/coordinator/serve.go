package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxViolations and maxViolation, in bytes, bound what a caller is told to be wrong with a request: it comes in
// a trailer, of which many clients take no more than 16 KiB.
const maxViolations, maxViolation = 8, 256

// maxListed is the size of a request, in bytes, up to which all that is wrong with it is looked for. In a larger
// one the search ends with the first: a request of 1 MiB has room for half a million faults, and to list them takes
// seconds.
const maxListed = 16 << 10

// readBuffer is what each connection reads into, in bytes; what is larger is read past it. There are as many as there
// are agents, most of them idle, and gRPC's own 32 KiB were half of what one cost.
const readBuffer = 4 << 10

// coordinatorName is what the coordinator's certificate calls it: there is one.
const coordinatorName = "coordinator"

// newGRPC makes the server with its bounds: what a caller can make it hold is small.
func (c *Coordinator) newGRPC() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(c.credentials()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.MaxConcurrentStreams(128),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxRecvMsgSize(1<<20),
		grpc.ConnectionTimeout(30*time.Second),
		grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(256<<10),
		grpc.ReadBufferSize(readBuffer),
		grpc.ChainUnaryInterceptor(c.recoverUnary, c.admitUnary, c.validateUnary, c.seenUnary),
		grpc.ChainStreamInterceptor(c.recoverStream, c.admitStream, c.validateStream, c.seenStream),
	)
	pb.RegisterMeasurementServiceServer(s, measurementService{Coordinator: c})
	pb.RegisterFleetServiceServer(s, fleetService{Coordinator: c})
	pb.RegisterRegistrationServiceServer(s, registrationService{Coordinator: c})
	pb.RegisterAccessServiceServer(s, accessService{Coordinator: c})
	pb.RegisterResultServiceServer(s, c.reports)
	pb.RegisterCoordinatorServiceServer(s, coordinatorService{Coordinator: c})
	healthpb.RegisterHealthServer(s, c.health)
	reflection.Register(s)
	return s
}

// credentials are how the server shows who it is, and asks who connects.
func (c *Coordinator) credentials() credentials.TransportCredentials {
	if c.opts.Insecure {
		return insecure.NewCredentials()
	}
	host, _, _ := net.SplitHostPort(c.opts.GRPCAddr)
	return credentials.NewTLS(c.gate.Guard(c.authorities.ServerTLS(c.name(), []string{host, c.opts.Advertise})))
}

// recoverUnary makes a panic the answer to one call. The log, the fold and every agent's stream live in this process,
// and one bad request must not end them.
func (c *Coordinator) recoverUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(info.FullMethod, p)
		}
	}()
	return handle(ctx, request)
}

// recoverStream does so for streams.
func (c *Coordinator) recoverStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(info.FullMethod, p)
		}
	}()
	return handle(server, stream)
}

func (c *Coordinator) panicked(method string, p any) error {
	c.log.Error("panic", "method", method, "panic", p, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "the coordinator broke; its log says where")
}

func (c *Coordinator) validateUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := c.validate(request); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (c *Coordinator) validateStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(server, validatedStream{stream, c})
}

// validatedStream checks every message that comes.
type validatedStream struct {
	grpc.ServerStream
	c *Coordinator
}

func (s validatedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if _, ok := m.(*emptypb.Empty); ok {
		return nil // results come as bytes, and are facts: they are bounded where they are kept, never refused for their form
	}
	return s.c.validate(m)
}

// validate checks a message by the rules in the proto. The error names each field that is wrong, and of a large
// message the first.
func (c *Coordinator) validate(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return nil // reflection's own
	}
	var how []protovalidate.ValidationOption
	if proto.Size(m) > maxListed {
		how = append(how, protovalidate.WithFailFast())
	}
	err := c.validator.Validate(m, how...)
	if err == nil {
		return nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return status.Error(codes.Internal, err.Error())
	}
	return badFields(fieldViolations(invalid, ""))
}

func badSelector(description string) error {
	return badFields([]*errdetails.BadRequest_FieldViolation{{Field: "from", Description: description}})
}

// badFields says what is wrong with a request: the first of it.
func badFields(fields []*errdetails.BadRequest_FieldViolation) error {
	var words []string
	for _, f := range fields[:min(len(fields), maxViolations)] {
		f.Field, f.Description = begin(f.GetField()), begin(f.GetDescription())
		words = append(words, f.GetField()+": "+f.GetDescription())
	}
	if more := len(fields) - len(words); more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
		fields = fields[:maxViolations]
	}
	return withDetails(status.New(codes.InvalidArgument, strings.Join(words, "; ")), &errdetails.BadRequest{FieldViolations: fields})
}

// begin is the beginning of a text that may be as long as a request.
func begin(s string) string {
	if len(s) <= maxViolation {
		return s
	}
	return strings.ToValidUTF8(s[:maxViolation], "") + "…"
}

func noAgent(from, why string) error {
	return withDetails(status.New(codes.FailedPrecondition, why), &errdetails.PreconditionFailure{
		Violations: []*errdetails.PreconditionFailure_Violation{{Type: "NO_AGENT", Subject: from, Description: why}},
	})
}

// unavailable says that the log or the store cannot be used now.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	if errors.Is(err, bus.ErrFull) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// apiError turns what the store says into what a caller is told.
func apiError(err error, id string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return status.Errorf(codes.NotFound, "there is no measurement %s; it may be older than what is kept", id)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

func withDetails(s *status.Status, details ...protoadapt.MessageV1) error {
	detailed, err := s.WithDetails(details...)
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}

// serveHTTP serves metrics and health in clear, if it is asked for.
func (c *Coordinator) serveHTTP(parts *errgroup.Group) *http.Server {
	if c.httpListener == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.opts.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := c.unready(); why != "" {
			http.Error(w, "not ready: "+why, http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	parts.Go(func() error { return ignoreClosed(server.Serve(c.httpListener)) })
	return server
}
