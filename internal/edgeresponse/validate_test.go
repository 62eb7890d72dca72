package edgeresponse_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/edgeresponse"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Good values of each kind, as the Developer Guide's examples have them.
const (
	goodRequest = `{"clientIp": "192.0.2.1", "method": "GET", "uri": "/a.jpg", "querystring": "size=large", "headers": {
		"host": [{"key": "Host", "value": "d111111abcdef8.cloudfront.net"}], "user-agent": [{"key": "User-Agent", "value": "curl/8"}]}}`
	goodResponse = `{"status": "302", "statusDescription": "Found", "headers": {"location": [{"key": "Location", "value": "https://example.com/"}]}}`
	goodFunction = `{"statusCode": 302, "statusDescription": "Found", "headers": {"location": {"value": "https://example.com/"}},
		"cookies": {"a": {"value": "b", "attributes": "Secure"}}, "body": {"encoding": "text", "data": "moved"}}`
	goodFunctionRequest = `{"method": "GET", "uri": "/", "querystring": {"a": {"value": "1"}}, "cookies": {},
		"headers": {"accept": {"value": "text/html", "multiValue": [{"value": "text/html"}, {"value": "*/*"}]}}}`
)

// hostField is the field of goodRequest that is read-only for viewers' requests.
const hostField = `"host": [{"key": "Host", "value": "d111111abcdef8.cloudfront.net"}], `

// with puts text in the place of the first part of a good value.
func with(value, old, text string) string {
	if !strings.Contains(value, old) {
		panic("no " + old)
	}
	return strings.Replace(value, old, text, 1)
}

// origin is a request with this origin.
func origin(inner string) string {
	return with(goodRequest, `"method"`, `"origin": `+inner+`, "method"`)
}

// custom is a request with a custom origin that has these members besides a name.
func custom(members string) string {
	return origin(`{"custom": {"domainName": "example.com", ` + members + `}}`)
}

// event wraps a request as Lambda@Edge is given it.
func event(name, part string) string {
	kind := "request"
	if strings.HasSuffix(name, "response") {
		kind = "response"
	}
	return fmt.Sprintf(`{"Records": [{"cf": {"config": {"eventType": %q}, %q: %s}}]}`, name, kind, part)
}

// broken is one value that breaks one rule at one place.
type broken struct {
	says, event, value string
	original           string
	rule, path         string
}

