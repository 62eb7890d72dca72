//go:build linux

// Scale folds and judges the log of a great many agents' traffic, without sockets and without NATS: what it costs one
// core, in memory and on disk, from 1,000 agents to 100,000. The traffic is made up (traffic.go) of results that real
// agents sent (pkg/aggregate/testdata/golden); what folds it and judges it is what a coordinator runs: store.Apply for
// each message of the log, store.Checkpoint now and then, store.Get of every measurement that was closed.
//
// Each number of agents has a process of its own with one processor (GOMAXPROCS=1), so that all of its work, the
// collector's too, counts. Times are the process's processor time, which a busy machine does not spoil much; a
// checkpoint's time on the clock is told beside it, since that is the disk's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
)

// options is what to run.
type options struct {
	plan
	golden  string // the directory of recorded measurements
	dir     string // where the checkpoints are made
	profile string // a file for a profile of processor time; "": none
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	set := flag.NewFlagSet("scale", flag.ContinueOnError)
	sizes := set.String("agents", "1000,3000,10000,30000,100000", "how many agents, one after the other")
	one := set.Bool("one", false, "run the one size in this process and print its figures as JSON")
	set.IntVar(&o.perAgent, "results", 10, "results of each agent")
	set.IntVar(&o.least, "least", 200_000, "results at least, however few agents there are")
	set.IntVar(&o.checkpoint, "checkpoint", 10_000, "results between two checkpoints: about a second of one processor")
	set.Uint64Var(&o.seed, "seed", 1, "another one is other traffic")
	set.StringVar(&o.golden, "golden", "pkg/aggregate/testdata/golden", "the directory of recorded measurements")
	set.StringVar(&o.dir, "dir", "", "where the checkpoints are made (the system's temporary directory)")
	set.StringVar(&o.profile, "profile", "", "with -one, a file for a profile of processor time")
	if err := set.Parse(args); err != nil {
		return err
	}
	var counts []int
	for text := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < leastAgents {
			return fmt.Errorf("-agents: %q is not a number of %d at least", text, leastAgents)
		}
		counts = append(counts, n)
	}
	if *one {
		o.agents = counts[0]
		f, err := o.profiled(o.measure)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(f)
	}
	return o.all(ctx, args, counts)
}

// all runs each size in a process of its own and prints what came of it.
func (o *options) all(ctx context.Context, args []string, counts []int) error {
	fmt.Printf("load %s; %d results of each agent, %d at least; a checkpoint every %d results\n", load(), o.perAgent, o.least, o.checkpoint)
	var list []figures
	for _, n := range counts {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, "-one", "-agents", strconv.Itoa(n))...)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%d agents: %w", n, err)
		}
		var f figures
		if err := json.Unmarshal(out, &f); err != nil {
			return fmt.Errorf("%d agents: %w", n, err)
		}
		fmt.Print(f)
		list = append(list, f)
	}
	first, last := list[0], list[len(list)-1]
	fmt.Printf("a result with %d agents costs %.2f times what it does with %d; load %s\n",
		last.Agents, last.perResult()/first.perResult(), first.Agents, load())
	return nil
}

// measure runs one size in a directory of its own.
func (o *options) measure() (f figures, err error) {
	shapes, err := loadShapes(o.golden)
	if err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp(o.dir, "scale-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return measure(o.plan, shapes, dir)
}

// profiled runs f, with a profile if one is wanted.
func (o *options) profiled(f func() (figures, error)) (_ figures, err error) {
	if o.profile == "" {
		return f()
	}
	file, err := os.Create(o.profile)
	if err != nil {
		return figures{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return figures{}, err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// load is the machine's load average of a minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}
