// Package embedded runs the NATS server inside the coordinator. It is apart from package bus so that
// agents do not carry a server.
//
// Two accounts keep agents away from the log: JetStream lives in one that admits coordinators only;
// agents live in another, each allowed its own three subjects and answers to requests.
package embedded

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/elsewhere-net/elsewhere/internal/bus"
)

// The accounts.
const (
	logAccount   = "LOG"
	fleetAccount = "FLEET"
)

// handshakeTimeout is how long a connection may take to say who it is, in seconds.
const handshakeTimeout = 30

// Options is how to run the server.
type Options struct {
	// Dir keeps JetStream's files.
	Dir string
	// Addr is where agents connect after Listen, "HOST:PORT"; port 0 takes any.
	Addr string
	// Connections bounds the connections, those from inside the process included. Default: 64 Ki.
	Connections int
	// Unsynced has nothing forced to the disk: for one who makes many files at once and sees to that at the end.
	Unsynced bool
	// TLS is how agents connect: from the first byte on. Default: in clear.
	TLS *tls.Config
	// Admit says who connects with TLS.
	Admit Admit
	// Verify says whether a credential is the agent's. It is asked without TLS alone.
	Verify func(agent, credential string) bool
	// Cluster is how it is one of several. Nil: it is alone.
	Cluster *Cluster
	// Log gets the server's warnings and errors. Default: none are kept.
	Log *slog.Logger
}

// Server is an embedded NATS server.
type Server struct {
	server   *server.Server
	options  *server.Options
	password string // of the two users of this process; never leaves it
	verify   func(agent, credential string) bool
	doors    *doors // nil: without TLS
	// clustered says that it is one of several.
	clustered bool
	stop      sync.Once
}

// Start starts the server and returns when it takes connections from inside the process; Listen lets others in. One of
// several listens at once: its routes wait for that.
func Start(opts Options) (*Server, error) {
	host, port, err := splitHostPort(cmp.Or(opts.Addr, ":0"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(Fits(opts.Dir, opts.Cluster != nil), forgetIndexes(opts.Dir)); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	s := &Server{password: hex.EncodeToString(secret), verify: opts.Verify, clustered: opts.Cluster != nil}
	options := s.natsOptions(opts.Dir, host, port)
	// Without SyncAlways an acknowledged message can be lost with the power for two minutes.
	options.DontListen, options.SyncAlways = !s.clustered, !opts.Unsynced
	if s.clustered {
		if err := opts.Cluster.join(options); err != nil {
			return nil, err
		}
	}
	options.TLSConfig, options.MaxConn = opts.TLS, opts.Connections
	options.TLSHandshakeFirst = s.clustered && opts.TLS != nil // one alone begins with it in Listen
	s.options = options
	s.server, err = server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if opts.TLS != nil {
		s.doors = &doors{admit: opts.Admit, server: s.server, end: make(chan struct{}), open: map[string][]door{}}
		go s.doors.sweep()
	}
	if opts.Log != nil {
		s.server.SetLoggerV2(newLogger(opts.Log), false, false, false)
	}
	s.server.Start()
	if !s.server.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return nil, fmt.Errorf("bus: NATS does not start; is the directory %s writable?", opts.Dir)
	}
	account, err := s.server.LookupAccount(logAccount)
	if err == nil {
		err = account.EnableJetStream(map[string]server.JetStreamAccountLimits{}, nil)
	}
	if err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("bus: JetStream: %w", err)
	}
	return s, nil
}

