package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// update puts what is really printed into the documents.
var update = flag.Bool("update", false, "put what is printed into docs/origin.md and README.md")

// originPort is where the origins are. The command lines in the documents have it.
const originPort = 8443

// origins is a little internet of origins, with something wrong with each but the first ones.
type origins struct {
	t        *testing.T
	root, r3 *probetest.Entity
	records  map[string]string // The addresses of names, for both regions unless a case says otherwise.
	hosts    int
	aia      string
	subnet   string // "127.83.0." in the documents, and another one where more than one test may run.
}

// at is a new address for a name.
func (o *origins) at(name string) netip.AddrPort {
	o.hosts++
	ip := fmt.Sprint(o.subnet, 10+o.hosts)
	o.records[name] = strings.TrimSpace(o.records[name] + " " + ip)
	return netip.AddrPortFrom(netip.MustParseAddr(ip), originPort)
}

func (o *origins) make(d probetest.Draft) *probetest.Entity {
	o.t.Helper()
	return must[*probetest.Entity](o.t)(d.Make())
}

// leaf is a certificate for a name, valid for three months, but for what change says.
func (o *origins) leaf(name string, change func(*probetest.Draft)) *probetest.Entity {
	o.t.Helper()
	d := probetest.Draft{Issuer: o.r3, Leaf: probetest.Leaf{Names: []string{name}, NotAfter: time.Now().AddDate(0, 3, 0), AIA: o.aia}}
	if change != nil {
		change(&d)
	}
	return o.make(d)
}

// serve serves pages over TLS at a new address of a name.
func (o *origins) serve(name string, cert tls.Certificate, change func(*tls.Config), handler http.HandlerFunc) {
	o.t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if change != nil {
		change(config)
	}
	if handler == nil {
		handler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }
	}
	closing(o.t, must[*probetest.Host](o.t)(probetest.ListenHTTP(o.at(name), config, handler)))
}

// good serves with a good certificate for a name.
func (o *origins) good(name string, change func(*tls.Config), handler http.HandlerFunc) {
	o.t.Helper()
	o.serve(name, probetest.Served(o.leaf(name, nil), o.r3), change, handler)
}

// bad serves with a certificate that has something wrong with it.
func (o *origins) bad(name string, change func(*probetest.Draft)) {
	o.t.Helper()
	o.serve(name, probetest.Served(o.leaf(name, change), o.r3), nil, nil)
}

// does listens at a new address of a name.
func (o *origins) does(name string, listen func(netip.AddrPort) (*probetest.Host, error)) {
	o.t.Helper()
	closing(o.t, must[*probetest.Host](o.t)(listen(o.at(name))))
}

// newOrigins makes the certificates and starts every origin.
func newOrigins(t *testing.T) *origins {
	t.Helper()
	o := &origins{t: t, records: map[string]string{}, subnet: "127.83.0."}
	if !*update {
		o.subnet = fmt.Sprintf("127.83.%d.", 1+rand.IntN(250))
	}
	authority := func(name string, issuer *probetest.Entity) *probetest.Entity {
		return o.make(probetest.Draft{Authority: true, Issuer: issuer, Leaf: probetest.Leaf{Names: []string{name}}})
	}
	o.root = authority("Example Root", nil)
	o.r3 = authority("Example CA R3", o.root)
	library := closing(t, must[*probetest.Host](t)(probetest.ListenHTTP(netip.MustParseAddrPort(o.subnet+"9:0"), nil, func() http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(o.r3.DER) }
	}())))
	o.aia = "http://" + library.Addr().String() + "/r3.crt"
	o.good("origin.example", nil, nil)
	o.network()
	o.handshakes()
	o.certificates(authority("Unknown Root", nil))
	o.responses()
	return o
}

// network starts the origins that are wrong before TLS.
func (o *origins) network() {
	o.does("closed.example", probetest.ListenClosed)
	o.does("dropped.example", probetest.ListenFull)
	o.does("resets.example", func(at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, probetest.Abort) })
	o.does("plain.example", func(at netip.AddrPort) (*probetest.Host, error) {
		return probetest.ListenHTTP(at, nil, http.NotFoundHandler())
	})
	o.good("half.example", nil, nil)
	o.does("half.example", probetest.ListenClosed)
	o.good("regional.example", nil, nil)
	o.records["v6.example"] = "::1"
}

// handshakes starts the origins that CloudFront cannot shake hands with.
func (o *origins) handshakes() {
	// Fatal alert 80, internal_error.
	o.does("alert.example", func(at netip.AddrPort) (*probetest.Host, error) {
		return probetest.ListenFunc(at, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 8192))
			_, _ = c.Write([]byte{0x15, 3, 3, 0, 2, 2, 80})
		})
	})
	o.good("old.example", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, nil)
	o.good("new.example", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, nil)
	o.good("chacha.example", func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
	}, nil)
	o.good("mutual.example", func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }, nil)
}

