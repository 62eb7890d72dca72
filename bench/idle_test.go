package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// idleStreams is the number of streams that BenchmarkIdleStreams holds, each with a connection of its own.
const idleStreams = 2000

// holdAt is the environment of the process that holds the agents' end of idle streams: the coordinator's address.
const holdAt = "ELSEWHERE_BENCH_HOLD"

// BenchmarkIdleStreams is what an agent that reports nothing costs its coordinator in resident memory: a connection in
// clear and a stream. The agents' ends are in another process.
func BenchmarkIdleStreams(b *testing.B) {
	c, err := coordinator.New(b.Context(), coordinator.Options{
		DataDir: b.TempDir(), GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	before := resident(b)
	holder := exec.CommandContext(b.Context(), os.Args[0], "-test.run", "^TestHoldStreams$")
	holder.Env = append(os.Environ(), holdAt+"="+c.GRPCAddr().String())
	holder.Stderr = os.Stderr
	stdin, err := holder.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		b.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "held\n" {
		b.Fatalf("%q, %v", line, err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((resident(b)-before)/idleStreams, "KiB/stream")
	_ = stdin.Close()
	if err := holder.Wait(); err != nil {
		b.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// TestHoldStreams is the other process: it holds streams until its input ends.
func TestHoldStreams(t *testing.T) {
	addr := os.Getenv(holdAt)
	if addr == "" {
		return // not a test of its own: BenchmarkIdleStreams starts it
	}
	for i := range idleStreams {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		id := fmt.Sprintf("agent-%04d", i)
		r, err := pb.NewRegistrationServiceClient(conn).Register(t.Context(),
			&pb.RegisterRequest{Id: id, Vantage: &pb.Vantage{Region: "here"}}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := pb.NewResultServiceClient(conn).Report(t.Context())
		if err == nil {
			err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Hello{Hello: &pb.Hello{
				Agent: id, Credential: r.GetCredential(), Epoch: max(r.GetEpoch(), 1), Session: r.GetSession(),
			}}})
		}
		if err == nil { // one gap, so that the stream is known to stand
			err = stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Batch{Batch: &pb.ResultBatch{
				Gaps: []*pb.Gap{{First: 1, Last: 1, Reason: pb.GapReason_GAP_REASON_SPOOL_FULL}},
			}}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("held")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// resident is this process's memory, in KiB, after giving back what it does not need.
func resident(b *testing.B) float64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(text)
	if found == nil {
		b.Fatal("no VmRSS")
	}
	kib, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib
}
