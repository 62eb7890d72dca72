package store

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// received is a result as it came from the log.
type received struct {
	*pb.Result
	encoded []byte // a part of the log's message; nil if it is not known
}

// bytes is the result as it is saved.
func (r received) bytes() ([]byte, error) {
	if r.encoded != nil {
		return r.encoded, nil
	}
	return proto.Marshal(r.Result)
}

func (r received) size() int {
	if r.encoded != nil {
		return len(r.encoded)
	}
	return proto.Size(r.Result)
}

// The fields of LogBatch and LogEntry that are looked for.
const (
	fieldEntries = 1
	fieldResult  = 2
)

// resultsIn cuts the results out of a LogBatch of n entries, without copying: for each entry the bytes of its result,
// nil if it has none or more than one. What does not look like n entries has none.
func resultsIn(data []byte, n int) [][]byte {
	results := make([][]byte, 0, n)
	for len(data) > 0 {
		field, entry, size := consume(data)
		if size < 0 {
			return make([][]byte, n)
		}
		if data = data[size:]; field == fieldEntries && entry != nil {
			results = append(results, resultIn(entry))
		}
	}
	if len(results) != n {
		return make([][]byte, n)
	}
	return results
}

// resultIn is the result of one LogEntry. A field that comes twice is merged by a parser: then there is none.
func resultIn(entry []byte) (result []byte) {
	for len(entry) > 0 {
		field, value, size := consume(entry)
		switch {
		case size < 0 || field == fieldResult && (value == nil || result != nil):
			return nil
		case field == fieldResult:
			result = value
		}
		entry = entry[size:]
	}
	return result
}

// consume reads one field: its number, its bytes if it has such, and its size; a size below 0 is no field.
func consume(data []byte) (field protowire.Number, value []byte, size int) {
	field, kind, size := protowire.ConsumeTag(data)
	if size < 0 {
		return field, nil, size
	}
	if kind == protowire.BytesType {
		value, n := protowire.ConsumeBytes(data[size:])
		return field, value, add(size, n)
	}
	return field, nil, add(size, protowire.ConsumeFieldValue(field, kind, data[size:]))
}

// add is the size of a tag and a value, below 0 if that of the value is.
func add(tag, value int) int {
	if value < 0 {
		return value
	}
	return tag + value
}
