package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// world is a coordinator that can be restarted, and agents that stay.
type world struct {
	t          *testing.T
	dir        string
	opts       coordinator.Options
	c          *coordinator.Coordinator
	stop       func()
	conn       *grpc.ClientConn
	api        pb.MeasurementServiceClient
	fleet      pb.FleetServiceClient
	target     netip.AddrPort // accepts connections
	gate       *gate
	grpc, nats string
	// failed hears why the coordinator ended by itself. Default: the test fails.
	failed func(error)
}

// gate holds connects back until it is opened.
type gate struct {
	mu      sync.Mutex
	open    chan struct{}
	arrived chan struct{} // has one for each connect that came to the gate
}

func (g *gate) channel() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// connect is an Env's Connect that waits for the gate.
func (g *gate) connect(ctx context.Context, addr netip.AddrPort, opts probe.ConnectOptions) (net.Conn, *pb.Evidence, error) {
	g.arrived <- struct{}{}
	select {
	case <-g.channel():
		return probe.Connect(ctx, addr, opts)
	case <-ctx.Done():
		return nil, &pb.Evidence{}, ctx.Err()
	}
}

func newWorld(t *testing.T, opts coordinator.Options) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), opts)
}

// newWorldIn is newWorld with the coordinator's data in a directory.
func newWorldIn(t *testing.T, dir string, opts coordinator.Options) *world {
	t.Helper()
	w := &world{t: t, dir: dir, opts: opts, gate: &gate{open: make(chan struct{}), arrived: make(chan struct{}, 10_000)}}
	close(w.gate.open)
	w.target = listen(t)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func listen(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// shutPort is a port where nobody listens, until the test ends.
func shutPort(t *testing.T) netip.AddrPort {
	t.Helper()
	host, err := probetest.ListenClosed(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr()
}

// start starts the coordinator, at the addresses that it had before.
func (w *world) start() {
	w.t.Helper()
	opts := w.opts
	// An address of its own: nobody else takes a port there while the coordinator restarts.
	opts.DataDir, opts.GRPCAddr, opts.NATSAddr = w.dir, "127.0.7.1:0", "127.0.7.1:0"
	opts.Insecure = true
	if w.grpc != "" {
		opts.GRPCAddr, opts.NATSAddr = w.grpc, w.nats
	}
	c, err := coordinator.New(context.Background(), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = c
	w.grpc, w.nats = c.GRPCAddr().String(), c.NATSAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	w.conn = w.dial()
	w.api, w.fleet = pb.NewMeasurementServiceClient(w.conn), pb.NewFleetServiceClient(w.conn)
	w.stop = sync.OnceFunc(func() {
		_ = w.conn.Close()
		cancel()
		switch err := <-done; {
		case err == nil:
		case w.failed != nil:
			w.failed(err)
		default:
			w.t.Error(err)
		}
	})
}

// dial connects to the coordinator.
func (w *world) dial() *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// agent starts an agent in a region and returns how to stop it, which can be done once.
func (w *world) agent(id, region string, allow bool) (stop func()) {
	w.t.Helper()
	return w.agentIn(w.t.TempDir(), id, region, allow)
}

func (w *world) agentIn(dir, id, region string, allow bool) (stop func()) {
	w.t.Helper()
	env := &probe.Env{Connect: w.gate.connect, Resolvers: []netip.AddrPort{w.target}, Hints: []netip.AddrPort{}, Controls: []string{w.target.String()}}
	if allow {
		env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	a, err := agent.New(agent.Options{
		Coordinators: []string{w.grpc}, DataDir: dir, ID: id,
		Vantage: &pb.Vantage{Region: region}, Env: env, DrainTimeout: 200 * time.Millisecond,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		switch err := <-done; {
		case err == nil:
		case w.failed != nil:
			w.failed(err)
		default:
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	w.online(id)
	return stop
}

// online waits until an agent is.
func (w *world) online(id string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	stream, err := w.fleet.WatchAgents(ctx, &pb.WatchAgentsRequest{From: id}, grpc.WaitForReady(true))
	for err == nil {
		var response *pb.WatchAgentsResponse
		response, err = stream.Recv()
		for _, a := range response.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				return
			}
		}
	}
	w.t.Fatalf("waiting for agent %s: %v", id, err)
}

func (w *world) tcp(addr netip.AddrPort) *pb.CreateMeasurementRequest {
	return &pb.CreateMeasurementRequest{Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: addr.Addr().String(), Port: uint32(addr.Port())}}}}
}

func (w *world) create(r *pb.CreateMeasurementRequest) *pb.Measurement {
	w.t.Helper()
	response, err := w.api.CreateMeasurement(w.t.Context(), r, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	return response.GetMeasurement()
}

// end watches a measurement to its end.
func (w *world) end(id string) (m *pb.Measurement, results []*pb.Result) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	stream, err := w.api.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		m = response.GetMeasurement()
		results = append(results, response.GetResults()...)
	}
	l := m.GetLedger()
	if l.GetAsked() != l.GetAnswered()+l.GetLost()+l.GetRefused()+l.GetIneligible() || int(l.GetAsked()) != len(m.GetAsks()) {
		w.t.Errorf("the ledger does not sum: %v of %d asks", l, len(m.GetAsks()))
	}
	if int(l.GetAnswered()) != len(results) {
		w.t.Errorf("%d answered, %d results", l.GetAnswered(), len(results))
	}
	return m, results
}

func TestAQuestionFromManyPlaces(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	for i := range 4 {
		w.agent(fmt.Sprint("a", i), fmt.Sprint("r", i%2), true)
	}
	created := w.create(w.tcp(w.target))
	if created.GetState() != pb.State_STATE_RUNNING || created.GetLedger().GetAsked() != 4 {
		t.Errorf("just created: %v", created)
	}
	m, results := w.end(created.GetId())
	if m.GetState() != pb.State_STATE_FINISHED || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK || len(results) != 4 {
		t.Errorf("%v with %d results", m, len(results))
	}
	if m.GetFrom() != "world" || m.GetFinishTime() == nil {
		t.Errorf("%v", m)
	}
	got, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: m.GetId()})
	if err != nil || got.GetMeasurement().GetLedger().GetAnswered() != 4 {
		t.Errorf("get: %v, %v", got, err)
	}
	stream, err := w.api.ListResults(t.Context(), &pb.ListResultsRequest{Id: m.GetId()})
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) || n != 5 {
		t.Errorf("list of results: %d, %v", n-1, err)
	}
	again := w.create(&pb.CreateMeasurementRequest{Spec: m.GetSpec(), From: m.GetId()})
	if len(again.GetAsks()) != 4 {
		t.Errorf("from an earlier measurement: %v", again.GetAsks())
	}
	w.end(again.GetId())
	list, err := w.api.ListMeasurements(t.Context(), &pb.ListMeasurementsRequest{PageSize: 1})
	if err != nil || len(list.GetMeasurements()) != 1 || list.GetMeasurements()[0].GetId() != again.GetId() {
		t.Fatalf("the newest: %v, %v", list, err)
	}
	list, err = w.api.ListMeasurements(t.Context(), &pb.ListMeasurementsRequest{PageSize: 1, PageToken: list.GetNextPageToken()})
	if err != nil || len(list.GetMeasurements()) != 1 || list.GetMeasurements()[0].GetId() != m.GetId() {
		t.Errorf("the page after: %v, %v", list, err)
	}
}

