package lab

import (
	"context"
	"maps"
	"net/netip"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// certificateComparisons ask openssl and Elsewhere what is wrong with a site's certificates.
func certificateComparisons() []comparison {
	var all []comparison
	for _, q := range []struct {
		site, says string
		differs    map[string]string
	}{
		{"good", "a certificate and its intermediate", nil},
		{"expired", "a certificate that is over", nil},
		{"not-yet-valid", "a certificate that has not begun", nil},
		{"expired-intermediate", "an intermediate that is over", nil},
		{"wrong-host", "a certificate for another name", nil},
		{"expired-wrong-host", "both at once", nil},
		{"self-signed", "a certificate that issued itself", nil},
		{"untrusted-root", "a root that nobody knows, and that is served", nil},
		{"untrusted-unsent", "a root that nobody knows, and that is not served", nil},
		{"incomplete", "no intermediate, and nothing that says where it is", nil},
		{"incomplete-aia", "no intermediate, and it can be fetched", nil},
		{"expired-incomplete", "expired, and no intermediate", nil},
		{"reversed", "the root before the intermediate", nil},
		{"intermediate-first", "the intermediate before the certificate of the site", nil},
		{"root-included", "the root is served, too", nil},
		{"extra", "another authority's certificate in the middle", nil},
		{"duplicate", "the certificate twice", nil},
		{"cn-only", "a common name and no subjectAltName", map[string]string{
			"problems": "OpenSSL still accepts a common name where there is no subjectAltName; RFC 9525 does not",
		}},
		{"no-common-name", "names in the subjectAltName alone", nil},
		{"wildcard", "a wildcard for one label", nil},
		{"deep.wildcard", "a wildcard is not for two labels", nil},
		{"apex", "a wildcard is not for the name below which it stands", nil},
		{"xn--grn-ioa", "an internationalised name", nil},
		{"rsa1024", "a key that is too short", nil},
		{"rsa4096", "a long RSA key", nil},
		{"p384", "a key on P-384", nil},
		{"p521", "a key on P-521", nil},
		{"ed25519", "an Ed25519 key", nil},
		{"sha384", "a signature with SHA-384", nil},
		{"sha512", "a signature by RSA with SHA-512", nil},
		{"pss-signed", "a signature by RSA-PSS", nil},
		{"sha1-leaf", "a signature with SHA-1", nil},
		{"sha1-intermediate", "an intermediate that is signed with SHA-1", nil},
		{"many-names", "a thousand names: a handshake of more than 16 KiB", nil},
		{"client-only", "a certificate for clients", nil},
		{"name-constraints", "an intermediate that may not issue for this name", nil},
		{"no-authority", "an issuer that is no authority", nil},
		{"path-too-long", "an intermediate below one that may have none", nil},
		{"pss-key", "a key for RSA-PSS alone", map[string]string{
			"problems": "OpenSSL takes such a key; Go does not, nor do CDNs such as CloudFront",
		}},
		{"stapled-good", "a stapled OCSP response", nil},
		{"stapled-revoked", "a stapled OCSP response that says revoked", map[string]string{
			"problems": "openssl s_client prints the response and does not judge by it",
		}},
		{"must-staple", "a certificate that wants a stapled response, and there is none", nil},
	} {
		all = append(all, comparison{
			name: "cert-" + q.site, says: q.says, tool: "openssl s_client -servername " + q.site + "." + peersZone,
			peer: verifiedByOpenSSL(q.site), ask: "tls " + q.site + "." + peersZone, read: shookAndJudged, differs: q.differs,
		})
	}
	return append(all, severalAddresses()...)
}

// severalAddresses are names of which one address serves an expired certificate, and the other a good one.
func severalAddresses() []comparison {
	w := &peerWorld{sites: allSites()}
	good, bad := w.site("good").addr, w.site("expired").addr
	var all []comparison
	for _, q := range []struct {
		name, says string
		addrs      []string
	}{
		{"pair", "one of two addresses serves an expired certificate", []string{good, bad}},
		{"both", "IPv6 alone serves an expired certificate", []string{good, badAddr6}},
	} {
		host := q.name + "." + peersZone
		all = append(all, comparison{
			name: "cert-address-" + q.name, says: q.says, tool: "openssl s_client -connect " + strings.Join(q.addrs, " and "),
			ask: "tls " + host, read: judgedEach,
			peer: func(ctx context.Context, w *peerWorld) (facts, error) {
				f := facts{}
				for _, addr := range q.addrs {
					chain, err := verified(w.sClient(ctx, &site{name: q.name, addr: addr, port: 443}))
					if err != nil {
						return nil, err
					}
					f[addr] = chain["trust"] + "; " + chain["problems"]
				}
				return f, nil
			},
		})
	}
	return all
}

// judgedEach is what is wrong with the certificates at each address.
func judgedEach(r *pb.Result) (facts, error) {
	f := facts{}
	for _, s := range r.GetSteps() {
		if s.GetKind() == pb.StepKind_STEP_KIND_TLS_HANDSHAKE && s.GetRole() == pb.Role_ROLE_TARGET {
			at, err := netip.ParseAddrPort(s.GetAddress())
			if err != nil {
				return nil, err
			}
			chain := judged(s)
			f[at.Addr().String()] = chain["trust"] + "; " + chain["problems"]
		}
	}
	return f, nil
}

// verifiedByOpenSSL has openssl shake hands and verify.
func verifiedByOpenSSL(name string, args ...string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out := w.sClient(ctx, w.site(name), args...)
		f, err := w.agreed(out)
		if err != nil || f["end"] != "complete" {
			return f, err
		}
		chain, err := verified(out)
		maps.Copy(f, chain)
		return f, err
	}
}

