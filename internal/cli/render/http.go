package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxExcerpt is how many lines of a body are shown; the JSON has the beginning as it is.
const maxExcerpt = 12

// pageSaid is a response on a line: its status and version.
func pageSaid(h *pb.HTTPEvidence) string {
	if h.GetStatus() == 0 {
		return ""
	}
	version := Clean(h.GetVersion())
	if version == "HTTP/2.0" { // Its own name (RFC 9113, 1) is without a minor version.
		version = "HTTP/2"
	}
	return fmt.Sprintf("%d %s", h.GetStatus(), version)
}

// pageNotes are what is remarkable of a response: where it led, who made it, what was expected.
func pageNotes(s *pb.Step) (lines []string) {
	h := s.GetEvidence().GetHttp()
	for _, r := range h.GetRedirects() {
		line := fmt.Sprintf("redirect %d → %s", r.GetStatus(), Clean(r.GetLocation()))
		if r.GetAddress() != "" {
			line += " at " + Clean(r.GetAddress())
		}
		lines = append(lines, line)
	}
	if e := h.GetEdge(); e.GetProvider() != "" {
		lines = append(lines, edge(e, h))
	}
	for _, unmet := range h.GetUnmet() {
		lines = append(lines, "not as expected: "+Clean(unmet))
	}
	return lines
}

// edge says which network a response came through. Its site and the request's identifier are another
// one each time, and matter where the edge made the page.
func edge(e *pb.Edge, h *pb.HTTPEvidence) string {
	line := "through " + Clean(e.GetProvider())
	if e.GetGenerated() {
		line = fmt.Sprintf("%s itself made this %d", Clean(e.GetProvider()), h.GetStatus())
		if e.GetCause() != "" {
			line += ": " + Clean(e.GetCause())
		}
		for _, id := range []struct{ name, value string }{{"site", e.GetSite()}, {"request", e.GetRequestId()}} {
			if id.value != "" {
				line += ", " + id.name + " " + Clean(id.value)
			}
		}
	}
	return line
}

// exchange is an exchange in depth: the phases' times, the header fields, the body's beginning.
func exchange(s *pb.Step, phases string) section {
	h := s.GetEvidence().GetHttp()
	method := h.GetMethod()
	out := section{title: strings.TrimSpace("http "+Clean(s.GetAddress())+gap+Clean(method)+" "+Clean(h.GetUrl())) + gap + ending(s, pageSaid(h), true)}
	out.lines = append(out.lines, attempts(s)...)
	if h.GetStatus() == 0 {
		return out
	}
	out.lines = append(out.lines, phases)
	for _, f := range h.GetHeaders() {
		out.lines = append(out.lines, Clean(f.GetName()+": "+f.GetValue()))
	}
	if e := h.GetEdge(); e.GetProvider() != "" && !e.GetGenerated() && e.GetSite()+e.GetRequestId() != "" {
		out.lines = append(out.lines, strings.TrimSpace("edge: site "+Clean(e.GetSite())+" request "+Clean(e.GetRequestId())))
	}
	if h.GetBodySha256() == "" {
		return out
	}
	body := fmt.Sprintf("body: %d bytes, sha256 %s", h.GetBodySize(), Clean(h.GetBodySha256()))
	if encoded(h) {
		body = fmt.Sprintf("body: %d bytes as sent, sha256 of the decoded content %s", h.GetBodySize(), Clean(h.GetBodySha256()))
	}
	if h.GetBodyCut() {
		body = fmt.Sprintf("body: more than %d bytes, sha256 of these %s", h.GetBodySize(), Clean(h.GetBodySha256()))
	}
	return section{out.title, append(append(out.lines, body), excerpt(h.GetBodyExcerpt())...)}
}

// encoded says whether a body was sent in another form than it is shown.
func encoded(h *pb.HTTPEvidence) bool {
	return slices.ContainsFunc(h.GetHeaders(), func(f *pb.HeaderField) bool {
		return strings.EqualFold(f.GetName(), "Content-Encoding") && !strings.EqualFold(f.GetValue(), "identity")
	})
}

// excerpt is the beginning of a body.
func excerpt(s string) (lines []string) {
	for line := range strings.Lines(s) {
		if len(lines) == maxExcerpt {
			return append(lines, "| …")
		}
		lines = append(lines, "| "+Clean(strings.TrimRight(line, "\r\n")))
	}
	return lines
}

// phases are how long each phase took that led to an exchange: those of the steps at its address
// before it, and of the slowest query for the name.
func phases(r *pb.Result, s *pb.Step) string {
	var words []string
	add := func(name string, d time.Duration) { words = append(words, name+" "+human(d)) }
	var lookup, connect, handshake *pb.Step
	for _, one := range r.GetSteps() {
		if one == s {
			break
		}
		if one.GetRole() != s.GetRole() {
			continue
		}
		switch one.GetKind() {
		case pb.StepKind_STEP_KIND_DNS_QUERY:
			if lookup == nil || one.GetDuration().AsDuration() > lookup.GetDuration().AsDuration() {
				lookup = one
			}
		case pb.StepKind_STEP_KIND_TCP_CONNECT:
			if one.GetAddress() == s.GetAddress() {
				connect = one
			}
		case pb.StepKind_STEP_KIND_TLS_HANDSHAKE:
			if one.GetAddress() == s.GetAddress() {
				handshake = one
			}
		default:
		}
	}
	if lookup != nil {
		add("dns", lookup.GetDuration().AsDuration())
	}
	if connect != nil {
		add("connect", connectTime(connect))
	}
	if handshake != nil {
		add("tls", handshake.GetDuration().AsDuration())
	}
	h := s.GetEvidence().GetHttp()
	add("first byte", h.GetFirstByte().AsDuration())
	add("done", h.GetDone().AsDuration())
	return strings.Join(words, ", ")
}
