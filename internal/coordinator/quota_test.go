package coordinator_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// counted is a target that counts who connects.
func counted(t *testing.T) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	host, err := probetest.ListenFunc(netip.MustParseAddrPort("127.0.0.1:0"), func(conn net.Conn) {
		n.Add(1)
		_, _ = io.Copy(io.Discard, conn) // to close it at once is a failure, which is looked at twice
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr(), &n
}

// agents starts n agents at once, which look at a target as often as they are asked, and waits until all are online.
func (w *world) agents(n int) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	w.t.Cleanup(func() { cancel(); running.Wait() })
	for i := range n {
		a, err := agent.New(agent.Options{
			Coordinators: []string{w.grpc}, DataDir: w.t.TempDir(), ID: fmt.Sprintf("a-%d", i), Vantage: &pb.Vantage{Region: "r"},
			Env: &probe.Env{
				Resolvers: []netip.AddrPort{w.target}, Hints: []netip.AddrPort{}, Controls: []string{w.target.String()},
				Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			},
			DrainTimeout: time.Second,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		running.Go(func() {
			if err := a.Run(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.allOnline(n)
}

// allOnline waits until so many agents are.
func (w *world) allOnline(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	stream, err := w.fleet.WatchAgents(ctx, &pb.WatchAgentsRequest{}, grpc.WaitForReady(true))
	online := map[string]bool{}
	for err == nil && len(online) < n {
		var response *pb.WatchAgentsResponse
		response, err = stream.Recv()
		for _, a := range response.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				online[a.GetId()] = true
			}
		}
	}
	if err != nil {
		w.t.Fatalf("%d of %d agents came: %v", len(online), n, err)
	}
}

// askAll has many users ask all agents of one target, all at once, and returns how many were let, and the jobs of those.
// On a busy machine an agent may be silent for a while: then it is not asked.
func (w *world) askAll(users, agents int, target netip.AddrPort) (let, jobs int) {
	w.t.Helper()
	var ids []string
	var mu sync.Mutex
	var asking sync.WaitGroup
	for range users {
		asking.Go(func() {
			r := w.tcp(target)
			r.Limit, r.Timeout = int32(agents), durationpb.New(5*time.Minute)
			response, err := w.api.CreateMeasurement(w.t.Context(), r)
			if err != nil && status.Code(err) != codes.ResourceExhausted {
				w.t.Error(err)
			}
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, response.GetMeasurement().GetId())
			}
		})
	}
	asking.Wait()
	for _, id := range ids {
		m, _ := w.end(id)
		if m.GetLedger().GetAnswered() != m.GetLedger().GetAsked() {
			w.t.Errorf("the ledger of one that was let: %v", m.GetLedger())
		}
		jobs += int(m.GetLedger().GetAsked())
	}
	return len(ids), jobs
}

// TestTargetBudgetIsGlobal (threat T5: a user, or many, make a cannon of the agents): what arrives at one target is
// within its budget, however many users ask however many agents. First it shows that it would not be.
func TestTargetBudgetIsGlobal(t *testing.T) {
	const users, agents, budget = 50, 100, 1000
	w := newWorld(t, coordinator.Options{})
	w.agents(agents)
	target, arrived := counted(t)
	if let, jobs := w.askAll(users/3, agents, target); let != users/3 || arrived.Load() != int64(jobs) || jobs <= budget {
		t.Fatalf("without a budget %d measurements were let and %d connections of %d jobs arrived; want more than %d", let, arrived.Load(), jobs, budget)
	}

	w.stop()
	w.opts.TargetBudget = access.TargetBudget{Burst: budget, PerSecond: 1}
	began := time.Now()
	w.start()
	w.allOnline(agents)
	target, arrived = counted(t)
	let, jobs := w.askAll(users, agents, target)
	if most := budget + int64(time.Since(began).Seconds()) + 1; arrived.Load() > most || arrived.Load() != int64(jobs) {
		t.Errorf("%d connections of %d jobs arrived; want all of them, and at most %d", arrived.Load(), jobs, most)
	}
	if let < budget/agents {
		t.Errorf("%d of %d users were let; want %d", let, users, budget/agents)
	}
}

// TestWhoIsOverABudgetIsToldWhen checks the error's details, and that the event is audited once.
func TestWhoIsOverABudgetIsToldWhen(t *testing.T) {
	w := newWorld(t, coordinator.Options{TargetBudget: access.TargetBudget{Burst: 2, PerSecond: 0.01}})
	w.agent("a", "r", true)
	var err error
	for range 20 {
		if _, err = w.api.CreateMeasurement(t.Context(), w.tcp(w.target)); err != nil {
			break
		}
	}
	var failure *errdetails.QuotaFailure
	for _, d := range status.Convert(err).Details() {
		if q, ok := d.(*errdetails.QuotaFailure); ok {
			failure = q
		}
	}
	if status.Code(err) != codes.ResourceExhausted || failure.GetViolations()[0].GetSubject() != "target:127.0.0.1" {
		t.Fatalf("%v, %v", err, failure)
	}
	if in := retryDelay(err); in < 90*time.Second || in > 100*time.Second {
		t.Errorf("told to wait %v; want about 100 s", in)
	}
	if !strings.Contains(err.Error(), "of all users together") {
		t.Errorf("%v: does not say whose budget it is", err)
	}
	list, err := pb.NewAccessServiceClient(w.conn).ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_QUOTA_REACHED}})
	for err == nil && len(list.GetEvents()) == 0 && t.Context().Err() == nil {
		list, err = pb.NewAccessServiceClient(w.conn).ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_QUOTA_REACHED}})
	}
	if err != nil || len(list.GetEvents()) != 1 {
		t.Errorf("audited: %v, %v", list, err)
	}
}
