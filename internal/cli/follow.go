package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// patience is how long after its deadline a measurement may take to be closed: a coordinator that
	// restarts gives its agents time to deliver.
	patience = 30 * time.Second
	// short is the time of a call that follows an interrupt.
	short = 5 * time.Second
	// creation is the time that opening a measurement may take.
	creation = 15 * time.Second
)

// NewScreen makes the screen that RunCheck shows things on: a live table if out is a terminal and CI is
// unset, else lines. A nil getenv is os.Getenv.
func NewScreen(out, errs io.Writer, getenv func(string) string) render.Screen {
	if getenv == nil {
		getenv = os.Getenv
	}
	return render.NewScreen(out, errs, getenv)
}

// RunCheck asks one question over conn and shows it on screen. The measurement is cancelled if ctx
// ends. The error decides the exit code (see Error); the exit code of a measurement that came to its
// end is ExitCode's.
func RunCheck(ctx context.Context, conn grpc.ClientConnInterface, req *pb.CreateMeasurementRequest, screen render.Screen) (*pb.Measurement, error) {
	client := pb.NewMeasurementServiceClient(conn)
	m, err := create(ctx, client, req)
	if err != nil {
		return nil, rpcError(ctx, err)
	}
	f := &follower{client: client, errs: screen.Err, report: screen.Reporter(false), m: m, owned: true}
	return f.run(ctx)
}

// create opens a measurement. It is not abandoned when ctx ends, since then nobody would know whether there is one to
// cancel. Its id is chosen here, so that it is opened once, however often and of whom it has to be asked for.
func create(ctx context.Context, client pb.MeasurementServiceClient, req *pb.CreateMeasurementRequest) (*pb.Measurement, error) {
	if ctx.Err() != nil {
		return nil, interrupted()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), creation)
	defer cancel()
	req = proto.CloneOf(req)
	req.Id = strings.ToLower(ulid.MustNew(ulid.Now(), rand.Reader).String())
	resp, err := client.CreateMeasurement(ctx, req)
	return resp.GetMeasurement(), err
}

// follower follows one measurement to its end.
type follower struct {
	client pb.MeasurementServiceClient
	errs   io.Writer
	report render.Reporter
	owned  bool // it was asked by us: an interrupt cancels it
	m      *pb.Measurement
	// results are in the order in which they came; seen are the agents that they are of.
	results []*pb.Result
	seen    map[string]bool
	told    uint64 // the position up to which the stream has told all
	silent  bool   // the coordinator does not answer
}

// run shows the measurement until it is closed.
func (f *follower) run(ctx context.Context) (*pb.Measurement, error) {
	f.seen = map[string]bool{}
	f.report.Begin(f.m)
	err := f.watch(ctx)
	if ctx.Err() != nil && err != nil {
		return f.interrupt(ctx)
	}
	if err == nil {
		err = f.complete(ctx)
	}
	if err != nil {
		f.report.Abort()
		return f.m, f.lost(ctx, err)
	}
	return f.m, f.end()
}

// watch takes changes until the measurement is closed. A stream that breaks is taken up again: the
// coordinator may have been restarted.
func (f *follower) watch(ctx context.Context) error {
	left := f.m.GetDeadline().AsTime().Sub(f.m.GetCreateTime().AsTime()) // both by the coordinator's clock
	ctx, cancel := context.WithTimeout(ctx, max(left, 0)+patience)
	defer cancel()
	again := backoff.NewExponentialBackOff()
	again.InitialInterval, again.MaxInterval = 100*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f.stream(ctx)
		if err != nil && !passing(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(again), backoff.WithMaxElapsedTime(0), backoff.WithNotify(f.wait))
	return err
}

// wait says, once until something comes again, that the coordinator is lost sight of.
func (f *follower) wait(error, time.Duration) {
	if !f.silent {
		f.silent = true
		f.report.Waiting()
	}
}

// passing says whether an error may be gone at the next try.
func passing(err error) bool {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// Canceled is the server's: a stream that it ended because it stops.
	return slices.Contains([]codes.Code{codes.Unavailable, codes.Aborted, codes.Internal, codes.Canceled}, status.Code(err))
}

