package edgeresponse

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
)

// The sizes that documents give in KB and MB; 1 KB is taken as 1,024 bytes.
const (
	kb = 1 << 10
	mb = 1 << 20
)

// value checks the whole value: a request or a response, as the event wants it.
func (v *validator) value(root any) {
	o, ok := root.(object)
	if !ok {
		v.breaks("object", "$", "must be a request or a response, an object, and is %s", what(root))
		return
	}
	if v.wholeEvent(o) {
		return
	}
	n := node{o, "$"}
	_, status := o["status"]
	_, code := o["statusCode"]
	_, uri := o["uri"]
	_, method := o["method"]
	switch {
	case status || code:
		v.report.Returned = "response"
		v.response(n)
	case uri || method:
		v.report.Returned = "request"
		v.request(n)
	case v.requestEvent():
		v.breaks("status-required", "$", "neither a request (there is no \"uri\") nor a response (there is no %q)", v.statusName())
	default:
		v.report.Returned = "response"
		v.response(n)
	}
}

// wholeEvent says whether the function returned the event that it was given, which is no request and no
// response.
func (v *validator) wholeEvent(o object) bool {
	if _, records := o["Records"]; records {
		v.breaks("object", "$.Records", "this is the event; return event.Records[0].cf.%s", v.part())
		return true
	}
	for _, part := range []string{"request", "response"} {
		if _, ok := o[part].(object); ok {
			v.breaks("object", "$."+part, "this is the event, or a part of it; return its %s alone", v.part())
			return true
		}
	}
	return false
}

// part is the part of the event that is returned.
func (v *validator) part() string {
	if v.requestEvent() {
		return "request"
	}
	return "response"
}

// statusName is the name of the status in a response.
func (v *validator) statusName() string {
	if v.functions() {
		return "statusCode"
	}
	return "status"
}

// otherStatus is what the other runtime calls the status.
func (v *validator) otherStatus() string {
	if v.functions() {
		return "status"
	}
	return "statusCode"
}

// response checks a response: one that the function made, or one that it was given.
func (v *validator) response(n node) {
	known := []string{"status", "statusDescription", "headers", "body", "bodyEncoding"}
	if v.functions() {
		known = []string{"statusCode", "statusDescription", "headers", "cookies", "body"}
	}
	v.unknown(n, known)
	status := v.status(n)
	v.stringAt(n, "statusDescription", "type")
	var fields []field
	if headers, ok := v.nodeAt(n, "headers", "type"); ok {
		fields = v.headers(headers)
	}
	v.forbidden(fields, v.requestEvent())
	if v.functions() {
		v.pairs(n, "cookies")
		v.functionBody(n)
		return
	}
	body := v.body(n)
	if _, there := n.object["body"]; there && v.event == ViewerRequest && status == http.StatusNoContent {
		v.breaks("no-content-body", "$.body", "a response with status 204 to a viewer's request has no body")
	}
	limit := mb
	if v.viewer() {
		limit = 40 * kb
	}
	if bytes := size(fields) + body; bytes > limit {
		v.breaks("response-size", "$", "headers and body have %d bytes, and %d are allowed for %s", bytes, limit, v.event)
	}
}

// unknown warns of members that nobody reads; a misspelt one is the usual reason why another is missing.
func (v *validator) unknown(n node, known []string) {
	for _, name := range members(n.object) {
		if !slices.Contains(known, name) && name != v.otherStatus() {
			v.breaks("unknown-field", n.path(name), "is not read; known are %s", listed(known))
		}
	}
}

// status checks the status, and returns it; 0 if it is not known.
func (v *validator) status(n node) int {
	name := v.statusName()
	at := n.path(name)
	x, there := n.object[name]
	if _, other := n.object[v.otherStatus()]; other {
		v.breaks("status-required", "$."+v.otherStatus(), "%s calls it %q", v.runtimeName(), name)
		return 0
	}
	if !there {
		v.breaks("status-required", "$", "%q is missing, which every response has", name)
		return 0
	}
	if v.functions() {
		code, ok := integer(x)
		if !ok {
			v.breaks("functions-status", at, "must be a whole number, and is %s", what(x))
		} else if code < 200 || code > 599 {
			v.breaks("functions-status-range", at, "should be 200 to 599, and is %d", code)
		}
		return int(code)
	}
	s, ok := x.(string)
	if !ok {
		v.breaks("status-type", at, `must be a string such as "200", and is %s`, what(x))
		return 0
	}
	code, err := strconv.Atoi(s)
	if err != nil || code < 200 || code > 599 {
		v.breaks("status-range", at, "must be 200 to 599, and is %q", cut(s))
		return 0
	}
	if old, ok := v.original["status"].(string); ok && v.event == ViewerResponse && old != s {
		v.breaks("status-read-only", at, "a function for %s cannot change the status, and changed it from %s to %s", v.event, cut(old), s)
	}
	return code
}

// runtimeName is what people call the runtime.
func (v *validator) runtimeName() string {
	if v.functions() {
		return "CloudFront Functions"
	}
	return "Lambda@Edge"
}

// body checks the body of a response of Lambda@Edge, and returns its size as it was returned.
func (v *validator) body(n node) int {
	v.oneOf(n, "bodyEncoding", "body-encoding", "text", "base64")
	body, ok := v.stringAt(n, "body", "type")
	if ok && n.object["bodyEncoding"] == "base64" {
		v.base64("$.body", body, "body-base64")
	}
	return len(body)
}

// base64 wants something that decodes.
func (v *validator) base64(at, s, rule string) {
	if _, err := base64.StdEncoding.DecodeString(s); err != nil {
		v.breaks(rule, at, "is not base64: %s", err)
	}
}

// functionBody checks the body of a response of a CloudFront Function: a string, or an object with the
// encoding and the data.
func (v *validator) functionBody(n node) {
	x, there := n.object["body"]
	if _, isString := x.(string); !there || isString {
		return
	}
	body, ok := v.nodeAt(n, "body", "functions-body")
	if !ok {
		return
	}
	v.oneOf(body, "encoding", "functions-body", "text", "base64")
	data, ok := v.stringAt(body, "data", "functions-body")
	if ok && body.object["encoding"] == "base64" {
		v.base64("$.body.data", data, "functions-body")
	}
}

// pairs checks cookies or a query string of a CloudFront Function: names with {"value": …} each.
func (v *validator) pairs(n node, name string) {
	inner, ok := v.nodeAt(n, name, "functions-structure")
	if !ok {
		return
	}
	for _, key := range members(inner.object) {
		v.functionValues(inner.object[key], inner.path(key))
	}
}
