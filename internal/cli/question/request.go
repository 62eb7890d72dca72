package question

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Options are what the flags add to a question.
type Options struct {
	// From is where from, "" for world.
	From string
	// Limit is the number of agents to ask at most.
	Limit int32
	// Family is the address family, unspecified for both.
	Family pb.Family
	// Timeout is the time that the measurement may take.
	Timeout time.Duration
}

// Request makes the request and holds it against the rules of the contract, the same that the
// coordinator uses.
func (q *Question) Request(o Options) (*pb.CreateMeasurementRequest, error) {
	q.Spec.Family = o.Family
	if err := familyFits(q.Spec); err != nil {
		return nil, err
	}
	req := &pb.CreateMeasurementRequest{
		Spec: q.Spec, From: o.From, Limit: o.Limit, Timeout: durationpb.New(o.Timeout),
	}
	if _, err := proto.Marshal(req); err != nil {
		return nil, errors.New("the question holds bytes that are not UTF-8; write it in UTF-8")
	}
	return req, firstViolation(protovalidate.Validate(req))
}

// familyFits refuses an address of the family that is not asked.
func familyFits(spec *pb.Spec) error {
	host := spec.GetTcp().GetHost() + spec.GetTls().GetHost()
	if u, err := url.Parse(spec.GetHttp().GetUrl() + spec.GetOrigin().GetUrl()); err == nil {
		host += u.Hostname()
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nil //nolint:nilerr // a name may have addresses of either family
	}
	is4 := addr.Unmap().Is4()
	switch {
	case spec.GetFamily() == pb.Family_FAMILY_IPV4 && !is4:
		return fmt.Errorf("%s is an IPv6 address and -4 asks for IPv4 alone; leave out one of them", host)
	case spec.GetFamily() == pb.Family_FAMILY_IPV6 && is4:
		return fmt.Errorf("%s is an IPv4 address and -6 asks for IPv6 alone; leave out one of them", host)
	}
	return nil
}

// firstViolation makes one line of what protovalidate says.
func firstViolation(err error) error {
	var bad *protovalidate.ValidationError
	if !errors.As(err, &bad) || len(bad.Violations) == 0 {
		return err
	}
	v := bad.Violations[0].Proto
	path := protovalidate.FieldPathString(v.GetField())
	path = strings.TrimPrefix(path, "spec.")
	return fmt.Errorf("%s: %s", path, v.GetMessage())
}
