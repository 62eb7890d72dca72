package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	agentpkg "github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// herdRegion is where the agents of the herd say that they stand.
const herdRegion = "herd"

var (
	herdSize = flag.Int("herd", 0, "how many agents come at once, all of one place (default: 150, in the long profile 1,000)")
	// beHerd is how this program starts itself as the herd: it is no test then.
	beHerd = flag.String("be-herd", "", "internal: be the herd, with its files in this directory")
	// herdPart is which part of it.
	herdPart = flag.Int("herd-part", 0, "internal: be this part of the herd")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *beHerd == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := runHerd(ctx, *beHerd, *herdPart)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	// herdShare is how many agents one process runs: each takes some six of its file descriptors.
	herdShare = 1500
	// enrolling is how many of a process enrol at a time: what is tried is that they come back at once.
	enrolling = 16
)

// runHerd runs a part of the herd in one process until ctx ends.
func runHerd(ctx context.Context, dir string, part int) error {
	var g errgroup.Group
	turns := make(chan struct{}, enrolling)
	tokens, err := os.ReadFile(filepath.Join(dir, "tokens"))
	if err != nil {
		return err
	}
	coordinators, err := os.ReadFile(filepath.Join(dir, "coordinators"))
	if err != nil {
		return err
	}
	for i, line := range slices.Collect(strings.Lines(string(tokens))) {
		if i/herdShare != part {
			continue
		}
		id, token, _ := strings.Cut(strings.TrimSpace(line), " ")
		options := agentpkg.Options{
			Coordinators: strings.Split(strings.TrimSpace(string(coordinators)), ","), DataDir: filepath.Join(dir, fmt.Sprint(i)), ID: id, Join: token,
			Vantage: herdVantage(),
			Env: &probe.Env{
				Resolvers: []netip.AddrPort{netip.MustParseAddrPort(targetsIP + ":53")}, Hints: []netip.AddrPort{},
				Controls: []string{control}, Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix(targetNet)}},
				Budget: &probe.Budget{},
			},
			DrainTimeout: time.Second, Log: slog.New(slog.DiscardHandler),
		}
		g.Go(func() (err error) {
			defer func() {
				if err != nil { // the others go on, and somebody waits for this one
					fmt.Fprintln(os.Stderr, id, err)
				}
			}()
			if token != "" {
				turns <- struct{}{}
				options.Identity, err = agentpkg.Enrol(ctx, options)
				<-turns
				if err != nil {
					return err
				}
			}
			a, err := agentpkg.New(options)
			if err != nil {
				return err
			}
			return a.Run(ctx)
		})
	}
	return g.Wait()
}

// herdVantage is where each of the herd stands. Much is to be said of it, so that watchers who do not read are soon
// behind.
func herdVantage() *pb.Vantage {
	v := &pb.Vantage{Region: herdRegion, Labels: map[string]string{}}
	for i := range 10 {
		v.Labels[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 100)
	}
	return v
}

// size is how many agents the herd has.
func size() int {
	switch {
	case *herdSize > 0:
		return *herdSize
	case *profile == "quick":
		return 150
	}
	return 1000
}

// herd is the processes of a herd.
type herd []*program

func (h herd) kill() (err error) {
	for _, p := range h {
		err = errors.Join(err, p.kill())
	}
	return err
}

// startHerd starts the herd, and waits until all of it is online.
func (w *world) startHerd(ctx context.Context) (herd, error) {
	dir := filepath.Join(w.dir, fmt.Sprintf("herd-%d", w.herds))
	self, err := os.Executable()
	if err == nil {
		err = w.inviteHerd(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	var all herd
	for part := range (size() + herdShare - 1) / herdShare {
		p := &program{w: w, name: fmt.Sprintf("herd-part-%d", part), where: w.spare, args: func() []string {
			// Agents have machines of their own: they do not take all of the processors from the coordinators.
			return []string{"nice", "-n", "5", self, "-be-herd", dir, "-herd-part", strconv.Itoa(part)}
		}}
		if err := p.start(ctx); err != nil {
			return nil, errors.Join(err, all.kill())
		}
		all = append(all, p)
	}
	if _, err := w.herdOnline(ctx, 1); err != nil {
		return nil, errors.Join(err, all.kill())
	}
	return all, nil
}

// inviteHerd writes the names of a new herd into its directory, with a token for each.
func (w *world) inviteHerd(ctx context.Context, dir string) error {
	file := filepath.Join(dir, "tokens")
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	lines := make([]string, size())
	g, joining := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range lines {
		g.Go(func() error {
			lines[i] = fmt.Sprintf("%s-%d-%d", herdRegion, w.herds, i)
			if !w.tls {
				return nil
			}
			r, err := pb.NewAccessServiceClient(w.load.conn).CreateJoinToken(joining, &pb.CreateJoinTokenRequest{
				Join: &pb.JoinToken{Agent: lines[i], Vantage: herdVantage()},
			}, grpc.WaitForReady(true))
			lines[i] += " " + r.GetSecret()
			return err
		})
	}
	if err := errors.Join(g.Wait(), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "coordinators"), []byte(strings.Join(w.grpcAddrs(), ",")), 0o600); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// herdOnline waits until a share of the herd is online, and tells when that was.
func (w *world) herdOnline(ctx context.Context, share float64) (time.Time, error) {
	err := eventually(ctx, "the herd to come", func(ctx context.Context) error {
		list, err := pb.NewFleetServiceClient(w.load.conn).ListAgents(ctx, &pb.ListAgentsRequest{From: herdRegion}, grpc.WaitForReady(true))
		n := 0
		for _, a := range list.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				n++
			}
		}
		if err == nil && float64(n) < share*float64(size()) {
			err = fmt.Errorf("%d of %d are online", n, size())
			_ = passing(ctx, time.Duration(size())*time.Millisecond/4) // a list of thousands, again and again, would keep them from coming
		}
		return err
	})
	return time.Now(), err
}

