package aggregate

import (
	"cmp"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// answer is what one query to one resolver brought.
type answer struct {
	*sight
	source string   // the perspective
	values []string // the data of the type asked for: canonical, sorted, each once
	whole  bool     // the answer was recorded, all of it
	data   *dataset // the same, where all of it is there; nil otherwise
}

// resolver is one server that an agent asked.
type resolver struct {
	address string
	control control
	failed  bool // a query of the target's failed there
}

// authority says whether a query got a reply from the server that the question names: that is what was
// asked for, whatever it says, and such a server may well refuse the control names.
func (f *facts) authority(s *pb.Step) bool {
	return f.namesResolver() && slices.ContainsFunc(s.GetEvidence().GetReplies(), func(r *pb.DNSReply) bool {
		return r.GetRcode() != "" && !r.GetMismatched() && s.GetFailure() != pb.Failure_FAILURE_DNS_TIMEOUT
	})
}

// resolver is what the agent knows about one resolver.
func (a *agent) resolver(address string) *resolver {
	for i := range a.dns {
		if a.dns[i].address == address {
			return &a.dns[i]
		}
	}
	if len(a.dns) == maxResolvers {
		return &resolver{}
	}
	a.dns = append(a.dns, resolver{address: address})
	return &a.dns[len(a.dns)-1]
}

// maxResolvers bounds what one result can make the judge remember; an agent has at most 8.
const maxResolvers = 64

// readQuery keeps one query to one resolver.
func (f *facts) readQuery(a *agent, i int, s *pb.Step) {
	r := a.resolver(s.GetAddress())
	if r.control.state != good && f.authority(s) {
		r.control = control{state: good, failure: pb.Failure_FAILURE_NONE, step: -1}
	}
	r.failed = r.failed || !clean(s)
	v := f.newSight(a, f.name, i)
	f.weigh(v, &r.control)
	own := answer{sight: v, source: v.perspective()}
	if v.state == good {
		own.values, own.whole = f.rrset(s)
	}
	f.answers = append(f.answers, own)
}

// readName folds an agent's queries into one state: the name resolves for it if any query gave what
// was asked for, fails if one failed beside a passing control, and is unknown otherwise.
func (f *facts) readName(a *agent, queries []answer) {
	var failed *sight
	for _, query := range queries {
		q := query.sight
		switch {
		case q.state == bad && q.failure == pb.Failure_FAILURE_DNS_BOGON: // beside what the other family has, too
			f.names = append(f.names, q)
			a.see(q)
			return
		case q.state == good && f.gaveAnswer(q):
			f.names = append(f.names, q)
			if f.settles(query) {
				a.see(q)
			}
			return
		case q.state == bad && (failed == nil || f.tellsMore(q, failed)):
			failed = q
		}
	}
	if failed != nil && f.settled(failed, queries) {
		f.names = append(f.names, failed)
		a.see(failed)
	}
}

// tellsMore says whether q says more of why a name fails than other does: by its failure, and of two families
// by IPv4, whichever was asked first.
func (f *facts) tellsMore(q, other *sight) bool {
	return cmp.Or(cmp.Compare(decisive(q), decisive(other)), strings.Compare(f.questionOf(other).kind, f.questionOf(q).kind)) > 0
}

// settled says whether a failing query decides about the name. A host has two families, and one of
// them may fail where nothing is known of the other: NXDOMAIN is about both (RFC 8020), anything else
// has to be so for all queries, or for those of both families at one resolver.
func (f *facts) settled(failed *sight, queries []answer) bool {
	spec := f.m.GetSpec()
	if spec.GetDns() != nil || failed.failure == pb.Failure_FAILURE_DNS_NXDOMAIN || wrongData(failed.failure) {
		return true
	}
	families := 2
	if spec.GetFamily() != pb.Family_FAMILY_UNSPECIFIED {
		families = 1
	}
	fails, gaps, open := map[string]int{}, map[string]int{}, 0
	for _, q := range queries {
		switch q.state {
		case bad:
			fails[q.source]++
		case unknown, good: // good without an address says no more
			gaps[q.source]++
			open++
		}
	}
	for source, n := range fails {
		if n >= families && gaps[source] == 0 {
			return true
		}
	}
	return open == 0
}

// settles says whether a good answer is all that the check asks: for a DNS check, unless data is
// expected that the record of the answer is too short to show.
func (f *facts) settles(q answer) bool {
	dns := f.m.GetSpec().GetDns()
	return dns != nil && (q.whole || len(f.missing(f.askedType(q.at()), dns.GetExpect(), q.values)) == 0)
}

// decisive ranks failing queries of one agent: there is no such name, then what kept the resolver from
// answering, then that one type has no data.
func decisive(q *sight) int {
	switch {
	case q.failure == pb.Failure_FAILURE_DNS_NXDOMAIN, wrongData(q.failure):
		return 2
	case q.failure == pb.Failure_FAILURE_DNS_NODATA:
		return 0
	}
	return 1
}

// gaveAnswer says whether a query that went well gave what was asked for: an address where addresses
// are needed.
func (f *facts) gaveAnswer(q *sight) bool {
	return f.m.GetSpec().GetDns() != nil || len(q.at().GetEvidence().GetAddresses()) > 0
}
