package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// suiteNames are IANA's names of suites by OpenSSL's.
type suiteNames map[string]string

// openSSLSuites asks openssl for both of its names of every suite that it knows.
func openSSLSuites(ctx context.Context, w *peerWorld) (suiteNames, error) {
	out, err := w.home.Output(ctx, "openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
	if err != nil {
		return nil, err
	}
	names := suiteNames{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 4 { // 0xC0,0x2C - TLS_… - ECDHE-… TLSv1.2 …
			names[f[4]] = f[2]
		}
	}
	return names, nil
}

// What openssl s_client prints.
var (
	sNew     = regexp.MustCompile(`(?m)^New, (\S+), Cipher is (\S+)$`)
	sVersion = regexp.MustCompile(`(?m)^    Protocol  : (\S+)$`)
	sGroup   = regexp.MustCompile(`(?m)^Server Temp Key: (.*)$`)
	sALPN    = regexp.MustCompile(`(?m)^ALPN protocol: (.*)$`)
	sAlert   = regexp.MustCompile(`SSL alert number (\d+)`)
	sLink    = regexp.MustCompile(`(?m)^ *\d+ s:(.*)\n +i:(.*)$`)
	sAsked   = regexp.MustCompile(`(?m)^(Client Certificate Types|Requested Signature Algorithms): `)
	sStaple  = regexp.MustCompile(`(?m)^ *Cert Status: (\w+)$`)
	sProblem = regexp.MustCompile(`(?m)^(?:depth=(\d+) .*|depth=(\d+)|verify error:num=(\d+):.*)$`)
	sSigned  = regexp.MustCompile(`(?m)^Peer signature type: (.*)\n`)
	sWarning = regexp.MustCompile(`(?m)^<<< .* Alert \[length 0002\], warning (\w+)$`)
	sDigest  = regexp.MustCompile(`(?m)^Peer signing digest: (.*)$`)
)

// sClient shakes hands with openssl as Elsewhere does: the same name, the same protocols, the same root.
// More arguments may change that.
func (w *peerWorld) sClient(ctx context.Context, s *site, args ...string) string {
	all := []string{
		"openssl", "s_client", "-connect", s.at(), "-CAfile", w.pki.file("root"), "-showcerts", "-status",
		"-verify_hostname", s.host(), "-alpn", "h2,http/1.1",
	}
	if !slices.Contains(args, "-noservername") && !slices.Contains(args, "-servername") {
		all = append(all, "-servername", s.host())
	}
	// It ends with 1 where a handshake fails: what it says is what counts.
	cmd := w.home.Command(ctx, append([]string{"timeout", "3"}, append(all, args...)...)...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// agreed are the facts of a handshake by openssl.
func (w *peerWorld) agreed(out string) (facts, error) {
	if out == "" { // It was ended before it wrote what it had: it prints nothing until something has come.
		return facts{"end": "silence"}, nil
	}
	if !strings.Contains(out, "CONNECTED(") {
		return nil, fmt.Errorf("openssl did not connect: %s", out)
	}
	f := facts{"end": sEnd(out), "warning": ""}
	if warning := sWarning.FindStringSubmatch(out); warning != nil {
		f["warning"] = warning[1]
	}
	if f["end"] != "complete" && !strings.Contains(out, "-----BEGIN CERTIFICATE-----") {
		return f, nil
	}
	f["client certificate"], f["chain"] = fmt.Sprint(sAsked.MatchString(out)), fingerprints(out)
	if f["end"] != "complete" {
		return f, nil
	}
	var err error
	if f["version"], f["suite"], f["group"], err = w.parameters(out); err != nil {
		return nil, err
	}
	if alpn := sALPN.FindStringSubmatch(out); alpn != nil {
		f["alpn"] = alpn[1]
	}
	f["signed"] = signedBy(out)
	f["staple"] = ""
	if staple := sStaple.FindStringSubmatch(out); staple != nil {
		f["staple"] = staple[1]
	}
	return f, nil
}

// parameters reads what was agreed on.
func (w *peerWorld) parameters(out string) (version, suite, group string, err error) {
	agreed := sNew.FindStringSubmatch(out)
	if agreed == nil {
		return "", "", "", fmt.Errorf("openssl names no cipher: %s", out)
	}
	version = agreed[1]
	if v := sVersion.FindStringSubmatch(out); v != nil { // "New" names the version that the suite came with.
		version = v[1]
	}
	version = map[string]string{"TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1", "TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}[version]
	suite = w.suites[agreed[2]]
	if version == "" || suite == "" {
		return "", "", "", fmt.Errorf("openssl agreed on %q, which are not known", agreed)
	}
	if key := sGroup.FindStringSubmatch(out); key != nil {
		name, _, _ := strings.Cut(strings.TrimPrefix(key[1], "ECDH, "), ",")
		group = map[string]string{"X25519": "x25519", "prime256v1": "secp256r1", "secp384r1": "secp384r1", "secp521r1": "secp521r1", "DH": "dh"}[name]
		if group == "" {
			return "", "", "", fmt.Errorf("the group %q is not known", name)
		}
	}
	return version, suite, group, nil
}

// signedBy is how the server signed, in openssl's words: the kind of signature, and the digest if it has one.
// Before TLS 1.2 there was nothing to choose, nor is there without a signature.
func signedBy(out string) string {
	kind, digest := sSigned.FindStringSubmatch(out), sDigest.FindStringSubmatch(out)
	switch {
	case kind == nil, digest != nil && digest[1] == "MD5-SHA1":
		return ""
	case digest == nil:
		return kind[1]
	}
	return kind[1] + " " + digest[1]
}

// signedWith is a signature scheme in the same words.
func signedWith(scheme string) string {
	kind, digest := "", strings.ToUpper(scheme[strings.LastIndexByte(scheme, '_')+1:])
	switch {
	case scheme == "":
		return ""
	case scheme == "ed25519":
		return "ed25519"
	case strings.HasPrefix(scheme, "ecdsa_"):
		kind = "ECDSA"
	case strings.HasPrefix(scheme, "rsa_pss_"):
		kind = "RSA-PSS"
	case strings.HasPrefix(scheme, "rsa_pkcs1_"):
		kind = "RSA"
	}
	return kind + " " + digest
}

// sEnd is how a handshake ended, by openssl.
func sEnd(out string) string {
	alert := sAlert.FindStringSubmatch(out)
	switch {
	case alert != nil:
		return "alert " + alert[1]
	case strings.Contains(out, "errno=104"):
		return "reset"
	case strings.Contains(out, "wrong version number"), strings.Contains(out, "packet length too long"):
		return "not TLS"
	case strings.Contains(out, "unsupported protocol"):
		return "another version"
	case strings.Contains(out, "unexpected eof"), strings.Contains(out, "errno=0"):
		return "closed"
	case sNew.MatchString(out) && !strings.Contains(out, "Cipher is (NONE)"):
		return "complete"
	}
	return "silence"
}

// fingerprints are those of the certificates in the order in which they were served.
func fingerprints(out string) string {
	var all []string
	rest := []byte(out)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return lines(all)
		}
		sum := sha256.Sum256(block.Bytes)
		all = append(all, hex.EncodeToString(sum[:]))
	}
}

// verified are the facts of a chain by openssl, all of its errors.
func verified(out string) (facts, error) {
	f := facts{"each issued the one before": "true", "trust": "a path"}
	links := sLink.FindAllStringSubmatch(out, -1)
	for i := 1; i < len(links); i++ {
		if links[i-1][2] != links[i][1] {
			f["each issued the one before"] = "false"
		}
	}
	depth := ""
	var problems []string
	for _, line := range sProblem.FindAllStringSubmatch(out, -1) {
		if line[3] == "" {
			depth = line[1] + line[2]
			continue
		}
		problem, err := verifyError(line[3], depth)
		if err != nil {
			return nil, err
		}
		if trust, ok := strings.CutPrefix(problem, "trust: "); ok {
			f["trust"] = trust
		} else if !slices.Contains(problems, problem) {
			problems = append(problems, problem)
		}
	}
	slices.Sort(problems)
	f["problems"] = lines(problems)
	return f, nil
}

// verifyError is an error of openssl's verification (x509_vfy.h) in the words of both.
func verifyError(num, depth string) (string, error) {
	leafOr := func(leaf, other string) string {
		if depth == "0" {
			return leaf
		}
		return other
	}
	switch num {
	case "9":
		return "not yet valid", nil
	case "10":
		return leafOr("expired", "intermediate expired"), nil
	case "18":
		return "trust: self-signed", nil
	case "19":
		return "trust: a root that nobody knows", nil
	case "20", "21":
		return "trust: no path", nil
	case "24", "25", "32", "79":
		return "trust: an issuer that may not issue", nil
	case "26":
		return "trust: not for servers", nil
	case "47":
		return "trust: a name outside of the constraints", nil
	case "62":
		return "name mismatch", nil
	case "66", "67":
		return "weak key", nil
	case "68":
		return "weak signature", nil
	}
	return "", fmt.Errorf("verify error %s at depth %s has no counterpart", num, depth)
}

// judged are the same facts of a chain by Elsewhere.
func judged(s *pb.Step) facts {
	ev := s.GetEvidence().GetTls()
	analysis := ev.GetChainAnalysis()
	f := facts{
		"each issued the one before": fmt.Sprint(analysis.GetOrdered() && len(analysis.GetExtra())+len(analysis.GetDuplicate()) == 0),
		"trust":                      trustOf(s),
	}
	problems := []string{}
	for _, failure := range s.GetFailures() {
		if word := problemOf(failure); word != "" {
			problems = append(problems, word)
		}
	}
	slices.Sort(problems)
	f["problems"] = lines(problems)
	return f
}

// problemOf is a failure of a certificate in the words of both; trust and order are told apart.
func problemOf(f pb.Failure) string {
	return map[pb.Failure]string{
		pb.Failure_FAILURE_CERT_EXPIRED: "expired", pb.Failure_FAILURE_CERT_NOT_YET_VALID: "not yet valid",
		pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED: "intermediate expired", pb.Failure_FAILURE_CERT_NAME_MISMATCH: "name mismatch",
		pb.Failure_FAILURE_CERT_WEAK_KEY: "weak key", pb.Failure_FAILURE_CERT_WEAK_SIGNATURE: "weak signature",
		pb.Failure_FAILURE_CERT_REVOKED: "revoked", pb.Failure_FAILURE_CERT_MALFORMED: "malformed",
		pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED: "key unsupported",
	}[f]
}

// trustOf is whether and why not there is a path to a root.
func trustOf(s *pb.Step) string {
	analysis := s.GetEvidence().GetTls().GetChainAnalysis()
	has := func(f pb.Failure) bool { return slices.Contains(s.GetFailures(), f) }
	switch analysis.GetDistrust() {
	case pb.Distrust_DISTRUST_USAGE:
		return "not for servers"
	case pb.Distrust_DISTRUST_NAME_CONSTRAINTS:
		return "a name outside of the constraints"
	case pb.Distrust_DISTRUST_NOT_AN_AUTHORITY:
		return "an issuer that may not issue"
	}
	switch {
	case has(pb.Failure_FAILURE_CERT_SELF_SIGNED):
		return "self-signed"
	case has(pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT) && analysis.GetRootIncluded():
		return "a root that nobody knows"
	case has(pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT), has(pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE):
		return "no path"
	}
	return "a path"
}

// shook are the facts of a handshake by Elsewhere.
func shook(s *pb.Step) facts {
	ev := s.GetEvidence().GetTls()
	f := facts{"end": endOf(s), "warning": ""}
	if f["end"] == "complete" && ev.GetAlert() != nil { // It did not end the handshake.
		f["warning"] = ev.GetAlert().GetName()
	}
	if f["end"] != "complete" && len(ev.GetChain()) == 0 {
		return f
	}
	var chain []string
	for _, c := range ev.GetChain() {
		chain = append(chain, c.GetSha256())
	}
	f["client certificate"], f["chain"] = fmt.Sprint(ev.GetClientCertificateRequested()), lines(chain)
	if f["end"] != "complete" {
		return f
	}
	f["version"], f["suite"], f["group"] = ev.GetVersion(), ev.GetCipherSuite(), ev.GetGroup()
	if ev.GetAlpn() != "" {
		f["alpn"] = ev.GetAlpn()
	}
	f["signed"], f["staple"] = signedWith(ev.GetSignatureScheme()), ev.GetOcsp().GetStatus()
	return f
}

// endOf is how a handshake ended, by Elsewhere.
func endOf(s *pb.Step) string {
	stopped := s.GetFailure() >= pb.Failure_FAILURE_TLS_TIMEOUT && s.GetFailure() < pb.Failure_FAILURE_CERT_EXPIRED
	if alert := s.GetEvidence().GetTls().GetAlert(); alert != nil && stopped {
		return fmt.Sprintf("alert %d", alert.GetCode())
	}
	switch s.GetFailure() {
	case pb.Failure_FAILURE_TLS_RESET:
		return "reset"
	case pb.Failure_FAILURE_TLS_CLOSED:
		return "closed"
	case pb.Failure_FAILURE_TLS_TIMEOUT:
		return "silence"
	case pb.Failure_FAILURE_TLS_NOT_TLS:
		return "not TLS"
	case pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED:
		return "another version"
	}
	if stopped {
		return short(s.GetFailure())
	}
	return "complete"
}
