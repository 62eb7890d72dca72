package cli_test

import (
	"crypto/tls"
	"encoding/csv"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The addresses of the little internet that a real network of two agents looks at.
const (
	rootServer, tldServer, firstServer, secondServer = "127.79.0.1", "127.79.0.2", "127.79.0.3", "127.79.0.4"
	webServer, otherServer                           = "127.79.0.10", "127.79.0.11"
)

// must fails the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// in makes the machine use a network, as its administrator.
func (w world) in(t *testing.T, n *network.Network) world {
	t.Helper()
	w["ELSEWHERE_COORDINATOR"], w["ELSEWHERE_CA"], w["ELSEWHERE_TOKEN"] = n.Addr(), n.CA(), must[string](t)(n.Token())
	return w
}

// closing closes a server when the test ends.
func closing[T interface{ Close() error }](t *testing.T, v T) T {
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// records are the zones of the little internet, each at its servers.
func records() map[string]probetest.Nameserver {
	zone := func(serial int) []string {
		return []string{
			fmt.Sprintf("zone.tld. 300 IN SOA ns1.zone.tld. admin.zone.tld. %d 1 1 1 60", serial),
			"zone.tld. 300 IN NS ns1.zone.tld.", "zone.tld. 300 IN NS ns2.zone.tld.",
			"ns1.zone.tld. 300 IN A " + firstServer, "ns2.zone.tld. 300 IN A " + secondServer,
			"www.zone.tld. 60 IN A " + webServer,
		}
	}
	return map[string]probetest.Nameserver{
		rootServer: {Zones: map[string][]string{".": {
			". 1 IN SOA a. b. 1 1 1 1 1", ". 1 IN NS a.root.", "a.root. 1 IN A " + rootServer,
			"tld. 1 IN NS ns.tld.", "ns.tld. 1 IN A " + tldServer,
		}}},
		tldServer: {Zones: map[string][]string{"tld.": {
			"tld. 1 IN SOA a. b. 1 1 1 1 1", "tld. 1 IN NS ns.tld.", "ns.tld. 1 IN A " + tldServer,
			"zone.tld. 1 IN NS ns1.zone.tld.", "zone.tld. 1 IN NS ns2.zone.tld.", "ns1.zone.tld. 1 IN A " + firstServer, "ns2.zone.tld. 1 IN A " + secondServer,
		}}},
		firstServer:  {Zones: map[string][]string{"zone.tld.": zone(7)}},
		secondServer: {Zones: map[string][]string{"zone.tld.": zone(7)}},
	}
}

// internet is a little internet with a real network of two agents that look at it.
type internet struct {
	world
	web, plain netip.AddrPort // over TLS, and in clear
}

// page answers a request.
func page(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/old":
		http.Redirect(w, r, "/", http.StatusFound)
	case "/broken":
		w.WriteHeader(http.StatusBadGateway)
	default:
		w.Header().Set("X-Host", r.Host)
		_, _ = fmt.Fprintf(w, "hello from %s", r.Proto)
	}
}

// newInternet starts all of it.
func newInternet(t *testing.T) internet {
	t.Helper()
	ca := must[*probetest.CA](t)(probetest.NewCA("Test", probetest.CAOptions{}))
	cert := must[tls.Certificate](t)(ca.Issue(probetest.Leaf{Names: []string{"www.zone.tld"}}))
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	at := netip.AddrPortFrom(netip.MustParseAddr(webServer), 0)
	web := closing(t, must[*probetest.Host](t)(probetest.ListenHTTP(at, config, http.HandlerFunc(page))))
	plain := closing(t, must[*probetest.Host](t)(probetest.ListenHTTP(at, nil, http.HandlerFunc(page))))
	tree := closing(t, must[*probetest.Tree](t)(probetest.ServeTree(records())))
	resolver := func(ip, address string) *probetest.DNSServer {
		zone := probetest.Zone{"www.zone.tld": {Records: []string{"www.zone.tld. 42 IN A " + address}}}
		return closing(t, must[*probetest.DNSServer](t)(probetest.ServeDNS(netip.AddrPortFrom(netip.MustParseAddr(ip), 0), zone, true)))
	}
	var agents []network.Agent
	for i, region := range []string{"eu-west", "us-east"} {
		agents = append(agents, network.Agent{ID: region + "-1", Vantage: &pb.Vantage{Region: region, Asn: uint32(64500 + i)}, Env: &probe.Env{
			Resolvers: []netip.AddrPort{resolver(fmt.Sprintf("127.79.0.%d", 53+i), webServer).Addr()},
			Hints:     []netip.AddrPort{tree.At(rootServer)}, Controls: []string{plain.Addr().String()},
			Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.79.0.0/16")}},
		}})
		agents[i].Env.Roots = append(agents[i].Env.Roots, ca.Root)
	}
	n := must[*network.Network](t)(network.Start(t.Context(), network.Options{Dir: t.TempDir(), Agents: agents}))
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	public := resolver(otherServer, webServer).Addr()
	w := newWorld(t).in(t, n)
	w["PUBLIC"] = public.String()
	return internet{w, web.Addr(), plain.Addr()}
}

// TestARealNetworkAnswersEachCheck asks each check of a real network, by the words that people type.
func TestARealNetworkAnswersEachCheck(t *testing.T) {
	i := newInternet(t)
	secure := fmt.Sprintf("https://www.zone.tld:%d", i.web.Port())
	clear := fmt.Sprintf("http://www.zone.tld:%d", i.plain.Port())
	host := fmt.Sprintf("www.zone.tld:%d", i.web.Port())
	for name, tc := range map[string]struct {
		line string
		code int
		says []string
	}{
		"an answer and how long it may be kept": {"dns www.zone.tld", 0, []string{"✓ " + webServer + " ttl 42"}},
		"the zone's own servers":                {"dns www.zone.tld --authoritative", 0, []string{"zone zone.tld  (all 2 agents)", "ns1.zone.tld  " + firstServer, "serial 7"}},
		"the way down from the root":            {"dns www.zone.tld +trace", 0, []string{"from the root down", "→ tld", "→ zone.tld (2 servers)"}},
		"public resolvers, apart":               {"dns www.zone.tld --public=" + i.world["PUBLIC"], 0, []string{"public resolvers  (all 2 agents)", i.world["PUBLIC"] + "    ✓ " + webServer}},
		"a server of one's choice, over TCP":    {"dns www.zone.tld @" + i.world["PUBLIC"] + " +tcp +norec -v", 0, []string{"@" + i.world["PUBLIC"], "TCP  NOERROR"}},
		"all of a query":                        {"dns www.zone.tld -v", 0, []string{"query www.zone.tld A @127.79.0.5", "UDP  NOERROR", "www.zone.tld  42  A  " + webServer}},
		"distinct answers alone":                {"dns www.zone.tld +short", 0, []string{"eu-west\t" + webServer + "\nus-east\t" + webServer + "\n"}},
		"a connect":                             {"tcp " + host, 0, []string{i.web.String() + " ✓"}},
		"a connect in depth":                    {"tcp " + host + " -v", 0, []string{"tcp " + i.web.String() + "  from 127."}},
		"a path":                                {"tcp " + host + " --path", 0, []string{"path to " + i.web.String() + ": ", " 1  " + webServer}},
		"what a server accepts":                 {"tls " + host + " --enumerate", 0, []string{"what " + i.web.String() + " accepts", "TLS 1.3  3 suites", "TLS 1.1  no ("}},
		"an offer":                              {"tls " + host + " --tls-version tls1.2 --ciphers ECDHE-ECDSA-AES256-GCM-SHA384 --groups P-256 -v", 0, []string{"TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "secp256r1"}},
		"a handshake":                           {"tls " + host, 0, []string{i.web.String() + " ✓ TLS 1.3"}},
		"a handshake for a CDN":                 {"tls " + host + " --profile cloudfront -v", 0, []string{"with the profile's ClientHello: ✓ TLS 1.2"}},
		"a handshake for a CDN that refuses it": {"tls " + i.web.String() + " --profile cloudfront --servername other.zone.tld", 1, []string{"cause host_not_forwarded, cloudfront: 502"}},
		"an origin":                             {"origin " + secure + "/", 0, []string{"eu-west  ✓ Amazon CloudFront can serve it, if it gets there: 1 agent, " + i.web.String(), "us-east  ✓"}},
		"an origin in clear":                    {"origin " + clear + "/broken --profile aws-alb", 1, []string{"eu-west  ✗ 502: The target itself answered with an error"}},
		"a handshake in depth":                  {"tls " + host + " -v", 0, []string{"TLS_AES_128_GCM_SHA256", "for www.zone.tld", "path: "}},
		"a certificate for another name":        {"tls " + i.web.String() + " --servername other.zone.tld", 1, []string{"✗ cert_name_mismatch", "the certificate is not for other.zone.tld; it is for www.zone.tld"}},
		"a page":                                {"http " + secure + "/", 0, []string{i.web.String() + " ✓ 200 HTTP/2"}},
		"a page in clear":                       {"http " + clear + "/", 0, []string{i.plain.String() + " ✓ 200 HTTP/1.1"}},
		"a page in depth":                       {"http " + secure + "/ --http1.1 -v", 0, []string{"dns ", "connect ", "tls ", "first byte ", "done ", "| hello from HTTP/1.1"}},
		"a page by another Host":                {"http " + clear + "/ --host-header a.example --expect-header X-Host:^a\\.example$", 0, []string{"✓ 200"}},
		"a page that is broken":                 {"http " + secure + "/broken", 1, []string{"✗ http_status 502"}},
		"a page that may be broken":             {"http " + secure + "/broken --expect-status 502", 0, []string{"✓ 502"}},
		"a redirect that is followed":           {"http " + secure + "/old --follow", 0, []string{"redirect 302 → ", "✓ 200"}},
		"a page that says something else":       {"http " + secure + "/ --expect-body goodbye", 1, []string{"✗ http_body_mismatch", "not as expected: "}},
	} {
		t.Run(name, func(t *testing.T) {
			got := i.run(t, fields(tc.line)...)
			if got.code != tc.code {
				t.Errorf("%s: exit %d, want %d\n%s%s", tc.line, got.code, tc.code, got.out, got.err)
			}
			if strings.Count(got.out+got.err, " from world") > 1 {
				t.Errorf("%s: the question is there twice\n%s%s", tc.line, got.out, got.err)
			}
			for _, want := range tc.says {
				if !strings.Contains(got.out, want) {
					t.Errorf("%s: no %q in\n%s%s", tc.line, want, got.out, got.err)
				}
			}
		})
	}
	t.Run("show says what the check said", func(t *testing.T) { showsTheSame(t, i, host) })
	t.Run("CSV has the answers", func(t *testing.T) {
		rows, err := csv.NewReader(strings.NewReader(i.run(t, "dns", "www.zone.tld", "--format", "csv").out)).ReadAll()
		if err != nil || len(rows) != 3 || rows[1][14] != webServer || rows[0][14] != "answers" {
			t.Errorf("%v, %q", err, rows)
		}
	})
	t.Run("JSON has everything", func(t *testing.T) {
		m := &pb.Measurement{}
		got := i.run(t, "dns", "www.zone.tld", "--authoritative", "+nsid", "-J")
		if err := protojson.Unmarshal([]byte(got.out), m); err != nil || !m.GetSpec().GetDns().GetNsid() {
			t.Fatalf("%v\n%s", err, got.out)
		}
		roles := map[pb.Role]bool{}
		for _, s := range m.GetResults()[0].GetSteps() {
			roles[s.GetRole()] = true
		}
		if !roles[pb.Role_ROLE_TARGET] || !roles[pb.Role_ROLE_AUTHORITY] {
			t.Errorf("roles %v", roles)
		}
	})
}

// showsTheSame holds that 'show last' prints what the check printed.
func showsTheSame(t *testing.T, i internet, host string) {
	t.Helper()
	check := i.run(t, "tls", host, "-v")
	show := i.run(t, "show", "last", "-v")
	if check.code != cli.ExitOK || show.code != cli.ExitOK {
		t.Fatalf("exits %d and %d", check.code, show.code)
	}
	// Agents come in the order in which they answered; shown again they are sorted.
	for line := range strings.Lines(check.out) {
		if !strings.Contains(show.out, line) {
			t.Errorf("show does not say %q", line)
		}
	}
}
