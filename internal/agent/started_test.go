package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/spool"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	poisonDir  = "ELSEWHERE_TEST_POISON_DIR" // set: this process is the agent that dies
	poisonHost = "127.0.0.66"
	poisonSays = "it has ended by itself"
)

// overflow has no end that a stack can hold. The compiler does not make a loop of it.
func overflow(n int) int {
	if n < 0 {
		return 0
	}
	return overflow(n+1) + 1
}

// TestPoisonChild is an agent's jobs, one of which takes it down. It is run by TestAPoisonJob alone.
func TestPoisonChild(t *testing.T) {
	dir := os.Getenv(poisonDir)
	if dir == "" {
		return // not the child
	}
	debug.SetMaxStack(1 << 20)
	sp, err := spool.Open(filepath.Join(dir, "spool"), "a", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	env := &probe.Env{
		Egress:   probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Controls: []string{}, Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{},
		Connect: func(_ context.Context, to netip.AddrPort, _ probe.ConnectOptions) (net.Conn, *pb.Evidence, error) {
			if to.Addr().String() == poisonHost {
				fmt.Println("poisoned", overflow(0))
			}
			here, there := net.Pipe()
			t.Cleanup(func() { _ = there.Close() })
			return here, &pb.Evidence{}, nil
		},
	}
	j, err := newJobs(Options{Env: env, Capacity: 10, DataDir: dir, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}, "a", sp)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := job("good"), job("poison\n+ 1 1 0 \"good\"") // what names a job must not forge a line
	bad.GetSpec().GetTcp().Host = poisonHost
	j.take(good)
	j.wait()
	if reply := j.take(bad); reply.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Fatal(reply)
	}
	j.wait()
	fmt.Println(poisonSays)
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAPoisonJob is threat T11: a job that takes the process down (an overflown stack cannot be recovered from)
// does so twice. Then it is not run again and its Result says why, and other jobs run as before.
func TestAPoisonJob(t *testing.T) {
	dir := t.TempDir()
	run := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPoisonChild$", "-test.v")
		cmd.Env = append(os.Environ(), poisonDir+"="+dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for life := 1; life <= maxCrashes; life++ {
		if out, err := run(); err == nil || !strings.Contains(out, "stack overflow") || strings.Contains(out, poisonSays) {
			t.Fatalf("life %d did not die of it: %v\n%.2000s", life, err, out)
		}
	}
	for range 2 { // and again
		if out, err := run(); err != nil || !strings.Contains(out, poisonSays) {
			t.Fatalf("it died once more: %v\n%.2000s", err, out)
		}
	}
	sp, err := spool.Open(filepath.Join(dir, "spool"), "a", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	batch, _, err := sp.Next(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, r := range batch.GetResults() {
		step := r.GetResult().GetSteps()[0]
		id, _, _ := strings.Cut(r.GetResult().GetMeasurementId(), "\n")
		texts[id] += fmt.Sprintln(step.GetFailure(), step.GetEvidence().GetText())
	}
	if !strings.HasPrefix(texts["poison"], "FAILURE_AGENT_INTERNAL agent_crash") || strings.Count(texts["poison"], "\n") != 1 {
		t.Errorf("the Result of the job that is not run: %q", texts["poison"])
	}
	if !strings.HasPrefix(texts["good"], "FAILURE_NONE") {
		t.Errorf("another job: %q", texts["good"])
	}
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
}

// restarted opens the file as the next life of an agent would.
func restarted(t *testing.T, name string) *started {
	t.Helper()
	s, err := openStarted(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStarted(t *testing.T) {
	key := func(i int) spool.Key { return spool.Key{Measurement: fmt.Sprint("m", i), Round: int32(i)} }
	name := filepath.Join(t.TempDir(), "started")
	s := restarted(t, name)
	s.begin(key(1), pb.StepKind_STEP_KIND_DNS_QUERY)
	s.begin(key(2), pb.StepKind_STEP_KIND_TCP_CONNECT)
	s.begin(key(3), pb.StepKind_STEP_KIND_TCP_CONNECT)
	s.end(key(3))

	s = restarted(t, name) // 1 and 2 were under way
	if got := s.quarantined(); len(got) != 0 {
		t.Errorf("after one crash %v are not run again", got)
	}
	s.begin(key(1), pb.StepKind_STEP_KIND_DNS_QUERY)
	s.begin(key(2), pb.StepKind_STEP_KIND_TCP_CONNECT)
	s.end(key(2)) // it was not to blame
	for i := range 20_000 {
		s.begin(key(100+i), pb.StepKind_STEP_KIND_TCP_CONNECT)
		s.end(key(100 + i))
	}
	if info, err := os.Stat(name); err != nil || info.Size() > 2*maxStartedBytes {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}

	for range 2 { // it stays so
		s = restarted(t, name)
		if got := s.quarantined(); len(got) != 1 || got[key(1)] != (suspect{pb.StepKind_STEP_KIND_DNS_QUERY, maxCrashes}) {
			t.Errorf("%v are not run again; want the first alone", got)
		}
	}
}

func FuzzStarted(f *testing.F) {
	f.Add([]byte("+ 0 1 0 \"m\"\n"))
	f.Add([]byte("! 1 1 0 \"m\"\n+ 0 1 0 \"m\"\n- 0 0 0 \"n\"\n+ 0 1 0 \"to"))
	f.Add(bytes.Repeat([]byte("! 9 9 9 \"\"\n"), 10_000))
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "started")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := restarted(t, name)
		before := len(s.quarantined())
		if after := len(restarted(t, name).quarantined()); after != before || len(s.order) != len(s.suspects) {
			t.Errorf("%d, and %d when read again", before, after)
		}
	})
}
