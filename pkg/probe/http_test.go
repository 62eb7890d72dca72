package probe

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func httpSpec(s *pb.HTTPSpec) *pb.Spec { return &pb.Spec{Check: &pb.Spec_Http{Http: s}} }

// ordinary is an ordinary web server.
var ordinary = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		fmt.Fprintf(w, "%s %s %s\n", r.Method, r.RequestURI, r.Host)
		for _, name := range []string{"User-Agent", "Accept", "Accept-Encoding", "X-Asked", "Cookie"} {
			fmt.Fprintf(w, "%s: %s\n", name, r.Header.Get(name))
		}
	case "/gzip":
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "plain content")
		_ = z.Close()
	case "/large":
		_, _ = w.Write(make([]byte, 200<<10))
	case "/error":
		http.Error(w, "broken \u00e4", http.StatusBadGateway)
	case "/early":
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "late")
	case "/empty":
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("X-Page", "yes")
		_, _ = io.WriteString(w, "hello")
	}
})

// website is a web server with a trusted certificate for www.example, at www.example, and a world to see it from.
func website(t testing.TB, handler http.Handler, protocols ...string) (*Env, uint16) {
	t.Helper()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	config := serverConfig(cert)
	config.NextProtos = protocols
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), config, handler))
	env := newEnv(t, probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}})
	env.Roots = roots
	return env, host.Addr().Port()
}

