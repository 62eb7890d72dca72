package cli_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// operator is a coordinator that streams a backup.
type operator struct {
	pb.UnimplementedCoordinatorServiceServer

	file []byte
	end  func(context.Context) error // how the stream ends. Default: well
}

func (o operator) Backup(_ *pb.BackupRequest, stream pb.CoordinatorService_BackupServer) error {
	for i := 0; i < len(o.file); i += 1000 {
		piece := &pb.BackupResponse{Data: o.file[i:min(i+1000, len(o.file))]}
		if i == 0 {
			piece.EstimatedBytes = int64(len(o.file))
		}
		if err := stream.Send(piece); err != nil {
			return err
		}
	}
	if o.end != nil {
		return o.end(stream.Context())
	}
	return nil
}

func (o operator) serve(t *testing.T) string {
	t.Helper()
	return serveOperator(t, o)
}

func serveOperator(t *testing.T, o pb.CoordinatorServiceServer) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	s := grpc.NewServer()
	pb.RegisterCoordinatorServiceServer(s, o)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// aBackup is a small one.
func aBackup(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := must[*backup.Writer](t)(backup.NewWriter(&out, backup.Manifest{
		LogID: "01K5", First: 1, Last: 3, StateHash: []byte{1}, Created: time.Unix(1_800_000_000, 0).UTC(),
	}))
	err := w.File("ca.key", []byte("secret"))
	for i := range 3 {
		err = errors.Join(err, w.Message(uint64(i+1), bytes.Repeat([]byte("m"), 2000)))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBackupWritesAFile(t *testing.T) {
	file := aBackup(t)
	w := newWorld(t).at(operator{file: file}.serve(t))
	path := filepath.Join(t.TempDir(), "b.tar")
	got := w.run(t, "backup", path)
	if got.code != cli.ExitOK || got.out != "" || !strings.Contains(got.err, "log 01K5 up to position 3") || !strings.Contains(got.err, "keys") {
		t.Errorf("%+v", got)
	}
	written, err := os.ReadFile(path)
	info, _ := os.Stat(path)
	if err != nil || !bytes.Equal(written, file) || info.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes of %d, %v, %v", len(written), len(file), info.Mode(), err)
	}
	if got := w.run(t, "backup", "-"); got.code != cli.ExitOK || got.out != string(file) {
		t.Errorf("to standard output: exit %d, %d bytes of %d, %s", got.code, len(got.out), len(file), got.err)
	}
	if got := w.run(t, "backup", path, "-J"); got.code != cli.ExitOK || !strings.Contains(got.out, `"last_position":3`) {
		t.Errorf("in JSON: %+v", got)
	}
}

func TestABackupThatIsNotWholeIsNoFile(t *testing.T) {
	file := aBackup(t)
	damaged := bytes.Clone(file)
	damaged[3000] ^= 1
	for _, c := range []struct {
		what string
		o    operator
		code int
		says string
	}{
		{"the coordinator stops", operator{file: file[:3000], end: func(context.Context) error { return status.Error(codes.Unavailable, "about to stop") }}, cli.ExitNetwork, "about to stop"},
		{"the coordinator ends early without a word", operator{file: file[:3000], end: nil}, cli.ExitNetwork, "the end of the backup is missing"},
		{"the coordinator fails after the last byte", operator{file: file, end: func(context.Context) error { return status.Error(codes.Internal, "a hole") }}, cli.ExitNetwork, "a hole"},
		{"a byte was changed on the way", operator{file: damaged, end: nil}, cli.ExitNetwork, "damaged"},
		{"it is not allowed", operator{file: nil, end: func(context.Context) error { return status.Error(codes.PermissionDenied, "admin") }}, cli.ExitNetwork, "does not allow"},
		{"nothing comes any more", operator{file: file[:3000], end: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, cli.ExitNetwork, "did not answer in time"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			w := newWorld(t).at(c.o.serve(t))
			got := w.run(t, "backup", filepath.Join(dir, "b.tar"), "--timeout", "1s")
			if got.code != c.code || !strings.Contains(got.err, c.says) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("exit %d, %q; want %d and %q", got.code, got.err, c.code, c.says)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
}

func TestBackupIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := newWorld(t).at(operator{file: aBackup(t)[:3000], end: func(call context.Context) error { cancel(); <-call.Done(); return nil }}.serve(t))
	if got := w.runContext(ctx, "backup", filepath.Join(dir, "b.tar")); got.code != cli.ExitInterrupted {
		t.Errorf("%+v", got)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
}

func TestBackupSaysWhatIsWrongWithTheFile(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t).at("127.0.0.1:1")
	for _, args := range [][]string{{}, {""}, {"a", "b"}, {dir}, {filepath.Join(dir, "missing", "b.tar")}} {
		if got := w.run(t, append([]string{"backup"}, args...)...); got.code != cli.ExitUsage || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
