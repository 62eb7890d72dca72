package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// webSites are web servers, good and bad.
func webSites() []site {
	return []site{
		{name: "web", serve: byNginx},
		{name: "web-expired", leaf: siteCert{begins: -60 * day, ends: -day, key: "rsa2048"}, serve: byOpenSSL("-WWW")},
		{name: "web-garbage", port: 80, serve: saying("what?\r\n\r\n")},
		{name: "web-cut", port: 80, serve: saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")},
		{name: "web-folded", port: 80, serve: saying("HTTP/1.1 200 Fine By Me\r\nContent-Length: 2\r\nX-Twice: one\r\nx-twice: two\r\nSet-Cookie: a=b; Path=/\r\n\r\nok")},
		{name: "web-chunked", port: 80, serve: saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")},
	}
}

const nginxConf = `daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr;
events {}
http {
	access_log off; default_type text/plain;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s:80 default_server; listen %[2]s:443 ssl http2 default_server;
		ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_ecdh_curve X25519:prime256v1;
		add_header X-Lab "yes";
		location = / { return 200 "hello\n"; }
		location = /empty { return 204; }
		location = /echo { return 200 "$http_x_ask $request_method $host\n"; }
		location = /missing { return 404; }
		location = /forbidden { return 403 "no\n"; }
		location = /legal { return 451; }
		location = /moved { return 301 /echo; }
		location = /away { return 302 http://web.peers.example/; }
		location = /loop { return 302 /loop; }
		location = /upstream { proxy_pass http://127.0.0.1:9; }
		location = /big { alias %[1]s/big; }
		location = /page { gzip on; gzip_types text/plain; gzip_min_length 1; alias %[1]s/page; }
	}
	server { listen %[2]s:80; server_name other.peers.example; return 200 "the other\n"; }
}
`

// byNginx serves with nginx, in clear and by TLS.
func byNginx(ctx context.Context, w *peerWorld, s *site) error {
	dir := filepath.Join(w.dir, "nginx")
	err := errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "big"), []byte(strings.Repeat("0123456789abcdef", 1<<12)), 0o644),
		os.WriteFile(filepath.Join(dir, "page"), []byte(strings.Repeat("a page that can be made smaller\n", 100)), 0o644))
	if err != nil {
		return err
	}
	conf, err := w.write("nginx.conf", fmt.Sprintf(nginxConf, dir, s.addr, w.pki.file(s.name+".chain"), w.pki.file(s.name+".key")))
	if err != nil {
		return err
	}
	_, err = w.start(ctx, w.there, "nginx", "nginx", "-p", dir, "-e", "stderr", "-c", conf)
	return err
}

// curlSaid is what is read of what curl writes (curl(1), -w %{json}).
type curlSaid struct {
	Status   int    `json:"http_code"`
	Version  string `json:"http_version"`
	Remote   string `json:"remote_ip"`
	Size     int    `json:"size_download"`
	Redirect string `json:"redirect_url"`
	Hops     int    `json:"num_redirects"`
	Exit     int    `json:"exitcode"`

	untrusted bool
}

// curl asks for a URL and is told where all hosts are.
func curl(target string, args ...string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		dir, err := os.MkdirTemp(w.dir, "curl")
		if err != nil {
			return nil, err
		}
		body, headers := filepath.Join(dir, "body"), filepath.Join(dir, "headers")
		all := []string{
			"curl", "-s", "--max-time", "8", "--cacert", w.pki.file("root"), "-o", body, "-D", headers, "-w", "%{json}",
			// Elsewhere asks for one thing on each connection, and says so.
			"-H", "Connection: close", "--connect-to", "other.peers.example:80:" + w.site("web").addr + ":80",
		}
		u, err := url.Parse(target)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(u.Hostname(), "."+peersZone)
		for _, port := range slices.DeleteFunc([]string{"80", "443", u.Port()}, func(p string) bool { return p == "" }) {
			all = append(all, "--resolve", u.Hostname()+":"+port+":"+w.site(name).addr)
		}
		all = append(append(all, args...), target)
		said, err := w.runCurl(ctx, all)
		if err == nil && said.Exit == untrusted { // Elsewhere goes on then.
			said, err = w.runCurl(ctx, append(all, "-k"))
			said.untrusted = true
		}
		if err != nil {
			return nil, err
		}
		if slices.Contains(args, "-I") { // Then it takes the header for what was to be fetched.
			if err := os.Remove(body); err != nil {
				return nil, err
			}
		}
		return said.facts(body, headers)
	}
}

// untrusted is how curl ends where it does not trust the certificate.
const untrusted = 60

