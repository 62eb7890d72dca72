// Package canary is a target that a coordinator owns: it says something else to everybody who connects, and remembers
// what. Who reports of it what it did not say has made it up.
package canary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// greeting is what every banner begins with, so that who meets the canary knows what it is.
	greeting = "elsewhere-canary "
	// maxRemembered bounds the banners that are remembered, each about 200 bytes.
	maxRemembered = 1 << 16
	// maxGuests bounds the connections at once. Beyond it nobody is let in, which is no mismatch.
	maxGuests = 1024
	// stay is how long a guest may stay.
	stay = 3 * time.Second
	// maxSilent is how often in turn an agent may say that it connected and heard nothing. A banner can be lost or late
	// once; a canary that is never heard was never visited.
	maxSilent = 3
	// maxAgents bounds the agents whose silence is counted.
	maxAgents = 1 << 15
)

// Canary is a canary.
type Canary struct {
	listener net.Listener

	mu     sync.Mutex
	said   map[string]*banner
	order  []string       // of said, the oldest first
	silent map[string]int // by agent: how often in turn it heard nothing
}

// banner is what was said once.
type banner struct {
	at   time.Time
	peer netip.Addr
	by   string // the agent that reported it
}

// Listen opens a canary at an address, "HOST:PORT", which agents reach it at.
func Listen(ctx context.Context, addr string) (*Canary, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("canary: %w", err)
	}
	return &Canary{listener: l, said: map[string]*banner{}, silent: map[string]int{}}, nil
}

// Addr is where it listens.
func (c *Canary) Addr() net.Addr { return c.listener.Addr() }

// Close ends it.
func (c *Canary) Close() error { return c.listener.Close() }

// Run sings until ctx ends.
func (c *Canary) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = c.listener.Close() })()
	var guests sync.WaitGroup
	defer guests.Wait()
	seats := make(chan struct{}, maxGuests)
	for {
		conn, err := c.listener.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // too many files are open, or the guest is gone: neither lasts
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case seats <- struct{}{}:
			guests.Go(func() {
				defer func() { <-seats }()
				c.greet(conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// greet says something to one guest, and waits until it goes.
func (c *Canary) greet(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(stay))
	peer, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	// It is remembered before it is said: a report can be faster than this goroutine.
	if _, err := conn.Write([]byte(c.next(peer.Addr().Unmap()))); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
}

// next makes a banner and remembers it.
func (c *Canary) next(peer netip.Addr) string {
	text := greeting + strings.ToLower(rand.Text()) + "\r\n"
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.order) >= maxRemembered {
		delete(c.said, c.order[0])
		c.order = c.order[1:]
	}
	c.said[text] = &banner{at: time.Now(), peer: peer}
	c.order = append(c.order, text)
	return text
}

// Visit is one measurement of the canary: what is reported of it was said in that time.
type Visit struct {
	// Began and Ended are by this process's clock.
	Began, Ended time.Time
	// Agent is who reports.
	Agent string
}

// Mismatch says what in a result is not what the canary did. "": nothing. That an agent could not connect is none.
func (c *Canary) Mismatch(v Visit, r *pb.Result) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard, connected := false, false
	for _, s := range r.GetSteps() {
		if s.GetKind() != pb.StepKind_STEP_KIND_TCP_CONNECT || s.GetRole() != pb.Role_ROLE_TARGET || s.GetFailure() != pb.Failure_FAILURE_NONE {
			continue
		}
		connected = true
		if s.GetAddress() != c.listener.Addr().String() {
			return fmt.Sprintf("it reports to have connected to %.64q in place of the canary", s.GetAddress())
		}
		if text := string(s.GetEvidence().GetBanner()); text != "" {
			heard = true
			if why := c.claim(v, text); why != "" {
				return why
			}
		}
	}
	if !connected || heard {
		delete(c.silent, v.Agent)
		return ""
	}
	if _, known := c.silent[v.Agent]; !known && len(c.silent) >= maxAgents {
		return ""
	}
	c.silent[v.Agent]++
	if n := c.silent[v.Agent]; n >= maxSilent {
		return fmt.Sprintf("it reports to have connected to the canary %d times in turn, and never what that said", n)
	}
	return ""
}

// claim says why an agent cannot have heard a banner. "": it can, and nobody else can from now on.
func (c *Canary) claim(v Visit, text string) string {
	b := c.said[text]
	switch {
	case b == nil:
		return fmt.Sprintf("it reports what the canary never said: %.80q", text)
	case b.at.Before(v.Began) || b.at.After(v.Ended):
		return fmt.Sprintf("it reports what the canary said at another time, %s, to %s", b.at.UTC().Format(time.RFC3339), b.peer)
	case b.by != "" && b.by != v.Agent:
		return fmt.Sprintf("it reports what the canary said once, to %s, as agent %s does", b.peer, b.by)
	}
	b.by = v.Agent
	return ""
}
