package cli_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const theID = "01k5w8zv3c4x7e9m2n6p8q0r1s"

// coordinator is a coordinator that knows one measurement. It keeps what it was asked.
type coordinator struct {
	pb.UnimplementedMeasurementServiceServer
	pb.UnimplementedFleetServiceServer

	m      *pb.Measurement // as it is when it is closed
	agents []*pb.Agent
	keeper keeper
	refuse error // what CreateMeasurement answers
	// watch answers the nth WatchMeasurement, from 0. Default: all results, then the end.
	watch func(n int, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error

	mu        sync.Mutex
	created   []*pb.CreateMeasurementRequest
	cancelled []string
	listed    []*pb.ListAgentsRequest
	tokens    []string
	watches   int
	after     []uint64 // of each watch
}

// serve listens on loopback until the test ends and returns the address.
func (c *coordinator) serve(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	pb.RegisterMeasurementServiceServer(s, c)
	pb.RegisterFleetServiceServer(s, c)
	pb.RegisterAccessServiceServer(s, &c.keeper)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// open is the measurement while nobody has answered.
func (c *coordinator) open() *pb.Measurement {
	m := proto.CloneOf(c.m)
	m.State, m.Verdict, m.FinishTime, m.Results = pb.State_STATE_RUNNING, nil, nil, nil
	m.Ledger = &pb.Ledger{Asked: m.GetLedger().GetAsked()}
	for _, a := range m.GetAsks() {
		a.State = pb.AskState_ASK_STATE_PENDING
	}
	return m
}

// closed is the measurement when it is over, without its results.
func (c *coordinator) closed() *pb.Measurement {
	m := proto.CloneOf(c.m)
	m.Results = nil
	return m
}

func (c *coordinator) CreateMeasurement(ctx context.Context, req *pb.CreateMeasurementRequest) (*pb.CreateMeasurementResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	c.tokens = append(c.tokens, strings.Join(md.Get("authorization"), ","))
	if c.refuse != nil {
		return nil, c.refuse
	}
	c.created = append(c.created, req)
	c.m.Spec, c.m.From = req.GetSpec(), req.GetFrom()
	return &pb.CreateMeasurementResponse{Measurement: c.open()}, nil
}

func (c *coordinator) GetMeasurement(_ context.Context, req *pb.GetMeasurementRequest) (*pb.GetMeasurementResponse, error) {
	if req.GetId() != c.m.GetId() {
		return nil, status.Errorf(codes.NotFound, "there is no measurement %q", req.GetId())
	}
	return &pb.GetMeasurementResponse{Measurement: c.closed()}, nil
}

func (c *coordinator) ListMeasurements(_ context.Context, req *pb.ListMeasurementsRequest) (*pb.ListMeasurementsResponse, error) {
	m := c.closed()
	m.Asks = nil
	out := &pb.ListMeasurementsResponse{NextPageToken: theID}
	for range min(req.GetPageSize(), 30) {
		out.Measurements = append(out.Measurements, m)
	}
	if req.GetPageToken() != "" { // two pages are all there are
		out.Measurements, out.NextPageToken = out.GetMeasurements()[:1], ""
	}
	return out, nil
}

func (c *coordinator) ListResults(req *pb.ListResultsRequest, s grpc.ServerStreamingServer[pb.ListResultsResponse]) error {
	for _, r := range c.m.GetResults() {
		if err := s.Send(&pb.ListResultsResponse{Result: r}); err != nil {
			return err
		}
	}
	return s.Send(&pb.ListResultsResponse{Result: &pb.Result{MeasurementId: req.GetId(), Agent: "late-1"}, Late: true})
}

func (c *coordinator) WatchMeasurement(req *pb.WatchMeasurementRequest, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
	c.mu.Lock()
	n := c.watches
	c.watches++
	c.after = append(c.after, req.GetAfter())
	c.mu.Unlock()
	if c.watch != nil {
		return c.watch(n, s)
	}
	return c.tell(s, len(c.m.GetResults()))
}

// tell streams the first n results, a message for each, and the end if these are all. The nth stands at position n:
// those that the request has already are left out.
func (c *coordinator) tell(s grpc.ServerStreamingServer[pb.WatchMeasurementResponse], n int) error {
	m := c.open()
	if err := s.Send(&pb.WatchMeasurementResponse{Measurement: m}); err != nil {
		return err
	}
	m.Asks = nil
	c.mu.Lock()
	after := int(c.after[len(c.after)-1])
	c.mu.Unlock()
	for i, r := range c.m.GetResults()[:n] {
		m.Ledger.Answered++
		if i < after {
			continue
		}
		if err := s.Send(&pb.WatchMeasurementResponse{Measurement: m, Results: []*pb.Result{r}, Position: uint64(i + 1)}); err != nil {
			return err
		}
	}
	if n < len(c.m.GetResults()) {
		return nil
	}
	return s.Send(&pb.WatchMeasurementResponse{Measurement: c.closed()})
}

func (c *coordinator) CancelMeasurement(_ context.Context, req *pb.CancelMeasurementRequest) (*pb.CancelMeasurementResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelled = append(c.cancelled, req.GetId())
	m := c.closed()
	m.State = pb.State_STATE_CANCELLED
	return &pb.CancelMeasurementResponse{Measurement: m}, nil
}

func (c *coordinator) ListAgents(_ context.Context, req *pb.ListAgentsRequest) (*pb.ListAgentsResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = append(c.listed, req)
	return &pb.ListAgentsResponse{Agents: c.agents}, nil
}

// blocked is a coordinator whose measurement found ap-south shut, and an agent that was lost.
func blocked() *coordinator {
	at := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	m := &pb.Measurement{
		Id: theID, State: pb.State_STATE_FINISHED, From: "world",
		Spec:       &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "example.com", Port: 443}}},
		CreateTime: timestamppb.New(at), FinishTime: timestamppb.New(at.Add(8200 * time.Millisecond)), Deadline: timestamppb.New(at.Add(30 * time.Second)),
		Ledger: &pb.Ledger{Asked: 4, Answered: 3, Lost: 1},
		Verdict: &pb.Verdict{Outcome: pb.Outcome_OUTCOME_FAIL, Judge: "1", Findings: []*pb.Finding{{
			Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"ap-south"},
			Addresses: []string{"203.0.113.10:443"}, Stage: pb.Stage_STAGE_TCP, Failure: pb.Failure_FAILURE_TCP_TIMEOUT,
			Failures: []pb.Failure{pb.Failure_FAILURE_TCP_TIMEOUT}, Block: pb.BlockKind_BLOCK_KIND_DROP, Blame: pb.Blame_BLAME_PATH,
			Confidence: pb.Confidence_CONFIDENCE_MEDIUM, Summary: "ap-south: no answer from 203.0.113.10:443.", Hint: "allow ap-south.",
			Evidence: []*pb.EvidenceRef{{Agent: "ap-1", Step: 1}},
		}}},
	}
	for _, a := range []struct{ id, region, city string }{{"ap-1", "ap-south", "Mumbai"}, {"eu-1", "eu-west", "Dublin"}, {"us-1", "us-east", "Ashburn"}, {"us-2", "us-east", ""}} {
		v := &pb.Vantage{Region: a.region, City: a.city, Provider: "AWS", Asn: 64500, Ipv4: true}
		ask := &pb.Ask{Agent: a.id, Vantage: v, State: pb.AskState_ASK_STATE_ANSWERED}
		m.Asks = append(m.Asks, ask)
		if a.id == "us-2" {
			ask.State = pb.AskState_ASK_STATE_LOST
			continue
		}
		m.Results = append(m.Results, result(a.id, v))
	}
	return &coordinator{m: m}
}

