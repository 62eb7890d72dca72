package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/cluster"
	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Others is how a coordinator is one of several.
type Others struct {
	// Name is its own, for good. Default: the one in the data directory, or a new one.
	Name string
	// GossipAddr is where it gossips, "HOST:PORT".
	GossipAddr string
	// Join are where others gossip, "HOST:PORT".
	Join []string
	// Keys are what gossip is encrypted with, the first of them; the rest are understood too. Nil: it is in clear.
	Keys *file.Watched[[][]byte]
	// RouteAddr is where the others' NATS connects. Default: a free port, for good, of the host that gossips.
	RouteAddr string
}

const (
	// othersFile keeps the coordinator's name, and where the others are.
	othersFile = "coordinators.json"
	// maxOthersFile bounds that file, in bytes.
	maxOthersFile = 64 << 10
	// waitingInterval is how often it is said who is missing at the first start.
	waitingInterval = 10 * time.Second
	// quietAfter is how long a coordinator may say nothing before nothing is left to it.
	quietAfter = 4 * time.Second
)

// others is what is known of the other coordinators.
type others struct {
	name   string
	gossip *cluster.Cluster
	dir    string

	mu     sync.Mutex
	routes map[string]string // where each one's NATS is: those that hold the log together, for good
	states map[string]heardState
	hashes hashes
	differ string // those that have another state, where this one is wrong
	unled  int    // for how many turns nobody has led the log
	// alarmed says that it was told that states differ, and warned of which strangers.
	alarmed bool
	wanted  chan struct{} // has one when somebody wants to know how it is
	asked   moment        // when the others were last asked how they are
	warned  map[string]bool

	wantedAt atomic.Uint64 // where in the log that is to be; 0: where it is
}

// heardState is what a coordinator said of itself.
type heardState struct {
	state *pb.CoordinatorState
	at    time.Time
}

// kept is the file. A route is empty where it is known who, and not yet where.
type kept struct {
	Name   string            `json:"name"`
	Routes map[string]string `json:"routes"`
}

// Appoint makes a data directory that of one of several, where it is known who they are and not where they will be: at
// their first start they find each other by gossip, and nobody else takes a place.
func Appoint(dir, name string, all []string) error {
	k := kept{Name: name, Routes: map[string]string{}}
	for _, one := range all {
		k.Routes[one] = ""
	}
	return k.write(dir)
}

func (k kept) write(dir string) error {
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, othersFile)
	if is, _ := os.ReadFile(path); bytes.Equal(is, append(data, '\n')) {
		return nil
	}
	return file.Replace(path, append(data, '\n'))
}

