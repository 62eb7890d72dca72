package edgeresponse

import (
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// field is a header field as it stands in the value.
type field struct {
	name   string // in lower case
	at     string
	values []string
}

// headers checks header fields, those of a request or response as those that are added for an origin,
// and returns them.
func (v *validator) headers(n node) []field {
	var fields []field
	for _, name := range members(n.object) {
		f := field{name: strings.ToLower(name), at: n.path(name)}
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			v.breaks("header-name", f.at, "%q is not the name of a header field (RFC 9110, 5.1)", cut(name))
		case name != f.name:
			v.breaks("header-name", f.at, "the name must be in lower case: %q", cut(f.name))
		}
		if v.functions() {
			f.values = v.functionValues(n.object[name], f.at)
		} else {
			f.values = v.lambdaValues(n.object[name], f)
		}
		fields = append(fields, f)
	}
	return fields
}

// lambdaValues reads the values of a field as Lambda@Edge has them: [{"key": …, "value": …}].
func (v *validator) lambdaValues(x any, f field) []string {
	list, ok := x.([]any)
	if !ok {
		v.breaks("header-structure", f.at, `must be an array of {"key": …, "value": …}, and is %s`, what(x))
		return nil
	}
	var values []string
	for i, item := range list {
		at := element(f.at, i)
		o, ok := item.(object)
		if !ok {
			v.breaks("header-structure", at, `must be an object {"key": …, "value": …}, and is %s`, what(item))
			continue
		}
		pair := node{o, at}
		if key, ok := v.stringAt(pair, "key", "header-structure"); ok && strings.ToLower(key) != f.name {
			v.breaks("header-key", pair.path("key"), "%q is another field than %q", cut(key), cut(f.name))
		}
		values = append(values, v.fieldValue(pair)...)
	}
	return values
}

// functionValues reads the values of a field as CloudFront Functions have them: {"value": …}, and
// "multiValue" where there are more.
func (v *validator) functionValues(x any, at string) []string {
	pair, ok := x.(object)
	if !ok {
		v.breaks("functions-structure", at, `must be an object {"value": …}, and is %s`, what(x))
		return nil
	}
	many, there := pair["multiValue"]
	if !there {
		return v.fieldValue(node{pair, at})
	}
	at = member(at, "multiValue")
	list, ok := many.([]any)
	if !ok {
		v.breaks("functions-structure", at, `must be an array of {"value": …}, and is %s`, what(many))
		return nil
	}
	var values []string
	for i, item := range list {
		pair, ok := item.(object)
		if !ok {
			v.breaks("functions-structure", element(at, i), `must be an object {"value": …}, and is %s`, what(item))
			continue
		}
		values = append(values, v.fieldValue(node{pair, element(at, i)})...)
	}
	return values
}

// fieldValue reads the value of a pair, which has to be there.
func (v *validator) fieldValue(pair node) []string {
	if _, there := pair.object["value"]; !there {
		v.breaks("header-structure", pair.at, `"value" is missing`)
		return nil
	}
	value, ok := v.stringAt(pair, "value", "header-structure")
	if !ok {
		return nil
	}
	if !httpguts.ValidHeaderFieldValue(value) {
		v.breaks("header-value", pair.path("value"), "%q has characters that a header field cannot have (RFC 9110, 5.5)", cut(value))
	}
	return []string{value}
}

// forbidden checks which fields are there. generated: the value is a response to a request event, so
// that the function made all of it.
//
// Read-only fields stand in the event that a function gets, and it has to return them unchanged. Whether one was changed can
// be seen with the original alone: without it their presence is a note, since to call it an error would accuse every
// function that returns the request as it came.
func (v *validator) forbidden(fields []field, generated bool) {
	var unsure []string
	had := v.had()
	for _, f := range fields {
		old, before := had[f.name]
		switch {
		case isDisallowed(f.name):
			v.breaks("header-disallowed", f.at, "no function may add %q", f.name)
		case f.name == "cloudfront-viewer-country" && v.event == ViewerRequest && !generated && !v.functions():
			if !before || !slices.Equal(old, f.values) {
				v.breaks("viewer-country", f.at, "a function for %s may not add %q: CloudFront adds it afterwards", v.event, f.name)
			}
		case !slices.Contains(v.readOnly(), f.name):
		case generated:
			v.breaks("header-read-only", f.at, "%q is read-only for %s, also in a response that the function makes", f.name, v.event)
		case v.original == nil:
			unsure = append(unsure, f.name)
		case !before:
			v.breaks("header-read-only", f.at, "%q is read-only for %s, and the function added it", f.name, v.event)
		case !slices.Equal(old, f.values):
			v.breaks("header-read-only", f.at, "%q is read-only for %s, and the function changed it from %q to %q", f.name, v.event,
				cut(strings.Join(old, ", ")), cut(strings.Join(f.values, ", ")))
		}
	}
	if !generated {
		v.takenAway(fields, had)
	}
	if len(unsure) > 0 {
		v.report.Notes = append(v.report.Notes, "read-only for "+v.event+", and there: "+listed(unsure)+
			"; whether the function changed them can be said with the event that it was given (--original)")
	}
}

// had are the fields of the original.
func (v *validator) had() map[string][]string {
	fields, _ := v.original["headers"].(object)
	out := map[string][]string{}
	for name, x := range fields {
		out[strings.ToLower(name)] = valuesOf(x)
	}
	return out
}

// valuesOf are the values of a field of the original, of either runtime's form; what has none of these
// forms has no values.
func valuesOf(x any) []string {
	var values []string
	add := func(pair any) {
		o, _ := pair.(object)
		if s, ok := o["value"].(string); ok {
			values = append(values, s)
		}
	}
	switch x := x.(type) {
	case []any:
		for _, pair := range x {
			add(pair)
		}
	case object:
		if many, ok := x["multiValue"].([]any); ok {
			return valuesOf(many)
		}
		add(x)
	}
	return values
}

// takenAway warns of read-only fields that are there no longer.
func (v *validator) takenAway(fields []field, had map[string][]string) {
	for _, name := range v.readOnly() {
		_, before := had[name]
		if before && !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			v.breaks("header-read-only-removed", "$.headers", "%q is read-only for %s, and the function took it away", name, v.event)
		}
	}
}

// size is about how many bytes the fields take in a message.
// Documents say that headers count and not how; this is how HTTP/1.1 would send them.
func size(fields []field) int {
	n := 0
	for _, f := range fields {
		for _, value := range f.values {
			n += len(f.name) + len(": \r\n") + len(value)
		}
	}
	return n
}
