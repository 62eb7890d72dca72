// Package agent is a process at one place that measures: it registers, beats, takes jobs, runs them
// and delivers their results.
package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/agentpolicy"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/internal/identity"
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
	// registerTimeout bounds one registration, with its handshake: where thousands of agents come at once, a coordinator
	// is slow, and what it has computed for one that gives up is lost.
	registerTimeout = 30 * time.Second
	// dialTimeout bounds the connect alone, and silence how long what was sent may stay unacknowledged. A host that is only
	// slow answers both.
	dialTimeout, silence = 5 * time.Second, 10 * time.Second
)

// Options is what an agent is.
type Options struct {
	// Coordinators are their gRPC addresses, "HOST:PORT"; any of them will do.
	Coordinators []string
	// DataDir keeps the agent's name and its spool.
	DataDir string
	// ID is its name. Default: its identity's, or the one in DataDir, or a new one.
	ID string
	// Join is the token that Enrol uses, or @ and the file that it is in, where there is no identity yet.
	Join string
	// Identity is who it is, by Enrol. Nil: connections are in clear, and it says itself who it is.
	Identity *identity.Keep
	// Vantage is where it stands; families, resolvers, and public addresses if there are none, are filled in.
	Vantage *pb.Vantage
	// Env is what its probes touch.
	Env *probe.Env
	// Policy is the operator's file of what may be measured. Nil: there is none, and Env says it all.
	Policy *agentpolicy.File
	// Capacity is the number of jobs that run at once. Default: 256.
	Capacity int
	// DrainTimeout bounds the end: jobs that run and results that wait. Default: 30 s.
	DrainTimeout time.Duration
	// Log gets one line for each job, and what happens to the connections.
	Log *slog.Logger
	// Rested is called when nothing has run for a beat, once after every spell of work. Default: nothing is done.
	Rested func()
}

// Agent is an agent.
type Agent struct {
	opts Options
	id   string
	// instance tells this process from another one with the same identity.
	instance string
	spool    *spool.Spool
	jobs     *jobs
	// strangers bounds connects to servers that stand where no coordinator does.
	strangers *rate.Limiter

	mu         sync.Mutex
	services   []netip.AddrPort     // where coordinators and NATS are
	told       []string             // where coordinators are, as one of them says
	registered *pb.RegisterResponse // the last one
	looked     looked               // the last look at where it stands
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
	id, err := name(opts, filepath.Join(opts.DataDir, "id"))
	if err != nil {
		return nil, err
	}
	sp, err := spool.Open(filepath.Join(opts.DataDir, "spool"), id, spoolBytes)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", opts.DataDir, err)
	}
	a := &Agent{opts: opts, id: id, instance: rand.Text(), spool: sp, strangers: newStrangers(), told: readPlaces(opts.DataDir)}
	a.opts.Log = opts.Log.With("agent", id)
	env := *opts.Env
	env.Services = a.ownServices
	a.opts.Env = &env
	if a.jobs, err = newJobs(a.opts, id, sp); err != nil {
		return nil, errors.Join(err, sp.Close())
	}
	a.jobs.policy.under(&env)
	return a, nil
}

