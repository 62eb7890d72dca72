package allowlist

import (
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/yamlfile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Parse reads an allowlist; path is what errors call it. The error is a *yamlfile.Problems.
func Parse(path string, data []byte) ([]Rule, error) {
	r := &reader{}
	rules := r.file(data)
	if err := r.Err(path); err != nil {
		return nil, err
	}
	return rules, nil
}

// reader collects what is wrong while it reads.
type reader struct{ yamlfile.Reader }

// file reads the whole document.
func (r *reader) file(data []byte) (rules []Rule) {
	doc := r.Document(data)
	if doc == nil {
		return nil
	}
	top := r.Fields(doc, "an allowlist", "version", "rules")
	if top == nil {
		return nil
	}
	r.Version(doc, top["version"])
	list := top["rules"]
	if list == nil {
		r.Wrong(doc, "there are no rules; list them below rules:")
		return nil
	}
	items := r.Items(list, "rules", "a rule, which begins with - target: HOST:PORT")
	if len(items) > maxRules {
		r.Wrong(items[maxRules], "%d rules are too many; at most %d stand in one file", len(items), maxRules)
		return nil
	}
	first := map[string]int{}
	for _, item := range items {
		rule, ok := r.rule(item)
		if !ok {
			continue
		}
		if line, twice := first[rule.Name]; twice {
			r.Wrong(item, "the rule %q is there twice, first in line %d; give one of them another name", rule.Name, line)
		} else {
			first[rule.Name] = rule.Line
		}
		rules = append(rules, rule)
	}
	return rules
}

// rule reads one rule.
func (r *reader) rule(n *yaml.Node) (rule Rule, ok bool) {
	before := len(r.Problems)
	fields := r.Fields(n, "a rule", "name", "target", "protocol", "allow", "deny")
	if fields == nil {
		return rule, false
	}
	rule.Line = n.Line
	ask := r.question(n, fields)
	if name := fields["name"]; name != nil {
		rule.Name, _ = r.Text(name, "name", "partners reach the API")
		if len(rule.Name) > maxName {
			r.Wrong(name, "the name has %d bytes; at most %d", len(rule.Name), maxName)
		}
	} else if fields["target"] != nil {
		rule.Name = fields["target"].Value
	}
	if fields["allow"] == nil && fields["deny"] == nil {
		r.Wrong(n, "the rule has neither allow nor deny; list at least one selector, such as allow: [us-east]")
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
	return rule, len(r.Problems) == before
}

// asker makes the question of a target for what is expected of it.
type asker func(expect string) (*question.Question, error)

// question reads target and protocol; nil if something is wrong with them.
func (r *reader) question(n *yaml.Node, fields map[string]*yaml.Node) asker {
	protocol, fine := "tcp", true
	if p := fields["protocol"]; p != nil {
		if protocol, fine = r.Text(p, "protocol", "tcp"); fine && !slices.Contains([]string{"tcp", "tls", "http"}, protocol) {
			r.Wrong(p, "protocol %s is not known; it is tcp, tls or http", yamlfile.Shown(p))
			fine = false
		}
	}
	if fields["target"] == nil {
		r.Wrong(n, "the rule has no target; add one, such as target: api.example.com:443")
		return nil
	}
	target, ok := r.Text(fields["target"], "target", "api.example.com:443")
	if !ok || !fine {
		return nil
	}
	ask := func(expect string) (*question.Question, error) { return ask(protocol, target, expect) }
	if _, err := ask("open"); err != nil {
		r.Wrong(fields["target"], "target: %v", err)
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
	for _, item := range r.Items(n, "allow", "a selector, such as us-east") {
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
	for _, item := range r.Items(n, "deny", "a selector, such as ap-south or { from: ap-south, as: drop }") {
		way, from := pb.Reachability_REACHABILITY_BLOCKED, item
		if item.Kind == yaml.MappingNode {
			fields := r.Fields(item, "an item of deny", "from", "as")
			if from = fields["from"]; from == nil {
				r.Wrong(item, "the item has no from; write it as { from: ap-south, as: drop }")
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
	switch word, _ := r.Text(n, "as", "drop"); word {
	case "any", "":
		return pb.Reachability_REACHABILITY_BLOCKED
	case "refused":
		return pb.Reachability_REACHABILITY_REFUSED
	case "drop":
		return pb.Reachability_REACHABILITY_DROPPED
	}
	r.Wrong(n, "as: %s is not known; a door is shut as any, refused or drop", yamlfile.Shown(n))
	return pb.Reachability_REACHABILITY_BLOCKED
}

// selector reads one selector. An earlier measurement's agents are no place.
func (r *reader) selector(n *yaml.Node) (Selector, bool) {
	text, ok := r.Text(n, "a selector", "us-east or Germany+AWS")
	if !ok {
		return Selector{}, false
	}
	s, err := fleet.ParseSelector(text)
	if err == nil && strings.EqualFold(strings.TrimSpace(text), "last") {
		err = errors.New("a file is verified from places, not from the last measurement")
	}
	if err != nil {
		r.Wrong(n, "the selector %s: %v", yamlfile.Shown(n), err)
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
		r.Wrong(n, "the selectors of the rule together: %v; make two rules of it", err)
		return Door{}
	}
	return Door{Expect: way, Selectors: selectors, Question: q}
}

// word is how the command line calls what is expected.
func word(r pb.Reachability) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REACHABILITY_"))
}
