package coordinator_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// bare is an agent that says yes to every job, runs none, and reports what a test tells it to.
type bare struct {
	w     *world
	hello *pb.Hello
}

// bare registers one and returns when it is online.
func (w *world) bare(id string) *bare {
	w.t.Helper()
	vantage := &pb.Vantage{Region: "r-" + id}
	r, err := pb.NewRegistrationServiceClient(w.conn).Register(w.t.Context(),
		&pb.RegisterRequest{Id: id, Vantage: vantage}, grpc.WaitForReady(true))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := bus.ConnectAgent(w.t.Context(), bus.AgentOptions{
		Agent: id, Credential: r.GetCredential(), Addresses: []string{w.nats},
		Job:       func(*pb.Job) *pb.JobReply { return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE} },
		Cancel:    func(*pb.Cancel) {},
		Connected: func() {},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conn.Close)
	beat := func() error { return conn.Beat(&pb.Beat{Agent: id, Vantage: vantage, Capacity: 1}) }
	if err := beat(); err != nil {
		w.t.Fatal(err)
	}
	go func(ctx context.Context) { // it stays online as long as the test takes
		for {
			select {
			case <-time.After(fleet.BeatInterval):
				_ = beat()
			case <-ctx.Done():
				return
			}
		}
	}(w.t.Context())
	w.online(id)
	return &bare{w: w, hello: &pb.Hello{Agent: id, Credential: r.GetCredential(), Epoch: max(r.GetEpoch(), 1), Session: r.GetSession()}}
}

// open opens the agent's stream.
func (b *bare) open() pb.ResultService_ReportClient {
	b.w.t.Helper()
	stream, err := pb.NewResultServiceClient(b.w.conn).Report(b.w.t.Context(), grpc.WaitForReady(true))
	if err == nil {
		err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: b.hello}})
	}
	if err != nil {
		b.w.t.Fatal(err)
	}
	return stream
}

// report sends a batch and waits until all of it is acknowledged.
func (b *bare) report(stream pb.ResultService_ReportClient, batch *pb.ResultBatch) {
	b.w.t.Helper()
	if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}); err != nil {
		b.w.t.Fatal(err)
	}
	in, err := stream.Recv()
	if err != nil || in.GetAck() == nil {
		b.w.t.Fatalf("%v, %v; want an acknowledgement", in, err)
	}
}

// answer is what the agent might see for a measurement.
func (b *bare) answer(measurement string) *pb.Result {
	return &pb.Result{MeasurementId: measurement, Agent: b.hello.GetAgent(), StartTime: timestamppb.New(time.Unix(1, 0))}
}

// spooled numbers results from a number on.
func spooled(seq uint64, results ...*pb.Result) *pb.ResultBatch {
	batch := &pb.ResultBatch{}
	for i, r := range results {
		batch.Results = append(batch.Results, &pb.SpooledResult{Seq: seq + uint64(i), Result: r})
	}
	return batch
}

// lines is what a coordinator logs.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(words string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), words)
}

func (l *lines) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestForgedResultForUnassignedJob(t *testing.T) {
	said := &lines{}
	w := newWorld(t, coordinator.Options{Log: said.log()})
	honest, forger := w.bare("honest"), w.bare("forger")
	request := w.tcp(w.target)
	request.From = "honest"
	id := w.create(request).GetId()
	stream := forger.open()
	// One for a job of somebody else, one in the name of somebody else, one for what was never asked.
	forger.report(stream, spooled(1, forger.answer(id), honest.answer(id), forger.answer("01arz3ndektsv4rrffq69g5fav")))
	honest.report(honest.open(), spooled(1, honest.answer(id)))
	m, results := w.end(id)
	if l := m.GetLedger(); l.GetAsked() != 1 || l.GetAnswered() != 1 || len(results) != 1 || results[0].GetAgent() != "honest" {
		t.Errorf("%v, %v: want the one of the agent that was asked", l, results)
	}
	if results[0].GetVantage().GetRegion() != "r-honest" {
		t.Errorf("its region: %v", results[0].GetVantage())
	}
	w.stop()
	for _, kind := range []string{"UNASKED_RESULT", "SPOOFING_REFUSED"} {
		if !said.has("kind=AUDIT_KIND_" + kind + " agent=forger") {
			t.Errorf("%s is not in the audit", kind)
		}
	}
}