// values are all rules, each with what breaks it.
func values() []broken {
	const vreq, oreq, ores, vres = edgeresponse.ViewerRequest, edgeresponse.OriginRequest, edgeresponse.OriginResponse, edgeresponse.ViewerResponse
	header := func(name, value string) string {
		return fmt.Sprintf(`{"status": "200", "headers": {%q: [{"value": %q}]}}`, name, value)
	}
	request := func(name, value string) string {
		return with(goodRequest, `"host"`, fmt.Sprintf(`%q: [{"value": %q}], "host"`, name, value))
	}
	return []broken{
		{"what is not JSON", vreq, "{\n  status: 200}", "", "json", "$"},
		{"an empty file", vreq, "", "", "json", "$"},
		{"two values", vreq, "{} {}", "", "json", "$"},
		{"bytes that are not UTF-8", vreq, "{\"status\": \"200\", \"body\": \"\xff\"}", "", "utf-8", "$"},
		{"null, as a function that forgets to return", vreq, "null", "", "object", "$"},
		{"a string", ores, `"ok"`, "", "object", "$"},
		{"the whole event", vreq, event(vreq, goodRequest), "", "object", "$.Records"},
		{"the event's cf", oreq, `{"config": {}, "request": ` + goodRequest + `}`, "", "object", "$.request"},
		{"a request where the response is returned", vres, goodRequest, "", "request-in-response-event", "$"},
		{"a member that nobody reads", vreq, `{"status": "200", "isBase64Encoded": false}`, "", "unknown-field", "$.isBase64Encoded"},
		{"a request without method", vreq, with(goodRequest, `"method": "GET", `, ""), "", "request-fields", "$"},
		{"headers that are an array", vreq, `{"status": "200", "headers": []}`, "", "type", "$.headers"},
		{"a description that is a number", vreq, `{"status": "200", "statusDescription": 7}`, "", "type", "$.statusDescription"},

		{"neither a request nor a response", vreq, `{"headers": {}}`, "", "status-required", "$"},
		{"a response without status", ores, `{"headers": {}}`, "", "status-required", "$"},
		{"API Gateway's statusCode", oreq, `{"statusCode": 200, "headers": {}}`, "", "status-required", "$.statusCode"},
		{"a number for the status", vreq, `{"status": 200, "headers": {"a": [{"value": "b"}]}}`, "", "status-type", "$.status"},
		{"a status below 200", oreq, `{"status": "199"}`, "", "status-range", "$.status"},
		{"a status above 599", oreq, `{"status": "600"}`, "", "status-range", "$.status"},
		{"a status that is no number", vreq, `{"status": "OK"}`, "", "status-range", "$.status"},
		{"a status that viewers' responses cannot change", vres, `{"status": "404", "headers": {}}`, event(vres, `{"status": "200", "headers": {}}`), "status-read-only", "$.status"},
		{"204 with a body", vreq, `{"status": "204", "body": ""}`, "", "no-content-body", "$.body"},
		{"an encoding that is none", oreq, `{"status": "200", "bodyEncoding": "utf8", "body": ""}`, "", "body-encoding", "$.bodyEncoding"},
		{"a body that is not base64", oreq, `{"status": "200", "bodyEncoding": "base64", "body": "a b"}`, "", "body-base64", "$.body"},
		{"a body that is an object", oreq, `{"status": "200", "body": {}}`, "", "type", "$.body"},
		{"41 KB for a viewer", vreq, `{"status": "200", "body": "` + strings.Repeat("x", 41<<10) + `"}`, "", "response-size", "$"},
		{"40 KB of headers for a viewer", vres, header("a", strings.Repeat("x", 40<<10)), "", "response-size", "$"},
		{"more than 1 MB for the origin", oreq, `{"status": "200", "body": "` + strings.Repeat("x", 1<<20+1) + `"}`, "", "response-size", "$"},

		{"a value that is a string", vreq, `{"status": "200", "headers": {"a": "b"}}`, "", "header-structure", "$.headers.a"},
		{"a pair that is a string", oreq, `{"status": "200", "headers": {"a": ["b"]}}`, "", "header-structure", "$.headers.a[0]"},
		{"a pair without a value", oreq, `{"status": "200", "headers": {"a": [{"key": "A"}]}}`, "", "header-structure", "$.headers.a[0]"},
		{"a value that is a number", oreq, `{"status": "200", "headers": {"max-age": [{"value": 5}]}}`, "", "header-structure", "$.headers['max-age'][0].value"},
		{"capitals in a name", vreq, `{"status": "200", "headers": {"Location": [{"value": "/"}]}}`, "", "header-name", "$.headers.Location"},
		{"a space in a name", vreq, header("a b", "c"), "", "header-name", "$.headers['a b']"},
		{"an empty name", vreq, header("", "c"), "", "header-name", "$.headers['']"},
		{"a newline in a value", vreq, header("a", "b\r\nset-cookie: c"), "", "header-value", "$.headers.a[0].value"},
		{"a key of another field", oreq, `{"status": "200", "headers": {"a": [{"key": "B", "value": "c"}]}}`, "", "header-key", "$.headers.a[0].key"},
		{"a disallowed header", vreq, header("connection", "close"), "", "header-disallowed", "$.headers.connection"},
		{"a disallowed header by its stem", ores, header("x-edge-anything", "1"), "", "header-disallowed", "$.headers['x-edge-anything']"},
		{"another one in a request", oreq, request("x-real-ip", "192.0.2.1"), "", "header-disallowed", "$.headers['x-real-ip']"},
		{"a read-only header in a response that the function makes", oreq, header("content-length", "0"), "", "header-read-only", "$.headers['content-length']"},
		{"a read-only header that was added", oreq, request("if-none-match", `"a"`), event(oreq, goodRequest), "header-read-only", "$.headers['if-none-match']"},
		{"a read-only header that was changed", vreq, with(goodRequest, "d111111abcdef8", "other"), event(vreq, goodRequest), "header-read-only", "$.headers.host"},
		{"a read-only header that was taken away", vreq, with(goodRequest, hostField, ""), goodRequest, "header-read-only-removed", "$.headers"},
		{"a read-only header of viewers' responses", vres, header("content-encoding", "gzip"), event(vres, header("content-encoding", "br")), "header-read-only", "$.headers['content-encoding']"},
		{"the viewer's country, made up", vreq, request("cloudfront-viewer-country", "DE"), "", "viewer-country", "$.headers['cloudfront-viewer-country']"},

		{"another method", vreq, with(goodRequest, "GET", "POST"), event(vreq, goodRequest), "method-read-only", "$.method"},
		{"another client", vreq, with(goodRequest, "192.0.2.1", "192.0.2.2"), event(vreq, goodRequest), "client-ip", "$.clientIp"},
		{"a relative URI", vreq, with(goodRequest, "/a.jpg", "a.jpg"), "", "uri", "$.uri"},
		{"a space in the URI", vreq, with(goodRequest, "/a.jpg", "/a b"), "", "uri-characters", "$.uri"},
		{"8,192 characters", oreq, with(goodRequest, "/a.jpg", "/"+strings.Repeat("x", 8192-len("/?size=large"))), "", "uri-size", "$.uri"},
		{"a fragment in the query string", oreq, with(goodRequest, "size=large", "a#b"), "", "querystring", "$.querystring"},
		{"a body without a known action", oreq, with(goodRequest, `"method"`, `"body": {"action": "keep"}, "method"`), "", "request-body", "$.body.action"},
		{"a body that is not base64", oreq, with(goodRequest, `"method"`, `"body": {"action": "replace", "encoding": "base64", "data": "%"}, "method"`), "", "request-body", "$.body.data"},
		{"41 KB in the place of a viewer's body", vreq, with(goodRequest, `"method"`, `"body": {"action": "replace", "encoding": "text", "data": "`+strings.Repeat("x", 41<<10)+`"}, "method"`), "", "request-body-size", "$.body.data"},
		{"an origin before there is one", vreq, custom(`"port": 443`), "", "origin-needs-event", "$.origin"},
		{"two origins", oreq, origin(`{"custom": {"domainName": "a.example"}, "s3": {"domainName": "b"}}`), "", "origin-one", "$.origin"},
		{"no origin", oreq, origin(`{}`), "", "origin-one", "$.origin"},
		{"no name", oreq, origin(`{"custom": {"port": 443}}`), "", "origin-domain", "$.origin.custom"},
		{"an address for a name", oreq, origin(`{"custom": {"domainName": "192.0.2.1"}}`), "", "origin-domain", "$.origin.custom.domainName"},
		{"a port in the name", oreq, origin(`{"custom": {"domainName": "a.example:8443"}}`), "", "origin-domain", "$.origin.custom.domainName"},
		{"a name of 254 characters", oreq, origin(`{"custom": {"domainName": "` + strings.Repeat("x", 254) + `"}}`), "", "origin-domain", "$.origin.custom.domainName"},
		{"a path with a slash at its end", oreq, custom(`"path": "/a/"`), "", "origin-path", "$.origin.custom.path"},
		{"a path without one at its beginning", oreq, custom(`"path": "a"`), "", "origin-path", "$.origin.custom.path"},
		{"a path of 256 characters", oreq, custom(`"path": "/` + strings.Repeat("x", 255) + `"`), "", "origin-path", "$.origin.custom.path"},
		{"port 8", oreq, custom(`"port": 8`), "", "origin-port", "$.origin.custom.port"},
		{"a port that is a string", oreq, custom(`"port": "443"`), "", "origin-port", "$.origin.custom.port"},
		{"a protocol that is none", oreq, custom(`"protocol": "match-viewer"`), "", "origin-protocol", "$.origin.custom.protocol"},
		{"no time to read", oreq, custom(`"readTimeout": 0`), "", "origin-timeout", "$.origin.custom.readTimeout"},
		{"121 seconds", oreq, custom(`"keepaliveTimeout": 121`), "", "origin-timeout", "$.origin.custom.keepaliveTimeout"},
		{"less time for the whole than for a part", oreq, custom(`"readTimeout": 30, "responseCompletionTimeout": 29`), "", "origin-timeout", "$.origin.custom.responseCompletionTimeout"},
		{"TLS 1.3", oreq, custom(`"sslProtocols": ["TLSv1.2", "TLSv1.3"]`), "", "origin-ssl", "$.origin.custom.sslProtocols[1]"},
		{"no protocol", oreq, custom(`"sslProtocols": []`), "", "origin-ssl", "$.origin.custom.sslProtocols"},
		{"a header that is there twice", oreq, custom(`"customHeaders": {"user-agent": [{"value": "x"}]}`), "", "origin-headers", "$.origin.custom.customHeaders['user-agent']"},
		{"a disallowed header for the origin", oreq, custom(`"customHeaders": {"x-cache": [{"value": "x"}]}`), "", "header-disallowed", "$.origin.custom.customHeaders['x-cache']"},
		{"capitals in a bucket", oreq, origin(`{"s3": {"domainName": "Bucket.s3.amazonaws.com"}}`), "", "origin-domain", "$.origin.s3.domainName"},
		{"a method that S3 does not have", oreq, origin(`{"s3": {"domainName": "b", "authMethod": "key"}}`), "", "origin-s3-auth", "$.origin.s3.authMethod"},
		{"an identity without its region", oreq, origin(`{"s3": {"domainName": "b", "authMethod": "origin-access-identity"}}`), "", "origin-s3-region", "$.origin.s3"},

		{"a string for a function's status", vreq, `{"statusCode": "200"}`, "", "functions-status", "$.statusCode"},
		{"a function's status of 42", vreq, `{"statusCode": 42}`, "", "functions-status-range", "$.statusCode"},
		{"a function's body without an encoding that is one", vres, `{"statusCode": 200, "body": {"encoding": "gzip", "data": ""}}`, "", "functions-body", "$.body.encoding"},
		{"a function's body that is an array", vres, `{"statusCode": 200, "body": []}`, "", "functions-body", "$.body"},
		{"a function's header as Lambda@Edge has it", vreq, `{"statusCode": 200, "cookies": {}, "headers": {"a": {"value": "b"}, "z": [{"value": "c"}]}}`, "", "functions-structure", "$.headers.z"},
		{"a function's cookie that is a string", vreq, `{"statusCode": 200, "cookies": {"a": "b"}}`, "", "functions-structure", "$.cookies.a"},
		{"many values that are strings", vreq, `{"statusCode": 200, "headers": {"a": {"value": "b", "multiValue": ["b"]}}}`, "", "functions-structure", "$.headers.a.multiValue[0]"},
		{"a function's disallowed header", vres, `{"statusCode": 200, "headers": {"x-amz-cf-pop": {"value": "FRA"}}}`, "", "header-disallowed", "$.headers['x-amz-cf-pop']"},
	}
}

