package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The exit codes. Scripts depend on them.
const (
	ExitOK           = 0   // as expected
	ExitFail         = 1   // the target has a problem, or an expectation failed
	ExitUsage        = 2   // the request is wrong; nothing was run
	ExitInconclusive = 3   // too few vantage points, or controls failed
	ExitNetwork      = 4   // the network cannot be used
	ExitInterrupted  = 130 // interrupted; the measurement was cancelled
)

// Error is an error that decides the exit code.
type Error struct {
	// Code is the exit code.
	Code int
	// Err is what went wrong: one line that says what to do. Nil: everything is said already.
	Err error
}

// Error says what went wrong.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// usage makes an error of a wrong request of what is no *Error yet.
func usage(err error) error {
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return &Error{ExitUsage, err}
}

// usagef is usage with a format.
func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// code is the exit code of an error. What has none of its own is a wrong request: it comes from
// cobra, which finds wrong commands and flags.
func code(err error) int {
	var coded *Error
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.Code
	}
	return ExitUsage
}

// ExitCode is the exit code of a measurement by its verdict.
func ExitCode(m *pb.Measurement) int { return outcomeCode(m.GetVerdict().GetOutcome()) }

// outcomeCode is the exit code of an outcome.
func outcomeCode(o pb.Outcome) int {
	switch o {
	case pb.Outcome_OUTCOME_OK:
		return ExitOK
	case pb.Outcome_OUTCOME_FAIL:
		return ExitFail
	case pb.Outcome_OUTCOME_INCONCLUSIVE, pb.Outcome_OUTCOME_UNSPECIFIED:
	}
	return ExitInconclusive
}

// verdict turns the outcome of a measurement that was shown into what a command returns.
func verdict(m *pb.Measurement) error {
	if c := ExitCode(m); c != ExitOK {
		return &Error{Code: c}
	}
	return nil
}

// rpcError turns what the coordinator answered into one line and an exit code.
func rpcError(ctx context.Context, err error) error {
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return interrupted()
	}
	s := status.Convert(err)
	if s.Code() == codes.Unknown {
		s = status.FromContextError(err)
	}
	message := oneLine(s.Message())
	switch s.Code() { //nolint:exhaustive // the rest share the default
	case codes.InvalidArgument:
		return &Error{ExitUsage, errors.New(violation(s, message))}
	case codes.NotFound:
		return &Error{ExitUsage, errors.New(message)}
	case codes.Unauthenticated:
		return &Error{ExitNetwork, fmt.Errorf("the coordinator does not know you (%s); give a token by --token or ELSEWHERE_TOKEN", message)}
	case codes.PermissionDenied:
		return &Error{ExitNetwork, fmt.Errorf("the coordinator does not allow it (%s); use a token with the scope", message)}
	case codes.DeadlineExceeded:
		return &Error{ExitNetwork, errors.New("the coordinator did not answer in time: it is overloaded or gone, or the way to it is broken")}
	case codes.FailedPrecondition:
		return &Error{ExitNetwork, errors.New(message)}
	case codes.ResourceExhausted:
		return &Error{ExitNetwork, errors.New(message + again(s))}
	}
	return &Error{ExitNetwork, fmt.Errorf("the coordinator answered %s: %s", s.Code(), message)}
}

// again says when to try again, if the coordinator does.
func again(s *status.Status) string {
	for _, d := range s.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			// To the second that follows, so that it is not too early.
			return fmt.Sprintf("; try again in %v", (retry.GetRetryDelay().AsDuration() + time.Second - 1).Truncate(time.Second))
		}
	}
	return ""
}

// violation prefers the first bad field that the coordinator names.
func violation(s *status.Status, message string) string {
	for _, d := range s.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok || len(bad.GetFieldViolations()) == 0 {
			continue
		}
		v := bad.GetFieldViolations()[0]
		return oneLine(v.GetField() + ": " + v.GetDescription())
	}
	return message
}

// oneLine makes one harmless line of what came from elsewhere.
func oneLine(s string) string {
	return render.Clean(strings.Join(strings.Fields(s), " "))
}

// interrupted is the error of a command that a signal ended.
func interrupted() error {
	return &Error{ExitInterrupted, errors.New("interrupted")}
}