// shookAndJudged are the same facts by Elsewhere.
func shookAndJudged(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if err != nil {
		return nil, err
	}
	f := shook(s)
	if f["end"] == "complete" {
		maps.Copy(f, judged(s))
	}
	return f, nil
}

// negotiationComparisons ask what a server agrees to.
func negotiationComparisons() []comparison {
	var all []comparison
	old := "-cipher ALL:@SECLEVEL=0"
	for _, q := range []struct {
		name, says, site, openssl, elsewhere string
		differs                              map[string]string
	}{
		{"tls-10", "a server of TLS 1.0", "tls10", "-tls1 " + old, "", nil},
		{"tls-11", "a server of TLS 1.1", "tls11", "-tls1_1 " + old, "", nil},
		{"tls-12", "a server of TLS 1.2", "tls12", "", "", nil},
		{"tls-13", "a server of TLS 1.3", "tls13", "", "", nil},
		{"tls-13-asked-for-12", "a server of TLS 1.3 that is offered TLS 1.2", "tls13", "-tls1_2", "--tls-version tls1.2", nil},
		{"tls-10-asked-for-12", "a server of TLS 1.0 that is offered TLS 1.2 alone", "tls10", "-tls1_2", "--tls-version tls1.2", map[string]string{
			"chain":              "Elsewhere looks on, at what the server would agree to; openssl stops",
			"client certificate": "Elsewhere looks on, and sees that none is asked for",
		}},
		{"tls-no-shared-suite", "a server that knows none of the suites", "chacha", "-tls1_2 -cipher AES128-SHA", "--tls-version tls1.2 --ciphers TLS_RSA_WITH_AES_128_CBC_SHA", nil},
		{"tls-cbc-sha384", "a suite that Go does not have: 0xC028", "cbc-sha384", "", "", nil},
		{"tls-cbc-sha384-ecdsa", "another: 0xC024", "cbc-sha384-ecdsa", "", "", nil},
		{"tls-dhe", "finite-field Diffie-Hellman, which Go does not have", "dhe", "", "", map[string]string{
			"group": "the numbers of a DHE group come without a name before TLS 1.3; openssl says so, Elsewhere leaves it out",
		}},
		{"tls-chacha", "ChaCha20 alone", "chacha", "", "", nil},
		{"tls-ccm", "AES-CCM, which Go does not have", "ccm", "-cipher ALL", "", nil},
		{"tls-static-rsa", "a key exchange by RSA", "static-rsa", "", "", nil},
		{"tls-null", "no encryption at all", "null", "-cipher NULL-SHA256:@SECLEVEL=0", "--tls-version tls1.2 --ciphers TLS_RSA_WITH_NULL_SHA256", nil},
		{"tls-group-p384", "P-384 alone, after a HelloRetryRequest", "group-p384", "", "", nil},
		{"tls-group-p521", "P-521 alone", "group-p521", "", "", nil},
		{"tls-client-asked-12", "a certificate of the client is asked for, and not needed", "client-asked-12", "", "", nil},
		{"tls-client-asked-13", "the same with TLS 1.3", "client-asked-13", "", "", nil},
		{"tls-client-needed-12", "a certificate of the client is needed", "client-needed-12", "", "", nil},
		{"tls-client-needed-13", "the same with TLS 1.3, where the alert comes late", "client-needed-13", "-ign_eof", "", nil},
		{"tls-alpn-http", "a server of HTTP/1.1 alone", "alpn-http", "", "", nil},
		{"tls-alpn-alien", "a server of another protocol", "alpn-alien", "", "--alpn h2", map[string]string{
			"chain":              "Elsewhere looks on, at what the server would agree to; openssl stops",
			"client certificate": "Elsewhere looks on, and sees that none is asked for",
		}},
		{"tls-alpn-chosen", "the protocol that is asked for", "alpn-alien", "-alpn imap", "--alpn imap", nil},
		{"tls-unknown-name", "a server that does not know the name: alert 112", "unknown-name", "", "", nil},
		{"tls-second-certificate", "another certificate for another name", "second-cert", "", "", nil},
		{"tls-no-name", "the certificate that comes without a name", "second-cert", "-noservername", "--noservername", nil},
		{"tls-warning-112", "a server that warns that it does not know the name, and goes on", "second-cert", "-tls1_2 -msg -servername other.example", "--tls-version tls1.2 --servername other.example", nil},
		{"tls-ssh", "SSH in place of TLS", "ssh", "", "", nil},
		{"tls-plain-http", "HTTP in place of TLS", "plain-http", "", "", nil},
		{"tls-hangs-up", "a server that hangs up after the ClientHello", "hangs-up", "", "", nil},
		{"tls-aborts", "a server that resets after the ClientHello", "aborts", "", "", nil},
		{"tls-silent", "a server that never answers", "silent", "", "", nil},
		{"tls-alert-40", "handshake_failure, whatever is offered", "alert-40", "", "", nil},
		{"tls-alert-80", "internal_error", "alert-80", "", "", nil},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: strings.TrimSpace("openssl s_client " + q.openssl + " " + q.site + "." + peersZone),
			peer: agreedByOpenSSL(q.site, strings.Fields(q.openssl)...), ask: "tls " + q.site + "." + peersZone + " " + q.elsewhere,
			read: shookAlone, differs: q.differs,
		})
	}
	return all
}

// agreedByOpenSSL has openssl shake hands.
func agreedByOpenSSL(name string, args ...string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		return w.agreed(w.sClient(ctx, w.site(name), args...))
	}
}

// shookAlone leaves the chain's validity to others.
func shookAlone(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if err != nil {
		return nil, err
	}
	return shook(s), nil
}
