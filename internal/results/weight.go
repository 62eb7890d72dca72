package results

import (
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxWeight bounds what one message of a stream takes in memory, in bytes. Honest batches of 512 KiB take a tenth of it;
	// one of empty messages, two bytes each, would take a hundred times its size.
	maxWeight = 32 << 20
	// MaxResultWeight bounds what one result takes in memory, in bytes: twice what an honest one of 64 KiB does. It is held
	// for as long as its measurement is.
	MaxResultWeight = 2 << 20
	// surelyLight is a size up to which no result takes more than that: none takes 200 times its size.
	surelyLight = MaxResultWeight / 200
	// scalarBytes is what a scalar takes, at most; pointerBytes what a message in a list takes beside itself, since lists
	// grow by halves; entryBytes what an entry of a map takes beside its key and value.
	scalarBytes, pointerBytes, entryBytes = 8, 16, 64
)

// shape is what a type of message takes in memory, as far as weigh has to know.
type shape struct {
	size   int        // of the struct, in bytes
	fields []property // by number
}

// property is a field.
type property struct {
	message *shape // nil: it is none
	list    bool   // of scalars, which may be packed
}

// requestShape is that of a pb.ReportRequest, and resultShape that of a pb.Result.
var requestShape, resultShape = shapeOnce(&pb.ReportRequest{}), shapeOnce(&pb.Result{})

func shapeOnce(m proto.Message) func() *shape {
	return sync.OnceValue(func() *shape { return shapeOf(m.ProtoReflect().Descriptor(), map[protoreflect.FullName]*shape{}) })
}

// TooHeavy tells whether a result, as bytes, takes more than MaxResultWeight.
func TooHeavy(result []byte) bool {
	return len(result) > surelyLight && resultShape().weigh(result) > MaxResultWeight
}

// shapeOf is the shape of a type, and of all that it may hold.
func shapeOf(d protoreflect.MessageDescriptor, known map[protoreflect.FullName]*shape) *shape {
	if s := known[d.FullName()]; s != nil {
		return s
	}
	s := &shape{size: entryBytes}
	known[d.FullName()] = s
	if t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName()); err == nil { // entries of maps have none
		s.size = int(reflect.TypeOf(t.Zero().Interface()).Elem().Size()) + pointerBytes
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		for len(s.fields) <= int(f.Number()) {
			s.fields = append(s.fields, property{})
		}
		p := property{list: f.IsList() && f.Message() == nil && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind}
		if f.Message() != nil {
			p.message = shapeOf(f.Message(), known)
		}
		s.fields[f.Number()] = p
	}
	return s
}

// weigh is about how much memory a message takes once it is decoded, in bytes, without decoding it. What cannot be decoded
// counts as far as it can.
func (s *shape) weigh(data []byte) int {
	weight := s.size
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return weight
		}
		of := protowire.ConsumeFieldValue(number, kind, data[n:])
		if of < 0 {
			return weight
		}
		value := data[n : n+of]
		data = data[n+of:]
		var p property
		if int(number) < len(s.fields) {
			p = s.fields[number]
		}
		switch {
		case kind != protowire.BytesType:
			weight += max(pointerBytes, n+of) // a scalar in a list that grows; a group is kept as it came
		case p.message != nil:
			inner, _ := protowire.ConsumeBytes(value)
			weight += p.message.weigh(inner)
		case p.list:
			weight += scalarBytes * len(value)
		default:
			weight += pointerBytes + len(value)
		}
	}
	return weight
}
