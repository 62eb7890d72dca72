package threats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The budget of one target in the world of T5, in jobs. The rate is one in a minute and a half, so that none comes back
// while somebody looks.
const targetBurst, targetRate = 12, 0.011

// crew is how many agents there are in the world of T5.
const crew = 3

// user is somebody with a token of his own.
type user struct {
	*world
	name, id, secret string
	api              pb.MeasurementServiceClient
}

// user makes a token for somebody who may measure, as an administrator does.
func (w *world) user(name string, flags ...string) *user {
	w.t.Helper()
	made := &pb.CreateAPITokenResponse{}
	w.ask(made, append([]string{"token", "create", "--scope", "measure", "--name", name, "-J"}, flags...)...)
	u := &user{world: w, name: name, id: made.GetToken().GetId(), secret: made.GetSecret()}
	u.api = pb.NewMeasurementServiceClient(w.dialAs(u.secret))
	return u
}

// says runs the command line as the user, and returns how it ended and what it said.
func (u *user) says(args ...string) (code int, stdout, stderr string) {
	u.t.Helper()
	code, stdout, stderr, err := u.runAs("@"+write(u.t, "token", u.secret), args...)
	if err != nil {
		u.t.Fatal(err)
	}
	return code, stdout, stderr
}

// measures asks over gRPC, and does not wait for what comes of it.
func (u *user) measures(target netip.AddrPort, agents int32) error {
	_, err := u.api.CreateMeasurement(u.t.Context(), &pb.CreateMeasurementRequest{
		Spec:  &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
		Limit: agents,
	})
	return err
}

// exceeded is what an error says about a quota: whose it is, and when to try again (0: never).
func exceeded(t *testing.T, err error) (subject string, in time.Duration) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != codes.ResourceExhausted {
		t.Fatalf("%v; want RESOURCE_EXHAUSTED", err)
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.QuotaFailure:
			subject = d.GetViolations()[0].GetSubject()
		case *errdetails.RetryInfo:
			in = d.GetRetryDelay().AsDuration()
		}
	}
	return subject, in
}

var tryAgain = regexp.MustCompile(`; try again in (\d+m)?\d+s\n`)

