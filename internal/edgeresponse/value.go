package edgeresponse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// object is a JSON object.
type object = map[string]any

// node is an object of the value, and where it stands there.
type node struct {
	object
	at string
}

// path is the path of a member.
func (n node) path(name string) string { return member(n.at, name) }

// parse reads the value. What is not JSON is a broken rule, and nothing else can be said about it.
func (v *validator) parse(data []byte) (any, bool) {
	if !utf8.Valid(data) {
		line, column := place(data, int64(len(data)-len(bytes.TrimLeftFunc(data, func(r rune) bool { return r != utf8.RuneError }))))
		v.breaks("utf-8", "$", "line %d, column %d: not UTF-8", line, column)
		return nil, false
	}
	root, err := decode(data)
	if err != nil {
		v.breaks("json", "$", "%s", err)
		return nil, false
	}
	return root, true
}

// decode reads one JSON document, and nothing after it.
func decode(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var root any
	err := d.Decode(&root)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return root, nil
		}
		line, column := place(data, d.InputOffset())
		return nil, fmt.Errorf("line %d, column %d: there is more after the value", line, column)
	}
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; a function that returns nothing fails")
	}
	at := int64(len(data))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = syntax.Offset
	}
	line, column := place(data, at)
	return nil, fmt.Errorf("line %d, column %d: not JSON: %w", line, column, err)
}

// place is the line and the column of an offset, from 1.
func place(data []byte, offset int64) (line, column int) {
	before := data[:min(offset, int64(len(data)))]
	line = 1 + bytes.Count(before, []byte("\n"))
	return line, max(1, len(before)-1-bytes.LastIndexByte(before, '\n'))
}

// readOriginal keeps the request or response that the function was given: the event of either runtime,
// or the object alone.
// An original of another event is refused rather than compared: most read-only rules would then seem to be broken.
func (v *validator) readOriginal(data []byte) error {
	if data == nil {
		return nil
	}
	root, err := decode(data)
	if err != nil {
		return fmt.Errorf("the original: %w", err)
	}
	event, ok := root.(object)
	if !ok {
		return errors.New("the original: not an event, a request or a response")
	}
	if records, ok := event["Records"].([]any); ok && len(records) == 1 {
		record, _ := records[0].(object)
		event, _ = record["cf"].(object)
		if own := text(event, "config", "eventType"); own != "" && own != v.event {
			return fmt.Errorf("the original is an event %s, and not %s", own, v.event)
		}
	} else if own := text(event, "context", "eventType"); own != "" && own != v.event {
		return fmt.Errorf("the original is an event %s, and not %s", own, v.event)
	}
	part := "response"
	if v.requestEvent() {
		part = "request"
	}
	if inner, ok := event[part].(object); ok {
		event = inner
	}
	if _, ok := event["headers"].(object); !ok {
		return fmt.Errorf("the original: no event with a %s, and no %s with headers", part, part)
	}
	v.original = event
	return nil
}

// text is the string at a path of names, or "".
func text(o object, path ...string) string {
	for _, name := range path[:len(path)-1] {
		o, _ = o[name].(object)
	}
	s, _ := o[path[len(path)-1]].(string)
	return s
}

// guess says what ran the function, by what its value looks like. The origin's events are Lambda@Edge's
// alone.
// The two runtimes differ in every header: Lambda@Edge has arrays of key and value, CloudFront Functions objects
// with a value. To check one by the rules of the other would break a rule in each line, and name none that is broken.
func (v *validator) guess(root any) string {
	o, _ := root.(object)
	if !v.viewer() {
		return LambdaEdge
	}
	headers, _ := o["headers"].(object)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		switch headers[name].(type) {
		case object:
			return CloudFrontFunctions
		case []any:
			return LambdaEdge
		}
	}
	_, query := o["querystring"].(object)
	_, cookies := o["cookies"].(object)
	_, status := o["status"]
	_, code := o["statusCode"]
	if query || cookies || code && !status {
		return CloudFrontFunctions
	}
	return LambdaEdge
}

// plain are names that need no quotes in a path.
var plain = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// member is the path of a member of an object (RFC 9535, 2.7).
func member(at, name string) string {
	if plain.MatchString(name) {
		return at + "." + name
	}
	return at + "['" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(cut(name)) + "']"
}

// element is the path of an element of an array.
func element(at string, i int) string { return fmt.Sprintf("%s[%d]", at, i) }

// maxShown is how much of a string is shown.
const maxShown = 80

// cut shortens what is shown of a string.
func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// what says what a value is, for people.
func what(x any) string {
	switch x := x.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprintf("the boolean %t", x)
	case json.Number:
		return "the number " + cut(x.String())
	case string:
		return fmt.Sprintf("the string %q", cut(x))
	case []any:
		return "an array"
	}
	return "an object"
}

// listed is words with commas between them.
func listed(words []string) string { return strings.Join(words, ", ") }

// stringAt is the string at a member, if there is one. Another type breaks the rule.
func (v *validator) stringAt(n node, name, rule string) (string, bool) {
	x, there := n.object[name]
	if !there {
		return "", false
	}
	s, ok := x.(string)
	if !ok {
		v.breaks(rule, n.path(name), "must be a string, and is %s", what(x))
	}
	return s, ok
}

// nodeAt is the object at a member, if there is one. Another type breaks the rule.
func (v *validator) nodeAt(n node, name, rule string) (node, bool) {
	x, there := n.object[name]
	if !there {
		return node{}, false
	}
	inner, ok := x.(object)
	if !ok {
		v.breaks(rule, n.path(name), "must be an object, and is %s", what(x))
	}
	return node{inner, n.path(name)}, ok
}

// oneOf wants one of several strings at a member, if there is one.
func (v *validator) oneOf(n node, name, rule string, words ...string) {
	s, ok := v.stringAt(n, name, rule)
	if ok && !slices.Contains(words, s) {
		v.breaks(rule, n.path(name), "must be one of %s, and is %q", listed(words), cut(s))
	}
}

// numbers are those that a rule allows.
type numbers struct {
	rule  string
	fits  func(int64) bool
	wants string // for people
}

// number checks the number at a member, if there is one, and returns it; 0 if it is not known.
func (v *validator) number(n node, name string, allowed numbers) int64 {
	x, there := n.object[name]
	if !there {
		return 0
	}
	i, ok := integer(x)
	if !ok || !allowed.fits(i) {
		v.breaks(allowed.rule, n.path(name), "must be %s, and is %s", allowed.wants, what(x))
		return 0
	}
	return i
}

// integer reads a whole number.
func integer(x any) (int64, bool) {
	n, ok := x.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}

// members are the names of an object, sorted: reports are the same each time.
func members(o object) []string { return slices.Sorted(maps.Keys(o)) }
