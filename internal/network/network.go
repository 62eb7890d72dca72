// Package network is a whole network in one process: a coordinator with its NATS, and agents, with
// real sockets between them on loopback. They speak TLS, and agents enrol with tokens, as they do between
// machines.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Options is what to run.
type Options struct {
	// Dir keeps the coordinator's log and the agents' spools.
	Dir string
	// GRPCAddr, HTTPAddr and NATSAddr are the coordinator's, "IP:PORT". Default: any free port of
	// 127.0.0.1; no HTTP.
	GRPCAddr, HTTPAddr, NATSAddr string
	// PublicResolvers are the coordinator's. Default: those that come with the program.
	PublicResolvers []*pb.PublicResolver
	// Agents are the agents.
	Agents []Agent
	// Log gets what coordinator and agents have to say. Default: nothing is kept.
	Log *slog.Logger
}

// Agent is one agent.
type Agent struct {
	// ID is its name.
	ID string
	// Vantage is where it says that it stands.
	Vantage *pb.Vantage
	// Env is what its probes touch.
	Env *probe.Env
}

// Network is a network that runs.
type Network struct {
	coordinator *coordinator.Coordinator
	dir         string // the coordinator's
	stop        context.CancelFunc
	done        chan struct{}
	err         error // of the parts, once done is closed
}

const (
	loopback = "127.0.0.1:0"
	// maxToken bounds the file of a token, in bytes.
	maxToken = 1024
)

// Start starts a network and returns when every agent is online.
func Start(ctx context.Context, opts Options) (*Network, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.GRPCAddr == "" {
		opts.GRPCAddr = loopback
	}
	if opts.NATSAddr == "" {
		opts.NATSAddr = loopback
	}
	c, err := coordinator.New(ctx, coordinator.Options{
		DataDir:  filepath.Join(opts.Dir, "coordinator"),
		GRPCAddr: opts.GRPCAddr, HTTPAddr: opts.HTTPAddr, NATSAddr: opts.NATSAddr,
		PublicResolvers: opts.PublicResolvers,
		Log:             opts.Log.With("part", "coordinator"),
	})
	if err != nil {
		return nil, err
	}
	// Its life is not ctx's: it ends when Stop says so, agents first.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n := &Network{coordinator: c, dir: filepath.Join(opts.Dir, "coordinator"), stop: cancel, done: make(chan struct{})}
	go func() {
		n.err = n.run(inner, opts)
		close(n.done)
	}()
	if err := n.wait(ctx, len(opts.Agents)); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

// run runs all parts until ctx ends; the coordinator outlives the agents, which have results to deliver.
func (n *Network) run(ctx context.Context, opts Options) error {
	outer, stopCoordinator := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCoordinator()
	var coordinatorErr error
	coordinatorDone := make(chan struct{})
	agents, agentsCtx := errgroup.WithContext(ctx)
	go func() {
		defer close(coordinatorDone)
		coordinatorErr = n.coordinator.Run(outer)
	}()
	agents.Go(func() error { // without a coordinator there is no network
		select {
		case <-coordinatorDone:
			return errors.New("the coordinator stopped")
		case <-agentsCtx.Done():
			return nil
		}
	})
	agents.Go(func() error { return n.runAgents(agentsCtx, opts) })
	err := agents.Wait()
	stopCoordinator()
	<-coordinatorDone
	return errors.Join(coordinatorErr, err)
}

// runAgents lets the agents in and runs them until ctx ends.
func (n *Network) runAgents(ctx context.Context, opts Options) error {
	door, err := n.openDoor(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer door.close()
	agents, ctx := errgroup.WithContext(ctx)
	for _, a := range opts.Agents {
		agents.Go(func() error {
			how := agent.Options{
				Coordinators: []string{n.Addr()},
				DataDir:      filepath.Join(opts.Dir, "agents", a.ID),
				ID:           a.ID, Vantage: a.Vantage, Env: a.Env,
				DrainTimeout: time.Second,
				Log:          opts.Log.With("part", "agent"),
			}
			err := door.enrol(ctx, &how)
			if ctx.Err() != nil {
				return nil
			}
			var running *agent.Agent
			if err == nil {
				running, err = agent.New(how)
			}
			if err != nil {
				return fmt.Errorf("agent %s: %w", a.ID, err)
			}
			return running.Run(ctx)
		})
	}
	return agents.Wait()
}

// wait waits until so many agents are online.
func (n *Network) wait(ctx context.Context, agents int) error {
	world, err := fleet.ParseSelector("world")
	if err != nil {
		return err
	}
	for {
		list, changed := n.coordinator.Fleet().List(world)
		online := 0
		for _, a := range list {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				online++
			}
		}
		if online >= agents {
			return nil
		}
		select {
		case <-changed:
		case <-n.done:
			return n.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Addr is where clients connect, "IP:PORT".
func (n *Network) Addr() string { return n.coordinator.GRPCAddr().String() }

// CA is the path of the PEM file by which clients know the coordinator.
func (n *Network) CA() string { return filepath.Join(n.dir, "ca.pem") }

// TokenFile is the path of the file with the token of the network's administrator.
func (n *Network) TokenFile() string { return filepath.Join(n.dir, "admin.token") }

// Token is the token of the network's administrator. It is there when Start has returned.
func (n *Network) Token() (string, error) {
	text, err := file.Read(n.TokenFile(), maxToken)
	if err != nil {
		return "", fmt.Errorf("the administrator's token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Done is closed when the network has stopped, by Stop or by itself.
func (n *Network) Done() <-chan struct{} { return n.done }

// Stop stops the network and returns when all of it has stopped.
func (n *Network) Stop() error {
	n.stop()
	<-n.done
	return n.err
}