func TestTheDoor(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	spec := func(s *pb.Spec) *pb.CreateMeasurementRequest { return &pb.CreateMeasurementRequest{Spec: s} }
	dns := func(d *pb.DNSSpec) *pb.CreateMeasurementRequest {
		return spec(&pb.Spec{Check: &pb.Spec_Dns{Dns: d}})
	}
	tcp := func(d *pb.TCPSpec) *pb.CreateMeasurementRequest {
		return spec(&pb.Spec{Check: &pb.Spec_Tcp{Tcp: d}})
	}
	with := func(edit func(*pb.CreateMeasurementRequest)) *pb.CreateMeasurementRequest {
		r := w.tcp(w.target)
		edit(r)
		return r
	}
	for _, c := range []struct {
		what    string
		request *pb.CreateMeasurementRequest
		code    codes.Code
		field   string
	}{
		{"nothing", &pb.CreateMeasurementRequest{}, codes.InvalidArgument, "spec"},
		{"no check", spec(&pb.Spec{}), codes.InvalidArgument, "spec.check"},
		{"an unknown family", spec(&pb.Spec{Family: 9, Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "x", Port: 1}}}), codes.InvalidArgument, "spec.family"},
		{"an address of the other family", spec(&pb.Spec{Family: pb.Family_FAMILY_IPV6, Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 1}}}), codes.InvalidArgument, "spec"},
		{"an empty name", dns(&pb.DNSSpec{}), codes.InvalidArgument, "spec.dns.name"},
		{"a label of 70 bytes", dns(&pb.DNSSpec{Name: strings.Repeat("a", 70) + ".example"}), codes.InvalidArgument, "spec.dns.name"},
		{"a name of 300 bytes", dns(&pb.DNSSpec{Name: strings.Repeat("a.", 150)}), codes.InvalidArgument, "spec.dns.name"},
		{"an unknown type", dns(&pb.DNSSpec{Name: "example.com", Type: "BOGUS"}), codes.InvalidArgument, "spec.dns.type"},
		{"a type beyond the last", dns(&pb.DNSSpec{Name: "example.com", Type: "TYPE65536"}), codes.InvalidArgument, "spec.dns.type"},
		{"a resolver that is a name", dns(&pb.DNSSpec{Name: "example.com", Resolver: "dns..example:53"}), codes.InvalidArgument, "spec.dns.resolver"},
		{"port 0", tcp(&pb.TCPSpec{Host: "example.com"}), codes.InvalidArgument, "spec.tcp.port"},
		{"port 99999", tcp(&pb.TCPSpec{Host: "example.com", Port: 99999}), codes.InvalidArgument, "spec.tcp.port"},
		{"a host with a space", tcp(&pb.TCPSpec{Host: "exa mple.com", Port: 1}), codes.InvalidArgument, "spec.tcp.host"},
		{"a limit below zero", with(func(r *pb.CreateMeasurementRequest) { r.Limit = -1 }), codes.InvalidArgument, "limit"},
		{"a limit beyond the bound", with(func(r *pb.CreateMeasurementRequest) { r.Limit = 10001 }), codes.InvalidArgument, "limit"},
		{"a timeout of an hour", with(func(r *pb.CreateMeasurementRequest) { r.Timeout = durationpb.New(time.Hour) }), codes.InvalidArgument, "timeout"},
		{"a policy of less than no region", with(func(r *pb.CreateMeasurementRequest) { r.Policy = &pb.Policy{MinRegions: -1} }), codes.InvalidArgument, "policy.min_regions"},
		{"a policy of ten thousand attempts", with(func(r *pb.CreateMeasurementRequest) { r.Policy = &pb.Policy{MinAttempts: 10_000} }), codes.InvalidArgument, "policy.min_attempts"},
		{"a policy by which the fast are slow", with(func(r *pb.CreateMeasurementRequest) { r.Policy = &pb.Policy{LatencyFactor: 0.5} }), codes.InvalidArgument, "policy.latency_factor"},
		{"a selector with a hole", with(func(r *pb.CreateMeasurementRequest) { r.From = "a,,b" }), codes.InvalidArgument, "from"},
		{"a measurement that is not there", with(func(r *pb.CreateMeasurementRequest) { r.From = "01arz3ndektsv4rrffq69g5fav" }), codes.InvalidArgument, "from"},
		{"one of a list that nobody is", with(func(r *pb.CreateMeasurementRequest) { r.From = "r,mars" }), codes.FailedPrecondition, ""},
		{"nobody there", with(func(r *pb.CreateMeasurementRequest) { r.From = "mars" }), codes.FailedPrecondition, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, err := w.api.CreateMeasurement(t.Context(), c.request)
			if status.Code(err) != c.code {
				t.Fatalf("%v, want %v", err, c.code)
			}
			var fields []string
			for _, d := range status.Convert(err).Details() {
				if bad, ok := d.(*errdetails.BadRequest); ok {
					for _, f := range bad.GetFieldViolations() {
						fields = append(fields, f.GetField())
					}
				}
			}
			if c.field != "" && fmt.Sprint(fields) != "["+c.field+"]" {
				t.Errorf("fields %v, want %s", fields, c.field)
			}
		})
	}
	if _, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an id that is none: %v", err)
	}
	if _, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: "01arz3ndektsv4rrffq69g5fav"}); status.Code(err) != codes.NotFound {
		t.Errorf("an id that is not there: %v", err)
	}
	list, err := w.api.ListMeasurements(t.Context(), &pb.ListMeasurementsRequest{})
	if err != nil || len(list.GetMeasurements()) != 0 {
		t.Errorf("after bad requests alone there are measurements: %v, %v", list, err)
	}
}

