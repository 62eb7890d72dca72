package render

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// poison puts text into every string and every sequence of bytes of a message.
func poison(m protoreflect.Message, text string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		value := protoreflect.ValueOfString(text)
		if f.Kind() == protoreflect.BytesKind {
			value = protoreflect.ValueOfBytes([]byte(text))
		}
		switch text := f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind; {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				poison(v.List().Get(i).Message(), value.String())
			}
		case f.IsList() && text:
			for i := range v.List().Len() {
				v.List().Set(i, value)
			}
		case text:
			m.Set(f, value)
		case f.Kind() == protoreflect.MessageKind && !f.IsMap():
			poison(v.Message(), value.String())
		}
		return true
	})
}

// TestNoFieldOfAResultSteersATerminal poisons every text of the richest results that there are, and
// looks at every format, in brief and in depth.
func TestNoFieldOfAResultSteersATerminal(t *testing.T) {
	const evil = "\x1b]0;owned\x07\u009b2J\u202e\r\n"
	for _, of := range []func() (*pb.Spec, *pb.Result){deepDNS, deepTLS, deepHTTP, deepTCP, healthyOrigin} {
		spec, r := of()
		name := Question(spec)
		types := map[*pb.Step]string{}
		for _, s := range r.GetSteps() {
			types[s] = s.GetType() // what decides about which answers are shown
		}
		poison(r.ProtoReflect(), evil)
		poison(spec.ProtoReflect(), evil)
		for s, kind := range types {
			s.Type = kind
		}
		for _, deep := range []bool{false, true} {
			text := told(spec, deep, proto.CloneOf(r))
			if strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), unsafe) || !strings.Contains(text, "owned") {
				t.Errorf("%s, in depth %v: %q", name, deep, text)
			}
			if more := strings.Count(text, "\n"); more > 80 {
				t.Errorf("%s, in depth %v: %d lines: a line's end got through", name, deep, more)
			}
		}
	}
}
