package results

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxSpeakers bounds the agents without a stream that are remembered.
const maxSpeakers = 1 << 16

// errFenced ends the stream of an older session.
var errFenced = status.Error(codes.Aborted, "a newer session of this agent has taken over: register again")

// speakers are the agents that report, one live stream each. What is remembered of one outlives its stream:
// who reconnects has neither an older session nor a new allowance.
type speakers struct {
	limits Limits

	mu    sync.Mutex
	known map[string]*speaker
}

// speaker is one agent.
type speaker struct {
	session        uint64 // the newest one
	live           *line  // its stream; nil if there is none
	results, bytes *rate.Limiter
}

// line is a stream that is an agent's.
type line struct {
	ctx context.Context // ends with the stream
	end context.CancelCauseFunc
	// recalled is closed by recall when the agent is to connect again.
	recalled chan struct{}
	recall   func()
}

// enter makes a stream the agent's own: one of an older session, or of the same, ends. One whose connection is
// dead is no different: nobody waits for it.
func (s *speakers) enter(ctx context.Context, hello *pb.Hello) (*line, *speaker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.speaker(hello.GetAgent())
	if hello.GetSession() < sp.session {
		return nil, nil, errFenced
	}
	if sp.live != nil {
		sp.live.end(errFenced)
	}
	l := &line{recalled: make(chan struct{})}
	l.recall = sync.OnceFunc(func() { close(l.recalled) })
	l.ctx, l.end = context.WithCancelCause(ctx)
	sp.session, sp.live = hello.GetSession(), l
	return l, sp, nil
}

// speaker returns what is known of an agent.
func (s *speakers) speaker(agent string) *speaker {
	sp := s.known[agent]
	if sp == nil {
		sp = &speaker{
			results: rate.NewLimiter(rate.Limit(s.limits.Results), s.limits.ResultBurst),
			bytes:   rate.NewLimiter(rate.Limit(s.limits.Bytes), s.limits.ByteBurst),
		}
		s.known[agent] = sp
	}
	return sp
}

// leave ends a stream.
func (s *speakers) leave(agent string, l *line) {
	l.end(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.known[agent]
	if sp == nil || sp.live != l {
		return // another one has taken over
	}
	sp.live = nil
	if len(s.known) > maxSpeakers {
		delete(s.known, agent)
	}
}

// fence ends the stream of a session older than one that was given out, and says whether there was one.
func (s *speakers) fence(agent string, session uint64) (ousted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.speaker(agent)
	if ousted = session > sp.session && sp.live != nil; ousted {
		sp.live.end(errFenced)
	}
	sp.session = max(sp.session, session)
	return ousted
}

// cut ends an agent's stream.
func (s *speakers) cut(agent string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.known[agent]; sp != nil && sp.live != nil {
		sp.live.end(why)
	}
}

// recall asks all agents to connect again, spread over a time: together they would be a stampede.
func (s *speakers) recall(within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.known {
		if sp.live != nil {
			time.AfterFunc(rand.N(within), sp.live.recall)
		}
	}
}

// charge takes from the agent's allowance what it has sent already; it may be owed for a while.
func (sp *speaker) charge(results, bytes int) {
	now := time.Now()
	sp.results.ReserveN(now, min(results, sp.results.Burst()))
	sp.bytes.ReserveN(now, min(bytes, sp.bytes.Burst()))
}

// owes is how long it takes until what was sent is paid for.
func (sp *speaker) owes() time.Duration {
	now := time.Now()
	return max(debt(sp.results, now), debt(sp.bytes, now))
}

func debt(l *rate.Limiter, now time.Time) time.Duration {
	tokens := l.TokensAt(now)
	if tokens >= 0 {
		return 0
	}
	return time.Duration(-tokens / float64(l.Limit()) * float64(time.Second))
}