func TestAnExchange(t *testing.T) {
	t.Parallel()
	both, port := website(t, ordinary)
	plain := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), nil, ordinary))
	secure := fmt.Sprintf("https://www.example:%d", port)
	clear := fmt.Sprintf("http://127.0.0.2:%d", plain.Addr().Port())
	const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, tt := range []struct {
		name    string
		spec    *pb.HTTPSpec
		version string
		status  uint32
		size    int64
		cut     bool
		excerpt string
		failure pb.Failure
	}{
		{"HTTP/2 where the server agrees to it", &pb.HTTPSpec{Url: secure + "/"}, "HTTP/2.0", 200, 5, false, "hello", pb.Failure_FAILURE_NONE},
		{"HTTP/1.1 over TLS if it is asked for", &pb.HTTPSpec{Url: secure + "/", Version: pb.HTTPVersion_HTTP_VERSION_1_1}, "HTTP/1.1", 200, 5, false, "hello", pb.Failure_FAILURE_NONE},
		{"HTTP/1.1 in clear", &pb.HTTPSpec{Url: clear}, "HTTP/1.1", 200, 5, false, "hello", pb.Failure_FAILURE_NONE},
		{"a HEAD has no body", &pb.HTTPSpec{Url: clear, Method: "HEAD"}, "HTTP/1.1", 200, 0, false, "", pb.Failure_FAILURE_NONE},
		{"a HEAD over HTTP/2 has none either", &pb.HTTPSpec{Url: secure, Method: "HEAD"}, "HTTP/2.0", 200, 0, false, "", pb.Failure_FAILURE_NONE},
		{"no content is no body", &pb.HTTPSpec{Url: clear + "/empty"}, "HTTP/1.1", 204, 0, false, "", pb.Failure_FAILURE_NONE},
		{"interim responses are skipped", &pb.HTTPSpec{Url: clear + "/early"}, "HTTP/1.1", 200, 4, false, "late", pb.Failure_FAILURE_NONE},
		{"and so they are over HTTP/2", &pb.HTTPSpec{Url: secure + "/early"}, "HTTP/2.0", 200, 4, false, "late", pb.Failure_FAILURE_NONE},
		{"a large body is cut, and no failure", &pb.HTTPSpec{Url: clear + "/large"}, "HTTP/1.1", 200, 65536, true, "", pb.Failure_FAILURE_NONE},
		{"a large body over HTTP/2", &pb.HTTPSpec{Url: secure + "/large"}, "HTTP/2.0", 200, 65536, true, "", pb.Failure_FAILURE_NONE},
		{"an error page has its failure and all of its evidence", &pb.HTTPSpec{Url: secure + "/error"}, "HTTP/2.0", 502, 10, false, "broken ä ", pb.Failure_FAILURE_HTTP_STATUS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := one(t, run(t, both, httpSpec(tt.spec)), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			h := s.GetEvidence().GetHttp()
			if s.GetFailure() != tt.failure || s.GetAttempts() != 1 {
				t.Errorf("%s after %d attempts: %s", Short(s.GetFailure()), s.GetAttempts(), s.GetEvidence().GetText())
			}
			if h.GetVersion() != tt.version || h.GetStatus() != tt.status || h.GetBodySize() != tt.size || h.GetBodyCut() != tt.cut || h.GetBodyExcerpt() != tt.excerpt {
				t.Errorf("evidence: %v", h)
			}
			if sum := h.GetBodySha256(); (sum != "") != (tt.size > 0) || sum == emptyHash {
				t.Errorf("the hash of %d bytes is %q", tt.size, sum)
			}
			// All bytes are of the header or of the body, unless that comes in chunks or goes on.
			if size := h.GetHeaderSize(); (size > 0) != (tt.version == "HTTP/1.1") || size > s.GetEvidence().GetBytesRead()-int32(h.GetBodySize()) {
				t.Errorf("a header of %d bytes, of %d read", size, s.GetEvidence().GetBytesRead())
			}
			first, done := h.GetFirstByte().AsDuration(), h.GetDone().AsDuration()
			if first <= 0 || done < first || done > s.GetDuration().AsDuration() {
				t.Errorf("first byte after %v, done after %v of %v", first, done, s.GetDuration().AsDuration())
			}
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	env, port := website(t, ordinary)
	plain := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), nil, ordinary))
	clear := fmt.Sprintf("http://127.0.0.2:%d", plain.Addr().Port())
	own := "User-Agent: elsewhere/test (+https://github.com/elsewhere-net/elsewhere) Accept: */* Accept-Encoding: "
	for _, tt := range []struct {
		name string
		spec *pb.HTTPSpec
		want string
	}{
		{"no more than there is to say", &pb.HTTPSpec{Url: clear + "/echo?q=1"}, fmt.Sprintf("GET /echo?q=1 127.0.0.2:%d %s X-Asked:  Cookie: ", plain.Addr().Port(), own)},
		{"the same over HTTP/2", &pb.HTTPSpec{Url: fmt.Sprintf("https://WWW.example:%d/echo", port)}, fmt.Sprintf("GET /echo www.example:%d %s X-Asked:  Cookie: ", port, own)},
		{"another Host", &pb.HTTPSpec{Url: clear + "/echo", HostHeader: "other.example"}, "GET /echo other.example " + own + " X-Asked:  Cookie: "},
		{"an IPv6 address as Host has brackets", &pb.HTTPSpec{Url: clear + "/echo", HostHeader: "2001:db8::1"}, "GET /echo [2001:db8::1] " + own + " X-Asked:  Cookie: "},
		{"a path is sent as it was written", &pb.HTTPSpec{Url: clear + "/%65cho?a%20b=%2F"}, fmt.Sprintf("GET /%%65cho?a%%20b=%%2F 127.0.0.2:%d %s X-Asked:  Cookie: ", plain.Addr().Port(), own)},
		{
			"more fields, in place of the probe's own where they are the same",
			&pb.HTTPSpec{Url: clear + "/echo", HostHeader: "h", Headers: []*pb.HeaderField{{Name: "x-asked", Value: "yes"}, {Name: "USER-AGENT", Value: "curl"}}},
			"GET /echo h User-Agent: curl Accept: */* Accept-Encoding:  X-Asked: yes Cookie: ",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := one(t, run(t, env, httpSpec(tt.spec)), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if got := s.GetEvidence().GetHttp().GetBodyExcerpt(); strings.TrimSpace(got) != strings.TrimSpace(tt.want) {
				t.Errorf("sent %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestHeadersAsReceived wants the order and the case of what came, and what is not text escaped.
func TestHeadersAsReceived(t *testing.T) {
	t.Parallel()
	host := must[*probetest.Host](t)(probetest.ListenSaying(at("127.0.0.2"), []byte(
		"HTTP/1.0 203 Non-Auth \x1b[31m\r\nx-B: 2\nX-a:\t 1 \r\nx-B: 3\r\n folded\r\nX-Bad: \xff\x00\u202e\tend\r\nContent-Length: 0\r\n\r\n",
	)))
	s := one(t, run(t, newEnv(t, nil), httpSpec(&pb.HTTPSpec{Url: "http://" + host.Addr().String()})), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
	h := s.GetEvidence().GetHttp()
	got := []string{h.GetVersion(), fmt.Sprint(h.GetStatus()), h.GetReason()}
	for _, f := range h.GetHeaders() {
		got = append(got, f.GetName()+"="+f.GetValue())
	}
	want := []string{"HTTP/1.0", "203", `Non-Auth \x1b[31m`, "x-B=2", "X-a=1", "x-B=3 folded", `X-Bad=\xff\x00\u202e` + "\tend", "Content-Length=0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// TestALargeHeader: one that CDNs bear is no failure; the beginning of it is kept, and all of it is looked at.
func TestALargeHeader(t *testing.T) {
	t.Parallel()
	large := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 40 {
			w.Header().Set(fmt.Sprintf("X-%02d", i), strings.Repeat("y", 1000))
		}
		_, _ = io.WriteString(w, "hello")
	})
	for _, protocol := range bothVersions {
		env, port := website(t, large, protocol)
		s := one(t, run(t, env, httpSpec(&pb.HTTPSpec{Url: fmt.Sprintf("https://www.example:%d/", port), ExpectHeader: []string{"x-39: ^y+$"}})), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
		h := s.GetEvidence().GetHttp()
		if s.GetFailure() != pb.Failure_FAILURE_NONE || h.GetBodyExcerpt() != "hello" || len(h.GetHeaders()) < 15 || len(h.GetHeaders()) > 17 {
			t.Errorf("%s: %s, %d header fields: %v", protocol, Short(s.GetFailure()), len(h.GetHeaders()), s.GetEvidence().GetText())
		}
	}
}

func TestCompressedContent(t *testing.T) {
	t.Parallel()
	env, port := website(t, ordinary)
	h := one(t, run(t, env, httpSpec(&pb.HTTPSpec{Url: fmt.Sprintf("https://www.example:%d/gzip", port), ExpectBody: "^plain content$"})),
		pb.StepKind_STEP_KIND_HTTP_EXCHANGE).GetEvidence().GetHttp()
	sum := sha256.Sum256([]byte("plain content"))
	if h.GetBodySha256() != hex.EncodeToString(sum[:]) {
		t.Errorf("the hash is %s, want that of the content", h.GetBodySha256())
	}
	if h.GetBodyExcerpt() != "plain content" || h.GetBodySize() == 13 || len(h.GetUnmet()) != 0 {
		t.Errorf("want the content decoded and the size as it was sent: %v", h)
	}
}

func TestPinnedAddressWithAnotherName(t *testing.T) {
	t.Parallel()
	names := make(chan string, 8)
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example", "sni.example"}}, true)
	config := serverConfig(cert)
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), config, ordinary))
	env := newEnv(t, nil)
	env.Roots = roots
	for _, tt := range []struct {
		name string
		spec *pb.HTTPSpec
		sni  string
	}{
		{"the Host's name is asked for", &pb.HTTPSpec{HostHeader: "www.example:8443"}, "www.example"},
		{"server_name goes before it", &pb.HTTPSpec{HostHeader: "www.example", ServerName: "sni.example"}, "sni.example"},
		{"an address is not sent", &pb.HTTPSpec{}, ""},
	} {
		tt.spec.Url = "https://" + host.Addr().String() + "/echo"
		r := run(t, env, httpSpec(tt.spec))
		s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
		if got := <-names; got != tt.sni {
			t.Errorf("%s: sent %q, want %q", tt.name, got, tt.sni)
		}
		if host := s.GetEvidence().GetHttp().GetHost(); tt.spec.GetHostHeader() != "" && host != tt.spec.GetHostHeader() {
			t.Errorf("%s: Host %q", tt.name, host)
		}
		// The certificate is for neither address: that is said, and does not stop the exchange.
		mismatch := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE).GetFailure() == pb.Failure_FAILURE_CERT_NAME_MISMATCH
		if mismatch != (tt.sni == "") || s.GetFailure() != pb.Failure_FAILURE_NONE {
			t.Errorf("%s: mismatch %v, exchange %v", tt.name, mismatch, s)
		}
	}
}

func TestHTTPVersionAgreement(t *testing.T) {
	t.Parallel()
	env, port := website(t, ordinary, "http/1.1")
	url := fmt.Sprintf("https://www.example:%d/", port)
	s := one(t, run(t, env, httpSpec(&pb.HTTPSpec{Url: url})), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
	if s.GetEvidence().GetHttp().GetVersion() != "HTTP/1.1" || s.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("want HTTP/1.1 of a server that speaks no other: %v", s)
	}
	r := run(t, env, httpSpec(&pb.HTTPSpec{Url: url, Version: pb.HTTPVersion_HTTP_VERSION_2}))
	if s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); s.GetFailure() != pb.Failure_FAILURE_HTTP_MALFORMED || !strings.Contains(s.GetEvidence().GetText(), "HTTP/2") {
		t.Errorf("want a refusal of HTTP/2: %v", s)
	}
}

func TestTheSecondExchange(t *testing.T) {
	t.Parallel()
	abort := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Abort))
	hang := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.HangUp))
	for _, tt := range []struct {
		name string
		addr netip.AddrPort
		want pb.Failure
	}{
		{"an RST is seen twice, beside the controls", abort.Addr(), pb.Failure_FAILURE_HTTP_RESET},
		{"and so is a FIN", hang.Addr(), pb.Failure_FAILURE_HTTP_CLOSED},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, newEnv(t, nil), httpSpec(&pb.HTTPSpec{Url: "http://" + tt.addr.String() + "/"}))
			s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if s.GetFailure() != tt.want || s.GetAttempts() != 2 || len(s.GetEvidence().GetTries()) != 2 {
				t.Errorf("step: %v", s)
			}
			if len(steps(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL)) == 0 {
				t.Error("no controls")
			}
		})
	}
	t.Run("one that works settles it", func(t *testing.T) {
		t.Parallel()
		env, port := website(t, ordinary)
		dials := 0
		env.Connect = func(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
			conn, ev, err := Connect(ctx, addr, opts)
			if addr.Port() == port {
				if dials++; dials == 1 {
					conn = &deafConn{Conn: conn}
				}
			}
			return conn, ev, err
		}
		r := run(t, env, httpSpec(&pb.HTTPSpec{Url: fmt.Sprintf("https://www.example:%d/", port)}))
		s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
		if s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetAttempts() != 2 || s.GetEvidence().GetHttp().GetVersion() != "HTTP/2.0" {
			t.Errorf("step: %v", s)
		}
	})
}

