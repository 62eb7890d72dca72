package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestACheckInAPipeIsALineForEachAgentAndThenTheFindings(t *testing.T) {
	c := blocked()
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "from", "Germany+AWS,JP", "-L", "7", "-4", "--timeout", "45", "--expect", "open")
	want := `ap-south  ap-1  Mumbai/AWS   203.0.113.10:443 ✗ tcp_timeout 8.1 s
eu-west   eu-1  Dublin/AWS   203.0.113.10:443 ✓ 12 ms
us-east   us-1  Ashburn/AWS  203.0.113.10:443 ✓ 12 ms
us-east   us-2  AWS          no answer
ERROR regional_block  ap-south  (drop, tcp_timeout, blame path, confidence medium)
  ap-south: no answer from 203.0.113.10:443.
  hint: allow ap-south.
FAIL · 4 asked, 3 answered, 1 lost · 8.2 s · 01k5w8zv3c4x7e9m2n6p8q0r1s
`
	if diff := cmp.Diff(want, got.out); diff != "" {
		t.Errorf("stdout (-want +got):\n%s", diff)
	}
	if got.code != cli.ExitFail {
		t.Errorf("exit %d, want %d", got.code, cli.ExitFail)
	}
	if want := "tcp example.com:443 --expect open -4 from Germany+AWS,JP: 4 agents asked, " + theID + "\n"; got.err != want {
		t.Errorf("stderr %q, want %q", got.err, want)
	}
	wantReq := &pb.CreateMeasurementRequest{
		Spec: &pb.Spec{
			Check:  &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "example.com", Port: 443, Expect: pb.Reachability_REACHABILITY_OPEN}},
			Family: pb.Family_FAMILY_IPV4,
		},
		From: "Germany+AWS,JP", Limit: 7, Timeout: durationpb.New(45 * time.Second),
	}
	if diff := cmp.Diff([]*pb.CreateMeasurementRequest{wantReq}, c.created, protocmp.Transform(), protocmp.IgnoreFields(wantReq, "id")); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// dying is a coordinator that takes a request and dies.
type dying struct {
	*coordinator
	server *grpc.Server
}

func (d *dying) CreateMeasurement(ctx context.Context, req *pb.CreateMeasurementRequest) (*pb.CreateMeasurementResponse, error) {
	_, _ = d.coordinator.CreateMeasurement(ctx, req)
	go d.server.Stop()
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestACheckIsAskedForOfAnother has a coordinator die when it has the request, and nobody knows what came of it: another one
// is asked for the measurement of the same id.
func TestACheckIsAskedForOfAnother(t *testing.T) {
	for range 100 {
		c, d := blocked(), &dying{coordinator: blocked(), server: grpc.NewServer()}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pb.RegisterMeasurementServiceServer(d.server, d)
		go func() { _ = d.server.Serve(l) }()
		t.Cleanup(d.server.Stop)
		got := newWorld(t).run(t, "tcp", "example.com:443", "--insecure", "--coordinator", l.Addr().String()+","+c.serve(t))
		if got.code != cli.ExitFail || !strings.Contains(got.out, "regional_block") || len(c.created) != 1 {
			t.Fatalf("exit %d, stderr %q, stdout %q, asked for %d times", got.code, got.err, got.out, len(c.created))
		}
		if len(d.created) == 0 {
			continue // calls go around, and it was the other's turn
		}
		if id := d.created[0].GetId(); len(id) != len(theID) || id != c.created[0].GetId() {
			t.Errorf("the first was asked for %q, the other for %q", id, c.created[0].GetId())
		}
		return
	}
	t.Fatal("nobody has died: this shows nothing")
}

func TestJSONIsOneDocumentWithTheLedgerAndTheResultsByAgent(t *testing.T) {
	c := blocked()
	r := c.m.Results
	r[0], r[2] = r[2], r[0] // they arrive in another order
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "-J")
	if got.err != "" || got.code != cli.ExitFail {
		t.Errorf("exit %d, stderr %q; want 1 and nothing", got.code, got.err)
	}
	m := &pb.Measurement{}
	if err := protojson.Unmarshal([]byte(got.out), m); err != nil {
		t.Fatal(err)
	}
	r[0], r[2] = r[2], r[0]
	if diff := cmp.Diff(c.m, m, protocmp.Transform()); diff != "" {
		t.Errorf("measurement (-want +got):\n%s", diff)
	}
	for _, line := range []string{`"lost": 1`, `"refused": 0`, `"block": "BLOCK_KIND_DROP"`, `"duration": "8.100s"`, `"late": 0`} {
		if !strings.Contains(got.out, line) {
			t.Errorf("no %s in\n%s", line, got.out)
		}
	}
}

