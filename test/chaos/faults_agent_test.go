package chaos

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// agentFaults are agents that are not what they should be.
func agentFaults() []fault {
	return []fault{
		{name: "F21 everything delivered again", inject: replayed},
		{name: "F22 agent cloned", inject: cloned},
		{name: "F3 coordinator killed while tokens and sessions are raced for", inject: raced},
	}
}

// cloned copies an agent's files while it works, and runs a second process with them. Both speak as one agent,
// and take the session from each other.
func cloned(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	data := fmt.Sprintf("%s.clone-%d", a.data, len(w.lives.clones()))
	began := time.Now()
	if out, err := exec.CommandContext(ctx, "cp", "-a", a.data, data).CombinedOutput(); err != nil {
		return wound{}, fmt.Errorf("cp: %w: %s", err, out)
	}
	twin := &agent{id: a.id, ip: spareIP, data: data}
	twin.program = &program{w: w, name: filepath.Base(data), where: w.spare, args: func() []string { return w.agentArgs(twin) }}
	w.lives.adopt(twin)
	if err := twin.start(ctx); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			err := errors.Join(
				w.reconnected(ctx, twin.program, began), w.reconnected(ctx, a.program, began), passing(ctx, 4*time.Second), w.lives.catchUp())
			mine, other := w.lives.since(a.program, chaos.Attempted, began), w.lives.since(twin.program, chaos.Attempted, began)
			if err == nil && (mine == 0 || other == 0) {
				err = errors.New("one of them did nothing")
			}
			return fmt.Sprintf("two processes spoke as %s, each after the other, and made %d and %d results", a.id, mine, other), err
		},
		heal: func(context.Context) error { return twin.kill() },
	}, nil
}

// delivery is a result that an agent delivered, and where it stood in its spool.
type delivery struct {
	history.Job
	place number
}

// replayed stands in for an agent that is down, with its identity, and sends again what it has delivered: every
// batch twice, in no order, in two sessions. None of it may count.
func replayed(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	if err := eventually(ctx, a.id+" to deliver enough", func(context.Context) error {
		if err := w.lives.catchUp(); err != nil {
			return err
		}
		if n := len(w.lives.delivered(a)); n < 50 {
			return fmt.Errorf("%d results", n)
		}
		return nil
	}); err != nil {
		return wound{}, err
	}
	if err := a.kill(); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			batches, epoch, err := w.delivered(ctx, a, r)
			if err != nil {
				return "", err
			}
			sent, acked := 0, 0
			for _, c := range []*coordinator{w.coordinator, w.coordinators[len(w.coordinators)-1]} {
				s, n, err := w.sendAgain(ctx, delivering{a, c, epoch}, batches)
				if err != nil {
					return "", err
				}
				sent, acked = sent+s, acked+n
			}
			if acked == 0 {
				err = errors.New("nothing of it was acknowledged")
			}
			return fmt.Sprintf("%d results of %s were sent again, and %d numbers acknowledged again", sent, a.id, acked), err
		},
		heal: a.start,
	}, nil
}

// delivered is what an agent has delivered in its newest epoch, in batches, each of them twice, shuffled.
func (w *world) delivered(ctx context.Context, a *agent, r *rand.Rand) (batches []*pb.ResultBatch, epoch uint64, err error) {
	if err := w.lives.catchUp(); err != nil {
		return nil, 0, err
	}
	list := w.lives.delivered(a)
	if len(list) == 0 {
		return nil, 0, errors.New("the agent has delivered nothing")
	}
	list = list[max(0, len(list)-300):]
	service := pb.NewMeasurementServiceClient(w.load.conn)
	batch := &pb.ResultBatch{}
	for _, d := range list {
		result, err := resultOf(ctx, service, d.Job)
		if err != nil {
			return nil, 0, err
		}
		if result == nil { // another run of the job counts
			continue
		}
		epoch = d.place.epoch
		batch.Results = append(batch.Results, &pb.SpooledResult{Seq: d.place.seq, Result: result})
		if len(batch.GetResults()) == 16 {
			batches = append(batches, batch, batch)
			batch = &pb.ResultBatch{}
		}
	}
	if len(batch.GetResults()) > 0 {
		batches = append(batches, batch, batch)
	}
	r.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
	return batches, epoch, nil
}

