package cli_test

import (
	"encoding/csv"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// file writes a file and returns its name.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// badEdge breaks two rules: the status is a number, and CloudFront's own header is there.
const badEdge = `{"status": 302, "headers": {"x-cache": [{"value": "\u001b[31mnone"}]}}`

// TestEdgeResponse checks returned values in each format, without a coordinator.
func TestEdgeResponse(t *testing.T) {
	w := newWorld(t)
	bad := file(t, "bad.json", badEdge)
	good := file(t, "good.json", `{"status": "302", "headers": {"location": [{"key": "Location", "value": "/"}]}}`)

	got := w.run(t, "edge-response", "validate", bad, "--event", "viewer-request")
	for _, want := range []string{"ERROR status-type  $.status", "ERROR header-disallowed  $.headers['x-cache']", "source: CloudFront Developer Guide", "FAIL · 3 rules are broken: viewers get 502"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	if got.code != cli.ExitFail || strings.Contains(got.out, "\x1b") {
		t.Errorf("exit %d, %q", got.code, got.out)
	}
	if got := w.run(t, "edge-response", "validate", good, "--event", "viewer-request"); got.code != cli.ExitOK || !strings.HasPrefix(got.out, "OK · a response for viewer-request, by Lambda@Edge") {
		t.Errorf("exit %d, %q", got.code, got.out)
	}

	var report pb.EdgeReport
	if err := protojson.Unmarshal([]byte(w.run(t, "edge-response", "validate", bad, "--event", "viewer-request", "-J").out), &report); err != nil || len(report.GetProblems()) != 3 {
		t.Errorf("%v: %v", err, &report)
	}
	rows, err := csv.NewReader(strings.NewReader(w.run(t, "edge-response", "validate", bad, "--event", "viewer-request", "--format", "csv").out)).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Errorf("%v: %v", err, rows)
	}
	var suites struct {
		Suites []struct {
			Failures int `xml:"failures,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(w.run(t, "edge-response", "validate", bad, "--event", "viewer-request", "--format", "junit").out), &suites); err != nil || suites.Suites[0].Failures != 3 {
		t.Errorf("%v: %v", err, suites)
	}
}

// TestEdgeResponseReadsStdinAndTheEvent gives the value on stdin, and the event that it was made for.
func TestEdgeResponseReadsStdinAndTheEvent(t *testing.T) {
	event := file(t, "event.json", `{"Records": [{"cf": {"config": {"eventType": "viewer-request"}, "request":
		{"method": "GET", "uri": "/", "querystring": "", "headers": {"host": [{"value": "a.example"}]}}}}]}`)
	for says, tc := range map[string]struct {
		host string
		code int
	}{"the same host": {"a.example", cli.ExitOK}, "another host": {"b.example", cli.ExitFail}} {
		p := cli.Program{
			In:  strings.NewReader(`{"method": "GET", "uri": "/b", "querystring": "", "headers": {"host": [{"value": "` + tc.host + `"}]}}`),
			Out: &strings.Builder{}, Err: &strings.Builder{}, Getenv: func(string) string { return "" },
		}
		if code := p.Run(t.Context(), []string{"edge-response", "validate", "-", "--event", "viewer-request", "--original", event}); code != tc.code {
			t.Errorf("%s: exit %d, want %d: %s", says, code, tc.code, p.Out)
		}
	}
}

// TestEdgeResponseBadFiles has one line for each wrong request.
func TestEdgeResponseBadFiles(t *testing.T) {
	w := newWorld(t)
	large := file(t, "large.json", strings.Repeat(" ", 9<<20))
	good := file(t, "good.json", `{"status": "200"}`)
	for says, tc := range map[string]struct{ args, want string }{
		"no file":                      {"", "which file?"},
		"two files":                    {good + " b --event viewer-request", `unexpected word "b"`},
		"no event":                     {good, "--event viewer-request|origin-request|origin-response|viewer-response"},
		"an event that does not exist": {good + " --event request", `"request" is not an event`},
		"a file that is not there":     {"nowhere.json --event viewer-request", "nowhere.json: no such file"},
		"a directory":                  {t.TempDir() + " --event viewer-request", "is a directory"},
		"a file of 9 MiB":              {large + " --event viewer-request", "larger than 8 MiB"},
		"an original that is none":     {good + " --event viewer-request --original " + good, "no event with a request"},
		"an empty flag":                {good + " --event viewer-request --original=", "--original is empty"},
	} {
		got := w.run(t, append([]string{"edge-response", "validate"}, strings.Fields(tc.args)...)...)
		if got.code != cli.ExitUsage || !strings.Contains(got.err, tc.want) || strings.Count(got.err, "\n") != 1 || got.out != "" {
			t.Errorf("%s: exit %d, %q, %q", says, got.code, got.out, got.err)
		}
	}
}
