package bus

import (
	"bytes"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxCommitted bounds what is remembered for the fold, in bytes of the log.
	maxCommitted = 8 << 20
	// committedOverhead is what remembering a message takes beside that, about, in bytes.
	committedOverhead = 1 << 10
)

// committed is what this process has just committed, until the fold reads it: results need not be parsed once more.
// Only a message whose bytes are the same stands for one that was read. The zero value is empty.
type committed struct {
	mu    sync.Mutex
	list  []commitment // in the order of the log
	bytes int
}

type commitment struct {
	data  []byte
	batch *pb.LogBatch
}

func (c commitment) size() int { return len(c.data) + committedOverhead }

// put remembers a message that is about to be committed, if it has results. They are never changed afterwards. Of
// other entries that is not known: they are copied, and are few.
func (c *committed) put(data []byte, entries []*pb.LogEntry) {
	batch := &pb.LogBatch{Entries: make([]*pb.LogEntry, len(entries))}
	results := 0
	for i, e := range entries {
		if e.GetResult() == nil {
			e = proto.CloneOf(e)
		} else {
			results++
		}
		batch.Entries[i] = e
	}
	if results == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := commitment{data, batch}
	c.list, c.bytes = append(c.list, next), c.bytes+next.size()
	for c.bytes > maxCommitted {
		c.drop(1)
	}
}

// take returns what was committed as these bytes and forgets it, and all before; nil if it is not remembered.
func (c *committed) take(data []byte) *pb.LogBatch {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, o := range c.list {
		if bytes.Equal(o.data, data) {
			c.drop(i + 1)
			return o.batch
		}
	}
	return nil
}

// drop forgets the first n.
func (c *committed) drop(n int) {
	for i, o := range c.list[:n] {
		c.bytes -= o.size()
		c.list[i] = commitment{}
	}
	if c.list = c.list[n:]; len(c.list) == 0 {
		c.list = nil
	}
}
