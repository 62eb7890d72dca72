package question

import (
	"fmt"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// defaultTLSPort is the port of tls HOST.
const defaultTLSPort = 443

// TLSFlags are the flags of tls but for the profile. The zero value is none of them.
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
	// Expect is one of Reachabilities.
	Expect string
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
	if spec.Expect, err = reachability(f.Expect); err != nil {
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
	var err error
	if out.Versions, err = tlsVersions("--tls-version", f.Versions); err != nil {
		return nil, err
	}
	suites := registry{"--ciphers", "suite", "TLS_AES_128_GCM_SHA256", flight.Suite, flight.SuiteName}
	if out.CipherSuites, err = suites.read(f.Ciphers); err != nil {
		return nil, err
	}
	if err := fit(out); err != nil {
		return nil, err
	}
	groups := registry{"--groups", "group", "x25519", flight.Group, flight.GroupName}
	if out.Groups, err = groups.read(f.Groups); err != nil {
		return nil, err
	}
	schemes := registry{"--sigalgs", "signature scheme", "rsa_pkcs1_sha256", flight.Scheme, flight.SchemeName}
	out.SignatureSchemes, err = schemes.read(f.SigAlgs)
	return out, err
}

// fit says whether one of the versions has one of the suites: otherwise no server can agree to the offer. A
// suite that nobody registered fits every version.
func fit(o *pb.TLSOffer) error {
	if len(o.GetVersions()) == 0 || len(o.GetCipherSuites()) == 0 {
		return nil
	}
	for _, name := range o.GetCipherSuites() {
		suite, _ := flight.Suite(name)
		registered := false
		for v := flight.SSL30; v <= flight.TLS13; v++ {
			has := slices.Contains(flight.Suites(v), suite)
			if has && slices.Contains(o.GetVersions(), flight.VersionName(v)) {
				return nil
			}
			registered = registered || has
		}
		if !registered {
			return nil
		}
	}
	return fmt.Errorf("none of --ciphers goes with %s, so no server can agree to the offer; leave out --tls-version", strings.Join(o.GetVersions(), " or "))
}

// tlsVersion reads a version as people and openssl write it: SSLv3, ssl3, tls1, tls1_1, TLSv1.2, 1.3.
func tlsVersion(flag, s string) (string, error) {
	short := strings.NewReplacer(" ", "", "_", ".", "v", "").Replace(strings.ToLower(s))
	switch strings.TrimPrefix(short, "tls") {
	case "ssl3", "ssl3.0":
		return "SSL 3.0", nil
	case "1", "1.0":
		return "TLS 1.0", nil
	case "1.1", "1.2", "1.3":
		return "TLS " + strings.TrimPrefix(short, "tls"), nil
	}
	return "", fmt.Errorf("%s %s is not known; it is ssl3, tls1, tls1.1, tls1.2 or tls1.3, with commas between them", flag, quote(s))
}

// registry is one of IANA's TLS registries.
type registry struct {
	flag, what, example string
	number              func(string) (uint16, bool)
	name                func(uint16) string
}

// read reads a list of names, between colons as openssl has it, and returns them in IANA's spelling.
func (r registry) read(s string) ([]string, error) {
	items, err := list(r.flag, s, ":")
	for i, item := range items {
		number, ok := r.number(item)
		if !ok {
			return nil, fmt.Errorf("%s: %s is no %s that is known; write a name such as %s, or a number such as 0x001D, with colons between them", r.flag, quote(item), r.what, r.example)
		}
		items[i] = r.name(number)
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