// deafConn is a connection that breaks off after the handshake's few reads.
type deafConn struct {
	net.Conn
	writes int
}

func (c *deafConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes > 2 { // A hello and a finish.
		return 0, io.ErrUnexpectedEOF
	}
	return c.Conn.Write(p)
}

func TestExpectations(t *testing.T) {
	t.Parallel()
	env, port := website(t, ordinary)
	base := fmt.Sprintf("https://www.example:%d", port)
	none := []pb.Failure(nil)
	for _, tt := range []struct {
		name  string
		spec  *pb.HTTPSpec
		want  []pb.Failure
		unmet string
	}{
		{"by default below 400", &pb.HTTPSpec{}, none, ""},
		{"by default not 400 and above", &pb.HTTPSpec{Url: "/error"}, []pb.Failure{pb.Failure_FAILURE_HTTP_STATUS}, "the status is 502, and below 400 was expected"},
		{"an error that is expected", &pb.HTTPSpec{Url: "/error", ExpectStatus: []string{"404", "5xx"}}, none, ""},
		{"a range", &pb.HTTPSpec{ExpectStatus: []string{"200-204"}}, none, ""},
		{"outside of all of them", &pb.HTTPSpec{ExpectStatus: []string{"3xx", "404"}}, []pb.Failure{pb.Failure_FAILURE_HTTP_STATUS}, "the status is 200, and 3xx or 404 was expected"},
		{"a field that matches, whatever its case", &pb.HTTPSpec{ExpectHeader: []string{"x-page: ^y"}}, none, ""},
		{"a field that does not", &pb.HTTPSpec{ExpectHeader: []string{"X-Page: ^n"}}, []pb.Failure{pb.Failure_FAILURE_HTTP_BODY_MISMATCH}, `the header field X-Page is "yes", and "^n" was expected`},
		{"a field that is not there", &pb.HTTPSpec{ExpectHeader: []string{"X-None: .*"}}, []pb.Failure{pb.Failure_FAILURE_HTTP_BODY_MISMATCH}, `there is no header field X-None, and one that matches ".*" was expected`},
		{"a body that matches", &pb.HTTPSpec{ExpectBody: "^hel+o$"}, none, ""},
		{"a body that does not", &pb.HTTPSpec{ExpectBody: "good ?bye"}, []pb.Failure{pb.Failure_FAILURE_HTTP_BODY_MISMATCH}, `the body of 5 bytes does not match "good ?bye"`},
		{"a body that was cut", &pb.HTTPSpec{Url: "/large", ExpectBody: "end$"}, []pb.Failure{pb.Failure_FAILURE_HTTP_BODY_MISMATCH}, `the first 65536 bytes of the body do not match "end$"; the rest was not read`},
		{
			"all that is wrong is said at once",
			&pb.HTTPSpec{Url: "/error", ExpectBody: "^fine"},
			[]pb.Failure{pb.Failure_FAILURE_HTTP_STATUS, pb.Failure_FAILURE_HTTP_BODY_MISMATCH},
			`the status is 502, and below 400 was expected|the body of 10 bytes does not match "^fine"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.spec.Url = base + tt.spec.GetUrl()
			s := one(t, run(t, env, httpSpec(tt.spec)), pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if !slices.Equal(s.GetFailures(), tt.want) || s.GetAttempts() != 1 {
				t.Errorf("failures %v after %d attempts, want %v", s.GetFailures(), s.GetAttempts(), tt.want)
			}
			if got := strings.Join(s.GetEvidence().GetHttp().GetUnmet(), "|"); got != tt.unmet {
				t.Errorf("unmet: %s\nwant:  %s", got, tt.unmet)
			}
		})
	}
}

func TestNoTimeForAnExchange(t *testing.T) {
	t.Parallel()
	mute := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	began := time.Now()
	r := Run(t.Context(), newEnv(t, nil), newJob(httpSpec(&pb.HTTPSpec{Url: "http://" + mute.Addr().String()}), time.Second))
	s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
	if s.GetFailure() != pb.Failure_FAILURE_AGENT_DEADLINE || time.Since(began) > time.Second+slack {
		t.Errorf("after %v: %v", time.Since(began), s)
	}
}
