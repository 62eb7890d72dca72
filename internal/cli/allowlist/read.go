package allowlist

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Parse reads an allowlist; path is what errors call it. The error is a *Problems.
func Parse(path string, data []byte) ([]Rule, error) {
	r := &reader{}
	rules := r.file(data)
	if len(r.problems) == 0 {
		return rules, nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return nil, &Problems{Path: path, List: r.problems}
}

// reader collects what is wrong while it reads.
type reader struct{ problems []Problem }

// wrong notes a problem where n begins.
func (r *reader) wrong(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, Problem{max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// file reads the whole document.
func (r *reader) file(data []byte) (rules []Rule) {
	doc := r.document(data)
	if doc == nil {
		return nil
	}
	top := r.fields(doc, "an allowlist", "version", "rules")
	if top == nil {
		return nil
	}
	if v := top["version"]; v == nil {
		r.wrong(doc, "there is no version; begin with version: 1")
	} else if v.ShortTag() != "!!int" || v.Value != "1" {
		r.wrong(v, "version %s is not known; it is 1", shown(v))
	}
	list := top["rules"]
	if list == nil {
		r.wrong(doc, "there are no rules; list them below rules:")
		return nil
	}
	items := r.items(list, "rules", "a rule, which begins with - target: HOST:PORT")
	if len(items) > maxRules {
		r.wrong(items[maxRules], "%d rules are too many; at most %d stand in one file", len(items), maxRules)
		return nil
	}
	first := map[string]int{}
	for _, item := range items {
		rule, ok := r.rule(item)
		if !ok {
			continue
		}
		if line, twice := first[rule.Name]; twice {
			r.wrong(item, "the rule %q is there twice, first in line %d; give one of them another name", rule.Name, line)
		} else {
			first[rule.Name] = rule.Line
		}
		rules = append(rules, rule)
	}
	return rules
}

// document is the one document of the file, nil if there is something wrong with it.
func (r *reader) document(data []byte) *yaml.Node {
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.wrong(&doc, "the file is empty; begin with version: 1")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	if err := d.Decode(&more); err == nil {
		r.wrong(&more, "a second document begins here; one file is one document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntaxLine is how the parser says where: in words alone.
var syntaxLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// syntax notes what the parser says.
func (r *reader) syntax(err error) {
	text := err.Error()
	found := syntaxLine.FindStringSubmatch(text)
	line, _ := strconv.Atoi(found[1])
	r.wrong(&yaml.Node{Line: line}, "this is not YAML: %s", strings.Join(strings.Fields(text[len(found[0]):]), " "))
}

// fields are the values of a mapping by key; what it should be, and which keys it may have.
func (r *reader) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.wrong(n, "%s is %s; it has %s", what, shown(n), list(known))
		return nil
	}
	fields, lines := map[string]*yaml.Node{}, map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch line, twice := lines[key.Value]; {
		case !slices.Contains(known, key.Value) || key.Kind != yaml.ScalarNode:
			r.wrong(key, "unknown key %s; %s has %s", shown(key), what, list(known))
		case twice:
			r.wrong(key, "%s is there twice, first in line %d; leave one of them", key.Value, line)
		default:
			fields[key.Value], lines[key.Value] = value, key.Line
		}
	}
	return fields
}

// items are the items of a list that is not empty.
func (r *reader) items(n *yaml.Node, what, each string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "%s is %s; it is a list, each item %s", what, shown(n), each)
		return nil
	}
	if len(n.Content) == 0 {
		r.wrong(n, "%s is empty; each item is %s", what, each)
	}
	return n.Content
}

// text is a string that is not empty.
func (r *reader) text(n *yaml.Node, what, example string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		r.wrong(n, "%s is %s; it is text, such as %s (quotes make text of anything)", what, shown(n), example)
	case strings.TrimSpace(n.Value) == "":
		r.wrong(n, "%s is empty; write it as %s", what, example)
	case strings.ContainsFunc(n.Value, func(c rune) bool { return c < 0x20 || c >= 0x7f && c < 0xa0 }):
		r.wrong(n, "%s holds a control character or a line break; write it as %s", what, example)
	default:
		return n.Value, true
	}
	return "", false
}

// rule reads one rule.
func (r *reader) rule(n *yaml.Node) (rule Rule, ok bool) {
	before := len(r.problems)
	fields := r.fields(n, "a rule", "name", "target", "protocol", "allow", "deny")
	if fields == nil {
		return rule, false
	}
	rule.Line = n.Line
	ask := r.question(n, fields)
	if name := fields["name"]; name != nil {
		rule.Name, _ = r.text(name, "name", "partners reach the API")
		if len(rule.Name) > maxName {
			r.wrong(name, "the name has %d bytes; at most %d", len(rule.Name), maxName)
		}
	} else if fields["target"] != nil {
		rule.Name = fields["target"].Value
	}
	if fields["allow"] == nil && fields["deny"] == nil {
		r.wrong(n, "the rule has neither allow nor deny; list at least one selector, such as allow: [us-east]")
	}
	byWay := map[pb.Reachability][]Selector{}
	r.allow(fields["allow"], byWay)
	r.deny(fields["deny"], byWay)
	for _, way := range []pb.Reachability{
		pb.Reachability_REACHABILITY_OPEN, pb.Reachability_REACHABILITY_BLOCKED,
		pb.Reachability_REACHABILITY_REFUSED, pb.Reachability_REACHABILITY_DROPPED,
	} {
		if selectors := byWay[way]; len(selectors) > 0 && ask != nil {
			rule.Doors = append(rule.Doors, r.door(n, way, selectors, ask))
		}
	}
	return rule, len(r.problems) == before
}

