package canary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// sing starts a canary.
func sing(t *testing.T) *Canary {
	t.Helper()
	c, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// hear connects to a canary and returns what it says.
func hear(t *testing.T, c *Canary) string {
	t.Helper()
	conn, err := net.Dial("tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	text := make([]byte, 256)
	n, err := conn.Read(text)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(text[:n])
}

// report is a result that says that an agent connected and heard something.
func report(addr, heard string) *pb.Result {
	return &pb.Result{Steps: []*pb.Step{{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: addr,
		Failure: pb.Failure_FAILURE_NONE, Evidence: &pb.Evidence{Banner: []byte(heard)},
	}}}
}

func TestMismatch(t *testing.T) {
	c := sing(t)
	addr := c.Addr().String()
	before := time.Now()
	mine, another, third := hear(t, c), hear(t, c), hear(t, c)
	if !strings.HasPrefix(mine, greeting) || mine == another {
		t.Fatalf("%q and %q", mine, another)
	}
	now := func(agent string) Visit { return Visit{Began: before, Ended: time.Now(), Agent: agent} }
	failed := report(addr, "")
	failed.Steps[0].Failure = pb.Failure_FAILURE_TCP_TIMEOUT
	for _, step := range []struct {
		sentence string
		visit    Visit
		result   *pb.Result
		want     string
	}{
		{"what it said", now("a"), report(addr, mine), ""},
		{"the same again, since a result can come twice", now("a"), report(addr, mine), ""},
		{"what it said to somebody else", now("b"), report(addr, mine), "as agent a does"},
		{"what it said, to another agent", now("b"), report(addr, another), ""},
		{"what it never said", now("c"), report(addr, greeting+"made up\r\n"), "never said"},
		{"what another host says", now("c"), report(addr, "SSH-2.0-OpenSSH\r\n"), "never said"},
		{"what it says at another time", Visit{Began: time.Now(), Ended: time.Now().Add(time.Hour), Agent: "c"}, report(addr, third), "another time"},
		{"another address", now("c"), report("192.0.2.1:80", third), "in place of the canary"},
		{"that it could not connect", now("c"), failed, ""},
		{"nothing at all", now("c"), &pb.Result{}, ""},
		{"that it heard nothing, once", now("d"), report(addr, ""), ""},
		{"twice", now("d"), report(addr, ""), ""},
		{"three times in turn", now("d"), report(addr, ""), "3 times in turn"},
		{"that it heard nothing, after it did", now("a"), report(addr, ""), ""},
	} {
		if got := c.Mismatch(step.visit, step.result); (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("%s: %q, want %q", step.sentence, got, step.want)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	c := sing(t)
	first := c.next(netip.Addr{})
	for range maxRemembered {
		c.next(netip.Addr{})
	}
	if len(c.said) != maxRemembered || len(c.order) != maxRemembered || c.said[first] != nil {
		t.Errorf("%d banners, %d in order", len(c.said), len(c.order))
	}
	for i := range maxAgents + 100 {
		c.Mismatch(Visit{Agent: fmt.Sprint(i)}, report(c.Addr().String(), ""))
	}
	if len(c.silent) > maxAgents {
		t.Errorf("%d agents", len(c.silent))
	}
}
