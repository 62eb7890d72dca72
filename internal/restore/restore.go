// Package restore is `elsewhere restore`: a coordinator's data directory is made of a backup.
//
// The whole file is checked before anything is written. Then the log is built with the positions that it had,
// folded as a coordinator would, and what it amounts to is compared with what the backup says. Until all of
// that is done and on disk, a mark in the directory keeps coordinators from it; whatever fails, the directory is
// left as it was found.
package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// checkpointBytes is how much of the log is folded between two checkpoints: what is not on disk yet is in memory, where
// it takes ten times as much.
// recentBytes is how much of what is closed stays in memory beside.
const checkpointBytes, recentBytes = 8 << 20, 8 << 20

// enough is a bound of the log's size that is not met, in bytes: the coordinator will set its own.
const enough = 1 << 38

// Options is what to restore, and where.
type Options struct {
	// File is the backup.
	File string
	// Dir is the data directory: empty, or not there yet.
	Dir string
	// Several are the names of three coordinators that are one service. Each has a data directory then, by its name, in
	// Dir. Default: it is for one alone.
	Several []string
	// Progress hears how far it is: what is being done, and how many bytes of how many. Default: nobody hears.
	Progress func(what string, done, of int64)
}

// Restore makes a data directory of a backup. It returns what the backup says of itself.
func Restore(ctx context.Context, opts Options) (m backup.Manifest, err error) {
	if opts.Progress == nil {
		opts.Progress = func(string, int64, int64) {}
	}
	if err := checkNames(opts.Several); err != nil {
		return m, err
	}
	in, err := os.Open(opts.File)
	if err != nil {
		return m, err
	}
	defer func() { _ = in.Close() }()
	r := &restoring{opts: opts, in: in, places: places(opts)}
	if m, err = r.read(ctx, "checking", backup.Contents{}); err != nil {
		return m, err
	}
	r.manifest = m
	created, err := take(opts.Dir)
	if err != nil {
		return m, err
	}
	if err := r.build(ctx); err != nil {
		return m, errors.Join(err, giveBack(opts.Dir, created))
	}
	return m, nil
}

// restoring is a restore that goes on.
type restoring struct {
	opts     Options
	in       *os.File
	manifest backup.Manifest
	places   []place
	log      *bus.Rebuilt
	buckets  map[string]*bus.Bucket
	servers  []*embedded.Server // one for each place; the first is written to
}

// read reads the backup from its beginning.
func (r *restoring) read(ctx context.Context, what string, hear backup.Contents) (backup.Manifest, error) {
	info, err := r.in.Stat()
	if err != nil {
		return backup.Manifest{}, err
	}
	if !info.Mode().IsRegular() {
		return backup.Manifest{}, fmt.Errorf("%s is no file: it is read twice, first to check it", r.opts.File)
	}
	if _, err := r.in.Seek(0, io.SeekStart); err != nil {
		return backup.Manifest{}, err
	}
	m, err := backup.Read(&counted{ctx: ctx, in: r.in, read: func(n int64) { r.opts.Progress(what, n, info.Size()) }}, hear)
	if err != nil {
		return m, fmt.Errorf("%s: %w", r.opts.File, err)
	}
	return m, nil
}

