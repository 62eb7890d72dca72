package coordinator

import (
	"crypto/sha256"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestWhatIsKeptIsEncodedAsItIs(t *testing.T) {
	unknown := &pb.Result{Agent: "a"}
	unknown.ProtoReflect().SetUnknown([]byte{0xf8, 0x06, 1}) // field 111, of a newer agent
	k := keeping{
		from:    &pb.Hello{Agent: "a", Epoch: 3},
		vantage: &pb.Vantage{Region: "here", Labels: map[string]string{"x": "1", "y": "2"}},
	}
	want := &pb.LogBatch{}
	for i, r := range []*pb.Result{
		{Agent: "a", MeasurementId: "m", Steps: []*pb.Step{{Name: "n"}, {Address: "192.0.2.1:443"}}},
		{Agent: "a", Vantage: &pb.Vantage{Region: "elsewhere", Provider: "nobody"}}, // what it says of itself is replaced
		{},
		unknown,
	} {
		canonical, err := canonicalize(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(canonical)
		place := &pb.Place{Epoch: 3, Seq: uint64(i + 1), Digest: digest[:]}
		kept := proto.CloneOf(r)
		kept.Vantage = k.vantage
		want.Entries = append(want.Entries, &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: kept}, Place: place})
		if err := k.addResult(r, place, canonical); err != nil {
			t.Fatal(err)
		}
	}
	k.gaps = []*pb.Gap{{First: 5, Last: 6, Reason: pb.GapReason_GAP_REASON_UNASKED}}
	want.Entries = append(want.Entries, &pb.LogEntry{Entry: &pb.LogEntry_Gaps{Gaps: &pb.Gaps{Agent: "a", Epoch: 3, Gaps: k.gaps}}})
	if err := k.addGaps(); err != nil {
		t.Fatal(err)
	}
	var got pb.LogBatch
	if err := proto.Unmarshal(k.data, &got); err != nil {
		t.Fatal(err)
	}
	for _, is := range []*pb.LogBatch{&got, {Entries: k.entries}} {
		if diff := cmp.Diff(want, is, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}