func TestThePolicyIsFrozen(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	shut := shutPort(t)
	for _, c := range []struct {
		what    string
		policy  *pb.Policy
		outcome pb.Outcome
	}{
		{"by default one region alone says too little", nil, pb.Outcome_OUTCOME_INCONCLUSIVE},
		{"by a policy of one region it says enough", &pb.Policy{MinRegions: 1}, pb.Outcome_OUTCOME_FAIL},
	} {
		r := w.tcp(shut)
		r.Policy = c.policy
		created := w.create(r)
		m, _ := w.end(created.GetId())
		if m.GetVerdict().GetOutcome() != c.outcome {
			t.Errorf("%s: %v", c.what, m.GetVerdict())
		}
		w.stop()
		w.start() // from the log, what was left out is there
		again, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: m.GetId()}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*pb.Measurement{created, m, again.GetMeasurement()} {
			if diff := cmp.Diff(aggregate.Complete(c.policy), m.GetPolicy(), protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.what, diff)
			}
		}
		w.online("a")
	}
}

func TestPolicyIsARefusal(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("strict", "r", false)
	m, _ := w.end(w.create(w.tcp(w.target)).GetId())
	if m.GetLedger().GetRefused() != 1 || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_INCONCLUSIVE {
		t.Errorf("%v", m)
	}
	if a := m.GetAsks()[0]; a.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || a.GetDetail() == "" {
		t.Errorf("the reason: %v", a)
	}
	if f := m.GetVerdict().GetFindings(); len(f) != 1 || f[0].GetCode() != pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE {
		t.Errorf("findings: %v", f)
	}
}