// TestEachRule breaks each rule, and nothing else is said.
func TestEachRule(t *testing.T) {
	covered := map[string]bool{}
	for _, b := range values() {
		t.Run(b.says, func(t *testing.T) {
			q := edgeresponse.Question{Value: []byte(b.value), Event: b.event}
			if b.original != "" {
				q.Original = []byte(b.original)
			}
			r, err := edgeresponse.Validate(q)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.GetProblems()) != 1 {
				t.Fatalf("%d problems, want 1: %v", len(r.GetProblems()), r.GetProblems())
			}
			p := r.GetProblems()[0]
			covered[p.GetRule()] = true
			if p.GetRule() != b.rule || p.GetPath() != b.path {
				t.Errorf("%s at %s (%s), want %s at %s", p.GetRule(), p.GetPath(), p.GetSummary(), b.rule, b.path)
			}
			if p.GetSource().GetDocument() == "" || p.GetSource().GetDate() == "" || p.GetSummary() == "" {
				t.Errorf("no source or summary: %v", p)
			}
			error502 := p.GetSeverity() == pb.Severity_SEVERITY_ERROR
			if error502 == p.GetSource().GetUnverified() || error502 != (p.GetStatus() == "502") || error502 != edgeresponse.Broken(r) {
				t.Errorf("severity %s, unverified %t, status %q", p.GetSeverity(), p.GetSource().GetUnverified(), p.GetStatus())
			}
		})
	}
	page, err := os.ReadFile("../../docs/edge-response.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range names(t) {
		if !covered[rule] {
			t.Errorf("nothing breaks the rule %s", rule)
		}
		if !strings.Contains(string(page), "`"+rule+"`") {
			t.Errorf("docs/edge-response.md does not have the rule %s", rule)
		}
	}
}

