package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// exchanges are the steps of a Result that looked at the target, each in depth.
func exchanges(r *pb.Result) (out []section) {
	for _, s := range r.GetSteps() {
		if s.GetRole() != pb.Role_ROLE_TARGET && s.GetRole() != pb.Role_ROLE_REDIRECT {
			continue
		}
		switch s.GetKind() {
		case pb.StepKind_STEP_KIND_DNS_QUERY:
			out = append(out, lookup(s))
		case pb.StepKind_STEP_KIND_TCP_CONNECT:
			out = append(out, connectInDepth(s))
		case pb.StepKind_STEP_KIND_TLS_HANDSHAKE:
			out = append(out, handshakeInDepth(s))
		case pb.StepKind_STEP_KIND_HTTP_EXCHANGE:
			out = append(out, exchange(s, phases(r, s)))
		case pb.StepKind_STEP_KIND_UNSPECIFIED, pb.StepKind_STEP_KIND_PATH_TRACE, pb.StepKind_STEP_KIND_TLS_ENUMERATION:
		}
	}
	return out
}

// connectTime is how long a connection took to be accepted: the step's duration has the time in it
// that was spent waiting for what comes after.
func connectTime(s *pb.Step) time.Duration {
	if rtt := s.GetEvidence().GetRtt(); rtt != nil && stepMark(s) == markOK {
		return rtt.AsDuration()
	}
	return s.GetDuration().AsDuration()
}

// icmp is an ICMP error: type, code and who sent it.
func icmp(i *pb.ICMP) string {
	if i == nil {
		return ""
	}
	out := fmt.Sprintf("icmp %d/%d", i.GetType(), i.GetCode())
	if i.GetSender() != "" {
		out += " from " + Clean(i.GetSender())
	}
	return out
}

// connectInDepth is a connect with its ends, its attempts, and what came unasked.
func connectInDepth(s *pb.Step) section {
	e := s.GetEvidence()
	words := []string{"tcp " + Clean(s.GetAddress())}
	if e.GetLocalAddress() != "" {
		words = append(words, "from "+Clean(e.GetLocalAddress()))
	}
	words = append(words, stepMark(s).String()+" "+strings.TrimSpace(failures(s)+" "+human(connectTime(s))))
	words = append(words, when(e.GetIcmp() != nil, icmp(e.GetIcmp()))...)
	words = append(words, when(e.GetErrno() != "", Clean(e.GetErrno()))...)
	out := section{title: strings.Join(words, gap), lines: attempts(s)}
	if banner := e.GetBanner(); len(banner) > 0 {
		out.lines = append(out.lines, "it says first: "+Clean(strings.TrimRight(string(banner), "\r\n")))
	}
	return out
}

// attempts are the attempts of a step that failed, and the last error in words.
func attempts(s *pb.Step) (lines []string) {
	for i, a := range s.GetEvidence().GetTries() {
		lines = append(lines, fmt.Sprintf("attempt %d: %s after %s", i+1, aggregate.ShortFailure(a.GetFailure()), human(a.GetDuration().AsDuration())))
	}
	if text := s.GetEvidence().GetText(); text != "" {
		lines = append(lines, Clean(text))
	}
	return lines
}

// path is the way to an address, hop by hop, and a sentence about where it stops.
func path(s *pb.Step) section {
	p := s.GetEvidence().GetPath()
	out := section{title: "path to " + Clean(s.GetAddress()) + ": " + whereItStops(s)}
	var rows [][]string
	for hops := p.GetHops(); len(hops) > 0; {
		h, silent := hops[0], 0
		for silent < len(hops) && hops[silent].GetAddress() == "" {
			silent++
		}
		switch silent {
		case 0:
			rows = append(rows, []string{fmt.Sprintf("%2d", h.GetTtl()), Clean(h.GetAddress()), human(h.GetRtt().AsDuration()), hopSays(h.GetIcmp())})
		case 1:
			rows = append(rows, []string{fmt.Sprintf("%2d", h.GetTtl()), "*"})
		default:
			rows = append(rows, []string{fmt.Sprintf("%2d-%d", h.GetTtl(), hops[silent-1].GetTtl()), "*"})
		}
		hops = hops[max(1, silent):]
	}
	out.lines = append(out.lines, grid(rows)...)
	return out
}

// hopSays is what a hop answered, if it is not that the time was exceeded (RFC 792; RFC 4443, 3.3),
// which is what a hop on the way says.
func hopSays(i *pb.ICMP) string {
	if i == nil || i.GetType() == 11 && i.GetCode() == 0 || i.GetType() == 3 && i.GetCode() == 0 && strings.Contains(i.GetSender(), ":") {
		return ""
	}
	return fmt.Sprintf("icmp %d/%d", i.GetType(), i.GetCode())
}

// whereItStops is the agent's own sentence about a path, or one from what it saw.
func whereItStops(s *pb.Step) string {
	e := s.GetEvidence()
	switch p := e.GetPath(); {
	case e.GetText() != "":
		return Clean(e.GetText())
	case p.GetRejector() != "":
		return "it is rejected by " + Clean(p.GetRejector())
	case p.GetReached():
		return "it is reached"
	case p.GetLastHop() > 0:
		return fmt.Sprintf("nothing answers beyond hop %d", p.GetLastHop())
	}
	return strings.TrimSpace("no hop answers " + failures(s))
}
