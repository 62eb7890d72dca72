package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trio is three servers that are a cluster.
type trio struct {
	t       *testing.T
	servers [embedded.Members]*embedded.Server
	dirs    [embedded.Members]string
	routes  []string
	ca      *identity.Authorities // nil: in clear
}

func newTrio(t *testing.T, secure bool) *trio {
	t.Helper()
	c := &trio{t: t}
	for i := range c.dirs {
		c.dirs[i] = t.TempDir()
		c.routes = append(c.routes, freeAddr(t))
	}
	if secure {
		var err error
		if c.ca, err = identity.Open(t.TempDir(), identity.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.servers {
		c.start(i)
	}
	return c
}

// freeAddr is an address of loopback where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (c *trio) start(i int) {
	c.t.Helper()
	name := fmt.Sprintf("c-%d", i+1)
	opts := embedded.Options{
		Dir: c.dirs[i], Addr: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(c.t.Output(), nil)).With("at", name),
		Cluster: &embedded.Cluster{Name: name, Addr: c.routes[i], Routes: c.routes, Secret: "secret"},
	}
	if c.ca != nil {
		opts.Cluster.TLS = c.ca.CoordinatorsTLS(name, nil)
	}
	s, err := embedded.Start(opts)
	if err != nil {
		c.t.Fatal(err)
	}
	c.servers[i] = s
	c.t.Cleanup(s.Shutdown)
}

// log opens the log at a server, and runs it until the test ends.
func (c *trio) log(i int) *bus.Log {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	l, err := bus.OpenLog(ctx, c.servers[i], 1<<30)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(l.Close)
	go func() { _ = l.Run(c.t.Context(), nil) }()
	return l
}

// event is an entry that says something.
func event(text string) *pb.LogEntry {
	return &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: &pb.AuditEvent{Detail: text}}}
}

// told folds a log from its beginning until it has told so many entries.
func told(t *testing.T, l *bus.Log, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enough := errors.New("enough")
	var all []string
	err := l.Fold(ctx, 0, func(m bus.Message) error {
		for _, e := range m.Batch.GetEntries() {
			all = append(all, fmt.Sprintf("%d %s", m.Position, e.GetAudit().GetDetail()))
		}
		if len(all) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("%d of %d entries were told: %v", len(all), n, err)
	}
	return all
}

func TestThreeServersHoldOneLog(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			c := newTrio(t, secure)
			logs := []*bus.Log{c.log(0), c.log(1), c.log(2)}
			for i, l := range logs {
				if l.ID() != logs[0].ID() {
					t.Fatalf("the log is %s at one and %s at another", logs[0].ID(), l.ID())
				}
				if _, err := l.Append(t.Context(), event(fmt.Sprint("said at ", i))); err != nil {
					t.Fatal(err)
				}
			}
			want := told(t, logs[0], 3)
			for _, l := range logs[1:] {
				if got := told(t, l, 3); strings.Join(got, ",") != strings.Join(want, ",") {
					t.Errorf("one tells %v, another %v", want, got)
				}
			}
		})
	}
}

func TestALogGoesOnWithoutOneServer(t *testing.T) {
	c := newTrio(t, true)
	logs := []*bus.Log{c.log(0), c.log(1), c.log(2)}
	if _, err := logs[0].Append(t.Context(), event("before")); err != nil {
		t.Fatal(err)
	}
	leader := -1
	for i, s := range c.servers {
		if s.Leaders()["LOG"] == fmt.Sprintf("c-%d", i+1) {
			leader = i
		}
	}
	if leader < 0 {
		t.Fatalf("nobody leads the log: %v", c.servers[0].Leaders())
	}
	c.servers[leader].Shutdown()
	other := logs[(leader+1)%3]
	began := time.Now()
	if _, err := other.Append(t.Context(), event("after")); err != nil {
		t.Fatal(err)
	}
	t.Logf("without its leader the log goes on after %v", time.Since(began))
	c.start(leader)
	back := c.log(leader)
	if got := told(t, back, 2); len(got) != 2 {
		t.Errorf("one that is back tells %v", got)
	}
	// Alone it must not acknowledge.
	for i := range c.servers {
		if i != leader {
			c.servers[i].Shutdown()
		}
	}
	if at, err := back.Append(t.Context(), event("alone")); err == nil {
		t.Errorf("one of three acknowledged, at %d", at)
	}
}

