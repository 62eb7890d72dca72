package probe

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// someCDN is a profile like that of a CDN with old tastes: no TLS 1.3, no ChaCha20, and SSL 3.0 alone once that
// is asked for.
func someCDN() *pb.Profile {
	return &pb.Profile{
		Name:     "cdn",
		Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2"}, DefaultVersions: []string{"TLS 1.0", "TLS 1.1", "TLS 1.2"},
		Ssl3ExcludesOthers: true,
		CipherSuites: []string{
			"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "0xC024", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
			"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA",
			"TLS_RSA_WITH_3DES_EDE_CBC_SHA", "TLS_RSA_WITH_RC4_128_MD5",
		},
		Groups:           []string{"secp256r1", "secp384r1", "x25519"},
		SignatureSchemes: []string{"rsa_pkcs1_sha256", "ecdsa_secp256r1_sha256"},
		Names:            []pb.NameSource{pb.NameSource_NAME_SOURCE_ORIGIN, pb.NameSource_NAME_SOURCE_HOST},
		ServerName:       pb.NameSource_NAME_SOURCE_HOST,
		UserAgent:        "A CDN",
	}
}

func originSpec(o *pb.OriginSpec) *pb.Spec {
	if o.GetProfile() == nil {
		o.Profile = someCDN()
	}
	return &pb.Spec{Check: &pb.Spec_Origin{Origin: o}}
}

// met are the handshakes beside the target's, by variant.
func met(t testing.TB, r *pb.Result) map[pb.Variant]*pb.Step {
	t.Helper()
	out := map[pb.Variant]*pb.Step{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT) {
		if out[s.GetVariant()] != nil {
			t.Errorf("%v twice", s.GetVariant())
		}
		out[s.GetVariant()] = s
		if beside := r.GetSteps()[s.GetBeside()]; s.Beside == nil || beside.GetRole() != pb.Role_ROLE_TARGET || beside.GetKind() != s.GetKind() || beside.GetAddress() != s.GetAddress() {
			t.Errorf("%v stands beside %v", s.GetVariant(), beside)
		}
	}
	return out
}

// TestAHealthyOrigin: the agent comes as the CDN does, and says it in few handshakes.
func TestAHealthyOrigin(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example", "origin.example"}, RSABits: 2048}, true)
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), serverConfig(cert), ordinary))
	env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
	env.Roots = roots
	url := fmt.Sprintf("https://origin.example:%d/echo", host.Addr().Port())
	for _, tt := range []struct {
		name     string
		spec     *pb.OriginSpec
		sent     string
		decides  string
		others   map[pb.Variant]string // The server_name of each.
		expected string
	}{
		{
			"the origin's own name", &pb.OriginSpec{Url: url}, "origin.example", "origin.example",
			map[pb.Variant]string{pb.Variant_VARIANT_PROFILE_OFFER: "origin.example", pb.Variant_VARIANT_NO_NAME: ""},
			fmt.Sprintf("GET /echo origin.example:%d User-Agent: A CDN ", host.Addr().Port()),
		},
		{
			"the Host that is forwarded", &pb.OriginSpec{Url: url, HostHeader: "www.example"}, "www.example", "origin.example",
			map[pb.Variant]string{pb.Variant_VARIANT_PROFILE_OFFER: "www.example", pb.Variant_VARIANT_NO_NAME: "", pb.Variant_VARIANT_ORIGIN_NAME: "origin.example"},
			"GET /echo www.example User-Agent: A CDN ",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, env, originSpec(tt.spec))
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			ev := s.GetEvidence().GetTls()
			if s.GetFailure() != pb.Failure_FAILURE_NONE || ev.GetServerName() != tt.sent || ev.GetNames()[0].GetName() != tt.decides {
				t.Errorf("the handshake: %v", s)
			}
			x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if h := x.GetEvidence().GetHttp(); x.GetFailure() != pb.Failure_FAILURE_NONE || h.GetVersion() != "HTTP/1.1" || len(h.GetBodyExcerpt()) < len(tt.expected) || h.GetBodyExcerpt()[:len(tt.expected)] != tt.expected {
				t.Errorf("the exchange: %v", x)
			}
			variants := met(t, r)
			for v, name := range tt.others {
				got := variants[v]
				if got.GetFailure() != pb.Failure_FAILURE_NONE || got.GetName() != name || got.GetEvidence().GetTls().GetServerName() != name {
					t.Errorf("%v: %v", v, got)
				}
			}
			offer := variants[pb.Variant_VARIANT_PROFILE_OFFER].GetEvidence().GetTls()
			if len(ev.GetChain()) != 2 || len(offer.GetChain()) != 1 || offer.GetServed() != 2 || offer.GetChain()[0].GetSha256() != ev.GetChain()[0].GetSha256() {
				t.Errorf("the same chain need not be shown twice: %v", offer)
			}
			if offer.GetVersion() != "TLS 1.2" || offer.GetCipherSuite() != "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" || offer.GetSignatureScheme() != "rsa_pkcs1_sha256" {
				t.Errorf("the CDN's offer: %v", offer)
			}
			if n := len(tt.others); len(variants) != n || len(r.GetSteps()) != n+5 {
				t.Errorf("%d variants, want %d, in %d steps: %v", len(variants), n, len(r.GetSteps()), r)
			}
		})
	}
}

