package coordinator

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/store"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxAge is how far the time of an id that a client chose may be from this clock: measurements are listed by it.
const maxAge = 24 * time.Hour

// newID is a new ULID in lower case.
func newID() string {
	return strings.ToLower(ulid.MustNew(ulid.Now(), rand.Reader).String())
}

// isID tells whether a text is the id of a measurement.
func isID(s string) bool {
	_, err := ulid.ParseStrict(strings.ToUpper(s))
	return err == nil && len(s) == ulid.EncodedSize
}

// idFor is the id of the measurement that a request is to open, or the measurement that it did open: of two requests with
// one id the first in the log counts, and the other one is who asks again because he had no answer.
func (s measurementService) idFor(r *pb.CreateMeasurementRequest) (string, *pb.Measurement, error) {
	id := r.GetId()
	if id == "" {
		return newID(), nil, nil
	}
	view, err := s.store.Get(id)
	switch {
	case err == nil:
		return id, view.Measurement, sameQuestion(view.Measurement, r)
	case !errors.Is(err, store.ErrNotFound):
		return "", nil, apiError(err, id)
	}
	at, err := ulid.ParseStrict(strings.ToUpper(id))
	if err != nil {
		return "", nil, badID(err.Error())
	}
	if off := time.Since(at.Timestamp()); off.Abs() > maxAge {
		return "", nil, badID(fmt.Sprintf("its time, %s, is further than %v from the coordinator's clock, %s; set your clock",
			at.Timestamp().UTC().Format(time.RFC3339), maxAge, time.Now().UTC().Format(time.RFC3339)))
	}
	return id, nil, nil
}

func badID(description string) error {
	return badFields([]*errdetails.BadRequest_FieldViolation{{Field: "id", Description: description}})
}

// sameQuestion says so if what a request asks is not what a measurement does.
func sameQuestion(m *pb.Measurement, r *pb.CreateMeasurementRequest) error {
	if proto.Equal(m.GetSpec(), r.GetSpec()) && m.GetFrom() == fromOf(r) && proto.Equal(m.GetPolicy(), aggregate.Complete(r.GetPolicy())) &&
		m.GetDeadline().AsTime().Sub(m.GetCreateTime().AsTime()) == timeoutOf(r) {
		return nil
	}
	return status.Errorf(codes.AlreadyExists, "there is a measurement %s already, and it asks something else; choose another id", m.GetId())
}

// fromOf and timeoutOf are what a request says, or the default.
func fromOf(r *pb.CreateMeasurementRequest) string { return cmp.Or(r.GetFrom(), "world") }

func timeoutOf(r *pb.CreateMeasurementRequest) time.Duration {
	if r.GetTimeout() == nil {
		return defaultTimeout
	}
	return r.GetTimeout().AsDuration()
}

// first begins a measurement that is in the log. Where another request opened it before, under the same id, it is that one's.
func (s measurementService) first(m *pb.Measurement, r *pb.CreateMeasurementRequest) (*pb.Measurement, error) {
	view, err := s.store.Get(m.GetId())
	if err != nil {
		return nil, apiError(err, m.GetId())
	}
	first := view.Measurement
	switch {
	case proto.Equal(first.GetCreateTime(), m.GetCreateTime()):
		s.askAll(first)
		return first, nil
	case first.GetState() == pb.State_STATE_RUNNING:
		s.closer.at(first.GetId(), first.GetDeadline().AsTime().Add(s.afterOthers(first.GetId())))
	default:
		s.closer.forget(first.GetId())
	}
	return first, sameQuestion(first, r)
}
