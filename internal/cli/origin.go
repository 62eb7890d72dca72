package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// profileFlag says what --profile takes.
var profileFlag = "`PROFILE` to judge by: " + strings.Join(profile.Names(), ", ") + ", the path of a file, or - for standard input"

// origin is the origin command.
func (s *settings) origin() *cobra.Command {
	var f question.OriginFlags
	var client string
	cmd := &cobra.Command{
		Use:   "origin URL [from WHERE] [--profile NAME|FILE] [--host-header NAME]",
		Short: "Find out whether a CDN can serve an origin, and from where",
		Long: `Find out whether a CDN can serve an origin, from where, and if not, why not: in the terms of its
documents, with the status that viewers get and what to change. The origin is asked the way that the
CDN asks it: every address, the zone's own servers, a handshake with the CDN's versions and suites,
the names that its certificate may be for, and one request.

URL is the origin's own, with the name and port that the CDN connects to, not the one that viewers
use. If the CDN forwards the viewer's Host, give it with --host-header. A CDN is described by a
profile: ` + strings.Join(profile.Names(), ", ") + ` are shipped (default ` + profile.Default + `), and --profile FILE takes one
of your own (- reads standard input); docs/profiles.md says how to write it.

Agents do not have the CDN's addresses: an origin that admits these alone is shut for every agent.` + formats,
		Example: `  elsewhere origin https://origin.example.com
  elsewhere origin https://origin.example.com/health --host-header www.example.com
  elsewhere origin https://origin.example.com:8443 --ssl-protocols TLSv1,TLSv1.1,TLSv1.2
  elsewhere origin http://origin.example.com --profile aws-alb from us-east,eu-west
  elsewhere origin https://origin.example.com --profile cloudflare --format junit`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.Origin(args, f)
			if err == nil {
				q.Spec.GetOrigin().Profile, err = s.profile(cmd.Context(), client)
			}
			return s.check(cmd, q, err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&client, "profile", "", profileFlag+" (default "+profile.Default+")")
	flags.StringVar(&f.Host, "host-header", "", "`NAME` that is forwarded as Host (default: the URL's host)")
	flags.StringVar(&f.SSLProtocols, "ssl-protocols", "", "`VERSIONS` in the origin settings, with commas: SSLv3, TLSv1, TLSv1.1, TLSv1.2 (default: the profile's)")
	complete(cmd, "host-header")
	complete(cmd, "ssl-protocols", "TLSv1.2", "TLSv1.1,TLSv1.2", "TLSv1,TLSv1.1,TLSv1.2", "SSLv3")
	completeProfile(cmd)
	return cmd
}

// profile is what --profile means: nil for nothing, a name that the coordinator looks up, or the profile in a
// file. What a name has not, a slash or a dot, makes it a path.
func (s *settings) profile(ctx context.Context, text string) (*pb.Profile, error) {
	switch {
	case text == "":
		return nil, nil //nolint:nilnil // none is asked for, and that is no error
	case slices.Contains(profile.Names(), text):
		return &pb.Profile{Name: text}, nil
	}
	file, err := s.input(ctx, text, profile.MaxSize)
	shipped := strings.Join(profile.Names(), ", ")
	switch {
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(text, "/.\\"):
		return nil, fmt.Errorf("--profile %.80q is neither shipped (%s) nor a file here; give one of these, or the path of a file", text, shipped)
	case err != nil:
		return nil, fmt.Errorf("--profile %w; shipped are %s", err, shipped)
	}
	p, err := profile.Parse(file.data, file.name)
	if err != nil {
		return nil, fmt.Errorf("--profile %w", err)
	}
	return p, nil
}

// completeProfile completes --profile with what is shipped, and with files.
func completeProfile(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(profile.Names(), cobra.ShellCompDirectiveDefault))
}