// limited is a web server that speaks TLS as the config says.
func limited(cert tls.Certificate, limit func(*tls.Config)) func(netip.AddrPort) (*probetest.Host, error) {
	config := serverConfig(cert)
	config.NextProtos = []string{"http/1.1"}
	limit(config)
	return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenHTTP(at, config, ordinary) }
}

// TestOffersOfTheClient: what the agent's library cannot do and the CDN can is seen all the same; and what the
// CDN cannot do is told with what the server has.
func TestOffersOfTheClient(t *testing.T) {
	t.Parallel()
	const (
		fine     = pb.Failure_FAILURE_NONE
		version  = pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
		cipher   = pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER
		wanted   = pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
		missing  = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
		nowhere  = pb.Failure_FAILURE_UNSPECIFIED // There is no such step.
		rc4      = "TLS_RSA_WITH_RC4_128_MD5"
		tripled  = "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
		ordinary = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	)
	type offered struct {
		name     string
		listen   func(netip.AddrPort) (*probetest.Host, error)
		versions []string
		want     pb.Failure // Of the CDN's offer.
		suite    string     // That it agrees on.
		own      pb.Failure // Of the agent's handshake.
		exchange pb.Failure
		has      string // The only version that the enumeration finds; empty: there is none.
	}
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}, RSABits: 2048}, true)
	curved, more := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}}, true)
	roots = append(roots, more...)
	ssl3 := probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x000a}}
	suite := func(id uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{id} }
	}
	all(t, func(tt offered) string { return tt.name }, []offered{
		{"SSL 3.0 alone, which is asked for", byHand(ssl3, cert), []string{"SSL 3.0"}, fine, tripled, version, missing, ""},
		{"SSL 3.0 alone, which is not asked for", byHand(ssl3, cert), nil, version, "", version, nowhere, "SSL 3.0"},
		{"with SSL 3.0 nothing else is offered", limited(cert, suite(0xc02f)), []string{"SSL 3.0", "TLS 1.2"}, version, "", fine, fine, "TLS 1.2"},
		{"RC4 with MD5, which no library has", byHand(probetest.FlightServer{Suites: []uint16{0x0004}}, cert), nil, fine, rc4, fine, missing, ""},
		{"3DES", limited(cert, suite(0x000a)), nil, fine, tripled, fine, fine, ""},
		{
			"0xC028, which the agent's library lacks", byHand(probetest.FlightServer{Suites: []uint16{0xc028}}, cert), nil,
			fine, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", fine, missing, "",
		},
		{
			"0xC024, which it lacks too", byHand(probetest.FlightServer{Suites: []uint16{0xc024}}, curved), nil,
			fine, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", fine, missing, "",
		},
		{"ChaCha20 alone", limited(cert, suite(0xcca8)), nil, cipher, "", fine, fine, "TLS 1.2"},
		{"TLS 1.3 alone", limited(cert, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }), nil, version, "", fine, fine, "TLS 1.3"},
		{"a certificate is asked for", limited(cert, func(c *tls.Config) {
			suite(0xc02f)(c)
			c.ClientAuth = tls.RequestClientCert
		}), nil, fine, ordinary, fine, fine, ""},
		{"a certificate is needed", limited(cert, func(c *tls.Config) {
			suite(0xc02f)(c)
			c.ClientAuth = tls.RequireAnyClientCert
		}), nil, fine, ordinary, wanted, nowhere, ""},
	}, func(t *testing.T, tt offered) func(*testing.T) {
		host := must[*probetest.Host](t)(tt.listen(at("127.0.0.2")))
		env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
		env.Roots, env.patience = roots, time.Second
		r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", host.Addr().Port()), Versions: tt.versions}))
		return func(t *testing.T) {
			s := met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]
			ev := s.GetEvidence().GetTls()
			if s.GetFailure() != tt.want || tt.want == fine && ev.GetCipherSuite() != tt.suite {
				t.Errorf("the CDN's offer: %v", s)
			}
			asks := tt.suite == ordinary // Of the servers that are like that, these two.
			if tt.want == fine && (len(ev.GetChain()) == 0 || !ev.GetNames()[0].GetSan() || ev.GetClientCertificateRequested() != asks) {
				t.Errorf("what it shows of the server: %v", ev)
			}
			own := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			if own.GetFailure() != tt.own || tt.own == fine && len(own.GetEvidence().GetTls().GetChain()) != 2 {
				t.Errorf("the agent's handshake: %v", own)
			}
			exchange := nowhere
			for _, x := range steps(r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE, pb.Role_ROLE_TARGET) {
				exchange = x.GetFailure()
			}
			if exchange != tt.exchange {
				t.Errorf("the exchange ends as %s, want %s", Short(exchange), Short(tt.exchange))
			}
			found := steps(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Role_ROLE_VARIANT)
			if len(found) > 1 || (tt.has != "") != (len(found) == 1) {
				t.Fatalf("enumerations: %v", found)
			}
			for _, e := range found {
				for _, v := range e.GetEvidence().GetTls().GetVersions() {
					if v.GetSupported() != (v.GetVersion() == tt.has) {
						t.Errorf("%v", v)
					}
				}
			}
		}
	})
}

