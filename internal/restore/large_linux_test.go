package restore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/restore"
	"github.com/elsewhere-net/elsewhere/internal/store"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// asked is how many agents each measurement of a made-up log asks; each of them answers in a message of its own.
const asked = 100

// madeUp writes a backup of a log that nobody had, with so many messages.
func madeUp(t testing.TB, messages int) string {
	t.Helper()
	fold, err := store.Open(filepath.Join(t.TempDir(), "fold"), 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer fold.Close()
	log := make([][]byte, messages)
	for i := range log {
		batch := &pb.LogBatch{Entries: []*pb.LogEntry{madeUpEntry(i)}}
		if log[i], err = proto.Marshal(batch); err == nil {
			_, err = fold.Apply(uint64(i+1), batch, log[i])
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%10_000 == 9_999 {
			if err := fold.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "backup.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	last, hash := fold.Hash()
	w, err := backup.NewWriter(out, backup.Manifest{LogID: "01k00000000000000000000000", First: 1, Last: last, StateHash: hash, Created: time.Now()})
	for i := 0; err == nil && i < len(log); i++ {
		err = w.Message(uint64(i+1), log[i])
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// madeUpEntry is the entry of a message: a measurement, its agents' results, its end, and so on.
func madeUpEntry(i int) *pb.LogEntry {
	turn, at := i/(asked+2), i%(asked+2)
	id, noon := fmt.Sprintf("01k0000000000000000%07d", turn), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	switch at {
	case 0:
		m := &pb.Measurement{Id: id, State: pb.State_STATE_RUNNING, CreateTime: timestamppb.New(noon), Deadline: timestamppb.New(noon.Add(time.Minute)), Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1", Port: 80}}}, From: "world"}
		for n := range asked {
			m.Asks = append(m.Asks, &pb.Ask{Agent: fmt.Sprint("a-", n), State: pb.AskState_ASK_STATE_PENDING})
		}
		return &pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: m}}}
	case asked + 1:
		return &pb.LogEntry{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: id, Time: timestamppb.New(noon)}}}
	}
	r := &pb.Result{MeasurementId: id, Agent: fmt.Sprint("a-", at-1), Steps: []*pb.Step{{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: "192.0.2.1:80", Evidence: &pb.Evidence{Banner: bytes.Repeat([]byte("x"), 600)},
	}}}
	digest := sha256.Sum256([]byte(fmt.Sprint(i)))
	return &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: r}, Place: &pb.Place{Epoch: 1, Seq: uint64(turn + 1), Digest: digest[:]}}
}

// status is where a coordinator's log stands.
func (c *running) status(t testing.TB) *pb.GetStatusResponse {
	t.Helper()
	s, err := pb.NewCoordinatorServiceClient(c.conn).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestALogThatWasCut: retention has dropped the beginning. A backup has the rest, from where it begins, and what was
// restored of it stands for the same and goes on.
func TestALogThatWasCut(t *testing.T) {
	dir, target := t.TempDir(), listen(t)
	first := start(t, dir, nil)
	runAgent(t, first, "a", nil)
	gone := first.end(t, first.ask(t, target)).GetId()
	first.stop()
	cutting := startAs(t, coordinator.Options{DataDir: dir, Retention: coordinator.Retention{Age: time.Nanosecond}}, first)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for cutting.status(t).GetFirstPosition() < 2 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the log is not cut")
		}
	}
	cutting.online(t, "a")
	kept := cutting.end(t, cutting.ask(t, target)).GetId()
	path := cutting.backup(t)
	before := cutting.status(t)
	cutting.stop()

	restored := filepath.Join(t.TempDir(), "data")
	m, err := restore.Restore(t.Context(), restore.Options{File: path, Dir: restored})
	if err != nil || m.First < 2 || m.First > m.Last || m.Last != before.GetPosition() || !bytes.Equal(m.StateHash, before.GetStateHash()) {
		t.Fatalf("%+v of %v: %v", m, before, err)
	}
	second := start(t, restored, first)
	if now := second.status(t); now.GetFirstPosition() != m.First || now.GetLogId() != before.GetLogId() {
		t.Errorf("the log was %v and is %v", before, now)
	}
	if _, err := pb.NewMeasurementServiceClient(second.conn).GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: gone}); err == nil {
		t.Error("what was forgotten is there again")
	}
	if m := second.end(t, kept); len(m.GetResults()) != 1 {
		t.Errorf("what was kept: %v", m)
	}
	second.online(t, "a")
	if m := second.end(t, second.ask(t, target)); m.GetLedger().GetAnswered() != 1 {
		t.Errorf("a new question: %v", m)
	}
}

// TestABackupWhileResultsCome: it is the state at one position, whatever is appended meanwhile.
func TestABackupWhileResultsCome(t *testing.T) {
	c := start(t, t.TempDir(), nil)
	runAgent(t, c, "a", nil)
	target := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	busy := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			c.ask(t, target)
		}
		busy <- n
	}()
	var positions []uint64
	for range 3 {
		path := c.backup(t)
		m, err := restore.Restore(t.Context(), restore.Options{File: path, Dir: filepath.Join(t.TempDir(), "data")})
		if err != nil {
			t.Error(err)
		}
		positions = append(positions, m.Last)
	}
	stop()
	if n := <-busy; n == 0 || positions[0] >= positions[1] || positions[1] >= positions[2] {
		t.Errorf("%d measurements while backups were taken at %v", n, positions)
	}
}

// TestAFullDiskLeavesNothing: a restore onto a disk that is too small says so in a line and leaves the directory empty.
func TestAFullDiskLeavesNothing(t *testing.T) {
	if !space.Own(t) {
		return
	}
	path, dir := madeUp(t, 5000), t.TempDir()
	space.Build(t, "ip link set lo up\nmount --make-rprivate /\nmount -t tmpfs -o size=3m none "+dir+"\n")
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := restore.Restore(ctx, restore.Options{File: path, Dir: dir})
	if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "the disk may be full") {
		t.Errorf("%v; want one line about the disk", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

// BenchmarkLargeLog restores a log of 200,000 messages, starts a coordinator on it and takes a backup, and reports the most
// memory that the process had at each.
func BenchmarkLargeLog(b *testing.B) {
	const messages = 200_000
	path := madeUp(b, messages)
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.ReportMetric(float64(info.Size())/(1<<20), "file-MiB")
		dir := filepath.Join(b.TempDir(), "data")
		forgetPeak(b)
		began := time.Now()
		if _, err := restore.Restore(b.Context(), restore.Options{File: path, Dir: dir}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "restore-s")
		b.ReportMetric(peak(b), "restore-MiB")
		began = time.Now()
		c := start(b, dir, nil)
		c.status(b)
		b.ReportMetric(time.Since(began).Seconds(), "start-s")
		forgetPeak(b)
		began = time.Now()
		stream, err := pb.NewCoordinatorServiceClient(c.conn).Backup(b.Context(), &pb.BackupRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		if err != io.EOF { //nolint:errorlint // as gRPC has it
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "backup-s")
		b.ReportMetric(peak(b), "backup-MiB")
		c.stop()
	}
}

// forgetPeak has the kernel count the most memory anew (proc_pid_clear_refs(5)), without what is garbage by now.
func forgetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

// peak is the most memory since, in MiB.
func peak(b *testing.B) float64 {
	b.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
