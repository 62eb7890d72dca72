package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// OpenFleet connects to the agents' account and hands every beat to beat, one at a time. A beat whose
// agent is not the subject's is dropped: NATS lets an agent publish on its own subject only.
func OpenFleet(s Server, beat func(*pb.Beat)) (*Fleet, error) {
	nc, err := connect(s, FleetUser)
	if err != nil {
		return nil, err
	}
	_, err = nc.Subscribe(beatsPrefix+"*", func(m *nats.Msg) {
		var b pb.Beat
		if proto.Unmarshal(m.Data, &b) == nil && b.GetAgent() == strings.TrimPrefix(m.Subject, beatsPrefix) {
			beat(&b)
		}
	})
	if err == nil {
		err = nc.Flush() // from here on no beat is missed
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return &Fleet{nc}, nil
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
	// Agent is its name; Credential what it was given at registration.
	Agent, Credential string
	// Addresses are the NATS servers, "HOST:PORT".
	Addresses []string
	// Job is called for every job, one at a time; it must not block. Its answer is sent back.
	Job func(*pb.Job) *pb.JobReply
	// Cancel is called for every cancelled job, one at a time; it must not block.
	Cancel func(*pb.Cancel)
	// Connected is called after every connection and reconnection, on a goroutine of the connection's.
	Connected func()
}

// AgentConn is an agent's connection. It reconnects by itself, with growing, jittered pauses.
type AgentConn struct {
	nc   *nats.Conn
	opts AgentOptions
}

// ConnectAgent connects an agent, subscribes its subjects, and returns when the server has confirmed
// both.
func ConnectAgent(ctx context.Context, opts AgentOptions) (*AgentConn, error) {
	urls := make([]string, len(opts.Addresses))
	for i, addr := range opts.Addresses {
		urls[i] = "nats://" + addr
	}
	nc, err := nats.Connect(strings.Join(urls, ","),
		nats.UserInfo(opts.Agent, opts.Credential),
		nats.Name("agent "+opts.Agent),
		nats.Timeout(5*time.Second),
		nats.PingInterval(20*time.Second), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1), // a beat is worth nothing later
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectHandler(func(*nats.Conn) { opts.Connected() }))
	if err != nil {
		return nil, fmt.Errorf("bus: NATS at %s: %w", strings.Join(opts.Addresses, ", "), err)
	}
	c := &AgentConn{nc: nc, opts: opts}
	if err := c.subscribe(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	opts.Connected()
	return c, nil
}

// reconnectDelay is the pause before the n-th attempt: 100 ms doubling to 3.2 s, half of it jitter.
func reconnectDelay(attempts int) time.Duration {
	d := 100 * time.Millisecond << min(attempts, 5)
	return d/2 + rand.N(d/2)
}

func (c *AgentConn) subscribe(ctx context.Context) error {
	_, err := c.nc.Subscribe(jobsPrefix+c.opts.Agent, func(m *nats.Msg) {
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
	_, err = c.nc.Subscribe(cancelPrefix+c.opts.Agent, func(m *nats.Msg) {
		var cancel pb.Cancel
		if proto.Unmarshal(m.Data, &cancel) == nil {
			c.opts.Cancel(&cancel)
		}
	})
	if err != nil {
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

// Close closes the connection.
func (c *AgentConn) Close() { c.nc.Close() }
