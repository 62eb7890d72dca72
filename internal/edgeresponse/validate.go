// Package edgeresponse checks what an edge function returned, a Lambda@Edge function or a CloudFront
// Function, against the rules by which CloudFront validates it. A value that breaks one of them is
// answered by 502 and "The Lambda function result failed validation". Nothing is asked of anybody: the
// value and the event are enough, and the event's own request or response where a rule is about what
// the function changed.
package edgeresponse

import (
	"cmp"
	"fmt"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The events that a function can be run for.
const (
	ViewerRequest  = "viewer-request"
	OriginRequest  = "origin-request"
	OriginResponse = "origin-response"
	ViewerResponse = "viewer-response"
)

// The programs that run functions.
const (
	LambdaEdge          = "lambda-edge"
	CloudFrontFunctions = "cloudfront-functions"
)

// MaxSize is the size of the largest file that is read: several times the largest value that any rule
// allows.
const MaxSize = 8 << 20

// maxProblems bounds a report; a value of a hundred thousand bad headers is wrong in the same way.
const maxProblems = 200

// Events returns the events.
func Events() []string { return []string{ViewerRequest, OriginRequest, OriginResponse, ViewerResponse} }

// Runtimes returns the programs that run functions.
func Runtimes() []string { return []string{LambdaEdge, CloudFrontFunctions} }

// Question is what is to be checked.
type Question struct {
	// Value is what the function returned, as JSON; the file is at most MaxSize long.
	Value []byte
	// Event is one of Events. Required.
	Event string
	// Runtime is one of Runtimes. Default: what the value looks like.
	Runtime string
	// Original is the event that the function was given, or its request or response alone, as JSON.
	// Default: not known, and then what the function changed is not known either.
	Original []byte
}

// Validate says which rules the value breaks. Its error is about the question: an event or runtime that
// does not exist or fit together, an original that is no such thing.
func Validate(q Question) (*pb.EdgeReport, error) {
	v := &validator{event: q.Event, rules: rules(), report: &pb.EdgeReport{Event: q.Event}}
	if !slices.Contains(Events(), q.Event) {
		return nil, fmt.Errorf("%q is not an event; use one of %s", q.Event, listed(Events()))
	}
	if q.Runtime != "" && !slices.Contains(Runtimes(), q.Runtime) {
		return nil, fmt.Errorf("%q does not run functions; use one of %s", q.Runtime, listed(Runtimes()))
	}
	if q.Runtime == CloudFrontFunctions && !v.viewer() {
		return nil, fmt.Errorf("CloudFront Functions are run for %s and %s only", ViewerRequest, ViewerResponse)
	}
	if err := v.readOriginal(q.Original); err != nil {
		return nil, err
	}
	root, ok := v.parse(q.Value)
	v.runtime = cmp.Or(q.Runtime, v.guess(root))
	v.report.Runtime = v.runtime
	if ok {
		v.value(root)
	}
	v.finish()
	return v.report, nil
}

// validator is one check under way.
type validator struct {
	event    string
	runtime  string
	rules    map[string]rule
	original object // the request or response that the function was given; nil: not known
	report   *pb.EdgeReport
	more     int // problems beyond maxProblems
}

// viewer says whether the event is one between viewer and CloudFront.
func (v *validator) viewer() bool { return v.event == ViewerRequest || v.event == ViewerResponse }

// requestEvent says whether the event is one on the way to the origin.
func (v *validator) requestEvent() bool { return v.event == ViewerRequest || v.event == OriginRequest }

// functions says whether it is a CloudFront Function.
func (v *validator) functions() bool { return v.runtime == CloudFrontFunctions }

// breaks notes that a rule is broken at a place.
func (v *validator) breaks(name, at, format string, args ...any) {
	if len(v.report.GetProblems()) >= maxProblems {
		v.more++
		return
	}
	r := v.rules[name]
	p := &pb.EdgeProblem{
		Path: at, Rule: name, Severity: pb.Severity_SEVERITY_ERROR, Status: "502", Summary: fmt.Sprintf(format, args...),
		Source: &pb.Source{Document: r.document, Date: r.date, Unverified: r.unverified},
	}
	if r.unverified {
		p.Severity, p.Status = pb.Severity_SEVERITY_WARN, ""
	}
	v.report.Problems = append(v.report.Problems, p)
}

// finish puts the report in order.
func (v *validator) finish() {
	if v.more > 0 {
		v.report.Notes = append(v.report.Notes, fmt.Sprintf("%d more problems are not listed", v.more))
	}
	slices.SortStableFunc(v.report.GetProblems(), func(a, b *pb.EdgeProblem) int {
		return cmp.Or(cmp.Compare(b.GetSeverity(), a.GetSeverity()), cmp.Compare(a.GetPath(), b.GetPath()))
	})
}

// Broken says whether a report has a problem that makes the CDN answer an error.
func Broken(r *pb.EdgeReport) bool {
	return slices.ContainsFunc(r.GetProblems(), func(p *pb.EdgeProblem) bool {
		return p.GetSeverity() == pb.Severity_SEVERITY_ERROR
	})
}
