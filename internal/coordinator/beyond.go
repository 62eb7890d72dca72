package coordinator

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// beyondRules refuses what the rules in the proto cannot know: expressions that are none, and names that
// are in no registry. Every agent would refuse them.
func beyondRules(spec *pb.Spec) error {
	var fields []*errdetails.BadRequest_FieldViolation
	bad := func(field, description string) {
		if description != "" {
			fields = append(fields, &errdetails.BadRequest_FieldViolation{Field: field, Description: description})
		}
	}
	for i, expect := range spec.GetHttp().GetExpectHeader() {
		_, re, _ := strings.Cut(expect, ":")
		bad(fmt.Sprintf("spec.http.expect_header[%d]", i), notRE2(re))
	}
	bad("spec.http.expect_body", notRE2(spec.GetHttp().GetExpectBody()))
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

// notRE2 says why an expression is none, "" if it is one.
func notRE2(re string) string {
	_, err := regexp.Compile(re)
	var why *syntax.Error
	if errors.As(err, &why) {
		return "must be a regular expression (RE2): " + string(why.Code)
	}
	return ""
}
