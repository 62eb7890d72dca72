package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/restore"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// running is a coordinator that runs on a data directory.
type running struct {
	grpc, nats string // its addresses
	conn       *grpc.ClientConn
	stop       func()
}

// start starts a coordinator; a nil before takes free ports, otherwise it is at the addresses of that one.
func start(t testing.TB, dir string, before *running) *running {
	t.Helper()
	return startAs(t, coordinator.Options{DataDir: dir}, before)
}

// startAs starts one otherwise.
func startAs(t testing.TB, opts coordinator.Options, before *running) *running {
	t.Helper()
	// An address of its own: nobody else takes a port there while the coordinator is away.
	opts.GRPCAddr, opts.NATSAddr, opts.Insecure = "127.0.7.3:0", "127.0.7.3:0", true
	if before != nil {
		opts.GRPCAddr, opts.NATSAddr = before.grpc, before.nats
	}
	c, err := coordinator.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(c.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	nats := c.NATSAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &running{c.GRPCAddr().String(), nats, conn, stop}
}

// runAgent runs an agent until the test ends. What it connects to goes through connect.
func runAgent(t *testing.T, c *running, id string, connect func(context.Context, netip.AddrPort, probe.ConnectOptions) (net.Conn, *pb.Evidence, error)) {
	t.Helper()
	env := &probe.Env{Connect: connect, Hints: []netip.AddrPort{}, Resolvers: []netip.AddrPort{}}
	env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	a, err := agent.New(agent.Options{
		Coordinators: []string{c.grpc}, DataDir: t.TempDir(), ID: id, Vantage: &pb.Vantage{Region: "r"}, Env: env,
		DrainTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c.online(t, id)
}

// online waits until an agent is.
func (c *running) online(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewFleetServiceClient(c.conn).WatchAgents(ctx, &pb.WatchAgentsRequest{From: id})
	for err == nil {
		var response *pb.WatchAgentsResponse
		response, err = stream.Recv()
		for _, a := range response.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				return
			}
		}
	}
	t.Fatalf("waiting for agent %s: %v", id, err)
}

// ask opens a measurement of a target.
func (c *running) ask(t *testing.T, target netip.AddrPort) string {
	t.Helper()
	r, err := pb.NewMeasurementServiceClient(c.conn).CreateMeasurement(t.Context(), &pb.CreateMeasurementRequest{
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetMeasurement().GetId()
}

// end waits for the end of a measurement and returns it with its results.
func (c *running) end(t *testing.T, id string) *pb.Measurement {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewMeasurementServiceClient(c.conn).WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true})
	var m *pb.Measurement
	var results []*pb.Result
	for err == nil {
		var response *pb.WatchMeasurementResponse
		if response, err = stream.Recv(); err == nil {
			m = response.GetMeasurement()
			results = append(results, response.GetResults()...)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	m.Results = results
	return m
}

// backup takes a backup into a file.
func (c *running) backup(t *testing.T) string {
	t.Helper()
	stream, err := pb.NewCoordinatorServiceClient(c.conn).Backup(t.Context(), &pb.BackupRequest{})
	var out bytes.Buffer
	for err == nil {
		var piece *pb.BackupResponse
		piece, err = stream.Recv()
		out.Write(piece.GetData())
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// listen accepts connections and closes them again.
func listen(t *testing.T) netip.AddrPort {
	t.Helper()
	host, err := probetest.Listen(netip.MustParseAddrPort("127.0.0.1:0"), probetest.CloseAtOnce)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr()
}

// gate holds connects back until it is opened.
type gate struct {
	arrived chan struct{}
	open    chan struct{}
}

func (g gate) connect(ctx context.Context, addr netip.AddrPort, opts probe.ConnectOptions) (net.Conn, *pb.Evidence, error) {
	g.arrived <- struct{}{}
	select {
	case <-g.open:
		return probe.Connect(ctx, addr, opts)
	case <-ctx.Done():
		return nil, &pb.Evidence{}, ctx.Err()
	}
}

// TestACoordinatorBeginsAgainFromABackup: its disk is lost while agents measure; what was in the backup is there, agents
// come back by themselves, and what they still held is counted, once.
func TestACoordinatorBeginsAgainFromABackup(t *testing.T) {
	target := listen(t)
	first := start(t, t.TempDir(), nil)
	g := gate{make(chan struct{}, 100), make(chan struct{})}
	runAgent(t, first, "quick", nil)
	before := first.end(t, first.ask(t, target))
	runAgent(t, first, "slow", g.connect)
	open := first.ask(t, target)
	<-g.arrived
	waitAnswered(t, first, open, 1)
	path := first.backup(t)
	first.stop()

	dir := filepath.Join(t.TempDir(), "data")
	if _, err := restore.Restore(t.Context(), restore.Options{File: path, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	second := start(t, dir, first)
	if diff := cmp.Diff(before, second.end(t, before.GetId()), protocmp.Transform(), protocmp.IgnoreFields(&pb.Measurement{}, "late")); diff != "" {
		t.Errorf("what was closed (-before +after):\n%s", diff)
	}
	second.online(t, "slow")
	second.online(t, "quick")
	close(g.open)
	if m := second.end(t, open); m.GetLedger().GetAnswered() != 2 || len(m.GetResults()) != 2 {
		t.Errorf("what was open: %v", m)
	}
	if m := second.end(t, second.ask(t, target)); m.GetLedger().GetAnswered() != 2 {
		t.Errorf("a new question: %v", m)
	}
	said := events(t, second)
	if !strings.Contains(said, "BACKUP_TAKEN") || !strings.Contains(said, "RESTORED of a backup of") {
		t.Errorf("audit: %s", said)
	}
}

// waitAnswered waits until so many have answered an open measurement.
func waitAnswered(t *testing.T, c *running, id string, n int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewMeasurementServiceClient(c.conn).WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id})
	for err == nil {
		var response *pb.WatchMeasurementResponse
		response, err = stream.Recv()
		if response.GetMeasurement().GetLedger().GetAnswered() >= n {
			return
		}
	}
	t.Fatal(err)
}

// events is the audit as text.
func events(t *testing.T, c *running) string {
	t.Helper()
	r, err := pb.NewAccessServiceClient(c.conn).ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range r.GetEvents() {
		lines = append(lines, strings.TrimPrefix(e.GetKind().String(), "AUDIT_KIND_")+" "+e.GetDetail())
	}
	return strings.Join(lines, "\n")
}

// TestWhatIsNotRestored: whatever is wrong, there is one clear error, and the directory is as it was.
func TestWhatIsNotRestored(t *testing.T) {
	running := t.TempDir()
	c := start(t, running, nil)
	runAgent(t, c, "a", nil)
	c.end(t, c.ask(t, listen(t)))
	path := c.backup(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := func(edit func([]byte) []byte) string {
		other := filepath.Join(t.TempDir(), "other.tar")
		if err := os.WriteFile(other, edit(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		return other
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	half := t.TempDir()
	if err := os.WriteFile(filepath.Join(half, backup.UnfinishedName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, file, dir, says string
	}{
		{"a file that is not there", filepath.Join(full, "missing"), "", "no such file"},
		{"a directory in place of the file", full, "", "is no file"},
		{"half of it", edited(func(b []byte) []byte { return b[:len(b)/2] }), "", "the end of the backup is missing"},
		{"a flipped bit", edited(func(b []byte) []byte { b[len(b)/2] ^= 4; return b }), "", "damaged"},
		{"another file", edited(func([]byte) []byte { return []byte("no") }), "", "not a backup"},
		{"a state that is not what the log amounts to", otherHash(t, whole), "", "amounts to another state"},
		{"a directory that is not empty", path, full, "not empty"},
		{"a directory of a coordinator that runs", path, running, "not empty"},
		{"a directory in which a restore did not come to its end", path, half, "empty it"},
		{"a directory below a file", path, filepath.Join(full, "thesis.txt", "data"), "not a directory"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = filepath.Join(t.TempDir(), "data")
			}
			before, _ := os.ReadDir(dir)
			_, err := restore.Restore(t.Context(), restore.Options{File: c.file, Dir: dir})
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.says)
			}
			after, err := os.ReadDir(dir)
			if len(after) != len(before) || c.dir == "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it leaves %v, %v", after, err)
			}
		})
	}
	if _, err := coordinator.New(t.Context(), coordinator.Options{DataDir: half, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true}); err == nil || !strings.Contains(err.Error(), "empty it") {
		t.Errorf("a coordinator on half a restore: %v", err)
	}
}

// otherHash is the same backup with another state in its manifest, and all sums right.
func otherHash(t *testing.T, file []byte) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "other.tar"))
	if err != nil {
		t.Fatal(err)
	}
	var w *backup.Writer
	_, err = backup.Read(bytes.NewReader(file), backup.Contents{
		Begin: func(m backup.Manifest) (err error) {
			m.StateHash[0] ^= 1
			w, err = backup.NewWriter(out, m)
			return err
		},
		File:    func(name string, data []byte) error { return w.File(name, data) },
		Key:     func(bucket, key string, value []byte) error { return w.Key(bucket, key, value) },
		Message: func(position uint64, data []byte) error { return w.Message(position, data) },
	})
	if err := errors.Join(err, w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
