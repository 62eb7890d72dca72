// Package embedded runs the NATS server inside the coordinator. It is apart from package bus so that
// agents do not carry a server.
//
// Two accounts keep agents away from the log: JetStream lives in one that admits coordinators only;
// agents live in another, each allowed its own three subjects and answers to requests.
package embedded

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/elsewhere-net/elsewhere/internal/bus"
)

// The accounts.
const (
	logAccount   = "LOG"
	fleetAccount = "FLEET"
)

// Options is how to run the server.
type Options struct {
	// Dir keeps JetStream's files.
	Dir string
	// Addr is where agents connect, "HOST:PORT"; port 0 takes any.
	Addr string
	// Verify says whether a credential is the agent's.
	Verify func(agent, credential string) bool
	// Log gets the server's warnings and errors. Default: none are kept.
	Log *slog.Logger
}

// Server is an embedded NATS server.
type Server struct {
	server   *server.Server
	password string // of the two users of this process; never leaves it
	verify   func(agent, credential string) bool
}

// Start starts the server and returns when it takes connections.
func Start(opts Options) (*Server, error) {
	host, port, err := splitHostPort(opts.Addr)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	s := &Server{password: hex.EncodeToString(secret), verify: opts.Verify}
	s.server, err = server.NewServer(s.natsOptions(opts.Dir, host, port))
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if opts.Log != nil {
		s.server.SetLoggerV2(logger{opts.Log}, false, false, false)
	}
	s.server.Start()
	if !s.server.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return nil, fmt.Errorf("bus: NATS does not start on %s; is the address free and the directory %s writable?", opts.Addr, opts.Dir)
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
		ServerName: "elsewhere",
		Host:       host,
		Port:       port,
		NoSigs:     true,
		StoreDir:   dir,
		JetStream:  true,
		// Without it an acknowledged message can be lost with the power for two minutes.
		SyncAlways:                 true,
		JetStreamMaxMemory:         1 << 20, // nothing is kept in memory
		JetStreamMaxStore:          1 << 40, // the stream has its own bound
		MaxPayload:                 bus.MaxPayload,
		MaxControlLine:             1024,
		MaxSubs:                    0,
		PingInterval:               20 * time.Second,
		MaxPingsOut:                2,
		WriteDeadline:              5 * time.Second,
		Accounts:                   []*server.Account{server.NewAccount(logAccount), server.NewAccount(fleetAccount)},
		CustomClientAuthentication: s,
	}
}

// Check implements server.Authentication: who may connect, and what it may do then.
func (s *Server) Check(c server.ClientAuthentication) bool {
	name, password := c.GetOpts().Username, c.GetOpts().Password
	user := &server.User{Username: name}
	account := fleetAccount
	switch name {
	case bus.LogUser, bus.FleetUser:
		if subtle.ConstantTimeCompare([]byte(password), []byte(s.password)) != 1 {
			return false
		}
		if name == bus.LogUser {
			account = logAccount
		}
	default:
		if s.verify == nil || !s.verify(name, password) {
			return false
		}
		user.Permissions = agentPermissions(name)
	}
	var err error
	// The server keeps copies of the accounts that it was started with: these are the real ones.
	if user.Account, err = s.server.LookupAccount(account); err != nil {
		return false
	}
	c.RegisterUser(user)
	return true
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

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.server.Addr() }

// Shutdown stops the server and returns when it has stopped.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// InProcessConn opens a connection inside the process.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server.InProcessConn() }

// Password is that of this process's own users.
func (s *Server) Password() string { return s.password }

// logger hands the server's words to slog. Notices are the server's start and stop: debug.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Tracef(string, ...any)           {}
