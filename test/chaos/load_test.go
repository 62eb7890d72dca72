package chaos

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/position"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

const (
	// atOnce bounds the measurements that are watched at once.
	atOnce = 400
	// hotTarget is asked for more often than agents may visit it.
	hotTarget = "198.18.8.1"
	// hotShare is one of so many measurements that is about it; others are about what is forbidden, and about
	// targets that never answer.
	hotShare, forbiddenShare, silentShare = 3, 50, 40
	// measurementTimeout is how long each may take.
	measurementTimeout = 10 * time.Second
)

// load opens measurements and watches each to its end.
type load struct {
	w    *world
	conn *grpc.ClientConn
	rate atomic.Int64 // measurements a second

	wg      sync.WaitGroup
	mu      sync.Mutex
	running int
	paused  bool
	created []string // measurements that the coordinator said were open
	refused int      // calls that failed
	shown   map[history.Job]string
	facts   []history.Fact
	answers map[string][]answer // of each agent, in the order in which they were seen
}

// answer is that an agent's result was seen: its measurement was opened at a time, and it was seen at another.
type answer struct{ opened, seen time.Time }

func newLoad(w *world) *load {
	conn, err := w.client()
	if err != nil {
		w.t.Fatal(err)
	}
	w.onClose(func() { _ = conn.Close() })
	return &load{w: w, conn: conn, shown: map[history.Job]string{}, answers: map[string][]answer{}}
}

// run opens measurements, so many a second, until ctx ends; then it waits for those that run.
func (l *load) run(ctx, watching context.Context, r *rand.Rand) {
	defer l.wg.Wait()
	for n := 0; ; n++ {
		pause := time.Second / 5
		if rate := l.rate.Load(); rate > 0 {
			pause = time.Second / time.Duration(rate)
			if spec := question(n, r); l.begin() {
				l.wg.Go(func() { l.measure(watching, spec) })
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// begin tells whether a measurement may be opened now, which is then one that runs.
func (l *load) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	free := !l.paused && l.running < atOnce
	if free {
		l.running++
	}
	return free
}

// idle waits until no measurement runs.
func (l *load) idle(ctx context.Context) error {
	return eventually(ctx, "measurements to end", func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.running > 0 {
			return fmt.Errorf("%d run", l.running)
		}
		return nil
	})
}

// pause has nobody ask anything until resume is called, and waits for the end of what was asked.
func (l *load) pause(ctx context.Context) (resume func(), err error) {
	set := func(paused bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.paused = paused
	}
	set(true)
	resume = func() { set(false) }
	if err := l.idle(ctx); err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// question is the nth thing to ask.
func question(n int, r *rand.Rand) *pb.Spec {
	target := fmt.Sprintf("198.18.%d.%d", r.IntN(8), 1+r.IntN(254))
	switch {
	case n%hotShare == 0:
		target = hotTarget
	case n%forbiddenShare == 1:
		target = []string{"10.66.0.1", "169.254.169.254"}[r.IntN(2)]
	case n%silentShare == 2:
		target = fmt.Sprintf("198.18.9.%d", 1+r.IntN(254))
	}
	return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target, Port: 443}}}
}

// measure opens one measurement, which has begun, and watches it to its end. It returns its name, empty if nobody
// said that it is open.
func (l *load) measure(ctx context.Context, spec *pb.Spec) (id string) {
	defer func() {
		l.mu.Lock()
		l.running--
		l.mu.Unlock()
	}()
	opened := time.Now()
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var header metadata.MD
	m, err := pb.NewMeasurementServiceClient(l.conn).CreateMeasurement(call, &pb.CreateMeasurementRequest{
		Spec: spec, From: region, Limit: 100, Timeout: durationpb.New(measurementTimeout),
		Id: strings.ToLower(ulid.MustNew(ulid.Now(), crand.Reader).String()),
	}, grpc.Header(&header))
	ctx = knowing(ctx, header)
	l.mu.Lock()
	if err != nil {
		l.refused++ // it may be open all the same
	} else {
		l.created = append(l.created, m.GetMeasurement().GetId())
	}
	l.mu.Unlock()
	for id = m.GetMeasurement().GetId(); id != "" && ctx.Err() == nil; {
		err := l.watch(ctx, id, opened)
		if err == nil || status.Code(err) == codes.NotFound {
			return id // it ended, or it is gone, which the checker will find
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return id
}

// knowing is for calls of one who has had an answer.
func knowing(ctx context.Context, answer metadata.MD) context.Context {
	for _, seen := range answer.Get(position.Header) {
		ctx = metadata.AppendToOutgoingContext(ctx, position.Header, seen)
	}
	return ctx
}

// writes opens a measurement and cancels it, if the log takes what comes.
func (l *load) writes(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	service := pb.NewMeasurementServiceClient(conn)
	var header metadata.MD
	m, err := service.CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
		Spec: question(3, rand.New(rand.NewPCG(0, 0))), From: region, Limit: 1,
	}, grpc.Header(&header))
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.created = append(l.created, m.GetMeasurement().GetId())
	l.mu.Unlock()
	_, err = service.CancelMeasurement(knowing(ctx, header), &pb.CancelMeasurementRequest{Id: m.GetMeasurement().GetId()})
	return err
}

// writesAt does so at one coordinator.
func (w *world) writesAt(ctx context.Context, c *coordinator) error {
	conn, err := w.clientOf(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	return w.load.writes(ctx, conn)
}

// watch follows a measurement until it is closed or the stream breaks.
func (l *load) watch(ctx context.Context, id string, opened time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewMeasurementServiceClient(l.conn).WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true})
	if err != nil {
		return err
	}
	for {
		news, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range news.GetResults() {
			l.see(fact(r, false), opened)
		}
		if news.GetMeasurement().GetState() != pb.State_STATE_RUNNING {
			return nil
		}
	}
}

// see notes a result that was shown.
func (l *load) see(f history.Fact, opened time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if digest, again := l.shown[f.Job]; again && digest == f.Digest {
		return
	}
	l.shown[f.Job] = f.Digest
	l.facts = append(l.facts, f)
	l.answers[f.Agent] = append(l.answers[f.Agent], answer{opened, time.Now()})
}

// answered is when an agent first answered a question that was asked after a time.
func (l *load) answered(agent string, after time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.answers[agent]
	first := time.Time{}
	for i := len(list) - 1; i >= 0 && list[i].seen.After(after); i-- {
		if list[i].opened.After(after) {
			first = list[i].seen
		}
	}
	return first, !first.IsZero()
}
