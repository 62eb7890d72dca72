package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/spool"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// bench is an agent's jobs whose connects wait until they are let through.
type bench struct {
	*jobs
	pass    chan struct{}
	arrived chan struct{}
	log     *bytes.Buffer
}

func newBench(t *testing.T, capacity int) *bench {
	t.Helper()
	sp, err := spool.Open(t.TempDir(), "a", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{pass: make(chan struct{}), arrived: make(chan struct{}, 100), log: &bytes.Buffer{}}
	env := &probe.Env{
		Egress:   probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Controls: []string{},
		Connect: func(ctx context.Context, _ netip.AddrPort, _ probe.ConnectOptions) (net.Conn, *pb.Evidence, error) {
			b.arrived <- struct{}{}
			select {
			case <-b.pass:
				here, there := net.Pipe()
				_ = there.SetDeadline(time.Now().Add(time.Minute))
				return here, &pb.Evidence{}, nil
			case <-ctx.Done():
				return nil, &pb.Evidence{}, ctx.Err()
			}
		},
	}
	b.jobs, err = newJobs(Options{Env: env, Capacity: capacity, Log: slog.New(slog.NewTextHandler(b.log, nil)), DataDir: t.TempDir()}, "a", sp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.cancelAll()
		b.wait()
		if err := sp.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func job(id string) *pb.Job {
	return &pb.Job{
		MeasurementId: id, Agent: "a", Remaining: durationpb.New(time.Minute),
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "127.0.0.1", Port: 1}}},
	}
}

