package lab

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// table is nmap's XML for what a script found.
type table struct {
	Key    string  `xml:"key,attr"`
	Tables []table `xml:"table"`
	Elems  []struct {
		Key  string `xml:"key,attr"`
		Text string `xml:",chardata"`
	} `xml:"elem"`
}

// enumRun is what is read of nmap's XML.
type enumRun struct {
	Scripts []table `xml:"host>ports>port>script"`
}

func (t table) elem(key string) string {
	for _, e := range t.Elems {
		if e.Key == key {
			return e.Text
		}
	}
	return ""
}

// enumerated asks nmap which versions and suites a server accepts.
func enumerated(name string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		s := w.site(name)
		out, err := w.home.Command(ctx, "nmap", "-Pn", "-n", "-sT", "-p", fmt.Sprint(s.port), "-oX", "-",
			"--script", "ssl-enum-ciphers", "--script-args", "tls.servername="+s.host(), s.addr).Output()
		if err != nil {
			return nil, err
		}
		var run enumRun
		if err := xml.Unmarshal(out, &run); err != nil {
			return nil, err
		}
		if len(run.Scripts) != 1 {
			return nil, fmt.Errorf("nmap found nothing out: %s", out)
		}
		f := facts{}
		for _, version := range run.Scripts[0].Tables {
			name, known := map[string]string{
				"SSLv3": "SSL 3.0", "TLSv1.0": "TLS 1.0", "TLSv1.1": "TLS 1.1", "TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3",
			}[version.Key]
			if !known {
				return nil, fmt.Errorf("nmap names the version %q", version.Key)
			}
			f[name] = version.suites()
		}
		return f, nil
	}
}

// suites are those of one version, in the server's order if it has one.
func (t table) suites() string {
	var suites []string
	for _, inner := range t.Tables {
		for _, suite := range inner.Tables {
			if inner.Key == "ciphers" {
				suites = append(suites, ianaName(suite.elem("name")))
			}
		}
	}
	return inOrder(suites, t.elem("cipher preference") == "server")
}

// ianaName drops the version that nmap puts into the names of TLS 1.3's suites.
func ianaName(name string) string { return strings.Replace(name, "TLS_AKE_WITH_", "TLS_", 1) }

// inOrder keeps an order that is the server's. One suite has no order.
func inOrder(suites []string, servers bool) string {
	if servers && len(suites) > 1 {
		return "by preference:\n" + lines(suites)
	}
	slices.Sort(suites)
	return lines(suites)
}

// accepts is the same by Elsewhere.
func accepts(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION)
	if err != nil {
		return nil, err
	}
	f := facts{}
	for _, v := range s.GetEvidence().GetTls().GetVersions() {
		if v.GetSupported() {
			f[v.GetVersion()] = inOrder(slices.Clone(v.GetCipherSuites()), v.GetServerPreference())
		}
	}
	return f, nil
}

// enumerations ask nmap and testssl.sh what servers accept.
func enumerations() []comparison {
	at := func(name string) string {
		s := (&peerWorld{sites: allSites()}).site(name)
		return fmt.Sprintf("%s:%d", s.host(), s.port)
	}
	var all []comparison
	for _, q := range []struct {
		site, says string
		differs    map[string]string
	}{
		{"ssl3", "SSLv3 with RC4, triple DES and AES", nil},
		{"rc4-md5", "RC4-MD5 alone, with three versions", nil},
		{"triple-des", "triple DES alone, with three versions", nil},
		{"preference", "an order of the server's own", nil},
		{"old-and-new", "all that OpenSSL has", nil},
		{"tls12", "OpenSSL's defaults", nil},
		{"tls13", "TLS 1.3 alone", nil},
		{"cbc-sha384", "one suite that Go does not have", nil},
		{"dhe", "finite-field Diffie-Hellman", nil},
		{"gnutls", "CBC and Camellia by GnuTLS", nil},
	} {
		all = append(all, comparison{
			name: "enum-" + q.site, says: q.says, tool: "nmap --script ssl-enum-ciphers " + at(q.site), peer: enumerated(q.site),
			ask: "tls " + at(q.site) + " --enumerate", read: accepts, differs: q.differs,
		})
	}
	return append(all, testsslComparisons()...)
}

// testsslComparisons ask testssl.sh, which takes ten seconds and more for each.
func testsslComparisons() []comparison {
	at := func(name string) string {
		s := (&peerWorld{sites: allSites()}).site(name)
		return fmt.Sprintf("%s:%d", s.host(), s.port)
	}
	var all []comparison
	for _, q := range []struct {
		name, says, check, site string
		theirs                  func(map[string]string) (facts, error)
		ours                    func(*pb.Result) (facts, error)
		ask                     string
	}{
		{"versions-ssl3", "a server of SSLv3", "-p", "ssl3", testsslVersions, acceptsVersions, " --enumerate"},
		{"versions-old-and-new", "every version from TLS 1.0", "-p", "old-and-new", testsslVersions, acceptsVersions, " --enumerate"},
		{"versions-tls13", "a server of TLS 1.3", "-p", "tls13", testsslVersions, acceptsVersions, " --enumerate"},
		{"suites-preference", "which suites a server accepts, of all that there are", "-E", "preference", testsslSuites, acceptsUnordered, " --enumerate"},
		{"suites-rc4-md5", "RC4-MD5 alone, with three versions", "-E", "rc4-md5", testsslSuites, acceptsUnordered, " --enumerate"},
		{"certificate-expired", "what a certificate says", "-S", "expired", testsslCertificate, describedCertificate, ""},
		{"certificate-reversed", "the order of a chain", "-S", "reversed", testsslCertificate, describedCertificate, ""},
	} {
		all = append(all, comparison{
			name: "testssl-" + q.name, says: q.says, tool: "testssl " + q.check + " " + at(q.site), peer: testssl(q.site, q.check, q.theirs),
			ask: "tls " + at(q.site) + q.ask, read: q.ours,
		})
	}
	return all
}