// counted tells how much was read, and ends with ctx.
type counted struct {
	ctx  context.Context
	in   io.Reader
	n    int64
	read func(n int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.in.Read(p)
	c.n += int64(n)
	c.read(c.n)
	return n, err
}

// take makes a directory that is empty the restore's own. created says that it was not there.
func take(dir string) (created bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		created = true
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	case backup.Unfinished(dir) != nil:
		return false, backup.Unfinished(dir)
	case len(entries) > 0:
		return false, fmt.Errorf("%s is not empty: a backup is restored into an empty directory, so that nothing there is lost", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory: its owner has to enter it
		return created, err
	}
	// O_EXCL: of two restores into one directory, one is refused.
	mark, err := os.OpenFile(filepath.Join(dir, backup.UnfinishedName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return created, err
	}
	return created, errors.Join(mark.Sync(), mark.Close(), file.SyncDir(dir))
}

// giveBack removes what a restore that failed has written, the mark last.
func giveBack(dir string, created bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != backup.UnfinishedName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("%s could not be emptied, and no coordinator will start on it: %w", dir, err)
	}
	err = os.Remove(filepath.Join(dir, backup.UnfinishedName))
	if created {
		err = errors.Join(err, os.Remove(dir))
	}
	return err
}

// build makes the directory of the backup, and takes the mark away when all of it is on disk.
func (r *restoring) build(ctx context.Context) error {
	if err := r.divide(); err != nil {
		return err
	}
	if err := r.write(ctx); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return err
	}
	if err := syncTree(r.opts.Dir); err != nil {
		return err
	}
	for _, dir := range append(r.divided(), r.opts.Dir) {
		if err := errors.Join(os.Remove(filepath.Join(dir, backup.UnfinishedName)), file.SyncDir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// write writes all that the backup holds.
func (r *restoring) write(ctx context.Context) (err error) {
	if err := r.start(); err != nil {
		return err
	}
	defer r.stop()
	if r.log, err = bus.RebuildLog(ctx, r.servers[0], bus.Origin{ID: r.manifest.LogID, First: r.manifest.First}); err != nil {
		return err
	}
	defer r.log.Close()
	r.buckets = map[string]*bus.Bucket{}
	defer func() {
		for _, b := range r.buckets {
			b.Close()
		}
	}()
	again, err := r.read(ctx, "restoring", backup.Contents{
		File:    r.file,
		Key:     func(bucket, key string, value []byte) error { return r.key(ctx, bucket, key, value) },
		Message: func(_ uint64, data []byte) error { return r.log.Append(ctx, bytes.Clone(data)) },
	})
	if err == nil && !again.Same(r.manifest) {
		err = fmt.Errorf("%s was changed while it was read", r.opts.File)
	}
	if err != nil {
		return err
	}
	if err := r.log.Finish(ctx); err != nil {
		return err
	}
	return r.alike(ctx)
}

// key restores what was decided by compare-and-set.
func (r *restoring) key(ctx context.Context, bucket, key string, value []byte) (err error) {
	b := r.buckets[bucket]
	if b == nil {
		if b, err = bus.OpenBucket(ctx, r.servers[0], bucket); err != nil {
			return err
		}
		r.buckets[bucket] = b
	}
	_, err = b.Create(ctx, key, value)
	return err
}

// verify starts anew on what was written, as coordinators do, folds the log for each and compares what it amounts to.
// Then it notes in the log that it was restored.
func (r *restoring) verify(ctx context.Context) (err error) {
	if err := r.start(); err != nil {
		return err
	}
	defer r.stop()
	for i := range r.places {
		if err := r.verifyOne(ctx, i); err != nil {
			return err
		}
	}
	log, err := bus.OpenLog(ctx, r.servers[0], enough)
	if err != nil {
		return err
	}
	defer log.Close()
	err = note(ctx, log, &pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_RESTORED, Time: timestamppb.Now(),
		Detail: fmt.Sprintf("of a backup of %s, to position %d; what was acknowledged after it is not here",
			r.manifest.Created.UTC().Format(time.RFC3339), r.manifest.Last),
	})
	if err != nil {
		return err
	}
	return r.alike(ctx)
}

// verifyOne folds the log into a place's checkpoint.
func (r *restoring) verifyOne(ctx context.Context, i int) error {
	log, err := bus.OpenLog(ctx, r.servers[i], enough)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := r.alike(ctx); err != nil {
		return err
	}
	fold, err := store.Open(filepath.Join(r.places[i].dir, store.FileName), recentBytes)
	if err != nil {
		return err
	}
	err = r.fold(ctx, log, fold)
	return errors.Join(err, fold.Close())
}

var errEnough = errors.New("enough")

// fold folds the log and compares what it amounts to.
func (r *restoring) fold(ctx context.Context, log *bus.Log, fold *store.Store) error {
	bounds, err := log.Bounds(ctx)
	if err != nil {
		return err
	}
	m := r.manifest
	if bounds.First != m.First || bounds.Last != m.Last {
		return fmt.Errorf("the log that was built goes from %d to %d instead of from %d to %d", bounds.First, bounds.Last, m.First, m.Last)
	}
	if err := fold.SetLog(m.LogID); err != nil {
		return err
	}
	if m.First <= m.Last {
		if err := r.follow(ctx, log, fold); err != nil {
			return err
		}
	}
	if position, hash := fold.Hash(); !bytes.Equal(hash, m.StateHash) {
		return fmt.Errorf("the log of the backup amounts to another state than the one that was backed up (%x instead of %x at position %d): it was made by a program that counts otherwise (%s), or from a coordinator whose memory was damaged; nothing was restored",
			hash, m.StateHash, position, m.Program)
	}
	return nil
}

// follow folds the log to its end.
func (r *restoring) follow(ctx context.Context, log *bus.Log, fold *store.Store) error {
	since := 0
	err := log.Fold(ctx, r.manifest.First-1, func(m bus.Message) error {
		if _, err := fold.Apply(m.Position, m.Batch, m.Data); err != nil {
			return err
		}
		r.opts.Progress("comparing", int64(m.Position-r.manifest.First), int64(r.manifest.Last-r.manifest.First))
		if since += len(m.Data); since > checkpointBytes {
			since = 0
			if err := fold.Checkpoint(); err != nil {
				return err
			}
		}
		if m.Position >= r.manifest.Last {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err == nil:
		return context.Cause(ctx)
	}
	return err
}

// note adds an event to the log.
func note(ctx context.Context, log *bus.Log, e *pb.AuditEvent) error {
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- log.Run(running, nil) }()
	_, err := log.Append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: e}})
	stop()
	return errors.Join(err, <-done)
}

// syncTree forces a directory with all that is in it to the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return file.SyncDir(path)
		}
		f, err := os.Open(path) //nolint:gosec // nobody else writes into the directory
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
