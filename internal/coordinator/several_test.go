package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/cluster"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	"github.com/elsewhere-net/elsewhere/internal/position"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trio is three coordinators that are one service, and can be stopped and started again.
type trio struct {
	t     *testing.T
	opts  [embedded.Members]Options
	c     [embedded.Members]*Coordinator
	stops [embedded.Members]func()
	conns [embedded.Members]*grpc.ClientConn
}

// newTrio starts three coordinators, which need each other to start, in clear.
func newTrio(t *testing.T) *trio { return newTrioWith(t, false) }

func newTrioWith(t *testing.T, secure bool) *trio {
	t.Helper()
	w := &trio{t: t}
	file := filepath.Join(t.TempDir(), "gossip.key")
	if err := os.WriteFile(file, []byte(strings.Repeat("6b", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := cluster.OpenKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	var gossip []string
	for i := range w.opts {
		gossip = append(gossip, free(t, i))
	}
	for i := range w.opts {
		w.opts[i] = Options{
			DataDir: t.TempDir(), GRPCAddr: free(t, i), NATSAddr: free(t, i), Insecure: !secure,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("at", name(i)),
			Others: &Others{
				Name: name(i), GossipAddr: gossip[i], Join: gossip, Keys: keys,
			},
		}
	}
	if secure {
		w.share()
	}
	w.start(0, 1, 2)
	w.ready(0, 1, 2)
	return w
}

// share gives all of them one authority.
func (w *trio) share() {
	w.t.Helper()
	if _, err := identity.Open(w.opts[0].DataDir, identity.Options{}); err != nil {
		w.t.Fatal(err)
	}
	for _, name := range []string{"ca.pem", "ca.key"} {
		data, err := os.ReadFile(filepath.Join(w.opts[0].DataDir, name))
		for _, o := range w.opts[1:] {
			err = errors.Join(err, os.WriteFile(filepath.Join(o.DataDir, name), data, 0o600))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// credentials are an administrator's at a coordinator.
func (w *trio) credentials(i int) []grpc.DialOption {
	if w.opts[i].Insecure {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	// Whom a client trusts when the authorities change is shown elsewhere.
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithPerRPCCredentials(administrator(filepath.Join(w.opts[i].DataDir, backup.AdminFile)))}
}

// administrator is the file of a token, which is there when a coordinator is ready.
type administrator string

func (a administrator) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(a))
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, err
}

func (administrator) RequireTransportSecurity() bool { return true }

func name(i int) string { return fmt.Sprintf("c-%d", i+1) }

// free is an address where nobody listens, of a coordinator's own host.
func free(t *testing.T, i int) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.7.%d:0", 11+i))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start starts some of them, all at once.
func (w *trio) start(which ...int) {
	w.t.Helper()
	type made struct {
		i   int
		c   *Coordinator
		err error
	}
	all := make(chan made)
	for _, i := range which {
		go func() {
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
			defer cancel()
			c, err := New(ctx, w.opts[i])
			all <- made{i, c, err}
		}()
	}
	for range which {
		m := <-all
		if m.err != nil {
			w.t.Fatal(m.err)
		}
		w.run(m.i, m.c)
	}
}

func (w *trio) run(i int, c *Coordinator) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	conn, err := grpc.NewClient(c.GRPCAddr().String(), w.credentials(i)...)
	if err != nil {
		w.t.Error(err)
	}
	w.c[i], w.conns[i] = c, conn
	stopped := false
	w.stops[i] = func() {
		if stopped {
			return
		}
		stopped = true
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("%s: %v", name(i), err)
		}
	}
	w.t.Cleanup(w.stops[i])
}

// ready waits until some of them may be used, and know that all of those live.
func (w *trio) ready(which ...int) {
	w.t.Helper()
	eventually(w.t, "coordinators are ready", func() bool {
		return !slices.ContainsFunc(which, func(i int) bool {
			return w.c[i].unready() != "" || len(w.c[i].others.alive()) != len(which)
		})
	})
}

// eventually waits for something that is so within a minute.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
		pauseFor(t, 10*time.Millisecond)
	}
}

func pauseFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// agents starts agents that know one coordinator each, and waits until all coordinators know all agents.
func (w *trio) agents(n int) {
	w.t.Helper()
	control := accepting(w.t)
	for k := range n {
		env := &probe.Env{Resolvers: []netip.AddrPort{control}, Hints: []netip.AddrPort{}, Controls: []string{control.String()}}
		env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		opts := agent.Options{
			Coordinators: []string{w.opts[k%len(w.opts)].GRPCAddr}, DataDir: w.t.TempDir(), ID: fmt.Sprintf("agent-%d", k+1),
			Vantage: &pb.Vantage{Region: fmt.Sprintf("region-%d", k+1)}, DrainTimeout: time.Second,
			Env: env,
		}
		w.enrol(&opts)
		a, err := agent.New(opts)
		if err != nil {
			w.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		w.t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		})
	}
	eventually(w.t, "all coordinators know all agents", func() bool { return w.online(n) })
}

// enrol has an agent be who it says, where there is TLS.
func (w *trio) enrol(opts *agent.Options) {
	w.t.Helper()
	if w.opts[0].Insecure {
		return
	}
	made, err := pb.NewAccessServiceClient(w.conns[0]).CreateJoinToken(w.t.Context(), &pb.CreateJoinTokenRequest{
		Join: &pb.JoinToken{Agent: opts.ID, Vantage: opts.Vantage},
	})
	if err == nil {
		opts.Join = made.GetSecret()
		opts.Identity, err = agent.Enrol(w.t.Context(), *opts)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// online says whether every coordinator that runs knows n agents that live.
func (w *trio) online(n int) bool {
	return !slices.ContainsFunc(w.c[:], func(c *Coordinator) bool {
		up := 0
		for k := range n {
			if c.fleet.Get(fmt.Sprintf("agent-%d", k+1)).GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				up++
			}
		}
		return up != n
	})
}

func tcpSpec(target netip.AddrPort) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}}
}

// ask opens a measurement at one of them; header is what its answer came with.
func (w *trio) ask(i int, target netip.AddrPort, timeout time.Duration) (m *pb.Measurement, header metadata.MD) {
	w.t.Helper()
	r, err := pb.NewMeasurementServiceClient(w.conns[i]).CreateMeasurement(w.t.Context(), &pb.CreateMeasurementRequest{
		Spec:    tcpSpec(target),
		Timeout: durationpb.New(timeout),
	}, grpc.Header(&header))
	if err != nil {
		w.t.Fatalf("%s: %v", name(i), err)
	}
	return r.GetMeasurement(), header
}

// end waits at one of them until a measurement is closed.
func (w *trio) end(i int, id string) *pb.Measurement {
	w.t.Helper()
	var m *pb.Measurement
	eventually(w.t, "a measurement ends", func() bool {
		r, err := pb.NewMeasurementServiceClient(w.conns[i]).GetMeasurement(w.t.Context(), &pb.GetMeasurementRequest{Id: id})
		m = r.GetMeasurement()
		return err == nil && m.GetState() != pb.State_STATE_RUNNING
	})
	return m
}

// equal waits until all that run have folded the same, and says what.
func (w *trio) equal(which ...int) {
	w.t.Helper()
	eventually(w.t, "equal states", func() bool {
		want := w.c[which[0]].seen()
		_, hash := w.c[which[0]].store.Hash()
		return !slices.ContainsFunc(which, func(i int) bool {
			_, is := w.c[i].store.Hash()
			return w.c[i].seen() != want || string(is) != string(hash)
		})
	})
}