// forgetIndexes has JetStream read all that its streams hold, and what its checksums do not fit is missed. After a stop in
// good order it would believe an index that it wrote then, and nobody might look at the messages for months. It takes about
// 0.2 s a GiB, as it does after every other stop.
func forgetIndexes(dir string) error {
	indexes, err := fs.Glob(os.DirFS(dir), "jetstream/*/streams/*/msgs/index.db")
	for _, name := range indexes {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	return err
}

// Listen lets agents in from outside the process. It is called once, when the coordinator's own connections stand: where
// TLS comes before all else, the server waits for 50 ms whether a connection from inside begins with it too.
func (s *Server) Listen() error {
	if s.clustered {
		return nil
	}
	s.options.TLSHandshakeFirst = s.options.TLSConfig != nil // read for each connection; none comes from outside yet
	s.server.AcceptLoop(make(chan struct{}))                 // which it closes
	if s.server.Addr() == nil {
		return fmt.Errorf("bus: NATS cannot listen on %s, port %d; is the address free?", s.options.Host, s.options.Port)
	}
	return nil
}

func splitHostPort(addr string) (string, int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("bus: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("bus: port %q: %w", text, err)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

func (s *Server) natsOptions(dir, host string, port int) *server.Options {
	return &server.Options{
		ServerName:                 "elsewhere",
		Host:                       host,
		Port:                       port,
		NoSigs:                     true,
		StoreDir:                   dir,
		JetStream:                  true,
		JetStreamMaxMemory:         1 << 20, // nothing is kept in memory
		JetStreamMaxStore:          1 << 40, // the stream has its own bound
		MaxPayload:                 bus.MaxPayload,
		MaxControlLine:             1024,
		MaxSubs:                    64, // an agent has 2, a connection of the coordinator's own a few
		TLSTimeout:                 handshakeTimeout,
		AuthTimeout:                handshakeTimeout,
		PingInterval:               20 * time.Second,
		MaxPingsOut:                2,
		WriteDeadline:              5 * time.Second,
		Accounts:                   []*server.Account{server.NewAccount(logAccount), server.NewAccount(fleetAccount)},
		CustomClientAuthentication: s,
	}
}

// Check implements server.Authentication: who may connect, and what it may do then.
func (s *Server) Check(c server.ClientAuthentication) bool {
	user, account := s.agent(c)
	if user == nil {
		user, account = s.own(c)
	}
	if user == nil {
		return false
	}
	var err error
	// The server keeps copies of the accounts that it was started with: these are the real ones.
	if user.Account, err = s.server.LookupAccount(account); err != nil {
		return false
	}
	c.RegisterUser(user)
	return true
}

// own is the user of a connection of the coordinator's own, nil if it is none. With TLS those are the ones without:
// they come from inside the process, since the listener takes nothing else.
func (s *Server) own(c server.ClientAuthentication) (user *server.User, account string) {
	opts := c.GetOpts()
	if c.GetTLSConnectionState() != nil || subtle.ConstantTimeCompare([]byte(opts.Password), []byte(s.password)) != 1 {
		return nil, ""
	}
	switch opts.Username {
	case bus.LogUser:
		return &server.User{Username: opts.Username}, logAccount
	case bus.FleetUser:
		return &server.User{Username: opts.Username}, fleetAccount
	}
	return nil, ""
}

// agent is the user of an agent's connection, nil if it is none. With TLS its certificate says who it is, and nothing
// that it sends.
func (s *Server) agent(c server.ClientAuthentication) (user *server.User, account string) {
	name, shown := c.GetOpts().Username, c.GetTLSConnectionState()
	switch {
	case s.doors == nil:
		if strings.HasPrefix(name, "$") || s.verify == nil || !s.verify(name, c.GetOpts().Password) {
			return nil, ""
		}
	case shown == nil:
		return nil, ""
	default:
		var ok bool
		if name, ok = s.doors.enter(c.GetID(), *shown); !ok {
			return nil, ""
		}
	}
	return &server.User{Username: name, Permissions: agentPermissions(name)}, fleetAccount
}

// Recheck ends those connections of an agent that would not be admitted now: it was revoked, or has another key.
func (s *Server) Recheck(agent string) {
	if s.doors != nil {
		s.doors.recheck(agent)
	}
}

// agentPermissions allows an agent its own subjects and nothing else.
func agentPermissions(agent string) *server.Permissions {
	publish, subscribe := bus.AgentSubjects(agent)
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
	}
}

// Addr is where the server listens, nil before Listen.
func (s *Server) Addr() net.Addr { return s.server.Addr() }

// Stuck says which write has failed; nil if none has. Nothing more is written then until the server is started again.
func (s *Server) Stuck() error {
	if s.clustered {
		return s.stuckAmongOthers()
	}
	if h := s.server.Healthz(&server.HealthzOptions{Account: logAccount}); h.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("bus: %s", h.Error)
	}
	return nil
}

// Shutdown stops the server and returns when it has stopped.
func (s *Server) Shutdown() {
	if s.doors != nil {
		s.stop.Do(func() { close(s.doors.end) })
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// InProcessConn opens a connection inside the process.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server.InProcessConn() }

// Password is that of this process's own users.
func (s *Server) Password() string { return s.password }
