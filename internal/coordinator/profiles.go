package coordinator

import (
	"errors"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// wholeProfiles puts whole profiles into a spec where it has their names alone, and the default one where an
// origin has none. What is measured and judged is then in the log, whatever later versions of the files say.
// A profile that came whole is checked.
func wholeProfiles(spec *pb.Spec) error {
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Origin:
		p := c.Origin.GetProfile()
		if proto.Size(p) == 0 {
			p = &pb.Profile{Name: profile.Default}
		}
		return whole(p, "spec.origin.profile", func(p *pb.Profile) { c.Origin.Profile = p })
	case *pb.Spec_Tls:
		if proto.Size(c.Tls.GetProfile()) == 0 {
			c.Tls.Profile = nil
			return nil
		}
		return whole(c.Tls.GetProfile(), "spec.tls.profile", func(p *pb.Profile) { c.Tls.Profile = p })
	}
	return nil
}

// whole looks a profile up if there is nothing to it but its name, and checks it otherwise.
func whole(p *pb.Profile, field string, put func(*pb.Profile)) error {
	if proto.Equal(p, &pb.Profile{Name: p.GetName()}) {
		known, err := profile.Load(p.GetName())
		if err != nil {
			return badFields([]*errdetails.BadRequest_FieldViolation{{Field: field + ".name", Description: err.Error()}})
		}
		put(known)
		return nil
	}
	put(p)
	var invalid *protovalidate.ValidationError
	if err := profile.Check(p); errors.As(err, &invalid) {
		return badFields(fieldViolations(invalid, field))
	}
	return nil
}

// fieldViolations are the fields of a message that are wrong, the message being at a path itself, or at "".
func fieldViolations(invalid *protovalidate.ValidationError, at string) (fields []*errdetails.BadRequest_FieldViolation) {
	for _, v := range invalid.Violations {
		field := protovalidate.FieldPathString(v.Proto.GetField())
		if at != "" && field != "" {
			field = "." + field
		}
		fields = append(fields, &errdetails.BadRequest_FieldViolation{Field: at + field, Description: v.Proto.GetMessage()})
	}
	return fields
}
