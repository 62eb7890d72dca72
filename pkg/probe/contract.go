package probe

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// A coordinator holds each spec against all rules of the contract before it sends a job, but an agent has only
// its word for that: who took over a coordinator, or speaks for one, would write lines of his own into requests,
// or have one job make a million queries. So an agent holds them too: here those that are plain data, which it
// reads from the contract itself, so that a bound that is changed there is changed here. Those in CEL, whose
// interpreter is larger than the agent, are about hosts, names and URLs, and said once more in wellformed.go.
// Values of an enum that this agent does not know are let through: a profile may be newer than it.

const (
	// maxSpec bounds a spec, in bytes: lists of names that no rule counts the bytes of.
	maxSpec = 256 << 10
	// longest bounds every duration in a spec, so that sums of them cannot overflow.
	longest = 24 * time.Hour
)

// keepsContract says how a spec breaks a plain rule of the contract. The error is a SpecError.
func keepsContract(spec *pb.Spec) error {
	if n := proto.Size(spec); n > maxSpec {
		return fmt.Errorf("the spec has %d bytes, more than %d", n, maxSpec)
	}
	return keepsRules("", spec.ProtoReflect())
}

// keepsRules holds a message's fields, and those below them, against their rules. A field that is not set keeps
// all of them: what is required is asked for where it is used.
func keepsRules(below string, m protoreflect.Message) (broken error) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		broken = keepsRule(below+string(field.Name()), field, v)
		return broken == nil
	})
	return broken
}

// keepsRule holds one field against its rules.
func keepsRule(path string, field protoreflect.FieldDescriptor, v protoreflect.Value) (broken error) {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	switch {
	case field.IsList():
		list, most := v.List(), rules.GetRepeated()
		if most.HasMaxItems() && uint64(list.Len()) > most.GetMaxItems() {
			return invalid(path, fmt.Errorf("has %d items, more than %d", list.Len(), most.GetMaxItems()))
		}
		for i := 0; i < list.Len() && broken == nil; i++ {
			broken = keepsValue(fmt.Sprintf("%s[%d]", path, i), most.GetItems(), list.Get(i))
		}
	case field.IsMap():
		if n, most := v.Map().Len(), rules.GetMap(); most.HasMaxPairs() && uint64(n) > most.GetMaxPairs() {
			return invalid(path, fmt.Errorf("has %d entries, more than %d", n, most.GetMaxPairs()))
		}
		v.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
			broken = keepsValue(path, rules.GetMap().GetValues(), value)
			return broken == nil
		})
	default:
		return keepsValue(path, rules, v)
	}
	return broken
}

// keepsValue holds one value against its rules.
func keepsValue(path string, rules *validate.FieldRules, v protoreflect.Value) error {
	switch value := v.Interface().(type) {
	case protoreflect.Message:
		if d, ok := value.Interface().(*durationpb.Duration); ok {
			return keepsTime(path, d)
		}
		return keepsRules(path+".", value)
	case string:
		if err := keepsText(rules.GetString(), value); err != nil {
			return invalid(path, err)
		}
	case uint32:
		if r := rules.GetUint32(); r.HasLte() && value > r.GetLte() || r.HasGte() && value < r.GetGte() {
			return invalid(path, fmt.Errorf("is %d, and must be %d to %d", value, r.GetGte(), r.GetLte()))
		}
	case int32:
		if value < 0 { // The contract counts things alone.
			return invalid(path, fmt.Errorf("is %d, and must not be negative", value))
		}
	}
	return nil
}

// keepsTime holds a duration against what every one must be.
func keepsTime(path string, d *durationpb.Duration) error {
	if !d.IsValid() || d.AsDuration() < 0 || d.AsDuration() > longest {
		return invalid(path, fmt.Errorf("must be 0 s to %v", longest))
	}
	return nil
}

// keepsText holds a string against its rules.
func keepsText(rules *validate.StringRules, s string) error {
	switch n := uint64(utf8.RuneCountInString(s)); {
	case rules == nil:
	case rules.HasMaxLen() && n > rules.GetMaxLen() || rules.HasMaxBytes() && uint64(len(s)) > rules.GetMaxBytes():
		return fmt.Errorf("is too long: %d bytes", len(s))
	case n < rules.GetMinLen() || uint64(len(s)) < rules.GetMinBytes():
		return errors.New("is too short")
	case len(rules.GetIn()) > 0 && !slices.Contains(rules.GetIn(), s):
		return fmt.Errorf("%q is none of %s", s, strings.Join(rules.GetIn(), ", "))
	case rules.HasPattern():
		// The longest text has been refused, and RE2 takes time in proportion to it.
		if ok, err := regexp.MatchString(rules.GetPattern(), s); err != nil || !ok {
			return fmt.Errorf("%q is not of the form %s", s, rules.GetPattern())
		}
	}
	return nil
}
