package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	jobsPrefix   = "jobs."
	cancelPrefix = "cancel."
	beatsPrefix  = "beats."
	// askTimeout bounds one question to one agent.
	askTimeout = 2 * time.Second
)

// ErrNoResponder says that nobody listens at an agent's subject.
var ErrNoResponder = errors.New("bus: the agent is not connected")

// Fleet is the coordinator's end of the agents' account.
type Fleet struct{ nc *nats.Conn }

// OpenFleet connects to the agents' account.
func OpenFleet(s Server) (*Fleet, error) {
	nc, err := connect(s, FleetUser)
	if err != nil {
		return nil, err
	}
	return &Fleet{nc}, nil
}

// Hear hands every beat from now on to beat, one at a time, with the name of the agent that it came from: NATS lets an
// agent publish on its own subject only, whatever name the beat has.
func (f *Fleet) Hear(beat func(from string, b *pb.Beat)) error {
	_, err := f.nc.Subscribe(beatsPrefix+"*", func(m *nats.Msg) {
		var b pb.Beat
		if proto.Unmarshal(m.Data, &b) == nil {
			beat(strings.TrimPrefix(m.Subject, beatsPrefix), &b)
		}
	})
	if err == nil {
		err = f.nc.Flush() // from here on no beat is missed
	}
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// Ask hands a job to its agent and returns the answer, within 2 s.
func (f *Fleet) Ask(ctx context.Context, job *pb.Job) (*pb.JobReply, error) {
	data, err := proto.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := f.nc.RequestWithContext(ctx, jobsPrefix+job.GetAgent(), data)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, ErrNoResponder
	}
	if err != nil {
		return nil, fmt.Errorf("bus: asking %s: %w", job.GetAgent(), err)
	}
	var reply pb.JobReply
	if err := proto.Unmarshal(m.Data, &reply); err != nil {
		return nil, fmt.Errorf("bus: answer of %s: %w", job.GetAgent(), err)
	}
	return &reply, nil
}

// Cancel tells an agent that a job is not wanted any more. It does not wait for an answer.
func (f *Fleet) Cancel(agent string, c *pb.Cancel) error {
	data, err := proto.Marshal(c)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	if err := f.nc.Publish(cancelPrefix+agent, data); err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// Close closes the connection after what is under way.
func (f *Fleet) Close(ctx context.Context) error { return drain(ctx, f.nc) }

// AgentOptions is how an agent connects.
type AgentOptions struct {
	// Agent is its name.
	Agent string
	// Credential is what it was given at registration, where there is no TLS.
	Credential string
	// Addresses are the NATS servers, "HOST:PORT"; no more than eight of them are used.
	Addresses []string
	// TLS is how the connection is made safe, by a handshake before all else; its certificate says who the agent is.
	// Nil: it is in clear.
	TLS *tls.Config
	// Dialer is how it connects, and how long it tries. Nil: as long as the system does.
	Dialer *net.Dialer
	// May says why the agent must not connect to an address, whoever told it to. Nil: it may connect to any.
	May func(netip.AddrPort) error
	// Job is called for every job, one at a time; it must not block. Its answer is sent back.
	Job func(*pb.Job) *pb.JobReply
	// Cancel is called for every cancelled job, one at a time; it must not block.
	Cancel func(*pb.Cancel)
	// Connected is called after every connection and reconnection, on a goroutine of the connection's.
	Connected func()
}

// AgentConn is an agent's connection. It reconnects by itself, with growing, jittered pauses, until it has Ended.
type AgentConn struct {
	nc    *nats.Conn
	opts  AgentOptions
	ended chan struct{}
}

// ConnectAgent connects an agent, subscribes its subjects, and returns when the server has confirmed
// both.
func ConnectAgent(ctx context.Context, opts AgentOptions) (*AgentConn, error) {
	servers := opts.Addresses[:min(len(opts.Addresses), maxServers)]
	urls := make([]string, len(servers))
	for i, addr := range servers {
		urls[i] = "nats://" + addr
	}
	dial := &dialer{may: opts.May, tls: opts.TLS}
	if opts.Dialer != nil {
		dial.dialer = *opts.Dialer
	}
	ended := make(chan struct{})
	nc, err := nats.Connect(strings.Join(urls, ","),
		nats.UserInfo(opts.Agent, opts.Credential),
		nats.Name("agent "+opts.Agent),
		nats.Timeout(helloTimeout), nats.SetCustomDialer(dial),
		nats.IgnoreDiscoveredServers(), // a server does not tell where else to connect
		nats.PingInterval(20*time.Second), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(dial.delay),
		nats.ReconnectBufSize(-1), // a beat is worth nothing later
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the library would write to stderr; it reconnects
		nats.ReconnectHandler(func(*nats.Conn) { opts.Connected() }),
		nats.ClosedHandler(func(*nats.Conn) { close(ended) }))
	if err != nil {
		return nil, fmt.Errorf("bus: NATS at %s: %w", strings.Join(servers, ", "), err)
	}
	c := &AgentConn{nc, opts, ended}
	if err := c.subscribe(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	opts.Connected()
	return c, nil
}

func (c *AgentConn) subscribe(ctx context.Context) error {
	jobs, err := c.nc.Subscribe(jobsPrefix+c.opts.Agent, func(m *nats.Msg) {
		var job pb.Job
		reply := &pb.JobReply{Failure: pb.Failure_FAILURE_AGENT_INTERNAL, Detail: "the job cannot be read"}
		if proto.Unmarshal(m.Data, &job) == nil {
			reply = c.opts.Job(&job)
		}
		if data, err := proto.Marshal(reply); err == nil {
			_ = m.Respond(data) // unanswered, the coordinator asks again
		}
	})
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	cancels, err := c.nc.Subscribe(cancelPrefix+c.opts.Agent, func(m *nats.Msg) {
		var cancel pb.Cancel
		if proto.Unmarshal(m.Data, &cancel) == nil {
			c.opts.Cancel(&cancel)
		}
	})
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	if err := errors.Join(jobs.SetPendingLimits(maxPending, maxPendingBytes), cancels.SetPendingLimits(maxPending, maxPendingBytes)); err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// Beat says that the agent lives. Without a connection it is an error and nothing is kept.
func (c *AgentConn) Beat(b *pb.Beat) error {
	data, err := proto.Marshal(b)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	if err := c.nc.Publish(beatsPrefix+c.opts.Agent, data); err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// Ended is closed when the connection has ended for good: by Close, or since the server said something after which the
// library does not come back, which is any -ERR that it has no name for.
func (c *AgentConn) Ended() <-chan struct{} { return c.ended }

// Err says why a connection ended for good that nobody closed.
func (c *AgentConn) Err() error {
	return fmt.Errorf("bus: NATS ended the connection: %.200q", fmt.Sprint(c.nc.LastError()))
}

// Close closes the connection.
func (c *AgentConn) Close() { c.nc.Close() }
