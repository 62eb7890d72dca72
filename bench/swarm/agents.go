//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// atOnce is how many agents of a process enrol at the same time.
	atOnce = 16
	// regions is how many places the agents are spread over.
	regions = 30
)

// startCrowds starts the processes of agents.
func (o *options) startCrowds(ctx context.Context, c *coordinator) (crowds []*process, err error) {
	for i := range o.processes {
		first, next := o.agents*i/o.processes, o.agents*(i+1)/o.processes
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "agents",
			"-grpc", c.grpc, "-data", o.data, "-spools", o.spools, "-first", strconv.Itoa(first), "-next", strconv.Itoa(next),
			"-insecure="+strconv.FormatBool(o.insecure))
		cmd.Stderr = os.Stderr
		p, err := spawn(cmd)
		if err != nil {
			return crowds, err
		}
		crowds = append(crowds, p)
	}
	return crowds, nil
}

// crowd is a process of agents: it enrols and runs them until it is killed.
func crowd(ctx context.Context, args []string) error {
	var o options
	var at address
	set := flag.NewFlagSet("agents", flag.ContinueOnError)
	set.StringVar(&at.grpc, "grpc", "", "")
	set.StringVar(&o.data, "data", "", "")
	set.StringVar(&o.spools, "spools", "", "")
	set.BoolVar(&o.insecure, "insecure", false, "")
	first, next := set.Int("first", 0, ""), set.Int("next", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	cc, err := o.api(at)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	access := pb.NewAccessServiceClient(cc)
	coming, running := errgroup.Group{}, errgroup.Group{}
	coming.SetLimit(atOnce)
	for i := *first; i < *next; i++ {
		coming.Go(func() error {
			a, err := o.newAgent(ctx, one{i, at.grpc, access})
			if err == nil {
				running.Go(func() error { return a.Run(ctx) })
			}
			return err
		})
	}
	if err := coming.Wait(); err != nil {
		return err
	}
	return running.Wait()
}

// one is an agent that is to be.
type one struct {
	number int
	grpc   string
	access pb.AccessServiceClient
}

// newAgent makes an agent, which enrols first unless there is no TLS. It is spared what asks the machine's network.
func (o *options) newAgent(ctx context.Context, which one) (*agent.Agent, error) {
	name := fmt.Sprintf("agent-%05d", which.number)
	v := &pb.Vantage{
		Region: fmt.Sprintf("region-%02d", which.number%regions), Asn: uint32(64512 + which.number/regions%100), Addresses: []string{"192.0.2.1"},
	}
	opts := agent.Options{
		Coordinators: []string{which.grpc}, DataDir: filepath.Join(o.spools, name), ID: name, Vantage: v,
		Env: &probe.Env{
			Egress:    probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{}, Controls: []string{},
		},
	}
	if o.insecure {
		return agent.New(opts)
	}
	r, err := which.access.CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{Join: &pb.JoinToken{Agent: name, Vantage: v}})
	if err != nil {
		return nil, err
	}
	opts.Join = r.GetSecret()
	if opts.Identity, err = agent.Enrol(ctx, opts); err != nil {
		return nil, err
	}
	return agent.New(opts)
}
