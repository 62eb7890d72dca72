//go:build linux

// Swarm measures what a great many agents cost one coordinator: its memory and processor time while they are idle, the
// time until all of them are online, and how fast a measurement over all of them is. The coordinator is the real program
// in a process of its own; the agents are the real ones (internal/agent), thousands of them in each of a few processes,
// enrolled with tokens and connected with TLS unless -insecure says otherwise. All of it is on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli"
)

// options is what to run.
type options struct {
	program   string // the coordinator's
	agents    int
	processes int // of agents
	insecure  bool
	idle      time.Duration // how long idle agents are looked at
	rounds    int           // measurements
	again     bool          // the coordinator is killed and started again
	data      string        // the coordinator's directory
	spools    string        // the agents'
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "swarm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "agents" {
		return crowd(ctx, args[1:])
	}
	var o options
	set := flag.NewFlagSet("swarm", flag.ContinueOnError)
	set.StringVar(&o.program, "coordinator", "bin/elsewhere-coordinator", "the program")
	set.IntVar(&o.agents, "agents", 9000, "how many agents")
	set.IntVar(&o.processes, "processes", 4, "in how many processes; each agent takes six of a process's descriptors")
	set.BoolVar(&o.insecure, "insecure", false, "without TLS and enrolment")
	set.DurationVar(&o.idle, "idle", 30*time.Second, "how long idle agents are looked at")
	set.IntVar(&o.rounds, "rounds", 5, "how many measurements over all agents")
	set.StringVar(&o.spools, "spools", "/dev/shm", "where the agents' directories are made: not all of them have this machine's one disk")
	set.BoolVar(&o.again, "restart", false, "kill the coordinator at the end, and wait until all agents are back")
	limit := set.Duration("limit", 15*time.Minute, "how long all of it may take")
	if err := set.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	return o.inDirectories(func() error { return o.measure(ctx) })
}

// inDirectories makes the directories, and removes them afterwards.
func (o *options) inDirectories(f func() error) (err error) {
	if o.data, err = os.MkdirTemp("", "swarm-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.data)) }()
	if o.spools, err = os.MkdirTemp(o.spools, "swarm-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.spools)) }()
	return f()
}

// measure takes all figures and prints each when it is known.
func (o *options) measure(ctx context.Context) error {
	c, err := o.startCoordinator(ctx)
	if err != nil {
		return err
	}
	defer func() { c.end() }()
	empty, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("load %s; a coordinator without agents: %s\n", load(), empty.memory())
	crowds, err := o.startCrowds(ctx, c)
	defer func() {
		for _, p := range crowds {
			p.end()
		}
	}()
	if err != nil {
		return err
	}
	if err := o.join(ctx, c, crowds); err != nil {
		return err
	}
	if err := o.watchIdle(ctx, c, empty); err != nil {
		return err
	}
	if err := o.askAll(ctx, c); err != nil {
		return err
	}
	if !o.again {
		return nil
	}
	return o.restart(ctx, c, crowds)
}

// join waits until all agents are online for the first time.
func (o *options) join(ctx context.Context, c *coordinator, crowds []*process) error {
	took, err := c.online(ctx, o.agents, crowds)
	if err != nil {
		return err
	}
	now, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	how := fmt.Sprintf("enrolled and online, %d at a time", o.processes*atOnce)
	if o.insecure {
		how = fmt.Sprintf("registered and online, %d at a time", o.processes*atOnce)
	}
	fmt.Printf("%d agents %s: %.1f s; the coordinator used %.1f s of processor time, and has %s\n", o.agents, how, took.Seconds(), now.cpu, now.memory())
	return nil
}

// watchIdle says what agents cost that do nothing but beat.
func (o *options) watchIdle(ctx context.Context, c *coordinator, empty sample) error {
	if err := pause(ctx, 30*time.Second); err != nil { // what their coming took is given back by then, for the most part
		return err
	}
	before, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, o.idle); err != nil {
		return err
	}
	after, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d agents idle: %s; %.0f KiB an agent; %.0f %% of a processor (load %s)\n", o.agents, after.memory(),
		(after.resident-empty.resident)/1024/float64(o.agents), (after.cpu-before.cpu)/o.idle.Seconds()*100, load())
	return nil
}

// restart kills the coordinator and says how long it takes until all agents are back.
func (o *options) restart(ctx context.Context, c *coordinator, crowds []*process) error {
	killed := time.Now()
	c.end()
	if err := c.start(ctx); err != nil {
		return err
	}
	took, err := c.online(ctx, o.agents, crowds)
	if err != nil {
		return err
	}
	fmt.Printf("the coordinator killed and started again: all %d online %.1f s after it was ready, %.1f s after it was killed (load %s)\n",
		o.agents, took.Seconds(), time.Since(killed).Seconds(), load())
	if err := pause(ctx, 30*time.Second); err != nil {
		return err
	}
	now, err := c.scrape(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("half a minute later: %s\n", now.memory())
	once := *o
	once.rounds = 1
	return once.askAll(ctx, c) // who is online can be asked
}

// api connects as the administrator.
func (o *options) api(c address) (*grpc.ClientConn, error) {
	at := cli.Endpoint{Address: c.grpc, Insecure: o.insecure, CA: filepath.Join(o.data, "ca.pem")}
	if !o.insecure {
		token, err := os.ReadFile(filepath.Join(o.data, "admin.token"))
		if err != nil {
			return nil, err
		}
		at.Token = strings.TrimSpace(string(token))
	}
	return cli.Dial(at)
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load is the machine's load average of a minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}

// median is the middle one.
func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
