package coordinator_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestARequestMadeAgain makes a request whose id is given once more, changed or not.
func TestARequestMadeAgain(t *testing.T) {
	w := newWorld(t, coordinator.Options{})
	w.agent("a", "r", true)
	for _, c := range []struct {
		what  string
		slow  time.Duration // the client's clock
		ended bool
		again func(*pb.CreateMeasurementRequest) // how it differs
		want  codes.Code
		words string
	}{
		{what: "the same is the same measurement"},
		{what: "the same is the same measurement when that has ended", ended: true},
		{what: "what is said is the default", again: func(r *pb.CreateMeasurementRequest) {
			r.From, r.Timeout = "world", durationpb.New(30*time.Second)
		}},
		{what: "another target", again: func(r *pb.CreateMeasurementRequest) { r.Spec.GetTcp().Port++ }, want: codes.AlreadyExists, words: "choose another id"},
		{what: "from elsewhere", again: func(r *pb.CreateMeasurementRequest) { r.From = "a" }, want: codes.AlreadyExists, words: "choose another id"},
		{what: "with another time", again: func(r *pb.CreateMeasurementRequest) { r.Timeout = durationpb.New(time.Minute) }, want: codes.AlreadyExists, words: "choose another id"},
		{what: "judged otherwise", again: func(r *pb.CreateMeasurementRequest) {
			r.Policy = &pb.Policy{LatencyFloor: durationpb.New(time.Second)}
		}, want: codes.AlreadyExists, words: "choose another id"},
		{what: "an id of a client whose clock is slow", slow: 23 * time.Hour},
		{what: "an id of a client whose clock is years behind", again: func(r *pb.CreateMeasurementRequest) { r.Id = idAt(t, time.Unix(0, 0)) }, want: codes.InvalidArgument, words: "set your clock"},
		{what: "an id that would stay the newest of all", again: func(r *pb.CreateMeasurementRequest) { r.Id = "7" + strings.Repeat("z", 25) }, want: codes.InvalidArgument, words: "set your clock"},
		{what: "an id in capitals", again: func(r *pb.CreateMeasurementRequest) { r.Id = strings.ToUpper(r.GetId()) }, want: codes.InvalidArgument, words: "id"},
		{what: "an id that is none", again: func(r *pb.CreateMeasurementRequest) { r.Id = "1" }, want: codes.InvalidArgument, words: "id"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := w.tcp(w.target)
			r.Id = idAt(t, time.Now().Add(-c.slow))
			first := w.create(proto.CloneOf(r))
			if first.GetId() != r.GetId() {
				t.Fatalf("it has the id %s, and not %s", first.GetId(), r.GetId())
			}
			if c.ended {
				w.end(first.GetId())
			}
			if c.again != nil {
				c.again(r)
			}
			got, err := w.api.CreateMeasurement(t.Context(), r)
			if status.Code(err) != c.want || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Fatalf("%v; want %v and %q", err, c.want, c.words)
			}
			if m := got.GetMeasurement(); err == nil && !proto.Equal(m.GetCreateTime(), first.GetCreateTime()) {
				t.Errorf("another one was opened: %v and %v", first, m)
			}
			if m, _ := w.end(first.GetId()); m.GetLedger().GetAnswered() != 1 {
				t.Errorf("%v: want one answer", m.GetLedger())
			}
		})
	}
}

// TestARequestMadeAgainCostsNothing makes one more often than the target's budget lets anybody measure.
func TestARequestMadeAgainCostsNothing(t *testing.T) {
	w := newWorld(t, coordinator.Options{TargetBudget: access.TargetBudget{Burst: 2, PerSecond: 0.01}})
	w.agent("a", "r", true)
	r := w.tcp(w.target)
	r.Id = idAt(t, time.Now())
	for range 20 {
		w.create(proto.CloneOf(r))
	}
	r.Id = "" // the second of two
	w.create(proto.CloneOf(r))
	if _, err := w.api.CreateMeasurement(t.Context(), r); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the third of two: %v", err)
	}
}

// idAt is an id that a client makes.
func idAt(t *testing.T, at time.Time) string {
	t.Helper()
	id, err := ulid.New(ulid.Timestamp(at), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ToLower(id.String())
}
