package probe

import (
	"errors"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestValidate asks for what the rules in the contract cannot see, and for some of what they do, since an
// agent trusts nobody.
func TestValidate(t *testing.T) {
	t.Parallel()
	field := func(name, value string) []*pb.HeaderField { return []*pb.HeaderField{{Name: name, Value: value}} }
	for _, tt := range []struct {
		name string
		spec *pb.HTTPSpec
		want string // The field that is wrong.
	}{
		{"a URL alone", &pb.HTTPSpec{}, ""},
		{"everything", &pb.HTTPSpec{
			Url: "https://[2001:db8::1]:8443/a?b", Method: "HEAD", HostHeader: "www.example:1", ServerName: "sni.example", Headers: field("X-A", "b"),
			Version: pb.HTTPVersion_HTTP_VERSION_2, ExpectStatus: []string{"200", "2xx", "300-399"}, ExpectHeader: []string{"Server: ^n"}, ExpectBody: "a{3,1000}",
		}, ""},
		{"no URL", &pb.HTTPSpec{Url: "www.example"}, "http.url"},
		{"a scheme that is not HTTP", &pb.HTTPSpec{Url: "ftp://www.example/"}, "http.url"},
		{"a user in the URL", &pb.HTTPSpec{Url: "http://u@www.example/"}, "http.url"},
		{"a fragment in the URL", &pb.HTTPSpec{Url: "http://www.example/#x"}, "http.url"},
		{"no host", &pb.HTTPSpec{Url: "http:///x"}, "http.url"},
		{"port 0", &pb.HTTPSpec{Url: "http://www.example:0/"}, "http.url"},
		{"a port that is none", &pb.HTTPSpec{Url: "http://www.example:99999/"}, "http.url"},
		{"a zone", &pb.HTTPSpec{Url: "http://[fe80::1%25eth0]/"}, "http.url"},
		{"a URL that is too long", &pb.HTTPSpec{Url: "http://www.example/" + strings.Repeat("x", maxURL)}, "http.url"},
		{"HTTP/2 in clear", &pb.HTTPSpec{Url: "http://www.example/", Version: pb.HTTPVersion_HTTP_VERSION_2}, "http.version"},
		{"two lines in Host", &pb.HTTPSpec{HostHeader: "a\r\nX: b"}, "http.host_header"},
		{"a server name with a port", &pb.HTTPSpec{ServerName: "a:1"}, "http.server_name"},
		{"a Host among the fields", &pb.HTTPSpec{Headers: field("hOst", "x")}, "http.headers"},
		{"a length of one's own", &pb.HTTPSpec{Headers: field("Content-Length", "5")}, "http.headers"},
		{"a field's name that is none", &pb.HTTPSpec{Headers: field("a b", "x")}, "http.headers"},
		{"two lines in a field", &pb.HTTPSpec{Headers: field("a", "x\r\nb: y")}, "http.headers"},
		{"fields that are too long", &pb.HTTPSpec{Headers: field("a", strings.Repeat("x", maxRequestFields))}, "http.headers"},
		{"a status that is none", &pb.HTTPSpec{ExpectStatus: []string{"200", "2x"}}, "http.expect_status[1]"},
		{"a range that is upside down", &pb.HTTPSpec{ExpectStatus: []string{"299-200"}}, "http.expect_status[0]"},
		{"a header without an expression", &pb.HTTPSpec{ExpectHeader: []string{"Server"}}, "http.expect_header[0]"},
		{"an expression that is none", &pb.HTTPSpec{ExpectHeader: []string{"Server: ("}}, "http.expect_header[0]"},
		{"an expression that looks back", &pb.HTTPSpec{ExpectBody: `(a)\1`}, "http.expect_body"},
		{"an expression that is short and large", &pb.HTTPSpec{ExpectBody: `(((a{10}){10}){10}){10}`}, "http.expect_body"},
		{"another one", &pb.HTTPSpec{ExpectBody: `(x{999}y){999}`}, "http.expect_body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.spec.GetUrl() == "" {
				tt.spec.Url = "https://www.example/"
			}
			err := Validate(httpSpec(tt.spec))
			var bad *SpecError
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (!errors.As(err, &bad) || bad.Field != tt.want):
				t.Errorf("%v, want %s to be wrong", err, tt.want)
			}
			if f, _ := Admit(&Env{Egress: Egress{Allow: loopback}}, newJob(httpSpec(tt.spec), 0)); tt.want != "" && f != pb.Failure_FAILURE_AGENT_INTERNAL {
				t.Errorf("the agent's door says %s", Short(f))
			}
		})
	}
}

func TestAnHTTPJobAtTheDoor(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]pb.Failure{
		"http://127.0.0.1:8080/":         pb.Failure_FAILURE_NONE,
		"http://localhost/":              pb.Failure_FAILURE_NONE,
		"http://169.254.169.254/latest/": pb.Failure_FAILURE_AGENT_POLICY_DENIED,
		"https://[::ffff:10.0.0.1]/":     pb.Failure_FAILURE_AGENT_POLICY_DENIED,
	} {
		if f, why := Admit(&Env{Egress: Egress{Allow: loopback}}, newJob(httpSpec(&pb.HTTPSpec{Url: url}), 0)); f != want {
			t.Errorf("%s: %s (%s), want %s", url, Short(f), why, Short(want))
		}
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\ttext":   "plain\ttext",
		"\x1b[31m":      `\x1b[31m`,
		"a\r\nb\x00":    `a\x0d\x0ab\x00`,
		"\xff\xc3(":     `\xff\xc3(`,
		"\u202eb\u200d": `\u202eb\u200d`,
		"\u0085":        `\u0085`,
		"\u2028":        `\u2028`,
		"\ufffd ä 漢":    "\ufffd ä 漢",
		"\U000e0001":    `\U000e0001`,
	} {
		if got := escape(in, 100); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := escape("ab\x00\x00", 7); got != `ab\x00` {
		t.Errorf("cut to %q", got)
	}
}
