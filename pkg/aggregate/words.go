package aggregate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxText bounds what a sentence quotes of a target's own words.
const maxText = 80

// quote puts text that an agent or a target wrote into a sentence, in quotes.
func quote(text string) string { return "“" + shown(text) + "”" }

// shown is such text bounded, with nothing in it that could move a cursor.
func shown(text string) string { return shownUpTo(maxText, text) }

// shownUpTo is the same with a bound of its own, in bytes.
func shownUpTo(bytes int, text string) string {
	q := strconv.QuoteToGraphic(cut(bytes, text))
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1]) // Ours are “these”, and nobody reads it back.
}

// cut bounds text without breaking a character.
func cut(bytes int, text string) string {
	if len(text) <= bytes {
		return text
	}
	end := bytes
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// plural counts things: "1 attempt", "2 attempts".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// verb agrees with its subject.
func verb(subject []string, one, many string) string {
	if len(subject) == 1 {
		return one
	}
	return many
}

// sole says when one agent is all the evidence there is.
func sole(sights []*sight) string {
	if ids := agentsOf(sights); len(ids) == 1 {
		return "from agent " + ids[0] + " only"
	}
	return ""
}

// seen says in words what a failure looks like, to be followed by an address.
func seen(f pb.Failure) string {
	switch f {
	case pb.Failure_FAILURE_TCP_TIMEOUT:
		return "no answer from"
	case pb.Failure_FAILURE_TCP_REFUSED:
		return "connection refused (RST) by"
	case pb.Failure_FAILURE_TCP_RESET:
		return "connection accepted and reset at once by"
	case pb.Failure_FAILURE_TCP_CLOSED_EARLY:
		return "connection accepted and closed at once by"
	case pb.Failure_FAILURE_TCP_HOST_UNREACHABLE:
		return "ICMP host unreachable for"
	case pb.Failure_FAILURE_TCP_NET_UNREACHABLE:
		return "ICMP network unreachable for"
	case pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED:
		return "ICMP administratively prohibited for"
	case pb.Failure_FAILURE_TCP_PORT_UNREACHABLE:
		return "ICMP port unreachable (a firewall's reject) for"
	case pb.Failure_FAILURE_DNS_BOGON:
		return "an address that cannot be public from"
	case pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return "DNSSEC validation fails at"
	case pb.Failure_FAILURE_DNS_CNAME_LOOP:
		return "a CNAME chain that comes back to itself from"
	case pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return "a CNAME that leads nowhere from"
	case pb.Failure_FAILURE_DNS_NXDOMAIN:
		return "“no such name” (NXDOMAIN) from"
	case pb.Failure_FAILURE_DNS_NODATA:
		return "no record of the type asked for from"
	case pb.Failure_FAILURE_DNS_SERVFAIL:
		return "SERVFAIL from"
	case pb.Failure_FAILURE_DNS_REFUSED:
		return "REFUSED from"
	case pb.Failure_FAILURE_DNS_TIMEOUT:
		return "no answer from"
	case pb.Failure_FAILURE_DNS_TRANSPORT_TLS:
		return "the query’s TLS fails at"
	case pb.Failure_FAILURE_DNS_TRANSPORT_HTTP:
		return "the query’s HTTP fails at"
	case pb.Failure_FAILURE_DNS_TRANSPORT_QUIC:
		return "the query’s QUIC fails at"
	default:
		return seenAbove(f)
	}
}

// seenAbove is seen for what comes above a connection.
func seenAbove(f pb.Failure) string {
	switch f {
	case pb.Failure_FAILURE_TLS_TIMEOUT:
		return "connection accepted, then no answer to the TLS handshake from"
	case pb.Failure_FAILURE_TLS_RESET:
		return "connection reset during the TLS handshake by"
	case pb.Failure_FAILURE_TLS_CLOSED:
		return "connection closed during the TLS handshake by"
	case pb.Failure_FAILURE_TLS_NOT_TLS:
		return "something else than TLS spoken by"
	case pb.Failure_FAILURE_TLS_ALERT:
		return "the handshake ended with an alert by"
	case pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED:
		return "no version of TLS in common with"
	case pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER:
		return "no cipher suite in common with"
	case pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME:
		return "the name is not known to"
	case pb.Failure_FAILURE_TLS_MALFORMED:
		return "a handshake that cannot be read from"
	case pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED:
		return "a client certificate demanded by"
	case pb.Failure_FAILURE_HTTP_TIMEOUT:
		return "connection accepted, then no whole response to the request from"
	case pb.Failure_FAILURE_HTTP_RESET:
		return "connection reset during the exchange by"
	case pb.Failure_FAILURE_HTTP_CLOSED:
		return "connection closed before the response was complete by"
	case pb.Failure_FAILURE_HTTP_MALFORMED:
		return "no usable response from"
	case pb.Failure_FAILURE_HTTP_TOO_LARGE:
		return "a response that is too large from"
	case pb.Failure_FAILURE_HTTP_REDIRECT_LOOP:
		return "redirects that lead nowhere from"
	default:
		return ShortFailure(f) + " from"
	}
}

// meaning draws the conclusion from a block; "" where the evidence allows none.
func meaning(b pb.BlockKind) string {
	switch b {
	case pb.BlockKind_BLOCK_KIND_DROP:
		return "packets are dropped on the way"
	case pb.BlockKind_BLOCK_KIND_REJECT_RST:
		return "something rejects the connection with a RST"
	case pb.BlockKind_BLOCK_KIND_REJECT_ICMP:
		return "something rejects the connection with an ICMP error"
	case pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT:
		return "something accepts the connection and ends it before a byte comes back"
	case pb.BlockKind_BLOCK_KIND_SNI_RESET:
		return "something resets connections for this name"
	case pb.BlockKind_BLOCK_KIND_SNI_DROP:
		return "something drops connections for this name"
	case pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP:
		return "full-sized packets are lost on the way"
	case pb.BlockKind_BLOCK_KIND_HTTP_DENY:
		return "the request is denied there"
	case pb.BlockKind_BLOCK_KIND_DNS:
		return "the resolver there cannot or will not answer for this name"
	case pb.BlockKind_BLOCK_KIND_UNSPECIFIED:
	}
	return ""
}

// failing says how it fails, where, how often it was tried, and who says so. Where it fails in several
// ways, each is said of the regions that saw it.
func failing(f *pb.Finding, fails []*sight) string {
	if len(f.GetFailures()) > 1 && len(fails) > 0 {
		return join(f.GetAddresses()) + " " + verb(f.GetAddresses(), "fails", "fail") + " in several ways: " + ways(fails) + inBrackets(attempts(fails))
	}
	text := seen(f.GetFailure()) + " " + join(f.GetAddresses())
	if f.GetFailure() == pb.Failure_FAILURE_HTTP_STATUS {
		text = cmp.Or(responses(fails), "a response without a status") + " from " + join(f.GetAddresses())
	}
	notes := slices.DeleteFunc([]string{attempts(fails), icmpSender(fails), errnoOnly(f, fails), inWords(fails), sole(fails)},
		func(note string) bool { return note == "" })
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	return text
}

// ways are the failures that were seen, each with its regions: "tcp_refused from eu, tcp_timeout from ap".
func ways(fails []*sight) string {
	regions := map[pb.Failure][]string{}
	for _, v := range fails {
		regions[v.failure] = append(regions[v.failure], v.agent.region.name)
	}
	texts := make([]string, 0, len(regions))
	for _, failure := range slices.Sorted(maps.Keys(regions)) {
		texts = append(texts, ShortFailure(failure)+" from "+join(unique(regions[failure])))
	}
	return strings.Join(texts, ", ")
}

// wordsOf are the short forms of failures.
func wordsOf(failures []pb.Failure) []string {
	words := make([]string, 0, len(failures))
	for _, f := range failures {
		words = append(words, ShortFailure(f))
	}
	return words
}

// attempts says how often the failing steps were tried: "2 attempts", "2–3 attempts".
func attempts(fails []*sight) string {
	if len(fails) == 0 {
		return ""
	}
	least, most := fails[0].at().GetAttempts(), int32(0)
	for _, v := range fails {
		least, most = min(least, v.at().GetAttempts()), max(most, v.at().GetAttempts())
	}
	switch {
	case most <= 0:
		return ""
	case least == most:
		return plural(int(most), "attempt")
	}
	return fmt.Sprintf("%d–%d attempts", least, most)
}

// icmpSender says who sent the first ICMP error, if all failed alike.
func icmpSender(fails []*sight) string {
	for _, v := range fails {
		if v.failure != fails[0].failure {
			return ""
		}
	}
	for _, v := range fails {
		if m := v.at().GetEvidence().GetIcmp(); m.GetSender() != "" {
			return "sent by " + shown(m.GetSender())
		}
	}
	return ""
}

// after puts words before a text, if there is one: agents may say less than they should.
func after(words, text string) string {
	if text == "" {
		return ""
	}
	return words + text
}

// inWords is what the first of the failing steps says where the failure leaves it open: which alert, what was
// spoken, which redirect.
func inWords(fails []*sight) string {
	if len(fails) == 0 {
		return ""
	}
	s := fails[0].at()
	t := s.GetEvidence().GetTls()
	switch s.GetFailure() {
	case pb.Failure_FAILURE_TLS_ALERT, pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER:
		switch {
		case t.GetVersion() != "":
			return "it would speak " + shown(t.GetVersion()) + after(" with ", shown(t.GetCipherSuite()))
		case t.GetAlert() != nil:
			return fmt.Sprintf("alert %d%s", t.GetAlert().GetCode(), after(", ", shown(t.GetAlert().GetName())))
		}
	case pb.Failure_FAILURE_TLS_NOT_TLS, pb.Failure_FAILURE_TLS_MALFORMED,
		pb.Failure_FAILURE_HTTP_MALFORMED, pb.Failure_FAILURE_HTTP_TOO_LARGE, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP:
		return shownUpTo(2*maxText, strings.Join(strings.Fields(s.GetEvidence().GetText()), " ")) // pages are indented
	default:
	}
	return ""
}

// errnoOnly says that a RST may have been an ICMP error: errno alone does not tell them apart (ip(7)).
func errnoOnly(f *pb.Finding, fails []*sight) string {
	read := slices.ContainsFunc(fails, func(v *sight) bool { return v.at().GetEvidence().GetErrorQueue() })
	if f.GetFailure() != pb.Failure_FAILURE_TCP_REFUSED || read {
		return ""
	}
	return "or an ICMP reject, which errno alone does not tell from a RST"
}

// inBrackets puts a note behind a word, if there is one.
func inBrackets(note string) string {
	if note == "" {
		return ""
	}
	return " (" + note + ")"
}

// passed says that controls passed beside the failing steps.
func passed(fails []*sight) string {
	if slices.ContainsFunc(fails, func(v *sight) bool { return v.control < 0 }) {
		return ""
	}
	return "; control from " + join(collect(fails, func(v *sight) string { return v.agent.region.name })) + " passed"
}

// connects says how fast the sights that went well connect, as far as it was recorded.
func connects(oks []*sight) string {
	var least, most time.Duration
	known := 0
	for _, v := range oks {
		if v.connect < 0 {
			continue
		}
		s := v.agent.steps[v.connect]
		d := s.GetEvidence().GetRtt().AsDuration()
		if d <= 0 {
			d = s.GetDuration().AsDuration()
		}
		if d <= 0 {
			continue
		}
		if known == 0 || d < least {
			least = d
		}
		most = max(most, d)
		known++
	}
	what := verb(regionNames(oks), " connects", " connect")
	if known == 0 {
		return what
	}
	return what + " in " + between(least, most)
}

// between is a range in milliseconds: "12–88 ms", "0.4 ms".
func between(least, most time.Duration) string {
	low, high := millis(least), millis(most)
	if low == high {
		return low + " ms"
	}
	return low + "–" + high + " ms"
}

// millis is d in milliseconds, with a decimal below ten.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}

// regionNames names the regions of sights.
func regionNames(sights []*sight) []string {
	return collect(sights, func(v *sight) string { return v.agent.region.name })
}
