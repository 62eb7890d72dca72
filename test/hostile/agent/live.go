package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// behaviour is a way to be hostile. What it has not is done as an agent does it.
type behaviour struct {
	// results makes the results of a job. Nil: none is ever sent.
	results func(*hostile, *pb.Job) []*pb.Result
	// hello changes the first message of a stream.
	hello func(*pb.Hello)
	// stream does something with the stream in place of waiting for jobs.
	stream func(context.Context, *hostile, pb.ResultService_ReportClient) error
	// mute never says hello.
	mute bool
	// deaf never reads what the coordinator says.
	deaf bool
	// record keeps the first batch that was sent in a file.
	record bool
	// subjects has it do over NATS what is no agent's business.
	subjects bool
	// processes is how many live at once, each as if it were alone. Default: 1.
	processes int
	// fresh has each come as another process every time.
	fresh bool
	// number numbers results. Nil: from 1 on, without a hole.
	number func(n uint64) uint64
}

// live registers as a process of that name, takes jobs and sends what the mode makes of them, until the stream ends.
func (h *hostile) live(ctx context.Context, process string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	secure, shown := h.tls()
	cc, err := grpc.NewClient(h.coordinator, grpc.WithTransportCredentials(shown))
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	r, err := h.register(ctx, cc, process)
	if err != nil {
		return err
	}
	if h.mode.subjects {
		go h.meddle(ctx, servers(h.coordinator, r.GetNatsAddresses())[0], secure)
	}
	jobs := make(chan *pb.Job, 1000)
	conn, err := h.connect(ctx, r, secure, jobs)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Beat(h.alive()); err != nil {
		return err
	}
	go h.beat(ctx, conn)
	stream, err := h.open(ctx, cc, r)
	if err != nil {
		return err
	}
	if !h.mode.deaf {
		go h.listen(stream, cancel)
	}
	if h.mode.stream != nil {
		return h.mode.stream(ctx, h, stream)
	}
	return h.work(ctx, stream, jobs)
}

// register says who it is, and notes what it is told.
func (h *hostile) register(ctx context.Context, cc *grpc.ClientConn, process string) (*pb.RegisterResponse, error) {
	beat := h.alive()
	r, err := pb.NewRegistrationServiceClient(cc).Register(ctx, &pb.RegisterRequest{
		Id: beat.GetAgent(), Vantage: beat.GetVantage(), Version: beat.GetVersion(), Instance: process, Epoch: h.epoch,
	})
	if err == nil {
		h.note(func(n *report) {
			n.Registered++
			n.Epoch = r.GetEpoch()
		})
	}
	return r, err
}

// open opens a stream and says hello there, unless it is mute.
func (h *hostile) open(ctx context.Context, cc *grpc.ClientConn, r *pb.RegisterResponse) (pb.ResultService_ReportClient, error) {
	stream, err := pb.NewResultServiceClient(cc).Report(ctx)
	if err != nil || h.mode.mute {
		return stream, err
	}
	hello := &pb.Hello{Agent: h.id, Credential: r.GetCredential(), Session: r.GetSession(), Epoch: r.GetEpoch()}
	if h.mode.hello != nil {
		h.mode.hello(hello)
	}
	return stream, stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: hello}})
}

// connect accepts every job that there is, and passes on as many as there is room for.
func (h *hostile) connect(ctx context.Context, r *pb.RegisterResponse, secure *tls.Config, jobs chan<- *pb.Job) (*bus.AgentConn, error) {
	return bus.ConnectAgent(ctx, bus.AgentOptions{
		Agent: h.id, Credential: r.GetCredential(), TLS: secure, Addresses: servers(h.coordinator, r.GetNatsAddresses()), Connected: func() {}, Cancel: func(*pb.Cancel) {},
		Job: func(job *pb.Job) *pb.JobReply {
			h.note(func(n *report) { n.Jobs++ })
			select {
			case jobs <- job:
			default:
			}
			return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE}
		},
	})
}

// tls is how it shows who it is, to NATS and over gRPC.
func (h *hostile) tls() (*tls.Config, credentials.TransportCredentials) {
	if h.keep == nil {
		return nil, insecure.NewCredentials()
	}
	return h.keep.ClientTLS(), credentials.NewTLS(h.keep.ClientTLS())
}

// servers are NATS's addresses, with the coordinator's own host where they have none.
func servers(coordinator string, named []string) (addresses []string) {
	own, _, _ := net.SplitHostPort(coordinator)
	for _, n := range named {
		host, port, _ := net.SplitHostPort(n)
		if host == "" {
			host = own
		}
		addresses = append(addresses, net.JoinHostPort(host, port))
	}
	return addresses
}

// alive is what it says while it lives.
func (h *hostile) alive() *pb.Beat {
	return &pb.Beat{Agent: h.id, Vantage: &pb.Vantage{Region: "evil", Ipv4: true, Ipv6: true}, Version: "evil", Capacity: 256}
}

// beat says that it lives.
func (h *hostile) beat(ctx context.Context, conn *bus.AgentConn) {
	for {
		select {
		case <-time.After(2 * time.Second):
			h.failed(conn.Beat(h.alive()))
		case <-ctx.Done():
			return
		}
	}
}

// listen hears what the coordinator says.
func (h *hostile) listen(stream pb.ResultService_ReportClient, end context.CancelFunc) {
	defer end()
	for {
		in, err := stream.Recv()
		if err != nil {
			h.failed(err)
			return
		}
		for _, r := range in.GetAck().GetRanges() {
			h.note(func(n *report) { n.Acked += int(r.GetLast() - r.GetFirst() + 1) })
		}
	}
}

// work answers jobs with made-up results.
func (h *hostile) work(ctx context.Context, stream pb.ResultService_ReportClient, jobs <-chan *pb.Job) error {
	seq := uint64(0)
	for {
		select {
		case job := <-jobs:
			if h.mode.results == nil {
				continue
			}
			for _, r := range h.mode.results(h, job) {
				seq++
				n := seq
				if h.mode.number != nil {
					n = h.mode.number(seq)
				}
				if err := h.send(stream, &pb.SpooledResult{Seq: n, Result: r}); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send sends results in one batch.
func (h *hostile) send(stream pb.ResultService_ReportClient, results ...*pb.SpooledResult) error {
	batch := &pb.ResultBatch{Results: results}
	if h.mode.record {
		h.failed(h.keepTape(batch))
	}
	err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}})
	h.note(func(n *report) {
		n.Sent++
		n.Results += len(results)
	})
	return err
}

// fabricate makes a result of a job that says that the target is open, and what was heard there.
func fabricate(agent string, job *pb.Job, banner string) *pb.Result {
	tcp := job.GetSpec().GetTcp()
	return &pb.Result{
		MeasurementId: job.GetMeasurementId(), Round: job.GetRound(), Agent: agent, Version: "evil",
		StartTime: timestamppb.Now(), Duration: durationpb.New(30 * time.Millisecond),
		Steps: []*pb.Step{{
			Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Failure: pb.Failure_FAILURE_NONE, Attempts: 1,
			Address:  net.JoinHostPort(tcp.GetHost(), fmt.Sprint(tcp.GetPort())),
			Duration: durationpb.New(20 * time.Millisecond), Start: durationpb.New(0),
			Evidence: &pb.Evidence{Banner: []byte(banner), Rtt: durationpb.New(10 * time.Millisecond)},
		}},
	}
}

// noise is a text that nobody has said.
func noise() string { return rand.Text() }