// pages is a web server behind the origin's name: a page, a redirect, errors of its own and of another's edge.
var pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/moved":
		http.Redirect(w, r, "/", http.StatusFound)
	case "/broken":
		http.Error(w, "no upstream", http.StatusBadGateway)
	case "/edge":
		w.Header().Set("X-Cache", "Error from cloudfront")
		w.Header().Set("Via", "1.1 0123456789abcdef.cloudfront.net (CloudFront)")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = fmt.Fprint(w, "<H1>502 ERROR</H1>\nCloudFront wasn't able to connect to the origin.\nGenerated by cloudfront (CloudFront)")
	case "/slow":
		<-r.Context().Done()
	default:
		_, _ = fmt.Fprint(w, "hello ", r.Host)
	}
})

// TestWhatOriginsAnswer: every status is noted as it is, and nothing is followed.
func TestWhatOriginsAnswer(t *testing.T) {
	t.Parallel()
	env, port := website(t, pages, "http/1.1")
	clear := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), nil, pages))
	secure := fmt.Sprintf("https://www.example:%d", port)
	for _, tt := range []struct {
		name    string
		spec    *pb.OriginSpec
		status  uint32
		failure pb.Failure
		steps   int // A and AAAA, connect, handshake and two beside it, exchange.
	}{
		{"a page", &pb.OriginSpec{Url: secure + "/"}, 200, pb.Failure_FAILURE_NONE, 7},
		{"a redirect is an answer", &pb.OriginSpec{Url: secure + "/moved"}, 302, pb.Failure_FAILURE_NONE, 7},
		{"a proxy whose own upstream fails", &pb.OriginSpec{Url: secure + "/broken"}, 502, pb.Failure_FAILURE_HTTP_STATUS, 7},
		{"the page of another CDN's edge", &pb.OriginSpec{Url: secure + "/edge"}, 502, pb.Failure_FAILURE_HTTP_STATUS, 7},
		{"http needs no handshake", &pb.OriginSpec{Url: "http://" + strings.Replace(clear.Addr().String(), "127.0.0.2", "www.example", 1) + "/"}, 200, pb.Failure_FAILURE_NONE, 4},
		{"an address needs no resolver", &pb.OriginSpec{Url: "http://" + clear.Addr().String() + "/broken"}, 502, pb.Failure_FAILURE_HTTP_STATUS, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, env, originSpec(tt.spec))
			x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if h := x.GetEvidence().GetHttp(); h.GetStatus() != tt.status || x.GetFailure() != tt.failure || len(h.GetRedirects()) > 0 || (h.GetEdge() != nil) != strings.HasSuffix(tt.spec.GetUrl(), "/edge") {
				t.Errorf("the exchange: %v", x)
			}
			if len(r.GetSteps()) != tt.steps {
				t.Errorf("%d steps, want %d: %v", len(r.GetSteps()), tt.steps, r)
			}
		})
	}
}

