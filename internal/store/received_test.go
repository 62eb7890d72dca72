package store

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// field is a field of bytes as it is encoded.
func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func TestResultsAreCutOutOfTheLogsMessage(t *testing.T) {
	a, b := canonical(&pb.Result{Agent: "a"}), canonical(&pb.Result{Agent: "b"})
	place, unknown := field(15, canonical(&pb.Place{Seq: 7})), protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for _, c := range []struct {
		what string
		data []byte
		n    int
		want [][]byte
	}{
		{"one result", field(1, field(2, a)), 1, [][]byte{a}},
		{"two, one with its place before it", slices.Concat(field(1, slices.Concat(place, field(2, a))), field(1, field(2, b))), 2, [][]byte{a, b}},
		{"fields that are not known", slices.Concat(unknown, field(1, slices.Concat(unknown, field(2, a), unknown))), 1, [][]byte{a}},
		{"an empty result", field(1, field(2, nil)), 1, [][]byte{{}}},
		{"an entry that is no result", field(1, field(4, a)), 1, [][]byte{nil}},
		{"a result in two parts, which a parser would merge", field(1, slices.Concat(field(2, a), field(2, b))), 1, [][]byte{nil}},
		{"a result that ends too early", field(1, field(2, a)[:3]), 1, [][]byte{nil}},
		{"a message that ends too early", field(1, field(2, a))[:4], 1, [][]byte{nil}},
		{"fewer entries than there should be", field(1, field(2, a)), 2, [][]byte{nil, nil}},
		{"nothing", nil, 1, [][]byte{nil}},
	} {
		got := resultsIn(c.data, c.n)
		if !slices.EqualFunc(got, c.want, func(g, w []byte) bool { return (g == nil) == (w == nil) && bytes.Equal(g, w) }) {
			t.Errorf("%s: %q instead of %q", c.what, got, c.want)
		}
	}
}

// FuzzResultsIn holds what is cut out of a message against what a parser finds in it.
func FuzzResultsIn(f *testing.F) {
	a := canonical(&pb.Result{Agent: "a"})
	f.Add(field(1, slices.Concat(field(2, a), field(15, canonical(&pb.Place{Seq: 7})))))
	f.Add(field(1, slices.Concat(field(2, a), field(4, a), field(2, a))))
	f.Fuzz(func(t *testing.T, data []byte) {
		var batch pb.LogBatch
		if proto.Unmarshal(data, &batch) != nil {
			return
		}
		for i, encoded := range resultsIn(data, len(batch.GetEntries())) {
			whole := batch.GetEntries()[i].GetResult()
			if encoded == nil || whole == nil {
				continue
			}
			var cut pb.Result
			if err := proto.Unmarshal(encoded, &cut); err != nil || !proto.Equal(&cut, whole) {
				t.Errorf("%v, %v instead of %v", &cut, err, whole)
			}
		}
	})
}
