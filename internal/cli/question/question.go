// Package question turns the words of a command line into a CreateMeasurementRequest: the grammar
//
//	dns NAME [TYPE] [@RESOLVER] [from WHERE] [+short]
//	tcp HOST:PORT [from WHERE]
//	tls HOST[:PORT] [from WHERE]
//
// in any order. It dials nobody. Every error is one line that names what was wrong and what to do.
package question

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// defaultTLSPort is the port of tls HOST.
const defaultTLSPort = 443

// Question is what the words ask.
type Question struct {
	// Spec is what to look at.
	Spec *pb.Spec
	// From is the WHERE of the words; empty if they name none.
	From string
	// Short says that +short was among the words: the distinct answers alone.
	Short bool
}

// DNS reads the words after "dns" and the values of --expect.
func DNS(words, expect []string) (*Question, error) {
	w, err := split(words, wantsDNS)
	if err != nil {
		return nil, err
	}
	name, qtype, err := nameAndType(w.plain)
	if err != nil {
		return nil, err
	}
	spec := &pb.DNSSpec{}
	if spec.Type, err = recordType(qtype); err != nil {
		return nil, err
	}
	if spec.Name, err = queryName(name, spec.GetType()); err != nil {
		return nil, err
	}
	if spec.Resolver, err = resolver(w); err != nil {
		return nil, err
	}
	if spec.Expect, err = expected(expect, spec.GetType()); err != nil {
		return nil, err
	}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}, From: w.from, Short: w.short}, nil
}

// TCP reads the words after "tcp" and the value of --expect, "" if it is not given.
func TCP(words []string, expect string) (*Question, error) {
	w, err := splitHost("tcp", "HOST:PORT, such as example.com:443", words)
	if err != nil {
		return nil, err
	}
	host, port, err := hostPort(w.plain[0], 0)
	if err != nil {
		return nil, err
	}
	reach, err := reachability(expect)
	if err != nil {
		return nil, err
	}
	spec := &pb.TCPSpec{Host: host, Port: port, Expect: reach}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: spec}}, From: w.from}, nil
}

// TLS reads the words after "tls" and the value of --servername, "" if it is not given.
func TLS(words []string, serverName string) (*Question, error) {
	w, err := splitHost("tls", "HOST or HOST:PORT, such as example.com", words)
	if err != nil {
		return nil, err
	}
	host, port, err := hostPort(w.plain[0], defaultTLSPort)
	if err != nil {
		return nil, err
	}
	if serverName, err = sni(serverName); err != nil {
		return nil, err
	}
	spec := &pb.TLSSpec{Host: host, Port: port, ServerName: serverName}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Tls{Tls: spec}}, From: w.from}, nil
}

// Where reads the words of a command that takes nothing but [from WHERE].
func Where(words []string) (string, error) {
	w, err := split(words, func([]string, string) bool { return false })
	switch {
	case err != nil:
		return "", err
	case len(w.plain) > 0:
		return "", fmt.Errorf("unexpected word %s; only 'from WHERE' can follow", quote(w.plain[0]))
	case w.resolver != "" || w.short:
		return "", errors.New("@RESOLVER and +short belong to dns; only 'from WHERE' can follow")
	}
	return w.from, nil
}

// splitHost splits the words of a check that has exactly one word of its own.
func splitHost(check, form string, args []string) (words, error) {
	w, err := split(args, func(plain []string, _ string) bool { return len(plain) == 0 })
	switch {
	case err != nil:
		return w, err
	case len(w.plain) == 0:
		return w, fmt.Errorf("%s needs %s", check, form)
	case len(w.plain) > 1:
		return w, fmt.Errorf("unexpected word %s; %s takes one %s", quote(w.plain[1]), check, form)
	case w.asked:
		return w, fmt.Errorf("@RESOLVER belongs to dns; %s asks the agents' own resolvers", check)
	case w.short:
		return w, fmt.Errorf("+short belongs to dns; %s has no answers to shorten", check)
	}
	return w, nil
}

// nameAndType tells NAME from TYPE among one or two words, in either order, as dig does.
func nameAndType(plain []string) (name, qtype string, err error) {
	switch len(plain) {
	case 0:
		return "", "", errors.New("dns needs a NAME, such as: elsewhere dns example.com AAAA")
	case 1:
		return plain[0], "A", nil
	case 2:
		if !isType(plain[1]) && isType(plain[0]) {
			return plain[1], plain[0], nil
		}
		return plain[0], plain[1], nil
	}
	return "", "", fmt.Errorf("unexpected word %s; dns takes NAME [TYPE] [@RESOLVER] [from WHERE]", quote(plain[2]))
}

// wantsDNS says whether a word after "from WHERE" is dns's own rather than more of the place: a
// name if there is none yet, then a type.
func wantsDNS(plain []string, word string) bool {
	return len(plain) == 0 || (len(plain) == 1 && isType(word))
}

// reachability reads the --expect of tcp.
func reachability(s string) (pb.Reachability, error) {
	switch strings.ToLower(s) {
	case "":
		return pb.Reachability_REACHABILITY_UNSPECIFIED, nil
	case "open":
		return pb.Reachability_REACHABILITY_OPEN, nil
	case "blocked":
		return pb.Reachability_REACHABILITY_BLOCKED, nil
	}
	return 0, fmt.Errorf("--expect %s is not known; a port is expected open or blocked", quote(s))
}

// resolver checks @RESOLVER: IP, IP:PORT or [IP]:PORT.
func resolver(w words) (string, error) {
	if !w.asked {
		return "", nil
	}
	bad := fmt.Errorf("@%s is not a resolver's IP address; write @IP, @IP:PORT or @[IPv6]:PORT", quote(w.resolver))
	if addr, err := netip.ParseAddr(w.resolver); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	ap, err := netip.ParseAddrPort(w.resolver)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return "", bad
	}
	return ap.String(), nil
}

// expected checks the values of --expect for dns. Addresses are put into the one spelling that
// answers have, so that 2001:DB8::1 meets 2001:db8::1.
func expected(values []string, qtype string) ([]string, error) {
	out := make([]string, 0, len(values))
	for _, v := range values {
		v = strings.TrimSpace(v)
		if v == "" {
			return nil, errors.New("--expect is empty; say which data the answer should hold")
		}
		addr, err := netip.ParseAddr(v)
		if qtype == "A" && (err != nil || !addr.Is4()) {
			return nil, fmt.Errorf("--expect %s is not an IPv4 address, as the answer to A is", quote(v))
		}
		if qtype == "AAAA" && (err != nil || !addr.Is6() || addr.Zone() != "") {
			return nil, fmt.Errorf("--expect %s is not an IPv6 address, as the answer to AAAA is", quote(v))
		}
		if err == nil && (qtype == "A" || qtype == "AAAA") {
			v = addr.String()
		}
		out = append(out, v)
	}
	return out, nil
}
