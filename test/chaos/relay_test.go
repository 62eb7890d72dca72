package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
)

// relay stands between agents and the coordinator and holds back every piece of what they say for some time. It is
// for kernels without netem(8).
type relay struct {
	w             *world
	delay, jitter time.Duration // one way, and how much less or more
	listeners     []net.Listener
	pieces, bytes atomic.Int64

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

// relayPorts are where the relay listens for what goes to the coordinator's ports.
var relayPorts = map[string]string{"7700": "17700", "7702": "17702"}

// newRelay opens the relay in the core.
func newRelay(ctx context.Context, w *world, delay, jitter time.Duration) (*relay, error) {
	r := &relay{w: w, delay: delay, jitter: jitter}
	for port, at := range relayPorts {
		l, err := w.core.Listen(ctx, "0.0.0.0:"+at)
		if err != nil {
			r.close()
			return nil, err
		}
		r.listeners = append(r.listeners, l)
		go r.accept(l, net.JoinHostPort(w.coordinator.ip, port))
	}
	return r, nil
}

func (r *relay) accept(l net.Listener, to string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			far, err := r.w.core.Dial(ctx, to)
			cancel()
			if err != nil || !r.keep(near, far) {
				_ = near.Close()
				return
			}
			go r.carry(near, far)
			r.carry(far, near)
		}()
	}
}

// keep takes connections up, to be closed with the relay; false: it is closed already.
func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, conns...)
	return !r.closed
}

// piece is something that was said, and when it may be heard.
type piece struct {
	data []byte
	due  time.Time
}

// carry passes on what one end says, each piece late and in order, until one of them is gone.
func (r *relay) carry(from, to net.Conn) {
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if n > 0 {
				due := time.Now().Add(r.delay - r.jitter + rand.N(2*r.jitter+1))
				pieces <- piece{data[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		if wait := time.Until(p.due); wait > 0 {
			<-time.After(wait)
		}
		if _, err := to.Write(p.data); err == nil {
			r.pieces.Add(1)
			r.bytes.Add(int64(len(p.data)))
		}
	}
	_ = from.Close()
	_ = to.Close()
}

// close ends the relay, and all that goes through it.
func (r *relay) close() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, c := range r.conns {
		_ = c.Close()
	}
}

// divert has the core send what these agents say to the coordinator somewhere else, connections that stand included:
// they are reset, and come again by the other way. To is where a port of the coordinator's leads: "redirect to :1" …
func (w *world) divert(ctx context.Context, name string, agents []*agent, to func(port string) string) error {
	var rules, straight []string
	for _, a := range agents {
		for port := range relayPorts {
			rules = append(rules, fmt.Sprintf("ip saddr %s ip daddr %s tcp dport %s counter %s", a.ip, w.coordinator.ip, port, to(port)))
		}
		straight = append(straight, between(a, "meta l4proto tcp reject with tcp reset")...)
	}
	return w.core.NFT(ctx, translating(name, agents...)+fmt.Sprintf("chain pre { type nat hook prerouting priority -100;\n%s\n}\n"+
		"chain forward { type filter hook forward priority 0;\n%s\n}\n}\n", strings.Join(rules, "\n"), strings.Join(straight, "\n")))
}

// roundTrip is how long a call takes that goes the way of an agent, by the fastest of a few: the others had to wait
// for the coordinator.
func (w *world) roundTrip(ctx context.Context, a *agent) (time.Duration, error) {
	conn, err := w.client(grpc.WithContextDialer(a.where.Dial))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var all []time.Duration
	for range 4 {
		began := time.Now()
		if _, err := w.statusBy(ctx, conn); err != nil {
			return 0, err
		}
		all = append(all, time.Since(began))
	}
	return slices.Min(all[1:]), nil // the first call connects
}

// flaps is how many result streams agents may open again while all they say is late: one for a machine that is too
// busy, and one more.
const flaps = 2

// slow has all that some agents and the coordinator say to each other come late, each piece by another time. Agents have
// to answer over it, without losing their sessions.
func slow(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	agents := w.some(r)
	jitter := time.Duration(50+r.IntN(100)) * time.Millisecond
	delay := jitter + time.Duration(100+r.IntN(100))*time.Millisecond
	straight, err := w.roundTrip(ctx, agents[0])
	if err != nil {
		return wound{}, err
	}
	way, err := newRelay(ctx, w, delay, jitter)
	if err != nil {
		return wound{}, err
	}
	began := time.Now()
	if err := w.divert(ctx, "slow", agents, func(port string) string { return "redirect to :" + relayPorts[port] }); err != nil {
		way.close()
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) { return w.late(ctx, way, agents, began, straight) },
		heal: func(ctx context.Context) error {
			way.close()
			return w.lift(ctx, "slow")
		},
	}, nil
}

// late proves that what agents say is late, and that they do their work all the same.
func (w *world) late(ctx context.Context, way *relay, agents []*agent, began time.Time, straight time.Duration) (string, error) {
	for _, a := range agents {
		if err := w.reconnected(ctx, a.program, began); err != nil {
			return "", err
		}
	}
	since := time.Now()
	took, err := w.roundTrip(ctx, agents[0])
	if err != nil {
		return "", err
	}
	if least := 2 * (way.delay - way.jitter); took < least {
		return "", fmt.Errorf("a call took %v, and it should be %v late", took, least)
	}
	if _, _, err := w.recover(ctx, since, agents); err != nil {
		return "", fmt.Errorf("over the slow line: %w", err)
	}
	if err := errors.Join(passing(ctx, 8*time.Second), w.lives.catchUp()); err != nil {
		return "", err
	}
	again := 0
	for _, a := range agents {
		again = max(again, w.lives.since(a.program, chaos.Connected, since))
	}
	if again > flaps {
		return "", fmt.Errorf("an agent connected %d times more in %.1f s", again, time.Since(since).Seconds())
	}
	return fmt.Sprintf("%d pieces (%d bytes) of %d agents were %v ± %v late; a call took %.0f ms, %.1f ms before; agents connected again at most %d times",
		way.pieces.Load(), way.bytes.Load(), len(agents), way.delay, way.jitter, took.Seconds()*1000, straight.Seconds()*1000, again), nil
}