// meet begins to gossip and waits, at the first start, until all the others are there. It returns how NATS is one of
// several.
func (c *Coordinator) meet(ctx context.Context) (*embedded.Cluster, error) {
	if err := embedded.Fits(c.opts.DataDir, true); err != nil {
		return nil, err
	}
	o, own := c.opts.Others, kept{Routes: map[string]string{}}
	path := filepath.Join(c.opts.DataDir, othersFile)
	data, err := file.Read(path, maxOthersFile)
	if err == nil {
		err = json.Unmarshal(data, &own)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if own.Name != "" && o.Name != "" && own.Name != o.Name {
		return nil, fmt.Errorf("the data directory %s is that of coordinator %s, not of %s: use another directory", c.opts.DataDir, own.Name, o.Name)
	}
	own.Name = cmp.Or(own.Name, o.Name, "coordinator-"+newID()[20:])
	if !identity.IsName(own.Name) {
		return nil, fmt.Errorf("--id %q: must be 1 to 63 of a-z, 0-9 and \"-\"", own.Name)
	}
	listen, err := routeAddr(o, own.Routes[own.Name])
	if err != nil {
		return nil, err
	}
	c.others = &others{
		name: own.Name, dir: c.opts.DataDir, routes: own.Routes,
		states: map[string]heardState{}, warned: map[string]bool{}, hashes: newHashes(), wanted: make(chan struct{}, 1),
	}
	c.others.gossip, err = cluster.Start(cluster.Options{
		Name: own.Name, Addr: o.GossipAddr, Advertise: c.opts.Advertise, Join: o.Join, Keys: o.keys(), Log: c.log.With("part", "gossip"),
	})
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(listen)
	if len(own.Routes) == embedded.Members && !c.others.holds(own.Name) {
		return nil, fmt.Errorf("%s: %s is not one of the coordinators that it names", path, own.Name)
	}
	c.others.routes[own.Name] = net.JoinHostPort(c.advertised(), port)
	if err := c.others.gossip.Tell(c.addresses()); err != nil {
		return nil, err
	}
	if err := c.awaitOthers(ctx); err != nil {
		return nil, err
	}
	member := &embedded.Cluster{Name: own.Name, Addr: listen, Routes: slices.Sorted(maps.Values(c.others.routes)), Secret: "elsewhere"}
	if !c.opts.Insecure {
		member.TLS = c.authorities.CoordinatorsTLS(own.Name, []string{c.advertised()})
	}
	return member, nil
}

// keys are what gossip is encrypted with now.
func (o *Others) keys() [][]byte {
	if o.Keys == nil {
		return nil
	}
	keys, _ := o.Keys.Current()
	return keys
}

// followKeys has gossip go by the file of keys when it changes, until ctx ends.
func (c *Coordinator) followKeys(ctx context.Context) error {
	if c.others == nil || c.opts.Others.Keys == nil {
		return nil
	}
	c.opts.Others.Keys.Follow(ctx, func(changed bool, err error) {
		if err == nil && changed {
			err = c.others.gossip.Rekey(c.opts.Others.keys())
		}
		if err != nil {
			c.log.Error("the keys of gossip cannot be used: those before still hold", "error", err)
			return
		}
		c.log.Info("the keys of gossip hold as they are now", "keys", len(c.opts.Others.keys()))
	})
	return nil
}

// routeAddr is where this one's NATS listens for the others: at the same port for good, since the others remember it.
func routeAddr(o *Others, before string) (string, error) {
	host, port, err := net.SplitHostPort(cmp.Or(o.RouteAddr, o.GossipAddr))
	if err != nil {
		return "", fmt.Errorf("--route-addr: %w", err)
	}
	if o.RouteAddr == "" {
		_, port, _ = net.SplitHostPort(before)
		port = cmp.Or(port, "0")
	}
	if port != "0" {
		return net.JoinHostPort(host, port), nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return "", fmt.Errorf("--route-addr: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// advertised is the host that others know this coordinator by.
func (c *Coordinator) advertised() string {
	if c.opts.Advertise != "" {
		return c.opts.Advertise
	}
	return c.others.gossip.Addr().Addr().String()
}

// addresses is what gossip tells of this coordinator.
func (c *Coordinator) addresses() []byte {
	a := &pb.CoordinatorAddresses{Route: c.others.routes[c.others.name], Version: clip(flags.Version()), Grpc: c.reachable(c.GRPCAddr())}
	if c.nats != nil {
		a.Nats = c.reachable(c.NATSAddr())
	}
	data, _ := proto.Marshal(a) // of short strings
	return data
}

// reachable is an address where this coordinator listens as others reach it.
func (c *Coordinator) reachable(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := tcp.IP.String()
	if tcp.IP.IsUnspecified() || c.opts.Advertise != "" {
		host = c.advertised()
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// addressesOf reads what gossip tells of a member.
func addressesOf(m cluster.Member) *pb.CoordinatorAddresses {
	a := &pb.CoordinatorAddresses{}
	if proto.Unmarshal(m.Meta, a) != nil {
		return &pb.CoordinatorAddresses{}
	}
	return a
}

// awaitOthers waits until it is known where all of those are that hold the log, and keeps that.
func (c *Coordinator) awaitOthers(ctx context.Context) error {
	tick := time.NewTicker(waitingInterval)
	defer tick.Stop()
	for said := false; ; said = true {
		_, changed := c.others.gossip.Members()
		if err := c.others.learn(c.log); err != nil {
			return err
		}
		if c.others.known() == embedded.Members {
			return c.others.keep()
		}
		if !said {
			c.log.Info("waiting for the other coordinators", "here", c.others.names(), "wanted", embedded.Members, "gossip", c.others.gossip.Addr().String())
		}
		select {
		case <-changed:
		case <-tick.C:
			c.log.Warn("still waiting for the other coordinators: start them with --gossip-join "+c.others.gossip.Addr().String(),
				"here", c.others.names(), "wanted", embedded.Members)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sayWaiting says from time to time that too few coordinators are there for the log to be opened, until it is called off.
func (c *Coordinator) sayWaiting(ctx context.Context) (off func()) {
	if c.others == nil {
		return func() {}
	}
	ctx, off = context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(waitingInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.log.Warn("still waiting: the log cannot be read before two of three coordinators are there", "members", c.others.names())
			case <-ctx.Done():
				return
			}
		}
	}()
	return off
}

// learn takes up where the others are. Those that hold the log stay the same: a stranger is told of, and left out.
func (o *others) learn(log logger) error {
	members, _ := o.gossip.Members()
	o.mu.Lock()
	defer o.mu.Unlock()
	complete := len(o.routes) >= embedded.Members
	for _, m := range members {
		route := addressesOf(m).GetRoute()
		if m.Name == o.name || route == "" || !isAddr(route) {
			continue
		}
		switch _, known := o.routes[m.Name]; {
		case known:
			o.routes[m.Name] = route
		case complete && m.State == cluster.Alive && !o.warned[m.Name]:
			o.warned[m.Name] = true
			log.Error("a coordinator that is not one of those that hold the log gossips here: it is left out", "stranger", m.Name, "members", strings.Join(slices.Sorted(maps.Keys(o.routes)), ", "))
		case !complete && m.State == cluster.Alive:
			o.routes[m.Name] = route
		}
	}
	if len(o.routes) > embedded.Members {
		return fmt.Errorf("%d coordinators gossip here (%s), and %d can hold the log: start the others without --gossip-join, or with another --gossip-key",
			len(o.routes), strings.Join(slices.Sorted(maps.Keys(o.routes)), ", "), embedded.Members)
	}
	return nil
}

// logger is slog's, as far as it is needed here.
type logger interface {
	Error(msg string, args ...any)
}

func isAddr(s string) bool {
	host, port, err := net.SplitHostPort(s)
	_, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && host != ""
}

// known is how many of those that hold the log are known, and where.
func (o *others) known() int { return len(o.located()) }

// names are those that hold the log, as far as it is known where they are.
func (o *others) names() string { return strings.Join(slices.Sorted(maps.Keys(o.located())), ", ") }

// located are the routes to those of which it is known where they are.
func (o *others) located() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	routes := maps.Clone(o.routes)
	maps.DeleteFunc(routes, func(_, route string) bool { return route == "" })
	return routes
}

// holds says whether a coordinator is one of those that hold the log.
func (o *others) holds(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.routes[name]
	return known
}

// keep writes the file, if it is not as it should be.
func (o *others) keep() error {
	o.mu.Lock()
	k := kept{o.name, maps.Clone(o.routes)}
	o.mu.Unlock()
	return k.write(o.dir)
}

// alive are the coordinators that live, sorted: this one, and those that gossip does not call dead and that have said
// wake has this coordinator look, and say, how it is, now.
func (o *others) wake() {
	select {
	case o.wanted <- struct{}{}:
	default:
	}
}

// something lately.
func (o *others) alive() []string {
	members, _ := o.gossip.Members()
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	for _, m := range members {
		if m.Name == o.name || m.State == cluster.Alive && time.Since(o.states[m.Name].at) < quietAfter {
			names = append(names, m.Name)
		}
	}
	return names
}

// rank is this coordinator's place among those that live for a key: the first does what one has to do, and the others
// come after it in case it has died. It is a hint: what two of them do takes effect once.
func (c *Coordinator) rank(key string) int {
	if c.others == nil {
		return 0
	}
	return cluster.Rank(key, c.others.name, c.others.alive())
}

// owns says whether what belongs to a key is this coordinator's to do.
func (c *Coordinator) owns(key string) bool { return c.rank(key) == 0 }

// name is the coordinator's in certificates: those of several differ.
func (c *Coordinator) name() string {
	if c.others == nil {
		return coordinatorName
	}
	return c.others.name
}

// places are where agents can connect: this coordinator first, then the others that live.
func (c *Coordinator) places() []string {
	if c.others == nil {
		return nil
	}
	members, _ := c.others.gossip.Members()
	alive := c.others.alive()
	all := []string{c.reachable(c.GRPCAddr())}
	for _, m := range members {
		if a := addressesOf(m).GetGrpc(); m.Name != c.others.name && slices.Contains(alive, m.Name) && isAddr(a) {
			all = append(all, a)
		}
	}
	return all
}

// refuseUnready sends agents to other coordinators while this one is of no use to them. One alone has nobody to send them
// to.
func (c *Coordinator) refuseUnready() error {
	if c.others == nil {
		return nil
	}
	if why := c.useless(); why != "" {
		return status.Errorf(codes.Unavailable, "coordinator %s is not ready: %s; try another one", c.name(), why)
	}
	return nil
}

// say tells the other coordinators something, if there are any. It may be lost.
func (c *Coordinator) say(message *pb.CoordinatorMessage) {
	if c.peers == nil {
		return
	}
	if err := c.peers.Say(message); err != nil {
		c.log.Debug("the other coordinators are not told", "error", err)
	}
}