// crowdFaults are those by many at once.
func crowdFaults() []fault {
	return []fault{
		{name: "F19 watchers that do not read", inject: slowWatchers},
		{name: "F20 thundering herd", inject: stampede},
	}
}

// stampede kills all coordinators while the herd is connected: all of it comes back at once.
func stampede(ctx context.Context, w *world, _ *rand.Rand) (wound, error) {
	herd, err := w.startHerd(ctx)
	if err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := errors.Join(w.killAll(w.coordinators...), w.bring(ctx, w.coordinators...)); err != nil {
				return "", err
			}
			ready := time.Now()
			half, err := w.herdOnline(ctx, .5)
			most, err2 := w.herdOnline(ctx, .99)
			all, err3 := w.herdOnline(ctx, 1)
			return fmt.Sprintf("%d agents came back at once: half of them within %.1f s, 99 %% within %.1f s, all within %.1f s",
				size(), half.Sub(ready).Seconds(), most.Sub(ready).Seconds(), all.Sub(ready).Seconds()), errors.Join(err, err2, err3)
		},
		heal: func(context.Context) error { return herd.kill() },
	}, nil
}

// watcherCount is how many watchers do not read.
const watcherCount = 20

// slowWatchers asks the herd about a target that is silent, of which much is to be said, and has watchers look on who read nothing until all is over. They have to be told
// every result then, and that they missed something; nobody else waits for them.
func slowWatchers(ctx context.Context, w *world, _ *rand.Rand) (wound, error) {
	herd, err := w.startHerd(ctx)
	if err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.watchSlowly(ctx) },
		heal:   func(context.Context) error { return herd.kill() },
	}, nil
}

func (w *world) watchSlowly(ctx context.Context) (string, error) {
	// Otherwise the library makes room for what nobody reads.
	conn, err := w.client(grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	service := pb.NewMeasurementServiceClient(conn)
	began := time.Now()
	created, err := service.CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "198.18.9.255", Port: 443}}},
		From: herdRegion, Limit: 10_000, Timeout: durationpb.New(30 * time.Second),
	})
	if err != nil {
		return "", err
	}
	id := created.GetMeasurement().GetId()
	streams := make([]pb.MeasurementService_WatchMeasurementClient, watcherCount)
	for i := range streams {
		if streams[i], err = service.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id, Results: true}); err != nil {
			return "", err
		}
	}
	if err := w.load.watch(ctx, id, began); err != nil { // who reads
		return "", err
	}
	took := time.Since(began)
	lagged := 0
	for _, s := range streams {
		results, missed, err := readAll(s)
		if err != nil {
			return "", err
		}
		if missed {
			lagged++
		}
		if results != size() {
			return "", fmt.Errorf("a watcher was told %d results of %d", results, size())
		}
	}
	if lagged == 0 {
		return "", errors.New("no watcher missed anything")
	}
	return fmt.Sprintf("%d watchers of %d results read nothing for %.1f s: %d were told that they missed something, all were told every result",
		watcherCount, size(), took.Seconds(), lagged), nil
}

// readAll reads a watch to its end.
func readAll(stream pb.MeasurementService_WatchMeasurementClient) (results int, lagged bool, err error) {
	for {
		news, err := stream.Recv()
		if err != nil {
			return results, lagged, err
		}
		results += len(news.GetResults())
		lagged = lagged || news.GetLagged()
		if news.GetMeasurement().GetState() != pb.State_STATE_RUNNING {
			return results, lagged, nil
		}
	}
}
