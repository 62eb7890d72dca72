package store

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// BenchmarkApply folds results, 64 in a message, from a thousand agents whose spools are in order, with the parsing of
// the message and the checkpoints: an op is one result.
func BenchmarkApply(b *testing.B) {
	const agents, perMessage = 1000, 64
	s, err := Open(filepath.Join(b.TempDir(), "fold.db"), 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, agents)
	for i := range names {
		names[i] = fmt.Sprintf("agent-%04d", i)
	}
	position := uint64(0)
	fold := func(batch *pb.LogBatch, data []byte) {
		position++
		if _, err := s.Apply(position, batch, data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		b.StopTimer()
		id := fmt.Sprintf("m%09d", n)
		messages := messagesOf(b, id, names, uint64(n/agents+1), perMessage)
		b.StartTimer()
		fold(&pb.LogBatch{Entries: []*pb.LogEntry{opened(id, names...)}}, nil)
		for _, data := range messages {
			var batch pb.LogBatch
			if err := proto.Unmarshal(data, &batch); err != nil {
				b.Fatal(err)
			}
			fold(&batch, data)
		}
		fold(&pb.LogBatch{Entries: []*pb.LogEntry{closedEntry(id, false)}}, nil)
		if n += agents; n%30_000 == 0 {
			if err := s.Checkpoint(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "results/s")
}

// messagesOf is a result of each agent, the seq-th of its spool.
func messagesOf(b *testing.B, id string, agents []string, seq uint64, perMessage int) (messages [][]byte) {
	b.Helper()
	var batch pb.LogBatch
	for i, a := range agents {
		e := result(id, a)
		digest := sha256.Sum256([]byte(a))
		e.Place = &pb.Place{Epoch: 1, Seq: seq, Digest: digest[:]}
		batch.Entries = append(batch.Entries, e)
		if len(batch.GetEntries()) == perMessage || i == len(agents)-1 {
			data, err := proto.Marshal(&batch)
			if err != nil {
				b.Fatal(err)
			}
			messages, batch = append(messages, data), pb.LogBatch{}
		}
	}
	return messages
}

// manyAgents is how many agents a great network has.
const manyAgents = 100_000

// great is a store that knows many agents, enrolled and with an epoch of a spool each.
func great(b *testing.B) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "fold.db"), 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.db.Close() })
	var batch pb.LogBatch
	for i := range manyAgents {
		name := fmt.Sprintf("agent-%06d", i)
		batch.Entries = append(batch.Entries, enrolment(name, 1, 0), gaps(name, 1, 1, 100, pb.GapReason_GAP_REASON_UNASKED))
	}
	if _, err := s.Apply(1, &batch, nil); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkCheckpoint writes all that is known of many agents.
func BenchmarkCheckpoint(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := great(b)
		b.StartTimer()
		if err := s.Checkpoint(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSpools is what remembering an agent's spool takes in memory.
func BenchmarkSpools(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		d := newDeliveries()
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range manyAgents {
			d.add(1, fmt.Sprintf("agent-%06d", i), 1, span{1, 100})
		}
		clear(d.dirty) // a checkpoint came
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(d.agents)), "B/agent")
		b.ReportMetric(float64(len(d.agents)), "agents")
	}
}

// BenchmarkCarry lists what is known of many agents, to be appended again before a cut of the log: all of it, and where
// the cut is before all that is known, as it is most minutes.
func BenchmarkCarry(b *testing.B) {
	s := great(b)
	for name, cut := range map[string]uint64{"all": 1, "nothing": 0} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				messages, entries := 0, 0
				for next, more := "", true; more; more = next != "" {
					var list []*pb.LogEntry
					list, next = s.Carry(cut, next, 1<<20)
					messages, entries = messages+1, entries+len(list)
				}
				b.ReportMetric(float64(messages), "messages")
				b.ReportMetric(float64(entries), "entries")
			}
		})
	}
}

// BenchmarkAwaits looks for an agent in a hundred measurements that run over twenty agents each, as when it comes back. Three
// thousand more are in memory, and closed.
func BenchmarkAwaits(b *testing.B) {
	s := great(b)
	var batch pb.LogBatch
	const all, running = 3100, 100
	for i := range all {
		var names []string
		for k := range 20 {
			names = append(names, fmt.Sprintf("agent-%06d", (i*20+k)%manyAgents))
		}
		id := fmt.Sprintf("m%09d", i)
		batch.Entries = append(batch.Entries, opened(id, names...))
		if i >= running {
			batch.Entries = append(batch.Entries, closedEntry(id, true))
		}
	}
	if _, err := s.Apply(2, &batch, nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(s.Awaits("agent-000123")) != 1 {
			b.Fatal("not asked")
		}
	}
}
