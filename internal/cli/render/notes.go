package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxSkew is how far an agent's clock may be off before people are told.
const maxSkew = 5 * time.Second

// notes are what is remarkable in a Result and cannot be seen from its sights: a section of one line
// for each, so that agents which saw the same share it.
func notes(r *pb.Result, deep bool) (out []section) {
	label := "note: "
	if deep {
		label = ""
	}
	note := func(s *pb.Step, text string) {
		if text != "" {
			out = append(out, section{title: label + subject(s) + text})
		}
	}
	for _, s := range r.GetSteps() {
		e := s.GetEvidence()
		switch s.GetRole() {
		case pb.Role_ROLE_TARGET:
			for _, line := range remarkable(s, deep) {
				note(s, line)
			}
		case pb.Role_ROLE_PUBLIC:
			for _, line := range moreReplies(s) {
				note(s, line)
			}
		case pb.Role_ROLE_AUTHORITY:
			for _, line := range moreReplies(s) {
				note(s, line)
			}
			if s.GetFailure() == pb.Failure_FAILURE_DNS_LAME && !deep {
				note(s, fmt.Sprintf("%s is lame for %s: %s", Clean(e.GetAuthority().GetServer()), Clean(e.GetAuthority().GetZone()), Clean(e.GetText())))
			}
		case pb.Role_ROLE_VARIANT:
			if (deep || telling(s, r.GetSteps())) && s.GetKind() != pb.StepKind_STEP_KIND_PATH_TRACE {
				note(s, variant(s))
			}
		case pb.Role_ROLE_UNSPECIFIED, pb.Role_ROLE_CONTROL, pb.Role_ROLE_REFERRAL, pb.Role_ROLE_REDIRECT:
		}
	}
	if more := unprobed(r); more != "" {
		out = append(out, section{title: label + more})
	}
	if off := r.GetClockOffset().AsDuration(); off.Abs() > maxSkew || deep && off != 0 {
		out = append(out, section{title: label + "this agent's clock is " + ahead(off)})
	}
	return out
}

// subject is what a note is about: the address, with an @ before a server's.
func subject(s *pb.Step) string {
	if s.GetAddress() == "" {
		return ""
	}
	if s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY {
		return "@" + Clean(s.GetAddress()) + gap
	}
	return Clean(s.GetAddress()) + gap
}

// ahead says how far a clock is off.
func ahead(off time.Duration) string {
	if off < 0 {
		return human(-off) + " slow"
	}
	return human(off) + " fast"
}

// remarkable are the notes of one step about the target. What deep shows anyway is left out there.
func remarkable(s *pb.Step, deep bool) (lines []string) {
	e := s.GetEvidence()
	lines = append(lines, moreReplies(s)...)
	if links := e.GetCnameChain(); broken(links) || deep {
		lines = append(lines, chain(links))
	}
	if d := e.GetDnssec(); d.GetReason() != pb.BogusReason_BOGUS_REASON_UNSPECIFIED {
		lines = append(lines, "DNSSEC: "+whyBogus(d))
	}
	if !deep {
		lines = append(lines, extendedErrors(counted(s))...)
		lines = append(lines, flaws(e.GetTls())...)
		lines = append(lines, reasons(s)...)
	}
	return append(lines, pageNotes(s)...)
}

// whyBogus says why validation fails, as far as that is to be seen.
func whyBogus(d *pb.DNSSECEvidence) string {
	why := strings.ReplaceAll(short(d.GetReason(), "BOGUS_REASON_"), "_", " ")
	if d.GetReason() == pb.BogusReason_BOGUS_REASON_UNKNOWN {
		why = "validation fails, and keys and dates do not show why"
	}
	if d.GetDetail() == "" {
		return why
	}
	return why + ": " + Clean(d.GetDetail())
}

// moreReplies says what each reply to one query was, if they differ: an injected reply comes first.
func moreReplies(s *pb.Step) []string {
	replies := s.GetEvidence().GetReplies()
	words := make([]string, 0, len(replies))
	different := false
	for _, r := range replies {
		said := Clean(r.GetRcode())
		if data := joinAnswers(dataOf(r, typeOrA(s.GetType()))); data != "" {
			said = data
		}
		if r.GetMismatched() {
			said += " (not a reply to this query)"
		}
		words = append(words, said)
		different = different || said != words[0]
	}
	// A cut reply, and then the whole one over TCP, is how it should be.
	if !different || replies[0].GetTruncated() || s.GetKind() != pb.StepKind_STEP_KIND_DNS_QUERY {
		return nil
	}
	what := fmt.Sprintf("%d replies to one query", len(replies))
	if s.GetAttempts() > 1 {
		what = fmt.Sprintf("%d replies to %d attempts", len(replies), s.GetAttempts())
	}
	return []string{what + ": " + strings.Join(words, ", then ")}
}

