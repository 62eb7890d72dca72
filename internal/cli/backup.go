package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/file"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// backup is the backup command.
func (s *settings) backup() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that a coordinator needs to begin again into one file",
		Long: `Write all that a coordinator needs to begin again into one file: the log, the tokens, the agents'
counters, and the authorities with their keys. The coordinator goes on working; the file is the state at
one position of the log. It is checked while it is written, and it is there when it is whole, not before.

Whoever has the file can be that coordinator: it holds the keys of the network. It is made readable for
you alone. "-" writes to standard output. 'elsewhere restore' makes a coordinator of it again. Results
that are acknowledged later are not in it.`,
		Example: `  elsewhere backup /var/backups/elsewhere-2026-11-22.tar
  elsewhere backup - | ssh vault 'umask 077; cat > elsewhere.tar'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usagef("backup takes one file, or - for standard output")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return s.takeBackup(cmd.Context(), args[0]) },
	}
}

// takeBackup writes a backup to a path, or to standard output.
func (s *settings) takeBackup(ctx context.Context, path string) error {
	screen, err := s.screen()
	if err != nil {
		return err
	}
	if path == "-" {
		if screen.Terminal {
			return usagef("a backup is not for a terminal; name a file, or a pipe after -")
		}
		m, n, err := s.receive(ctx, s.program.Out)
		if err == nil {
			tellBackup(screen, m, n)
		}
		return err
	}
	out, err := file.Create(path)
	if err != nil {
		return usage(err)
	}
	defer out.Discard()
	m, n, err := s.receive(ctx, out)
	if err != nil {
		return err
	}
	if err := out.Keep(); err != nil {
		return written(err)
	}
	if screen.Format == render.JSON || screen.Format == render.JSONL {
		return written(json.NewEncoder(screen.Out).Encode(m))
	}
	tellBackup(screen, m, n)
	return nil
}

// tellBackup says what was written.
func tellBackup(screen render.Screen, m backup.Manifest, n int64) {
	fmt.Fprintf(screen.Err, "backup of log %s up to position %d, %s; it holds the keys of the network: keep it where nobody else can read it\n",
		render.Clean(m.LogID), m.Last, render.Bytes(n))
}

// receive receives a backup, checks it and writes it. It fails when nothing comes for --timeout.
func (s *settings) receive(ctx context.Context, out io.Writer) (m backup.Manifest, n int64, err error) {
	patience, err := s.timeout()
	if err != nil {
		return m, 0, err
	}
	conn, e, err := s.dial()
	if err != nil {
		return m, 0, err
	}
	defer func() { _ = conn.Close() }()
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(context.DeadlineExceeded) })
	defer silence.Stop()
	stream, err := pb.NewCoordinatorServiceClient(conn).Backup(limited, &pb.BackupRequest{})
	if err != nil {
		return m, 0, e.explain(ctx, err)
	}
	progress := render.NewProgress(s.program.Err, s.program.Getenv)
	defer progress.End()
	in := &download{stream: stream, got: func(done, of int64) {
		silence.Reset(patience)
		progress.Show("backup", done, of)
	}}
	m, err = backup.Read(io.TeeReader(in, out), backup.Contents{})
	if err == nil {
		_, err = io.Copy(io.Discard, in) // the call has to end well too
	}
	if errors.Is(context.Cause(limited), context.DeadlineExceeded) {
		in.err = context.DeadlineExceeded // gRPC says only that somebody cancelled
	}
	if in.err != nil && !errors.Is(in.err, io.EOF) {
		return m, 0, e.explain(ctx, in.err)
	}
	if err != nil {
		return m, 0, &Error{ExitNetwork, fmt.Errorf("the backup could not be written: %w", err)}
	}
	return m, in.n, nil
}

// download reads the pieces of a backup.
type download struct {
	stream grpc.ServerStreamingClient[pb.BackupResponse]
	got    func(done, of int64)
	rest   []byte
	n, of  int64
	err    error // what ended it
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		piece, err := d.stream.Recv()
		if err != nil {
			d.err = err
			return 0, err
		}
		d.rest, d.of = piece.GetData(), max(d.of, piece.GetEstimatedBytes())
		d.n += int64(len(d.rest))
		d.got(d.n, d.of)
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}
