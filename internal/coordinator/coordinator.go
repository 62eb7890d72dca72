// Package coordinator asks agents what they see, keeps what they answer, and says what it means.
package coordinator

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
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
	// Advertise is the host that agents are told for NATS. Default: the one that they reached.
	Advertise string
	// PublicResolvers are the public resolvers that agents ask where a question wants them. Default: those
	// that come with the program; an empty list is none.
	PublicResolvers []*pb.PublicResolver
	// Retention is how much is kept. Default: 30 days, 10 GiB.
	Retention Retention
	// Log gets one line for each measurement. Default: none are kept.
	Log *slog.Logger
	// Metrics takes the metrics. Default: a registry of its own.
	Metrics *prometheus.Registry
}

const (
	// recentBytes bounds the closed measurements in memory.
	recentBytes = 64 << 20
	// checkpointInterval is how far the disk may be behind.
	checkpointInterval = time.Second
	// startTimeout bounds opening the log.
	startTimeout = 30 * time.Second
	// stopTimeout bounds the end of what clients and agents have under way.
	stopTimeout = 10 * time.Second
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
	fleet   *fleet.Fleet
	store   *store.Store
	closer  *closer
	reports *results.Server
	health  *health.Server
	grpc    *grpc.Server
	ready   atomic.Bool
	// recovered says that the fold has reached the log's end once.
	recovered atomic.Bool

	grpcListener, httpListener net.Listener
	validator                  protovalidate.Validator
	work                       work // questions under way

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
	c := &Coordinator{opts: opts, log: opts.Log, fleet: fleet.New(), health: health.NewServer(), serving: ctx, alive: ctx}
	if err := c.open(ctx); err != nil {
		c.release()
		return nil, err
	}
	c.closer = newCloser(c.closeMeasurement)
	c.reports = results.NewServer(c)
	c.metrics = newMetrics(c)
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
	if c.secret, err = secret(filepath.Join(c.opts.DataDir, "agents.secret")); err != nil {
		return err
	}
	if err := c.listen(); err != nil {
		return err
	}
	return c.openLog(ctx)
}

// secret is what agents' credentials are made from: kept in file, so that they outlive a restart.
func secret(file string) ([]byte, error) {
	kept, err := os.ReadFile(file)
	if err == nil && len(kept) == sha256.Size {
		return kept, nil
	}
	fresh := make([]byte, sha256.Size)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("random numbers: %w", err)
	}
	if err := os.WriteFile(file, fresh, 0o600); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return fresh, nil
}

func (c *Coordinator) listen() (err error) {
	if c.grpcListener, err = net.Listen("tcp", c.opts.GRPCAddr); err != nil {
		return fmt.Errorf("--grpc-addr: %w", err)
	}
	if c.opts.HTTPAddr == "" {
		return nil
	}
	if c.httpListener, err = net.Listen("tcp", c.opts.HTTPAddr); err != nil {
		return fmt.Errorf("--http-addr: %w", err)
	}
	return nil
}

func (c *Coordinator) openLog(ctx context.Context) (err error) {
	// The checkpoint first: its lock keeps two coordinators from one data directory.
	if c.store, err = store.Open(filepath.Join(c.opts.DataDir, "fold.db"), recentBytes); err != nil {
		return err
	}
	c.nats, err = embedded.Start(embedded.Options{
		Dir: c.opts.DataDir, Addr: c.opts.NATSAddr, Verify: c.Verify, Log: c.log.With("part", "nats"),
	})
	if err != nil {
		return fmt.Errorf("--nats-addr: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.opts.Retention = c.opts.Retention.orDefault()
	if c.history, err = bus.OpenLog(ctx, c.nats, c.opts.Retention.Bytes); err != nil {
		return err
	}
	return c.checkLog(ctx)
}

// checkLog refuses a log that ends before the checkpoint: something acknowledged is gone.
func (c *Coordinator) checkLog(ctx context.Context) error {
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	position, _ := c.store.Position()
	if bounds.Last < position {
		return fmt.Errorf("the log ends at %d and the checkpoint is at %d: the log in %s has lost what was acknowledged; restore a backup, or move fold.db away to go on without it",
			bounds.Last, position, c.opts.DataDir)
	}
	return nil
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
	if err := c.begin(partsCtx); err != nil {
		stopInner()
		return errors.Join(err, parts.Wait())
	}
	parts.Go(func() error { return c.retain(partsCtx) })
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
	c.shutdown(web)
	stopInner()
	return parts.Wait()
}

// begin takes up what was left open, then lets agents in.
func (c *Coordinator) begin(ctx context.Context) (err error) {
	if err := c.recover(ctx); err != nil {
		return err
	}
	c.agents, err = bus.OpenFleet(c.nats, c.onBeat)
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (c *Coordinator) setReady(ready bool) {
	c.ready.Store(ready)
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
	if web != nil {
		_ = web.Close()
	}
	c.work.stop()
}

// release closes what New opened.
func (c *Coordinator) release() {
	for _, l := range []net.Listener{c.grpcListener, c.httpListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	if c.agents != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.agents.Close(ctx)
		cancel()
	}
	if c.history != nil {
		c.history.Close()
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

// credential is what an agent proves its name with.
func (c *Coordinator) credential(agent string) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write([]byte(agent))
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify implements results.Sink.
func (c *Coordinator) Verify(agent, credential string) bool {
	return hmac.Equal([]byte(credential), []byte(c.credential(agent)))
}

// append adds to the log and waits until it is folded here, so that the next look sees it.
func (c *Coordinator) append(ctx context.Context, entries ...*pb.LogEntry) error {
	began := time.Now()
	position, err := c.history.Append(ctx, entries...)
	if err != nil {
		return err
	}
	c.metrics.commit.Observe(time.Since(began).Seconds())
	return c.folded(ctx, position)
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

// Fleet is the agents.
func (c *Coordinator) Fleet() *fleet.Fleet { return c.fleet }

// HTTPAddr is where metrics and health are served; nil if they are not.
func (c *Coordinator) HTTPAddr() net.Addr {
	if c.httpListener == nil {
		return nil
	}
	return c.httpListener.Addr()
}