// TestPatienceOfTheClient: where there is the time, silence is waited for as long as the client does.
func TestPatienceOfTheClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name               string
		client, left, want time.Duration
	}{
		{"the client's", 20 * time.Second, time.Minute, 20 * time.Second},
		{"the agent's, if there is no time for the client's", 20 * time.Second, 20 * time.Second, httpTimeout},
		{"the agent's, if that is longer", time.Second, time.Minute, httpTimeout},
		{"the agent's, if nothing is known", 0, time.Minute, httpTimeout},
	} {
		p := someCDN()
		p.ResponseTimeout = durationpb.New(tt.client)
		r, err := asClient(&pb.OriginSpec{Url: "http://www.example/", Profile: p}, "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), tt.left)
		if got := r.client.patience(ctx); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		cancel()
	}
}

// TestCertificatesByName: a server with a certificate for each server_name shows which one it has for which, and
// a Host that is forwarded counts by itself.
func TestCertificatesByName(t *testing.T) {
	t.Parallel()
	ca, err := probetest.NewCA("Example", probetest.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{}
	for _, name := range []string{"default.example", "www.example", "origin.example"} { // The first one is the default.
		cert, err := ca.Issue(probetest.Leaf{Names: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = append(config.Certificates, cert)
	}
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), config, pages))
	env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
	env.Roots = append(env.Roots, ca.Root)
	r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", host.Addr().Port()), HostHeader: "www.example"}))
	own := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	variants := met(t, r)
	for _, tt := range []struct {
		step         *pb.Step
		leaf         string
		origin, host bool
		failure      pb.Failure // By the first name, the origin's.
	}{
		{own, "www.example", false, true, pb.Failure_FAILURE_CERT_NAME_MISMATCH},
		{variants[pb.Variant_VARIANT_PROFILE_OFFER], "www.example", false, true, pb.Failure_FAILURE_CERT_NAME_MISMATCH},
		{variants[pb.Variant_VARIANT_ORIGIN_NAME], "origin.example", true, false, pb.Failure_FAILURE_NONE},
		{variants[pb.Variant_VARIANT_NO_NAME], "default.example", false, false, pb.Failure_FAILURE_CERT_NAME_MISMATCH},
	} {
		ev := tt.step.GetEvidence().GetTls()
		want := []*pb.NameMatch{{Name: "origin.example", San: tt.origin}, {Name: "www.example", San: tt.host}}
		same := slices.EqualFunc(ev.GetNames(), want, func(a, b *pb.NameMatch) bool { return proto.Equal(a, b) })
		if tt.step.GetFailure() != tt.failure || len(ev.GetChain()) == 0 || ev.GetChain()[0].GetCommonName() != tt.leaf || !same {
			t.Errorf("%v shows %s", tt.step, tt.leaf)
		}
	}
	if x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); x.GetEvidence().GetHttp().GetBodyExcerpt() != "hello www.example" {
		t.Errorf("the exchange goes on: %v", x)
	}
}

