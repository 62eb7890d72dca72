package probe

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maze redirects in every way there is. Other is another origin.
func maze(other string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/one": "/hello", "/two": "one", "/three": "/two", "/self": "/self", "/ping": "/pong", "/pong": "/ping",
			"/other": other, "/metadata": "http://169.254.169.254/latest/meta-data/", "/rebound": "http://rebound.example/",
			"/nowhere": "http://nowhere.example/", "/file": "file:///etc/passwd", "/script": "javascript:alert(1)",
			"/broken": "http://[::1", "/user": "//user:secret@" + strings.TrimPrefix(other, "http://"), "/port": "http://www.example:99999/",
			"/ugly": "/x\u202e\u00e4?a b",
		}[r.URL.Path]
		switch {
		case strings.HasPrefix(r.URL.Path, "/deeper"):
			to = r.URL.Path + "r"
		case to == "":
			fmt.Fprintf(w, "%s %s X-Secret:%s Authorization:%s", r.RequestURI, r.Host, r.Header.Get("X-Secret"), r.Header.Get("Authorization"))
			return
		}
		w.Header()["Location"] = []string{to}
		w.WriteHeader(http.StatusFound)
	})
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.3"), nil, maze("")))
	other := fmt.Sprintf("http://other.example:%d/", elsewhere.Addr().Port())
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), nil, maze(other)))
	base := fmt.Sprintf("http://www.example:%d", host.Addr().Port())
	zone := probetest.Zone{
		"www.example":     {Records: []string{"www.example. 60 IN A 127.0.0.2"}},
		"other.example":   {Records: []string{"other.example. 60 IN A 127.0.0.3"}},
		"rebound.example": {Records: []string{"rebound.example. 0 IN A 10.9.8.7"}},
	}
	env := newEnv(t, zone)
	for _, tt := range []struct {
		name      string
		path      string
		max       uint32
		want      pb.Failure
		redirects []string // Status, location and the address that was asked, if one was.
		excerpt   string
		text      string
	}{
		{"none is followed by default", "/one", 0, pb.Failure_FAILURE_NONE, nil, "", ""},
		{"one", "/one", 1, pb.Failure_FAILURE_NONE, []string{"302 /hello 127.0.0.2"}, "/hello www.example:PORT X-Secret:yes", ""},
		{"three, relative ones among them", "/three", 5, pb.Failure_FAILURE_NONE, []string{"302 /two 127.0.0.2", "302 one 127.0.0.2", "302 /hello 127.0.0.2"}, "/hello ", ""},
		{"one more than asked for", "/three", 2, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, []string{"302 /two 127.0.0.2", "302 one 127.0.0.2"}, "", "2 redirects were followed"},
		{"no end", "/deeper", 5, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, []string{
			"302 /deeperr 127.0.0.2", "302 /deeperrr 127.0.0.2", "302 /deeperrrr 127.0.0.2", "302 /deeperrrrr 127.0.0.2", "302 /deeperrrrrr 127.0.0.2",
		}, "", "one more"},
		{"back to itself", "/self", 5, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, []string{"302 /self"}, "", "leads back"},
		{"to and fro", "/ping", 5, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, []string{"302 /pong 127.0.0.2", "302 /ping"}, "", "leads back"},
		{"another host is resolved, and told no secret", "/other", 1, pb.Failure_FAILURE_NONE, []string{"302 " + other + " 127.0.0.3"}, "/ other.example:OTHER X-Secret: Authorization:", ""},
		{"what a URL says of a user is not sent", "/user", 1, pb.Failure_FAILURE_NONE, []string{"302 //user:secret@" + strings.TrimPrefix(other, "http://") + " 127.0.0.3"}, "/ other.example:OTHER X-Secret: Authorization:", ""},
		{"the metadata service is not asked", "/metadata", 5, pb.Failure_FAILURE_AGENT_POLICY_DENIED, []string{"302 http://169.254.169.254/latest/meta-data/ 169.254.169.254"}, "", "agent_policy_denied"},
		{"nor what a name leads to inside", "/rebound", 5, pb.Failure_FAILURE_AGENT_POLICY_DENIED, []string{"302 http://rebound.example/ 10.9.8.7"}, "", "agent_policy_denied"},
		{"a name that is none", "/nowhere", 5, pb.Failure_FAILURE_DNS_NXDOMAIN, []string{"302 http://nowhere.example/"}, "", "dns_nxdomain"},
		{"a file", "/file", 5, pb.Failure_FAILURE_HTTP_MALFORMED, []string{"302 file:///etc/passwd"}, "", "neither http nor https"},
		{"a script", "/script", 5, pb.Failure_FAILURE_HTTP_MALFORMED, []string{"302 javascript:alert(1)"}, "", "neither http nor https"},
		{"no URL at all", "/broken", 5, pb.Failure_FAILURE_HTTP_MALFORMED, []string{"302 http://[::1"}, "", "is no URL"},
		{"no port", "/port", 5, pb.Failure_FAILURE_HTTP_MALFORMED, []string{"302 http://www.example:99999/"}, "", "port 0"},
		{"bytes that a request line must not have", "/ugly", 1, pb.Failure_FAILURE_NONE, []string{`302 /x\u202eä?a b 127.0.0.2`}, "/x%E2%80%AE%C3%A4?a%20b www", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, env, httpSpec(&pb.HTTPSpec{
				Url: base + tt.path, MaxRedirects: tt.max,
				Headers: []*pb.HeaderField{{Name: "X-Secret", Value: "yes"}, {Name: "Authorization", Value: "Bearer s"}},
			}))
			s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			h := s.GetEvidence().GetHttp()
			if s.GetFailure() != tt.want || !strings.Contains(s.GetEvidence().GetText(), tt.text) {
				t.Errorf("%s (%s), want %s", Short(s.GetFailure()), s.GetEvidence().GetText(), Short(tt.want))
			}
			var got []string
			for _, d := range h.GetRedirects() {
				line := fmt.Sprint(d.GetStatus(), " ", d.GetLocation())
				if a, err := netip.ParseAddrPort(d.GetAddress()); err == nil {
					line += " " + a.Addr().String()
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.redirects, got); diff != "" {
				t.Errorf("redirects (-want +got):\n%s", diff)
			}
			ports := strings.NewReplacer("PORT", fmt.Sprint(host.Addr().Port()), "OTHER", fmt.Sprint(elsewhere.Addr().Port()))
			if !strings.HasPrefix(h.GetBodyExcerpt(), ports.Replace(tt.excerpt)) || h.GetUrl() != base+tt.path {
				t.Errorf("the page of %s is %q", h.GetUrl(), h.GetBodyExcerpt())
			}
			checkHops(t, r)
			checkTame(t, r)
		})
	}
}

