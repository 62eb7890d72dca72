package coordinator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// backupChunk is the size of a piece of a backup, in bytes.
	backupChunk = 256 << 10
	// noteTimeout bounds the wait for the log to take the note of it.
	noteTimeout = 5 * time.Second
	// sessionsAhead is more sessions than an agent begins while a backup is of any use.
	sessionsAhead = 1 << 20
	// holdTime is how long retention waits for whoever reads the log, since it read last.
	holdTime = time.Minute
)

// hold keeps the log from being cut while a backup reads it, as long as that gets on: a client that stands still
// must not fill the log.
type hold struct {
	cutting sync.Mutex // held while the log is cut
	mu      sync.Mutex
	until   time.Time
}

// extend keeps retention off for holdTime from now.
func (h *hold) extend() { h.set(time.Now().Add(holdTime)) }

// release ends it.
func (h *hold) release() { h.set(time.Time{}) }

func (h *hold) set(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = until
}

// held says whether retention has to wait.
func (h *hold) held() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.until)
}

// cut calls f, which cuts the log, unless somebody reads it.
func (h *hold) cut(f func() error) error {
	h.cutting.Lock()
	defer h.cutting.Unlock()
	if h.held() {
		return nil
	}
	return f()
}

// begin waits until nobody cuts the log, and keeps it so.
func (h *hold) begin() {
	h.cutting.Lock()
	defer h.cutting.Unlock()
	h.extend()
}

// Backup implements pb.CoordinatorServiceServer.
func (s coordinatorService) Backup(_ *pb.BackupRequest, stream pb.CoordinatorService_BackupServer) error {
	if !s.backingUp.TryLock() {
		return status.Error(codes.FailedPrecondition, "another backup is being taken; try again when it is done")
	}
	defer s.backingUp.Unlock()
	s.reading.begin()
	s.say(s.logRead(false))
	defer s.reading.release()
	pieces := &pieces{stream: stream, sent: s.reads()}
	defer s.say(s.logRead(true))
	out := bufio.NewWriterSize(pieces, backupChunk)
	err := s.backup(stream.Context(), pieces, out)
	if err == nil {
		err = out.Flush()
	}
	if _, said := status.FromError(err); err != nil && !said {
		s.log.Error("backup", "error", err)
		return unavailable(err)
	}
	return err
}

// reads returns what keeps the log from being cut, here and at the other coordinators, each time that it is called.
func (c *Coordinator) reads() func() {
	var told time.Time
	return func() {
		c.reading.extend()
		if time.Since(told) > holdTime/4 {
			told = time.Now()
			c.say(c.logRead(false))
		}
	}
}

func (c *Coordinator) logRead(done bool) *pb.CoordinatorMessage {
	return &pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_LogRead{LogRead: &pb.LogRead{Coordinator: c.name(), Done: done}}}
}

// pieces sends what is written.
type pieces struct {
	stream    pb.CoordinatorService_BackupServer
	sent      func()
	estimated int64
}

// Write implements io.Writer.
func (p *pieces) Write(data []byte) (int, error) {
	if err := p.stream.Send(&pb.BackupResponse{Data: data, EstimatedBytes: p.estimated}); err != nil {
		return 0, err
	}
	p.estimated = 0
	p.sent()
	return len(data), nil
}

// backup writes all that the coordinator needs to begin again, as of the position that is folded now. What was
// decided by compare-and-set is read after that: a token that was used since is not good again.
func (c *Coordinator) backup(ctx context.Context, p *pieces, out *bufio.Writer) error {
	c.noteBackup(ctx)
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	position, hash := c.store.Hash()
	p.estimated = int64(bounds.Bytes)
	w, err := backup.NewWriter(out, backup.Manifest{
		LogID: c.history.ID(), First: bounds.First, Last: position, StateHash: hash,
		Program: flags.Version(), Created: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	if err := errors.Join(c.backupFiles(w), c.backupKeys(ctx, w)); err != nil {
		return err
	}
	for at := bounds.First; at <= position; at++ {
		if c.serving.Err() != nil {
			return status.Error(codes.Unavailable, "the coordinator is about to stop; take the backup when it is back")
		}
		data, err := c.history.Message(ctx, at)
		if err != nil {
			return err
		}
		if err := w.Message(at, data); err != nil {
			return err
		}
	}
	return w.Close()
}

// noteBackup notes that somebody takes all there is, before he has any of it, so that the backup itself tells of it.
// A log that takes nothing more is no reason to be without a backup.
func (c *Coordinator) noteBackup(ctx context.Context) {
	e := &pb.AuditEvent{
		Kind: pb.AuditKind_AUDIT_KIND_BACKUP_TAKEN, Time: timestamppb.Now(), Address: callerAddress(ctx),
		Detail: "with the keys of the network" + by(ctx),
	}
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	if err := c.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: e}}); err != nil {
		c.audit(e)
	}
}

// backupFiles adds the files of the data directory that are there.
func (c *Coordinator) backupFiles(w *backup.Writer) error {
	files := map[string][]byte{}
	read := func() error { return c.readFiles(files) }
	if c.authorities != nil {
		locked := read
		read = func() error { return c.authorities.Hold(locked) }
	}
	if err := read(); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, name := range backup.Files() {
		if data, ok := files[name]; ok {
			if err := w.File(name, data); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Coordinator) readFiles(files map[string][]byte) error {
	for _, name := range backup.Files() {
		data, err := os.ReadFile(filepath.Join(c.opts.DataDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		files[name] = data
	}
	return nil
}

// backupKeys adds the buckets.
func (c *Coordinator) backupKeys(ctx context.Context, w *backup.Writer) error {
	for _, name := range []string{access.TokensBucket, claimsBucket} {
		bucket, err := bus.OpenBucket(ctx, c.nats, name)
		if err != nil {
			return err
		}
		values, err := bucket.List(ctx)
		bucket.Close()
		if err != nil {
			return err
		}
		for _, v := range values {
			if name == claimsBucket {
				if v.Data, err = beyondSessions(v.Data); err != nil {
					return err
				}
			}
			if err := w.Key(name, v.Key, v.Data); err != nil {
				return err
			}
		}
	}
	return nil
}

// beyondSessions is an agent's claim as a coordinator needs it that begins again: sessions that are given out after the
// backup was taken, of which it knows nothing, must not be newer than its own. Epochs need nothing: an agent says its
// own, and one that is not known makes way for a higher one.
func beyondSessions(data []byte) ([]byte, error) {
	claim := &pb.Claim{}
	if err := proto.Unmarshal(data, claim); err != nil {
		return nil, fmt.Errorf("an agent's claim: %w", err)
	}
	claim.Session += sessionsAhead
	return proto.Marshal(claim)
}
