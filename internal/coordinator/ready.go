package coordinator

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxLag is how many messages the fold may be behind the log. It is a fraction of a second's work.
	maxLag = 1000
	// maxUnled is how many seconds in a row nobody may lead the log: to choose a new leader takes less.
	maxUnled = 4
)

// hearTime is how long one of several listens, where no other one tells it which agents live: as long as each takes to say so.
const hearTime = fleet.BeatInterval + time.Second/2

// maxBeats is how many bytes of beats are told in one message, about.
const maxBeats = 256 << 10

// listening is until a coordinator that has started knows which agents live.
type listening struct {
	once  sync.Once
	heard chan struct{} // closed then
}

func newListening() *listening { return &listening{heard: make(chan struct{})} }

// end says that it knows, and tells whether it did not before.
func (l *listening) end() (first bool) {
	l.once.Do(func() {
		close(l.heard)
		first = true
	})
	return first
}

// deaf tells whether this coordinator does not know yet which agents the others hear.
func (c *Coordinator) deaf() bool {
	select {
	case <-c.listening.heard:
		return false
	default:
		return c.others != nil
	}
}

// tellAgents tells another coordinator which agents live, if this one knows.
func (c *Coordinator) tellAgents(to string) error {
	if c.deaf() || to == c.name() {
		return nil
	}
	beats := c.fleet.Beats()
	for complete := false; !complete; {
		n := 0
		for size := 0; n < len(beats) && size < maxBeats; n++ {
			size += proto.Size(beats[n])
		}
		part := beats[:n]
		beats = beats[n:]
		complete = len(beats) == 0
		err := c.peers.Say(&pb.CoordinatorMessage{Message: &pb.CoordinatorMessage_AgentsHeard{
			AgentsHeard: &pb.AgentsHeard{Coordinator: to, Beats: part, Complete: complete},
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// hearAgents takes up which agents another coordinator hears.
func (c *Coordinator) hearAgents(heard *pb.AgentsHeard) {
	if heard.GetCoordinator() != c.name() || !c.deaf() {
		return
	}
	for _, h := range heard.GetBeats() {
		if c.fleet.Heard(h) {
			c.askAgain(h.GetBeat().GetAgent())
		}
	}
	if heard.GetComplete() {
		c.knowAgents()
	}
}

// knowAgents says that this coordinator knows which agents live.
func (c *Coordinator) knowAgents() {
	if c.listening.end() && c.others != nil {
		c.others.wake() // the others, and who waits for it, are told
	}
}

// unready says why the coordinator should get no traffic now; "" if it should.
func (c *Coordinator) unready() string {
	if why := c.useless(); why != "" {
		return why
	}
	if c.deaf() {
		return "it has not heard the agents yet"
	}
	return ""
}

// useless says why agents should not come to this coordinator now; "" if they may.
func (c *Coordinator) useless() string {
	position, _ := c.store.Position()
	switch last := max(c.history.Last(), c.history.End()); {
	case !c.ready.Load():
		return "it starts, or stops"
	case !c.history.Healthy(), c.stuck.Load():
		return "the log cannot be written"
	case c.others.why() != "":
		return c.others.why()
	case c.stale.Load():
		return "the checkpoint cannot be written"
	case last > position+maxLag:
		return fmt.Sprintf("the fold is %d messages behind the log", last-position)
	default:
		return ""
	}
}

// why says what keeps this coordinator from being one of several; "" if nothing does.
func (o *others) why() string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.differ != "":
		return "its state is another one than that of " + o.differ
	case o.unled >= maxUnled:
		return "too few coordinators are there to write the log"
	}
	return ""
}