// broken says whether a link of a chain is.
func broken(links []*pb.CNAMELink) bool {
	for _, l := range links {
		if l.GetFailure() > pb.Failure_FAILURE_NONE {
			return true
		}
	}
	return false
}

// telling says whether a variant got through, and so tells what is in the way of the step beside it. One that
// went as that step did tells nothing.
func telling(s *pb.Step, all []*pb.Step) bool {
	var beside *pb.Step
	if i := int(s.GetBeside()); i >= 0 && i < len(all) {
		beside = all[i]
	}
	t, other := s.GetEvidence().GetTls(), beside.GetEvidence().GetTls()
	switch s.GetVariant() {
	case pb.Variant_VARIANT_OTHER_NAME, pb.Variant_VARIANT_NO_NAME, pb.Variant_VARIANT_SMALL_HELLO, pb.Variant_VARIANT_SMALL_SEGMENTS, pb.Variant_VARIANT_ORIGIN_NAME:
		if len(t.GetChain()) > 0 && len(other.GetChain()) > 0 && slices.Equal(s.GetFailures(), beside.GetFailures()) {
			return false
		}
		// A certificate or an alert is the server's too, and tells if the step beside got none.
		return stepMark(s) == markOK || len(t.GetChain()) > 0 || t.GetAlert() != nil && other.GetAlert() == nil
	case pb.Variant_VARIANT_PROFILE_OFFER: // It may be asked for no certificates; what was agreed on, tells.
		return (t.GetVersion() == "") != (other.GetVersion() == "")
	case pb.Variant_VARIANT_CHECKING_DISABLED, pb.Variant_VARIANT_RANDOM_LABEL, pb.Variant_VARIANT_OTHER_PORT, pb.Variant_VARIANT_OTHER_FAMILY:
		return stepMark(s) == markOK
	case pb.Variant_VARIANT_UNSPECIFIED, pb.Variant_VARIANT_IDENTITY, pb.Variant_VARIANT_KEYS, pb.Variant_VARIANT_ANSWERED_ADDRESS, pb.Variant_VARIANT_CNAME_LINK:
	}
	return false
}

// variant says how the same went with something changed.
func variant(s *pb.Step) string {
	with := map[pb.Variant]string{
		pb.Variant_VARIANT_OTHER_NAME: "with another server_name", pb.Variant_VARIANT_NO_NAME: "without server_name",
		pb.Variant_VARIANT_SMALL_HELLO: "with a small ClientHello", pb.Variant_VARIANT_SMALL_SEGMENTS: "with small TCP segments",
		pb.Variant_VARIANT_CHECKING_DISABLED: "without validation (CD)", pb.Variant_VARIANT_RANDOM_LABEL: "for a name that should not exist",
		pb.Variant_VARIANT_IDENTITY: "identity", pb.Variant_VARIANT_KEYS: "keys of the zone",
		pb.Variant_VARIANT_ANSWERED_ADDRESS: "at the address that was answered", pb.Variant_VARIANT_OTHER_PORT: "at another port",
		pb.Variant_VARIANT_CNAME_LINK: "the link", pb.Variant_VARIANT_PROFILE_OFFER: "with the profile's ClientHello", pb.Variant_VARIANT_ORIGIN_NAME: "with the origin's own server_name", pb.Variant_VARIANT_OTHER_FAMILY: "in the other family (" + Clean(s.GetType()) + ")",
	}[s.GetVariant()]
	if s.GetVariant() == pb.Variant_VARIANT_KEYS || s.GetVariant() == pb.Variant_VARIANT_CNAME_LINK {
		with += " " + Clean(s.GetName()) + " " + Clean(s.GetType())
	}
	if s.GetVariant() == pb.Variant_VARIANT_OTHER_NAME || s.GetVariant() == pb.Variant_VARIANT_IDENTITY {
		with += " (" + Clean(s.GetName()) + ")"
	}
	said := Clean(s.GetEvidence().GetTls().GetVersion())
	if s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY {
		said = joinAnswers(answersOf(s, s.GetType()))
	}
	if with == "" {
		return ""
	}
	return with + ": " + ending(s, said, false)
}