// runCurl runs curl and reads what it writes, however it ends.
func (w *peerWorld) runCurl(ctx context.Context, args []string) (said curlSaid, err error) {
	out, err := w.home.Command(ctx, args...).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return said, err
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return said, fmt.Errorf("%w: %q", err, out)
	}
	return said, nil
}

// facts are what curl saw.
func (c curlSaid) facts(body, headers string) (facts, error) {
	end, known := map[int]string{
		0: "complete", 1: "malformed", 7: "refused", 18: "closed", 28: "silence", 47: "too many redirects", 52: "closed", 56: "reset",
	}[c.Exit]
	if !known {
		return nil, fmt.Errorf("curl ended with %d", c.Exit)
	}
	f := facts{"end": end}
	if c.Status == 0 {
		return f, nil
	}
	f["status"], f["version"], f["remote"] = fmt.Sprint(c.Status), "HTTP/"+c.Version, c.Remote
	f["trusted"] = fmt.Sprint(!c.untrusted)
	f["redirect"], f["redirects followed"] = c.Redirect, fmt.Sprint(c.Hops)
	f["size"] = fmt.Sprint(c.Size)
	content, err := os.ReadFile(body)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // An empty body makes no file.
		return nil, err
	}
	f["body"] = ""
	if len(content) > 0 {
		sum := sha256.Sum256(content)
		f["body"] = hex.EncodeToString(sum[:])
	}
	raw, err := os.ReadFile(headers)
	if err != nil {
		return nil, err
	}
	f["reason"], f["headers"] = lastHeaders(string(raw))
	return f, nil
}