// arrive waits until n connects have come to the gate.
func (w *world) arrive(n int) {
	for range n {
		<-w.gate.arrived
	}
}

// hold makes connects wait until release is called.
func (w *world) hold() (release func()) {
	held := make(chan struct{})
	w.gate.mu.Lock()
	w.gate.open = held
	w.gate.mu.Unlock()
	for len(w.gate.arrived) > 0 {
		<-w.gate.arrived
	}
	return sync.OnceFunc(func() { close(held) })
}

func TestCancel(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	defer w.hold()()
	id := w.create(w.tcp(w.target)).GetId()
	for range 2 { // the second one changes nothing
		response, err := w.api.CancelMeasurement(t.Context(), &pb.CancelMeasurementRequest{Id: id})
		if m := response.GetMeasurement(); err != nil || m.GetState() != pb.State_STATE_CANCELLED || m.GetLedger().GetLost() != 1 {
			t.Errorf("%v, %v", m, err)
		}
	}
}

func TestAPlaceWhoseAgentsAreGoneIsNotLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r1", true)
	stop := w.agent("b", "r2", true)
	first, _ := w.end(w.create(w.tcp(w.target)).GetId())
	stop() // it says that it drains: not online from then on
	for _, from := range []string{"r1,r2", first.GetId()} {
		r := w.tcp(w.target)
		r.From, r.Timeout = from, durationpb.New(unhurried)
		m, _ := w.end(w.create(r).GetId())
		if l := m.GetLedger(); l.GetAnswered() != 1 || l.GetAsked() != 2 || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_INCONCLUSIVE {
			t.Errorf("from %s: %v, %v; the region without an agent is inconclusive", from, l, m.GetVerdict().GetOutcome())
		}
	}
	r := w.tcp(w.target)
	r.From = "r2"
	if _, err := w.api.CreateMeasurement(t.Context(), r); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("nobody online at all: %v", err)
	}
}

// unhurried is a measurement's time in tests that wait until it is over: what has to be done before that is
// done in it on a slow machine too.
const unhurried = 5 * time.Second

func TestTheDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, coordinator.Options{})
	stop := w.agent("a", "r", true)
	w.agent("b", "r", true)
	defer w.hold()()
	r := w.tcp(w.target)
	r.Timeout = durationpb.New(unhurried)
	id := w.create(r).GetId()
	w.arrive(2)
	stop() // it cannot answer any more; b answers that its time was over
	m, results := w.end(id)
	if m.GetState() != pb.State_STATE_FINISHED || m.GetLedger().GetLost() != 1 || m.GetLedger().GetAnswered() != 1 {
		t.Errorf("%v", m.GetLedger())
	}
	for _, r := range results {
		for _, s := range r.GetSteps() {
			if s.GetFailure() != pb.Failure_FAILURE_AGENT_DEADLINE {
				t.Errorf("what did not fit is the agent's: %v", s)
			}
		}
	}
	if m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_INCONCLUSIVE {
		t.Errorf("%v", m.GetVerdict())
	}
}

func TestARestartInTheMiddle(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	for i := range 3 {
		w.agent(fmt.Sprint("a", i), fmt.Sprint("r", i), true)
	}
	release := w.hold()
	const n = 20
	var ids []string
	for range n {
		ids = append(ids, w.create(w.tcp(w.target)).GetId())
	}
	w.arrive(3 * n)
	w.stop()
	release() // the agents finish while nobody listens
	w.start()
	for _, id := range ids {
		m, _ := w.end(id)
		if m.GetState() != pb.State_STATE_FINISHED || m.GetLedger().GetAnswered() != 3 || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
			t.Errorf("%s: %v %v", id, m.GetLedger(), m.GetVerdict())
		}
	}
}

func TestARestartAfterTheDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	stopLost := w.agent("lost", "r", true)
	release := w.hold()
	r := w.tcp(w.target)
	r.Timeout = durationpb.New(unhurried)
	created := w.create(r)
	w.arrive(2)
	w.stop()
	stopLost()
	release()
	<-time.After(time.Until(created.GetDeadline().AsTime())) // It is what is tested.
	w.start()
	m, _ := w.end(created.GetId())
	if m.GetState() != pb.State_STATE_FINISHED || m.GetLedger().GetAnswered() != 1 || m.GetLedger().GetLost() != 1 {
		t.Errorf("the agent that stayed is answered, the other one lost: %v", m.GetLedger())
	}
}

func TestAnAgentThatComesBackIsAskedAgain(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	dir := t.TempDir()
	stop := w.agentIn(dir, "a", "r", true)
	release := w.hold()
	id := w.create(w.tcp(w.target)).GetId()
	w.arrive(1)
	stop() // in the middle of the job
	release()
	w.agentIn(dir, "a", "r", true)
	if m, _ := w.end(id); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("%v", m.GetLedger())
	}
}

func TestRetention(t *testing.T) {
	w := newWorld(t, coordinator.Options{Retention: coordinator.Retention{Age: time.Millisecond}})
	w.agent("a", "r", true)
	old, _ := w.end(w.create(w.tcp(w.target)).GetId())
	release := w.hold()
	running := w.create(w.tcp(w.target)).GetId()
	w.stop() // what is old is forgotten at the start, at the latest
	w.start()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: old.GetId()}, grpc.WaitForReady(true))
		if status.Code(err) == codes.NotFound {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the old measurement is still there: %v", err)
		}
	}
	release()
	if m, _ := w.end(running); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("what ran is kept: %v", m)
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t, coordinator.Options{HTTPAddr: "127.0.0.1:0"})
	w.agent("a", "r", true)
	w.end(w.create(w.tcp(w.target)).GetId())
	health := healthpb.NewHealthClient(w.conn)
	for _, service := range []string{"", pb.MeasurementService_ServiceDesc.ServiceName, pb.ResultService_ServiceDesc.ServiceName} {
		response, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, response, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	c, err := coordinator.New(t.Context(), coordinator.Options{
		DataDir: t.TempDir(), GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Insecure: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for path, want := range map[string]string{
		"/metrics":     `elsewhere_agents{state="online"} 0`,
		"/healthz":     "ok",
		"/readyz":      "",
		"/debug/pprof": "404 page not found",
	} {
		response, err := http.Get("http://" + c.HTTPAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v, %.200s", path, err, body)
		}
		_ = response.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestALogThatLostSomethingIsRefused(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	w.end(w.create(w.tcp(w.target)).GetId())
	w.stop()
	wipeLog(t, w.dir)
	_, err := coordinator.New(t.Context(), coordinator.Options{DataDir: w.dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "has lost what was acknowledged") {
		t.Errorf("%v", err)
	}
}
