package coordinator

import (
	"fmt"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
)

const (
	// maxLag is how many messages the fold may be behind the log. It is a fraction of a second's work.
	maxLag = 1000
	// maxUnled is how many seconds in a row nobody may lead the log: to choose a new leader takes less.
	maxUnled = 4
)

// hearTime is how long one of several has to listen before it knows which agents live: as long as each takes to say so.
const hearTime = fleet.BeatInterval + time.Second/2

// deaf is how long it is until this coordinator has heard the agents of the others.
func (c *Coordinator) deaf() time.Duration {
	if c.others == nil {
		return 0
	}
	return max(0, hearTime-time.Since(time.Unix(0, c.hears.Load())))
}

// unready says why the coordinator should get no traffic now; "" if it should.
func (c *Coordinator) unready() string {
	if why := c.useless(); why != "" {
		return why
	}
	if c.deaf() > 0 {
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
