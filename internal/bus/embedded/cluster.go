package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
)

// Members is how many servers a cluster has: the log is on each of them, and two of them are enough to go on.
const Members = 3

const (
	// clusterName is the cluster's, of every network.
	clusterName = "elsewhere"
	// routeUser is who other servers are without TLS.
	routeUser = "$route"
	// routeTimeout is how long another server may take to say who it is, in seconds.
	routeTimeout = 10
	// routeReports is how many attempts to connect to another server are told by one line: there is one a second, and they
	// go on for as long as it is away.
	routeReports = 600
	// pooled is how many connections there are between two servers, beside one for each account that needs its own.
	pooled = 1
)

// A follower stands for election when it has not heard from its leader for between minElection and maxElection; a leader
// is heard each heartbeat. NATS takes 4 to 9 s, and 1 s, which are made for clusters of hundreds of servers: nobody
// could commit for so long after a leader was killed.
const (
	minElection, maxElection = 1200 * time.Millisecond, 2400 * time.Millisecond
	heartbeat                = 300 * time.Millisecond
)

// NATS has no option for them.
//
//go:linkname minElectionTimeout github.com/nats-io/nats-server/v2/server.minElectionTimeout
var minElectionTimeout time.Duration

//go:linkname maxElectionTimeout github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var maxElectionTimeout time.Duration

//go:linkname hbInterval github.com/nats-io/nats-server/v2/server.hbInterval
var hbInterval time.Duration

// hurry sets them, before the first of these servers reads them.
var hurry = sync.OnceFunc(func() {
	minElectionTimeout, maxElectionTimeout, hbInterval = minElection, maxElection, heartbeat
})

// Cluster is how a server is one of several.
type Cluster struct {
	// Name is this server's, its own for good: the others know by it what they hold together.
	Name string
	// Addr is where other servers connect, "HOST:PORT".
	Addr string
	// Routes are where all of them are, "HOST:PORT". At the first start there must be as many as Members, with its own.
	Routes []string
	// TLS is how servers connect, both ways. Default: in clear.
	TLS *tls.Config
	// Secret is what servers show each other without TLS.
	Secret string
}

// ErrAlone and ErrClustered say that a directory was used the other way: JetStream would delete what it holds.
var (
	ErrAlone = errors.New("it holds the log of a coordinator that was alone, and several would delete it: " +
		"start it without the --gossip flags, take a backup (elsewhere backup FILE), stop it, " +
		"and make the directories of three of that: elsewhere restore FILE --data-dir DIR --several c-1,c-2,c-3")
	ErrClustered = errors.New("it holds the log of one of several coordinators: start it with the --gossip flags that it had; " +
		"or, to go on with one alone, take a backup of them (elsewhere backup FILE), stop them, " +
		"and make a directory of that: elsewhere restore FILE --data-dir DIR")
)

// Fits says whether a directory may be used as it is to be: by one of several servers, or by one alone. One that was
// never used fits both.
func Fits(dir string, clustered bool) error {
	was, err := used(dir)
	switch {
	case err != nil:
		return err
	case was == alone && clustered:
		return fmt.Errorf("%s: %w", dir, ErrAlone)
	case was == together && !clustered:
		return fmt.Errorf("%s: %w", dir, ErrClustered)
	}
	return nil
}

type use int

const (
	never use = iota
	alone
	together
)

// used is how a directory was used. A server in a cluster keeps what its group has decided, and one alone does not.
func used(dir string) (use, error) {
	_, err := os.Stat(filepath.Join(dir, "jetstream", server.DEFAULT_SYSTEM_ACCOUNT, "_js_", "_meta_"))
	if err == nil {
		return together, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return never, err
	}
	streams, err := fs.Glob(os.DirFS(dir), "jetstream/*/streams/*")
	if len(streams) > 0 {
		return alone, err
	}
	return never, err
}

// join has a server be one of several.
func (c *Cluster) join(o *server.Options) error {
	hurry()
	host, port, err := splitHostPort(c.Addr)
	if err != nil {
		return err
	}
	o.ServerName, o.ConnectErrorReports, o.ReconnectErrorReports = c.Name, routeReports, routeReports
	o.Cluster = server.ClusterOpts{
		Name: clusterName, Host: host, Port: port, PoolSize: pooled, TLSTimeout: routeTimeout, AuthTimeout: routeTimeout,
		PingInterval: 2 * time.Second, WriteDeadline: 10 * time.Second,
		TLSConfig: c.TLS,
	}
	if c.TLS == nil {
		o.Cluster.Username, o.Cluster.Password = routeUser, c.Secret
	}
	for _, r := range c.Routes {
		u := &url.URL{Scheme: "nats", Host: r}
		if c.TLS == nil {
			u.User = url.UserPassword(routeUser, c.Secret)
		}
		o.Routes = append(o.Routes, u)
	}
	return nil
}

// RouteAddr is where other servers connect; empty if it is alone.
func (s *Server) RouteAddr() string {
	if a := s.server.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Replicas is how many copies there are of all that JetStream keeps.
func (s *Server) Replicas() int {
	if s.clustered {
		return Members
	}
	return 1
}

// Leaders are the names of those that lead, by what they lead: "meta", or the name of a stream. What nobody leads now is
// "". A server that is alone has none.
func (s *Server) Leaders() map[string]string {
	leaders := map[string]string{}
	if !s.clustered {
		return leaders
	}
	if info, err := s.server.Jsz(&server.JSzOptions{}); err == nil && info.Meta != nil {
		leaders["meta"] = info.Meta.Leader
	}
	if info, err := s.server.JszAccount(&server.JSzOptions{Account: logAccount, Streams: true}); err == nil {
		for _, stream := range info.Streams {
			if stream.Cluster != nil {
				leaders[stream.Name] = stream.Cluster.Leader
			}
		}
	}
	return leaders
}

// Extent is what a server's own copy of a stream has.
type Extent struct{ First, Last, Messages, Bytes uint64 }

// Copies are what this server has of each stream, by the stream's name, whatever the others have.
func (s *Server) Copies() (map[string]Extent, error) {
	info, err := s.server.JszAccount(&server.JSzOptions{Account: logAccount, Streams: true})
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	copies := map[string]Extent{}
	for _, stream := range info.Streams {
		is := stream.State
		copies[stream.Name] = Extent{is.FirstSeq, is.LastSeq, is.Msgs, is.Bytes}
	}
	return copies, nil
}

// stuckAmongOthers is Stuck for one of several, of whose health much else is a part.
func (s *Server) stuckAmongOthers() error {
	if !s.server.JetStreamEnabled() {
		return errors.New("bus: JetStream has stopped, as after a write that failed")
	}
	for _, account := range []string{server.DEFAULT_SYSTEM_ACCOUNT, logAccount} {
		groups := s.server.Raftz(&server.RaftzOptions{AccountFilter: account})
		if groups == nil {
			continue
		}
		for name, g := range (*groups)[account] {
			if g.WALError != nil {
				return fmt.Errorf("bus: %s: %w", name, g.WALError)
			}
		}
	}
	return nil
}