// certificates starts the origins whose certificates CloudFront refuses.
func (o *origins) certificates(unknown *probetest.Entity) {
	named := func(name string) func(*probetest.Draft) {
		return func(d *probetest.Draft) { d.Leaf.Names = []string{name} }
	}
	o.bad("other.example", named("www.elsewhere.example"))
	o.bad("origin.shop.example", named("www.shop.example"))
	o.bad("shop-1234.us-east-1.elb.amazonaws.com", named("www.shop.example"))
	good, wrong := probetest.Served(o.leaf("sni.example", nil), o.r3), probetest.Served(o.leaf("default.example", nil), o.r3)
	o.serve("sni.example", wrong, func(c *tls.Config) {
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "sni.example" {
				return &good, nil
			}
			return &wrong, nil
		}
	}, nil)
	o.bad("expired.example", func(d *probetest.Draft) {
		d.Leaf.NotBefore, d.Leaf.NotAfter = time.Now().AddDate(0, -3, 0), time.Now().AddDate(0, 0, -2)
	})
	o.bad("early.example", func(d *probetest.Draft) { d.Leaf.NotBefore = time.Now().AddDate(0, 0, 2) })
	o.serve("untrusted.example", probetest.Served(o.leaf("untrusted.example", func(d *probetest.Draft) { d.Issuer, d.Leaf.AIA = unknown, "" }), unknown), nil, nil)
	o.serve("self.example", probetest.Served(o.leaf("self.example", func(d *probetest.Draft) { d.Issuer, d.Leaf.AIA = nil, "" })), nil, nil)
	o.serve("incomplete.example", probetest.Served(o.leaf("incomplete.example", nil)), nil, nil)
	o.serve("disorder.example", probetest.Served(o.leaf("disorder.example", nil), o.root, o.r3), nil, nil)
	o.bad("key.example", func(d *probetest.Draft) { d.Leaf.RSABits = 1536 })
	revoked := o.leaf("revoked.example", nil)
	stapled := probetest.Served(revoked, o.r3)
	stapled.OCSPStaple = must[[]byte](o.t)(ocsp.CreateResponse(o.r3.Certificate, o.r3.Certificate, ocsp.Response{
		Status: ocsp.Revoked, RevokedAt: time.Now().Add(-time.Hour), SerialNumber: revoked.Certificate.SerialNumber,
		ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
	}, o.r3.Key))
	o.serve("revoked.example", stapled, nil, nil)
	broken := probetest.Served(o.leaf("broken.example", nil), o.r3)
	broken.Certificate[0] = append([]byte(nil), append(broken.Certificate[0], 0)...)
	o.serve("broken.example", broken, nil, nil)
}

// responses starts the origins whose responses CloudFront cannot use, or passes on.
func (o *origins) responses() {
	o.good("upstream.example", nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	o.good("edge.example", nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "CloudFront")
		w.Header().Set("X-Cache", "Error from cloudfront")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("CloudFront wasn't able to connect to the origin.\nGenerated by cloudfront (CloudFront)\nRequest ID: example=="))
	})
	o.good("large.example", nil, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Large", strings.Repeat("a", 40<<10)) })
}

// addresses are the records of a name.
func addresses(name, ips string) (records []string) {
	for ip := range strings.FieldsSeq(ips) {
		kind := map[bool]string{true: "AAAA", false: "A"}[strings.Contains(ip, ":")]
		records = append(records, fmt.Sprintf("%s. 60 IN %s %s", name, kind, ip))
	}
	return records
}

// zones are the root and the two zones below it that hold all names, each at one server.
func (o *origins) zones() map[string]probetest.Nameserver {
	root, example, amazon := o.subnet+"5", o.subnet+"6", o.subnet+"7"
	top := []string{". 1 IN SOA a. b. 1 1 1 1 1", ". 1 IN NS a.root.", "a.root. 1 IN A " + root}
	below := map[string][]string{}
	for zone, server := range map[string]string{"example.": example, "amazonaws.com.": amazon} {
		delegation := []string{zone + " 60 IN NS ns." + zone, "ns." + zone + " 60 IN A " + server}
		top = append(top, delegation...)
		below[zone] = append(delegation, zone+" 60 IN SOA ns."+zone+" admin."+zone+" 7 1 1 1 60")
	}
	for name, ips := range o.records {
		zone := "example."
		if strings.HasSuffix(name, ".amazonaws.com") {
			zone = "amazonaws.com."
		}
		below[zone] = append(below[zone], addresses(name, ips)...)
	}
	return map[string]probetest.Nameserver{
		root:    {Zones: map[string][]string{".": top}},
		example: {Zones: map[string][]string{"example.": below["example."]}},
		amazon:  {Zones: map[string][]string{"amazonaws.com.": below["amazonaws.com."]}},
	}
}

