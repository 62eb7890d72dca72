package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// loadBalancer is a name as AWS gives it to load balancers; the world's root has a zone for it.
const loadBalancer = "shop-1.us-east-1.elb.amazonaws.com"

// badOrigin is an origin that CloudFront cannot serve from, or only from some places, and why.
type badOrigin struct {
	name, says string
	listen     listener // default: nothing listens on its address
	proof      proof    // from where, what, and what is seen; ADDR is its address
	ask        string   // likewise; default: "origin https://NAME/"
	code       pb.FindingCode
	cause      pb.OriginCause
	status     string
	blame      pb.Blame
	mentions   []string
}

// predicts wants the finding with this code to say what CloudFront makes of it.
func predicts(code pb.FindingCode, cause pb.OriginCause, status string) func(*pb.Measurement) []string {
	return func(m *pb.Measurement) []string {
		for _, f := range m.GetVerdict().GetFindings() {
			p := f.GetPrediction()
			switch {
			case f.GetCode() != code:
			case p.GetProfile() != "cloudfront" || p.GetCause() != cause || p.GetStatus() != status:
				return []string{fmt.Sprintf("the prediction is %v, want %s with status %q", p, cause, status)}
			case p.GetText() == "" || p.GetSource().GetDocument() == "":
				return []string{fmt.Sprintf("the prediction has no text or source: %v", p)}
			default:
				return nil
			}
		}
		return []string{fmt.Sprintf("%s is missing", code)}
	}
}

// origins are the causes that CloudFront's documents name (table 1a of the facts), each as an origin of
// its own, and origins that are fine.
func origins() []scenario {
	var table []scenario
	for i, c := range slices.Concat(unreachableOrigins(), originCertificates(), originHandshakes(), originPages()) {
		addr := originAddress(i)
		h := host{addr: netip.MustParseAddr(addr), service: closed}
		if c.listen != nil {
			h = own(addr, c.listen)
		}
		c.proof.at = strings.ReplaceAll(c.proof.at, "ADDR", addr)
		s := scenario{
			name: c.name, says: c.says, hosts: []host{h}, proofs: []proof{c.proof}, ask: "origin https://NAME/",
			want: fails(&pb.Finding{Code: c.code, Regions: everywhere(), Blame: c.blame}).
				mentioning(c.mentions...).showing(predicts(c.code, c.cause, c.status)),
		}
		if c.ask != "" {
			s.ask = strings.ReplaceAll(c.ask, "ADDR", addr)
		}
		table = append(table, s)
	}
	return slices.Concat(table, fineOrigins(), regionalOrigins(), nameOrigins())
}

// originAddress is the address of the origin with this index; the first ones of the subnet are taken.
func originAddress(i int) string {
	free := [][2]int{{166, 179}, {184, 199}, {142, 149}, {152, 159}}
	for _, r := range free {
		if n := r[1] - r[0] + 1; i >= n {
			i -= n
			continue
		}
		return fmt.Sprintf("203.0.113.%d", r[0]+i)
	}
	panic("too many origins")
}

const (
	incompatible = pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE
	badCert      = pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM
	ofTarget     = pb.Blame_BLAME_TARGET
)

// acting is a server on port 443 that does this with each connection.
func acting(b probetest.Behaviour) listener {
	return one(443, func(_ *world, at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, b) })
}

// secureSite serves a page over TLS, with a config that is changed.
func secureSite(change func(w *world, c *tls.Config) error, page func(http.ResponseWriter, *http.Request, string)) listener {
	return one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		c, err := w.goodConfig()
		if err == nil && change != nil {
			err = change(w, c)
		}
		if err != nil {
			return nil, err
		}
		return probetest.ListenHTTP(at, c, w.pages(page))
	})
}

// serving serves a page with a certificate of the authority with an intermediate.
func serving(leaf func() probetest.Leaf) listener {
	return secureSite(func(w *world, c *tls.Config) error {
		cert, err := w.issuer.Issue(leaf())
		c.Certificates = []tls.Certificate{cert}
		return err
	}, greet)
}

// until serves a page with a certificate that ends then, for these names.
func until(notAfter func() time.Time, names ...string) listener {
	return secureSite(func(w *world, c *tls.Config) error {
		cert, err := w.authority.issue(notAfter(), names...)
		c.Certificates = []tls.Certificate{cert}
		return err
	}, greet)
}