// testssl runs testssl.sh with one check, and reads its JSON.
func testssl(name, check string, read func(map[string]string) (facts, error)) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		s := w.site(name)
		dir, err := os.MkdirTemp(w.dir, "testssl")
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "found.json")
		// It waits long for name servers that do not answer. How it ends says how much it disliked: what it
		// found is in the file.
		out, err := w.withResolver(ctx, "testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", s.addr,
			"--mapping", "rfc", "--add-ca", w.pki.file("root"), "--jsonfile", file, check, fmt.Sprintf("%s:%d", s.host(), s.port))
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		var findings []struct{ ID, Finding string }
		if err := json.Unmarshal(raw, &findings); err != nil {
			return nil, err
		}
		found := map[string]string{}
		for _, f := range findings {
			found[f.ID] = f.Finding
		}
		return read(found)
	}
}

var notOffered = regexp.MustCompile(`^(TLSv1\.\d is )?not offered`)

// testsslVersions reads the versions that testssl.sh found.
func testsslVersions(found map[string]string) (facts, error) {
	f := facts{}
	for id, name := range map[string]string{"SSLv3": "SSL 3.0", "TLS1": "TLS 1.0", "TLS1_1": "TLS 1.1", "TLS1_2": "TLS 1.2", "TLS1_3": "TLS 1.3"} {
		finding, ok := found[id]
		switch {
		case !ok:
			return nil, fmt.Errorf("testssl.sh says nothing of %s", id)
		case notOffered.MatchString(finding):
			f[name] = "no"
		case strings.HasPrefix(finding, "offered"):
			f[name] = "yes"
		default:
			return nil, fmt.Errorf("testssl.sh says of %s: %q", id, finding)
		}
	}
	return f, nil
}

// acceptsVersions is the same by Elsewhere.
func acceptsVersions(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION)
	if err != nil {
		return nil, err
	}
	f := facts{}
	for _, v := range s.GetEvidence().GetTls().GetVersions() {
		f[v.GetVersion()] = map[bool]string{true: "yes", false: "no"}[v.GetSupported()]
	}
	return f, nil
}

var testsslSuite = regexp.MustCompile(`^(SSLv3|TLS 1(?:\.\d)?) +\S+ +(\S+) `)

// testsslSuites reads the suites that testssl.sh found, of each version.
func testsslSuites(found map[string]string) (facts, error) {
	suites := map[string][]string{}
	for id, finding := range found {
		if !strings.HasPrefix(id, "cipher-") {
			continue
		}
		m := testsslSuite.FindStringSubmatch(finding)
		if m == nil {
			return nil, fmt.Errorf("testssl.sh says of %s: %q", id, finding)
		}
		version := map[string]string{"SSLv3": "SSL 3.0", "TLS 1": "TLS 1.0", "TLS 1.1": "TLS 1.1", "TLS 1.2": "TLS 1.2", "TLS 1.3": "TLS 1.3"}[m[1]]
		suites[version] = append(suites[version], m[2])
	}
	f := facts{}
	for version, list := range suites {
		f[version] = inOrder(list, false)
	}
	return f, nil
}

// acceptsUnordered is the same by Elsewhere, without the server's order.
func acceptsUnordered(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION)
	if err != nil {
		return nil, err
	}
	f := facts{}
	for _, v := range s.GetEvidence().GetTls().GetVersions() {
		if v.GetSupported() {
			f[v.GetVersion()] = inOrder(slices.Clone(v.GetCipherSuites()), false)
		}
	}
	return f, nil
}

// testsslCertificate reads what testssl.sh says of a certificate.
func testsslCertificate(found map[string]string) (facts, error) {
	f := facts{
		"fingerprint": strings.ToLower(found["cert_fingerprintSHA256"]), "served": found["certs_countServer"],
		"common name": found["cert_commonName"], "names": found["cert_subjectAltName"],
		"begins": found["cert_notBefore"], "ends": found["cert_notAfter"],
		"serial": strings.TrimLeft(strings.ToLower(found["cert_serialNumber"]), "0"),
		"staple": found["OCSP_stapling"], "disorder": found["certs_list_ordering_problem"],
	}
	for name, value := range f {
		if value == "" {
			return nil, fmt.Errorf("testssl.sh says nothing of the %s", name)
		}
	}
	return f, nil
}

// describedCertificate is the same by Elsewhere.
func describedCertificate(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if err != nil {
		return nil, err
	}
	ev := s.GetEvidence().GetTls()
	if len(ev.GetChain()) == 0 {
		return nil, errors.New("no certificate was served")
	}
	leaf := ev.GetChain()[0]
	minute := func(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format("2006-01-02 15:04") }
	f := facts{
		"fingerprint": leaf.GetSha256(), "served": fmt.Sprint(ev.GetServed()), "common name": leaf.GetCommonName(),
		"names": strings.Join(leaf.GetDnsNames(), " "), "begins": minute(leaf.GetNotBefore()), "ends": minute(leaf.GetNotAfter()),
		"serial": strings.TrimLeft(leaf.GetSerial(), "0"), "staple": "not offered", "disorder": "no",
	}
	if ev.GetOcsp() != nil {
		f["staple"] = "offered"
	}
	if !ev.GetChainAnalysis().GetOrdered() {
		f["disorder"] = "yes"
	}
	return f, nil
}
