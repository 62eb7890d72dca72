package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/flags"
)

// Command is `elsewhere restore`.
func Command() *cobra.Command {
	var dir string
	var several []string
	cmd := &cobra.Command{
		Use:   "restore FILE --data-dir DIR",
		Short: "Make a coordinator's data directory of a backup",
		Long: `Make a coordinator's data directory of what 'elsewhere backup' has written. It asks no coordinator:
it works on this machine, with DIR empty or not there yet. The whole file is checked before anything is
written, and what was built is compared with what was backed up; if anything is wrong, nothing is left.

Start elsewhere-coordinator on DIR then, at the address that the agents know. They come back by themselves
and send again what they still hold; it is counted once. What was acknowledged after the backup was taken
is lost with the old disk. Never run the old coordinator again beside the new one.

With --several the backup, of one coordinator alone or of several, becomes the data directories of three that
are one service: DIR/c-1 for the one with --id c-1, and so on. Copy each to its machine before the first start.`,
		Example: `  elsewhere restore /var/backups/elsewhere-2026-11-22.tar --data-dir /var/lib/elsewhere
  elsewhere restore /var/backups/elsewhere-2026-11-22.tar --data-dir /var/tmp/three --several c-1,c-2,c-3`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return flags.Usagef("restore takes one file, which 'elsewhere backup' has written")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.FromEnv(cmd.LocalNonPersistentFlags()); err != nil {
				return err
			}
			if dir == "" {
				return flags.Usagef("--data-dir is required: the directory that the coordinator will use")
			}
			return run(cmd.Context(), cmd.ErrOrStderr(), Options{File: args[0], Dir: dir, Several: several})
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "`directory` to restore into: empty, or not there yet (required)")
	cmd.Flags().StringSliceVar(&several, "several", nil, "`names` of three coordinators that are one service (--id), such as c-1,c-2,c-3: each has a directory in that one (default: it is for one alone)")
	return cmd
}

func run(ctx context.Context, errs io.Writer, opts Options) error {
	progress := render.NewProgress(errs, os.Getenv)
	opts.Progress = progress.Show
	m, err := Restore(ctx, opts)
	progress.End()
	if err != nil && ctx.Err() != nil {
		return &cli.Error{Code: cli.ExitInterrupted, Err: errors.New("interrupted; nothing was restored")}
	}
	if err != nil {
		return &cli.Error{Code: cli.ExitUsage, Err: err}
	}
	fmt.Fprintf(errs, "restored log %s up to position %d, as it was on %s; %s\n",
		render.Clean(m.LogID), m.Last, m.Created.Local().Format("2 January 2006 15:04 MST"), next(opts))
	return nil
}

// next is what to do then.
func next(opts Options) string {
	if len(opts.Several) == 0 {
		return "start elsewhere-coordinator --data-dir " + opts.Dir
	}
	first := opts.Several[0]
	return fmt.Sprintf("copy each directory in %s to its machine and start all three, such as elsewhere-coordinator --id %s --data-dir %s",
		opts.Dir, first, filepath.Join(opts.Dir, first))
}