func TestALedgerIsThereAlsoWhenNobodyWasAsked(t *testing.T) {
	c := blocked()
	c.m.Ledger, c.m.Asks, c.m.Results, c.m.Verdict = nil, nil, nil, nil
	got := newWorld(t).at(c.serve(t)).run(t, "show", theID, "-J")
	var doc struct{ Ledger map[string]int }
	if err := json.Unmarshal([]byte(got.out), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"asked": 0, "answered": 0, "lost": 0, "refused": 0, "ineligible": 0}
	if diff := cmp.Diff(want, doc.Ledger); diff != "" {
		t.Error(diff)
	}
	if got.code != cli.ExitInconclusive {
		t.Errorf("exit %d, want 3: nothing was concluded", got.code)
	}
}

func TestTheVerdictDecidesTheExitCode(t *testing.T) {
	for outcome, want := range map[pb.Outcome]int{
		pb.Outcome_OUTCOME_OK: 0, pb.Outcome_OUTCOME_FAIL: 1, pb.Outcome_OUTCOME_INCONCLUSIVE: 3, pb.Outcome_OUTCOME_UNSPECIFIED: 3,
	} {
		c := blocked()
		c.m.Verdict.Outcome = outcome
		w := newWorld(t).at(c.serve(t))
		for _, args := range [][]string{{"tls", "example.com"}, {"show", theID}, {"show", "last"}, {"watch", theID}} {
			if got := w.run(t, args...); got.code != want {
				t.Errorf("%v with %v: exit %d, want %d; %s", args, outcome, got.code, want, got.err)
			}
		}
	}
}

func TestABrokenStreamIsTakenUpAgainAndNothingIsCountedTwice(t *testing.T) {
	c := blocked()
	c.watch = func(n int, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
		if err := c.tell(s, min(n+1, 3)); err != nil || n >= 2 {
			return err
		}
		if n == 1 {
			return nil // an end without an error is no end either
		}
		return status.Error(codes.Unavailable, "restarting")
	}
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443")
	if got.code != cli.ExitFail || strings.Count(got.out, "203.0.113.10:443 ✓") != 2 || strings.Count(got.out, "tcp_timeout 8.1 s") != 1 {
		t.Errorf("exit %d\n%s%s", got.code, got.out, got.err)
	}
	if got := fmt.Sprint(c.after); got != "[0 1 2]" {
		t.Errorf("watched after %s; each time it goes on where it broke off", got)
	}
	if n := strings.Count(got.err, "the coordinator does not answer"); n != 2 {
		t.Errorf("it was lost sight of twice, and said %d times so: %s", n, got.err)
	}
}

func TestResultsThatTheStreamDidNotBringAreFetched(t *testing.T) {
	c := blocked()
	c.watch = func(_ int, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
		return s.Send(&pb.WatchMeasurementResponse{Measurement: c.closed(), Results: c.m.GetResults()[:1]})
	}
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "--format", "csv")
	if lines := strings.Count(got.out, "\n"); lines != 1+3*2 {
		t.Errorf("%d lines, want a head and two steps of three agents:\n%s", lines, got.out)
	}
}

