package coordinator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// roomInterval is how often JetStream is asked whether a write has failed.
	roomInterval = time.Second
	// roomWanted is what has to fit on the disk before the coordinator is started again on it.
	roomWanted = 1 << 20
)

// watchRoom ends the coordinator when a write has failed and the disk has room again. JetStream takes nothing more
// after such a write until it is started again, and answers nobody; while there is no room, a start would not help, and
// what is known can still be read.
func (c *Coordinator) watchRoom(ctx context.Context) error {
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		why := c.nats.Stuck()
		c.stuck.Store(why != nil)
		if why != nil && room(c.opts.DataDir) == nil {
			return fmt.Errorf("%w; there is room again: start it again", why)
		}
	}
}

// room writes and removes a file, so as to know that others can be written.
func room(dir string) error {
	name := filepath.Join(dir, "room")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, roomWanted))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(name))
}
