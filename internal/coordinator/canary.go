package coordinator

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/canary"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// canaryInterval is how often the canary is measured, if nothing else is said.
	canaryInterval = 10 * time.Minute
	// canaryTimeout bounds one measurement of it.
	canaryTimeout = 15 * time.Second
	// canaryAgents is how many agents are asked at once, at most: as many as one measurement may ask.
	canaryAgents = 10_000
)

// openCanary opens the canary, if there is to be one. Its address is the one that agents are given.
func (c *Coordinator) openCanary(ctx context.Context) (err error) {
	if c.opts.CanaryAddr == "" {
		return nil
	}
	addr, err := netip.ParseAddrPort(c.opts.CanaryAddr)
	if err != nil || addr.Addr().IsUnspecified() {
		return fmt.Errorf("canary address %q: must be IP:PORT, the address that agents reach it at", c.opts.CanaryAddr)
	}
	if c.opts.CanaryInterval <= 0 {
		c.opts.CanaryInterval = canaryInterval
	}
	c.canary, err = canary.Listen(ctx, addr.String())
	return err
}

// watchCanary measures the canary from everywhere, again and again until ctx ends.
func (c *Coordinator) watchCanary(ctx context.Context) error {
	tick := time.NewTicker(c.opts.CanaryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.measureCanary(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the canary was not measured", "error", err)
		}
	}
}

// measureCanary measures the canary once, and holds what agents say of it against what it did.
func (c *Coordinator) measureCanary(ctx context.Context) error {
	addr, _ := netip.ParseAddrPort(c.canary.Addr().String())
	began := time.Now()
	m, err := measurementService{Coordinator: c}.create(ctx, &pb.CreateMeasurementRequest{
		From: "world", Limit: canaryAgents, Timeout: durationpb.New(canaryTimeout),
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: addr.Addr().String(), Port: uint32(addr.Port())}}},
	}, true)
	if err != nil {
		return err // nobody is there, or too much is under way
	}
	for {
		view, err := c.store.Get(m.GetId())
		if err != nil {
			return err
		}
		if s := view.Measurement.GetState(); s == pb.State_STATE_RUNNING {
			select {
			case <-view.Changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ended := time.Now()
		for _, r := range view.Results {
			if why := c.canary.Mismatch(canary.Visit{Began: began, Ended: ended, Agent: r.GetAgent()}, r); why != "" {
				c.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_CANARY_MISMATCH, Agent: r.GetAgent(), Detail: why})
			}
		}
		return nil
	}
}
