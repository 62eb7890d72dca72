// Package agent is a process at one place that measures: it registers, beats, takes jobs, runs them
// and delivers their results.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/results"
	"github.com/elsewhere-net/elsewhere/internal/spool"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// DefaultCapacity is the number of jobs that run at once.
	DefaultCapacity = 256
	// spoolBytes bounds the results that wait for a coordinator.
	spoolBytes = 64 << 20
	// registerTimeout bounds one registration.
	registerTimeout = 5 * time.Second
	// minPause and maxPause bound the pause between two attempts to connect.
	minPause, maxPause = 100 * time.Millisecond, 4 * time.Second
)

// Options is what an agent is.
type Options struct {
	// Coordinators are their gRPC addresses, "HOST:PORT"; any of them will do.
	Coordinators []string
	// DataDir keeps the agent's name and its spool.
	DataDir string
	// ID is its name. Default: the one in DataDir, or a new one.
	ID string
	// Vantage is where it stands; families, resolvers, and public addresses if there are none, are filled in.
	Vantage *pb.Vantage
	// Env is what its probes touch.
	Env *probe.Env
	// Capacity is the number of jobs that run at once. Default: 256.
	Capacity int
	// DrainTimeout bounds the end: jobs that run and results that wait. Default: 30 s.
	DrainTimeout time.Duration
	// Log gets one line for each job, and what happens to the connections.
	Log *slog.Logger
}

// Agent is an agent.
type Agent struct {
	opts  Options
	id    string
	spool *spool.Spool
	jobs  *jobs

	mu         sync.Mutex
	services   []netip.AddrPort     // where coordinators and NATS are
	registered *pb.RegisterResponse // the last one
	conn       *bus.AgentConn
	connected  string // what conn was made with
}

// New makes an agent; nothing is connected yet.
func New(opts Options) (*Agent, error) {
	if opts.Capacity <= 0 {
		opts.Capacity = DefaultCapacity
	}
	if opts.DrainTimeout <= 0 {
		opts.DrainTimeout = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	id, err := name(opts.ID, filepath.Join(opts.DataDir, "id"))
	if err != nil {
		return nil, err
	}
	sp, err := spool.Open(filepath.Join(opts.DataDir, "spool"), spoolBytes)
	if err != nil {
		return nil, err
	}
	if other := sp.Foreign(id); other != "" {
		return nil, errors.Join(fmt.Errorf("data directory %s has results of agent %s that were not delivered: start that one again, or use another directory for %s", opts.DataDir, other, id), sp.Close())
	}
	a := &Agent{opts: opts, id: id, spool: sp}
	a.opts.Log = opts.Log.With("agent", id)
	env := *opts.Env
	env.Services = a.ownServices
	a.opts.Env = &env
	a.jobs = newJobs(a.opts, id, sp)
	return a, nil
}

// name is the agent's name: as given, or as kept in file, or a new one that is kept there.
func name(given, file string) (string, error) {
	if given != "" {
		return given, nil
	}
	kept, err := os.ReadFile(file)
	if err == nil && len(kept) > 0 {
		return strings.TrimSpace(string(kept)), nil
	}
	id := "agent-" + strings.ToLower(rand.Text())[:10]
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return id, nil
}

// Run works until ctx ends; then it takes nothing new, finishes its jobs, delivers their results, and
// returns when all that it started has stopped.
func (a *Agent) Run(ctx context.Context) error {
	// What is under way outlives ctx, for at most DrainTimeout.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { a.connect(work) })
	wg.Go(func() { a.beat(work) })
	<-ctx.Done()
	a.opts.Log.Info("draining")
	a.jobs.drain()
	a.sendBeat()
	drained := a.settle(work)
	cancel()
	a.jobs.cancelAll()
	wg.Wait()
	a.jobs.wait()
	a.mu.Lock()
	if a.conn != nil {
		a.conn.Close()
	}
	a.mu.Unlock()
	a.opts.Log.Info("stopped", "drained", drained)
	return a.spool.Close()
}

// settle waits until no job runs and no result waits, at most DrainTimeout.
func (a *Agent) settle(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, a.opts.DrainTimeout)
	defer cancel()
	select {
	case <-a.jobs.idle():
	case <-ctx.Done():
		return false
	}
	drained, done := a.spool.Drained()
	if done {
		return true
	}
	select {
	case <-drained:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect keeps the agent registered and its results flowing, with one coordinator at a time.
func (a *Agent) connect(ctx context.Context) {
	pause := minPause
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		addr := a.opts.Coordinators[n%len(a.opts.Coordinators)]
		err := a.session(ctx, addr)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxPause || errors.Is(err, results.ErrGoAway) {
			pause = minPause // it had worked
		}
		wait := pause/2 + mathrand.N(pause) // half of it jitter, so that a fleet does not come at once
		a.opts.Log.Warn("no session with the coordinator", "coordinator", addr, "error", err, "retry_in", wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		pause = min(pause*8/5, maxPause)
	}
}

// session registers with one coordinator and delivers results until that ends.
func (a *Agent) session(ctx context.Context, addr string) error {
	cc, err := grpc.NewClient(addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 25 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<20)))
	if err != nil {
		return fmt.Errorf("coordinator %s: %w", addr, err)
	}
	defer func() { _ = cc.Close() }()
	if err := a.register(ctx, cc, addr); err != nil {
		return err
	}
	client := &results.Client{
		Service:   pb.NewResultServiceClient(cc),
		Hello:     &pb.Hello{Agent: a.id, Credential: a.registration().GetCredential()},
		Spool:     a.spool,
		Connected: func() { a.opts.Log.Info("connected", "coordinator", addr) },
	}
	return client.Run(ctx)
}

