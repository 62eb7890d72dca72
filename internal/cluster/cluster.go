// Package cluster is which coordinators there are and which of them live, by gossip (memberlist). It is a hint, never the
// truth: whoever has a key of it can say anything, two coordinators may see different things, and one that is cut off sees
// all others dead. Who owns what, and what was measured, is decided elsewhere; this says whom to ask first.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// MaxMeta is the most that others can be told of a coordinator, in bytes.
	MaxMeta = memberlist.MetaMaxSize
	// maxMembers bounds the coordinators that one knows, itself, the dead and the gone among them.
	maxMembers = 64
	// label keeps other networks of memberlists apart: what has another one is not listened to.
	label = "elsewhere"
	// goodbye is how long each of the two messages of a farewell may take to be sent.
	goodbye = 3 * time.Second
)

// Options say what one coordinator's gossip is.
type Options struct {
	// Name is this coordinator's: 1 to 63 of a-z, 0-9 and "-". No two have the same.
	Name string
	// Addr is where gossip listens, UDP and TCP: "HOST:PORT". Port 0 takes any that is free.
	Addr string
	// Advertise is the "HOST[:PORT]" that others are told. A name is resolved once. The default is Addr; if that is every
	// address of this machine, the one that the first of Join, or else the internet, is reached from.
	Advertise string
	// Join are others, "HOST:PORT" each; it may name itself. They are tried for ever, also when all is well.
	Join []string
	// Keys are 1 to 8 of 32 bytes each: the first encrypts, the others decrypt too. None: everybody may listen and speak.
	Keys [][]byte
	// Meta is what others are told of this coordinator, at most MaxMeta bytes.
	Meta []byte
	// Log hears who comes and goes. Default: nobody does.
	Log *slog.Logger

	// For tests: the time between two rounds of joining, and what they change in memberlist and below it.
	every time.Duration
	tune  func(*memberlist.Config)
	wrap  func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// Cluster is one coordinator's end of the gossip. It is safe for concurrent use.
type Cluster struct {
	list    *memberlist.Memberlist
	addr    netip.AddrPort
	own     *delegate
	members *members
	lines   *lines
	rejoin  *rejoin
	cancel  context.CancelFunc

	mu      sync.Mutex // One at a time changes what is told, or the keys, or ends it all.
	keys    *memberlist.Keyring
	stopped bool
}

// Start listens, and begins to join the others: that goes on in the background, whether they answer or not.
func Start(opts Options) (*Cluster, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	at, err := opts.addresses()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cluster{own: &delegate{}, members: newMembers(opts.Name, opts.Log), lines: newLines(opts.Log), cancel: cancel}
	c.own.meta.Store(new(bytes.Clone(opts.Meta)))
	if err := c.listen(ctx, opts, at); err != nil {
		cancel()
		return nil, err
	}
	c.rejoin = newRejoin(c, opts)
	go c.rejoin.run(ctx)
	return c, nil
}

// listen makes the memberlist, which begins to listen.
func (c *Cluster) listen(ctx context.Context, opts Options, at addresses) error {
	config := memberlist.DefaultLANConfig()
	config.Name, config.Label = opts.Name, label
	config.Logger = log.New(c.lines, "", 0)
	config.Delegate, config.Events, config.Alive, config.Conflict = c.own, c.members, c.members, c.members
	config.DeadNodeReclaimTime = time.Millisecond // A coordinator that died may come back at another address at once.
	if len(opts.Keys) > 0 {
		keys, err := memberlist.NewKeyring(cloneKeys(opts.Keys), bytes.Clone(opts.Keys[0]))
		if err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
		c.keys, config.Keyring = keys, keys
	}
	if opts.tune != nil {
		opts.tune(config)
	}
	below, port, err := newTransport(ctx, at.listen, config.Logger)
	if err != nil {
		return err
	}
	config.Transport = below
	if opts.wrap != nil {
		config.Transport = opts.wrap(below)
	}
	told := at.advertised(port)
	config.BindAddr, config.BindPort = at.listen.Addr().String(), int(port)
	config.AdvertiseAddr, config.AdvertisePort = told.Addr().String(), int(told.Port())
	if c.list, err = memberlist.Create(config); err != nil {
		return errors.Join(fmt.Errorf("gossip at %s: %w", at.listen, err), below.Shutdown())
	}
	c.addr = told
	return nil
}

// Addr is where others are told to find this coordinator's gossip.
func (c *Cluster) Addr() netip.AddrPort { return c.addr }

// Members are the coordinators by name, this one among them, and those that died or left within the last hour; and a
// channel that is closed when any of that changes.
func (c *Cluster) Members() ([]Member, <-chan struct{}) { return c.members.all() }

var errStopped = errors.New("gossip has stopped")

// Tell replaces what others are told of this coordinator. They hear it within a second or so, or at the latest when they
// next compare all they know, every half minute.
func (c *Cluster) Tell(meta []byte) error {
	if err := checkMeta(meta); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errStopped
	}
	if bytes.Equal(meta, *c.own.meta.Load()) {
		return nil
	}
	c.own.meta.Store(new(bytes.Clone(meta)))
	_ = c.list.UpdateNode(time.Nanosecond) // It is on its way; the error would be that nobody waited for it.
	return nil
}

// farewell is what a coordinator that leaves tells of itself before it does: memberlist does not say whether another left
// or died (Node.State is never set).
const farewell = "\x00left"

// Leave says goodbye, so that the others need not find out, and stops. It takes a second, and at most six, less if ctx has a
// deadline; it stops in any case. The error is that not all may have heard it.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	c.own.meta.Store(new([]byte(farewell)))
	var err error
	for _, say := range []func(time.Duration) error{c.list.UpdateNode, c.list.Leave} {
		patience := goodbye
		if deadline, ok := ctx.Deadline(); ok {
			patience = min(patience, time.Until(deadline))
		}
		if ctx.Err() != nil || patience <= 0 {
			err = errors.New("gossip: no time to say goodbye: the others will take this coordinator for dead")
			break
		}
		// If the first is not said in time, the second still says that nobody is here any more.
		if err = say(patience); err != nil {
			err = fmt.Errorf("gossip: not all may have heard the goodbye: %w", err)
		}
	}
	return errors.Join(err, c.end())
}

// Stop stops without a word: after 5 to 12 seconds the others see this coordinator dead. What memberlist is waiting for at
// that moment (it cannot be interrupted) is given up within seconds.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	return c.end()
}

// end stops everything; the lock is held.
func (c *Cluster) end() error {
	c.stopped = true
	c.members.end()
	c.lines.ended.Store(true)
	c.cancel()
	<-c.rejoin.done
	if err := c.list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}
