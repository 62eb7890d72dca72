// Package coordinator asks agents what they see, keeps what they answer, and says what it means.
package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/canary"
	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	"github.com/elsewhere-net/elsewhere/internal/results"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Options is how to run a coordinator.
type Options struct {
	// DataDir keeps the log and the checkpoint of its fold.
	DataDir string
	// GRPCAddr is where clients and agents connect, "HOST:PORT"; port 0 takes any.
	GRPCAddr string
	// HTTPAddr serves /metrics, /healthz and /readyz in clear. Default: nowhere.
	HTTPAddr string
	// NATSAddr is where agents take their jobs.
	NATSAddr string
	// Advertise is the host that agents are told for NATS, and that other coordinators are told. Default: the one that
	// they reached; that of the gossip's address.
	Advertise string
	// Others is how it is one of several. Nil: it is alone.
	Others *Others
	// PublicResolvers are the public resolvers that agents ask where a question wants them. Default: those
	// that come with the program; an empty list is none.
	PublicResolvers []*pb.PublicResolver
	// Retention is how much is kept. Default: 30 days, 10 GiB.
	Retention Retention
	// TargetBudget bounds how much one target is looked at. Default: its own defaults.
	TargetBudget access.TargetBudget
	// OptOuts are those who do not want to be looked at. Default: nobody.
	OptOuts *file.Watched[*access.OptOuts]
	// Insecure turns TLS and authentication off: anybody may do anything, and pose as any agent.
	Insecure bool
	// CanaryAddr is where the canary listens, "IP:PORT" as agents reach it. Default: there is none.
	CanaryAddr string
	// CanaryInterval is how often all agents are asked about it. Default: 10 min.
	CanaryInterval time.Duration
	// Identity is how long certificates are good. Default: 24 h for agents.
	Identity identity.Options
	// UnsafeDurability acknowledges before the disk has it: a power cut then loses what was acknowledged.
	UnsafeDurability bool
	// Log gets one line for each measurement. Default: none are kept.
	Log *slog.Logger
	// Metrics takes the metrics. Default: a registry of its own.
	Metrics *prometheus.Registry
}

const (
	// recentBytes bounds the closed measurements in memory, by the size that they have on the wire. Decoded they take
	// about ten times that.
	recentBytes = 24 << 20
	// checkpointInterval is how far the disk may be behind.
	checkpointInterval = time.Second
	// startTimeout bounds opening the log.
	startTimeout = 30 * time.Second
	// stopTimeout bounds the end of what clients and agents have under way, and lastTime what is to be written after that:
	// where too few coordinators are left to write the log, as when all are told to stop, neither would end by itself.
	stopTimeout, lastTime = 10 * time.Second, 2 * time.Second
)

// Coordinator is a coordinator.
type Coordinator struct {
	opts    Options
	secret  []byte
	log     *slog.Logger
	metrics *metrics

	nats    *embedded.Server
	history *bus.Log
	agents  *bus.Fleet
	others  *others    // nil: it is alone
	peers   *bus.Peers // nil: it is alone
	fleet   *fleet.Fleet
	store   *store.Store
	closer  *closer
	auditor *auditor
	reports *results.Server
	health  *health.Server
	canary  *canary.Canary // nil: there is none
	grpc    *grpc.Server
	ready   atomic.Bool
	stale   atomic.Bool // the last checkpoint failed
	stuck   atomic.Bool // a write of the log, or of what is decided once, failed
	started time.Time

	listening   *listening
	authorities *identity.Authorities // nil: insecure
	shared      *shared               // nil: it is alone, or insecure
	gate        *identity.Gate        // before all handshakes; open once it is known who is enrolled
	rules       access.Rules
	tokens      *access.Tokens
	claims      claims
	buckets     []*bus.Bucket // of the tokens, the claims and the shared authorities
	keys        []*keys       // of each
	turns       turns
	guests      guests
	heard       *heard
	failures    *access.Failures
	paces       paces
	quotas      *access.Quotas
	// recovered says that the fold has reached the log's end once.
	recovered atomic.Bool

	grpcListener, httpListener net.Listener
	validator                  protovalidate.Validator
	work                       work         // questions under way
	watching                   atomic.Int64 // watches under way
	backingUp                  sync.Mutex
	reading                    hold // keeps the log from being cut

	// serving ends when the coordinator begins to stop, alive when it stops.
	serving, alive context.Context
}