// register introduces the agent and connects it to NATS, unless it is connected as it should be.
func (a *Agent) register(ctx context.Context, cc *grpc.ClientConn, addr string) error {
	callCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	r, err := pb.NewRegistrationServiceClient(cc).Register(callCtx, &pb.RegisterRequest{
		Id: a.id, Vantage: a.vantage(), Version: a.opts.Env.Version,
	})
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("coordinator %s: %w", addr, err)
	}
	addresses := make([]string, 0, len(r.GetNatsAddresses()))
	for _, n := range r.GetNatsAddresses() {
		natsHost, port, err := net.SplitHostPort(n)
		if err != nil {
			return fmt.Errorf("registering: NATS address: %w", err)
		}
		if natsHost == "" {
			natsHost = host
		}
		addresses = append(addresses, net.JoinHostPort(natsHost, port))
	}
	a.noteServices(callCtx, append(slices.Clone(a.opts.Coordinators), addresses...))
	return a.connectBus(ctx, r, addresses)
}

// noteServices finds out where the network's own services are: no job may connect there.
func (a *Agent) noteServices(ctx context.Context, hosts []string) {
	var found []netip.AddrPort
	for _, hp := range hosts {
		host, port, err := net.SplitHostPort(hp)
		if err != nil {
			continue
		}
		number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
		if err != nil {
			continue
		}
		ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // a name that is gone leads nowhere
		for _, ip := range ips {
			found = append(found, netip.AddrPortFrom(ip.Unmap(), uint16(number)))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.services = found
}

// ownServices are where coordinators and NATS were when the agent registered last.
func (a *Agent) ownServices() []netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.services
}

// connectBus connects to NATS as registered; a connection that is the same already stays, and beats so
// that the coordinator knows that the agent is back.
func (a *Agent) connectBus(ctx context.Context, r *pb.RegisterResponse, addresses []string) error {
	with := r.GetCredential() + "@" + strings.Join(addresses, ",")
	a.mu.Lock()
	old := a.conn
	same := old != nil && a.connected == with
	a.registered = r
	a.mu.Unlock()
	if same {
		a.sendBeat()
		return nil
	}
	conn, err := bus.ConnectAgent(ctx, bus.AgentOptions{
		Agent: a.id, Credential: r.GetCredential(), Addresses: addresses,
		Job: a.jobs.take, Cancel: a.jobs.cancel,
		Connected: a.sendBeat,
	})
	if err != nil {
		return err
	}
	if old != nil {
		old.Close()
	}
	a.mu.Lock()
	a.conn, a.connected = conn, with
	a.mu.Unlock()
	a.sendBeat()
	return nil
}

func (a *Agent) registration() *pb.RegisterResponse {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.registered
}

// vantage is where the agent stands, with what it finds out by itself.
func (a *Agent) vantage() *pb.Vantage {
	given := a.opts.Vantage
	v := &pb.Vantage{
		Region: given.GetRegion(), Country: given.GetCountry(), City: given.GetCity(),
		Provider: given.GetProvider(), Asn: given.GetAsn(), Labels: given.GetLabels(),
		ObservedAddress: a.registration().GetVantage().GetObservedAddress(),
		Addresses:       given.GetAddresses(),
	}
	if len(v.GetAddresses()) == 0 {
		for _, ip := range probe.PublicAddresses() {
			v.Addresses = append(v.Addresses, ip.String())
		}
	}
	v.Ipv4, v.Ipv6 = probe.Families()
	resolvers := a.opts.Env.Resolvers
	if resolvers == nil {
		resolvers = probe.SystemResolvers()
	}
	for _, r := range resolvers[:min(len(resolvers), 8)] {
		v.Resolvers = append(v.Resolvers, r.String())
	}
	return v
}

// beat says that the agent lives, again and again until ctx ends.
func (a *Agent) beat(ctx context.Context) {
	for {
		interval := a.registration().GetBeatInterval().AsDuration()
		if interval < time.Second {
			interval = 5 * time.Second
		}
		select {
		case <-time.After(interval*9/10 + mathrand.N(interval/10)):
			a.sendBeat()
		case <-ctx.Done():
			return
		}
	}
}

// sendBeat says that the agent lives. Without a connection nothing is said, and the next one is.
func (a *Agent) sendBeat() {
	a.mu.Lock()
	conn := a.conn
	a.mu.Unlock()
	if conn == nil {
		return
	}
	running, draining := a.jobs.load()
	err := conn.Beat(&pb.Beat{
		Agent: a.id, Vantage: a.vantage(), Version: a.opts.Env.Version,
		Running: running, Capacity: int32(a.opts.Capacity), Draining: draining,
	})
	if err != nil {
		a.opts.Log.Debug("no beat", "error", err)
	}
}
