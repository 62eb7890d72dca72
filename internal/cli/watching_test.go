package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// turnOf is what one measurement finds.
type turnOf struct {
	refuse          error // what CreateMeasurement answers
	hang            bool  // nobody answers
	serving, behind int
	until           []time.Duration // of those that do not serve it, from the end of the measurement
}

// turning is a coordinator without a network, whose measurements go as turns say, the last one for ever.
type turning struct {
	pb.MeasurementServiceClient
	turns     []turnOf
	began     time.Time
	asked     []time.Duration // when, since the beginning
	from      []string
	cancelled []string
}

func (c *turning) now() turnOf { return c.turns[min(len(c.asked), len(c.turns))-1] }

func (c *turning) CreateMeasurement(_ context.Context, req *pb.CreateMeasurementRequest, _ ...grpc.CallOption) (*pb.CreateMeasurementResponse, error) {
	c.asked, c.from = append(c.asked, time.Since(c.began)), append(c.from, req.GetFrom())
	if err := c.now().refuse; err != nil {
		return nil, err
	}
	return &pb.CreateMeasurementResponse{Measurement: &pb.Measurement{
		Id: "turn-" + string(rune('0'+len(c.asked))), State: pb.State_STATE_RUNNING, Spec: req.GetSpec(),
		CreateTime: timestamppb.Now(), Deadline: timestamppb.New(time.Now().Add(30 * time.Second)), Ledger: &pb.Ledger{Asked: 1},
	}}, nil
}

// WatchMeasurement takes two seconds.
func (c *turning) WatchMeasurement(ctx context.Context, req *pb.WatchMeasurementRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.WatchMeasurementResponse], error) {
	ready := time.After(2 * time.Second)
	if c.now().hang {
		ready = nil
	}
	select {
	case <-ready:
		return &once{m: c.finished(req.GetId())}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (c *turning) CancelMeasurement(_ context.Context, req *pb.CancelMeasurementRequest, _ ...grpc.CallOption) (*pb.CancelMeasurementResponse, error) {
	c.cancelled = append(c.cancelled, req.GetId())
	m := c.finished(req.GetId())
	m.State, m.Verdict = pb.State_STATE_CANCELLED, nil
	return &pb.CancelMeasurementResponse{Measurement: m}, nil
}

// finished is a measurement by what its turn finds.
func (c *turning) finished(id string) *pb.Measurement {
	now, t := time.Now(), c.now()
	p := &pb.Propagation{Serving: int32(t.serving), Judged: int32(t.serving + len(t.until))}
	for i, left := range t.until {
		p.Perspectives = append(p.Perspectives, &pb.Perspective{
			Region: "eu-west", Server: "192.0.2.5" + string(rune('0'+i)) + ":53", Judged: true, Values: []string{"198.51.100.7"}, Until: timestamppb.New(now.Add(left)),
		})
		p.Until = timestamppb.New(now.Add(left))
	}
	for range t.serving {
		p.Perspectives = append(p.Perspectives, &pb.Perspective{Region: "us-east", Server: "192.0.2.9:53", Judged: true, Serving: true, Values: []string{"203.0.113.10"}})
	}
	for range t.behind {
		p.Authorities = append(p.Authorities, &pb.Perspective{Region: "eu-west", Server: "192.0.2.2:53", Name: "ns2.example", Values: []string{"198.51.100.7"}})
	}
	outcome := pb.Outcome_OUTCOME_FAIL
	switch {
	case p.GetJudged() == 0:
		outcome = pb.Outcome_OUTCOME_INCONCLUSIVE
	case len(t.until) == 0 && t.behind == 0:
		outcome = pb.Outcome_OUTCOME_OK
	}
	return &pb.Measurement{
		Id: id, State: pb.State_STATE_FINISHED, Spec: asksFor("203.0.113.10"), FinishTime: timestamppb.New(now), Ledger: &pb.Ledger{Asked: 1},
		Verdict: &pb.Verdict{Outcome: outcome, Findings: []*pb.Finding{{Code: pb.FindingCode_FINDING_CODE_PROPAGATION, Propagation: p}}},
	}
}

func asksFor(data string) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", Type: "A", Expect: []string{data}, Authoritative: true, LocalPublicResolvers: true}}}
}

// once is a stream of one message.
type once struct {
	grpc.ClientStream
	m *pb.Measurement
}

func (o *once) Recv() (*pb.WatchMeasurementResponse, error) {
	if o.m == nil {
		return nil, io.EOF
	}
	m := o.m
	o.m = nil
	return &pb.WatchMeasurementResponse{Measurement: m}, nil
}

// watched runs a watch to its end, and returns what it printed.
func watched(ctx context.Context, c *turning, format render.Format, every, while time.Duration) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	screen := render.Screen{Out: &stdout, Err: &stderr, Format: format}
	c.began = time.Now()
	w := &watching{
		asking: &asking{screen: screen, request: &pb.CreateMeasurementRequest{Spec: asksFor("203.0.113.10"), From: "world"}},
		client: c, every: every, turns: screen.Turns(while),
	}
	err = w.run(ctx, while)
	return stdout.String(), stderr.String(), err
}

