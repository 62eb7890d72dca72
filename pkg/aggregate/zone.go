package aggregate

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// dataset is what a name has of a type, by whoever was asked. All that have the same share one.
type dataset struct {
	values []string   // canonical, sorted, each once
	denied pb.Failure // NXDOMAIN or NODATA; FAILURE_NONE where there is something
	next   string     // where a CNAME leads that was answered without what it leads to
}

// said is what one of a zone's own servers answered one agent (rule 4). Its thing is the server's address.
type said struct {
	*sight
	name, kind string
	data       *dataset // nil: nothing with authority
}

// about is the zone's server that was asked.
func (w *said) about() *pb.AuthorityEvidence { return w.at().GetEvidence().GetAuthority() }

// address is the server's, "" if its name leads to none.
func (w *said) address() string {
	if _, err := netip.ParseAddrPort(w.thing.text); err != nil {
		return ""
	}
	return w.thing.text
}

// maxChain bounds the CNAMEs that are followed from zone to zone.
const maxChain = 16

// readAuthority keeps what one of a zone's own servers answered.
func (f *facts) readAuthority(a *agent, i int, s *pb.Step) {
	t := f.address(s.GetAddress())
	if t == nil { // the server's name leads to no address
		t = &thing{text: s.GetEvidence().GetAuthority().GetServer()}
	}
	w := &said{sight: f.newSight(a, t, i), name: s.GetName(), kind: s.GetType(), data: f.authoritative(s)}
	if w.data != nil {
		w.state = good
	}
	a.said = append(a.said, w)
}

// hear notes that a server of a zone, or on the way to one, answered over a family: one that is silent
// beside it is not so because of the agent. Its own resolver on the way shows nothing: a firewall may let it
// ask nobody else.
func (f *facts) hear(a *agent, s *pb.Step) {
	if s.GetEvidence().GetAuthority() == nil {
		return
	}
	heard := slices.ContainsFunc(s.GetEvidence().GetReplies(), func(r *pb.DNSReply) bool { return !r.GetMismatched() })
	if t := f.address(s.GetAddress()); t != nil && heard {
		a.heard[t.family()] = true
	}
}

// authoritative is what a zone's own server answered with authority; nil if it did not, or if there is no telling
// which of several replies is the server's.
func (f *facts) authoritative(s *pb.Step) *dataset {
	switch s.GetFailure() {
	case pb.Failure_FAILURE_DNS_NXDOMAIN, pb.Failure_FAILURE_DNS_NODATA:
		return f.intern(dataset{denied: s.GetFailure()})
	case pb.Failure_FAILURE_DNS_LAME: // of the first reply; the server's own may have come after it
		return f.claimed(s)
	case pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_DNS_BOGON:
	default:
		return nil
	}
	if f.severalReplies(s) {
		return f.claimed(s)
	}
	values, whole := f.rrset(s)
	if len(values) > 0 {
		return f.whole(values, whole)
	}
	if next := f.leadsTo(s); next != "" {
		return f.intern(dataset{denied: pb.Failure_FAILURE_NONE, next: next})
	}
	return nil
}

// claimed is the data of the replies that claim authority, nil if they do not have the same.
func (f *facts) claimed(s *pb.Step) *dataset {
	if all := f.repliesData(s, (*pb.DNSReply).GetAuthoritative); len(all) == 1 {
		return all[0]
	}
	return nil
}

// whole is data that was recorded as a whole; nil for a part of it, which compares with nothing.
func (f *facts) whole(values []string, whole bool) *dataset {
	if !whole {
		return nil
	}
	return f.intern(dataset{values: values, denied: pb.Failure_FAILURE_NONE})
}

// leadsTo is where the CNAMEs of a step's replies lead from its name, "" if there are none.
func (f *facts) leadsTo(s *pb.Step) string {
	name := s.GetName()
	for range maxChain {
		link := f.linkFrom(s, name)
		if link == nil {
			break
		}
		name = f.canonical("CNAME", link.GetData())
	}
	if name == s.GetName() {
		return ""
	}
	return name
}

// linkFrom is the CNAME record that a step's replies have of name, or nil.
func (f *facts) linkFrom(s *pb.Step, name string) *pb.Record {
	for _, r := range s.GetEvidence().GetReplies() {
		if r.GetMismatched() {
			continue
		}
		for _, rr := range r.GetAnswers() {
			if rr.GetType() == "CNAME" && f.canonical("CNAME", rr.GetName()) == name {
				return rr
			}
		}
	}
	return nil
}

// intern makes equal data one. The key is built in place, since there are tens of thousands of answers and few
// different ones.
func (f *facts) intern(d dataset) *dataset {
	key := binary.AppendVarint(f.key[:0], int64(d.denied))
	key = append(binary.AppendUvarint(key, uint64(len(d.next))), d.next...)
	for _, value := range d.values {
		key = append(binary.AppendUvarint(key, uint64(len(value))), value...) // with its length: it may hold anything
	}
	f.key = key
	known := f.sets[string(key)]
	if known == nil {
		known = &dataset{values: d.values, denied: d.denied, next: d.next}
		f.sets[string(key)] = known
	}
	return known
}

// text is data in words.
func (d *dataset) text() string {
	switch {
	case d.denied == pb.Failure_FAILURE_DNS_NXDOMAIN:
		return "no such name"
	case d.denied != pb.Failure_FAILURE_NONE:
		return "no such record"
	case d.next != "":
		return "a CNAME to " + shown(d.next)
	}
	return listed(d.values)
}

// listed is data for a sentence, bounded.
func listed(values []string) string {
	texts := make([]string, 0, len(values))
	for _, value := range values {
		texts = append(texts, shown(value))
	}
	return join(texts)
}

// compareData orders data, so that what is said of it does not depend on who came first.
func compareData(a, b *dataset) int {
	return cmp.Or(cmp.Compare(a.denied, b.denied), slices.Compare(a.values, b.values), cmp.Compare(a.next, b.next))
}

// server names a zone's server for a sentence: name and address.
func (w *said) server() string {
	name, address := w.about().GetServer(), w.address()
	switch {
	case name == "":
		return shown(address)
	case address == "":
		return shown(name)
	}
	return shown(name) + " (" + shown(address) + ")"
}
