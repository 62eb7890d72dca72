package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// cluster is the cluster command.
func (s *settings) cluster() *cobra.Command {
	return &cobra.Command{
		Use:   "cluster",
		Short: "Show the coordinators: which live, how far each is, and whether they agree",
		Long: `Show the coordinators that are one service, as the one that is asked sees them: of those that are named one that is
ready, or if none is any that can be reached.

POSITION is where in the log they are compared, HASH what the log up to there amounts to in each: it must be the same
in all. One that has not folded so far is shown where it is. LAG is how many messages a coordinator knows of and has
not folded yet. LEADS is what it leads now: the log, the tokens, the agents' claims, or the group of coordinators
itself (meta). NOTE says why one should get no traffic, if so.

The exit code is 1 if one of them is missing, not ready, or has another state.`,
		Example: `  elsewhere cluster
  elsewhere --coordinator 10.0.0.1:7700,10.0.0.2:7700,10.0.0.3:7700 cluster
  elsewhere cluster -J`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			e, err := s.endpoint()
			if err != nil {
				return err
			}
			var list *pb.ListCoordinatorsResponse
			ask := func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
				list, err = pb.NewCoordinatorServiceClient(conn).ListCoordinators(ctx, &pb.ListCoordinatorsRequest{})
				return err
			}
			err = s.callAt(cmd.Context(), e, ask)
			if coded := (*Error)(nil); errors.As(err, &coded) && coded.Code == ExitNetwork && len(e.addresses()) > 1 {
				e.Unready = true // who is not ready knows best why
				err = s.callAt(cmd.Context(), e, ask)
			}
			if err != nil {
				return err
			}
			if err := screen.Coordinators(list); err != nil {
				return written(err)
			}
			return well(list.GetCoordinators())
		},
	}
}

// well is an error if a coordinator is missing, or not as it should be.
func well(all []*pb.Coordinator) error {
	type place struct {
		format   string
		position uint64
	}
	states := map[place]string{}
	for _, c := range all {
		st := c.GetState()
		if c.GetLiveness() != pb.Liveness_LIVENESS_ALIVE || st == nil || st.GetUnready() != "" || st.GetDiffersFrom() != "" {
			return &Error{Code: ExitFail}
		}
		at := place{st.GetFoldFormat(), st.GetPosition()}
		if other, known := states[at]; known && other != string(st.GetStateHash()) {
			return &Error{Code: ExitFail}
		}
		states[at] = string(st.GetStateHash())
	}
	return nil
}
