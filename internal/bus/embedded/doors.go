package embedded

import (
	"crypto/tls"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxConnections bounds the connections of one agent: one, and the one that replaces it, and as many again of a
	// process that has died unheard. The oldest goes.
	maxConnections = 4
	// sweepInterval is how often connections are looked for whose certificates have ended.
	sweepInterval = time.Second
)

// Admit says which agent is at the other end of a connection, by the certificate that it showed, and until when; or
// why it may not be there.
type Admit func(tls.ConnectionState) (agent string, until time.Time, err error)

// doors are the agents' connections that were let in by certificates.
type doors struct {
	admit  Admit
	server *server.Server
	end    chan struct{} // closed when the server stops

	mu        sync.Mutex
	open      map[string][]door // by agent, the oldest first
	rechecked uint64            // how often somebody was looked at again
}

// door is one connection.
type door struct {
	id    uint64
	shown tls.ConnectionState
	until time.Time
}

// enter lets a connection in. A Recheck either sees it, or it sees what the Recheck is for. To verify certificates takes
// long enough that thousands must not do it one after the other: it is done before, and again where a Recheck came
// between.
func (d *doors) enter(id uint64, shown tls.ConnectionState) (agent string, ok bool) {
	before := d.rechecks()
	agent, until, err := d.admit(shown)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rechecked != before {
		agent, until, err = d.admit(shown)
	}
	if err != nil {
		return "", false
	}
	alive := slices.DeleteFunc(d.open[agent], func(one door) bool { return one.id == id || d.server.GetClient(one.id) == nil })
	alive = append(alive, door{id, shown, until})
	for len(alive) > maxConnections {
		d.close(alive[0])
		alive = alive[1:]
	}
	d.open[agent] = alive
	return agent, true
}

func (d *doors) rechecks() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rechecked
}

// close ends a connection; one that has ended is no error.
func (d *doors) close(one door) { _ = d.server.DisconnectClientByID(one.id) }

// recheck ends those connections of an agent that would not be let in now.
func (d *doors) recheck(agent string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rechecked++
	d.keep(agent, func(one door) bool {
		_, _, err := d.admit(one.shown)
		return err == nil
	})
}

// keep ends those connections of an agent that are not to be kept.
func (d *doors) keep(agent string, wanted func(door) bool) {
	d.open[agent] = slices.DeleteFunc(d.open[agent], func(one door) bool {
		if wanted(one) {
			return false
		}
		d.close(one)
		return true
	})
	if len(d.open[agent]) == 0 {
		delete(d.open, agent)
	}
}

// sweep ends connections when their certificates do, until the server stops. An agent renews and reconnects before.
func (d *doors) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			d.mu.Lock()
			for agent := range d.open {
				d.keep(agent, func(one door) bool { return now.Before(one.until) })
			}
			d.mu.Unlock()
		case <-d.end:
			return
		}
	}
}
