package edgeresponse

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// request checks a request that the function was given and returned.
func (v *validator) request(n node) {
	if !v.requestEvent() {
		v.breaks("request-in-response-event", "$", "a function for %s returns the response; nothing can be changed about the request any more", v.event)
		return
	}
	known := []string{"clientIp", "headers", "method", "querystring", "uri", "body", "origin"}
	if v.functions() {
		known = []string{"headers", "method", "querystring", "uri", "cookies"}
	}
	v.unknown(n, known)
	for _, name := range []string{"uri", "method", "headers"} {
		if _, there := n.object[name]; !there {
			v.breaks("request-fields", "$", "%q is missing, which every request has", name)
		}
	}
	v.readOnlyText(n, "method", "method-read-only")
	v.readOnlyText(n, "clientIp", "client-ip")
	v.address(n)
	var fields []field
	if headers, ok := v.nodeAt(n, "headers", "type"); ok {
		fields = v.headers(headers)
	}
	v.forbidden(fields, false)
	if v.functions() {
		v.pairs(n, "cookies")
		return
	}
	v.requestBody(n)
	v.origin(n, fields)
}

// readOnlyText is a string that the function must leave alone.
func (v *validator) readOnlyText(n node, name, rule string) {
	s, ok := v.stringAt(n, name, "type")
	old, known := v.original[name].(string)
	if ok && known && s != old {
		v.breaks(rule, n.path(name), "is read-only, and the function changed it from %q to %q", cut(old), cut(s))
	}
}

// maxURI is the length that URI and query string together stay below, in characters.
const maxURI = 8192

// address checks the URI and the query string.
func (v *validator) address(n node) {
	uri, ok := v.stringAt(n, "uri", "type")
	if ok && !strings.HasPrefix(uri, "/") {
		v.breaks("uri", "$.uri", "must begin with a slash, and is %q", cut(uri))
	}
	if ok && strings.ContainsFunc(uri, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(" ?#", r) }) {
		v.breaks("uri-characters", "$.uri", "%q has a space, a control, ? or #; percent-encode it", cut(uri))
	}
	if v.functions() {
		v.pairs(n, "querystring")
		return
	}
	query, ok := v.stringAt(n, "querystring", "type")
	if ok && strings.ContainsFunc(query, func(r rune) bool { return unicode.IsControl(r) || r == ' ' || r == '#' }) {
		v.breaks("querystring", "$.querystring", "%q has a space, a control or #; percent-encode it", cut(query))
	}
	if length := utf8.RuneCountInString(uri) + len("?") + utf8.RuneCountInString(query); length >= maxURI {
		v.breaks("uri-size", "$.uri", "URI and query string have %d characters, and must have fewer than %d", length, maxURI)
	}
}

// requestBody checks what is to take the place of a request's body.
func (v *validator) requestBody(n node) {
	body, ok := v.nodeAt(n, "body", "request-body")
	if !ok {
		return
	}
	v.oneOf(body, "action", "request-body", "read-only", "replace")
	v.oneOf(body, "encoding", "request-body", "text", "base64")
	data, ok := v.stringAt(body, "data", "request-body")
	if !ok || body.object["action"] != "replace" {
		return
	}
	// Base64 has four bytes for three: the quotas page says 1.33 MB and 53.2 KB.
	limit := map[string]int{"text": mb, "base64": mb * 133 / 100}
	if v.viewer() {
		limit = map[string]int{"text": 40 * kb, "base64": 40 * kb * 133 / 100}
	}
	encoding, _ := body.object["encoding"].(string)
	if encoding == "base64" {
		v.base64("$.body.data", data, "request-body")
	}
	if most := limit[encoding]; most > 0 && len(data) > most {
		v.breaks("request-body-size", "$.body.data", "has %d bytes, and %d are allowed as %s for %s", len(data), most, encoding, v.event)
	}
}

// origin checks where the request is to go.
func (v *validator) origin(n node, fields []field) {
	origin, ok := v.nodeAt(n, "origin", "type")
	if !ok {
		return
	}
	if v.event != OriginRequest {
		v.breaks("origin-needs-event", "$.origin", "only a function for %s has an origin to change", OriginRequest)
	}
	custom, isCustom := v.nodeAt(origin, "custom", "type")
	s3, isS3 := v.nodeAt(origin, "s3", "type")
	if isCustom == isS3 { // Both, or neither.
		v.breaks("origin-one", "$.origin", `must have exactly one of "custom" and "s3"`)
	}
	if isCustom {
		v.customOrigin(custom)
		v.originHeaders(custom, fields)
	}
	if isS3 {
		v.s3Origin(s3)
		v.originHeaders(s3, fields)
	}
}

// originHeaders checks the header fields that are added for the origin.
func (v *validator) originHeaders(n node, fields []field) {
	headers, ok := v.nodeAt(n, "customHeaders", "origin-headers")
	if !ok {
		return
	}
	there := map[string]bool{}
	for _, f := range fields {
		there[f.name] = true
	}
	for _, f := range v.headers(headers) {
		switch {
		case isDisallowed(f.name):
			v.breaks("header-disallowed", f.at, "no function may add %q", f.name)
		case there[f.name]:
			v.breaks("origin-headers", f.at, "%q is among the request's headers already", f.name)
		}
	}
}