// accepting is a target that accepts connections.
func accepting(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.7.4:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestAnyCoordinatorServesAnyRequest(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	target := accepting(t)
	for i := range w.c {
		m, header := w.ask(i, target, 20*time.Second)
		// Whoever comes to another coordinator with what he has seen finds what he has written.
		other := (i + 1) % len(w.c)
		ctx := metadata.AppendToOutgoingContext(t.Context(), position.Header, header.Get(position.Header)[0])
		if _, err := pb.NewMeasurementServiceClient(w.conns[other]).GetMeasurement(ctx, &pb.GetMeasurementRequest{Id: m.GetId()}); err != nil {
			t.Errorf("opened at %s, at %s: %v", name(i), name(other), err)
		}
		l := w.end(other, m.GetId()).GetLedger()
		if l.GetAsked() != 3 || l.GetAnswered() != 3 {
			t.Errorf("asked at %s: %v", name(i), l)
		}
	}
	w.equal(0, 1, 2)
	for i := range w.c {
		list, err := pb.NewCoordinatorServiceClient(w.conns[i]).ListCoordinators(t.Context(), &pb.ListCoordinatorsRequest{})
		if err != nil || len(list.GetCoordinators()) != len(w.c) {
			t.Fatalf("%s: %v %v", name(i), list, err)
		}
		leads := ""
		for k, c := range list.GetCoordinators() {
			if c.GetName() != name(k) || c.GetLiveness() != pb.Liveness_LIVENESS_ALIVE || c.GetState().GetUnready() != "" || c.GetGrpcAddress() != w.opts[k].GRPCAddr {
				t.Errorf("%s says of one: %v", name(i), c)
			}
			leads += strings.Join(c.GetState().GetLeads(), " ") + " "
		}
		for _, what := range []string{"meta", "log", "tokens", "agents"} {
			if strings.Count(leads, what) != 1 {
				t.Errorf("%s: %s is led by %d of them: %s", name(i), what, strings.Count(leads, what), leads)
			}
		}
	}
	// What was seen of another log says nothing here, and what can't be of any is refused.
	for seen, want := range map[string]codes.Code{"other/999999": codes.OK, w.c[0].history.ID() + "/x": codes.InvalidArgument} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), position.Header, seen)
		if _, err := pb.NewFleetServiceClient(w.conns[0]).ListAgents(ctx, &pb.ListAgentsRequest{}); status.Code(err) != want {
			t.Errorf("with position %s: %v", seen, err)
		}
	}
}

// TestOneThatIsBehindDoesNotDenyWhatIsThere asks a coordinator at once for what another one has said is there, as somebody
// who was given only the id does.
func TestOneThatIsBehindDoesNotDenyWhatIsThere(t *testing.T) {
	w := newTrio(t)
	w.agents(1)
	target := accepting(t)
	behind := 0
	n := 0
	for ; behind < 3; n++ {
		if n == 2000 {
			t.Fatal("nobody was ever behind: this shows nothing")
		}
		m, _ := w.ask(n%3, target, 20*time.Second)
		other := (n + 1) % 3
		if _, err := w.c[other].store.Get(m.GetId()); err != nil {
			behind++
		}
		got, err := pb.NewMeasurementServiceClient(w.conns[other]).GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: m.GetId()})
		if err != nil || got.GetMeasurement().GetId() != m.GetId() {
			t.Fatalf("opened at %s, at %s: %v", name(n%3), name(other), err)
		}
	}
	_, err := pb.NewMeasurementServiceClient(w.conns[0]).GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: newID()})
	if status.Code(err) != codes.NotFound {
		t.Errorf("what nobody has: %v", err)
	}
}

func TestOneCoordinatorStopsAndComesBack(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	target := accepting(t)
	for gone := range w.c {
		rest := []int{(gone + 1) % 3, (gone + 2) % 3}
		before, _ := w.ask(gone, target, 20*time.Second)
		w.stops[gone]()
		during, _ := w.ask(rest[0], target, 20*time.Second)
		for _, m := range []*pb.Measurement{before, during} {
			if l := w.end(rest[1], m.GetId()).GetLedger(); l.GetAnswered() != l.GetAsked() || l.GetAsked() == 0 {
				t.Errorf("without %s: %v", name(gone), l)
			}
		}
		w.start(gone)
		w.ready(0, 1, 2)
		w.equal(0, 1, 2)
		eventually(t, "all agents are back", func() bool { return w.online(3) })
	}
}

// TestTheOthersTellWhichAgentsLive starts a coordinator again: it need not listen until each agent has beaten.
func TestTheOthersTellWhichAgentsLive(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	w.stops[0]()
	w.start(0)
	eventually(t, "it is ready", func() bool { return w.c[0].unready() == "" })
	told := 0
	for k := range 3 {
		a := w.c[0].fleet.Get(fmt.Sprintf("agent-%d", k+1))
		if a.GetState() != pb.AgentState_AGENT_STATE_ONLINE {
			t.Errorf("it is ready, and has of an agent: %v", a)
		}
		if a.GetLastSeenTime().AsTime().Before(w.c[0].started) {
			told++
		}
	}
	if told == 0 {
		t.Error("all agents have beaten meanwhile: it was told of none")
	}
}