// New opens the log, its checkpoint and the listeners. Nothing is served before Run.
func New(ctx context.Context, opts Options) (*Coordinator, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = prometheus.NewRegistry()
	}
	if opts.PublicResolvers == nil {
		var err error
		if opts.PublicResolvers, err = publicdns.Shipped(); err != nil {
			return nil, err
		}
	}
	c := &Coordinator{
		opts: opts, log: opts.Log, fleet: fleet.New(), health: health.NewServer(), serving: ctx, alive: ctx,
		started: time.Now(), rules: access.NewRules(), failures: access.NewFailures(), quotas: access.NewQuotas(opts.TargetBudget),
		guests: guests{byAgent: map[string]map[*guest]bool{}}, heard: newHeard(), listening: newListening(), gate: identity.NewGate(),
		paces: newPaces(cmp.Or(opts.Identity.AgentLife, identity.AgentLife)),
	}
	if err := c.open(ctx); err != nil {
		c.release()
		return nil, err
	}
	c.closer = newCloser(c.closeMeasurement)
	c.reports = results.NewServer(c, results.Limits{})
	c.metrics = newMetrics(c)
	c.auditor = newAuditor(c.log, c.appendAudit, func(n int) { c.metrics.auditDropped.Add(float64(n)) })
	c.grpc = c.newGRPC()
	return c, nil
}

