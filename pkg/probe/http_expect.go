package probe

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxProgram bounds a regular expression, in instructions: matching takes that many steps for each byte.
const maxProgram = 2000

// expect compares the last response with what the spec expects and says how it fails. A header field that
// is not as expected is http_body_mismatch: the page is not the one that was expected.
func (x *exchange) expect(spec *pb.HTTPSpec) (failures []pb.Failure) {
	r := x.response
	var unmet []string
	if s := unmetStatus(spec.GetExpectStatus(), r.GetStatus()); s != "" {
		unmet = append(unmet, s)
		failures = append(failures, pb.Failure_FAILURE_HTTP_STATUS)
	}
	for _, e := range spec.GetExpectHeader() {
		if s := unmetHeader(e, r.fields); s != "" {
			unmet = append(unmet, s)
			failures = append(failures, pb.Failure_FAILURE_HTTP_BODY_MISMATCH)
		}
	}
	if s := unmetBody(spec.GetExpectBody(), r); s != "" {
		unmet = append(unmet, s)
		failures = append(failures, pb.Failure_FAILURE_HTTP_BODY_MISMATCH)
	}
	x.see(func(*pb.Evidence) { r.Unmet = unmet })
	if len(unmet) > 0 {
		x.say(fmt.Errorf("%s", strings.Join(unmet, "; ")))
	}
	return failures
}

// unmetStatus says how a status is not as expected, by default below 400.
func unmetStatus(expected []string, status uint32) string {
	if len(expected) == 0 {
		if status >= 400 {
			return fmt.Sprintf("the status is %d, and below 400 was expected", status)
		}
		return ""
	}
	for _, e := range expected {
		if from, to, ok := statusRange(e); ok && from <= status && status <= to {
			return ""
		}
	}
	return fmt.Sprintf("the status is %d, and %s was expected", status, strings.Join(expected, " or "))
}

// statusRange reads "200", "2xx" or "200-299".
func statusRange(s string) (from, to uint32, ok bool) {
	if len(s) == 3 && strings.HasSuffix(s, "xx") {
		n, err := strconv.ParseUint(s[:1], 10, 8)
		return uint32(n) * 100, uint32(n)*100 + 99, err == nil
	}
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	return uint32(a), uint32(b), err1 == nil && err2 == nil && a <= b
}

// unmetHeader says how no field is as expected by "NAME: REGEXP".
func unmetHeader(expected string, fields []*pb.HeaderField) string {
	name, re, err := headerExpectation(expected)
	if err != nil {
		return err.Error() // It was checked at the door.
	}
	var seen []string
	for _, f := range fields {
		if strings.EqualFold(f.GetName(), name) {
			if re.MatchString(f.GetValue()) {
				return ""
			}
			seen = append(seen, strconv.Quote(clean(f.GetValue(), 100)))
		}
	}
	if len(seen) == 0 {
		return fmt.Sprintf("there is no header field %s, and one that matches %q was expected", name, re)
	}
	return fmt.Sprintf("the header field %s is %s, and %q was expected", name, strings.Join(seen[:min(len(seen), 3)], " and "), re)
}

// unmetBody says how the body is not as expected.
func unmetBody(expected string, r *response) string {
	re, err := pattern(expected)
	switch {
	case expected == "":
		return ""
	case err != nil:
		return err.Error() // It was checked at the door.
	case re.Match(r.content):
		return ""
	case r.GetBodyCut():
		return fmt.Sprintf("the first %d bytes of the body do not match %q; the rest was not read", len(r.content), expected)
	}
	return fmt.Sprintf("the body of %d bytes does not match %q", len(r.content), expected)
}

// headerExpectation reads "NAME: REGEXP".
func headerExpectation(s string) (string, *regexp.Regexp, error) {
	name, expr, ok := strings.Cut(s, ":")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return "", nil, fmt.Errorf("%q is not NAME: REGEXP", s)
	}
	re, err := pattern(strings.TrimSpace(expr))
	return name, re, err
}

// pattern compiles a regular expression (RE2) if it is small enough. A short one can say "a thousand
// times" again and again.
func pattern(expr string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression: %w", expr, err)
	}
	if cost(parsed) > maxProgram {
		return nil, fmt.Errorf("the regular expression %q is too large", expr)
	}
	return regexp.Compile(expr)
}

// cost estimates how many instructions an expression compiles to.
func cost(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += cost(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, maxProgram+1)
}

// checkExpectations says what is wrong with a spec's expectations.
func checkExpectations(spec *pb.HTTPSpec) error {
	for i, s := range spec.GetExpectStatus() {
		if _, _, ok := statusRange(s); !ok {
			return invalid(fmt.Sprintf("http.expect_status[%d]", i), fmt.Errorf("%q is neither a status nor a range of them", s))
		}
	}
	for i, s := range spec.GetExpectHeader() {
		if _, _, err := headerExpectation(s); err != nil {
			return invalid(fmt.Sprintf("http.expect_header[%d]", i), err)
		}
	}
	if _, err := pattern(spec.GetExpectBody()); err != nil {
		return invalid("http.expect_body", err)
	}
	return nil
}
