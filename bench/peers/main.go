//go:build linux

// Peers compares what a check costs with what the best single-host tools need for the same: CPU seconds of
// the client, which a busy machine does not spoil, and rate. Every client and every server is a process of
// its own; the contenders take turns, round by round. It needs root, for a network namespace of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// contender is one way to do n checks of a server.
type contender struct {
	name    string
	base    bool                                            // What the others are compared with.
	run     func(addr string, n int) error                  // In a process of its own.
	command func(addr string, n int) (args []string)        // Another program.
	prepare func(addr string, n int) (undo func(), e error) // What that program needs. Nil: nothing.
}

// race is a kind of check, its server and its contenders.
type race struct {
	name       string
	n          int // Checks in a round.
	per        int // The figure is for so many.
	serve      func() (addr string, err error)
	contenders []contender
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serve(args[1])
		case "client":
			return client(args[1:])
		case "inside":
			return inside(ctx, args[1:])
		}
	}
	// The namespace has a loopback interface of its own: nothing that is listened on here is seen outside.
	self := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"inside"}, args...)...)
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.Cancel = func() error { return self.Process.Signal(os.Interrupt) }
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := self.Run()
	if errors.Is(err, syscall.EPERM) {
		return errors.New("it takes root to make a network namespace")
	}
	return err
}

// inside runs the races in the namespace.
func inside(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "how often each contender runs")
	scale := flags.Float64("scale", 1, "how many checks, as a factor")
	only := flags.String("only", "", "dns, tcp or tls alone")
	profiles := flags.String("profiles", "", "a directory for CPU profiles, of the last round of each contender that is ours to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	for _, r := range races() {
		if *only != "" && *only != r.name {
			continue
		}
		r.n = max(1, int(float64(r.n)**scale))
		if err := r.hold(ctx, *rounds, *profiles); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// cost is what one turn of a contender took.
type cost struct{ cpu, wall time.Duration }

// hold runs the contenders in turns and prints what they took.
func (r race) hold(ctx context.Context, rounds int, profiles string) error {
	addr, end, err := start(ctx, r.name)
	if err != nil {
		return err
	}
	defer end()
	costs := make([][]cost, len(r.contenders))
	for range rounds {
		for i, c := range r.contenders {
			took, err := c.turn(ctx, turn{r.name, addr, r.n, profiles})
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			costs[i] = append(costs[i], took)
		}
	}
	r.print(costs)
	return nil
}

// turn is what a contender is to do.
type turn struct {
	race, addr string
	n          int
	profiles   string // Where a CPU profile goes to. Empty: there is none.
}

// profile is the file for a contender's CPU profile, or "".
func (t turn) profile(contender string) string {
	if t.profiles == "" {
		return ""
	}
	return filepath.Join(t.profiles, t.race+"-"+strings.NewReplacer("/", "-", " ", "-").Replace(contender)+".pprof")
}

// turn runs a contender once.
func (c contender) turn(ctx context.Context, t turn) (cost, error) {
	args := []string{"/proc/self/exe", "client", t.race, c.name, t.addr, strconv.Itoa(t.n), t.profile(c.name)}
	if c.prepare != nil {
		undo, err := c.prepare(t.addr, t.n)
		if err != nil {
			return cost{}, err
		}
		defer undo()
	}
	if c.command != nil {
		args = c.command(t.addr, t.n)
		if _, err := exec.LookPath(args[0]); err != nil {
			return cost{}, fmt.Errorf("%w: apt-get install dnsperf nmap", err)
		}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return cost{}, fmt.Errorf("%w: %.500s", err, out)
	}
	return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(began)}, nil
}

// print prints a line for each contender: medians, with the least and the most.
func (r race) print(costs [][]cost) {
	base := slices.IndexFunc(r.contenders, func(c contender) bool { return c.base })
	fmt.Printf("%s: %d checks a round, %d rounds, in turns\n", r.name, r.n, len(costs[0]))
	fmt.Printf("  %-26s %22s %12s %24s\n", "", fmt.Sprintf("CPU s per %d", r.per), "checks/s", "of "+r.contenders[base].name)
	for i, c := range r.contenders {
		var cpu, rate, ratio []float64
		for round, took := range costs[i] {
			cpu = append(cpu, took.cpu.Seconds()/float64(r.n)*float64(r.per))
			rate = append(rate, float64(r.n)/took.wall.Seconds())
			ratio = append(ratio, took.cpu.Seconds()/costs[base][round].cpu.Seconds())
		}
		_, middle, _ := spread(rate)
		fmt.Printf("  %-26s %22s %12.0f %24s\n", c.name, figure(cpu), middle, figure(ratio))
	}
}

// figure is a median with its spread.
func figure(all []float64) string {
	least, middle, most := spread(all)
	return fmt.Sprintf("%.2f (%.2f–%.2f)", middle, least, most)
}

func spread(all []float64) (least, middle, most float64) {
	slices.Sort(all)
	return all[0], all[len(all)/2], all[len(all)-1]
}