// names are the rules of the table in rules.go.
func names(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("rules.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^\t\t"([a-z0-9-]+)": `).FindAllStringSubmatch(string(source), -1) {
		out = append(out, m[1])
	}
	if len(out) < 40 {
		t.Fatalf("only %d rules were found", len(out))
	}
	return out
}

// TestGoodValues has nothing to say about good values, of either runtime.
func TestGoodValues(t *testing.T) {
	for says, tc := range map[string]struct {
		event, value, original, runtime, returned string
		notes                                     int
	}{
		"a request, and the event that it is from":    {edgeresponse.ViewerRequest, goodRequest, event("viewer-request", goodRequest), "lambda-edge", "request", 0},
		"a request alone: host may have been changed": {edgeresponse.ViewerRequest, goodRequest, "", "lambda-edge", "request", 1},
		"a redirect":                                    {edgeresponse.ViewerRequest, goodResponse, "", "lambda-edge", "response", 0},
		"a redirect on the way to the origin":           {edgeresponse.OriginRequest, goodResponse, "", "lambda-edge", "response", 0},
		"an origin's response":                          {edgeresponse.OriginResponse, goodResponse, event("origin-response", goodResponse), "lambda-edge", "response", 0},
		"the status of an origin's response is changed": {edgeresponse.OriginResponse, with(goodResponse, "302", "404"), event("origin-response", goodResponse), "lambda-edge", "response", 0},
		"a viewer's response":                           {edgeresponse.ViewerResponse, goodResponse, goodResponse, "lambda-edge", "response", 0},
		"the least response":                            {edgeresponse.ViewerRequest, `{"status": "200"}`, "", "lambda-edge", "response", 0},
		"a body in base64":                              {edgeresponse.ViewerRequest, `{"status": "200", "bodyEncoding": "base64", "body": "aGk="}`, "", "lambda-edge", "response", 0},
		"an origin of one's own": {
			edgeresponse.OriginRequest, with(custom(`"port": 8443, "protocol": "https", "path": "", "readTimeout": 30, "keepaliveTimeout": 5,
			"responseCompletionTimeout": 30, "sslProtocols": ["TLSv1.2"], "customHeaders": {"x-a": [{"key": "X-A", "value": "b"}]}`), hostField, ""), "",
			"lambda-edge", "request", 0,
		},
		"a bucket":              {edgeresponse.OriginRequest, origin(`{"s3": {"domainName": "b.s3.amazonaws.com", "authMethod": "none", "path": "/a"}}`), goodRequest, "lambda-edge", "request", 0},
		"a function's response": {edgeresponse.ViewerRequest, goodFunction, "", "cloudfront-functions", "response", 0},
		"a function may change a viewer's status":   {edgeresponse.ViewerResponse, goodFunction, with(goodFunction, "302", "200"), "cloudfront-functions", "response", 0},
		"a function's request":                      {edgeresponse.ViewerRequest, goodFunctionRequest, goodFunctionRequest, "cloudfront-functions", "request", 0},
		"a function's body as a string":             {edgeresponse.ViewerResponse, `{"statusCode": 200, "body": "x"}`, "", "cloudfront-functions", "response", 0},
		"content-length in a function's response":   {edgeresponse.ViewerResponse, `{"statusCode": 200, "headers": {"content-length": {"value": "0"}}}`, "", "cloudfront-functions", "response", 0},
		"8,191 characters":                          {edgeresponse.OriginRequest, with(goodRequest, "/a.jpg", "/"+strings.Repeat("x", 8191-len("/?size=large"))), goodRequest, "lambda-edge", "request", 0},
		"exactly 40 KB":                             {edgeresponse.ViewerRequest, `{"status": "200", "body": "` + strings.Repeat("x", 40<<10) + `"}`, "", "lambda-edge", "response", 0},
		"the viewer's country as the viewer has it": {edgeresponse.ViewerRequest, with(goodRequest, `"host"`, `"cloudfront-viewer-country": [{"value": "DE"}], "host"`), with(goodRequest, `"host"`, `"cloudfront-viewer-country": [{"value": "DE"}], "host"`), "lambda-edge", "request", 0},
	} {
		t.Run(says, func(t *testing.T) {
			q := edgeresponse.Question{Value: []byte(tc.value), Event: tc.event}
			if tc.original != "" {
				q.Original = []byte(tc.original)
			}
			r, err := edgeresponse.Validate(q)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.GetProblems()) != 0 || r.GetRuntime() != tc.runtime || r.GetReturned() != tc.returned || len(r.GetNotes()) != tc.notes {
				t.Errorf("got %v", r)
			}
		})
	}
}

