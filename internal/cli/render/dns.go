package render

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// counted is the reply that a query was judged by: the first one with what was asked for, which is what
// anybody would have believed, whatever came after it; or where there was none, the last one that belongs to it.
func counted(s *pb.Step) *pb.DNSReply {
	for _, r := range s.GetEvidence().GetReplies() {
		if s.GetFailure() == pb.Failure_FAILURE_NONE && !r.GetMismatched() && !r.GetTruncated() && len(dataOf(r, typeOrA(s.GetType()))) > 0 {
			return r
		}
	}
	for _, r := range slices.Backward(s.GetEvidence().GetReplies()) {
		if !r.GetMismatched() {
			return r
		}
	}
	return nil
}

// answersOf are the data of a type in the reply that counted, sorted.
func answersOf(s *pb.Step, want string) []string {
	return dataOf(counted(s), typeOrA(want))
}

// dataOf are the data of a type in a reply, sorted.
func dataOf(reply *pb.DNSReply, want string) []string {
	var out []string
	for _, rr := range reply.GetAnswers() {
		if rr.GetType() == want || want == "ANY" {
			out = append(out, Clean(rr.GetData()))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// aside is what matters of a reply beside its data: the time that it may be kept, flags that say
// something, who answered, and for whom.
func aside(s *pb.Step) string {
	reply := counted(s)
	var words []string
	if ttl, ok := ttlOf(reply); ok {
		words = append(words, "ttl "+strconv.FormatUint(uint64(ttl), 10))
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{reply.GetAuthoritative(), "aa"}, {reply.GetAuthenticData(), "ad"}, {reply.GetTruncated(), "tc"}} {
		if f.on {
			words = append(words, f.name)
		}
	}
	if id := reply.GetNsid(); len(id) > 0 {
		words = append(words, "nsid "+Clean(string(id)))
	}
	if c := reply.GetClientSubnet(); c != nil {
		words = append(words, fmt.Sprintf("subnet %s scope %d", Clean(c.GetPrefix()), c.GetScope()))
	}
	return strings.Join(words, " ")
}

// ttlOf is how long an answer may be kept: the shortest time of its records.
func ttlOf(reply *pb.DNSReply) (ttl uint32, ok bool) {
	for i, rr := range reply.GetAnswers() {
		if i == 0 || rr.GetTtl() < ttl {
			ttl = rr.GetTtl()
		}
	}
	return ttl, len(reply.GetAnswers()) > 0
}

// lookup is a query in depth: each reply with its header, sections and extras.
func lookup(s *pb.Step) section {
	out := section{title: "query " + Clean(s.GetName()) + " " + Clean(s.GetType()) + " @" + Clean(s.GetAddress()) + gap + ending(s, "", true)}
	if text := s.GetEvidence().GetText(); text != "" {
		out.lines = append(out.lines, Clean(text))
	}
	for _, r := range s.GetEvidence().GetReplies() {
		out.lines = append(out.lines, header(r))
		out.lines = append(out.lines, records("", r.GetAnswers())...)
		out.lines = append(out.lines, records("authority", r.GetAuthority())...)
		out.lines = append(out.lines, records("additional", r.GetAdditional())...)
		out.lines = append(out.lines, extendedErrors(r)...)
	}
	return out
}

// header is the head of a reply: how it came, its rcode, its flags.
func header(r *pb.DNSReply) string {
	words := []string{Clean(strings.ToUpper(r.GetTransport())), Clean(r.GetRcode())}
	for _, f := range []struct {
		on   bool
		name string
	}{
		{r.GetAuthoritative(), "aa"}, {r.GetTruncated(), "tc"}, {r.GetRecursionAvailable(), "ra"}, {r.GetAuthenticData(), "ad"}, {r.GetCheckingDisabled(), "cd"},
	} {
		words = append(words, when(f.on, f.name)...)
	}
	words = append(words, human(r.GetRtt().AsDuration()), fmt.Sprintf("%d bytes", r.GetSize()))
	words = append(words, when(len(r.GetNsid()) > 0, "nsid "+Clean(string(r.GetNsid())))...)
	if c := r.GetClientSubnet(); c != nil {
		words = append(words, fmt.Sprintf("subnet %s scope %d", Clean(c.GetPrefix()), c.GetScope()))
	}
	words = append(words, when(r.GetLeftOut() > 0, fmt.Sprintf("%d records left out", r.GetLeftOut()))...)
	return strings.Join(append(words, when(r.GetMismatched(), "not a reply to this query")...), gap)
}

// records are the records of a section, as dig shows them.
func records(title string, all []*pb.Record) []string {
	if len(all) == 0 {
		return nil
	}
	rows := make([][]string, len(all))
	for i, rr := range all {
		rows[i] = []string{Clean(rr.GetName()), strconv.FormatUint(uint64(rr.GetTtl()), 10), Clean(rr.GetType()), Clean(rr.GetData())}
	}
	lines := grid(rows)
	for i := range lines {
		lines[i] = gap + lines[i]
	}
	if title != "" {
		lines = append([]string{gap + title + ":"}, lines...)
	}
	return lines
}

// extendedErrors are the extended errors of a reply, with IANA's words for each (RFC 8914, 4).
func extendedErrors(r *pb.DNSReply) (lines []string) {
	for _, e := range r.GetExtendedErrors() {
		line := fmt.Sprintf("EDE %d", e.GetCode())
		if name := dns.ExtendedErrorCodeToString[uint16(e.GetCode())]; name != "" {
			line += " (" + name + ")"
		}
		if e.GetText() != "" {
			line += ": " + Clean(e.GetText())
		}
		lines = append(lines, line)
	}
	return lines
}

// chain is a CNAME chain on one line, with the link that broke.
func chain(links []*pb.CNAMELink) string {
	if len(links) == 0 {
		return ""
	}
	words := []string{Clean(links[0].GetName())}
	for _, l := range links {
		word := "→ " + Clean(l.GetTarget())
		if f := l.GetFailure(); f > pb.Failure_FAILURE_NONE {
			word += " ✗ " + aggregate.ShortFailure(f)
			if l.GetZone() != "" {
				word += " (in the zone " + Clean(l.GetZone()) + ")"
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
