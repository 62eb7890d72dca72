package network

import (
	"context"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// door is where tokens for agents are made, as an administrator makes them.
type door struct{ conn *grpc.ClientConn }

// openDoor waits until the coordinator serves.
func (n *Network) openDoor(ctx context.Context) (*door, error) {
	// ca.pem is there since New; admin.token when the coordinator serves.
	if err := serves(ctx, cli.Endpoint{Address: n.Addr(), CA: n.CA()}); err != nil {
		return nil, err
	}
	conn, err := n.Dial()
	return &door{conn}, err
}

// Dial connects to the network as its administrator.
func (n *Network) Dial() (*grpc.ClientConn, error) {
	token, err := n.Token()
	if err != nil {
		return nil, err
	}
	return cli.Dial(cli.Endpoint{Address: n.Addr(), CA: n.CA(), Token: token})
}

// serves waits until a coordinator answers.
func serves(ctx context.Context, e cli.Endpoint) error {
	conn, err := cli.Dial(e)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

func (d *door) close() { _ = d.conn.Close() }

// enrol gives an agent its identity: the one that its directory has, or a new one by a token of its own.
func (d *door) enrol(ctx context.Context, how *agent.Options) (err error) {
	if how.Identity, err = agent.Enrol(ctx, *how); err == nil {
		return nil
	}
	made, err := pb.NewAccessServiceClient(d.conn).CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{
		Join: &pb.JoinToken{Agent: how.ID, Vantage: how.Vantage},
	})
	if err != nil {
		return err
	}
	how.Join = made.GetSecret()
	how.Identity, err = agent.Enrol(ctx, *how)
	return err
}
