package coordinator

import (
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// BenchmarkBeats is what hearing beats costs, of 100,000 agents that are enrolled, in turn: an op is one beat, from its
// bytes on. It tells what the agents take in memory too.
func BenchmarkBeats(b *testing.B) {
	const agents = 100_000
	validator, err := protovalidate.New()
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(filepath.Join(b.TempDir(), store.FileName), 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	before := inUse()
	c := &Coordinator{fleet: fleet.New(), validator: validator, store: s}
	beats := make([][]byte, agents)
	size := 0
	for i := range beats {
		beat := beatOf(i)
		c.fleet.Enrolled(&pb.Enrolment{
			Id: beat.GetAgent(), Vantage: &pb.Vantage{Region: beat.GetVantage().GetRegion()}, EnrollTime: timestamppb.Now(), ExpireTime: timestamppb.Now(),
		})
		if beats[i], err = proto.Marshal(beat); err != nil {
			b.Fatal(err)
		}
		size += len(beats[i])
	}
	hear := func(i int) {
		var beat pb.Beat
		if err := proto.Unmarshal(beats[i%agents], &beat); err != nil {
			b.Fatal(err)
		}
		c.onBeat(beat.GetAgent(), &beat)
	}
	for i := range beats {
		hear(i) // they come
	}
	known := inUse() - before - int64(size)
	b.ReportAllocs()
	used := processorTime(b)
	for i := 0; b.Loop(); i++ {
		hear(i)
	}
	b.ReportMetric(float64((processorTime(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(known)/agents, "B/agent")
	b.ReportMetric(float64(size)/agents, "B/beat")
}

// BenchmarkBeatOfAnAgent is what sending one costs an agent, but for the connection.
func BenchmarkBeatOfAnAgent(b *testing.B) {
	beat := beatOf(1)
	for b.Loop() {
		if _, err := proto.Marshal(beat); err != nil {
			b.Fatal(err)
		}
	}
}

// beatOf is the beat of an agent.
func beatOf(i int) *pb.Beat {
	return &pb.Beat{
		Agent: fmt.Sprintf("agent-%06d", i), Version: "v1.0.0", Capacity: 256,
		Vantage: &pb.Vantage{
			Region: fmt.Sprintf("region-%02d", i%32), Country: "DE", City: "Frankfurt", Provider: "Example Hosting", Asn: uint32(64512 + i/32%1000),
			Ipv4: true, Ipv6: true, Resolvers: []string{fmt.Sprintf("198.51.100.%d:53", i%16+1)}, Addresses: []string{fmt.Sprintf("192.0.2.%d", i%250+1)},
		},
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// inUse is the heap in use after a collection, in bytes.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
