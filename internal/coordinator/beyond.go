package coordinator

import (
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// beyondRules refuses what the rules in the proto cannot know: what a probe could do nothing with, and
// names that are in no registry. Every agent would refuse them.
func beyondRules(spec *pb.Spec) error {
	var fields []*errdetails.BadRequest_FieldViolation
	bad := func(field, description string) {
		if description != "" {
			fields = append(fields, &errdetails.BadRequest_FieldViolation{Field: field, Description: description})
		}
	}
	if err := probe.Validate(spec); err != nil {
		field, why := "spec", err
		if at := (*probe.SpecError)(nil); errors.As(err, &at) {
			field, why = "spec."+at.Field, at.Err
		}
		bad(field, why.Error())
	}
	offer := spec.GetTls().GetOffer()
	for _, names := range []struct {
		field string
		all   []string
		known func(string) (uint16, bool)
	}{
		{"cipher_suites", offer.GetCipherSuites(), flight.Suite},
		{"groups", offer.GetGroups(), flight.Group},
		{"signature_schemes", offer.GetSignatureSchemes(), flight.Scheme},
	} {
		for i, name := range names.all {
			if _, ok := names.known(name); !ok {
				bad(fmt.Sprintf("spec.tls.offer.%s[%d]", names.field, i), "must be a name of IANA's TLS registries, or a number such as 0xC028")
			}
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return badFields(fields)
}

// wholeDurations checks what the rules let pass: one second and 2³⁰ nanoseconds compare like any duration, and
// no JSON can be made of a measurement that holds them.
func wholeDurations(p *pb.Policy) error {
	bad := func(field string) error {
		return badFields([]*errdetails.BadRequest_FieldViolation{{Field: "policy." + field, Description: "must be a valid google.protobuf.Duration"}})
	}
	switch {
	case p.GetLatencyFloor() != nil && !p.GetLatencyFloor().IsValid():
		return bad("latency_floor")
	case p.GetExpiryWarning() != nil && !p.GetExpiryWarning().IsValid():
		return bad("expiry_warning")
	}
	return nil
}