// asker makes the question of a target for what is expected of it.
type asker func(expect string) (*question.Question, error)

// question reads target and protocol; nil if something is wrong with them.
func (r *reader) question(n *yaml.Node, fields map[string]*yaml.Node) asker {
	protocol, fine := "tcp", true
	if p := fields["protocol"]; p != nil {
		if protocol, fine = r.text(p, "protocol", "tcp"); fine && !slices.Contains([]string{"tcp", "tls", "http"}, protocol) {
			r.wrong(p, "protocol %s is not known; it is tcp, tls or http", shown(p))
			fine = false
		}
	}
	if fields["target"] == nil {
		r.wrong(n, "the rule has no target; add one, such as target: api.example.com:443")
		return nil
	}
	target, ok := r.text(fields["target"], "target", "api.example.com:443")
	if !ok || !fine {
		return nil
	}
	ask := func(expect string) (*question.Question, error) { return ask(protocol, target, expect) }
	if _, err := ask("open"); err != nil {
		r.wrong(fields["target"], "target: %v", err)
		return nil
	}
	return ask
}

// ask makes a question in the words of the command line. For http the target may be a URL; otherwise
// the ports 443 and 8443 are asked by https, others by http, for /.
func ask(protocol, target, expect string) (*question.Question, error) {
	words := []string{target}
	if protocol == "http" && strings.Contains(target, "://") {
		return question.HTTP(words, question.HTTPFlags{Expect: expect})
	}
	q, err := question.TCP(words, question.TCPFlags{Expect: expect})
	switch {
	case err != nil || protocol == "tcp":
		return q, err
	case protocol == "tls":
		return question.TLS(words, question.TLSFlags{Expect: expect})
	}
	scheme := "http"
	if port := q.Spec.GetTcp().GetPort(); port == 443 || port == 8443 {
		scheme = "https"
	}
	return question.HTTP([]string{scheme + "://" + target + "/"}, question.HTTPFlags{Expect: expect})
}

// allow reads who should get in.
func (r *reader) allow(n *yaml.Node, to map[pb.Reachability][]Selector) {
	if n == nil {
		return
	}
	for _, item := range r.items(n, "allow", "a selector, such as us-east") {
		if s, ok := r.selector(item); ok {
			to[pb.Reachability_REACHABILITY_OPEN] = append(to[pb.Reachability_REACHABILITY_OPEN], s)
		}
	}
}

// deny reads who should not: selectors, or selectors with how they should be shut out.
func (r *reader) deny(n *yaml.Node, to map[pb.Reachability][]Selector) {
	if n == nil {
		return
	}
	for _, item := range r.items(n, "deny", "a selector, such as ap-south or { from: ap-south, as: drop }") {
		way, from := pb.Reachability_REACHABILITY_BLOCKED, item
		if item.Kind == yaml.MappingNode {
			fields := r.fields(item, "an item of deny", "from", "as")
			if from = fields["from"]; from == nil {
				r.wrong(item, "the item has no from; write it as { from: ap-south, as: drop }")
				continue
			}
			if as := fields["as"]; as != nil {
				way = r.manner(as)
			}
		}
		if s, ok := r.selector(from); ok {
			to[way] = append(to[way], s)
		}
	}
}

// manner reads how a door should be shut.
func (r *reader) manner(n *yaml.Node) pb.Reachability {
	switch word, _ := r.text(n, "as", "drop"); word {
	case "any", "":
		return pb.Reachability_REACHABILITY_BLOCKED
	case "refused":
		return pb.Reachability_REACHABILITY_REFUSED
	case "drop":
		return pb.Reachability_REACHABILITY_DROPPED
	}
	r.wrong(n, "as: %s is not known; a door is shut as any, refused or drop", shown(n))
	return pb.Reachability_REACHABILITY_BLOCKED
}

// selector reads one selector. An earlier measurement's agents are no place.
func (r *reader) selector(n *yaml.Node) (Selector, bool) {
	text, ok := r.text(n, "a selector", "us-east or Germany+AWS")
	if !ok {
		return Selector{}, false
	}
	s, err := fleet.ParseSelector(text)
	if err == nil && strings.EqualFold(strings.TrimSpace(text), "last") {
		err = errors.New("a file is verified from places, not from the last measurement")
	}
	if err != nil {
		r.wrong(n, "the selector %s: %v", shown(n), err)
		return Selector{}, false
	}
	return Selector{Selector: s, Text: text, Line: n.Line, Column: n.Column}, true
}

// door makes one expectation of a rule. What its selectors come to together has bounds too.
func (r *reader) door(n *yaml.Node, way pb.Reachability, selectors []Selector, ask asker) Door {
	words := make([]string, len(selectors))
	for i, s := range selectors {
		words[i] = s.String()
	}
	q, err := ask(word(way))
	if err == nil {
		q.From = strings.Join(words, ",")
		_, err = fleet.ParseSelector(q.From)
	}
	if err != nil {
		r.wrong(n, "the selectors of the rule together: %v; make two rules of it", err)
		return Door{}
	}
	return Door{Expect: way, Selectors: selectors, Question: q}
}

// word is how the command line calls what is expected.
func word(r pb.Reachability) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REACHABILITY_"))
}

// shown is a value in an error: what it is, or its first characters.
func shown(n *yaml.Node) string {
	switch n.Kind { //nolint:exhaustive // the rest is one line
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not supported"
	}
	if n.ShortTag() == "!!null" {
		return "empty"
	}
	if text := []rune(n.Value); len(text) > 48 {
		return fmt.Sprintf("%q…", string(text[:48]))
	}
	return fmt.Sprintf("%q", n.Value)
}

// list is words with commas and an "and".
func list(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