func TestAnErrorThatIsNotPassingEndsTheWatch(t *testing.T) {
	c := blocked()
	c.watch = func(int, grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
		return status.Error(codes.PermissionDenied, "not yours")
	}
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "-J")
	if got.code != cli.ExitNetwork || got.out != "" || !strings.Contains(got.err, theID) || strings.Count(got.err, "\n") != 1 {
		t.Errorf("exit %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
}

// interruptible makes a coordinator whose stream tells one result and then nothing; told is closed
// when it has.
func interruptible() (c *coordinator, told chan struct{}) {
	c, told = blocked(), make(chan struct{})
	c.watch = func(_ int, s grpc.ServerStreamingServer[pb.WatchMeasurementResponse]) error {
		if err := c.tell(s, 1); err != nil {
			return err
		}
		close(told)
		<-s.Context().Done()
		return s.Context().Err()
	}
	return c, told
}

func TestAnInterruptCancelsAndShowsWhatCame(t *testing.T) {
	for _, format := range []string{"table", "json"} {
		c, told := interruptible()
		w := newWorld(t).at(c.serve(t))
		ctx, interrupt := context.WithCancel(t.Context())
		go func() { <-told; interrupt() }()
		got := w.runContext(ctx, "tcp", "example.com:443", "--format", format)
		if got.code != cli.ExitInterrupted {
			t.Errorf("%s: exit %d, want 130: %s", format, got.code, got.err)
		}
		if diff := cmp.Diff([]string{theID}, c.cancelled); diff != "" {
			t.Errorf("%s: cancelled (-want +got):\n%s", format, diff)
		}
		want := map[string]string{"table": "FAIL · cancelled · 4 asked", "json": `"state": "STATE_CANCELLED"`}[format]
		if !strings.Contains(got.out, want) || !strings.Contains(got.err, "was cancelled") {
			t.Errorf("%s: no %q in\n%s%s", format, want, got.out, got.err)
		}
	}
}

func TestAnInterruptStopsWatchingWithoutCancelling(t *testing.T) {
	c, told := interruptible()
	c.m.State = pb.State_STATE_RUNNING
	w := newWorld(t).at(c.serve(t))
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-told; interrupt() }()
	got := w.runContext(ctx, "watch", theID)
	if got.code != cli.ExitInterrupted || len(c.cancelled) != 0 {
		t.Errorf("exit %d, cancelled %v", got.code, c.cancelled)
	}
}

func TestAnInterruptBeforeTheQuestionAsksNothing(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if got := w.runContext(ctx, "tcp", "example.com:443"); got.code != cli.ExitInterrupted || len(c.created) != 0 {
		t.Errorf("exit %d, created %v", got.code, c.created)
	}
}

func TestFromLastAsksTheAgentsOfTheLastMeasurement(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	if got := w.run(t, "tcp", "example.com:443", "from", "last"); got.code != cli.ExitUsage || len(c.created) != 0 {
		t.Errorf("with nothing measured yet: exit %d, %q", got.code, got.err)
	}
	w.run(t, "tcp", "example.com:443")
	for _, args := range [][]string{{"from", "last"}, {"-F", "last"}, {"from", theID}} {
		w.run(t, append([]string{"tls", "example.com"}, args...)...)
		if got := c.created[len(c.created)-1].GetFrom(); got != theID {
			t.Errorf("%v: from %q, want the id", args, got)
		}
	}
	other := blocked()
	if got := w.at(other.serve(t)).run(t, "tcp", "example.com:443", "from", "last"); got.code != cli.ExitUsage {
		t.Errorf("another coordinator: exit %d, want 2: the id means nothing there", got.code)
	}
}

func TestRunCheckIsThereForTheDemo(t *testing.T) {
	c := blocked()
	conn, err := cli.Dial(cli.Endpoint{Address: c.serve(t), Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out, errs strings.Builder
	m, err := cli.RunCheck(t.Context(), conn, &pb.CreateMeasurementRequest{Spec: c.m.GetSpec()}, cli.NewScreen(&out, &errs, nil))
	if err != nil || cli.ExitCode(m) != cli.ExitFail || len(m.GetResults()) != 3 || !strings.Contains(out.String(), "regional_block") {
		t.Errorf("err %v, exit %d\n%s", err, cli.ExitCode(m), out.String())
	}
	c.refuse = status.Error(codes.FailedPrecondition, "no agent matches")
	_, err = cli.RunCheck(t.Context(), conn, &pb.CreateMeasurementRequest{}, cli.NewScreen(&out, &errs, nil))
	var coded *cli.Error
	if !errors.As(err, &coded) || coded.Code != cli.ExitNetwork {
		t.Errorf("got %v, want an error with exit code 4", err)
	}
}
