package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// BenchmarkDurableResults is how many results of about 1 KiB a second become durable: 64 agents with a connection and
// a stream each, a real coordinator with its log (every commit forced to disk), its fold and its checkpoints, which
// also closes and judges each measurement when the last of its 64 results is in. The agents' end runs on the same
// processors, and is made to cost little: batches of 250 are encoded beforehand, and no more than 8 are on their way.
func BenchmarkDurableResults(b *testing.B) { durable(b, newLoad(b, senders)) }

// BenchmarkDurableResultsOfThree is the same of three coordinators that are one service, in this one process and on its
// one disk, with a third of the agents each: what is acknowledged is on the disk of two, and all three fold and judge it.
// fold-lag is how far the last of the three folds is behind what is acknowledged.
func BenchmarkDurableResultsOfThree(b *testing.B) { durable(b, newLoadOfThree(b, senders)) }

// senders is how many agents send.
const senders = 64

func durable(b *testing.B, l *load) {
	const measurements = 1500
	var taken, busy time.Duration
	var lag lag
	for b.Loop() {
		b.StopTimer()
		ids := l.open(measurements)
		batches := l.encode(ids)
		b.StartTimer()
		stop := l.watchLag(&lag)
		began, used := time.Now(), cpu(b)
		l.deliver(batches)
		taken += time.Since(began)
		busy += cpu(b) - used
		stop()
		l.answered(ids)
	}
	total := float64(b.N * senders * measurements)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(total/taken.Seconds(), "results/s")
	b.ReportMetric(float64(busy.Microseconds())/total, "cpu-µs/result")
	lag.report(b)
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkAckLatency is the time from sending a result to its acknowledgement while 64 agents send 1,000 results a
// second in all, one at a time.
func BenchmarkAckLatency(b *testing.B) { ackLatency(b, newLoad(b, senders)) }

// BenchmarkAckLatencyOfThree is the same of three coordinators, with how far the last of their folds is behind.
func BenchmarkAckLatencyOfThree(b *testing.B) { ackLatency(b, newLoadOfThree(b, senders)) }

func ackLatency(b *testing.B, l *load) {
	const measurements = 200
	var samples []time.Duration
	var lag lag
	for b.Loop() {
		b.StopTimer()
		ids := l.open(measurements)
		b.StartTimer()
		stop := l.watchLag(&lag)
		samples = append(samples, l.trickle(ids, time.Second/1000)...)
		stop()
	}
	slices.Sort(samples)
	at := func(p int) float64 { return float64(samples[(len(samples)-1)*p/100].Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	lag.report(b)
}

// load is coordinators and agents that report what they are told to.
type load struct {
	b            *testing.B
	coordinators []*coordinator.Coordinator
	api          pb.MeasurementServiceClient // of the first
	agents       []*loader
}

// loader is an agent that says yes to every job and runs none.
type loader struct {
	id    string
	hello *pb.Hello
	conn  *grpc.ClientConn
	next  uint64 // number of its next result
}

// newLoad starts a coordinator on loopback, and agents.
func newLoad(b *testing.B, agents int) *load {
	l := &load{b: b}
	c, err := coordinator.New(b.Context(), l.options())
	if err != nil {
		b.Fatal(err)
	}
	return l.with(agents, c)
}

// options is how a coordinator runs.
func (l *load) options() coordinator.Options {
	return coordinator.Options{DataDir: l.b.TempDir(), GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true}
}

// with runs coordinators until the benchmark ends, with a part of the agents each.
func (l *load) with(agents int, coordinators ...*coordinator.Coordinator) *load {
	l.coordinators = coordinators
	for _, c := range coordinators {
		ctx, cancel := context.WithCancel(context.Background()) // it ends in Cleanup
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		l.b.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				l.b.Error(err)
			}
		})
	}
	l.api = pb.NewMeasurementServiceClient(l.dial(coordinators[0]))
	for i := range agents {
		l.agents = append(l.agents, l.join(coordinators[i%len(coordinators)], fmt.Sprintf("agent-%04d", i)))
	}
	return l
}

func (l *load) dial(c *coordinator.Coordinator) *grpc.ClientConn {
	conn, err := grpc.NewClient(c.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		l.b.Fatal(err)
	}
	l.b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// join registers an agent and keeps it online.
func (l *load) join(c *coordinator.Coordinator, id string) *loader {
	conn := l.dial(c)
	vantage := &pb.Vantage{Region: "here"}
	r, err := pb.NewRegistrationServiceClient(conn).Register(l.b.Context(), &pb.RegisterRequest{Id: id, Vantage: vantage}, grpc.WaitForReady(true))
	if err != nil {
		l.b.Fatal(err)
	}
	nats, err := bus.ConnectAgent(l.b.Context(), bus.AgentOptions{
		Agent: id, Credential: r.GetCredential(), Addresses: []string{c.NATSAddr().String()},
		Job:       func(*pb.Job) *pb.JobReply { return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE} },
		Cancel:    func(*pb.Cancel) {},
		Connected: func() {},
	})
	if err != nil {
		l.b.Fatal(err)
	}
	stop := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			_ = nats.Beat(&pb.Beat{Agent: id, Vantage: vantage, Capacity: 256})
			select {
			case <-time.After(2 * time.Second):
			case <-stop:
				return
			}
		}
	})
	l.b.Cleanup(func() { close(stop); beating.Wait(); nats.Close() })
	return &loader{
		id: id, next: 1, conn: conn,
		hello: &pb.Hello{Agent: id, Credential: r.GetCredential(), Epoch: max(r.GetEpoch(), 1), Session: r.GetSession()},
	}
}