// TestBadQuestions has one error for each question that cannot be answered.
func TestBadQuestions(t *testing.T) {
	for says, tc := range map[string]struct {
		q    edgeresponse.Question
		want string
	}{
		"no event":                           {edgeresponse.Question{Value: []byte(goodRequest)}, "use one of viewer-request"},
		"an event that does not exist":       {edgeresponse.Question{Event: "viewer"}, `"viewer" is not an event`},
		"a runtime that does not exist":      {edgeresponse.Question{Event: "viewer-request", Runtime: "deno"}, "lambda-edge, cloudfront-functions"},
		"functions for the origin":           {edgeresponse.Question{Event: "origin-request", Runtime: "cloudfront-functions"}, "viewer-request and viewer-response only"},
		"an original that is not JSON":       {edgeresponse.Question{Event: "viewer-request", Original: []byte("{")}, "the original: line 1"},
		"an original that is a list":         {edgeresponse.Question{Event: "viewer-request", Original: []byte("[]")}, "not an event"},
		"an original of another event":       {edgeresponse.Question{Event: "viewer-request", Original: []byte(event("origin-request", goodRequest))}, "an event origin-request"},
		"an original that is something else": {edgeresponse.Question{Event: "viewer-request", Original: []byte(`{"a": 1}`)}, "no event with a request"},
	} {
		t.Run(says, func(t *testing.T) {
			if r, err := edgeresponse.Validate(tc.q); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want an error with %q", r, err, tc.want)
			}
		})
	}
}