// TestOneThatIsLeftAloneStops has a coordinator stop that has things to write and nobody to write them with.
func TestOneThatIsLeftAloneStops(t *testing.T) {
	w := newTrio(t)
	w.agents(1)
	w.stops[0]()
	w.stops[1]()
	eventually(t, "nobody leads", func() bool { return w.c[2].unready() != "" })
	calling, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, _ = pb.NewMeasurementServiceClient(w.conns[2]).CreateMeasurement(calling, &pb.CreateMeasurementRequest{Spec: tcpSpec(accepting(t))})
	}()
	w.c[2].audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_FLOOD, Address: "192.0.2.1"})
	began := time.Now()
	w.stops[2]()
	if took := time.Since(began); took > 2*stopTimeout {
		t.Errorf("it took %v", took)
	}
}

// TestStatesAreShownAtOnePosition lists the coordinators while the log grows, at each of them in turn.
func TestStatesAreShownAtOnePosition(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	target := accepting(t)
	ctx, end := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer end()
	for i, conn := range w.conns {
		asking.Go(func() {
			for ctx.Err() == nil {
				_, err := pb.NewMeasurementServiceClient(conn).CreateMeasurement(ctx, &pb.CreateMeasurementRequest{Spec: tcpSpec(target)})
				if err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", name(i), err)
					return
				}
			}
		})
	}
	apart := 0
	for n := range 12 {
		var at [3]uint64
		for i, c := range w.c {
			at[i], _ = c.store.Position()
		}
		if at[0] != at[1] || at[1] != at[2] {
			apart++
		}
		list, err := pb.NewCoordinatorServiceClient(w.conns[n%3]).ListCoordinators(t.Context(), &pb.ListCoordinatorsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.GetCoordinators() {
			is, want := c.GetState(), list.GetCoordinators()[0].GetState()
			if is.GetPosition() != want.GetPosition() || string(is.GetStateHash()) != string(want.GetStateHash()) || is.GetPosition() < at[n%3] {
				t.Errorf("at %s: %s is at %d with %.4x, %s at %d with %.4x", name(n%3), c.GetName(), is.GetPosition(), is.GetStateHash(),
					want.GetName(), want.GetPosition(), want.GetStateHash())
			}
		}
		pauseFor(t, freshFor)
	}
	if apart == 0 {
		t.Error("they were at one position all the time: this shows nothing")
	}
}

func TestCallersDoNotMakeCoordinatorsTalk(t *testing.T) {
	var o others
	begin := time.Now()
	for _, c := range []struct {
		what      string
		after, at time.Duration
		first     bool
	}{
		{"the first has the others asked", 0, 0, true},
		{"one at the same time waits for the same answers", 0, 0, false},
		{"one a moment later takes them", freshFor - 1, 0, false},
		{"one later has them asked again", freshFor, freshFor, true},
	} {
		asked, first := o.askedNow(begin.Add(c.after), 1)
		if first != c.first || !asked.at.Equal(begin.Add(c.at)) {
			t.Errorf("%s: asked %v after the beginning, by it: %t", c.what, asked.at.Sub(begin), first)
		}
	}
}

// TestWhatTheDeadHaveOpenedIsAsked folds that a coordinator opened a measurement when it is known to be dead already, as
// happens where the log had to choose another leader first.
func TestWhatTheDeadHaveOpenedIsAsked(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	w.stops[2]()
	eventually(t, "who is left knows that it is dead", func() bool { return len(w.c[0].others.alive()) == 2 && len(w.c[1].others.alive()) == 2 })
	pauseFor(t, 5*stateInterval) // what there is to inherit is inherited then, and agents that have moved are not new
	m := &pb.Measurement{
		Id: newID(), State: pb.State_STATE_RUNNING, Spec: tcpSpec(accepting(t)), CreateTime: timestamppb.Now(),
		Deadline: timestamppb.New(time.Now().Add(20 * time.Second)), From: "world",
	}
	for k := range 3 {
		m.Asks = append(m.Asks, &pb.Ask{Agent: fmt.Sprintf("agent-%d", k+1), State: pb.AskState_ASK_STATE_PENDING})
	}
	if _, err := w.c[0].commit(t.Context(), &pb.LogEntry{Entry: &pb.LogEntry_Opened{Opened: &pb.Opened{Measurement: m, Coordinator: name(2)}}}); err != nil {
		t.Fatal(err)
	}
	if l := w.end(1, m.GetId()).GetLedger(); l.GetAnswered() != 3 {
		t.Errorf("%v: want an answer of each", l)
	}
}

