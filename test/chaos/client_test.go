package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // has connections ask whether a coordinator is ready
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// host is an address without its port.
func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

// client opens a connection to the coordinators' API from the core. It does not wait long to connect again,
// since how long the network takes is what is measured.
func (w *world) client(more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return w.dial(append(w.asAdministrator(), more...)...)
}

// clientOf opens a connection to the API of one coordinator.
func (w *world) clientOf(c *coordinator) (*grpc.ClientConn, error) {
	return w.dialOne(c, w.asAdministrator()...)
}

// asAdministrator are the options of one who may do everything.
func (w *world) asAdministrator() []grpc.DialOption {
	if !w.tls {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(w.trusting(nil))), grpc.WithPerRPCCredentials(bearer{w}),
	}
}

// anyReady has each call go to a coordinator that says that it is ready, and what a coordinator had and did not answer to
// another one, as a careful client does.
const anyReady = `{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""},
	"methodConfig":[{"name":[{"service":"elsewhere.v1.MeasurementService","method":"CreateMeasurement"}],"retryPolicy":
		{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":4,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// dial connects to the coordinators, of several to those that are ready.
func (w *world) dial(more ...grpc.DialOption) (*grpc.ClientConn, error) {
	if !w.several {
		return w.dialOne(w.coordinator, more...)
	}
	all := manual.NewBuilderWithScheme("coordinators")
	var state resolver.State
	for _, addr := range w.grpcAddrs() {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
	}
	all.InitialState(state)
	return grpc.NewClient("coordinators:///all", append(w.patiently(), append(more, grpc.WithResolvers(all), grpc.WithDefaultServiceConfig(anyReady))...)...)
}

// dialOne connects to one coordinator.
func (w *world) dialOne(c *coordinator, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+c.grpcAddr(), append(w.patiently(), more...)...)
}

// patiently are the options of all connections.
func (w *world) patiently() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(w.core.Dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)), // a few herds are more than the 4 MiB that a client takes
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: 2 * time.Second,
		}),
	}
}

// bearer is an administrator's token, as it is now: a coordinator that lost all it had makes another one.
type bearer struct{ w *world }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b.w.adminToken()
	return map[string]string{"authorization": "Bearer " + token}, err
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

// healthy asks a coordinator whether it is ready.
func (w *world) healthy(ctx context.Context, c *coordinator) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.httpAddr()+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return w.core.Dial(ctx, address) },
	}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", response.Status)
	}
	return nil
}

// show reads all that the coordinator shows: every measurement with its ledger, every result.
func (w *world) show(ctx context.Context, conn *grpc.ClientConn) (tallies []history.Tally, folded []history.Fact, err error) {
	service := pb.NewMeasurementServiceClient(conn)
	for page := ""; ; {
		list, err := service.ListMeasurements(ctx, &pb.ListMeasurementsRequest{PageSize: 1000, PageToken: page}, grpc.WaitForReady(true))
		if err != nil {
			return nil, nil, fmt.Errorf("listing measurements: %w", err)
		}
		for _, m := range list.GetMeasurements() {
			tallies = append(tallies, tally(m))
		}
		if page = list.GetNextPageToken(); page == "" {
			break
		}
	}
	facts := make([][]history.Fact, len(tallies))
	var g errgroup.Group
	g.SetLimit(4)
	for i, t := range tallies {
		g.Go(func() (err error) {
			facts[i], err = results(ctx, service, t.Measurement)
			return err
		})
	}
	err = g.Wait()
	for _, f := range facts {
		folded = append(folded, f...)
	}
	return tallies, folded, err
}

func tally(m *pb.Measurement) history.Tally {
	l := m.GetLedger()
	return history.Tally{
		Measurement: m.GetId(), Closed: m.GetState() != pb.State_STATE_RUNNING,
		Asked: int(l.GetAsked()), Answered: int(l.GetAnswered()), Lost: int(l.GetLost()),
		Refused: int(l.GetRefused()), Ineligible: int(l.GetIneligible()), Late: int(m.GetLate()),
	}
}

// deliveries is what the coordinator says of each agent's spool, as `elsewhere agents -v` does; of the herd, which
// tells nothing of itself, there is nothing to compare it with.
func (w *world) deliveries(ctx context.Context) (map[string]history.Delivery, error) {
	list, err := pb.NewFleetServiceClient(w.load.conn).ListAgents(ctx, &pb.ListAgentsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("listing agents: %w", err)
	}
	said := map[string]history.Delivery{}
	for _, a := range list.GetAgents() {
		said[a.GetId()] = history.Delivery{
			Epoch: a.GetDelivery().GetEpoch(), Highest: a.GetDelivery().GetHighest(),
			Missing: a.GetDelivery().GetMissing(), Dropped: a.GetDelivery().GetDropped(),
		}
	}
	all := map[string]history.Delivery{}
	for _, id := range w.lives.agents() { // also who is not listed any more: it has nothing then
		all[id] = said[id]
	}
	return all, nil
}

// results lists the results of one measurement.
func results(ctx context.Context, service pb.MeasurementServiceClient, id string) ([]history.Fact, error) {
	stream, err := service.ListResults(ctx, &pb.ListResultsRequest{Id: id}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	var facts []history.Fact
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return facts, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing results of %s: %w", id, err)
		}
		facts = append(facts, fact(one.GetResult(), one.GetLate()))
	}
}

func fact(r *pb.Result, late bool) history.Fact {
	return history.Fact{
		Job:    history.Job{Measurement: r.GetMeasurementId(), Round: r.GetRound(), Agent: r.GetAgent()},
		Digest: chaos.Digest(r), Late: late,
	}
}