func seconds(all ...int) (out []time.Duration) {
	for _, s := range all {
		out = append(out, time.Duration(s)*time.Second)
	}
	return out
}

func TestAWatchAsksWhenSomethingMayHaveChanged(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "restarting")
	for name, tc := range map[string]struct {
		turns        []turnOf
		every, while time.Duration
		code         int
		asked        []time.Duration // each turn takes 2 s
		says         string
	}{
		"what is there at once is not asked for again": {
			turns: []turnOf{{serving: 3}}, code: ExitOK, asked: seconds(0), says: "3 of 3 perspectives (100 %)",
		},
		"a second after the first cache lets go, then after the next": {
			turns: []turnOf{{serving: 1, until: seconds(20, 40)}, {serving: 2, until: seconds(19)}, {serving: 3}},
			code:  ExitOK, asked: seconds(0, 2+21, 2+21+2+20), says: "2 of 3 perspectives (66 %)",
		},
		"never sooner than after 5 s": {
			turns: []turnOf{{until: seconds(0)}, {until: seconds(-30)}, {serving: 1}}, code: ExitOK, asked: seconds(0, 7, 14),
		},
		"never later than after a minute": {
			turns: []turnOf{{until: seconds(86400)}, {serving: 1}}, code: ExitOK, asked: seconds(0, 62),
		},
		"every 15 s where no time to live is known": {
			turns: []turnOf{{}, {serving: 2, behind: 1}, {serving: 2}}, code: ExitOK, asked: seconds(0, 17, 34), says: "waiting is not enough: one of the zone's own servers serves something else",
		},
		"as often as it is told": {
			turns: []turnOf{{until: seconds(300)}, {serving: 1}}, every: 7 * time.Second, code: ExitOK, asked: seconds(0, 9),
		},
		"until its time is over, and once more then": {
			turns: []turnOf{{until: seconds(300)}}, every: 40 * time.Second, while: time.Minute, code: ExitFail, asked: seconds(0, 42, 60),
		},
		"servers that are behind are no success, whoever serves it": {
			turns: []turnOf{{serving: 5, behind: 1}}, while: 20 * time.Second, code: ExitFail, asked: seconds(0, 17, 20),
		},
		"nobody who could be judged is inconclusive": {
			turns: []turnOf{{}}, while: 10 * time.Second, code: ExitInconclusive, asked: seconds(0, 10),
		},
		"a turn that fails is tried again": {
			turns: []turnOf{{until: seconds(10)}, {refuse: unavailable}, {refuse: unavailable}, {serving: 1}}, code: ExitOK, asked: seconds(0, 13, 24, 35),
		},
		"the first one is not": {
			turns: []turnOf{{refuse: unavailable}, {serving: 1}}, code: ExitNetwork, asked: seconds(0),
		},
		"nor is what is refused": {
			turns: []turnOf{{until: seconds(10)}, {refuse: status.Error(codes.PermissionDenied, "no")}}, code: ExitNetwork, asked: seconds(0, 13),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &turning{turns: tc.turns}
				if tc.while == 0 {
					tc.while = time.Hour
				}
				out, errs, err := watched(t.Context(), c, render.Table, tc.every, tc.while)
				if got := code(err); got != tc.code {
					t.Errorf("exit %d, want %d: %v", got, tc.code, err)
				}
				if diff := cmp.Diff(tc.asked, c.asked); diff != "" {
					t.Errorf("asked at (-want +got):\n%s", diff)
				}
				if !strings.Contains(out, tc.says) {
					t.Errorf("it does not say %q:\n%s%s", tc.says, out, errs)
				}
			})
		})
	}
}

func TestAWatchAsksTheSameAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &turning{turns: []turnOf{{until: seconds(5)}, {refuse: status.Error(codes.Unavailable, "x")}, {until: seconds(5)}, {serving: 1}}}
		_, errs, err := watched(t.Context(), c, render.Table, 0, time.Hour)
		if diff := cmp.Diff([]string{"world", "turn-1", "turn-1", "turn-3"}, c.from); diff != "" || err != nil {
			t.Errorf("%v, from (-want +got):\n%s", err, diff)
		}
		if !strings.Contains(errs, "UNAVAILABLE") && !strings.Contains(errs, "Unavailable") || !strings.Contains(errs, "again in 6 s") {
			t.Errorf("the failed turn is not told: %q", errs)
		}
	})
}

func TestAPipeGetsALineForEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &turning{turns: []turnOf{{serving: 1, until: seconds(60)}, {serving: 1, until: seconds(60)}, {serving: 1, until: seconds(60)}, {serving: 2}}}
		out, errs, err := watched(t.Context(), c, render.Table, 10*time.Second, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		clock := c.began.Add(2 * time.Second).Local().Format("15:04:05")
		if want := clock + "  1 of 2 perspectives (50 %) serve www.example A 203.0.113.10; the rest by "; strings.Count(out, want) != 1 {
			t.Errorf("the first sum is there %d times:\n%s", strings.Count(out, want), out)
		}
		if strings.Count(out, "2 of 2 perspectives (100 %)") != 2 { // as it changes, and at the end
			t.Errorf("%s", out)
		}
		if want := "propagation www.example A --expect 203.0.113.10 from world: 1 agent asked, turn-1\n"; errs != want {
			t.Errorf("stderr %q, want %q", errs, want)
		}
	})
}

func TestAWatchInJSONIsOneDocument(t *testing.T) {
	for format, want := range map[render.Format]int{render.JSON: 1, render.JSONL: 3} {
		synctest.Test(t, func(t *testing.T) {
			c := &turning{turns: []turnOf{{until: seconds(5)}, {until: seconds(5)}, {serving: 1}}}
			out, _, err := watched(t.Context(), c, format, 0, time.Hour)
			if got := strings.Count(out, `"id":`); err != nil || got != want || !strings.Contains(out, "turn-3") {
				t.Errorf("%s: %d measurements, want %d, %v\n%s", format, got, want, err, out)
			}
		})
	}
}

func TestAnInterruptedWatchSaysWhatWasKnown(t *testing.T) {
	for name, tc := range map[string]struct {
		turns     []turnOf
		after     time.Duration
		cancelled []string
		says      string
	}{
		"between two turns": {[]turnOf{{serving: 1, until: seconds(3000)}}, 20 * time.Second, nil, "1 of 2 perspectives"},
		"in a turn, which is cancelled": {
			[]turnOf{{serving: 1, until: seconds(9)}, {hang: true}}, 20 * time.Second, []string{"turn-2"}, "1 of 2 perspectives",
		},
		"in the first turn": {[]turnOf{{hang: true}}, 5 * time.Second, []string{"turn-1"}, "CANCELLED"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(tc.after, cancel)
				c := &turning{turns: tc.turns}
				out, errs, err := watched(ctx, c, render.Table, 0, time.Hour)
				if code(err) != ExitInterrupted || !strings.Contains(out, tc.says) {
					t.Errorf("%v\n%s%s", err, out, errs)
				}
				if diff := cmp.Diff(tc.cancelled, c.cancelled); diff != "" {
					t.Errorf("cancelled (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAWatchThatCannotWriteEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		screen := render.Screen{Out: broken{}, Err: io.Discard}
		w := &watching{
			asking: &asking{screen: screen, request: &pb.CreateMeasurementRequest{Spec: asksFor("203.0.113.10")}},
			client: &turning{turns: []turnOf{{until: seconds(5)}}, began: time.Now()}, turns: screen.Turns(time.Hour),
		}
		if err := w.run(t.Context(), time.Hour); code(err) != ExitNetwork {
			t.Errorf("%v", err)
		}
	})
}

// broken takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("the pipe is closed") }

func TestTimesOfAWatchAreChecked(t *testing.T) {
	for _, tc := range []struct {
		flags        watchFlags
		every, while time.Duration
		says         string
	}{
		{watchFlags{}, 0, time.Hour, ""},
		{watchFlags{watch: true}, 0, time.Hour, ""},
		{watchFlags{watch: true, every: "30", while: "90m"}, 30 * time.Second, 90 * time.Minute, ""},
		{watchFlags{every: "30s"}, 0, 0, "add it, or leave them out"},
		{watchFlags{while: "30s"}, 0, 0, "add it, or leave them out"},
		{watchFlags{watch: true, every: "4s"}, 0, 0, `--every is "4s"; it is a time from 5s to 1h`},
		{watchFlags{watch: true, while: "8d"}, 0, 0, `--for is "8d"`},
	} {
		every, while, err := tc.flags.times()
		if tc.says != "" {
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%+v: %v, want %q", tc.flags, err, tc.says)
			}
		} else if err != nil || every != tc.every || while != tc.while {
			t.Errorf("%+v: %v, %v, %v", tc.flags, every, while, err)
		}
	}
}
