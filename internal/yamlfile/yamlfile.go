// Package yamlfile reads files of YAML that people write by hand: every error names its line and says what to do,
// and nothing in a file goes unread. Its caller walks the document by the methods of a Reader.
package yamlfile

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
)

// maxProblems bounds the lines of an error.
const maxProblems = 20

// Problem is something that is wrong with a file.
type Problem struct {
	// Line and Column say where, from 1.
	Line, Column int
	// Text says what, and what to do.
	Text string
}

// Problems are what is wrong with a file: an error of at most 20 lines, "FILE:LINE:COL: what".
type Problems struct {
	// Path is the file's.
	Path string
	// List is in the order of the file.
	List []Problem
}

// Error has a line for each problem.
func (p *Problems) Error() string { return strings.Join(p.Lines(), "\n") }

// Lines are the lines.
func (p *Problems) Lines() (lines []string) {
	for i, one := range p.List {
		if i == maxProblems-1 && len(p.List) > maxProblems {
			lines = append(lines, fmt.Sprintf("%s:%d:%d: and %d more problems from here on", p.Path, one.Line, one.Column, len(p.List)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", p.Path, one.Line, one.Column, one.Text))
	}
	return lines
}

// Reader collects what is wrong while a file is read.
type Reader struct {
	// Problems are in the order in which they were found.
	Problems []Problem
}

// Err is what is wrong with the file, in its order: a *Problems, or nil. Path is what it calls the file.
func (r *Reader) Err(path string) error {
	if len(r.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Problems{Path: path, List: r.Problems}
}

// Version holds the version of a document against the only one that there is.
func (r *Reader) Version(doc, v *yaml.Node) {
	if v == nil {
		r.Wrong(doc, "there is no version; begin with version: 1")
	} else if v.ShortTag() != "!!int" || v.Value != "1" {
		r.Wrong(v, "version %s is not known; it is 1", Shown(v))
	}
}

// Wrong notes a problem where n begins.
func (r *Reader) Wrong(n *yaml.Node, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// Document is the one document of the file, nil if there is something wrong with it.
func (r *Reader) Document(data []byte) *yaml.Node {
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.Wrong(&doc, "the file is empty; begin with version: 1")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	if err := d.Decode(&more); err == nil {
		r.Wrong(&more, "a second document begins here; one file is one document")
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
func (r *Reader) syntax(err error) {
	text := err.Error()
	found := syntaxLine.FindStringSubmatch(text)
	line, _ := strconv.Atoi(found[1])
	r.Wrong(&yaml.Node{Line: line}, "this is not YAML: %s", strings.Join(strings.Fields(text[len(found[0]):]), " "))
}

// Fields are the values of a mapping by key; what it should be, and which keys it may have.
func (r *Reader) Fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.Wrong(n, "%s is %s; it has %s", what, Shown(n), list(known))
		return nil
	}
	fields, lines := map[string]*yaml.Node{}, map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch line, twice := lines[key.Value]; {
		case !slices.Contains(known, key.Value) || key.Kind != yaml.ScalarNode:
			r.Wrong(key, "unknown key %s; %s has %s", Shown(key), what, list(known))
		case twice:
			r.Wrong(key, "%s is there twice, first in line %d; leave one of them", key.Value, line)
		default:
			fields[key.Value], lines[key.Value] = value, key.Line
		}
	}
	return fields
}

// Items are the items of a list that is not empty.
func (r *Reader) Items(n *yaml.Node, what, each string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.Wrong(n, "%s is %s; it is a list, each item %s", what, Shown(n), each)
		return nil
	}
	if len(n.Content) == 0 {
		r.Wrong(n, "%s is empty; each item is %s", what, each)
	}
	return n.Content
}

// Text is a string that is not empty.
func (r *Reader) Text(n *yaml.Node, what, example string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		r.Wrong(n, "%s is %s; it is text, such as %s (quotes make text of anything)", what, Shown(n), example)
	case strings.TrimSpace(n.Value) == "":
		r.Wrong(n, "%s is empty; write it as %s", what, example)
	case strings.ContainsFunc(n.Value, func(c rune) bool { return c < 0x20 || c >= 0x7f && c < 0xa0 }):
		r.Wrong(n, "%s holds a control character or a line break; write it as %s", what, example)
	default:
		return n.Value, true
	}
	return "", false
}

// Shown is a value in an error: what it is, or its first characters.
func Shown(n *yaml.Node) string {
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
