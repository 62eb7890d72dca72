package question

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// The limits of RFC 1035, 2.3.4, in presentation format.
const (
	maxLabel = 63
	maxName  = 253
)

// queryName checks the NAME of dns and turns it into A-labels. An address becomes its name in the
// reverse tree where PTR is asked, and is refused where something else is.
func queryName(s, qtype string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		reverse, err := dns.ReverseAddr(addr.WithZone("").String())
		if err != nil || qtype != "PTR" {
			return "", fmt.Errorf("%s is an address, not a name; for its name ask: elsewhere dns %s PTR", quote(s), addr.WithZone(""))
		}
		return strings.TrimSuffix(reverse, "."), nil
	}
	if s == "." {
		return s, nil
	}
	return name("the name", s)
}

// name checks a domain name, which what says the role of, and returns it in A-labels.
func name(what, s string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("%s is empty; give one, such as example.com", what)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%s is a URL; give the name alone, such as example.com", quote(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '\\' || isControl(r) }):
		return "", fmt.Errorf("%s %s holds a space, a backslash or a control character; names such as example.com do not", what, quote(s))
	case strings.Contains(s, ":"):
		return "", fmt.Errorf("%s %s holds a colon; a port or an IPv6 address has no place here", what, quote(s))
	}
	ascii, err := toASCII(s)
	if err != nil {
		return "", fmt.Errorf("%s %s cannot be an internationalised name: %w", what, quote(s), err)
	}
	return ascii, labels(what, ascii)
}

// toASCII turns a name into A-labels (RFC 5891). Plain ASCII stays as it is, underscores too.
func toASCII(s string) (string, error) {
	for i := range len(s) {
		if s[i] >= 0x80 {
			profile := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))
			ascii, err := profile.ToASCII(s)
			if err != nil {
				return "", errors.New("it breaks the rules of RFC 5891")
			}
			return ascii, nil
		}
	}
	return s, nil
}

// labels checks the lengths of a name and of its labels.
func labels(what, s string) error {
	s = strings.TrimSuffix(s, ".")
	for label := range strings.SplitSeq(s, ".") {
		if label == "" {
			return fmt.Errorf("%s %s has an empty label; write the labels with one dot between them", what, quote(s))
		}
		if len(label) > maxLabel {
			return fmt.Errorf("the label %s of %s has %d bytes; DNS allows %d", quote(label), what, len(label), maxLabel)
		}
	}
	if len(s) > maxName {
		return fmt.Errorf("%s %s has %d bytes; DNS allows %d", what, quote(s), len(s), maxName)
	}
	return nil
}

// hostPort reads HOST:PORT, or HOST alone if missing, the default port, is not 0.
func hostPort(s string, missing uint32) (string, uint32, error) {
	switch {
	case s == "":
		return "", 0, errors.New("the target is empty; write HOST:PORT, such as example.com:443")
	case strings.Contains(s, "://"):
		return "", 0, fmt.Errorf("%s is a URL; write HOST:PORT, such as example.com:443", quote(s))
	}
	h, p, found, err := cut(s)
	if err != nil {
		return "", 0, err
	}
	if !found && missing == 0 {
		return "", 0, fmt.Errorf("%s has no port; write HOST:PORT, such as example.com:443", quote(s))
	}
	port := missing
	if found {
		if port, err = portNumber(p); err != nil {
			return "", 0, err
		}
	}
	h, err = host(h)
	return h, port, err
}

// cut separates the port. An IPv6 address with a port is in brackets (RFC 3986, 3.2.2).
func cut(s string) (host, port string, found bool, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, rest, closed := strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(host)
		if !closed || err != nil || !addr.Is6() || (rest != "" && rest[0] != ':') {
			return "", "", false, fmt.Errorf("%s is not an IPv6 address with a port; write [2001:db8::1]:443", quote(s))
		}
		port, found = strings.CutPrefix(rest, ":")
		return host, port, found, nil
	}
	if strings.Count(s, ":") > 1 {
		if _, err := netip.ParseAddr(s); err != nil {
			return "", "", false, fmt.Errorf("%s has too many colons; write HOST:PORT, and IPv6 in brackets: [2001:db8::1]:443", quote(s))
		}
		return s, "", false, nil
	}
	host, port, found = strings.Cut(s, ":")
	return host, port, found, nil
}

// portNumber reads a TCP port.
func portNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %s is not a number from 1 to 65535", quote(s))
	}
	return uint32(n), nil
}

// host checks an IP address or a domain name.
func host(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return "", fmt.Errorf("%s has a zone, which means nothing on another machine; leave out %%%s", quote(s), addr.Zone())
		}
		return addr.String(), nil
	}
	if strings.ContainsAny(s, "/@?#") {
		return "", fmt.Errorf("the host %s is not a name; write HOST:PORT, such as example.com:443", quote(s))
	}
	ascii, err := name("the host", s)
	if err != nil {
		return "", err
	}
	// A name whose last label is a number is meant to be an address (RFC 3696, 2).
	bare := strings.TrimSuffix(ascii, ".")
	if last := bare[strings.LastIndexByte(bare, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", fmt.Errorf("the host %s is neither an IP address nor a name: names do not end in a number", quote(s))
	}
	return ascii, nil
}

// sni checks the value of --servername, which is a name and never an address (RFC 6066, 3).
func sni(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", fmt.Errorf("--servername %s is an address; server_name carries names only (RFC 6066)", quote(s))
	}
	return name("--servername", s)
}
