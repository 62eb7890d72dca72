package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func startServer(t *testing.T, dir, addr string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Options{
		Dir: dir, Addr: addr,
		Verify: func(agent, credential string) bool { return credential == "key of "+agent },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	if addr != "" {
		listen(t, s)
	}
	return s
}

// runLog opens the log and commits until the test ends.
func runLog(t *testing.T, s *embedded.Server, maxBytes int64) *bus.Log {
	t.Helper()
	l, err := bus.OpenLog(t.Context(), s, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	})
	return l
}

func entry(agent string, size int) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: &pb.Result{Agent: agent, Version: string(bytes.Repeat([]byte("x"), size))}}}
}

// read folds n entries of the log and returns their agents.
func read(t *testing.T, l *bus.Log, after uint64, n int) (agents []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enough := errors.New("enough")
	err := l.Fold(ctx, after, func(m bus.Message) error {
		for _, e := range m.Batch.GetEntries() {
			agents = append(agents, e.GetResult().GetAgent())
		}
		if len(agents) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("after %d of %d entries: %v", len(agents), n, err)
	}
	return agents
}

func TestLogKeepsTheOrder(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	l := runLog(t, s, 1<<30)
	var last uint64
	for i := range 20 {
		position, err := l.Append(t.Context(), entry(fmt.Sprint("a", i), 10), entry(fmt.Sprint("b", i), 10))
		if err != nil || position <= last {
			t.Fatalf("position %d after %d, %v", position, last, err)
		}
		last = position
	}
	agents := read(t, l, 0, 40)
	for i := range 20 {
		if agents[2*i] != fmt.Sprint("a", i) || agents[2*i+1] != fmt.Sprint("b", i) {
			t.Fatalf("order: %v", agents)
		}
	}
	if got := read(t, l, last-1, 2); got[0] != "a19" {
		t.Errorf("after %d: %v", last-1, got)
	}
}

func TestLogGathers(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	l := runLog(t, s, 1<<30)
	const n = 500
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := l.Append(t.Context(), entry(fmt.Sprint(i), 3000)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	bounds, err := l.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bounds.Last >= n/2 {
		t.Errorf("%d commits for %d appends at once; they should be gathered", bounds.Last, n)
	}
	if got := read(t, l, 0, n); len(got) != n {
		t.Errorf("%d entries of %d", len(got), n)
	}
}

func TestLogIsBounded(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	l := runLog(t, s, 10<<20)
	if _, err := l.Append(t.Context(), entry("ten thousand agents", 5<<20)); err != nil {
		t.Errorf("a large entry: %v", err)
	}
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = l.Append(t.Context(), entry("a", 20<<10))
	}
	if !errors.Is(err, bus.ErrFull) {
		t.Fatalf("beyond the bound: %v", err)
	}
	select {
	case <-l.Full():
	default:
		t.Error("it does not say that it is time to forget")
	}
	end := &pb.LogEntry{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: "m"}}}
	if _, err := l.Append(t.Context(), end); err != nil {
		t.Errorf("what ends a measurement still fits: %v", err)
	}
	bounds, err := l.Bounds(t.Context())
	if err != nil || bounds.First != 1 {
		t.Fatalf("%+v, %v: the oldest must not go by itself", bounds, err)
	}
	if err := l.Purge(t.Context(), bounds.Last/2); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry("a", 20<<10)); err != nil {
		t.Errorf("after a purge: %v", err)
	}
	if _, err := l.Append(t.Context(), entry("a", bus.MaxPayload)); err == nil {
		t.Error("an entry that is too large was taken")
	}
}

func TestLogOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	l := runLog(t, s, 1<<30)
	if _, err := l.Append(t.Context(), entry("kept", 10)); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	l = runLog(t, startServer(t, dir, "127.0.0.1:0"), 1<<30)
	if got := read(t, l, 0, 1); got[0] != "kept" {
		t.Errorf("%v", got)
	}
}

