package coordinator

import "fmt"

// maxLag is how many messages the fold may be behind what this process has committed. It is a fraction of a second's
// work.
const maxLag = 1000

// unready says why the coordinator should get no traffic now; "" if it should.
func (c *Coordinator) unready() string {
	position, _ := c.store.Position()
	switch last := c.history.Last(); {
	case !c.ready.Load():
		return "it starts, or stops"
	case !c.history.Healthy(), c.stuck.Load():
		return "the log cannot be written"
	case c.stale.Load():
		return "the checkpoint cannot be written"
	case last > position+maxLag:
		return fmt.Sprintf("the fold is %d messages behind the log", last-position)
	default:
		return ""
	}
}