// TestWhatAnotherCoordinatorAskedForIsKept delivers results to a coordinator that has not folded yet that another one asked
// for them: they are nobody's fault, and must not be given up.
func TestWhatAnotherCoordinatorAskedForIsKept(t *testing.T) {
	said := &lines{}
	w := newWorld(t, coordinator.Options{Log: said.log()})
	agent := w.bare("agent")
	behind := 0
	for n := uint64(1); behind < 3; n++ { // mostly the first ones are
		if n > 1000 {
			t.Fatal("it was never behind: this shows nothing")
		}
		id := strings.ToLower(ulid.Make().String())
		opened := &pb.Measurement{
			Id: id, State: pb.State_STATE_RUNNING, Spec: w.tcp(w.target).GetSpec(), CreateTime: timestamppb.Now(),
			Deadline: timestamppb.New(time.Now().Add(time.Minute)), Asks: []*pb.Ask{{Agent: "agent", State: pb.AskState_ASK_STATE_PENDING}},
		}
		if err := w.c.Commit(t.Context(), &pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: opened}}}); err != nil {
			t.Fatal(err)
		}
		unasked := w.c.Unasked(id, "agent")
		wasted, err := w.c.Keep(t.Context(), &pb.Hello{Agent: "agent", Epoch: 9}, spooled(n, agent.answer(id)))
		if err != nil || wasted != 0 {
			t.Fatalf("%d were wasted, %v", wasted, err)
		}
		if unasked {
			behind++
		}
		if m, results := w.end(id); m.GetLedger().GetAnswered() != 1 || len(results) != 1 {
			t.Fatalf("the %d. of them: %v, %v", n, m.GetLedger(), results)
		}
	}
	w.stop()
	if said.has("UNASKED_RESULT") {
		t.Error("the agent is accused of it")
	}
}