// lastHeaders reads the header section of the last response that curl wrote.
func lastHeaders(raw string) (reason, fields string) {
	sections := strings.Split(strings.TrimRight(raw, "\r\n"), "\r\n\r\n")
	var all []string
	for i, line := range strings.Split(sections[len(sections)-1], "\r\n") {
		if i == 0 {
			if parts := strings.SplitN(line, " ", 3); len(parts) == 3 {
				reason = parts[2]
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		all = append(all, headerFact(name, strings.TrimSpace(value)))
	}
	slices.Sort(all)
	return strings.TrimSpace(reason), lines(all)
}

// headerFact is a field in one way of writing; the clock of two exchanges is not the same.
func headerFact(name, value string) string {
	if name = strings.ToLower(name); name == "date" {
		value = "…"
	}
	return name + ": " + value
}

// exchanged are the same facts by Elsewhere: the last exchange's.
func exchanged(r *pb.Result) (facts, error) {
	var first, last *pb.Step
	trusted := true
	for _, s := range r.GetSteps() {
		if s.GetRole() == pb.Role_ROLE_CONTROL || s.GetRole() == pb.Role_ROLE_VARIANT {
			continue
		}
		if first == nil && s.GetKind() == pb.StepKind_STEP_KIND_TCP_CONNECT && s.GetFailure() != pb.Failure_FAILURE_NONE {
			return facts{"end": endOfExchange(s.GetFailure())}, nil
		}
		if s.GetKind() == pb.StepKind_STEP_KIND_TLS_HANDSHAKE && s.GetFailure() != pb.Failure_FAILURE_NONE {
			trusted = false
		}
		if s.GetKind() == pb.StepKind_STEP_KIND_HTTP_EXCHANGE {
			if last = s; first == nil {
				first = s
			}
		}
	}
	if first == nil {
		return nil, errors.New("there is no exchange")
	}
	f := facts{"end": endOfExchange(first.GetFailure())}
	ev := last.GetEvidence().GetHttp()
	if ev.GetStatus() == 0 {
		return f, nil
	}
	host, _, _ := strings.Cut(last.GetAddress(), ":")
	f["status"], f["version"], f["remote"] = fmt.Sprint(ev.GetStatus()), strings.TrimSuffix(ev.GetVersion(), ".0"), host
	f["trusted"] = fmt.Sprint(trusted)
	f["redirects followed"] = fmt.Sprint(len(first.GetEvidence().GetHttp().GetRedirects()))
	f["size"], f["body"], f["reason"] = fmt.Sprint(ev.GetBodySize()), ev.GetBodySha256(), ev.GetReason()
	var all []string
	for _, h := range ev.GetHeaders() {
		all = append(all, headerFact(h.GetName(), h.GetValue()))
	}
	slices.Sort(all)
	f["headers"] = lines(all)
	f["redirect"] = redirectOf(ev)
	return f, nil
}

// redirectOf is where a response leads that was not followed.
func redirectOf(ev *pb.HTTPEvidence) string {
	base, err := url.Parse(ev.GetUrl())
	if err != nil || ev.GetStatus() < 300 || ev.GetStatus() > 399 {
		return ""
	}
	for _, h := range ev.GetHeaders() {
		if http.CanonicalHeaderKey(h.GetName()) == "Location" {
			if to, err := base.Parse(h.GetValue()); err == nil {
				return to.String()
			}
		}
	}
	return ""
}

// endOfExchange is how it ended, in the words of both. A status is an answer.
func endOfExchange(f pb.Failure) string {
	word, known := map[pb.Failure]string{
		pb.Failure_FAILURE_NONE: "complete", pb.Failure_FAILURE_HTTP_STATUS: "complete", pb.Failure_FAILURE_HTTP_MALFORMED: "malformed",
		pb.Failure_FAILURE_HTTP_CLOSED: "closed", pb.Failure_FAILURE_HTTP_RESET: "reset", pb.Failure_FAILURE_HTTP_TIMEOUT: "silence",
		pb.Failure_FAILURE_HTTP_REDIRECT_LOOP: "too many redirects", pb.Failure_FAILURE_TCP_REFUSED: "refused",
	}[f]
	if !known {
		return short(f)
	}
	return word
}

// httpComparisons ask curl and Elsewhere for the same URLs.
func httpComparisons() []comparison {
	var all []comparison
	for _, q := range []struct {
		name, says, url, curl, elsewhere string
		differs                          map[string]string
	}{
		{"http-ok", "a page in clear", "http://web.peers.example/", "", "", nil},
		{"http-2", "a page by HTTP/2", "https://web.peers.example/", "", "", nil},
		{"http-1.1-tls", "a page by HTTP/1.1 over TLS", "https://web.peers.example/", "--http1.1", "--http1.1", nil},
		{"http-expired", "a page behind an expired certificate", "https://web-expired.peers.example/", "", "", nil},
		{"http-head", "the header alone", "https://web.peers.example/big", "-I", "-X HEAD", nil},
		{"http-big", "64 KiB by HTTP/2", "https://web.peers.example/big", "", "", nil},
		{"http-empty", "no content", "https://web.peers.example/empty", "", "", nil},
		{"http-missing", "404, with the server's own page", "http://web.peers.example/missing", "", "", nil},
		{"http-forbidden", "403", "http://web.peers.example/forbidden", "", "", nil},
		{"http-legal", "451", "https://web.peers.example/legal", "", "", nil},
		{"http-bad-gateway", "a proxy whose upstream refuses", "https://web.peers.example/upstream", "", "", nil},
		{"http-header", "a header field of one's own", "https://web.peers.example/echo", "-H X-Ask:why", "-H X-Ask:why", nil},
		{"http-host", "another host at the same address", "http://web.peers.example/", "-H Host:other.peers.example", "--host-header other.peers.example", nil},
		{"http-redirect", "a redirect that is not followed", "https://web.peers.example/moved", "", "", nil},
		{"http-follow", "a redirect that is followed", "https://web.peers.example/moved", "-L", "--follow", nil},
		{"http-follow-away", "a redirect from HTTPS to HTTP", "https://web.peers.example/away", "-L", "--follow", nil},
		{"http-loop", "a redirect to itself", "http://web.peers.example/loop", "-L --max-redirs 5", "--follow", map[string]string{
			"redirects followed": "Elsewhere stops where it has been before, curl at the limit alone",
			"body":               "curl throws away the bodies of redirects when it follows them",
			"size":               "curl counts what it kept of the body, which is nothing",
		}},
		{"http-wrong-port", "HTTP to a port of HTTPS", "http://web.peers.example:443/", "", "", nil},
		{"http-chunked", "a body in chunks", "http://web-chunked.peers.example/", "", "", nil},
		{"http-twice", "a field twice, and a reason of its own", "http://web-folded.peers.example/", "", "", nil},
		{"http-cut", "a body that stops in the middle", "http://web-cut.peers.example/", "", "", nil},
		{"http-garbage", "something that is not HTTP", "http://web-garbage.peers.example/", "", "", nil},
		{"http-no-answer", "a server that hangs up on a request", "http://hangs-up.peers.example:443/", "", "", nil},
		{"http-reset", "a server that resets on a request", "http://aborts.peers.example:443/", "", "", nil},
		{"http-refused", "nobody listens", "http://good.peers.example:81/", "", "", nil},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: strings.TrimSpace("curl " + q.curl + " " + q.url), peer: curl(q.url, strings.Fields(q.curl)...),
			ask: strings.TrimSpace("http " + q.url + " " + q.elsewhere), read: exchanged, differs: q.differs,
		})
	}
	return all
}
