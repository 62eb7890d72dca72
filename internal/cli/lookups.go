package cli

import (
	"context"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// page is how many measurements are listed by one call.
const page = 200

// agents is the agents command.
func (s *settings) agents() *cobra.Command {
	var addresses string
	cmd := &cobra.Command{
		Use:   "agents [from WHERE] [--addresses]",
		Short: "List the agents",
		Long: `List the agents, those that are offline too: where they stand, their state, when they were last
heard of, and how many jobs they run of how many they can. -4 and -6 list those with a route to that
family. -v tells too when each was enrolled, when its certificate ends, how many of its results are missing
and how many it had to drop. --format json prints {"agents": [...]}.

--addresses lists what a firewall sees the agents at instead: the public addresses that they declare
or send from, and the one that the coordinator sees. -4 and -6 list those of one family;
--addresses=plain prints CIDR blocks alone, one on a line, sorted, for a firewall to read.`,
		Example: `  elsewhere agents
  elsewhere agents from Germany+AWS
  elsewhere agents --addresses
  elsewhere agents from Germany -4 --addresses=plain
  elsewhere agents -J
  elsewhere agents revoke fra-1`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := question.Where(args)
			if err != nil {
				return usage(err)
			}
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			if addresses != "" && addresses != tableOf && addresses != plainOf {
				return usagef("--addresses=%s is not known; it is %s or %s", addresses, tableOf, plainOf)
			}
			return s.listAgents(cmd.Context(), screen, where, addresses)
		},
	}
	cmd.Flags().StringVar(&addresses, "addresses", "", "list the addresses that firewalls see; =`plain` lists CIDR blocks alone")
	cmd.Flags().Lookup("addresses").NoOptDefVal = tableOf
	complete(cmd, "addresses", tableOf, plainOf)
	cmd.AddCommand(s.agentsRevoke())
	return cmd
}

// How --addresses lists them.
const (
	tableOf = "table"
	plainOf = "plain"
)

// listAgents asks for the agents and shows those that the flags ask for, or their addresses.
func (s *settings) listAgents(ctx context.Context, screen render.Screen, where, addresses string) error {
	where, err := s.from(where)
	if err != nil {
		return err
	}
	if where == "world" {
		where = "" // those that are offline too
	}
	family, err := s.family()
	if err != nil {
		return err
	}
	limit, limited, err := s.limit()
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		resp, err := pb.NewFleetServiceClient(conn).ListAgents(ctx, &pb.ListAgentsRequest{From: where})
		if err != nil {
			return err
		}
		resp.Agents = slices.DeleteFunc(resp.GetAgents(), func(a *pb.Agent) bool { return !hasFamily(a.GetVantage(), family) })
		if limited && len(resp.GetAgents()) > int(limit) {
			resp.Agents = resp.GetAgents()[:limit]
		}
		if addresses != "" {
			return written(screen.Addresses(resp, family, addresses == plainOf))
		}
		return written(screen.Agents(resp, time.Now()))
	})
}

// hasFamily says whether an agent has a route to a family.
func hasFamily(v *pb.Vantage, f pb.Family) bool {
	return f == pb.Family_FAMILY_UNSPECIFIED || f == pb.Family_FAMILY_IPV4 && v.GetIpv4() || f == pb.Family_FAMILY_IPV6 && v.GetIpv6()
}

// measurements is the measurements command.
func (s *settings) measurements() *cobra.Command {
	return &cobra.Command{
		Use:   "measurements",
		Short: "List the last measurements, the newest first",
		Long: `List the last measurements, the newest first: --limit says how many (default 20). --format json
prints {"measurements": [...]}.`,
		Example: `  elsewhere measurements
  elsewhere measurements -L 100 --format csv`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			limit, _, err := s.limit()
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				resp, err := listMeasurements(ctx, pb.NewMeasurementServiceClient(conn), limit)
				if err != nil {
					return err
				}
				return written(screen.Measurements(resp))
			})
		},
	}
}

// listMeasurements reads pages until there are as many as asked for.
func listMeasurements(ctx context.Context, client pb.MeasurementServiceClient, limit int32) (*pb.ListMeasurementsResponse, error) {
	out := &pb.ListMeasurementsResponse{}
	for resp, err := range pages(ctx, client, limit) {
		if err != nil {
			return nil, err
		}
		out.Measurements = append(out.Measurements, resp.GetMeasurements()...)
		out.NextPageToken = resp.GetNextPageToken()
	}
	return out, nil
}

