package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/flags"
)

// Command is `elsewhere restore`.
func Command() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore FILE --data-dir DIR",
		Short: "Make a coordinator's data directory of a backup",
		Long: `Make a coordinator's data directory of what 'elsewhere backup' has written. It asks no coordinator:
it works on this machine, with DIR empty or not there yet. The whole file is checked before anything is
written, and what was built is compared with what was backed up; if anything is wrong, nothing is left.

Start elsewhere-coordinator on DIR then, at the address that the agents know. They come back by themselves
and send again what they still hold; it is counted once. What was acknowledged after the backup was taken
is lost with the old disk. Never run the old coordinator again beside the new one.`,
		Example: `  elsewhere restore /var/backups/elsewhere-2026-11-22.tar --data-dir /var/lib/elsewhere`,
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
			return run(cmd.Context(), cmd.ErrOrStderr(), Options{File: args[0], Dir: dir})
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "`directory` to restore into: empty, or not there yet (required)")
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
	fmt.Fprintf(errs, "restored log %s up to position %d, as it was on %s; start elsewhere-coordinator --data-dir %s\n",
		render.Clean(m.LogID), m.Last, m.Created.Local().Format("2 January 2006 15:04 MST"), opts.Dir)
	return nil
}