// open opens measurements that ask all agents, and returns when all coordinators know of them.
func (l *load) open(n int) (ids []string) {
	request := &pb.CreateMeasurementRequest{
		Spec:    &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 443}}},
		Limit:   int32(len(l.agents)),
		Timeout: durationpb.New(10 * time.Minute),
	}
	for deadline := time.Now().Add(time.Minute); len(ids) < n; {
		created, err := l.api.CreateMeasurement(l.b.Context(), request)
		if err == nil && len(created.GetMeasurement().GetAsks()) == len(l.agents) {
			ids = append(ids, created.GetMeasurement().GetId())
		} else if time.Now().After(deadline) {
			l.b.Fatal(err, "not all agents are online")
		}
	}
	for end, _ := l.coordinators[0].Positions(); l.behind(end); {
		runtime.Gosched()
	}
	return ids
}

// answered fails unless the first and the last of some measurements end with an answer of each agent.
func (l *load) answered(ids []string) {
	for _, id := range []string{ids[0], ids[len(ids)-1]} {
		m, err := ended(l.b.Context(), l.api, id)
		if answered := m.GetLedger().GetAnswered(); err != nil || int(answered) != len(l.agents) {
			l.b.Fatalf("%d of %d answers: %v", answered, len(l.agents), err)
		}
	}
}

// perBatch is the number of results in one batch.
const perBatch = 250

// encode makes the batches of every agent: a result for every measurement.
func (l *load) encode(ids []string) (batches [][][]byte) {
	for _, a := range l.agents {
		var mine [][]byte
		for part := range slices.Chunk(ids, perBatch) {
			batch := &pb.ResultBatch{}
			for _, id := range part {
				batch.Results = append(batch.Results, &pb.SpooledResult{Seq: a.next, Result: result(a.id, id)})
				a.next++
			}
			mine = append(mine, encoded(l.b, &pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}))
		}
		batches = append(batches, mine)
	}
	return batches
}

func encoded(b *testing.B, m *pb.ReportRequest) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// deliver delivers the batches of all agents, and returns when all are acknowledged.
func (l *load) deliver(batches [][][]byte) {
	group, ctx := errgroup.WithContext(l.b.Context())
	for i, a := range l.agents {
		group.Go(func() error {
			return a.deliver(ctx, encoded(l.b, &pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: a.hello}}), batches[i])
		})
	}
	if err := group.Wait(); err != nil {
		l.b.Fatal(err)
	}
}

// deliver delivers an agent's batches.
func (a *loader) deliver(ctx context.Context, hello []byte, batches [][]byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.conn.NewStream(ctx, &pb.ResultService_ServiceDesc.Streams[0], pb.ResultService_Report_FullMethodName, grpc.ForceCodecV2(raw{}))
	if err == nil {
		err = stream.SendMsg(hello)
	}
	for sent, answered := 0, 0; err == nil && answered < len(batches); {
		for ; err == nil && sent < len(batches) && sent < answered+8; sent++ {
			err = stream.SendMsg(batches[sent])
		}
		var in []byte
		if err == nil {
			err = stream.RecvMsg(&in)
		}
		var response pb.ReportResponse
		if err == nil {
			err = proto.Unmarshal(in, &response)
		}
		if err == nil && response.GetAck() == nil {
			err = fmt.Errorf("%v instead of an acknowledgement", &response)
		}
		answered++
	}
	return err
}

// raw is a codec for what is encoded already.
type raw struct{}

// Name implements encoding.CodecV2.
func (raw) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	data, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not encoded", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	into, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T takes no bytes", v)
	}
	*into = data.Materialize()
	return nil
}

// trickle sends the results one at a time, with a pause between any two of all agents, and returns how long each
// took to be acknowledged.
func (l *load) trickle(ids []string, pause time.Duration) (samples []time.Duration) {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(l.b.Context())
	for i, a := range l.agents {
		group.Go(func() error {
			stream, err := pb.NewResultServiceClient(a.conn).Report(ctx)
			if err == nil {
				err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: a.hello}})
			}
			tick := time.NewTicker(pause * time.Duration(len(l.agents)))
			defer tick.Stop()
			<-time.After(pause * time.Duration(i)) // not all at once
			for _, id := range ids {
				<-tick.C
				began := time.Now()
				if err == nil {
					err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: &pb.ResultBatch{
						Results: []*pb.SpooledResult{{Seq: a.next, Result: result(a.id, id)}},
					}}})
				}
				in, err := stream.Recv()
				if err != nil || in.GetAck() == nil {
					return fmt.Errorf("%v: %w", in, err)
				}
				a.next++
				mu.Lock()
				samples = append(samples, time.Since(began))
				mu.Unlock()
			}
			if err = stream.CloseSend(); err == nil {
				_, err = stream.Recv()
			}
			if !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		l.b.Fatal(err)
	}
	return samples
}

// result is what an agent that looked at a server with three addresses may have seen: about 1 KiB.
func result(agent, measurement string) *pb.Result {
	return &pb.Result{Agent: agent, MeasurementId: measurement, Steps: steps(), Duration: durationpb.New(31 * time.Millisecond)}
}

// steps are the same for all, so that the senders cost little.
var steps = sync.OnceValue(func() (list []*pb.Step) {
	step := func(i int) *pb.Step {
		return &pb.Step{
			Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Address: fmt.Sprintf("192.0.2.%d:443", i+1), Failure: pb.Failure_FAILURE_NONE,
			Start: durationpb.New(time.Duration(i) * time.Millisecond), Duration: durationpb.New(21_534_112), Attempts: 1,
			Evidence: &pb.Evidence{LocalAddress: "198.51.100.77:51234"},
		}
	}
	for i := 0; proto.Size(&pb.Result{Steps: list}) < 1024-64; i++ {
		list = append(list, step(i))
	}
	return list
})
