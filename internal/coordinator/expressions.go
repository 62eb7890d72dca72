package coordinator

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// checkExpressions refuses what the rules in the proto cannot: regular expressions that are none, which
// no agent could expect anything by.
func checkExpressions(spec *pb.HTTPSpec) error {
	var fields []*errdetails.BadRequest_FieldViolation
	bad := func(field, description string) {
		if description != "" {
			fields = append(fields, &errdetails.BadRequest_FieldViolation{Field: "spec.http." + field, Description: description})
		}
	}
	for i, expect := range spec.GetExpectHeader() {
		_, re, _ := strings.Cut(expect, ":")
		bad(fmt.Sprintf("expect_header[%d]", i), notRE2(re))
	}
	bad("expect_body", notRE2(spec.GetExpectBody()))
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