// victim is a target that counts who connects.
func victim(t *testing.T, addr string) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	host, err := probetest.ListenFunc(netip.AddrPortFrom(netip.MustParseAddr(addr), 0), func(conn net.Conn) {
		n.Add(1)
		_, _ = io.Copy(io.Discard, conn) // to be let go at once would be a failure, and tried again
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr(), &n
}

// TestT5Cannon: users with tokens want more than they may, as they would: by the command line and over gRPC, with TLS.
// Each is told what there is not enough of and when to try again, and told the truth; nobody else is hurt by it, but that
// a target's budget is one for all; and what arrives at a target is within it.
func TestT5Cannon(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	coordinator := w.coordinate("--target-burst", fmt.Sprint(targetBurst), "--target-rate", fmt.Sprint(targetRate))
	control, _ := victim(t, "127.0.9.9")
	for i := range crew {
		w.agent(fmt.Sprintf("a-%d", i), "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", control.String())
	}
	w.online(crew)
	var users []*user
	for i := range 5 {
		users = append(users, w.user(fmt.Sprintf("user-%d", i)))
	}
	// Targets in networks of their own: a network has a budget too.
	t.Run("agents in a measurement", func(t *testing.T) { tooManyAgents(t, w.in(t)) })
	t.Run("measurements at once and an hour", func(t *testing.T) { tooManyMeasurements(t, w.in(t), users[0]) })
	t.Run("after the time that is said", func(t *testing.T) { saidWhen(t, w.in(t)) })
	t.Run("one target, all users", func(t *testing.T) { oneTarget(t, users) })
	t.Run("who may not ask", func(t *testing.T) { strangers(t, w.in(t)) })
	if _, said := coordinator.said(); !strings.Contains(said, "QUOTA_REACHED") {
		t.Errorf("nothing is said about quotas: %s", said)
	} else {
		for _, u := range users {
			if strings.Contains(said, u.secret[len(u.secret)-20:]) {
				t.Errorf("the token of %s is in what the coordinator says", u.name)
			}
		}
	}
}

// tooManyAgents: more agents than a token may ask in one measurement. That will never do, so no time is said.
func tooManyAgents(t *testing.T, w *world) {
	target, arrived := victim(t, "127.0.1.8")
	few := w.user("few", "--agents", "2")
	subject, in := exceeded(t, few.measures(target, crew))
	if subject != "token:"+few.id || in != 0 {
		t.Errorf("%s, again in %v; want the token's, and never", subject, in)
	}
	code, stdout, stderr := few.says("tcp", target.String(), "-L", fmt.Sprint(crew))
	if code != 4 || stdout != "" || !strings.Contains(stderr, "allows 2 agents in a measurement, and this one asks 3; lower the limit") || strings.Contains(stderr, "try again") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if arrived.Load() != 0 {
		t.Errorf("%d jobs of measurements that were refused", arrived.Load())
	}
	if code, stdout, stderr := few.says("tcp", target.String(), "-L", "2"); code != 0 || arrived.Load() != 2 {
		t.Errorf("as many as it may: exit %d, %d jobs: %s%s", code, arrived.Load(), stdout, stderr)
	}
}

// tooManyMeasurements: more than a token's burst. Another token goes on as before, at the same target.
func tooManyMeasurements(t *testing.T, w *world, other *user) {
	target, _ := victim(t, "127.0.2.8")
	slow := w.user("slow", "--burst", "2", "--hourly", "6")
	for i := range 2 {
		if code, stdout, stderr := slow.says("tcp", target.String(), "-L", "1"); code != 0 {
			t.Fatalf("the %d. of 2: exit %d: %s%s", i+1, code, stdout, stderr)
		}
	}
	code, stdout, stderr := slow.says("tcp", target.String(), "-L", "1")
	if code != 4 || stdout != "" || !strings.Contains(stderr, "allows 2 measurements at once and 6 an hour") || !tryAgain.MatchString(stderr) {
		t.Errorf("one more: exit %d: %s%s", code, stdout, stderr)
	}
	subject, in := exceeded(t, slow.measures(target, 1))
	if subject != "token:"+slow.id || in <= 0 || in > 10*time.Minute {
		t.Errorf("%s, again in %v; want the token's, and at most 10m0s", subject, in)
	}
	if err := other.measures(target, 1); err != nil {
		t.Errorf("another token: %v", err)
	}
	eventually(t, "the audit event", func(context.Context) error {
		events := &pb.ListAuditEventsResponse{}
		w.ask(events, "audit", "--kind", "quota_reached", "-J")
		if !slices.ContainsFunc(events.GetEvents(), func(e *pb.AuditEvent) bool { return e.GetTokenId() == slow.id }) {
			return errors.New(events.String())
		}
		return nil
	})
}

// saidWhen: who tries again when he was told to is let.
func saidWhen(t *testing.T, w *world) {
	target, _ := victim(t, "127.0.4.8")
	steady := w.user("steady", "--burst", "1", "--hourly", "1800")
	var refused error
	for range targetBurst {
		if refused = steady.measures(target, 1); refused != nil {
			break
		}
	}
	_, in := exceeded(t, refused)
	if in <= 0 || in > 2*time.Second {
		t.Fatalf("again in %v; want at most 2s", in)
	}
	<-time.After(in)
	if err := steady.measures(target, 1); err != nil {
		t.Errorf("after %v: %v", in, err)
	}
}

// oneTarget: all users ask of one target at once, each within his own quota. What arrives is within its budget; they are
// told that it is everybody's; and another target is looked at by the same users meanwhile.
func oneTarget(t *testing.T, users []*user) {
	target, arrived := victim(t, "127.0.3.8")
	spare, _ := victim(t, "127.0.5.8")
	began := time.Now()
	var let atomic.Int64
	errs := make(chan error, 4*len(users))
	var asking sync.WaitGroup
	for _, u := range users {
		asking.Go(func() {
			for range 4 {
				if err := u.measures(target, crew); err != nil {
					errs <- err
				} else {
					let.Add(1)
				}
			}
		})
	}
	asking.Wait()
	close(errs)
	for err := range errs {
		subject, in := exceeded(t, err)
		if subject != "target:"+target.Addr().String() || in <= 0 || in > crew*2*time.Minute {
			t.Errorf("%s, again in %v: %v", subject, in, err)
		}
	}
	most := targetBurst + int64(targetRate*time.Since(began).Seconds()) + 1
	if n := let.Load(); n < targetBurst/crew || crew*n > most {
		t.Errorf("%d measurements of %d were let, by %d agents each; the budget is %d jobs", n, 4*len(users), crew, most)
	}
	for _, u := range users[:2] {
		code, stdout, stderr := u.says("tcp", target.String(), "-L", fmt.Sprint(crew))
		if code != 4 || stdout != "" || !strings.Contains(stderr, "of all users together") || !tryAgain.MatchString(stderr) {
			t.Errorf("%s: exit %d: %s%s", u.name, code, stdout, stderr)
		}
		if code, stdout, stderr := u.says("tcp", spare.String(), "-L", "1"); code != 0 {
			t.Errorf("%s, another target: exit %d: %s%s", u.name, code, stdout, stderr)
		}
	}
	if n := arrived.Load(); n == 0 || n > crew*let.Load() {
		t.Errorf("%d connections arrived of %d jobs", n, crew*let.Load())
	}
	t.Logf("%d of %d measurements were let; %d connections arrived", let.Load(), 4*len(users), arrived.Load())
}

// strangers: who has no token, one to look with alone, or one that was made up.
func strangers(t *testing.T, w *world) {
	target, arrived := victim(t, "127.0.6.8")
	read := &pb.CreateAPITokenResponse{}
	w.ask(read, "token", "create", "--scope", "read", "--name", "looks", "-J")
	madeUp := read.GetSecret()[:len(read.GetSecret())-4] + "aaaa"
	for sentence, c := range map[string]struct{ token, want string }{
		"a token for looking":         {read.GetSecret(), "the coordinator does not allow it"},
		"a token with another secret": {madeUp, "the coordinator does not know you"},
	} {
		code, stdout, stderr, err := w.runAs("@"+write(t, "token", c.token), "tcp", target.String())
		if err != nil || code != 4 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, %v: %s%s", sentence, code, err, stdout, stderr)
		}
	}
	if _, err := pb.NewMeasurementServiceClient(w.dialAs("")).ListMeasurements(t.Context(), &pb.ListMeasurementsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	if arrived.Load() != 0 {
		t.Errorf("%d jobs", arrived.Load())
	}
}
