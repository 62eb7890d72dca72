package edgeresponse

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// request checks a request that the function was given and returned.
func (v *validator) request(o object) {
	if !v.requestEvent() {
		v.breaks("request-in-response-event", "$", "a function for %s returns the response; nothing can be changed about the request any more", v.event)
		return
	}
	known := []string{"clientIp", "headers", "method", "querystring", "uri", "body", "origin"}
	if v.functions() {
		known = []string{"headers", "method", "querystring", "uri", "cookies"}
	}
	v.unknown(o, known)
	for _, name := range []string{"uri", "method", "headers"} {
		if _, there := o[name]; !there {
			v.breaks("request-fields", "$", "%q is missing, which every request has", name)
		}
	}
	v.readOnlyText(o, "method", "method-read-only")
	v.readOnlyText(o, "clientIp", "client-ip")
	v.address(o)
	var fields []field
	if headers, ok := v.objectAt(o, "$", "headers", "type"); ok {
		fields = v.headers(headers, "$.headers")
	}
	v.forbidden(fields, false)
	if v.functions() {
		v.pairs(o, "cookies")
		return
	}
	v.requestBody(o)
	v.origin(o, fields)
}

// readOnlyText is a string that the function must leave alone.
func (v *validator) readOnlyText(o object, name, rule string) {
	s, ok := v.stringAt(o, "$", name, "type")
	old, known := v.original[name].(string)
	if ok && known && s != old {
		v.breaks(rule, member("$", name), "is read-only, and the function changed it from %q to %q", cut(old), cut(s))
	}
}

// maxURI is the length that URI and query string together stay below, in characters.
const maxURI = 8192

// address checks the URI and the query string.
func (v *validator) address(o object) {
	uri, ok := v.stringAt(o, "$", "uri", "type")
	if ok && !strings.HasPrefix(uri, "/") {
		v.breaks("uri", "$.uri", "must begin with a slash, and is %q", cut(uri))
	}
	if ok && strings.ContainsFunc(uri, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(" ?#", r) }) {
		v.breaks("uri-characters", "$.uri", "%q has a space, a control, ? or #; percent-encode it", cut(uri))
	}
	if v.functions() {
		v.pairs(o, "querystring")
		return
	}
	query, ok := v.stringAt(o, "$", "querystring", "type")
	if ok && strings.ContainsFunc(query, func(r rune) bool { return unicode.IsControl(r) || r == ' ' || r == '#' }) {
		v.breaks("querystring", "$.querystring", "%q has a space, a control or #; percent-encode it", cut(query))
	}
	if n := utf8.RuneCountInString(uri) + len("?") + utf8.RuneCountInString(query); n >= maxURI {
		v.breaks("uri-size", "$.uri", "URI and query string have %d characters, and must have fewer than %d", n, maxURI)
	}
}

// requestBody checks what is to take the place of a request's body.
func (v *validator) requestBody(o object) {
	body, ok := v.objectAt(o, "$", "body", "request-body")
	if !ok {
		return
	}
	v.oneOf(body, "$.body", "action", "request-body", "read-only", "replace")
	v.oneOf(body, "$.body", "encoding", "request-body", "text", "base64")
	data, ok := v.stringAt(body, "$.body", "data", "request-body")
	if !ok || body["action"] != "replace" {
		return
	}
	limit := map[string]int{"text": mb, "base64": mb * 133 / 100}
	if v.viewer() {
		limit = map[string]int{"text": 40 * kb, "base64": 40 * kb * 133 / 100}
	}
	encoding, _ := body["encoding"].(string)
	if encoding == "base64" {
		v.base64("$.body.data", data, "request-body")
	}
	if most := limit[encoding]; most > 0 && len(data) > most {
		v.breaks("request-body-size", "$.body.data", "has %d bytes, and %d are allowed as %s for %s", len(data), most, encoding, v.event)
	}
}

// origin checks where the request is to go.
func (v *validator) origin(o object, fields []field) {
	origin, ok := v.objectAt(o, "$", "origin", "type")
	if !ok {
		return
	}
	if v.event != OriginRequest {
		v.breaks("origin-needs-event", "$.origin", "only a function for %s has an origin to change", OriginRequest)
	}
	custom, isCustom := v.objectAt(origin, "$.origin", "custom", "type")
	s3, isS3 := v.objectAt(origin, "$.origin", "s3", "type")
	if isCustom == isS3 {
		v.breaks("origin-one", "$.origin", `must have exactly one of "custom" and "s3"`)
	}
	if isCustom {
		v.customOrigin(custom)
		v.originHeaders(custom, "$.origin.custom", fields)
	}
	if isS3 {
		v.s3Origin(s3)
		v.originHeaders(s3, "$.origin.s3", fields)
	}
}

// originHeaders checks the header fields that are added for the origin.
func (v *validator) originHeaders(o object, at string, fields []field) {
	headers, ok := v.objectAt(o, at, "customHeaders", "origin-headers")
	if !ok {
		return
	}
	there := map[string]bool{}
	for _, f := range fields {
		there[f.name] = true
	}
	for _, f := range v.headers(headers, at+".customHeaders") {
		switch {
		case isDisallowed(f.name):
			v.breaks("header-disallowed", f.at, "no function may add %q", f.name)
		case there[f.name]:
			v.breaks("origin-headers", f.at, "%q is among the request's headers already", f.name)
		}
	}
}

// number checks a number in a range, if it is there, and returns it; 0 if it is not known.
func (v *validator) number(o object, at, name, rule string, fits func(int64) bool, wants string) int64 {
	x, there := o[name]
	if !there {
		return 0
	}
	n, ok := integer(x)
	if !ok || !fits(n) {
		v.breaks(rule, member(at, name), "must be %s, and is %s", wants, what(x))
		return 0
	}
	return n
}

// within says whether a number is in a range, both ends included.
func within(low, high int64) (func(int64) bool, string) {
	return func(n int64) bool { return n >= low && n <= high }, fmt.Sprintf("a whole number from %d to %d", low, high)
}
