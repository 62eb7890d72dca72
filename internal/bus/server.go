// Package bus is the only importer of NATS: the embedded server, the coordinators' log in JetStream,
// and the jobs, cancels and beats between coordinator and agents.
//
// Two accounts keep agents away from the log: JetStream lives in one that admits coordinators only;
// agents live in another, each allowed its own three subjects and answers to requests.
package bus

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	logUser   = "$log"   // "$" cannot begin an agent's name
	fleetUser = "$fleet" //
	logName   = "LOG"
	fleetName = "FLEET"

	maxPayload = 1 << 20 // bytes; the largest batch of the log is half of it
)

// ServerOptions is how to run the embedded server.
type ServerOptions struct {
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

// StartServer starts the server and returns when it takes connections.
func StartServer(opts ServerOptions) (*Server, error) {
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
	account, err := s.server.LookupAccount(logName)
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
		MaxPayload:                 maxPayload,
		MaxControlLine:             1024,
		MaxSubs:                    0,
		PingInterval:               20 * time.Second,
		MaxPingsOut:                2,
		WriteDeadline:              5 * time.Second,
		Accounts:                   []*server.Account{server.NewAccount(logName), server.NewAccount(fleetName)},
		CustomClientAuthentication: s,
	}
}

// Check implements server.Authentication: who may connect, and what it may do then.
func (s *Server) Check(c server.ClientAuthentication) bool {
	name, password := c.GetOpts().Username, c.GetOpts().Password
	user := &server.User{Username: name}
	account := fleetName
	switch name {
	case logUser, fleetUser:
		if subtle.ConstantTimeCompare([]byte(password), []byte(s.password)) != 1 {
			return false
		}
		if name == logUser {
			account = logName
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
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"beats." + agent}},
		Subscribe: &server.SubjectPermission{Allow: []string{"jobs." + agent, "cancel." + agent}},
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

// connect opens a connection inside the process.
func (s *Server) connect(user string) (*nats.Conn, error) {
	nc, err := nats.Connect("",
		nats.InProcessServer(s.server),
		nats.UserInfo(user, s.password),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond),
		nats.Name("coordinator "+user))
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return nc, nil
}

// drain closes a connection after what is under way on it.
func drain(ctx context.Context, nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	if err := nc.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		nc.Close()
		return fmt.Errorf("bus: %w", err)
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		nc.Close()
		return ctx.Err()
	}
}

// logger hands the server's words to slog. Notices are the server's start and stop: debug.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Tracef(string, ...any)           {}