// stream follows one stream; nil once the measurement is closed.
func (f *follower) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := f.client.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: f.m.GetId(), Results: true, After: f.told}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		msg, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF // it ended before the measurement did
		case err != nil:
			return err
		}
		f.told = msg.GetPosition()
		if f.take(msg.GetMeasurement(), msg.GetResults()); closed(f.m) {
			return nil
		}
	}
}

// take keeps the newest state and the results that are new. A stream that was taken up again goes on after those of
// before, unless the coordinator has gone back to a backup meanwhile: then it begins with them.
func (f *follower) take(m *pb.Measurement, results []*pb.Result) {
	f.silent = false
	if m != nil {
		if len(m.GetAsks()) == 0 {
			m.Asks = f.m.GetAsks()
		}
		f.m = m
	}
	fresh := make([]*pb.Result, 0, len(results))
	for _, r := range results {
		if !f.seen[r.GetAgent()] {
			f.seen[r.GetAgent()] = true
			fresh = append(fresh, r)
		}
	}
	f.results = append(f.results, fresh...)
	f.report.Update(f.m, fresh)
}

// complete fetches results that the ledger counts and the stream did not bring.
func (f *follower) complete(ctx context.Context) error {
	if len(f.results) >= int(f.m.GetLedger().GetAnswered()) {
		return nil
	}
	results, err := listResults(ctx, f.client, f.m.GetId())
	if err == nil {
		f.take(nil, results)
	}
	return err
}

// interrupt ends what ctx interrupted: the measurement is cancelled, and what came is shown.
func (f *follower) interrupt(ctx context.Context) (*pb.Measurement, error) {
	f.report.Abort() // first of all: a second signal ends us at once, and must not find the terminal in use
	if !f.owned {
		return f.m, interrupted()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), short)
	defer cancel()
	resp, err := f.client.CancelMeasurement(ctx, &pb.CancelMeasurementRequest{Id: f.m.GetId()})
	if err != nil {
		return f.m, &Error{ExitInterrupted, fmt.Errorf("interrupted; %s could not be cancelled and goes on to its deadline", f.m.GetId())}
	}
	f.take(resp.GetMeasurement(), nil)
	if err := f.complete(ctx); err != nil {
		fmt.Fprintln(f.errs, "elsewhere: some results are missing:", oneLine(err.Error()))
	}
	if err := f.end(); err != nil {
		return f.m, err
	}
	return f.m, &Error{ExitInterrupted, fmt.Errorf("interrupted; %s was cancelled", f.m.GetId())}
}

// end shows the measurement with its results.
func (f *follower) end() error {
	f.m = proto.CloneOf(f.m) // the one before is still on the screen
	f.m.Results = byAgent(f.results)
	return written(f.report.End(f.m))
}

// lost is the error of a measurement that could not be followed to its end.
func (f *follower) lost(ctx context.Context, err error) error {
	err = rpcError(ctx, err)
	exit := code(err)
	if exit == ExitUsage {
		exit = ExitNetwork // the question was right; the network forgot it
	}
	return &Error{exit, fmt.Errorf("lost sight of %s: %w; look again with: elsewhere show %s", f.m.GetId(), err, f.m.GetId())}
}

// written is the error of data that could not be written.
func written(err error) error {
	if err == nil {
		return nil
	}
	return &Error{ExitNetwork, fmt.Errorf("cannot write the output: %w", err)}
}

// closed says whether a measurement is over.
func closed(m *pb.Measurement) bool {
	return m.GetState() == pb.State_STATE_FINISHED || m.GetState() == pb.State_STATE_CANCELLED
}

// byAgent sorts results by the agent's name.
func byAgent(results []*pb.Result) []*pb.Result {
	return slices.SortedFunc(slices.Values(results), func(a, b *pb.Result) int { return cmp.Compare(a.GetAgent(), b.GetAgent()) })
}

// listResults reads the results that a measurement is judged by, without the late ones.
func listResults(ctx context.Context, client pb.MeasurementServiceClient, id string) ([]*pb.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.ListResults(ctx, &pb.ListResultsRequest{Id: id})
	if err != nil {
		return nil, err
	}
	var out []*pb.Result
	for {
		msg, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case !msg.GetLate():
			out = append(out, msg.GetResult())
		}
	}
}