func TestOneOfThreeDoesNotAcknowledge(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	m, _ := w.ask(0, accepting(t), 20*time.Second)
	w.end(2, m.GetId())
	w.stops[0]()
	w.stops[1]()
	eventually(t, "one that is alone is not ready", func() bool { return w.c[2].unready() != "" })
	if why := w.c[2].unready(); !strings.Contains(why, "too few coordinators") && !strings.Contains(why, "the log cannot be written") {
		t.Errorf("it is not ready since %s", why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := pb.NewMeasurementServiceClient(w.conns[2]).CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
		Spec: tcpSpec(accepting(t)),
	})
	if err == nil {
		t.Error("one of three has opened a measurement")
	}
	// What it knows can be read.
	if r, err := pb.NewMeasurementServiceClient(w.conns[2]).GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: m.GetId()}); err != nil || r.GetMeasurement().GetState() != pb.State_STATE_FINISHED {
		t.Errorf("what was measured before: %v %v", r, err)
	}
	// Of what it does not know it cannot say that there is none.
	_, err = pb.NewMeasurementServiceClient(w.conns[2]).GetMeasurement(t.Context(), &pb.GetMeasurementRequest{Id: newID()})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "cannot tell whether another one does") {
		t.Errorf("what it does not know: %v", err)
	}
	w.start(0, 1)
	w.ready(0, 1, 2)
	w.equal(0, 1, 2)
}

func TestACoordinatorThatDiffersIsOutOfService(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	w.equal(0, 1, 2)
	position, _ := w.c[2].store.Position()
	// Another version folds in another way; that is no alarm while they are upgraded one by one.
	w.c[0].hearOther(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_State{State: &pb.CoordinatorState{
		Name: name(2), Position: position, StateHash: []byte("another one"), FoldFormat: "of another version",
	}}})
	w.c[0].compareStates()
	w.c[0].others.mu.Lock()
	if w.c[0].others.alarmed {
		t.Error("another version is an alarm")
	}
	w.c[0].others.mu.Unlock()
	// It folds something else than what comes next in the log.
	phantom := &pb.LogBatch{Entries: []*pb.LogEntry{{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Detail: "never said"}}}}}
	if _, err := w.c[2].store.Apply(position+1, phantom, nil); err != nil {
		t.Fatal(err)
	}
	m, _ := w.ask(0, accepting(t), 20*time.Second)
	w.end(1, m.GetId())
	eventually(t, "the one that differs is out of service", func() bool { return strings.Contains(w.c[2].unready(), "its state is another one") })
	if w.c[0].unready() != "" || w.c[1].unready() != "" {
		t.Errorf("so are others: %s, %s", w.c[0].unready(), w.c[1].unready())
	}
	list, err := pb.NewCoordinatorServiceClient(w.conns[0]).ListCoordinators(t.Context(), &pb.ListCoordinatorsRequest{})
	if err != nil || list.GetCoordinators()[2].GetState().GetDiffersFrom() == "" {
		t.Errorf("others do not say so: %v %v", list, err)
	}
	eventually(t, "it is told in the audit", func() bool {
		events, _, err := w.c[0].store.Audit("", 100, func(e *pb.AuditEvent) bool { return e.GetKind() == pb.AuditKind_AUDIT_KIND_STATES_DIFFER })
		return err == nil && len(events) > 0
	})
	if status.Code(w.c[2].refuseUnready()) != codes.Unavailable {
		t.Error("it lets agents in")
	}
	eventually(t, "agents go to the others", func() bool { return w.online(3) })
	// Folded anew it is what the others are.
	w.stops[2]()
	if err := os.Remove(filepath.Join(w.opts[2].DataDir, "fold.db")); err != nil {
		t.Fatal(err)
	}
	w.start(2)
	w.ready(0, 1, 2)
	w.equal(0, 1, 2)
}

