package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/agentpolicy"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ruled is a bench whose jobs run under a policy's file, and a function that replaces the file and waits until it holds.
func ruled(t *testing.T, text string) (*bench, func(string)) {
	t.Helper()
	b := newBench(t, 3)
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte("version: 1\ntargets: {allow: [127.0.0.0/8]}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	file, err := agentpolicy.Open(path, probe.Egress{})
	if err != nil {
		t.Fatal(err)
	}
	b.policy = newPolicy(Options{Policy: file, Capacity: 3})
	b.policy.under(b.env)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.policy.follow(ctx, slog.New(slog.DiscardHandler)); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return b, func(text string) {
		t.Helper()
		_, changed := file.Current()
		write(text)
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("the new file is not read")
		}
	}
}

// TestKillSwitch: what runs ends at once and says why, what comes is refused and says why, and afterwards all is as it was.
func TestKillSwitch(t *testing.T) {
	b, change := ruled(t, "")
	for i := range 3 {
		if got := b.take(job(fmt.Sprint("m", i))); got.GetFailure() != pb.Failure_FAILURE_NONE {
			t.Fatal(got)
		}
		<-b.arrived // It waits for an answer that never comes.
	}
	change("stopped: the line is full\n")
	began := time.Now()
	b.wait()
	if took := time.Since(began); took > time.Second {
		t.Errorf("what ran went on for %v", took)
	}
	batch, _, err := b.spool.Next(0, 10)
	if err != nil || len(batch.GetResults()) != 3 {
		t.Fatalf("%d results of three jobs, %v: they would be lost without a word", len(batch.GetResults()), err)
	}
	const why = "the agent's operator has stopped it: the line is full"
	if got := b.take(job("m9")); got.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || got.GetDetail() != why {
		t.Errorf("a new job: %v", got)
	}
	change("")
	close(b.pass)
	if got := b.take(job("m10")); got.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("afterwards: %v", got)
	}
	b.wait()
}

func TestConcurrency(t *testing.T) {
	b, change := ruled(t, "limits: {concurrency: 1}\n")
	b.take(job("m1"))
	if got := b.take(job("m2")); got.GetFailure() != pb.Failure_FAILURE_AGENT_OVERLOADED || got.GetDetail() != "1 jobs are running, as many as may" {
		t.Errorf("beyond it: %v", got)
	}
	change("limits: {concurrency: 100}\n")
	if n := b.policy.capacity(); n != 3 {
		t.Errorf("%d at once, and the agent is made for 3", n)
	}
	if got := b.take(job("m3")); got.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("where two may: %v", got)
	}
	close(b.pass)
	b.wait()
}
