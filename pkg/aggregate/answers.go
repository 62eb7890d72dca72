package aggregate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxAddresses is how many addresses of a name a Result holds; there may have been more.
const maxAddresses = 256

// rrset is what a query was answered with: the data of the type asked for in canonical form, sorted,
// each once; TTL and order never matter. whole says whether all of it was recorded: what is missing
// from a record that is cut, or not there, is not missing from the answer.
func (f *facts) rrset(s *pb.Step) (values []string, whole bool) {
	start := len(f.values)
	if addresses := s.GetEvidence().GetAddresses(); len(addresses) > 0 {
		for _, a := range addresses {
			f.values = append(f.values, f.canonical("A", a))
		}
		whole = len(addresses) < maxAddresses
	} else if f.m.GetSpec().GetDns() != nil {
		asked := f.askedType(s)
		reply := answerOf(s, asked)
		for _, r := range reply.GetAnswers() {
			if wantedType(asked, r.GetType()) {
				f.values = append(f.values, f.canonical(r.GetType(), r.GetData()))
			}
		}
		whole = reply != nil && reply.GetLeftOut() == 0
	}
	values = f.values[start:len(f.values):len(f.values)]
	slices.Sort(values)
	return slices.Compact(values), whole
}

// askedType is the type that a query asked for, as the agent names it: the spec has most types by number.
func (f *facts) askedType(s *pb.Step) string {
	return cmp.Or(s.GetType(), f.m.GetSpec().GetDns().GetType(), "A")
}

// answerOf is the reply that answered: the first whole one with data of the type asked for. Those
// before it were asked again for, those after it answer nothing, and a guess is nobody's answer.
func answerOf(s *pb.Step, asked string) *pb.DNSReply {
	for _, r := range s.GetEvidence().GetReplies() {
		if r.GetRcode() == "NOERROR" && !r.GetTruncated() && !r.GetMismatched() && slices.ContainsFunc(r.GetAnswers(), func(rr *pb.Record) bool {
			return wantedType(asked, rr.GetType())
		}) {
			return r
		}
	}
	return nil
}

// wantedType says whether a record of type got answers a question for asked. An unnamed type
// (RFC 3597) may come back by its name: then all but what comes with any answer counts.
func wantedType(asked, got string) bool {
	switch {
	case asked == "":
		return got == "A"
	case asked == got:
		return true
	case asked == "ANY":
		return got != "RRSIG"
	case strings.HasPrefix(asked, "TYPE"):
		return got != "CNAME" && got != "DNAME" && got != "RRSIG"
	}
	return false
}

// record is a type and data as an answer spells them.
type record struct{ kind, data string }

// canonical is data so that two spellings of one value are one string.
func (f *facts) canonical(kind, data string) string {
	k := record{kind, data}
	c, ok := f.canon[k]
	if !ok {
		c = canonical(kind, data)
		f.canon[k] = c
	}
	return c
}

// canonical compares addresses as addresses, names without case and final dot (RFC 4343), and text
// without quotes; numbers and keys as they are.
func canonical(kind, data string) string {
	switch kind {
	case "A", "AAAA":
		if ip, err := netip.ParseAddr(strings.TrimSpace(data)); err == nil {
			return ip.Unmap().String()
		}
	case "TXT", "SPF":
		return unquote(data)
	case "CAA", "HINFO", "URI", "NAPTR", "SVCB", "HTTPS":
		return strings.ReplaceAll(strings.Join(strings.Fields(data), " "), `"`, "")
	case "CNAME", "DNAME", "NS", "PTR", "MX", "SRV", "SOA", "AFSDB", "KX", "RP":
		fields := strings.Fields(strings.ToLower(data))
		for i, name := range fields {
			if len(name) > 1 {
				fields[i] = strings.TrimSuffix(name, ".")
			}
		}
		return strings.Join(fields, " ")
	case "DS", "CDS", "SSHFP", "TLSA", "SMIMEA", "ZONEMD":
		data = strings.ToLower(data)
	}
	if strings.HasPrefix(data, `\#`) { // Hexadecimal, as all data of types without a form of their own (RFC 3597, 5).
		data = strings.ToLower(data)
	}
	return oneBlob(kind, strings.Fields(data))
}

// oneBlob puts the last field of data together, which tools break into pieces where it is long.
func oneBlob(kind string, fields []string) string {
	before, ok := map[string]int{
		"DS": 3, "CDS": 3, "DNSKEY": 3, "CDNSKEY": 3, "TLSA": 3, "SMIMEA": 3, "ZONEMD": 3, "CERT": 3, "SSHFP": 2, "RRSIG": 8,
		"OPENPGPKEY": 0, "DHCID": 0,
	}[kind]
	if len(fields) > 2 && fields[0] == `\#` {
		before, ok = 2, true
	}
	if ok && len(fields) > before {
		fields = append(fields[:before:before], strings.Join(fields[before:], ""))
	}
	return strings.Join(fields, " ")
}

// unquote is the text of a TXT record's data: its character-strings joined (RFC 7208, 3.3, and what
// people paste), escapes resolved (RFC 1035, 5.1). Data without quotes is taken as it is.
func unquote(data string) string {
	data = strings.TrimSpace(data)
	if !strings.HasPrefix(data, `"`) {
		return data
	}
	var out strings.Builder
	quoted := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '\\' && i+3 < len(data) && isDecimal(data[i+1:i+4]):
			n, _ := strconv.Atoi(data[i+1 : i+4])
			out.WriteByte(byte(n))
			i += 3
		case c == '\\' && i+1 < len(data):
			i++
			out.WriteByte(data[i])
		case c == '"':
			quoted = !quoted
		case quoted:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// isDecimal says whether s is an octet in three digits.
func isDecimal(s string) bool {
	n, err := strconv.ParseUint(s, 10, 8)
	return err == nil && n <= 255
}