func unreachableOrigins() []badOrigin {
	const tcpCause = pb.OriginCause_ORIGIN_CAUSE_PORT_CLOSED
	return []badOrigin{
		{
			name: "o-closed", says: "row 5: no web server runs on the origin", proof: proof{all, "connect", "ADDR:443", "refused"},
			code: incompatible, cause: tcpCause, status: "502",
		},
		{
			name: "o-port", says: "row 3: the wrong port is configured", listen: secureSite(nil, greet), ask: "origin https://NAME:9443/",
			proof: proof{all, "connect", "ADDR:9443", "refused"}, code: incompatible, cause: tcpCause, status: "502", mentions: []string{"9443"},
		},
		{
			name: "o-port-81", says: "row 3: CloudFront does not connect to this port", listen: secureSite(nil, greet), ask: "origin https://NAME:81/",
			proof: proof{"us-1 ap-1", "connect", "ADDR:81", "refused"}, code: incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_PORT_NOT_ALLOWED, status: "502",
		},
		{
			name: "o-reset", says: "row 5: the backend resets what comes", listen: acting(probetest.Reset),
			proof: proof{all, "connect", "ADDR:443", "reset after connect"}, code: incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_NOT_RESPONDING, status: "502 or 504",
		},
		{
			name: "o-hung", says: "row 5: the backend accepts and never responds", listen: acting(probetest.Accept),
			proof: proof{"us-1 ap-1", "openssl", "ADDR:443", "silent"}, code: incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_NOT_RESPONDING, status: "502 or 504",
		},
		{
			name: "o-address", says: "an address as the origin", listen: secureSite(nil, greet), ask: "origin https://ADDR/",
			proof: proof{"us-1 ap-1", "connect", "ADDR:443", "open"}, code: incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN, status: "502",
		},
	}
}

