package question

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// defaultTLSPort is the port of tls HOST.
const defaultTLSPort = 443

// TLSFlags are the flags of tls. The zero value is none of them.
type TLSFlags struct {
	// ServerName is sent and compared; NoServerName sends none.
	ServerName   string
	NoServerName bool
	// Names are compared too.
	Names []string
	// ALPN and Versions are separated by commas; Ciphers, Groups and SigAlgs by colons, as openssl has it.
	ALPN, Versions, Ciphers, Groups, SigAlgs string
	// Enumerate finds out what the server accepts.
	Enumerate bool
}

// TLS reads the words after "tls", and its flags.
func TLS(args []string, f TLSFlags) (*Question, error) {
	w, err := splitHost("tls", "HOST or HOST:PORT, such as example.com", args)
	if err != nil {
		return nil, err
	}
	spec := &pb.TLSSpec{NoServerName: f.NoServerName, Enumerate: f.Enumerate}
	if spec.Host, spec.Port, err = hostPort(w.plain[0], defaultTLSPort); err != nil {
		return nil, err
	}
	if spec.ServerName, err = sni(f.ServerName); err != nil {
		return nil, err
	}
	for _, n := range f.Names {
		if n, err = name("--name", n); err != nil {
			return nil, err
		}
		spec.Names = append(spec.Names, n)
	}
	if spec.Alpn, err = list("--alpn", f.ALPN, ","); err != nil {
		return nil, err
	}
	if spec.Offer, err = offer(f); err != nil {
		return nil, err
	}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Tls{Tls: spec}}, From: w.from}, nil
}

// offer is what the flags put in place of all that the agent can offer, nil for nothing.
func offer(f TLSFlags) (*pb.TLSOffer, error) {
	if f.Versions+f.Ciphers+f.Groups+f.SigAlgs == "" {
		return nil, nil //nolint:nilnil // nothing is offered in particular, and that is no error
	}
	out := &pb.TLSOffer{}
	versions, err := list("--tls-version", f.Versions, ",")
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		canonical, err := tlsVersion(v)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out.GetVersions(), canonical) {
			out.Versions = append(out.Versions, canonical)
		}
	}
	if out.CipherSuites, err = registered("--ciphers", f.Ciphers); err != nil {
		return nil, err
	}
	if out.Groups, err = registered("--groups", f.Groups); err != nil {
		return nil, err
	}
	out.SignatureSchemes, err = registered("--sigalgs", f.SigAlgs)
	return out, err
}

// tlsVersion reads a version as people and openssl write it: SSLv3, ssl3, tls1, tls1_1, TLSv1.2, 1.3.
func tlsVersion(s string) (string, error) {
	short := strings.NewReplacer(" ", "", "_", ".", "v", "").Replace(strings.ToLower(s))
	switch strings.TrimPrefix(short, "tls") {
	case "ssl3", "ssl3.0":
		return "SSL 3.0", nil
	case "1", "1.0":
		return "TLS 1.0", nil
	case "1.1", "1.2", "1.3":
		return "TLS " + strings.TrimPrefix(short, "tls"), nil
	}
	return "", fmt.Errorf("--tls-version %s is not known; it is ssl3, tls1, tls1.1, tls1.2 or tls1.3, with commas between them", quote(s))
}

// registeredName is the form of the names in IANA's TLS registries and of openssl's.
var registeredName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$`)

// registered reads a list of names of IANA's TLS registries, between colons as openssl has it.
func registered(flag, s string) ([]string, error) {
	items, err := list(flag, s, ":")
	for _, item := range items {
		if !registeredName.MatchString(item) {
			return nil, fmt.Errorf("%s: %s is not a name of IANA's TLS registries; openssl's @, ! and + are not supported", flag, quote(item))
		}
	}
	return items, err
}

// list reads a list with something between its items. An empty one is nil.
func list(flag, s, between string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	var out []string
	for item := range strings.SplitSeq(s, between) {
		if item = strings.TrimSpace(item); item == "" {
			return nil, fmt.Errorf("%s %s has an empty item; write one %s between two items", flag, quote(s), quote(between))
		}
		out = append(out, item)
	}
	return out, nil
}
