// Package bus is what goes over NATS: the coordinators' log in JetStream, and jobs, cancels and beats
// between coordinator and agents. The server itself is package embedded.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// LogUser is the coordinator's own user of the log's account; no agent's name begins with "$".
	LogUser = "$log"
	// FleetUser is the coordinator's own user of the agents' account.
	FleetUser = "$fleet"
	// MaxPayload bounds one message, in bytes: ten thousand agents are asked by one entry of the log.
	MaxPayload = 8 << 20
	// ownTimeout bounds a connect inside the process. Only a machine that is far too busy is slow there, and to give up
	// would be to end.
	ownTimeout = 30 * time.Second
)

// Server is the embedded server, as far as the coordinator's own connections need it.
type Server interface {
	// InProcessConn opens a connection inside the process.
	InProcessConn() (net.Conn, error)
	// Password is that of the coordinator's own users.
	Password() string
	// Replicas is how many copies there are of what is kept.
	Replicas() int
}

// AgentSubjects are the subjects that an agent may publish to and subscribe.
func AgentSubjects(agent string) (publish, subscribe []string) {
	return []string{beatsPrefix + agent}, []string{jobsPrefix + agent, cancelPrefix + agent}
}

// connect opens a connection inside the process.
func connect(s Server, user string) (*nats.Conn, error) {
	nc, err := nats.Connect("",
		nats.InProcessServer(s),
		nats.UserInfo(user, s.Password()),
		nats.Timeout(ownTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the library would write to stderr; calls say it
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