// open opens what release closes.
func (c *Coordinator) open(ctx context.Context) (err error) {
	if c.validator, err = protovalidate.New(); err != nil {
		return fmt.Errorf("validation: %w", err)
	}
	if err := os.MkdirAll(c.opts.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := backup.Unfinished(c.opts.DataDir); err != nil {
		return err
	}
	if c.secret, err = secret(filepath.Join(c.opts.DataDir, "agents.secret")); err != nil {
		return err
	}
	if !c.opts.Insecure {
		if c.authorities, err = identity.Open(c.opts.DataDir, c.opts.Identity); err != nil {
			return err
		}
	}
	if err := c.listen(); err != nil {
		return err
	}
	if err := c.openCanary(ctx); err != nil {
		return err
	}
	return c.openLog(ctx)
}

func (c *Coordinator) listen() (err error) {
	n := connections(openFiles())
	c.log.Debug("connections", "grpc", n, "nats", n)
	if c.grpcListener, err = listenSlots(c.opts.GRPCAddr, n); err != nil {
		return fmt.Errorf("--grpc-addr: %w", err)
	}
	if c.opts.HTTPAddr == "" {
		return nil
	}
	if c.httpListener, err = listenSlots(c.opts.HTTPAddr, webConnections); err != nil {
		return fmt.Errorf("--http-addr: %w", err)
	}
	return nil
}

func (c *Coordinator) openLog(ctx context.Context) (err error) {
	// The checkpoint first: its lock keeps two coordinators from one data directory.
	if c.store, err = store.Open(filepath.Join(c.opts.DataDir, store.FileName), recentBytes); err != nil {
		return err
	}
	var member *embedded.Cluster
	if c.opts.Others != nil {
		if member, err = c.meet(ctx); err != nil {
			return err
		}
	}
	if c.nats, err = embedded.Start(c.natsOptions(member)); err != nil {
		return err
	}
	if c.others == nil { // others may be away for any time
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	c.opts.Retention = c.opts.Retention.orDefault()
	defer c.sayWaiting(ctx)()
	if c.history, err = bus.OpenLog(ctx, c.nats, c.opts.Retention.Bytes); err != nil {
		return err
	}
	for _, name := range c.bucketNames() {
		b, err := bus.OpenBucket(ctx, c.nats, name)
		if err != nil {
			return err
		}
		c.buckets = append(c.buckets, b)
	}
	c.tokens, c.claims = access.NewTokens(c.buckets[0], nil), claims{c.buckets[1]}
	if c.agents, err = bus.OpenFleet(c.nats); err != nil {
		return err
	}
	if err := c.nats.Listen(); err != nil {
		return fmt.Errorf("--nats-addr: %w", err)
	}
	if c.others != nil {
		if err := c.others.gossip.Tell(c.addresses()); err != nil {
			return err
		}
	}
	if err := c.overtaken(ctx); err != nil {
		return err
	}
	if err := c.checkLog(ctx); err != nil {
		return err
	}
	for _, b := range c.buckets {
		k, err := c.openKeys(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", c.opts.DataDir, err)
		}
		c.keys = append(c.keys, k)
	}
	if len(c.buckets) < 3 {
		return nil
	}
	c.shared = &shared{bucket: c.buckets[2], own: c.authorities, log: c.log}
	if err := c.shared.begin(ctx); err != nil {
		return fmt.Errorf("%s: %w", c.opts.DataDir, err)
	}
	c.shared.changed = c.rotated
	return nil
}

func (c *Coordinator) bucketNames() []string {
	names := []string{access.TokensBucket, claimsBucket}
	if c.others != nil && c.authorities != nil {
		names = append(names, authoritiesBucket)
	}
	return names
}

// overtaken begins the fold anew where the others have cut off the log what this coordinator has not folded, while it was
// away: what is left of the log tells all of the state.
func (c *Coordinator) overtaken(ctx context.Context) error {
	position, _ := c.store.Position()
	if c.others == nil || position == 0 {
		return nil
	}
	bounds, err := c.history.Bounds(ctx)
	if err != nil || bounds.First <= position+1 {
		return err
	}
	c.log.Warn("the log begins after what is folded here: it is folded anew", "folded", position, "begins", bounds.First)
	path := filepath.Join(c.opts.DataDir, store.FileName)
	if err := errors.Join(c.store.Close(), os.Remove(path)); err != nil {
		return err
	}
	c.store, err = store.Open(path, recentBytes)
	return err
}

// natsOptions is how NATS runs. Agents are known by their certificates, and without TLS by credentials.
func (c *Coordinator) natsOptions(member *embedded.Cluster) embedded.Options {
	opts := embedded.Options{
		Dir: c.opts.DataDir, Addr: c.opts.NATSAddr, Log: c.log.With("part", "nats"), Unsynced: c.opts.UnsafeDurability,
		Connections: connections(openFiles()), Cluster: member,
	}
	if c.opts.Insecure {
		opts.Verify = c.Verify
		return opts
	}
	host, _, _ := net.SplitHostPort(c.opts.NATSAddr)
	opts.TLS, opts.Admit = c.gate.Guard(c.authorities.AgentsTLS(c.name(), []string{host, c.opts.Advertise})), c.admitNATS
	return opts
}

// GRPCAddr is where clients and agents connect.
func (c *Coordinator) GRPCAddr() net.Addr { return c.grpcListener.Addr() }

// NATSAddr is where agents take their jobs.
func (c *Coordinator) NATSAddr() net.Addr { return c.nats.Addr() }

// Run serves until ctx ends, then ends what is under way and returns when all that it started has
// stopped.
func (c *Coordinator) Run(ctx context.Context) error {
	// The log and its fold outlive ctx: what is under way still has to be written.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	defer c.release()
	parts, partsCtx := errgroup.WithContext(inner)
	c.serving, c.alive = ctx, partsCtx
	parts.Go(func() error { return c.history.Run(partsCtx, c.follow) })
	parts.Go(func() error { return c.fold(partsCtx) })
	parts.Go(func() error { return c.checkpoint(partsCtx) })
	parts.Go(func() error { c.tokens.Run(partsCtx); return nil })
	go c.auditor.run()
	if err := c.begin(partsCtx); err != nil {
		c.auditor.stop()
		stopInner()
		why := parts.Wait()
		if why != nil && errors.Is(err, context.Canceled) {
			return why // a part failed: all that the beginning knows is that it is over
		}
		return errors.Join(err, why)
	}
	parts.Go(func() error { return c.retain(partsCtx) })
	parts.Go(func() error { return c.sweepTokens(partsCtx) })
	parts.Go(func() error { return c.followOptOuts(partsCtx) })
	parts.Go(func() error { return c.watchRoom(partsCtx) })
	parts.Go(func() error { return c.tellState(partsCtx) })
	parts.Go(func() error { return c.watchLead(partsCtx) })
	parts.Go(func() error { return c.followKeys(partsCtx) })
	if c.shared != nil {
		parts.Go(func() error { return c.shared.follow(partsCtx) })
	}
	if c.canary != nil {
		parts.Go(func() error { return c.canary.Run(partsCtx) })
		parts.Go(func() error { return c.watchCanary(ctx) })
	}
	parts.Go(func() error { return ignoreClosed(c.grpc.Serve(c.grpcListener)) })
	web := c.serveHTTP(parts)
	c.setReady(true)
	c.log.Info("ready", "grpc", c.GRPCAddr().String(), "nats", c.NATSAddr().String(), "data", c.opts.DataDir)

	select {
	case <-ctx.Done():
	case <-partsCtx.Done(): // a part failed; parts.Wait says which
	}
	c.log.Info("stopping")
	c.setReady(false)
	late := time.AfterFunc(stopTimeout+lastTime, stopInner)
	c.shutdown(web)
	late.Stop()
	stopInner()
	return parts.Wait()
}

// begin takes up what was left open, then lets agents in.
func (c *Coordinator) begin(ctx context.Context) error {
	if err := c.recover(ctx); err != nil {
		return err
	}
	if err := c.loadTokens(ctx); err != nil {
		return err
	}
	if c.others != nil {
		var err error
		if c.peers, err = bus.OpenPeers(c.nats, c.hearOther); err != nil {
			return err
		}
	}
	if err := c.agents.Hear(c.onBeat); err != nil {
		return err
	}
	if c.others != nil {
		time.AfterFunc(hearTime, c.knowAgents)
	}
	c.gate.Open()
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (c *Coordinator) setReady(ready bool) {
	c.ready.Store(ready)
	c.tellHealth(c.unready() == "")
}

// tellHealth tells who asks by gRPC's health service whether calls are welcome.
func (c *Coordinator) tellHealth(ready bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		state = healthpb.HealthCheckResponse_SERVING
	}
	c.health.SetServingStatus("", state)
	for name := range c.grpc.GetServiceInfo() {
		c.health.SetServingStatus(name, state)
	}
}

// shutdown ends the servers: agents are asked to go, calls may end, within stopTimeout.
func (c *Coordinator) shutdown(web *http.Server) {
	c.gate.Close()
	c.closer.stop()
	c.reports.GoAway()
	stopped := make(chan struct{})
	go func() {
		c.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		c.grpc.Stop()
	}
	c.reports.Wait()
	if web != nil {
		_ = web.Close()
	}
	c.work.stop()
	c.auditor.stop()
}

// release closes what New opened.
func (c *Coordinator) release() {
	c.gate.Close() // a server stops when those that wait have gone
	for _, l := range []net.Listener{c.grpcListener, c.httpListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	if c.canary != nil {
		_ = c.canary.Close()
	}
	if c.peers != nil {
		c.peers.Close()
	}
	if c.others != nil && c.others.gossip != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := c.others.gossip.Leave(ctx); err != nil {
			c.log.Debug("gossip", "error", err)
		}
		cancel()
	}
	if c.agents != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.agents.Close(ctx)
		cancel()
	}
	if c.history != nil {
		c.history.Close()
	}
	for i, b := range c.buckets {
		if i < len(c.keys) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = c.keys[i].note(ctx) // what was noted before is true as well
			cancel()
		}
		b.Close()
	}
	if c.nats != nil {
		c.nats.Shutdown()
	}
	if c.store != nil {
		if err := c.store.Close(); err != nil {
			c.log.Error("the last checkpoint", "error", err)
		}
	}
}

