package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/edgeresponse"
)

// edgeResponse is the edge-response command.
func (s *settings) edgeResponse() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "edge-response",
		Short: "Check what an edge function returned",
		Args:  unknownCommand,
		RunE:  showHelp,
	}
	cmd.AddCommand(s.edgeValidate())
	return cmd
}

// edgeValidate is the edge-response validate command.
func (s *settings) edgeValidate() *cobra.Command {
	var q edgeresponse.Question
	var original string
	cmd := &cobra.Command{
		Use:   "validate FILE --event EVENT",
		Short: "Check what a Lambda@Edge or CloudFront function returned, offline",
		Long: `Check the value that a Lambda@Edge function or a CloudFront Function returned against the rules by
which CloudFront validates it. A value that breaks one makes viewers get 502 and "The Lambda function
result failed validation". Nothing is asked of anybody, no account is needed.

FILE is the value as JSON; - reads standard input. EVENT is what the function ran for: viewer-request,
origin-request, origin-response or viewer-response. Some rules are about what the function changed:
give the event that it was given with --original, or the rules are named that cannot be checked.

An ERROR is a rule of the documents; a WARN is a place where they do not say what happens.
--format json prints the EdgeReport; junit has a test case for each problem.

Exit code: 0 no rule is broken, 1 one is, 2 the request is wrong.`,
		Example: `  elsewhere edge-response validate returned.json --event viewer-request
  elsewhere edge-response validate returned.json --event origin-request --original event.json
  node invoke.js | elsewhere edge-response validate - --event viewer-response -J
  elsewhere edge-response validate returned.json --event viewer-request --runtime cloudfront-functions --format junit`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("which file? Give what the function returned, as JSON, or - for standard input")
			case len(args) > 1:
				return usagef("unexpected word %q; one file at a time", args[1])
			case q.Event == "":
				return usagef("what did the function run for? Give --event %s", either(edgeresponse.Events()))
			}
			return s.validateEdge(cmd, q, args[0], original)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Event, "event", "", "`EVENT` that the function ran for: "+either(edgeresponse.Events()))
	flags.StringVar(&q.Runtime, "runtime", "", "what ran it: "+either(edgeresponse.Runtimes())+" (default: what the value looks like)")
	flags.StringVar(&original, "original", "", "`FILE` with the event that the function was given")
	complete(cmd, "event", edgeresponse.Events()...)
	complete(cmd, "runtime", edgeresponse.Runtimes()...)
	return cmd
}

// either is words to choose from, for a usage line.
func either(words []string) string { return strings.Join(words, "|") }

// validateEdge reads the files, checks them and shows the report.
func (s *settings) validateEdge(cmd *cobra.Command, q edgeresponse.Question, file, original string) error {
	if err := emptyFlag(cmd); err != nil {
		return usage(err)
	}
	screen, err := s.screen()
	if err != nil {
		return err
	}
	value, err := s.input(cmd.Context(), file, edgeresponse.MaxSize)
	if err != nil {
		return err
	}
	q.Value = value.data
	if original != "" {
		event, err := s.input(cmd.Context(), original, edgeresponse.MaxSize)
		if err != nil {
			return err
		}
		q.Original = event.data
	}
	report, err := edgeresponse.Validate(q)
	if err != nil {
		return usage(err)
	}
	if err := written(screen.EdgeReport(value.name, report)); err != nil {
		return err
	}
	if edgeresponse.Broken(report) {
		return &Error{Code: ExitFail}
	}
	return nil
}