// checkHops wants every redirect's steps to stand beside the exchange before, and its own exchange to show
// what it got.
func checkHops(t *testing.T, r *pb.Result) {
	t.Helper()
	first := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
	for _, s := range r.GetSteps() {
		if s.GetRole() != pb.Role_ROLE_REDIRECT {
			continue
		}
		if s.Beside == nil || r.GetSteps()[s.GetBeside()].GetKind() != pb.StepKind_STEP_KIND_HTTP_EXCHANGE {
			t.Errorf("a step beside no exchange: %v", s)
		}
	}
	for _, d := range first.GetEvidence().GetHttp().GetRedirects() {
		if d.Step == nil {
			continue
		}
		s := r.GetSteps()[d.GetStep()]
		if s.GetRole() != pb.Role_ROLE_REDIRECT || s.GetAddress() != d.GetAddress() || s.GetEvidence().GetHttp().GetStatus() == 0 {
			t.Errorf("the exchange of %v: %v", d, s)
		}
	}
}

// TestARedirectKeepsTheFamily follows a redirect to a name that has an address of each family.
func TestARedirectKeepsTheFamily(t *testing.T) {
	t.Parallel()
	for _, ip := range []string{"127.0.0.2", "::1"} {
		host := must[*probetest.Host](t)(probetest.ListenHTTP(at(ip), nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/end" {
				_, port, _ := net.SplitHostPort(r.Host)
				http.Redirect(w, r, "http://www.example:"+port+"/end", http.StatusMovedPermanently)
			}
		})))
		env := newEnv(t, probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2", "www.example. 60 IN AAAA ::1"}}})
		spec := httpSpec(&pb.HTTPSpec{Url: "http://" + host.Addr().String() + "/", MaxRedirects: 1})
		s := one(t, run(t, env, spec), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
		if d := s.GetEvidence().GetHttp().GetRedirects(); s.GetFailure() != pb.Failure_FAILURE_NONE || len(d) != 1 || d[0].GetAddress() != host.Addr().String() {
			t.Errorf("from %s: %v", ip, s)
		}
	}
}