// append adds to the log and waits until it is folded here, so that the next look sees it.
func (c *Coordinator) append(ctx context.Context, entries ...*pb.LogEntry) error {
	position, err := c.commit(ctx, entries...)
	if err != nil {
		return err
	}
	return c.folded(ctx, position)
}

// commit adds to the log and returns the position.
func (c *Coordinator) commit(ctx context.Context, entries ...*pb.LogEntry) (uint64, error) {
	return c.timed(func() (uint64, error) { return c.history.Append(ctx, entries...) })
}

// commitEncoded is commit of entries that are encoded already: data is a LogBatch of them.
func (c *Coordinator) commitEncoded(ctx context.Context, entries []*pb.LogEntry, data []byte) (uint64, error) {
	return c.timed(func() (uint64, error) { return c.history.AppendEncoded(ctx, entries, data) })
}

// timed notes how long a commit takes.
func (c *Coordinator) timed(commit func() (uint64, error)) (uint64, error) {
	began := time.Now()
	position, err := commit()
	if err == nil {
		c.metrics.commit.Observe(time.Since(began).Seconds())
	}
	return position, err
}

// folded waits until the fold has reached a position.
func (c *Coordinator) folded(ctx context.Context, position uint64) error {
	for {
		at, moved := c.store.Position()
		if at >= position {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Positions are how far this coordinator has folded the log, and how far it knows that the log goes.
func (c *Coordinator) Positions() (folded, known uint64) {
	folded, _ = c.store.Position()
	return folded, max(folded, c.history.Last(), c.history.End())
}

// Fleet is the agents.
func (c *Coordinator) Fleet() *fleet.Fleet { return c.fleet }

// HTTPAddr is where metrics and health are served; nil if they are not.
func (c *Coordinator) HTTPAddr() net.Addr {
	if c.httpListener == nil {
		return nil
	}
	return c.httpListener.Addr()
}
