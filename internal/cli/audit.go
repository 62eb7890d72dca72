package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxEvents bounds the events that are listed.
const maxEvents = 100_000

// audit is the audit command.
func (s *settings) audit() *cobra.Command {
	var agent string
	var kinds []string
	var n int32
	cmd := &cobra.Command{
		Use:   "audit [--agent NAME] [--kind KIND]... [-n NUMBER]",
		Short: "List what happened at the door: who came in, who was refused, what was odd",
		Long: `List what happened about trust, the newest first: tokens and agents that came and went, what was
refused, and what no honest agent does. The same again within a minute is one event with a count. --format
json prints {"events": [...]}. It needs a token with the scope admin.

Kinds: ` + strings.Join(render.AuditKinds(), ", ") + `.`,
		Example: `  elsewhere audit
  elsewhere audit --agent fra-1 -n 200
  elsewhere audit --kind token_refused --kind spoofing_refused --format csv`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := &pb.ListAuditEventsRequest{Agent: agent}
			if agent != "" && !identity.IsName(agent) {
				return usagef("--agent %q: must be 1 to 63 of a-z, 0-9 and -", agent)
			}
			if n < 1 || n > maxEvents {
				return usagef("-n is %d; it is a number from 1 to %d", n, maxEvents)
			}
			for _, k := range kinds {
				word := strings.ToLower(strings.ReplaceAll(k, "-", "_"))
				if !slices.Contains(render.AuditKinds(), word) {
					return usagef("--kind is %q; it is one of %s", k, strings.Join(render.AuditKinds(), ", "))
				}
				request.Kinds = append(request.Kinds, pb.AuditKind(pb.AuditKind_value["AUDIT_KIND_"+strings.ToUpper(word)]))
			}
			return s.listAudit(cmd.Context(), request, n)
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "only what is about the agent of this `NAME`")
	cmd.Flags().StringArrayVar(&kinds, "kind", nil, "only this `KIND`; may be repeated")
	cmd.Flags().Int32VarP(&n, "number", "n", 50, "show `N` at most")
	complete(cmd, "agent")
	complete(cmd, "number")
	complete(cmd, "kind", render.AuditKinds()...)
	return cmd
}

// listAudit reads pages until there are as many events as asked for.
func (s *settings) listAudit(ctx context.Context, request *pb.ListAuditEventsRequest, n int32) error {
	screen, err := s.listScreen()
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		client, all := pb.NewAccessServiceClient(conn), &pb.ListAuditEventsResponse{}
		for left := n; left > 0; left = n - int32(len(all.GetEvents())) {
			request.PageSize, request.PageToken = min(left, page), all.GetNextPageToken()
			resp, err := client.ListAuditEvents(ctx, request)
			if err != nil {
				return err
			}
			all.Events = append(all.Events, resp.GetEvents()...)
			all.NextPageToken = resp.GetNextPageToken()
			if all.GetNextPageToken() == "" {
				break
			}
		}
		return written(screen.AuditEvents(all))
	})
}

// agentsRevoke is the revoke command of agents.
func (s *settings) agentsRevoke() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke NAME [--reason WORDS]",
		Short: "Shut an agent out",
		Long: `Shut an agent out: its connections end within 5 s, what runs there counts as lost, and no key that it
ever had lets it in again. Only a new token for that name does, which makes a new key. It needs a token with
the scope admin.`,
		Example: `  elsewhere agents revoke fra-1 --reason 'the machine was sold'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := oneWord(cmd, args, "agent")
			if err != nil {
				return err
			}
			if !identity.IsName(id) {
				return usagef("%q is not an agent's name: 1 to 63 of a-z, 0-9 and -", id)
			}
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				resp, err := pb.NewFleetServiceClient(conn).RevokeAgent(ctx, &pb.RevokeAgentRequest{Id: id, Reason: reason})
				if err != nil {
					return err
				}
				return written(screen.RevokedAgent(resp, time.Now()))
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in your `WORDS`, for who reads the audit later")
	complete(cmd, "reason")
	return cmd
}
