package cli_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// starting is a coordinator that is there, and not ready.
type starting struct {
	pb.UnimplementedCoordinatorServiceServer
}

// ListCoordinators implements pb.CoordinatorServiceServer.
func (starting) ListCoordinators(context.Context, *pb.ListCoordinatorsRequest) (*pb.ListCoordinatorsResponse, error) {
	return &pb.ListCoordinatorsResponse{Coordinators: []*pb.Coordinator{
		{Name: "c-1", Liveness: pb.Liveness_LIVENESS_ALIVE, State: &pb.CoordinatorState{Name: "c-1", Unready: "too few coordinators are there"}},
		{Name: "c-2", Liveness: pb.Liveness_LIVENESS_DEAD},
	}}, nil
}

// serve listens on loopback until the test ends and returns the address.
func (s starting) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, state)
	pb.RegisterCoordinatorServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func TestNoneOfSeveralIsReady(t *testing.T) {
	all := nobody(t) + "," + starting{}.serve(t)
	got := newWorld(t).run(t, "agents", "--insecure", "--coordinator", all)
	if got.code != cli.ExitNetwork || !strings.Contains(got.err, "none is ready") || !strings.Contains(got.err, "elsewhere cluster") {
		t.Errorf("agents: exit %d, stderr %q", got.code, got.err)
	}
	// What is the matter is told all the same.
	got = newWorld(t).run(t, "cluster", "--insecure", "--coordinator", all)
	if got.code != cli.ExitFail || !strings.Contains(got.out, "too few coordinators are there") || got.err != "" {
		t.Errorf("cluster: exit %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
}