// watch starts a real network of two agents that look at the origins, and returns the machine to ask it from.
func (o *origins) watch() world {
	o.t.Helper()
	control := closing(o.t, must[*probetest.Host](o.t)(probetest.Listen(netip.AddrPortFrom(netip.MustParseAddr(o.subnet+"8"), originPort), probetest.Accept)))
	o.records["control.example"] = control.Addr().Addr().String()
	tree := closing(o.t, must[*probetest.Tree](o.t)(probetest.ServeTree(o.zones())))
	var agents []network.Agent
	for i, region := range []string{"eu-west", "us-east"} {
		zone := probetest.Zone{}
		for name, ips := range o.records {
			if name == "regional.example" && region == "us-east" {
				continue
			}
			zone[name] = probetest.Name{Records: addresses(name, ips)}
		}
		resolver := closing(o.t, must[*probetest.DNSServer](o.t)(probetest.ServeDNS(netip.MustParseAddrPort(fmt.Sprintf("%s%d:0", o.subnet, 2+i)), zone, true)))
		agents = append(agents, network.Agent{ID: region + "-1", Vantage: &pb.Vantage{Region: region, Asn: uint32(64500 + i)}, Env: &probe.Env{
			Resolvers: []netip.AddrPort{resolver.Addr()}, Hints: []netip.AddrPort{tree.At(o.subnet + "5")},
			Controls: []string{"control.example:8443"}, Roots: []*x509.Certificate{o.root.Certificate},
			Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.83.0.0/16"), netip.MustParsePrefix("::1/128")}},
		}})
	}
	n := must[*network.Network](o.t)(network.Start(o.t.Context(), network.Options{Dir: o.t.TempDir(), Agents: agents}))
	o.t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			o.t.Error(err)
		}
	})
	return newWorld(o.t).in(o.t, n)
}

// transcript is a command line in a document, and what it printed.
var transcript = regexp.MustCompile("(?m)^\\$ elsewhere (origin https?://[^\n]*\\.example[^\n]*|origin https?://127[^\n]*|origin https?://shop-[^\n]*)\n((?s:.*?))^```")

// answerLine is a line that answers the question for a region, or the head of a finding with a cause.
var answerLine = regexp.MustCompile(`(?m)^(?:((?:eu-west|us-east)  [✓✗?]).*|((?:ERROR|WARN) [^(]*)\(.*?(cause \w+).*)$`)

// answered are the answers in a transcript: which region, which finding, where, which cause.
func answered(printed string) string {
	var lines []string
	for _, m := range answerLine.FindAllStringSubmatch(printed, -1) {
		lines = append(lines, m[1]+m[2]+m[3])
	}
	return strings.Join(lines, "\n")
}

// TestTheDocumentsShowWhatIsPrinted asks each question of docs/origin.md and README.md of a real network: the
// answer for each region, the findings and the causes are as the documents have them. Words are not compared.
func TestTheDocumentsShowWhatIsPrinted(t *testing.T) {
	w := newOrigins(t).watch()
	for _, path := range []string{"../../docs/origin.md", "../../README.md"} {
		text := string(must[[]byte](t)(os.ReadFile(path)))
		found := transcript.FindAllStringSubmatchIndex(text, -1)
		printed := make([]string, len(found))
		t.Run(strings.TrimPrefix(path, "../../"), func(t *testing.T) {
			for i, at := range found {
				t.Run(text[at[2]:at[3]], func(t *testing.T) {
					t.Parallel()
					got := w.run(t, shellWords(text[at[2]:at[3]])...)
					printed[i] = got.out
					want := answered(text[at[4]:at[5]])
					if said := answered(got.out); said != want && !*update {
						t.Errorf("exit %d, %s\n%s\nthe document has\n%s", got.code, got.err, got.out, want)
					}
				})
			}
		})
		if *update {
			rewrite(t, path, text, found, printed)
		}
	}
}

// rewrite puts what was printed into a document.
func rewrite(t *testing.T, path, text string, found [][]int, printed []string) {
	t.Helper()
	var b strings.Builder
	last := 0
	for i, at := range found {
		b.WriteString(text[last:at[4]] + printed[i])
		last = at[5]
	}
	b.WriteString(text[last:])
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEveryCauseIsInTheDocument: docs/origin.md has a section for each OriginCause, in which a command finds it.
func TestEveryCauseIsInTheDocument(t *testing.T) {
	text := string(must[[]byte](t)(os.ReadFile("../../docs/origin.md")))
	for number, name := range pb.OriginCause_name {
		short := strings.ToLower(strings.TrimPrefix(name, "ORIGIN_CAUSE_"))
		if number != 0 && (!strings.Contains(text, "`"+short+"`") || !strings.Contains(text, "cause "+short+",")) {
			t.Errorf("no command in docs/origin.md finds %s", short)
		}
	}
}

func TestAnswered(t *testing.T) {
	const printed = `origin https://a.example --profile cloudfront from world
eu-west  ✗ 502: it is refused (at 192.0.2.1:443 of 2 addresses)
note: 192.0.2.1:443  something
ERROR origin_incompatible  eu-west, us-east  (reject_rst, tcp_refused, cause port_closed, cloudfront: 502, blame target, confidence high)
  eu-west: a sentence
WARN agents_differ  eu-west  (blame unknown, confidence low)
FAIL · 2 asked`
	const want = "eu-west  ✗\nERROR origin_incompatible  eu-west, us-east  cause port_closed"
	if got := answered(printed); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
