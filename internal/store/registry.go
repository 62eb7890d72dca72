package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// registry is the agents that are enrolled, by their names. A name stays for good.
type registry struct {
	agents map[string]*enrolled
	dirty  map[string]bool // not on disk
	sum    sum
}

// enrolled is one agent's enrolment.
type enrolled struct {
	enrolment *pb.Enrolment // never changed, only replaced
	since     uint64        // the log from this position on tells all of it
	sum       sum
}

func newRegistry() registry {
	return registry{agents: map[string]*enrolled{}, dirty: map[string]bool{}}
}

// fold takes up an enrolment and returns it, nil if nothing has changed by it.
//
// A revocation is final: what still has the old state in mind, a renewal on its way, does not undo it. Only an
// enrolment of another time does, which is a new one.
func (r *registry) fold(position uint64, e *pb.Enrolment) *pb.Enrolment {
	old, since := r.agents[e.GetId()], position
	if old != nil && old.enrolment.GetRevokeTime() != nil && e.GetRevokeTime() == nil &&
		proto.Equal(old.enrolment.GetEnrollTime(), e.GetEnrollTime()) {
		e = proto.CloneOf(e)
		e.RevokeTime = old.enrolment.GetRevokeTime()
		since = old.since
	}
	if old != nil {
		r.sum.sub(old.sum)
	}
	r.restore(e, since)
	r.dirty[e.GetId()] = true
	if old != nil && proto.Equal(old.enrolment, e) {
		return nil
	}
	return e
}

// restore takes up an enrolment as it is.
func (r *registry) restore(e *pb.Enrolment, since uint64) {
	next := &enrolled{e, since, newItem(itemEnrolled, e.GetId()).data(canonical(e)).sum()}
	r.sum.add(next.sum)
	r.agents[e.GetId()] = next
}

// encode is what stands on disk: since, then the message.
func (e *enrolled) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, e.since), canonical(e.enrolment)...)
}

func decodeEnrolled(key, data []byte) (*pb.Enrolment, uint64, error) {
	var e pb.Enrolment
	if len(data) < 8 || proto.Unmarshal(data[8:], &e) != nil || e.GetId() != string(key) {
		return nil, 0, fmt.Errorf("%w: the enrolment %q", ErrDamaged, key)
	}
	return &e, number(data[:8]), nil
}

// Enrolment returns an agent's enrolment, nil if there is none. It is shared: not to be changed.
func (s *Store) Enrolment(id string) *pb.Enrolment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.registry.agents[id]; e != nil {
		return e.enrolment
	}
	return nil
}

// Enrolments lists all enrolments, also those that were revoked, in the order of their names. They are shared: not to
// be changed.
func (s *Store) Enrolments() []*pb.Enrolment {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*pb.Enrolment, 0, len(s.registry.agents))
	for _, e := range s.registry.agents {
		all = append(all, e.enrolment)
	}
	slices.SortFunc(all, func(a, b *pb.Enrolment) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return all
}
