package probe

import (
	"html"
	"regexp"
	"strconv"
	"strings"
	"sync"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxSigned is how much of a page is searched for an edge's signature, in bytes.
const maxSigned = 16 << 10

// cdn is a content delivery network, by the marks that it leaves on responses.
type cdn struct {
	provider string
	through  []mark // Any of them: the response came through it.
	made     []mark // Any of them: it made the response itself.
	site     []mark // Where its site is named.
	request  []mark // Where the request is named, the best first.
	causes   []cause
	source   source
}

// cause is what a network says of an error that it made, in its own terms.
type cause struct {
	when   mark
	says   string // Empty: what the mark found.
	source source // Empty: the network's.
}

// mark is a pattern in one part of a response. What its first group found, or else all of it, is what it
// says.
type mark struct {
	part    string // A header field's name in lower case, or one of the parts below.
	pattern func() *regexp.Regexp
}

// Parts of a response that are not header fields.
const (
	inBody   = ":body"
	inReason = ":reason"
	inStatus = ":status"
)

// source is the document that a row is from, and when it was read; or that there is none.
type source string

// unverified is the source of what is seen and told, and in no document of the network's own.
const unverified source = "unverified: seen in the wild, in no document of the network's own"

// in makes a mark. Its pattern is compiled when it is asked for: all of them would take an agent 10 ms and 1.4 MB
// at its start.
func in(part, pattern string) mark {
	return mark{part, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)` + pattern) })}
}

// edge says which network a response came through, by its marks, and what that says of an error of its own.
// Where there are several, the one that made the response goes first. Nil: none is known.
func edge(h *pb.HTTPEvidence, content []byte) *pb.Edge {
	p := newParts(h, content)
	var best *pb.Edge
	for _, n := range cdns {
		if e := n.look(p); e != nil && (best == nil || e.GetGenerated() && !best.GetGenerated()) {
			best = e
		}
	}
	return best
}

// look looks for the network's marks.
func (n *cdn) look(p parts) *pb.Edge {
	if !p.any(n.through) {
		return nil
	}
	e := &pb.Edge{Provider: n.provider, Generated: p.any(n.made), Source: string(n.source)}
	e.Site, e.RequestId = p.first(n.site), p.first(n.request)
	if !e.GetGenerated() {
		return e // What looks like a cause is the origin's.
	}
	for _, c := range n.causes {
		said, ok := p.find(c.when)
		if !ok {
			continue
		}
		if e.Cause = c.says; c.says == "" {
			e.Cause = said
		}
		if c.source != "" {
			e.Source = string(c.source)
		}
		break
	}
	return e
}

// parts are the parts of a response by name.
type parts map[string][]string

func newParts(h *pb.HTTPEvidence, content []byte) parts {
	body := strings.ToValidUTF8(string(content[:min(len(content), maxSigned)]), "")
	p := parts{
		inBody:   {html.UnescapeString(body)}, // Some write their references as entities.
		inReason: {h.GetReason()},
		inStatus: {strconv.Itoa(int(h.GetStatus()))},
	}
	for _, f := range h.GetHeaders() {
		name := strings.ToLower(f.GetName())
		p[name] = append(p[name], f.GetValue())
	}
	return p
}

// find looks for one mark and returns what it says.
func (p parts) find(m mark) (string, bool) {
	for _, s := range p[m.part] {
		if found := m.pattern().FindStringSubmatch(s); found != nil {
			return clean(strings.TrimSpace(found[min(1, len(found)-1)]), 256), true
		}
	}
	return "", false
}

// first returns what the first of the marks that is there says.
func (p parts) first(marks []mark) string {
	for _, m := range marks {
		if s, ok := p.find(m); ok {
			return s
		}
	}
	return ""
}

// any says whether one of the marks is there.
func (p parts) any(marks []mark) bool {
	for _, m := range marks {
		if _, ok := p.find(m); ok {
			return true
		}
	}
	return false
}