// TestALeaderThatIsAloneIsNone stops the two servers that follow: the third goes on calling itself the leader for a while.
func TestALeaderThatIsAloneIsNone(t *testing.T) {
	c := newTrio(t, false)
	logs := []*bus.Log{c.log(0), c.log(1), c.log(2)}
	if _, err := logs[0].Append(t.Context(), event("all are there")); err != nil {
		t.Fatal(err)
	}
	alone := -1
	for i, s := range c.servers {
		name := fmt.Sprintf("c-%d", i+1)
		if s.Leaders()["LOG"] == name {
			alone = i
		}
	}
	if alone < 0 {
		t.Fatal("nobody leads")
	}
	if _, err := logs[alone].Bounds(t.Context()); err != nil {
		t.Fatalf("while all are there: %v", err)
	}
	for i, s := range c.servers {
		if i != alone {
			s.Shutdown()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bounded := func() error {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := logs[alone].Bounds(try)
		return err
	}
	for bounded() == nil {
		if ctx.Err() != nil {
			t.Fatal("one that is alone says how far the log goes")
		}
	}
	if c.servers[alone].Leaders()["LOG"] == "" {
		t.Error("it does not call itself the leader any more: this shows nothing")
	}
}

func TestADirectoryIsUsedOneWay(t *testing.T) {
	c := newTrio(t, false)
	c.log(0)
	for _, s := range c.servers {
		s.Shutdown()
	}
	if _, err := embedded.Start(embedded.Options{Dir: c.dirs[0]}); !errors.Is(err, embedded.ErrClustered) {
		t.Errorf("one of several was started alone: %v", err)
	}
	alone := t.TempDir()
	s, err := embedded.Start(embedded.Options{Dir: alone})
	if err != nil {
		t.Fatal(err)
	}
	l, err := bus.OpenLog(t.Context(), s, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s.Shutdown()
	together := &embedded.Cluster{Name: "c-9", Addr: freeAddr(t), Routes: c.routes}
	if _, err := embedded.Start(embedded.Options{Dir: alone, Cluster: together}); !errors.Is(err, embedded.ErrAlone) {
		t.Errorf("one that was alone was started as one of several: %v", err)
	}
}

func TestWhatIsMadeOfTheEndStandsAtTheEnd(t *testing.T) {
	c := newTrio(t, false)
	logs := []*bus.Log{c.log(0), c.log(1), c.log(2)}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i, l := range logs[1:] {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := l.Append(ctx, event(fmt.Sprint(i, " says ", n))); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	// Each is made of what stands before it, with nothing between, however much others write.
	for range 10 {
		var saw uint64
		at, err := logs[0].AppendMade(t.Context(), func(_ context.Context, after uint64) ([]*pb.LogEntry, error) {
			saw = after
			return []*pb.LogEntry{event("made")}, nil
		})
		if err != nil || at != saw+1 {
			t.Errorf("made of all up to %d, it stands at %d: %v", saw, at, err)
		}
	}
	if last := logs[1].End(); last < 20 {
		t.Errorf("the others wrote nothing: the log ends at %d", last)
	}
	stop()
	writers.Wait()
}

// Of three copies of a bucket any may be read, also that of a server that has just come back and does not have the newest
// changes yet. What is read has what was confirmed before.
func TestABucketIsReadAsItWasWritten(t *testing.T) {
	c := newTrio(t, false)
	b := c.bucket(0)
	list, since := 0, 0
	for range 2 {
		revision, err := b.Create(t.Context(), "a", []byte("0"))
		if err != nil {
			t.Fatal(err)
		}
		c.servers[2].Shutdown()
		for i := range 100 {
			if revision, err = b.Update(t.Context(), "a", fmt.Append(nil, i), revision); err != nil {
				t.Fatal(err)
			}
		}
		c.start(2)
		for range 100 {
			all, err := b.List(t.Context())
			if err != nil || len(all) != 1 {
				t.Fatalf("%v, %v", all, err)
			}
			if all[0].Revision < revision {
				list++
			}
			all, err = b.Since(t.Context(), revision-1)
			if err != nil || len(all) > 1 {
				t.Fatalf("%v, %v", all, err)
			}
			if len(all) == 0 {
				since++
			}
		}
		if err := b.Delete(t.Context(), "a", revision); err != nil {
			t.Fatal(err)
		}
	}
	if list+since > 0 {
		t.Errorf("of 200 lists and 200 of what is new, %d and %d had not what was confirmed before", list, since)
	}
}

// bucket opens a bucket at a server.
func (c *trio) bucket(i int) *bus.Bucket {
	c.t.Helper()
	b, err := bus.OpenBucket(c.t.Context(), c.servers[i], "agents")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(b.Close)
	return b
}
