package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// minPin is how much of a pin names an authority.
const minPin = 6

// authority is the authority command.
func (s *settings) authority() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "authority",
		Short: "Replace the certificate authority, step by step, without leaving anybody out",
		Long: `Replace the certificate authority by which agents and clients know this network. It is good for ten
years; it is replaced when its key may be in somebody else's hands, or when that is the rule where you are.

  1. elsewhere authority add            a new one; agents trust both within seconds
  2. elsewhere authority list --pem     what clients give as --ca from now on: hand it out
  3. elsewhere authority use PIN        it signs; agents renew by themselves as they connect
  4. elsewhere authority drop PIN       the old one, when no agent depends on it any more

Join tokens name the authority that signs when they are made: those that were not used before step 3 are of
no use after it.`,
		Example: `  elsewhere authority list
  elsewhere authority add
  elsewhere authority list --pem > ca.pem
  elsewhere authority use 5f3a9c
  elsewhere authority drop 81d0e2`,
		Args: unknownCommand,
		RunE: showHelp,
	}
	cmd.AddCommand(s.authorityList(), s.authorityAdd(), s.authorityUse(), s.authorityDrop())
	return cmd
}

func (s *settings) authorityList() *cobra.Command {
	var pem bool
	cmd := &cobra.Command{
		Use:   "list [--pem]",
		Short: "List the authorities, the one that signs first",
		Long: `List the authorities, the one that signs first. --pem prints their certificates instead, as clients take
them by --ca.`,
		Example: "  elsewhere authority list\n  elsewhere authority list --pem > ca.pem",
		Args:    noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			return s.authorities(cmd.Context(), func(_ context.Context, _ pb.CoordinatorServiceClient, list *pb.ListAuthoritiesResponse) error {
				if !pem {
					return written(screen.Authorities(list))
				}
				for _, a := range list.GetAuthorities() {
					if _, err := io.WriteString(screen.Out, a.GetCertificate()); err != nil {
						return written(err)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&pem, "pem", false, "print the certificates, for --ca")
	return cmd
}

// authorities calls do with the list of authorities.
func (s *settings) authorities(ctx context.Context, do func(context.Context, pb.CoordinatorServiceClient, *pb.ListAuthoritiesResponse) error) error {
	return s.call(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		client := pb.NewCoordinatorServiceClient(conn)
		list, err := client.ListAuthorities(ctx, &pb.ListAuthoritiesRequest{})
		if err != nil {
			return err
		}
		return do(ctx, client, list)
	})
}

func (s *settings) authorityAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add",
		Short: "Make a new authority, which agents trust and which signs nothing yet",
		Long: `Make a new authority. All agents connect again within seconds and trust it too; it signs nothing yet. Its
pin is printed on stdout, alone.`,
		Example: "  elsewhere authority add",
		Args:    noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				resp, err := pb.NewCoordinatorServiceClient(conn).AddAuthority(ctx, &pb.AddAuthorityRequest{})
				if err != nil {
					return err
				}
				if screen.Format != render.Table {
					return written(render.WriteJSON(screen.Out, resp))
				}
				pin := resp.GetAuthority().GetPin()
				fmt.Fprintf(screen.Err, "added; agents trust it as they connect again, within seconds. Next: give clients the certificates of 'elsewhere authority list --pem' as their --ca, then\n  elsewhere authority use %.12s\n", pin)
				_, err = fmt.Fprintln(screen.Out, pin)
				return written(err)
			})
		},
	}
}

func (s *settings) authorityUse() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "use PIN",
		Short: "Have an authority sign from now on",
		Long: `Have an authority sign from now on: the coordinator's own certificate, and those of agents, which renew by
themselves as they connect. Clients whose --ca does not have it can't connect any more. It is refused while an agent
that is connected has not heard of it, which takes seconds after it was added; --force uses it all the same, and those
agents have to enrol again. The first characters of the pin are enough.`,
		Example: "  elsewhere authority use 5f3a9c",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.onAuthority(cmd, args, func(ctx context.Context, client pb.CoordinatorServiceClient, screen render.Screen, pin string) error {
				resp, err := client.UseAuthority(ctx, &pb.UseAuthorityRequest{Pin: pin, Force: force})
				if err != nil {
					return err
				}
				if screen.Format != render.Table {
					return written(render.WriteJSON(screen.Out, resp))
				}
				fmt.Fprintf(screen.Err, "%.12s signs from now on; agents renew as they connect again, within seconds. Next, when they have: 'elsewhere authority drop' for the old one; it says who is missing. Join tokens that were not used yet have to be made anew\n", pin)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "use it also while agents have not heard of it: they have to enrol again")
	return cmd
}

func (s *settings) authorityDrop() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "drop PIN",
		Short: "End the trust in an authority",
		Long: `End the trust in an authority that does not sign: what it signed is good no more, and its key is deleted. It
is refused while agents have no certificate but one that it signed; --force drops it all the same, for a key that
somebody else may have. Those agents have to enrol again. The first characters of the pin are enough.`,
		Example: "  elsewhere authority drop 81d0e2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.onAuthority(cmd, args, func(ctx context.Context, client pb.CoordinatorServiceClient, screen render.Screen, pin string) error {
				resp, err := client.DropAuthority(ctx, &pb.DropAuthorityRequest{Pin: pin, Force: force})
				if err != nil {
					return err
				}
				if screen.Format != render.Table {
					return written(render.WriteJSON(screen.Out, resp))
				}
				fmt.Fprintf(screen.Err, "%.12s is dropped; %d left. Backups from before have its key still\n", pin, len(resp.GetAuthorities()))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "drop it also while agents depend on it: they have to enrol again")
	return cmd
}

// onAuthority calls do with the whole pin of the authority that a command names by the beginning of it.
func (s *settings) onAuthority(cmd *cobra.Command, args []string, do func(context.Context, pb.CoordinatorServiceClient, render.Screen, string) error) error {
	if len(args) != 1 || len(args[0]) < minPin || strings.Trim(args[0], "0123456789abcdef") != "" {
		return usagef("%s takes a pin, or its first %d characters or more; 'elsewhere authority list' shows them", cmd.CommandPath(), minPin)
	}
	screen, err := s.listScreen()
	if err != nil {
		return err
	}
	return s.authorities(cmd.Context(), func(ctx context.Context, client pb.CoordinatorServiceClient, list *pb.ListAuthoritiesResponse) error {
		var pins []string
		for _, a := range list.GetAuthorities() {
			if strings.HasPrefix(a.GetPin(), args[0]) {
				pins = append(pins, a.GetPin())
			}
		}
		switch len(pins) {
		case 0:
			return usagef("no authority has a pin that begins with %s; 'elsewhere authority list' shows them", args[0])
		case 1:
			return do(ctx, client, screen, pins[0])
		}
		return usagef("%d authorities have a pin that begins with %s; give more of it", len(pins), args[0])
	})
}