// pages are the last measurements, the newest first, a page at a time. The first error is the last page.
func pages(ctx context.Context, client pb.MeasurementServiceClient, limit int32) iter.Seq2[*pb.ListMeasurementsResponse, error] {
	return func(yield func(*pb.ListMeasurementsResponse, error) bool) {
		token := ""
		for left := limit; left > 0; {
			resp, err := client.ListMeasurements(ctx, &pb.ListMeasurementsRequest{PageSize: min(left, page), PageToken: token})
			if !yield(resp, err) || err != nil || resp.GetNextPageToken() == "" || len(resp.GetMeasurements()) == 0 {
				return
			}
			token = resp.GetNextPageToken()
			left -= int32(len(resp.GetMeasurements()))
		}
	}
}

// show is the show command.
func (s *settings) show() *cobra.Command {
	rejudge := false
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a measurement again",
		Long: `Show a measurement with its results as they stand; ID may be 'last'. The exit code is the
measurement's: 0, 1 or 3.

Results are facts and are kept as they came; a verdict is an opinion of them. --rejudge makes it anew with
this program's judge, says on stderr what that changes, and exits by the new one. Nothing is written.`,
		Example: `  elsewhere show last
  elsewhere show last --rejudge
  elsewhere show 01k5w8zv3c4x7e9m2n6p8q0r1s -J`,
		ValidArgsFunction: s.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, screen, err := s.idAndScreen(args)
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				m, err := fetch(ctx, pb.NewMeasurementServiceClient(conn), id)
				if err != nil {
					return err
				}
				if !rejudge {
					return showWhole(m, screen)
				}
				was := m.GetVerdict()
				m.Verdict = aggregate.Judge(m, m.GetResults())
				err = showWhole(m, screen)
				screen.Changes(was, m.GetVerdict())
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&rejudge, "rejudge", false, "judge the results again, with this program's judge")
	return cmd
}

// fetch reads a measurement with its results.
func fetch(ctx context.Context, client pb.MeasurementServiceClient, id string) (*pb.Measurement, error) {
	resp, err := client.GetMeasurement(ctx, &pb.GetMeasurementRequest{Id: id})
	if err != nil {
		return nil, err
	}
	results, err := listResults(ctx, client, id)
	if err != nil {
		return nil, err
	}
	m := resp.GetMeasurement()
	m.Results = byAgent(results)
	return m, nil
}

// showWhole shows a measurement that is at hand.
func showWhole(m *pb.Measurement, screen render.Screen) error {
	report := screen.Reporter(true)
	report.Begin(m)
	report.Update(m, m.GetResults())
	if err := written(report.End(m)); err != nil {
		return err
	}
	return verdict(m)
}

// watch is the watch command.
func (s *settings) watch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a measurement to its end",
		Long: `Follow a measurement that somebody asked to its end; ID may be 'last'. Ctrl-C stops watching and
does not cancel it. The exit code is the measurement's.`,
		Example:           `  elsewhere watch 01k5w8zv3c4x7e9m2n6p8q0r1s`,
		ValidArgsFunction: s.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, screen, err := s.idAndScreen(args)
			if err != nil {
				return err
			}
			conn, e, err := s.dial()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			client := pb.NewMeasurementServiceClient(conn)
			resp, err := client.GetMeasurement(cmd.Context(), &pb.GetMeasurementRequest{Id: id})
			if err != nil {
				return e.explain(cmd.Context(), err)
			}
			m := resp.GetMeasurement()
			f := &follower{client: client, errs: screen.Err, report: screen.Reporter(closed(m)), m: m}
			if m, err = f.run(cmd.Context()); err != nil {
				return err
			}
			return verdict(m)
		},
	}
}

// anID is the form of a measurement's id.
var anID = regexp.MustCompile(`^[0-9a-z]{26}$`)

// idAndScreen reads the ID of show and watch, and the format.
func (s *settings) idAndScreen(args []string) (string, render.Screen, error) {
	screen, err := s.screen()
	if err != nil {
		return "", screen, err
	}
	switch {
	case len(args) == 0:
		return "", screen, usagef("which measurement? Give its id, or 'last'; 'elsewhere measurements' lists them")
	case len(args) > 1:
		return "", screen, usagef("unexpected word %q; one measurement at a time", args[1])
	case args[0] == "last":
		id, err := s.last()
		return id, screen, err
	}
	id := strings.ToLower(args[0])
	if !anID.MatchString(id) {
		return "", screen, usagef("%q is not a measurement's id: those have 26 letters and digits; 'elsewhere measurements' lists them", args[0])
	}
	return id, screen, nil
}

// listScreen is the screen of a list, which is no test.
func (s *settings) listScreen() (render.Screen, error) {
	screen, err := s.screen()
	if err == nil && screen.Format == render.JUnit {
		err = usagef("junit is a format for measurements; use table, json, jsonl or csv")
	}
	return screen, err
}

// noWords refuses words where there are none.
func noWords(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected word %q; '%s --help' says what it takes", args[0], cmd.CommandPath())
	}
	return nil
}