// TestWhoEndsTLS: behind a balancer that passes TCP through, the server's own certificate counts; behind one that
// ends TLS, the balancer's, and what the server's is like nobody sees.
func TestWhoEndsTLS(t *testing.T) {
	t.Parallel()
	self, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}, SelfSigned: true}, false)
	server := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.3"), serverConfig(self), pages))
	through := must[*probetest.Host](t)(probetest.ListenMiddlebox(at("127.0.0.2"), probetest.Middlebox{To: server.Addr()}))
	good, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}}, true)
	balancer := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: server.Addr().String()}) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, // As such balancers do.
	}
	ends := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), serverConfig(good), balancer))
	env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
	env.Roots = roots
	for _, tt := range []struct {
		name string
		port uint16
		want pb.Failure
	}{
		{"it passes TCP through", through.Addr().Port(), pb.Failure_FAILURE_CERT_SELF_SIGNED},
		{"it ends TLS", ends.Addr().Port(), pb.Failure_FAILURE_NONE},
	} {
		r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", tt.port)}))
		own, offer := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE), met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]
		if own.GetFailure() != tt.want || offer.GetFailure() != tt.want {
			t.Errorf("%s: %v\n%v", tt.name, own, offer)
		}
		if x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); x.GetEvidence().GetHttp().GetStatus() != 200 {
			t.Errorf("%s: %v", tt.name, x)
		}
	}
}

// TestRootsOfTheClient: a client may trust an authority that nobody else does.
func TestRootsOfTheClient(t *testing.T) {
	t.Parallel()
	cert, own := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}}, true)
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), serverConfig(cert), pages))
	env := newEnv(t, nil)
	env.Chains = &Chains{}
	for _, tt := range []struct {
		name    string
		roots   string
		want    pb.Failure
		trusted string
	}{
		{"not by the agent's roots", "", pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT, bundleName()},
		{"by the client's", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own[0].Raw})), pb.Failure_FAILURE_NONE, bundleName() + " + profile's"},
		{"and not by the agent's after that", "", pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT, bundleName()},
	} {
		spec := tlsSpec("127.0.0.2", host.Addr().Port(), "origin.example")
		spec.GetTls().Profile = someCDN()
		spec.GetTls().Profile.Roots = tt.roots
		r := run(t, env, spec)
		for _, s := range append(steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT), one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)) {
			if s.GetFailure() != tt.want || s.GetEvidence().GetTls().GetRoots() != tt.trusted {
				t.Errorf("%s: %v", tt.name, s)
			}
		}
		if n := len(met(t, r)); n != 1 {
			t.Errorf("a check of TLS makes the client's offer alone: %d variants", n)
		}
	}
}

// TestAnOriginsOwnServers: all of them are asked, at every address, for both families.
func TestAnOriginsOwnServers(t *testing.T) {
	t.Parallel()
	_, env := grow(t, tree(), www())
	closed := must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2")))
	r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("http://www.zone.tld:%d/", closed.Addr().Port())}))
	want := []string{
		"A www.zone.tld 127.1.0.3 none", "A www.zone.tld 127.1.0.4 none",
		"AAAA www.zone.tld 127.1.0.3 dns_nodata", "AAAA www.zone.tld 127.1.0.4 dns_nodata", "NS zone.tld 127.1.0.X none",
	}
	if diff := cmp.Diff(want, either(told(r, pb.Role_ROLE_AUTHORITY), want)); diff != "" {
		t.Error(diff)
	}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
		if serial := s.GetEvidence().GetAuthority().SoaSerial; serial == nil || *serial != 7 {
			t.Errorf("without the zone's serial: %v", s)
		}
		if answers := s.GetEvidence().GetReplies()[0].GetAnswers(); s.GetType() == "A" && (len(answers) != 1 || answers[0].GetTtl() != 60) {
			t.Errorf("without the records: %v", s)
		}
	}
}