// result is what an agent of blocked saw: ap-1 silence, the others an open port.
func result(agent string, v *pb.Vantage) *pb.Result {
	query := &pb.Step{
		Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: pb.Role_ROLE_TARGET, Name: "example.com", Address: "192.0.2.53:53",
		Failure: pb.Failure_FAILURE_NONE, Duration: durationpb.New(3 * time.Millisecond), Attempts: 1,
	}
	connect := &pb.Step{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: "203.0.113.10:443",
		Failure: pb.Failure_FAILURE_NONE, Start: durationpb.New(3 * time.Millisecond), Duration: durationpb.New(112 * time.Millisecond), Attempts: 1,
		Evidence: &pb.Evidence{Rtt: durationpb.New(12 * time.Millisecond)},
	}
	if agent == "ap-1" {
		connect.Failure, connect.Failures = pb.Failure_FAILURE_TCP_TIMEOUT, []pb.Failure{pb.Failure_FAILURE_TCP_TIMEOUT}
		connect.Duration, connect.Attempts = durationpb.New(8100*time.Millisecond), 2
	}
	control := &pb.Step{Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_CONTROL, Address: "198.51.100.1:443", Failure: pb.Failure_FAILURE_NONE}
	return &pb.Result{MeasurementId: theID, Agent: agent, Vantage: v, Steps: []*pb.Step{query, connect, control}, Duration: durationpb.New(8200 * time.Millisecond)}
}

// outcome is what a command line did.
type outcome struct {
	code     int
	out, err string
}

// world is a machine that command lines run on.
type world map[string]string

// newWorld is a machine where nothing was run yet.
func newWorld(t *testing.T) world {
	return world{"XDG_STATE_HOME": t.TempDir()}
}

// run runs a command line.
func (w world) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return w.runContext(t.Context(), args...)
}

func (w world) runContext(ctx context.Context, args ...string) outcome {
	var out, errs bytes.Buffer
	p := cli.Program{Version: "v0.0.0-test", Out: &out, Err: &errs, Getenv: func(k string) string { return w[k] }}
	code := p.Run(ctx, args)
	return outcome{code, out.String(), errs.String()}
}

// at makes the machine use a coordinator in clear.
func (w world) at(address string) world {
	w["ELSEWHERE_COORDINATOR"], w["ELSEWHERE_INSECURE"] = address, "true"
	return w
}
