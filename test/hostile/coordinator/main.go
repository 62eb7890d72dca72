// Command coordinator speaks a coordinator's side to agents and does its worst, in named modes, so that a test can see
// what an agent lets it do. It is started by tests, in network namespaces of their own, and has no other use.
//
// It prints one document of JSON when its time is over: what it did, so that a test can prove that the attack happened,
// and what agents answered. With --ca and --key it has certificates like the coordinator's whose authority was stolen.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// comes is how long an agent is waited for.
	comes = time.Minute
	// soon is how long it has for its second connection: it may be in a pause between two attempts.
	soon = 5 * time.Second
)

// options are the command line.
type options struct {
	grpc, nats, ca, key string
	mode                string
	lasts               time.Duration
	rate                int
	target              netip.AddrPort
	victims             []string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostile coordinator:", err)
		os.Exit(1)
	}
}

func run() error {
	opts, err := parse(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	h := &hostile{options: opts, mode: modes[opts.mode], came: make(chan struct{}), report: report{Mode: opts.mode, Refusals: map[string]int{}}}
	ctx, cancel := context.WithTimeout(ctx, comes+opts.lasts)
	defer cancel()
	go func() { // The time counts from when the first agent is there.
		<-h.came
		time.AfterFunc(opts.lasts, cancel)
	}()
	if err := h.serve(ctx); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(h.summary())
}

func parse(args []string) (options, error) {
	var o options
	var target, victims string
	set := flag.NewFlagSet("hostile coordinator", flag.ContinueOnError)
	set.StringVar(&o.grpc, "grpc-addr", "127.0.0.1:7700", "where agents register")
	set.StringVar(&o.nats, "nats-addr", "127.0.0.1:4222", "where they get their jobs")
	set.StringVar(&o.ca, "ca", "", "stolen authority, PEM (default: no TLS)")
	set.StringVar(&o.key, "key", "", "its key, PEM")
	set.StringVar(&o.mode, "mode", "honest", strings.Join(slices.Sorted(maps.Keys(modes)), ", "))
	set.DurationVar(&o.lasts, "for", 10*time.Second, "how long, from when an agent is connected, or has registered and connects to nothing")
	set.IntVar(&o.rate, "rate", 10_000, "jobs a second")
	set.StringVar(&target, "target", "127.0.0.1:9", "IP:PORT that jobs are about")
	set.StringVar(&victims, "victims", "", "further addresses, with commas, that the mode is about")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if modes[o.mode] == nil {
		return o, fmt.Errorf("no mode %q", o.mode)
	}
	if victims != "" {
		o.victims = strings.Split(victims, ",")
	}
	var err error
	o.target, err = netip.ParseAddrPort(target)
	return o, err
}

// report is what was done, and what came of it.
type report struct {
	Mode string `json:"mode"`
	// Registered and Connected count what agents did: calls of Register, connections to NATS, result streams.
	Registered int `json:"registered"`
	Connected  int `json:"connected"`
	Streams    int `json:"streams"`
	// Jobs and Bytes are what was sent over NATS; Said, what was sent on result streams.
	Jobs  int   `json:"jobs"`
	Bytes int64 `json:"bytes"`
	Said  int   `json:"said"`
	// Accepted and Refusals are the answers to jobs, these by their words.
	Accepted int            `json:"accepted"`
	Refusals map[string]int `json:"refusals"`
	// Results are those that came. Sessions and Epochs are what agents were told, and what they said.
	Results  int      `json:"results"`
	Sessions []uint64 `json:"sessions"`
	Epochs   []uint64 `json:"epochs"`
	Errors   []string `json:"errors"`
}

// hostile is the coordinator.
type hostile struct {
	options

	mode mode
	came chan struct{} // Closed when an agent is there.
	once sync.Once

	mu     sync.Mutex
	report report
}

// begin has the time begin.
func (h *hostile) begin() { h.once.Do(func() { close(h.came) }) }

// note changes the report. With an agent on both ports the time begins.
func (h *hostile) note(f func(*report)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.report)
	if h.report.Registered > 0 && h.report.Connected > 0 {
		h.begin()
	}
}

// failed notes what the attack itself failed at, a bounded number of times.
func (h *hostile) failed(err error) {
	h.note(func(r *report) {
		if err != nil && !errors.Is(err, context.Canceled) && len(r.Errors) < 20 {
			r.Errors = append(r.Errors, err.Error())
		}
	})
}

func (h *hostile) summary() report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report
}
