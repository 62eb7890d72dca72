package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestNoAgentWritesWithoutEnd: an agent that is enrolled asks for certificates and sessions on and on, and one that comes
// with a token for its enrolment. Each is an entry of the log or a write of a bucket: it is told to wait, and when, and
// another agent is not.
func TestNoAgentWritesWithoutEnd(t *testing.T) {
	s := newSecured(t)
	token := s.join("a", "eu")
	keep, other := s.enrol(t.TempDir(), token), s.enrol(t.TempDir(), s.join("b", "eu"))
	first, honest := pb.NewRegistrationServiceClient(s.as(keep)), pb.NewRegistrationServiceClient(s.as(other))
	request := newRequest(t)
	for what, c := range map[string]struct {
		most int
		call func(client pb.RegistrationServiceClient, id string) error
	}{
		"certificates": {20, func(client pb.RegistrationServiceClient, _ string) error {
			_, err := client.Renew(t.Context(), &pb.RenewRequest{CertificateRequest: request})
			return err
		}},
		"sessions": {200, func(client pb.RegistrationServiceClient, id string) error {
			_, err := client.Register(t.Context(), &pb.RegisterRequest{Id: id, Vantage: &pb.Vantage{Region: "eu"}, Instance: fmt.Sprint(time.Now())})
			return err
		}},
		"enrolments": {20, func(pb.RegistrationServiceClient, string) error {
			_, err := s.ask(token, "a", request)
			return err
		}},
	} {
		let, err := 0, error(nil)
		for began := time.Now(); time.Since(began) < time.Minute; let++ {
			if err = c.call(first, "a"); status.Code(err) == codes.ResourceExhausted {
				break
			}
		}
		if status.Code(err) != codes.ResourceExhausted || let < c.most-1 {
			t.Errorf("%s: %d were let, then %v", what, let, err)
		}
		if in := retryDelay(err); in <= 0 || in > 2*time.Minute {
			t.Errorf("%s: told to wait %v", what, in)
		}
		if err := c.call(honest, "b"); what != "enrolments" && err != nil {
			t.Errorf("%s, another agent: %v", what, err)
		}
	}
	s.audited(pb.AuditKind_AUDIT_KIND_FLOOD, "a")
}