func originCertificates() []badOrigin {
	year := func() time.Time { return time.Now().AddDate(0, 6, 0) } // begins in three months
	later, earlier := later, earlier
	valid := func(change func(*probetest.Leaf)) func() probetest.Leaf {
		return func() probetest.Leaf {
			l := probetest.Leaf{Names: []string{"*." + zone}, NotBefore: earlier(), NotAfter: time.Now().AddDate(0, 2, 0)}
			change(&l)
			return l
		}
	}
	seen := func(sees string) proof { return proof{"us-1 ap-1", "openssl", "ADDR:443", sees} }
	return []badOrigin{
		{
			name: "o-name", says: "row 7: the certificate is for another name", listen: until(later, "www.elsewhere.example"), proof: seen("hostname mismatch"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_NAME_MISMATCH, status: "502", blame: ofTarget, mentions: []string{"www.elsewhere.example"},
		},
		{
			name: "o-host", says: "row 8: the certificate is for the viewers' host, which is not forwarded", listen: until(later, "www."+zone), proof: seen("hostname mismatch"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_HOST_NOT_FORWARDED, status: "502", blame: ofTarget, mentions: []string{"www." + zone},
		},
		{
			name: "o-expired", says: "row 11: the certificate has expired", listen: until(earlier, "*."+zone), proof: seen("certificate has expired"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_EXPIRED, status: "502", blame: ofTarget,
		},
		{
			name: "o-future", says: "row 12: the certificate is not valid yet", listen: until(year, "*."+zone), proof: seen("certificate is not yet valid"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_NOT_YET_VALID, status: "502", blame: ofTarget,
		},
		{
			name: "o-untrusted", says: "row 13: the issuer is on nobody's list", listen: secureSite(byNobody(probetest.WithRoot), greet), proof: seen("self-signed certificate in certificate chain"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_UNTRUSTED, status: "502", blame: ofTarget,
		},
		{
			name: "o-self-signed", says: "row 14: the certificate is self-signed", listen: serving(valid(func(l *probetest.Leaf) { l.SelfSigned = true })), proof: seen("self-signed certificate"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_SELF_SIGNED, status: "502", blame: ofTarget,
		},
		{
			name: "o-malformed", says: "row 15: the certificate cannot be parsed", listen: tlsAs(malformed), proof: proof{all, "connect", "ADDR:443", "open"},
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID, status: "502", blame: ofTarget,
		},
		{
			name: "o-revoked", says: "row 16: the certificate is revoked", listen: secureSite(revoked, greet), proof: proof{"us-1 ap-1", "openssl", "ADDR:443 -status", "revoked"},
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_REVOKED, status: "502", blame: ofTarget,
		},
		{
			name: "o-incomplete", says: "row 17: an intermediate is missing", listen: serving(valid(func(l *probetest.Leaf) {
				l.Serve, l.AIA = probetest.LeafOnly, "http://203.0.113.111/inter.crt"
			})), proof: seen("unable to verify the first certificate"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_INTERMEDIATE_MISSING, status: "502", blame: ofTarget, mentions: []string{"Lab Intermediate"},
		},
		{
			name: "o-order", says: "row 18: the chain is in the wrong order", listen: serving(valid(func(l *probetest.Leaf) { l.Serve = probetest.Reversed })), proof: seen("ok"),
			code: badCert, cause: pb.OriginCause_ORIGIN_CAUSE_CHAIN_ORDER, status: "502", blame: ofTarget,
		},
	}
}

// byNobody serves a certificate of an authority that nobody knows, and of the authority what serve says.
func byNobody(serve probetest.Serve) func(*world, *tls.Config) error {
	return func(w *world, c *tls.Config) error {
		cert, err := w.nobody.Issue(probetest.Leaf{Names: []string{"*." + zone}, NotAfter: later(), Serve: serve})
		c.Certificates = []tls.Certificate{cert}
		return err
	}
}

// malformed serves a certificate with a byte too many.
func malformed(_ *world, c *tls.Config) error {
	der := slices.Clone(c.Certificates[0].Certificate[0])
	c.Certificates[0].Certificate = [][]byte{append(der, 0)}
	return nil
}

func originHandshakes() []badOrigin {
	only := func(change func(c *tls.Config)) listener {
		return secureSite(func(_ *world, c *tls.Config) error { change(c); return nil }, greet)
	}
	return []badOrigin{
		{
			name: "o-not-tls", says: "row 6: plain HTTP on the port", listen: plainWeb(443, greet), proof: proof{"us-1 ap-1", "openssl", "ADDR:443", "not tls"},
			code: incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_NOT_TLS, status: "502",
		},
		{
			name: "o-chacha", says: "row 19: no cipher suite in common", listen: only(func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
				c.NextProtos = []string{"http/1.1"}
			}), proof: proof{"us-1 ap-1", "openssl", "ADDR:443 -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "alert handshake failure"},
			code: pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH, cause: pb.OriginCause_ORIGIN_CAUSE_CIPHER, status: "502", mentions: []string{"CHACHA20"},
		},
		{
			name: "o-tls13", says: "row 20: TLS 1.3 alone, about which documents contradict each other", listen: only(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }),
			proof: proof{"us-1 ap-1", "openssl", "ADDR:443 -tls1_2", "alert protocol version"},
			code:  pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, cause: pb.OriginCause_ORIGIN_CAUSE_PROTOCOL, status: "502", mentions: []string{"TLS 1.3"},
		},
		{
			name: "o-ssl3-alone", says: "row 20: with SSLv3 among its protocols CloudFront speaks nothing else", listen: secureSite(nil, greet),
			ask:   "origin https://NAME/ --ssl-protocols SSLv3,TLSv1.2",
			proof: proof{"us-1 ap-1", "openssl", "ADDR:443 -tls1_2", "ok"},
			code:  pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, cause: pb.OriginCause_ORIGIN_CAUSE_PROTOCOL, status: "502", mentions: []string{"SSL 3.0"},
		},
		{
			name: "o-ancient", says: "row 20: SSL 3.0 alone", listen: one(443, ancient), proof: proof{"us-1 ap-1", "openssl", "ADDR:443 -tls1_2", "alert handshake failure"},
			code: pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, cause: pb.OriginCause_ORIGIN_CAUSE_PROTOCOL, status: "502", mentions: []string{"SSL 3.0"},
		},
		{
			name: "o-client-cert", says: "the server asks for a certificate of the client", listen: only(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }),
			proof: proof{"us-1 ap-1", "openssl", "ADDR:443", "ok"},
			code:  incompatible, cause: pb.OriginCause_ORIGIN_CAUSE_CLIENT_CERTIFICATE, status: "502",
		},
	}
}

func originPages() []badOrigin {
	fetched := func(status string) proof { return proof{"us-1 ap-1", "curl", "https://NAME/ ADDR", status} }
	return []badOrigin{
		{
			name: "o-upstream", says: "row 23: the origin is a proxy, whose own origin is broken", listen: secureSite(nil, status(http.StatusBadGateway)), proof: fetched("502"),
			code: pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR, cause: pb.OriginCause_ORIGIN_CAUSE_UPSTREAM, status: "502", blame: ofTarget,
		},
		{
			name: "o-edge", says: "row 25: the origin is a CDN's edge, with its error page", listen: secureSite(nil, asCloudFront), proof: fetched("502"),
			code: pb.FindingCode_FINDING_CODE_EDGE_ERROR, cause: pb.OriginCause_ORIGIN_CAUSE_EDGE, status: "502", blame: ofTarget,
		},
	}
}

// fineOrigins are served by CloudFront, whatever another client would say of them.
func fineOrigins() []scenario {
	byName := func(w *world, c *tls.Config) error {
		other, err := w.authority.issue(later(), "other.example")
		if err != nil {
			return err
		}
		good := c.Certificates[0]
		c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName == "www."+zone {
				return &good, nil
			}
			return &other, nil
		}
		c.Certificates = nil
		return nil
	}
	const sni, sixBroken, old, private = "203.0.113.234", "203.0.113.235", "203.0.113.244", "203.0.113.245"
	return []scenario{
		{
			name: "o-sni", says: "row 9: several certificates, and the right one for the Host that is forwarded",
			hosts:  []host{own(sni, secureSite(byName, greet))},
			proofs: []proof{{"us-1 ap-1", "openssl", sni + ":443 www." + zone, "ok"}, {"us-1 ap-1", "openssl", sni + ":443 o-sni." + zone, "hostname mismatch"}},
			ask:    "origin https://NAME/ --host-header www." + zone, want: fine(),
		},
		{
			name: "o-old", says: "row 20: TLS 1.1 at most, which CloudFront speaks if its settings allow it",
			hosts: []host{own(old, secureSite(func(_ *world, c *tls.Config) error {
				c.MinVersion, c.MaxVersion, c.NextProtos = tls.VersionTLS10, tls.VersionTLS11, []string{"http/1.1"}
				return nil
			}, greet))},
			proofs: []proof{
				{"us-1 ap-1", "openssl", old + ":443 -tls1_1 -cipher ALL:@SECLEVEL=0", "ok"},
				{"us-1 ap-1", "openssl", old + ":443 -tls1_2", "unsupported protocol"},
			},
			ask:  "origin https://NAME/",
			want: warns(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH, Regions: everywhere()}),
		},
		{
			name: "o-big-profile", says: "an authority that only the profile knows, the last of so many that the profile just fits",
			hosts:  []host{own(private, secureSite(byNobody(probetest.Full), greet))},
			before: func(_ context.Context, w *world) error { return w.writeBigProfile() },
			proofs: []proof{{"us-1 ap-1", "openssl", private + ":443", "unable to get local issuer certificate"}},
			ask:    "origin https://NAME/ --profile ./big-profile.yaml",
			want:   fine().showing(profileOf(57 << 10)),
		},
		{
			name: "o-six", says: "IPv6 is shut, and CloudFront comes over IPv4",
			hosts:  []host{own(sixBroken, secureSite(nil, greet)), without("2001:db8:113::203")},
			proofs: []proof{{all, "connect", "[2001:db8:113::203]:443", "refused"}, {"us-1 ap-1", "curl", "https://NAME/ " + sixBroken, "200"}},
			ask:    "origin https://NAME/",
			want:   warns(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_FAMILY_BROKEN, Regions: everywhere()}),
		},
	}
}

// regionalOrigins are shut for some.
func regionalOrigins() []scenario {
	const part, whole, one, two = "203.0.113.236", "203.0.113.237", "203.0.113.238", "203.0.113.239"
	firewall := pb.OriginCause_ORIGIN_CAUSE_FIREWALL
	return []scenario{
		{
			name: "o-drop", says: "row 4: a firewall drops one region",
			hosts:  []host{own(part, secureSite(nil, greet))},
			faults: []fault{{"router", "ip saddr $eu_west ip daddr " + part + " counter drop"}},
			proofs: []proof{{"eu-1 eu-2", "connect", part + ":443", "silent"}, {"us-1 ap-1 sa-1", "connect", part + ":443", "open"}},
			ask:    "origin https://NAME/",
			want: fails(shut("eu-west", part, pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)).
				showing(predicts(pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, firewall, "502 or 504")),
		},
		{
			name: "o-locked", says: "row 4: a firewall drops everybody: closed, or open for the CDN alone",
			hosts:  []host{own(whole, secureSite(nil, greet))},
			faults: []fault{{"router", "ip daddr " + whole + " counter drop"}},
			proofs: []proof{{all, "connect", whole + ":443", "silent"}},
			ask:    "origin https://NAME/",
			want: fails(&pb.Finding{Code: incompatible, Regions: everywhere(), Block: pb.BlockKind_BLOCK_KIND_DROP, Confidence: pb.Confidence_CONFIDENCE_LOW}).
				mentioning("allowlist cover").showing(predicts(incompatible, firewall, "502 or 504")),
		},
		{
			name: "o-one-of-two", says: "one of two addresses has an old certificate",
			hosts:  []host{own(one, secureSite(nil, greet)), own(two, until(earlier, "*."+zone))},
			proofs: []proof{{"us-1 ap-1", "openssl", one + ":443", "ok"}, {"us-1 ap-1", "openssl", two + ":443", "certificate has expired"}},
			ask:    "origin https://NAME/",
			want: fails(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, Regions: everywhere(), Addresses: []string{two + ":443"}}).
				showing(predicts(pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, pb.OriginCause_ORIGIN_CAUSE_EXPIRED, "502")),
		},
	}
}

// nameOrigins are told by their names.
func nameOrigins() []scenario {
	const balancer, through, inside, lone = "203.0.113.240", "203.0.113.241", "203.0.113.242", "2001:db8:113::210"
	dns := pb.OriginCause_ORIGIN_CAUSE_DNS
	return []scenario{
		{
			name: "o-elb", says: "row 10: the origin is called by its load balancer's own name",
			hosts:  []host{own(balancer, secureSite(nil, greet))},
			proofs: []proof{{"us-1 ap-1", "dig", loadBalancer, "NOERROR " + balancer}, {"us-1 ap-1", "openssl", balancer + ":443 " + loadBalancer, "hostname mismatch"}},
			ask:    "origin https://" + loadBalancer + "/",
			want: fails(&pb.Finding{Code: badCert, Regions: everywhere(), Blame: ofTarget}).
				showing(predicts(badCert, pb.OriginCause_ORIGIN_CAUSE_LOAD_BALANCER_NAME, "502")),
		},
		{
			name: "o-pass-through", says: "flow 3: a load balancer passes TCP through to a server with a self-signed certificate",
			hosts: []host{
				own(through, middlebox(inside, "nobody.example", probetest.Reset)),
				own(inside, serving(func() probetest.Leaf { return probetest.Leaf{Names: []string{"*." + zone}, SelfSigned: true} })).called("-"),
			},
			proofs: []proof{{"us-1 ap-1", "openssl", through + ":443", "self-signed certificate"}},
			ask:    "origin https://NAME/",
			want: fails(&pb.Finding{Code: badCert, Regions: everywhere(), Blame: ofTarget}).
				showing(predicts(badCert, pb.OriginCause_ORIGIN_CAUSE_SELF_SIGNED, "502")),
		},
		{
			name: "o-nxdomain", says: "row 21: the name does not exist",
			proofs: []proof{{"us-1 ap-1", "dig", "o-nxdomain." + zone, "NXDOMAIN"}},
			ask:    "origin https://NAME/",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_UNRESOLVABLE, pb.Failure_FAILURE_DNS_NXDOMAIN, everywhere()...)).
				showing(predicts(pb.FindingCode_FINDING_CODE_UNRESOLVABLE, dns, "502")),
		},
		{
			name: "o-servfail", says: "row 22: the name resolves, but not in one region",
			hosts:          []host{own("203.0.113.243", secureSite(nil, greet))},
			resolverFaults: []resolverFault{{"sa-east", "SERVFAIL"}},
			proofs:         []proof{{"sa-1 sa-2", "dig", "o-servfail." + zone, "SERVFAIL"}, {"us-1 eu-1 ap-1", "dig", "o-servfail." + zone, "NOERROR 203.0.113.243"}},
			ask:            "origin https://NAME/",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, pb.Failure_FAILURE_DNS_SERVFAIL, "sa-east")).
				showing(predicts(pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, dns, "502")),
		},
		{
			name: "o-ipv6", says: "the name has an IPv6 address alone",
			hosts:  []host{own(lone, secureSite(nil, greet))},
			proofs: []proof{{"us-1 ap-1", "dig", "o-ipv6." + zone + " AAAA", "NOERROR " + lone}, {"us-1 ap-1", "dig", "o-ipv6." + zone, "NOERROR"}},
			ask:    "origin https://NAME/",
			want: fails(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_NO_IPV4, Regions: everywhere(), Stage: pb.Stage_STAGE_DNS}).
				showing(predicts(pb.FindingCode_FINDING_CODE_NO_IPV4, pb.OriginCause_ORIGIN_CAUSE_NO_IPV4, "502")),
		},
	}
}
