package question

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// DNSFlags are the flags of dns. The zero value is none of them.
type DNSFlags struct {
	// Expect are the values that every answer should hold.
	Expect []string
	// Reverse is the address of -x, Type that of -t, Class that of -c.
	Reverse, Type, Class string
	// Authoritative asks all of the zone's own servers.
	Authoritative bool
	// Public asks public resolvers too: those of PublicAt, or else the ones that people use at each place.
	Public bool
	// PublicAt are addresses, separated by commas.
	PublicAt string
}

// DNS reads the words after "dns", and its flags.
func DNS(args []string, f DNSFlags) (*Question, error) {
	w, err := split(args, wantsDNS(f))
	if err != nil {
		return nil, err
	}
	spec := &pb.DNSSpec{Authoritative: f.Authoritative}
	if err := subject(spec, w.plain, f); err != nil {
		return nil, err
	}
	if spec.Resolver, err = server(w); err != nil {
		return nil, err
	}
	if spec.Expect, err = expected(f.Expect, spec.GetType()); err != nil {
		return nil, err
	}
	short, err := digOptions(spec, w.options)
	if err != nil {
		return nil, err
	}
	if f.PublicAt != "" {
		if spec.PublicResolvers, err = publicAt(f.PublicAt); err != nil {
			return nil, err
		}
	}
	spec.LocalPublicResolvers = f.Public && f.PublicAt == ""
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}, From: w.from, Short: short}, nil
}

// wantsDNS says whether a word after "from WHERE" is dns's own rather than more of the place: a
// name if there is none yet, then a type or a class. IN is no class there, but a country.
func wantsDNS(f DNSFlags) func([]string, string) bool {
	return func(plain []string, word string) bool {
		named := len(plain) > 0 || f.Reverse != ""
		return !named || (len(plain) <= 1 && (isType(word) || strings.EqualFold(word, "CH")))
	}
}

// subject reads what is asked about: the name, the type and the class.
func subject(spec *pb.DNSSpec, plain []string, f DNSFlags) (err error) {
	name, qtype, class, err := tellApart(plain, f)
	if err != nil {
		return err
	}
	if spec.Class, err = className(class); err != nil {
		return err
	}
	if f.Reverse != "" {
		return reverse(spec, f.Reverse, qtype)
	}
	if qtype == "" {
		qtype = "A"
		if spec.GetClass() == "CH" {
			qtype = "TXT" // all that is served in this class (RFC 4892)
		}
	}
	if spec.Type, err = recordType(qtype); err != nil {
		return err
	}
	spec.Name, err = queryName(name, spec.GetType())
	return err
}

// reverse asks for the name of an address (RFC 1035, 3.5; RFC 3596, 2.5).
func reverse(spec *pb.DNSSpec, address, qtype string) error {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("-x %s is not an IP address; write -x 192.0.2.1 or -x 2001:db8::1", quote(address))
	}
	if qtype != "" && !strings.EqualFold(qtype, "PTR") {
		return fmt.Errorf("-x asks for PTR, and %s is asked too; leave out one of them", quote(qtype))
	}
	spec.Type = "PTR"
	spec.Name, err = queryName(addr.WithZone("").Unmap().String(), "PTR")
	return err
}

// tellApart tells NAME, TYPE and CLASS among the words, in any order, as dig does: the name is the
// first word that is neither of the others, or else the first word.
func tellApart(plain []string, f DNSFlags) (name, qtype, class string, err error) {
	qtype, class = f.Type, f.Class
	rest := slices.Clone(plain)
	if f.Reverse == "" {
		if len(rest) == 0 {
			return "", "", "", errors.New("dns needs a NAME, such as: elsewhere dns example.com AAAA")
		}
		i := max(0, slices.IndexFunc(rest, func(w string) bool { return !isType(w) && !isClass(w) }))
		name = rest[i]
		rest = slices.Delete(rest, i, i+1)
	}
	for _, word := range rest {
		switch {
		case isClass(word) && class == "":
			class = word
		case qtype == "" && (isType(word) || len(rest) == 1):
			qtype = word
		case isClass(word) || isType(word):
			return "", "", "", fmt.Errorf("%s is one type or class too many; dns asks one question", quote(word))
		default:
			return "", "", "", fmt.Errorf("unexpected word %s; dns takes NAME [TYPE] [CLASS] [@SERVER] [from WHERE]", quote(word))
		}
	}
	return name, qtype, class, nil
}

// isClass says whether a word is a class of dig's.
func isClass(s string) bool {
	_, ok := dns.StringToClass[strings.ToUpper(s)]
	return ok && !strings.EqualFold(s, "ANY") || strings.EqualFold(s, "CHAOS")
}

// className reads a class; "" is IN, which needs not be said.
func className(s string) (string, error) {
	switch strings.ToUpper(s) {
	case "", "IN":
		return "", nil
	case "CH", "CHAOS":
		return "CH", nil
	}
	return "", fmt.Errorf("class %s is not supported; it is IN or CH", quote(s))
}

// server checks @SERVER: an address or a name, with a port or without one.
func server(w words) (string, error) {
	if !w.asked {
		return "", nil
	}
	s, err := serverAddress(w.resolver)
	if err != nil {
		return "", fmt.Errorf("@%s is not a server: %w; write @IP, @NAME, @HOST:PORT or @[IPv6]:PORT", quote(w.resolver), err)
	}
	return s, nil
}

// serverAddress is a server in the contract's spelling.
func serverAddress(s string) (string, error) {
	if s == "" {
		return "", errors.New("it is empty")
	}
	h, p, found, err := cut(s)
	if err != nil {
		return "", err
	}
	if h, err = host(h); err != nil {
		return "", err
	}
	if !found {
		return h, nil
	}
	port, err := portNumber(p)
	if err != nil {
		return "", err
	}
	return joinPort(h, port), nil
}

// publicAt reads the addresses of --public.
func publicAt(list string) ([]string, error) {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		s, err := serverAddress(strings.TrimSpace(item))
		if err == nil {
			_, err = netip.ParseAddr(s)
			if _, bad := netip.ParseAddrPort(s); bad == nil {
				err = nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("--public: %s is not a resolver's address; write IP or IP:PORT, with commas between them", quote(item))
		}
		out = append(out, s)
	}
	return out, nil
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
