package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"runtime"
	"sync"
	"time"
)

const (
	// shakingPerProcessor bounds the handshakes that are under way at once, for each processor: enough for clients that
	// are far away, and few enough that their computing delays nothing else by more than some tenths of a second.
	shakingPerProcessor = 256
	// slowShake is when a handshake does not count any more: it waits for its client, and costs nothing.
	slowShake = time.Second
	// maxQueue is how long one may wait for its turn: the rest of a handshake still has to be done before its client gives up.
	maxQueue = 20 * time.Second
)

// lookInterval is how often it is looked whether one that waits is still there.
const lookInterval = time.Second

// errQueue, errGone and errShut are why a connection had no turn.
var (
	errQueue = errors.New("too many handshakes at once")
	errGone  = errors.New("the client has left before its turn")
	errShut  = errors.New("the coordinator stops")
)

// Gate has handshakes take turns, in the order in which they come. Thousands of agents come at once when a coordinator
// is back, and if all of their handshakes were computed side by side, all would be late and nothing else would have a
// processor.
type Gate struct {
	opened context.Context
	open   context.CancelFunc
	shut   context.Context
	close  context.CancelFunc
	turns  chan struct{} // has one for each handshake that is under way
}

// NewGate returns a gate that nobody passes yet.
func NewGate() *Gate {
	g := &Gate{turns: make(chan struct{}, shakingPerProcessor*runtime.GOMAXPROCS(0))}
	g.opened, g.open = context.WithCancel(context.Background())
	g.shut, g.close = context.WithCancel(context.Background())
	return g
}

// Open lets handshakes begin.
func (g *Gate) Open() { g.open() }

// Close ends all that wait.
func (g *Gate) Close() { g.close() }

// Guard is a server's configuration whose handshakes pass the gate.
func (g *Gate) Guard(config *tls.Config) *tls.Config {
	guarded := config.Clone()
	guarded.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		leave, err := g.enter(func() bool { return gone(hello.Conn) })
		if err != nil {
			_ = hello.Conn.Close() // without an alert: to the client nothing is wrong but the time
			return nil, err
		}
		own := config.Clone()
		own.VerifyConnection = func(s tls.ConnectionState) error {
			defer leave()
			return config.VerifyConnection(s)
		}
		return own, nil
	}
	return guarded
}

// enter waits for a turn, while the client is there. It ends with leave, or by itself: one whose client is silent must not
// keep others out.
func (g *Gate) enter(gone func() bool) (leave func(), err error) {
	if err := g.wait(gone); err != nil {
		return nil, err
	}
	once := sync.OnceFunc(func() { <-g.turns })
	if gone() {
		once()
		return nil, errGone
	}
	slow := time.AfterFunc(slowShake, once)
	return func() { slow.Stop(); once() }, nil
}

// wait takes a turn. Who has left does not stand in line: he would hold a socket, and cost a handshake.
func (g *Gate) wait(gone func() bool) error {
	late, look := time.NewTimer(maxQueue), time.NewTicker(lookInterval)
	defer late.Stop()
	defer look.Stop()
	opened, turns := g.opened.Done(), chan struct{}(nil)
	for g.shut.Err() == nil {
		select {
		case <-opened:
			opened, turns = nil, g.turns
		case turns <- struct{}{}:
			return nil
		case <-look.C:
			if gone() {
				return errGone
			}
		case <-g.shut.Done():
		case <-late.C:
			return errQueue
		}
	}
	return errShut
}
