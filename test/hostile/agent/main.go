// Command agent speaks an agent's side to a coordinator and does its worst, in named modes, so that a test can see what a
// coordinator lets it do. It enrols as any agent does, with a token. It is started by tests and has no other use. It prints one document of JSON when its time is
// over: what it did, and what it was told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/identity"
)

// options are the command line.
type options struct {
	coordinator, id, mode string
	// data and join are where its identity is, and the token to get one with. Without them all is in clear.
	data, join string
	// tape is a file for what is recorded and played.
	tape  string
	epoch uint64
	lasts time.Duration
}

// report is what was done, and what came of it.
type report struct {
	Mode string `json:"mode"`
	// Registered, Jobs, Sent, Results and Acked count what was done, and what the coordinator did; Results are those in Sent.
	Registered int `json:"registered"`
	Jobs       int `json:"jobs"`
	Sent       int `json:"sent"`
	Results    int `json:"results"`
	Acked      int `json:"acked"`
	// Refused and Overheard count what NATS did with what is no business of an agent's; Opened, connections that say little.
	Refused   int `json:"refused"`
	Overheard int `json:"overheard"`
	Opened    int `json:"opened"`
	// Epoch is that of the last registration.
	Epoch uint64 `json:"epoch"`
	// Errors are what calls and streams ended with, by their words.
	Errors map[string]int `json:"errors"`
}

// hostile is the agent.
type hostile struct {
	options

	mode behaviour
	end  context.CancelFunc // It has done what it came for.
	keep *identity.Keep     // nil: in clear

	mu     sync.Mutex
	report report
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostile agent:", err)
		os.Exit(1)
	}
}

func run() error {
	h := &hostile{report: report{Errors: map[string]int{}}}
	set := flag.NewFlagSet("hostile agent", flag.ContinueOnError)
	set.StringVar(&h.coordinator, "coordinator", "127.0.0.1:7700", "HOST:PORT of gRPC")
	set.StringVar(&h.id, "id", "evil", "its name")
	set.StringVar(&h.options.mode, "mode", "invent", strings.Join(slices.Sorted(maps.Keys(modes)), ", "))
	set.StringVar(&h.data, "data-dir", "", "directory for its identity (default: no TLS)")
	set.StringVar(&h.join, "join", "", "token to come in with the first time")
	set.StringVar(&h.tape, "tape", "", "file for what is recorded and played")
	set.Uint64Var(&h.epoch, "epoch", 0, "epoch that it says its spool has (default: it is new)")
	set.DurationVar(&h.lasts, "for", 10*time.Second, "how long")
	if err := set.Parse(os.Args[1:]); err != nil {
		return err
	}
	var ok bool
	if h.mode, ok = modes[h.options.mode]; !ok {
		return fmt.Errorf("no mode %q", h.options.mode)
	}
	h.report.Mode = h.options.mode
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, h.lasts)
	defer cancel()
	h.end = cancel
	if err := h.enrol(ctx); err != nil {
		return err
	}
	var processes sync.WaitGroup
	for range max(h.mode.processes, 1) {
		processes.Go(func() { h.lives(ctx) })
	}
	processes.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(&h.report)
}

// enrol comes in as a real agent does.
func (h *hostile) enrol(ctx context.Context) (err error) {
	if h.data == "" {
		return nil
	}
	h.keep, err = agent.Enrol(ctx, agent.Options{Coordinators: []string{h.coordinator}, DataDir: h.data, ID: h.id, Join: h.join})
	return err
}

// lives comes again and again, until ctx ends.
func (h *hostile) lives(ctx context.Context) {
	process := noise()
	for ctx.Err() == nil {
		if h.mode.fresh {
			process = noise()
		}
		h.failed(h.live(ctx, process))
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// note changes the report.
func (h *hostile) note(f func(*report)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.report)
}

// failed notes what the coordinator did not let it do.
func (h *hostile) failed(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	h.note(func(r *report) {
		if len(r.Errors) < 50 {
			r.Errors[err.Error()]++
		}
	})
}
