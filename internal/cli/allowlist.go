package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/cli/allowlist"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/yamlfile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// atOnce is how many doors are measured at once.
	atOnce = 8
	// lookBack is how many measurements are searched for the last time that a door was measured.
	lookBack = 5000
)

// allowlist is the allowlist command, with those below it.
func (s *settings) allowlist() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "allowlist",
		Short: "Verify that doors are open for those who should come in, and shut for the others",
		Long: `Firewalls, allowlists and rules by country, seen from where it matters: verify asks agents whether
they get in; cover compares firewall rules with the ranges that a CDN publishes, since no agent can
send from those.`,
		Args: unknownCommand,
		RunE: showHelp,
	}
	cmd.AddCommand(s.verify(), s.cover(), s.schema())
	return cmd
}

// schema is the allowlist schema command.
func (s *settings) schema() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of allowlist files, for editors",
		Example: `  elsewhere allowlist schema > allowlist.schema.json`,
		Args:    noWords,
		RunE: func(*cobra.Command, []string) error {
			_, err := s.program.Out.Write(allowlist.Schema)
			return written(err)
		},
	}
}

// verify is the allowlist verify command.
func (s *settings) verify() *cobra.Command {
	var against string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Ask the agents that a file names whether they get in as it says",
		Long: `Ask the agents that a file names whether they get in as it says: every agent that a selector
matches, at every address of the target. FILE is YAML; - reads standard input:

  version: 1
  rules:
    - name: partners reach the API           # optional
      target: api.example.com:443            # every address of the name
      protocol: tcp                          # tcp (default), tls or http
      allow: [us-east, eu-west+AWS]          # selectors
      deny:                                  # a selector, or how it must be shut
        - ap-south
        - { from: sa-east, as: drop }        # any (default), refused or drop

Open is a connection (tcp), a handshake whatever the certificate (tls), a response other than 403 and
451 (http: the target is a URL, or HOST:PORT, which is asked by https at 443 and 8443). Shut is what
shows it: a RST, an ICMP error, silence beside a control that passed; for tls also a reset or silence
during the handshake, for http also 403 and 451. What an agent could not see is "?", never a pass.

Each row is a rule, an expectation and a region. --format junit is a test suite for each rule, json one
document {"measurements": [...]}, jsonl a line for each measurement, csv a row for each region.

Exit code: 0 all as expected, 1 something is not, 2 the file is wrong and nothing was run, 3 something
is not known, 4 a selector matches no agent or the network cannot be used, 130 interrupted and
cancelled.`,
		Example: `  elsewhere allowlist verify allow.yaml
  elsewhere allowlist verify allow.yaml --against last
  elsewhere allowlist verify allow.yaml --format junit > allowlist.xml`,
		Args:              oneFile,
		ValidArgsFunction: completeFile("yaml", "yml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.runVerify(cmd.Context(), args[0], against)
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "say what changed: `last` is the last time that each door was measured")
	complete(cmd, "against", "last")
	return cmd
}

// oneFile is the one line for what is not one word.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s needs one FILE; '%s --help' has an example", cmd.Name(), cmd.CommandPath())
	}
	return nil
}

// completeFile completes the name of a file, once.
func completeFile(extensions ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return extensions, cobra.ShellCompDirectiveFilterFileExt
	}
}

// runVerify reads everything before anything is dialled, and looks at the fleet before anything is run.
func (s *settings) runVerify(ctx context.Context, path, against string) error {
	if against != "" && against != "last" {
		return usagef("--against %q is not known; it is last", against)
	}
	for _, flag := range []string{"from", "limit"} {
		if s.root.PersistentFlags().Changed(flag) {
			return usagef("--%s has no place here: the file says from where, and all agents that match are asked", flag)
		}
	}
	screen, err := s.screen()
	if err != nil {
		return err
	}
	if against != "" && (screen.Format == render.JSON || screen.Format == render.JSONL) {
		return usagef("--against and --format %s exclude each other: measurements say nothing of one another", screen.Format)
	}
	file, err := s.input(ctx, path, allowlist.MaxSize)
	if err != nil {
		return err
	}
	rules, err := s.rules(file)
	if err != nil {
		return err
	}
	v := &verifier{settings: s, screen: screen, compare: against != ""}
	if err := v.ask(rules); err != nil {
		return err
	}
	conn, e, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	v.endpoint, v.client = e, pb.NewMeasurementServiceClient(conn)
	if err := v.plan(ctx, conn, file.name, rules); err != nil {
		return err
	}
	return v.run(ctx)
}

// rules reads the file. What is wrong with it stands on lines of its own, as compilers have them.
func (s *settings) rules(file input) ([]allowlist.Rule, error) {
	rules, err := allowlist.Parse(file.name, file.data)
	var problems *yamlfile.Problems
	if errors.As(err, &problems) {
		for _, line := range problems.Lines() {
			fmt.Fprintln(s.program.Err, render.Clean(line))
		}
		return nil, &Error{Code: ExitUsage}
	}
	return rules, usage(err)
}