// folded stops the coordinator, looks at what its log amounts to, and starts it again. All of the log is folded
// when a coordinator serves.
func (w *world) folded(look func(*store.Store)) {
	w.t.Helper()
	w.stop()
	w.start()
	if _, err := w.api.ListMeasurements(w.t.Context(), &pb.ListMeasurementsRequest{}, grpc.WaitForReady(true)); err != nil {
		w.t.Fatal(err)
	}
	w.stop()
	s, err := store.Open(filepath.Join(w.dir, "fold.db"), 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	look(s)
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

// hash is the state's.
func (w *world) hash() (hash string) {
	w.t.Helper()
	w.folded(func(s *store.Store) {
		_, sum := s.Hash()
		hash = hex.EncodeToString(sum)
	})
	return hash
}

// TestMsgIDPoisoning is threat T4: what one agent has sent under some number is nothing to another one's numbers.
func TestMsgIDPoisoning(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	victim, poisoner := w.bare("victim"), w.bare("poisoner")
	request := w.tcp(w.target)
	request.From = "victim"
	ids := []string{w.create(request).GetId(), w.create(request).GetId()}
	theirs := spooled(1, victim.answer(ids[0]), victim.answer(ids[1]))
	stream := poisoner.open()
	poisoner.report(stream, theirs)
	poisoner.report(stream, &pb.ResultBatch{Gaps: []*pb.Gap{{First: 3, Last: 9, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}}})
	victim.report(victim.open(), theirs)
	for _, id := range ids {
		if m, _ := w.end(id); m.GetLedger().GetAnswered() != 1 {
			t.Errorf("%v: the result was not folded", m.GetLedger())
		}
	}
}

// TestReplay is threat T13: a batch that was recorded is sent again.
func TestReplay(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	a := w.bare("a")
	var ids []string
	for range 3 {
		ids = append(ids, w.create(w.tcp(w.target)).GetId())
	}
	recorded := spooled(1, a.answer(ids[0]), a.answer(ids[1]), a.answer(ids[2]))
	recorded.Gaps = []*pb.Gap{{First: 4, Last: 6, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}}
	a.report(a.open(), recorded)
	var results []*pb.Result
	for _, id := range ids {
		_, one := w.end(id)
		results = append(results, one...)
	}
	before := w.hash()
	a.hello.Session++
	a.report(a.open(), recorded)
	if w.hash() != before {
		t.Error("in another session it has changed the state")
	}
	a.hello.Epoch++ // one that was given to this agent; its numbers are new
	a.report(a.open(), recorded)
	after := w.hash()
	a.report(a.open(), recorded)
	if w.hash() != after {
		t.Error("a second time in that epoch, it has changed the state")
	}
	var again []*pb.Result
	for _, id := range ids {
		_, one := w.end(id)
		again = append(again, one...)
	}
	if diff := cmp.Diff(results, again, protocmp.Transform()); diff != "" {
		t.Errorf("results have changed (-before +after):\n%s", diff)
	}
	w.folded(func(s *store.Store) {
		want := &pb.Delivery{Epoch: a.hello.GetEpoch(), Highest: 6, Dropped: 3}
		if diff := cmp.Diff(want, s.Delivery("a"), protocmp.Transform()); diff != "" {
			t.Errorf("of the other epoch its numbers are known and nothing else (-want +got):\n%s", diff)
		}
	})
}

func TestEquivocation(t *testing.T) {
	said := &lines{}
	w := newWorld(t, coordinator.Options{Log: said.log()})
	a := w.bare("a")
	ids := []string{w.create(w.tcp(w.target)).GetId(), w.create(w.tcp(w.target)).GetId()}
	other := a.answer(ids[0])
	other.StartTime = timestamppb.New(time.Unix(2, 0))
	stream := a.open()
	a.report(stream, spooled(1, a.answer(ids[0])))
	m, first := w.end(ids[0])
	for _, c := range []struct {
		what string
		seq  uint64
		r    *pb.Result
	}{
		{"another result for the same job, under the same number", 1, other},
		{"another result for the same job, under another number", 2, other},
		{"a result for another job, under a number that is used", 1, a.answer(ids[1])},
	} {
		a.report(stream, spooled(c.seq, c.r))
		if _, now := w.end(m.GetId()); !cmp.Equal(first, now, protocmp.Transform()) {
			t.Errorf("%s: %v is now %v", c.what, first, now)
		}
	}
	w.folded(func(s *store.Store) {
		if d := s.Delivery("a"); d.GetHighest() != 2 || d.GetMissing() != 0 {
			t.Errorf("%v: want numbers 1 and 2", d)
		}
	})
	if !said.has("kind=AUDIT_KIND_EQUIVOCATION agent=a") {
		t.Error("it is not in the audit")
	}
	if got, err := w.api.GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: ids[1]}, grpc.WaitForReady(true)); err != nil || got.GetMeasurement().GetLedger().GetAnswered() != 0 {
		t.Errorf("%v, %v: the number was another result's", got, err)
	}
}

func TestScatteredNumbersAreRefused(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	a := w.bare("a")
	stream := a.open()
	scattered := func(from uint64) *pb.ResultBatch {
		batch := &pb.ResultBatch{}
		for i := range uint64(256) {
			batch.Gaps = append(batch.Gaps, &pb.Gap{First: from + 2*i, Last: from + 2*i, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL})
		}
		return batch
	}
	taken := func(batch *pb.ResultBatch) bool {
		if err := stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: batch}}); err != nil {
			t.Fatal(err)
		}
		in, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return in.GetAck() != nil
	}
	n := uint64(0)
	for ; n < 100 && taken(scattered(3+n*512)); n++ {
	}
	if n == 100 {
		t.Fatal("25,600 numbers with holes between them were taken")
	}
	if !taken(&pb.ResultBatch{Gaps: []*pb.Gap{{First: 1, Last: 100_000, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}}}) {
		t.Error("that they are gone was not taken")
	}
	for deadline := time.Now().Add(time.Minute); !taken(scattered(100_003)); { // as soon as that is folded
		if time.Now().After(deadline) {
			t.Fatal("they are not scattered any more, and refused")
		}
	}
}
