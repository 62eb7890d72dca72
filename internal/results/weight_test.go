package results

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// stuffed is a message of a stream with so many bytes of results, each of which says the same again and again.
func stuffed(size int, again []byte) []byte {
	var result []byte
	for len(result) < 60<<10 {
		result = append(result, again...)
	}
	spooled := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), result)
	var batch []byte
	for n := uint64(1); len(batch) < size; n++ {
		numbered := protowire.AppendVarint(protowire.AppendTag(spooled[:len(spooled):len(spooled)], 1, protowire.VarintType), n)
		batch = protowire.AppendBytes(protowire.AppendTag(batch, 1, protowire.BytesType), numbered)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), batch)
}

// field is a field of bytes.
func field(number protowire.Number, value ...byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

// real is a result as agents make them.
func real(t *testing.T) []byte {
	t.Helper()
	step := &pb.Step{
		Kind: pb.StepKind_STEP_KIND_TCP_CONNECT, Role: pb.Role_ROLE_TARGET, Address: "192.0.2.1:443", Attempts: 1,
		Start: durationpb.New(1e6), Duration: durationpb.New(2e6), Evidence: &pb.Evidence{Banner: []byte("220 hello"), Rtt: durationpb.New(1e6)},
	}
	data, err := proto.Marshal(&pb.Result{MeasurementId: "01k0000000000000000000000", Agent: "a", Version: "v", Duration: durationpb.New(1e9), Steps: []*pb.Step{step, step, step, step}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestWhatABatchTakesIsKnownBefore compares what is reckoned with what decoding takes: never much less, and for honest
// results not much more. It is measured in a process of its own, since here the heap also shrinks by what earlier tests
// let go late.
func TestWhatABatchTakesIsKnownBefore(t *testing.T) {
	const alone = "ELSEWHERE_TEST_ALONE"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+"/") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for what, c := range map[string]struct {
		again       []byte
		least, most int // what it takes and what it weighs, in times the size
	}{
		"steps of nothing":            {field(5), 25, 200},
		"steps with empty evidence":   {field(5, field(10)...), 40, 400},
		"steps with failures":         {field(5, field(6, 1, 1, 1, 1, 1, 1, 1, 1)...), 2, 100},
		"labels of the vantage":       {field(4, field(6, append(field(1, 'k'), field(2, 'v')...)...)...), 0, 100},
		"what nobody knows":           {field(1000, 1, 2, 3), 0, 20},
		"one string":                  {field(1, make([]byte, 60<<10)...), 0, 3},
		"results as agents make them": {real(t), 2, 20},
	} {
		t.Run(what, func(t *testing.T) {
			data := stuffed(500<<10, c.again)
			weight := requestShape().weigh(data)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.GC() // what pools hold goes with the second
			runtime.ReadMemStats(&before)
			var m pb.ReportRequest
			if err := proto.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			takes := int(after.HeapAlloc) - int(before.HeapAlloc)
			if len(m.GetBatch().GetResults()) == 0 { // so that it is held until here
				t.Error("there is nothing in it")
			}
			if c.least > 0 && takes < c.least*len(data) || weight < takes*3/4 || weight > c.most*len(data) {
				t.Errorf("%d bytes take %d and weigh %d", len(data), takes, weight)
			}
		})
	}
}

// TestAResultThatIsTooHeavy: one of empty steps is, as soon as it may be; one as agents make them is not, however large it
// is.
func TestAResultThatIsTooHeavy(t *testing.T) {
	fill := func(size int, again []byte) (result []byte) {
		for len(result) < size {
			result = append(result, again...)
		}
		return result
	}
	for what, c := range map[string]struct {
		result []byte
		want   bool
	}{
		"64 KiB of steps of nothing":           {fill(MaxResult, field(5)), true},
		"64 KiB of steps with empty evidence":  {fill(MaxResult, field(5, field(10)...)), true},
		"64 KiB as agents make them":           {fill(MaxResult, real(t)), false},
		"as many steps of nothing as are sure": {fill(surelyLight, field(5)), false},
	} {
		if got := TooHeavy(c.result); got != c.want || len(c.result) <= surelyLight && resultShape().weigh(c.result) > MaxResultWeight {
			t.Errorf("%s: %v, since it weighs %d", what, got, resultShape().weigh(c.result))
		}
	}
}

// TestABatchThatIsTooHeavyIsRefused before it is decoded.
func TestABatchThatIsTooHeavyIsRefused(t *testing.T) {
	_, service := connect(t, &sink{})
	stream := open(t, service, session(1))
	var heavy pb.ReportRequest
	heavy.ProtoReflect().SetUnknown(stuffed(500<<10, field(5)))
	send(t, stream, &heavy)
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}

// FuzzWeigh: whatever the bytes are, they can be weighed, and what can be decoded weighs more than its bytes.
func FuzzWeigh(f *testing.F) {
	f.Add(stuffed(1000, field(5)))
	f.Add(field(2, field(1, 8, 1)...))
	group := protowire.AppendTag(nil, 8, protowire.StartGroupType)
	for range 18 {
		group = protowire.AppendFixed32(protowire.AppendTag(group, 4, protowire.Fixed32Type), 0)
	}
	f.Add(protowire.AppendTag(group, 8, protowire.EndGroupType)) // which weighed 16 whatever is in it
	f.Fuzz(func(t *testing.T, data []byte) {
		weight := requestShape().weigh(data)
		var m pb.ReportRequest
		if err := proto.Unmarshal(data, &m); err == nil && weight < proto.Size(&m) {
			t.Errorf("%d bytes weigh %d", proto.Size(&m), weight)
		}
	})
}