func TestTake(t *testing.T) {
	for _, c := range []struct {
		what string
		edit func(*pb.Job)
		want pb.Failure
	}{
		{"a job is accepted", func(*pb.Job) {}, pb.Failure_FAILURE_NONE},
		{"a job of another agent is not", func(j *pb.Job) { j.Agent = "b" }, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"nor one without a measurement", func(j *pb.Job) { j.MeasurementId = "" }, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"nor one whose measurement's id would fill the memory", func(j *pb.Job) { j.MeasurementId = strings.Repeat("m", 1<<20) }, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"nor one without a spec", func(j *pb.Job) { j.Spec = nil }, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"nor one whose time is over", func(j *pb.Job) { j.Remaining = durationpb.New(0) }, pb.Failure_FAILURE_AGENT_DEADLINE},
		{"a target that the policy refuses is refused", func(j *pb.Job) { j.GetSpec().GetTcp().Host = "10.0.0.1" }, pb.Failure_FAILURE_AGENT_POLICY_DENIED},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := newBench(t, 2)
			j := job("m")
			c.edit(j)
			if got := b.take(j); got.GetFailure() != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestAJobRunsOnceHoweverOftenItIsAsked(t *testing.T) {
	b := newBench(t, 10)
	for range 5 {
		if got := b.take(job("m")); got.GetFailure() != pb.Failure_FAILURE_NONE {
			t.Fatal(got)
		}
	}
	close(b.pass)
	b.wait()
	if got := b.take(job("m")); got.GetFailure() != pb.Failure_FAILURE_NONE { // it is done: still a yes
		t.Fatal(got)
	}
	b.wait()
	batch, _, err := b.spool.Next(0, 10)
	if err != nil || len(batch.GetResults()) != 1 || len(b.arrived) != 1 {
		t.Errorf("%d results of %d runs, %v; want one", len(batch.GetResults()), len(b.arrived), err)
	}
	if n := strings.Count(b.log.String(), "msg=job"); n != 1 {
		t.Errorf("%d lines for one job:\n%s", n, b.log)
	}
}

func TestAJobThatRunsIsNeverRefused(t *testing.T) {
	b := newBench(t, 1)
	b.take(job("m"))
	for b.spool.Usage() <= spoolHigh { // other results fill the spool meanwhile
		if err := b.spool.Append(&pb.Result{Agent: "a", Version: strings.Repeat("x", 50<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.take(job("m")); got.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("asked again while it runs: %v; its result would not be wanted any more", got)
	}
	if got := b.take(job("n")); got.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED {
		t.Errorf("a new job with a spool that is nearly full: %v", got)
	}
}

func TestOneDataDirectoryIsForOneAgent(t *testing.T) {
	dir := t.TempDir()
	first, err := New(Options{DataDir: dir, ID: "old", Env: &probe.Env{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{DataDir: dir, ID: "old", Env: &probe.Env{}}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two at once: %v", err)
	}
	if err := first.spool.Append(&pb.Result{Agent: "old"}); err != nil {
		t.Fatal(err)
	}
	if err := first.spool.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{DataDir: dir, ID: "new", Env: &probe.Env{}}); err == nil || !strings.Contains(err.Error(), "of agent old") {
		t.Errorf("another agent while results wait: %v", err)
	}
}

func TestCapacity(t *testing.T) {
	b := newBench(t, 2)
	b.take(job("m1"))
	b.take(job("m2"))
	if got := b.take(job("m3")); got.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED || got.GetDetail() == "" {
		t.Errorf("beyond the capacity: %v", got)
	}
	close(b.pass)
	b.wait()
	if got := b.take(job("m3")); got.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED {
		t.Errorf("a job that was declined is taken, of which the coordinator wants no result any more: %v", got)
	}
	if got := b.take(job("m4")); got.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("a new one: %v", got)
	}
}

func TestCancelledJobsLeaveNoResult(t *testing.T) {
	b := newBench(t, 2)
	b.take(job("m1"))
	<-b.arrived
	b.cancel(&pb.Cancel{MeasurementId: "m2"}) // nothing to end
	b.cancel(&pb.Cancel{MeasurementId: "m1"})
	b.wait()
	if batch, _, err := b.spool.Next(0, 10); err != nil || len(batch.GetResults()) != 0 {
		t.Errorf("%v, %v", batch, err)
	}
}

func TestDrain(t *testing.T) {
	b := newBench(t, 2)
	b.take(job("m1"))
	b.drain()
	if got := b.take(job("m2")); got.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED {
		t.Errorf("while draining: %v", got)
	}
	select {
	case <-b.idle():
		t.Error("idle while a job runs")
	default:
	}
	close(b.pass)
	<-b.idle()
	if _, draining := b.load(); !draining {
		t.Error("it does not say that it drains")
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	b := newBench(t, 2)
	for i := range maxKnown + 100 {
		b.known.note(spool.Key{Measurement: fmt.Sprint(i)}, struct{}{})
	}
	if len(b.known.by) != maxKnown || len(b.known.order) != maxKnown {
		t.Errorf("%d known, %d in order", len(b.known.by), len(b.known.order))
	}
	// Who declines more than it can remember forgets the oldest, and not what it has accepted.
	for i := range maxDeclined + 100 {
		b.take(job(fmt.Sprint("declined-", i)))
	}
	// What is not the agent's, or has a name that no coordinator gives, is not remembered at all.
	for i := range 100 {
		b.take(job(strings.Repeat("x", maxID+1+i)))
	}
	if len(b.declined.by) != maxDeclined || b.said(spool.Key{Measurement: strings.Repeat("x", maxID+1)}) != nil {
		t.Errorf("%d declined", len(b.declined.by))
	}
	if got := b.take(job("0")); len(b.declined.by) != maxDeclined || len(b.known.by) != maxKnown || got.GetFailure() == pb.Failure_FAILURE_NONE {
		t.Errorf("%d declined, %d known, %v", len(b.declined.by), len(b.known.by), got)
	}
}

// TestWhyIsBounded: a job can have words of 256 KiB, and the agent remembers what it said about them.
func TestWhyIsBounded(t *testing.T) {
	b := newBench(t, 2)
	long := job("m1")
	long.GetSpec().GetTcp().Host = strings.Repeat("ü", 100<<10)
	for range 2 { // also when it is said again
		if got := b.take(long); got.GetFailure() == pb.Failure_FAILURE_NONE || len(got.GetDetail()) > maxDetail || !utf8.ValidString(got.GetDetail()) {
			t.Errorf("%s, in %d bytes", got.GetFailure(), len(got.GetDetail()))
		}
	}
}

func TestName(t *testing.T) {
	dir := t.TempDir()
	first, err := name(Options{}, dir+"/id")
	if err != nil || !strings.HasPrefix(first, "agent-") || len(first) > 63 {
		t.Fatalf("%q, %v", first, err)
	}
	if second, err := name(Options{}, dir+"/id"); err != nil || second != first {
		t.Errorf("%q at the first start, %q at the second, %v", first, second, err)
	}
	if given, err := name(Options{ID: "fra-1"}, dir+"/id"); err != nil || given != "fra-1" {
		t.Errorf("%q, %v", given, err)
	}
}

// TestHostileCoordinator: an agent obeys its own limits whatever a coordinator says. 500 jobs at once for
// one address connect no more often than the burst lets them, and never to a private address.
func TestHostileCoordinator(t *testing.T) {
	const jobs, burst = 500, 50
	b := newBench(t, 2*jobs)
	b.env.Budget = &probe.Budget{PerSecond: 0.001}
	close(b.pass)
	refused := map[string]int{}
	for i := range jobs {
		for _, host := range []string{"127.0.0.1", "10.0.0.1"} {
			j := job(fmt.Sprint(host, " ", i))
			j.GetSpec().GetTcp().Host = host
			switch reply := b.take(j); reply.GetFailure() {
			case pb.Failure_FAILURE_NONE:
			case pb.Failure_FAILURE_AGENT_POLICY_DENIED:
				refused[host]++
			default:
				t.Error(reply)
			}
		}
	}
	b.wait()
	if refused["127.0.0.1"] != jobs-burst || refused["10.0.0.1"] != jobs {
		t.Errorf("refused: %v, want %d and all", refused, jobs-burst)
	}
	if n := len(b.arrived); n != burst {
		t.Errorf("%d connects, want %d", n, burst)
	}
}

func TestRestIsToldOnce(t *testing.T) {
	var q quiet
	for i, look := range []struct {
		running int32
		ended   uint64
		want    bool
	}{
		{0, 0, true}, // after the start
		{0, 0, false},
		{2, 0, false},
		{1, 1, false},
		{0, 2, false}, // one has ended since the last look
		{0, 2, true},
		{0, 2, false},
		{0, 9, false}, // they came and went in between
		{0, 9, true},
	} {
		if got := q.came(look.running, look.ended); got != look.want {
			t.Errorf("look %d: %v", i, got)
		}
	}
}