// TestManyProblemsAreBounded has a value with more problems than a report holds.
func TestManyProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, `"x-edge-%d": [{"value": "1"}],`, i)
	}
	r, err := edgeresponse.Validate(edgeresponse.Question{Event: "origin-request", Value: []byte(`{"status": "200", "headers": {` + b.String() + `"a": []}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetProblems()) != 200 || !slices.Contains(r.GetNotes(), "4800 more problems are not listed") {
		t.Errorf("%d problems, notes %v", len(r.GetProblems()), r.GetNotes())
	}
}

// FuzzValidate never panics, says the same each time, and bounds what it says.
func FuzzValidate(f *testing.F) {
	for _, b := range values() {
		if len(b.value) < 4096 {
			f.Add([]byte(b.value), []byte(b.original), uint8(slices.Index(edgeresponse.Events(), b.event)))
		}
	}
	f.Add([]byte(goodFunction), []byte(goodFunctionRequest), uint8(3))
	f.Fuzz(func(t *testing.T, value, original []byte, event uint8) {
		q := edgeresponse.Question{Value: value, Event: edgeresponse.Events()[int(event)%4]}
		if len(original) > 0 {
			q.Original = original
		}
		r, err := edgeresponse.Validate(q)
		if err != nil {
			return
		}
		again, _ := edgeresponse.Validate(q)
		if r.String() != again.String() {
			t.Errorf("it says\n%v\nand then\n%v", r, again)
		}
		for _, p := range r.GetProblems() {
			if len(p.GetSummary()) > 2000 || p.GetSource().GetDocument() == "" || !strings.HasPrefix(p.GetPath(), "$") {
				t.Errorf("bad problem %v", p)
			}
		}
	})
}