// verifier verifies one allowlist.
type verifier struct {
	*settings

	screen   render.Screen
	endpoint Endpoint
	client   pb.MeasurementServiceClient
	compare  bool
	doors    []*door
	show     *render.Verification
}

// door is one expectation of one rule.
type door struct {
	*render.Check

	rule    allowlist.Rule
	expect  allowlist.Door
	request *pb.CreateMeasurementRequest
}

// ask makes the questions.
func (v *verifier) ask(rules []allowlist.Rule) error {
	options, err := v.options("world")
	if err != nil {
		return err
	}
	options.Limit = maxLimit
	for _, r := range rules {
		for _, d := range r.Doors {
			options.From = d.Question.From
			req, err := d.Question.Request(options)
			if err != nil {
				return usagef("rule %q: %w", r.Name, err)
			}
			v.doors = append(v.doors, &door{Check: &render.Check{Rule: r.Name, Expect: d.Expect}, rule: r, expect: d, request: req})
		}
	}
	return nil
}

// plan holds the file against the agents that there are, and finds out what was measured before.
func (v *verifier) plan(ctx context.Context, conn grpc.ClientConnInterface, path string, rules []allowlist.Rule) error {
	timeout, err := v.timeout()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fleet, err := pb.NewFleetServiceClient(conn).ListAgents(limited, &pb.ListAgentsRequest{})
	if err != nil {
		return v.endpoint.explain(ctx, err)
	}
	err = allowlist.Plan(path, rules, fleet.GetAgents())
	var nobody *allowlist.NobodyError
	if errors.As(err, &nobody) {
		return &Error{ExitNetwork, err}
	}
	if err != nil {
		return usage(err)
	}
	for _, d := range v.doors {
		for _, a := range fleet.GetAgents() {
			if d.expect.Means(a) {
				d.Agents++
				d.Regions = append(d.Regions, a.GetVantage().GetRegion())
			}
		}
	}
	if !v.compare {
		return nil
	}
	if err := v.before(limited); err != nil {
		return v.endpoint.explain(ctx, err)
	}
	return nil
}

// before finds for each door the last finished measurement that asked the same of the same places.
func (v *verifier) before(ctx context.Context) error {
	last := make([]string, len(v.doors))
	for list, err := range pages(ctx, v.client, lookBack) {
		if err != nil {
			return err
		}
		for i, d := range v.doors {
			at := slices.IndexFunc(list.GetMeasurements(), d.asked)
			if last[i] == "" && at >= 0 {
				last[i] = list.GetMeasurements()[at].GetId()
			}
		}
		if !slices.Contains(last, "") {
			break
		}
	}
	for i, d := range v.doors {
		if last[i] == "" {
			continue
		}
		m, err := fetch(ctx, v.client, last[i])
		if err != nil {
			return err
		}
		d.Since(m)
	}
	return nil
}

// asked says whether a finished measurement asked for the door.
func (d *door) asked(m *pb.Measurement) bool {
	return m.GetState() == pb.State_STATE_FINISHED && m.GetFrom() == d.request.GetFrom() && proto.Equal(m.GetSpec(), d.request.GetSpec())
}

// run measures all doors, some at once. An interrupt cancels them all, and what came is shown.
func (v *verifier) run(ctx context.Context) error {
	checks := make([]*render.Check, len(v.doors))
	for i, d := range v.doors {
		checks[i] = d.Check
	}
	v.show = v.screen.Verify(checks, v.compare)
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, d := range v.doors {
		group.Go(func() error { return v.measure(all, d) })
	}
	err := group.Wait()
	if bad := written(v.show.End()); bad != nil {
		return bad
	}
	switch {
	case ctx.Err() != nil:
		return &Error{ExitInterrupted, errors.New("interrupted; what was not finished was cancelled")}
	case err != nil:
		return err
	}
	if code := outcomeCode(v.show.Outcome()); code != ExitOK {
		return &Error{Code: code}
	}
	return nil
}

// measure measures one door.
func (v *verifier) measure(ctx context.Context, d *door) error {
	m, err := create(ctx, v.client, d.request)
	if err != nil {
		return v.endpoint.explain(ctx, err)
	}
	f := &follower{client: v.client, errs: v.screen.Err, report: counter{v.show}, m: m, owned: true}
	m, err = f.run(ctx)
	if closed(m) {
		v.show.Done(d.Check, m)
	}
	return err
}

// counter reports nothing of a measurement but how many agents answered.
type counter struct{ show *render.Verification }

func (counter) Begin(*pb.Measurement)     {}
func (counter) End(*pb.Measurement) error { return nil }
func (counter) Abort()                    {}

// Waiting says so once for all measurements.
func (c counter) Waiting() { c.show.Waiting() }

// Update counts.
func (c counter) Update(_ *pb.Measurement, fresh []*pb.Result) { c.show.Answered(len(fresh)) }