// name is the agent's name: its identity's, or as given, or as kept in file, or a new one that is kept there.
func name(opts Options, file string) (string, error) {
	switch {
	case opts.Identity != nil:
		return opts.Identity.Name(), nil
	case opts.ID != "":
		return opts.ID, nil
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
	wg.Go(func() { a.jobs.policy.follow(work, a.opts.Log) })
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
	return errors.Join(a.jobs.started.close(), a.spool.Close())
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
	var wait patience
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		all := a.places()
		addr := all[n%len(all)]
		stood, err := a.session(ctx, addr)
		if ctx.Err() != nil {
			return
		}
		pause := wait.after(attempt{err, stood, time.Since(began)})
		if !errors.Is(err, errRenewed) { // otherwise nothing is wrong
			a.opts.Log.Warn("no session with the coordinator", "coordinator", addr, "error", err, "retry_in", pause.Round(time.Millisecond))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// session registers with one coordinator and delivers results until that ends; stood says whether it came so far.
func (a *Agent) session(ctx context.Context, addr string) (stood bool, err error) {
	if err := a.mayCall(ctx, addr); err != nil {
		return false, err
	}
	cc, err := dial(addr, a.credentials())
	if err != nil {
		return false, err
	}
	defer func() { _ = cc.Close() }()
	if err := a.come(ctx, cc, addr); err != nil {
		return false, err
	}
	client := &results.Client{
		Service: pb.NewResultServiceClient(cc),
		Hello: &pb.Hello{
			Agent: a.id, Credential: a.registration().GetCredential(),
			Session: a.registration().GetSession(), Epoch: a.spool.Epoch(),
		},
		Spool: a.spool,
		Connected: func() {
			stood = true
			chaos.Note(chaos.Connected, addr)
			a.opts.Log.Info("connected", "coordinator", addr)
		},
	}
	parts, partsCtx := errgroup.WithContext(ctx)
	parts.Go(func() error { return client.Run(partsCtx) })
	parts.Go(func() error { return a.hearing(partsCtx) })
	if a.opts.Identity != nil {
		parts.Go(func() error { return a.renewInTime(partsCtx, cc) })
	}
	err = parts.Wait()
	return stood, err
}

// hearing ends a session without NATS: the next one connects again. An agent that only delivers is never asked.
func (a *Agent) hearing(ctx context.Context) error {
	a.mu.Lock()
	conn := a.conn
	a.mu.Unlock()
	select {
	case <-conn.Ended():
		return conn.Err()
	case <-ctx.Done():
		return nil
	}
}

// register introduces the agent and connects it to NATS, unless it is connected as it should be.
func (a *Agent) register(ctx context.Context, cc *grpc.ClientConn, addr string) error {
	callCtx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	r, err := pb.NewRegistrationServiceClient(cc).Register(callCtx, &pb.RegisterRequest{
		Id: a.id, Vantage: a.vantage(0), Version: a.opts.Env.Version,
		Epoch: a.spool.Epoch(), Next: a.spool.NextSeq(), Instance: a.instance,
	})
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	if keep := a.opts.Identity; keep != nil {
		if err := keep.Trust(r.GetAuthorities()); err != nil {
			return fmt.Errorf("registering: %w", err)
		}
	}
	if epoch := r.GetEpoch(); epoch != 0 {
		if err := a.spool.SetEpoch(epoch); err != nil {
			return err
		}
	}
	addresses, err := servers(callCtx, addr, r.GetNatsAddresses())
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	a.notePlaces(r.GetCoordinators())
	a.noteServices(callCtx, append(a.places(), addresses...))
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
	var secure *tls.Config
	if keep := a.opts.Identity; keep != nil {
		secure = keep.ClientTLS()
		with += " until " + keep.Expires().String() // with a new certificate, another connection before the old one ends
	}
	a.mu.Lock()
	old := a.conn
	same := old != nil && a.connected == with
	if same {
		select {
		case <-old.Ended():
			same = false
		default:
		}
	}
	a.registered = r
	a.mu.Unlock()
	if same {
		a.sendBeat()
		return nil
	}
	conn, err := bus.ConnectAgent(ctx, bus.AgentOptions{
		Agent: a.id, Credential: r.GetCredential(), Addresses: addresses, TLS: secure,
		Job: a.jobs.take, Cancel: a.jobs.cancel,
		Connected: a.sendBeat, May: a.may(ctx), Dialer: dialer(),
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

// looked is what an agent has found out by itself of where it stands. It takes sockets and files: it is not done for each beat.
type looked struct {
	at         time.Time
	addresses  []string
	ipv4, ipv6 bool
	resolvers  []string
}

// lookInterval is how old what beats tell of the host may be. A registration tells it anew.
const lookInterval = 30 * time.Second

// look looks where the agent stands, if the last look is older than an age.
func (a *Agent) look(age time.Duration) looked {
	a.mu.Lock()
	last := a.looked
	a.mu.Unlock()
	if !last.at.IsZero() && time.Since(last.at) < age {
		return last
	}
	next := looked{at: time.Now()}
	for _, ip := range probe.PublicAddresses() {
		next.addresses = append(next.addresses, ip.String())
	}
	next.ipv4, next.ipv6 = probe.Families()
	resolvers := a.opts.Env.Resolvers
	if resolvers == nil {
		resolvers = probe.SystemResolvers()
	}
	for _, r := range resolvers[:min(len(resolvers), 8)] {
		next.resolvers = append(next.resolvers, r.String())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looked = next
	return next
}

// vantage is where the agent stands, with what it has found out by itself within an age.
func (a *Agent) vantage(age time.Duration) *pb.Vantage {
	given, found := a.opts.Vantage, a.look(age)
	v := &pb.Vantage{
		Region: given.GetRegion(), Country: given.GetCountry(), City: given.GetCity(),
		Provider: given.GetProvider(), Asn: given.GetAsn(), Labels: given.GetLabels(),
		ObservedAddress: a.registration().GetVantage().GetObservedAddress(),
		Addresses:       given.GetAddresses(),
		Ipv4:            found.ipv4, Ipv6: found.ipv6, Resolvers: found.resolvers,
	}
	if len(v.GetAddresses()) == 0 {
		v.Addresses = found.addresses
	}
	return v
}

// beat says that the agent lives, again and again until ctx ends.
func (a *Agent) beat(ctx context.Context) {
	var rest quiet
	for {
		interval := a.registration().GetBeatInterval().AsDuration()
		if interval < time.Second {
			interval = 5 * time.Second
		}
		select {
		case <-time.After(interval*9/10 + mathrand.N(interval/10)):
			a.sendBeat()
			if running, ended := a.jobs.work(); rest.came(running, ended) && a.opts.Rested != nil {
				a.opts.Rested()
			}
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
	beat := &pb.Beat{
		Agent: a.id, Vantage: a.vantage(lookInterval), Version: a.opts.Env.Version,
		Running: running, Capacity: int32(a.jobs.policy.capacity()), Draining: draining,
	}
	if keep := a.opts.Identity; keep != nil {
		beat.Authorities = keep.Digest()
	}
	if err := conn.Beat(beat); err != nil {
		a.opts.Log.Debug("no beat", "error", err)
	}
}
