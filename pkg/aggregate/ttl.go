package aggregate

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Extended errors by which a resolver says that it goes on serving what has run out (RFC 8914, 4.4 and 4.20).
const (
	staleAnswer   = 3
	staleNXDOMAIN = 19
)

// until is when a resolver lets go of what it answered, by the remaining TTL and the coordinator's clock;
// nil if that is not known.
func (f *facts) until(v *sight) *timestamppb.Timestamp {
	now, ttl := v.agent.result.GetCoordinatorTime(), uint32(0)
	s := v.at()
	if known, ok := f.remaining(v); ok {
		ttl = known
	}
	if !now.IsValid() || ttl == 0 || extended(s, staleAnswer, staleNXDOMAIN) {
		return nil
	}
	at := now.AsTime().Add(s.GetStart().AsDuration() + s.GetDuration().AsDuration() + time.Duration(ttl)*time.Second)
	return timestamppb.New(at.Truncate(time.Second))
}

// remaining is how long a resolver still keeps what it answered, in seconds. Of a chain it is the longest of
// what the zone's own servers do not confirm; without their word the longest of all: by then every link has
// been asked for again.
func (f *facts) remaining(v *sight) (ttl uint32, ok bool) {
	s := v.at()
	if denial(s.GetFailure()) {
		return denialTTL(s)
	}
	reply := answerOf(s, f.askedType(s))
	var links, unconfirmed, data uint32
	for _, r := range reply.GetAnswers() {
		switch {
		case wantedType(f.askedType(s), r.GetType()):
			data = max(data, r.GetTtl())
		case r.GetType() != "CNAME":
		case f.confirms(v.agent, r):
			links = max(links, r.GetTtl())
		default:
			unconfirmed = max(unconfirmed, r.GetTtl())
		}
	}
	switch {
	case len(v.agent.said) == 0:
		return max(links, unconfirmed, data), reply != nil
	case unconfirmed > 0:
		return unconfirmed, true
	}
	return data, reply != nil
}

// denial says whether a failure is a denial, of the name itself or of what it leads to.
func denial(failure pb.Failure) bool {
	return aboutName(failure) || failure == pb.Failure_FAILURE_DNS_CNAME_BROKEN
}

// confirms says whether one of the zone's own servers gave an agent this CNAME.
func (f *facts) confirms(a *agent, r *pb.Record) bool {
	for _, w := range a.said {
		link := f.linkFrom(w.at(), f.canonical("CNAME", r.GetName()))
		if link != nil && f.canonical("CNAME", link.GetData()) == f.canonical("CNAME", r.GetData()) {
			return true
		}
	}
	return false
}

// denialTTL is how long a denial is kept: the lesser of the TTL of the SOA record that comes with it and of
// that record's last field (RFC 2308, 5). Caches count the former down.
func denialTTL(s *pb.Step) (ttl uint32, ok bool) {
	soa := denialSOA(s)
	fields := strings.Fields(soa.GetData())
	if len(fields) < 7 {
		return 0, false
	}
	minimum, err := strconv.ParseUint(fields[6], 10, 32)
	if err != nil {
		return 0, false
	}
	return min(soa.GetTtl(), uint32(minimum)), true
}

// denialSOA is the SOA record that a denial carries (RFC 2308, 2), or nil.
func denialSOA(s *pb.Step) *pb.Record {
	for _, r := range s.GetEvidence().GetReplies() {
		if r.GetMismatched() || r.GetTruncated() || r.GetRcode() != "NXDOMAIN" && r.GetRcode() != "NOERROR" {
			continue
		}
		for _, rr := range r.GetAuthority() {
			if rr.GetType() == "SOA" {
				return rr
			}
		}
	}
	return nil
}

// extended says whether a reply to a step carries one of these extended errors (RFC 8914).
func extended(s *pb.Step, codes ...uint32) bool {
	for _, r := range s.GetEvidence().GetReplies() {
		for _, e := range r.GetExtendedErrors() {
			for _, code := range codes {
				if e.GetCode() == code && !r.GetMismatched() {
					return true
				}
			}
		}
	}
	return false
}

// moment is a time for a sentence.
func moment(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) }

// latest is the last of times, nil if none is known.
func latest(times []*timestamppb.Timestamp) *timestamppb.Timestamp {
	var last *timestamppb.Timestamp
	for _, t := range times {
		if t != nil && (last == nil || t.AsTime().After(last.AsTime())) {
			last = t
		}
	}
	return last
}
