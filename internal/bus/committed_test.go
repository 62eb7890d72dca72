package bus

import (
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestWhatWasCommittedIsNotParsedAgain(t *testing.T) {
	batch := func(agent string, size int) ([]byte, []*pb.LogEntry) {
		entries := []*pb.LogEntry{
			{Entry: &pb.LogEntry_Result{Result: &pb.Result{Agent: agent, Version: string(make([]byte, size))}}},
			{Entry: &pb.LogEntry_Closed{Closed: &pb.Closed{MeasurementId: agent}}},
		}
		data, err := proto.Marshal(&pb.LogBatch{Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		return data, entries
	}
	var c committed
	first, _ := batch("a", 1)
	var kept [][]byte
	for _, agent := range []string{"a", "b", "c"} {
		data, entries := batch(agent, 1)
		c.put(data, entries)
		kept = append(kept, data)
		if agent == "b" {
			entries[1].GetClosed().MeasurementId = "changed afterwards"
		}
	}
	flipped, _ := batch("b", 1)
	flipped[5] ^= 1
	if c.take(flipped) != nil {
		t.Error("other bytes stand for what was committed")
	}
	want := &pb.LogBatch{}
	if err := proto.Unmarshal(kept[1], want); err != nil {
		t.Fatal(err)
	}
	if got := c.take(kept[1]); !proto.Equal(got, want) {
		t.Errorf("%v instead of %v", got, want)
	}
	if c.take(first) != nil {
		t.Error("what stands before one that was read is still remembered")
	}
	if c.take(kept[2]) == nil || c.bytes != 0 || c.list != nil {
		t.Errorf("%d bytes are remembered of nothing", c.bytes)
	}
	for range 3 {
		c.put(batch("a", maxCommitted/2))
	}
	if c.bytes > maxCommitted || len(c.list) != 1 {
		t.Errorf("%d bytes in %d messages are remembered", c.bytes, len(c.list))
	}
	data, entries := batch("a", 1)
	if c.put(data, entries[1:]); len(c.list) != 1 {
		t.Error("a message without results is remembered")
	}
}