func TestACoordinatorThatWasAwayForLong(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	target := accepting(t)
	left, _ := w.c[2].store.Position()
	w.stops[2]()
	for range 5 {
		m, _ := w.ask(0, target, 20*time.Second)
		w.end(1, m.GetId())
	}
	w.equal(0, 1)
	w.c[0].opts.Retention.Age = time.Nanosecond
	if err := errors.Join(w.c[0].store.Checkpoint(), w.c[0].forgetOld(t.Context())); err != nil { // what is old is looked for on disk
		t.Fatal(err)
	}
	bounds, err := w.c[1].history.Bounds(t.Context())
	if err != nil || bounds.First <= left+1 {
		t.Fatalf("the log begins at %d, and it left at %d: %v", bounds.First, left, err)
	}
	w.start(2)
	w.ready(0, 1, 2)
	w.equal(0, 1, 2)
}

func TestARogueMemberOfTheGossipChangesNothing(t *testing.T) {
	w := newTrio(t)
	w.agents(3)
	w.equal(0, 1, 2)
	before := w.c[0].places()
	rogue, err := cluster.Start(cluster.Options{
		Name: "rogue", Addr: "127.0.7.5:0", Join: w.opts[0].Others.Join, Keys: w.opts[0].Others.keys(),
		Meta: (&others{name: "rogue", routes: map[string]string{"rogue": "127.0.7.5:1"}}).forged(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rogue.Stop() })
	eventually(t, "the others hear it", func() bool {
		members, _ := w.c[0].others.gossip.Members()
		return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.Name == "rogue" && m.State == cluster.Alive })
	})
	m, _ := w.ask(0, accepting(t), 20*time.Second)
	if l := w.end(1, m.GetId()).GetLedger(); l.GetAnswered() != 3 {
		t.Errorf("beside a rogue: %v", l)
	}
	if after := w.c[0].places(); !slices.Equal(before, after) || w.c[0].others.known() != embedded.Members || slices.Contains(w.c[0].others.alive(), "rogue") {
		t.Errorf("agents are told of %v, before of %v", after, before)
	}
}

// forged is what a rogue tells of itself.
func (o *others) forged(t *testing.T) []byte {
	t.Helper()
	c := &Coordinator{others: o, grpcListener: rogueListener(t)}
	c.opts.Advertise = "127.0.7.5"
	return c.addresses()
}

func rogueListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.7.5:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestSeveralAreRefusedWhereOneWasAlone(t *testing.T) {
	alone, stop := startAlone(t, t.TempDir())
	dir := alone.opts.DataDir
	stop()
	_, err := New(t.Context(), Options{
		DataDir: dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true,
		Others: &Others{Name: "c-1", GossipAddr: "127.0.0.1:0"},
	})
	if !errors.Is(err, embedded.ErrAlone) {
		t.Errorf("one of several was started on what one alone had: %v", err)
	}
}

func TestSeveralThatCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.7.14:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	used := t.TempDir()
	if err := os.WriteFile(filepath.Join(used, othersFile), []byte(`{"name":"c-1","routes":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, othersFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		says, dir, want string
		others          Others
	}{
		{"where gossip's port is taken", t.TempDir(), taken.Addr().String(), Others{GossipAddr: taken.Addr().String()}},
		{"by a name that is none", t.TempDir(), "--id", Others{Name: "C 1", GossipAddr: "127.0.7.14:0"}},
		{"in another one's directory", used, "is that of coordinator c-1, not of c-2", Others{Name: "c-2", GossipAddr: "127.0.7.14:0"}},
		{"on a file that is damaged", broken, othersFile, Others{GossipAddr: "127.0.7.14:0"}},
		{"where its route's port is no address", t.TempDir(), "--route-addr", Others{GossipAddr: "127.0.7.14:0", RouteAddr: "x"}},
		{"without the others, until it is told to stop", t.TempDir(), "deadline", Others{GossipAddr: "127.0.7.14:0"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := New(ctx, Options{DataDir: c.dir, GRPCAddr: "127.0.0.1:0", NATSAddr: "127.0.0.1:0", Insecure: true, Others: &c.others})
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("one of several starts %s: %v", c.says, err)
		}
	}
}
