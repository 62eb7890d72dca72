//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// asked is one measurement over all agents.
type asked struct {
	created time.Duration // until the answer to create
	closed  time.Duration // until the verdict of the closed measurement
	slowest time.Duration // the longest of the agents' checks
}

// over is what it took beyond the slowest check.
func (a asked) over() time.Duration { return a.closed - a.slowest }

// askAll asks all agents for one connect to this process, round by round.
func (o *options) askAll(ctx context.Context, c *coordinator) error {
	cc, err := o.api(c.address)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	api := pb.NewMeasurementServiceClient(cc)
	var over []time.Duration
	for round := range o.rounds {
		before, err := c.scrape(ctx)
		if err != nil {
			return err
		}
		a, err := o.ask(ctx, api, round)
		if err != nil {
			return err
		}
		after, err := c.scrape(ctx)
		if err != nil {
			return err
		}
		over = append(over, a.over())
		fmt.Printf("a measurement over %d agents: created after %.2f s, closed verdict after %.2f s, slowest check %.2f s: %.2f s over it; %.1f s of the coordinator's processor time; %s (load %s)\n",
			o.agents, a.created.Seconds(), a.closed.Seconds(), a.slowest.Seconds(), a.over().Seconds(), after.cpu-before.cpu, after.memory(), load())
	}
	fmt.Printf("over the slowest check: median %.2f s of %d measurements\n", median(over).Seconds(), o.rounds)
	return nil
}

// ask asks once. Every round has a target of its own, so that there are ports enough.
func (o *options) ask(ctx context.Context, api pb.MeasurementServiceClient, round int) (a asked, err error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:0", round+1))
	if err != nil {
		return a, err
	}
	defer func() { _ = l.Close() }()
	go take(l)
	target := netip.MustParseAddrPort(l.Addr().String())
	began := time.Now()
	created, err := api.CreateMeasurement(ctx, &pb.CreateMeasurementRequest{
		Spec:  &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
		Limit: int32(o.agents),
	})
	if err != nil {
		return a, err
	}
	a.created = time.Since(began)
	m, err := closed(ctx, api, created.GetMeasurement().GetId())
	if err != nil {
		return a, err
	}
	a.closed = time.Since(began)
	if l := m.GetLedger(); int(l.GetAnswered()) != o.agents || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
		return a, fmt.Errorf("%v, %v", l, m.GetVerdict())
	}
	a.slowest, err = slowest(ctx, api, m.GetId())
	return a, err
}

// take takes connections until they take no more.
func take(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
	}
}

// closed waits for the closed measurement and its verdict.
func closed(ctx context.Context, api pb.MeasurementServiceClient, id string) (*pb.Measurement, error) {
	stream, err := api.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id})
	for err == nil {
		var r *pb.WatchMeasurementResponse
		if r, err = stream.Recv(); err == nil && r.GetMeasurement().GetState() == pb.State_STATE_FINISHED {
			return r.GetMeasurement(), nil
		}
	}
	return nil, fmt.Errorf("watching: %w", err)
}

// slowest is the longest check of a measurement.
func slowest(ctx context.Context, api pb.MeasurementServiceClient, id string) (longest time.Duration, err error) {
	stream, err := api.ListResults(ctx, &pb.ListResultsRequest{Id: id})
	for err == nil {
		var r *pb.ListResultsResponse
		r, err = stream.Recv()
		longest = max(longest, r.GetResult().GetDuration().AsDuration())
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	return longest, nil
}