// TestVariantsOfAnOriginAreMadeOnce: a name that something on the path minds is told as ever, and no server_name
// is not tried twice.
func TestVariantsOfAnOriginAreMadeOnce(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}}, true)
	server := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	box := must[*probetest.Host](t)(probetest.ListenMiddlebox(at("127.0.0.2"), probetest.Middlebox{To: server.Addr(), Name: "origin.example", Do: probetest.Abort}))
	env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
	env.Roots = roots
	r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", box.Addr().Port())}))
	if s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE); s.GetFailure() != pb.Failure_FAILURE_TLS_RESET {
		t.Errorf("%v", s)
	}
	got := map[pb.Variant]pb.Failure{}
	for v, s := range met(t, r) {
		got[v] = s.GetFailure()
	}
	const fine, reset = pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_TLS_RESET
	want := map[pb.Variant]pb.Failure{
		pb.Variant_VARIANT_PROFILE_OFFER: reset, pb.Variant_VARIANT_NO_NAME: fine, pb.Variant_VARIANT_OTHER_NAME: pb.Failure_FAILURE_NONE,
		pb.Variant_VARIANT_SMALL_HELLO: reset, pb.Variant_VARIANT_SMALL_SEGMENTS: reset,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if e := steps(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Role_ROLE_VARIANT); len(e) > 0 {
		t.Errorf("nothing is known of what the server has, and asking it is no use: %v", e)
	}
}

// TestAnOriginOfManyAddresses: its Result stays within its bound, and leaves what the judge compares.
func TestAnOriginOfManyAddresses(t *testing.T) {
	t.Parallel()
	names := []string{"origin.example", "www.example"}
	for i := range 30 {
		names = append(names, fmt.Sprintf("a-rather-long-name-%d.shop.example", i))
	}
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: names, RSABits: 2048}, true)
	var records []string
	port := uint16(0)
	for i := range 20 {
		host := must[*probetest.Host](t)(probetest.ListenHTTP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 4, byte(i + 1)}), port), serverConfig(cert), pages))
		port = host.Addr().Port()
		records = append(records, "origin.example. 60 IN A "+host.Addr().Addr().String())
	}
	env := newEnv(t, probetest.Zone{"origin.example": {Records: records}})
	env.Roots = roots
	r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", port), HostHeader: "www.example"}))
	t.Logf("%d steps in %d bytes", len(r.GetSteps()), proto.Size(r))
	if n := proto.Size(r); n > maxResult {
		t.Errorf("a result of %d bytes", n)
	}
	handshakes := append(steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT), steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_TARGET)...)
	if len(handshakes) != 4*maxAddresses {
		t.Errorf("%d handshakes at %d addresses", len(handshakes), maxAddresses)
	}
	for _, s := range handshakes {
		ev := s.GetEvidence().GetTls()
		if s.GetFailure() != pb.Failure_FAILURE_NONE || len(ev.GetChain()) == 0 || ev.GetChain()[0].GetSha256() == "" || ev.GetChain()[0].GetKey() == "" || len(ev.GetNames()) != 2 {
			t.Fatalf("%v", s)
		}
	}
}