// connectAgent connects an agent that accepts every job.
func connectAgent(t *testing.T, s *embedded.Server, agent string, connected func()) *bus.AgentConn {
	t.Helper()
	c, err := bus.ConnectAgent(t.Context(), bus.AgentOptions{
		Agent: agent, Credential: "key of " + agent, Addresses: []string{s.Addr().String()},
		Job: func(j *pb.Job) *pb.JobReply {
			return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE, Detail: j.GetMeasurementId()}
		},
		Cancel:    func(*pb.Cancel) {},
		Connected: connected,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAsk(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	beats, names := make(chan *pb.Beat, 10), make(chan string, 10)
	f := openFleet(t, s, func(from string, b *pb.Beat) { names <- from; beats <- b })
	a := connectAgent(t, s, "a", func() {})
	reply, err := f.Ask(t.Context(), &pb.Job{MeasurementId: "m", Agent: "a"})
	if err != nil || reply.GetDetail() != "m" {
		t.Errorf("%v, %v", reply, err)
	}
	if _, err := f.Ask(t.Context(), &pb.Job{MeasurementId: "m", Agent: "nobody"}); !errors.Is(err, bus.ErrNoResponder) {
		t.Errorf("nobody: %v", err)
	}
	if err := a.Beat(&pb.Beat{Agent: "a", Running: 7}); err != nil {
		t.Fatal(err)
	}
	if b, from := <-beats, <-names; b.GetRunning() != 7 || from != "a" {
		t.Errorf("%v from %s", b, from)
	}
	if err := a.Beat(&pb.Beat{Agent: "b"}); err != nil { // on its own subject, in another's name
		t.Fatal(err)
	}
	<-beats
	if from := <-names; from != "a" {
		t.Errorf("a beat of a's came from %s", from)
	}
}

func TestAgentsAreKeptApart(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	l := runLog(t, s, 1<<20)
	url := "nats://" + s.Addr().String()
	for _, c := range []struct{ what, user, password string }{
		{"a wrong credential", "a", "key of b"},
		{"no credential", "", ""},
		{"the coordinator's user from outside", bus.LogUser, ""},
		{"the coordinator's other user", bus.FleetUser, "key of " + bus.FleetUser + "?"},
	} {
		if nc, err := nats.Connect(url, nats.UserInfo(c.user, c.password)); err == nil {
			nc.Close()
			t.Errorf("%s connects", c.what)
		}
	}

	denied := make(chan error, 10)
	nc, err := nats.Connect(url, nats.UserInfo("a", "key of a"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	deniedBeyondItsOwn(t, nc, denied)
	if bounds, err := l.Bounds(t.Context()); err != nil || bounds.Last != 0 {
		t.Errorf("an agent wrote into the log: %+v, %v", bounds, err)
	}
}

// deniedBeyondItsOwn tries what agent "a" may not do.
func deniedBeyondItsOwn(t *testing.T, nc *nats.Conn, denied <-chan error) {
	t.Helper()
	for _, subject := range []string{"jobs.b", "jobs.>", ">", "beats.*", "cancel.b", "_INBOX.>", "_INBOX.a", "$SYS.>", "$JS.API.>", "$KV.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("subscribing %s: %v", subject, err)
		}
	}
	for _, subject := range []string{
		"beats.b", "jobs.a", "jobs.b", "log", "_INBOX.b", "$JS.API.STREAM.PURGE.LOG", "$JS.API.STREAM.DELETE.LOG", "$JS.API.INFO",
		"$JS.ACK.LOG.x.1.1.1.1.1", "$KV.tokens.x", "$SYS.REQ.SERVER.PING",
	} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("publishing %s: %v", subject, err)
		}
	}
}

func TestAgentReconnects(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.7.2:0") // Where nobody else takes the port while it restarts.
	addr := s.Addr().String()
	connected := make(chan struct{}, 10)
	a := connectAgent(t, s, "a", func() { connected <- struct{}{} })
	<-connected
	s.Shutdown()
	s = startServer(t, dir, addr)
	beats := make(chan *pb.Beat, 1)
	f := openFleet(t, s, func(_ string, b *pb.Beat) { beats <- b })
	select {
	case <-connected:
	case <-time.After(time.Minute):
		t.Fatal("no reconnection within a minute")
	}
	// An agent beats when it is back; by then its subscriptions are there too.
	if err := a.Beat(&pb.Beat{Agent: "a"}); err != nil {
		t.Fatal(err)
	}
	<-beats
	if reply, err := f.Ask(t.Context(), &pb.Job{MeasurementId: "again", Agent: "a"}); err != nil || reply.GetDetail() != "again" {
		t.Errorf("after the reconnection: %v, %v", reply, err)
	}
}
