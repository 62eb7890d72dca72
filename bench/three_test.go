package bench

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
)

// newLoadOfThree starts three coordinators that are one service on loopback, and agents that are spread over them.
func newLoadOfThree(b *testing.B, agents int) *load {
	l := &load{b: b}
	gossip := freeAddrs(b, embedded.Members)
	all := make([]*coordinator.Coordinator, embedded.Members)
	opened := make(chan error)
	for i := range all { // they wait for each other
		opts := l.options()
		opts.Others = &coordinator.Others{Name: fmt.Sprint("c-", i+1), GossipAddr: gossip[i], Join: gossip}
		go func() {
			var err error
			all[i], err = coordinator.New(b.Context(), opts)
			opened <- err
		}()
	}
	for range all {
		if err := <-opened; err != nil {
			b.Fatal(err)
		}
	}
	return l.with(agents, all...)
}

// freeAddrs are addresses of loopback where nobody listens.
func freeAddrs(b *testing.B, n int) (addrs []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = l.Close() }() // all at the end: otherwise one may come twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// lookInterval is how often it is looked how far the folds are.
const lookInterval = time.Millisecond

// lag is how far the last of the folds was behind what was acknowledged, each time that somebody looked.
type lag struct {
	messages []uint64
	times    []time.Duration
}

// acknowledgement is when it was seen that the log goes so far.
type acknowledgement struct {
	position uint64
	at       time.Time
}

// behind says whether a coordinator has not folded the log up to a position.
func (l *load) behind(position uint64) bool {
	return slices.ContainsFunc(l.coordinators, func(c *coordinator.Coordinator) bool { folded, _ := c.Positions(); return folded < position })
}

// watchLag looks how far the folds are until it is stopped. One alone is not looked at.
func (l *load) watchLag(into *lag) (stop func()) {
	if len(l.coordinators) == 1 {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(lookInterval)
		defer tick.Stop()
		var waiting []acknowledgement // not folded by all, as far as it is known
		for {
			select {
			case now := <-tick.C:
				waiting = l.look(into, waiting, now)
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// look notes how far the folds are now.
func (l *load) look(into *lag, waiting []acknowledgement, now time.Time) []acknowledgement {
	var known uint64 // first: the folds go on meanwhile
	for _, c := range l.coordinators {
		_, end := c.Positions()
		known = max(known, end)
	}
	slowest := known
	for _, c := range l.coordinators {
		folded, _ := c.Positions()
		slowest = min(slowest, folded)
	}
	if n := len(waiting); n == 0 || waiting[n-1].position < known {
		waiting = append(waiting, acknowledgement{known, now})
	}
	for len(waiting) > 0 && waiting[0].position <= slowest {
		waiting = waiting[1:]
	}
	since := now
	if len(waiting) > 0 {
		since = waiting[0].at
	}
	into.messages, into.times = append(into.messages, known-slowest), append(into.times, now.Sub(since))
	return waiting
}

// report reports it, if anybody looked.
func (l *lag) report(b *testing.B) {
	if len(l.times) == 0 {
		return
	}
	slices.Sort(l.messages)
	slices.Sort(l.times)
	for _, p := range []int{50, 99, 100} {
		at := (len(l.times) - 1) * p / 100
		name := fmt.Sprint("fold-lag-p", p)
		b.ReportMetric(float64(l.times[at].Microseconds())/1000, name+"-ms")
		b.ReportMetric(float64(l.messages[at]), name+"-messages")
	}
}