// TestProfilesAtTheDoor: what no agent could do is refused, and the field is named.
func TestProfilesAtTheDoor(t *testing.T) {
	t.Parallel()
	with := func(change func(*pb.OriginSpec)) *pb.Spec {
		o := &pb.OriginSpec{Url: "https://origin.example/", Profile: someCDN()}
		change(o)
		return &pb.Spec{Check: &pb.Spec_Origin{Origin: o}}
	}
	tlsWith := func(p *pb.Profile) *pb.Spec {
		return &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "origin.example", Profile: p}}}
	}
	for _, tt := range []struct {
		name  string
		spec  *pb.Spec
		field string // That is wrong. Empty: none.
		door  bool   // Whether an agent would refuse the job too.
	}{
		{"a whole profile", with(func(*pb.OriginSpec) {}), "", false},
		{"a profile of which little is known", with(func(o *pb.OriginSpec) {
			o.Profile = &pb.Profile{Name: "balancer", Verification: pb.Verification_VERIFICATION_NONE}
		}), "", false},
		{"no profile", with(func(o *pb.OriginSpec) { o.Profile = nil }), "origin.profile", true},
		{"a profile's name alone", with(func(o *pb.OriginSpec) { o.Profile = &pb.Profile{Name: "cdn"} }), "origin.profile", true},
		{"a name alone, for TLS", tlsWith(&pb.Profile{Name: "cdn"}), "tls.profile", true},
		{"a whole one, for TLS", tlsWith(someCDN()), "", false},
		{"a suite that nobody knows", with(func(o *pb.OriginSpec) { o.Profile.CipherSuites = []string{"TLS_BEST"} }), "origin.profile", false},
		{"a group that nobody knows, for TLS", tlsWith(&pb.Profile{Groups: []string{"circle"}}), "tls.profile", false},
		{"a suite by its number", with(func(o *pb.OriginSpec) { o.Profile.CipherSuites = []string{"0xC028"} }), "", false},
		{"no suite for the version", with(func(o *pb.OriginSpec) {
			o.Profile.Versions, o.Profile.DefaultVersions = append(o.Profile.GetVersions(), "TLS 1.3"), []string{"TLS 1.2", "TLS 1.3"}
		}), "origin.profile", false},
		{"a version that it cannot be made to speak", with(func(o *pb.OriginSpec) { o.Versions = []string{"TLS 1.3"} }), "origin.versions", false},
		{"an address of the other family", &pb.Spec{Family: pb.Family_FAMILY_IPV6, Check: with(func(o *pb.OriginSpec) { o.Url = "http://192.0.2.1/" }).GetCheck()}, "origin.url", true},
		{"a URL of another kind", with(func(o *pb.OriginSpec) { o.Url = "ftp://origin.example/" }), "origin.url", true},
		{"a Host that is none", with(func(o *pb.OriginSpec) { o.HostHeader = "a b" }), "origin.host_header", true},
		{"a User-Agent that ends its line", with(func(o *pb.OriginSpec) { o.Profile.UserAgent = "a\r\nHost: b" }), "origin.profile.user_agent", true},
		{"a port that should refuse", &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "a.example", Port: 1, Expect: pb.Reachability_REACHABILITY_REFUSED}}}, "", false},
	} {
		err := Validate(tt.spec)
		field := ""
		if at := (*SpecError)(nil); errors.As(err, &at) {
			field = at.Field
		}
		if (err != nil) != (tt.field != "") || field != tt.field {
			t.Errorf("%s: %v, want %q to be wrong", tt.name, err, tt.field)
		}
		if err := wellFormed(tt.spec); (err != nil) != tt.door {
			t.Errorf("%s: an agent says %v", tt.name, err)
		}
	}
}

// TestAnOfferThatThisAgentDoesNotKnow: a profile may be newer than the agent.
func TestAnOfferThatThisAgentDoesNotKnow(t *testing.T) {
	t.Parallel()
	env, port := website(t, pages, "http/1.1")
	p := someCDN()
	p.CipherSuites = append(p.GetCipherSuites(), "TLS_OF_TOMORROW")
	r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://www.example:%d/", port), Profile: p}))
	if s := met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]; s.GetFailure() != pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING || !strings.Contains(s.GetEvidence().GetText(), "TLS_OF_TOMORROW") {
		t.Errorf("%v", s)
	}
	if x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); x.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("the rest goes on: %v", x)
	}
}