// resultOf is an agent's result as it came, nil if there is none.
func resultOf(ctx context.Context, service pb.MeasurementServiceClient, j history.Job) (*pb.Result, error) {
	stream, err := service.ListResults(ctx, &pb.ListResultsRequest{Id: j.Measurement}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	for {
		one, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if one.GetResult().GetAgent() == j.Agent {
			result := proto.CloneOf(one.GetResult())
			result.Vantage = nil // the coordinator's, as the agent left it empty
			return result, nil
		}
	}
}

// as opens a connection to a coordinator with an agent's identity.
func (w *world) as(a *agent, c *coordinator) (*grpc.ClientConn, error) {
	option := grpc.WithTransportCredentials(insecure.NewCredentials())
	if w.tls {
		dir := filepath.Join(a.data, "identity")
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "agent.pem"), filepath.Join(dir, "agent.key"))
		if err != nil {
			return nil, err
		}
		option = grpc.WithTransportCredentials(credentials.NewTLS(w.trusting(&pair)))
	}
	return w.dialOne(c, option)
}

// register introduces an agent, whose vantage is not of interest.
func register(ctx context.Context, conn *grpc.ClientConn, id string, epoch uint64) (*pb.RegisterResponse, error) {
	return pb.NewRegistrationServiceClient(conn).Register(ctx, &pb.RegisterRequest{
		Id: id, Vantage: &pb.Vantage{Region: region, Ipv4: true}, Version: "chaos", Epoch: epoch, Instance: "chaos",
	})
}

// delivering is who delivers to whom, of which epoch.
type delivering struct {
	*agent
	to    *coordinator
	epoch uint64
}

// sendAgain sends batches as an agent, in a session of its own, until all are acknowledged.
func (w *world) sendAgain(ctx context.Context, a delivering, batches []*pb.ResultBatch) (sent, acked int, err error) {
	conn, err := w.as(a.agent, a.to)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	r, err := register(ctx, conn, a.id, a.epoch)
	if err != nil {
		return 0, 0, fmt.Errorf("registering as %s: %w", a.id, err)
	}
	stream, err := pb.NewResultServiceClient(conn).Report(ctx)
	if err != nil {
		return 0, 0, err
	}
	hello := &pb.Hello{Agent: a.id, Credential: r.GetCredential(), Session: r.GetSession(), Epoch: a.epoch}
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: hello}}); err != nil {
		return 0, 0, err
	}
	waiting := map[uint64]int{}
	for _, b := range batches {
		if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: b}}); err != nil {
			_, reason := stream.Recv() // after a failed Send only Recv knows why
			return sent, acked, errors.Join(err, reason)
		}
		sent += len(b.GetResults())
		for _, one := range b.GetResults() {
			waiting[one.GetSeq()]++
		}
		for windowed := len(waiting); windowed > 0; windowed = len(waiting) { // one batch after the other
			in, err := stream.Recv()
			if err != nil {
				return sent, acked, fmt.Errorf("after %d results: %w", sent, err)
			}
			for _, numbers := range in.GetAck().GetRanges() {
				for seq := numbers.GetFirst(); seq <= numbers.GetLast(); seq++ {
					delete(waiting, seq)
					acked++
				}
			}
		}
	}
	return sent, acked, stream.CloseSend()
}

// delivered is what was acknowledged to an agent in its newest epoch, in the order in which it was written.
func (l *lives) delivered(a *agent) (list []delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := map[number]history.Job{}
	var order []number
	acked := map[number]bool{}
	for _, e := range l.read[a.name].events {
		switch e.Op {
		case chaos.Spooling:
			n := number{e.Epoch, e.First}
			if _, again := at[n]; !again { // who died while it wrote leaves the number to the next result
				order = append(order, n)
			}
			at[n] = history.Job{Measurement: e.Measurement, Round: e.Round, Agent: a.id}
		case chaos.Acked:
			for seq := e.First; seq <= e.Last; seq++ {
				acked[number{e.Epoch, seq}] = true
			}
		case chaos.Attempted, chaos.Moved, chaos.Discarded, chaos.Dropped, chaos.Connected, chaos.Dying, chaos.Running:
		}
	}
	for _, n := range order {
		if acked[n] && n.epoch == order[len(order)-1].epoch {
			list = append(list, delivery{at[n], n})
		}
	}
	return list
}
