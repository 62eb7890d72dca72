package question

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// takes says whether an option has a value.
type takes int

const (
	noValue takes = iota
	needsValue
	mayHaveValue
)

// digOption is a +option. The names are dig's, but for quic.
type digOption struct {
	names []string // the first is the one that is shown
	value takes
	set   func(o *dig, on bool, value string) error
}

// dig is what the +options say, before it is known that they fit together.
type dig struct {
	spec       *pb.DNSSpec
	short      bool
	transports map[string]bool
	get, post  bool
}

// options are those that are supported.
func options() []digOption {
	flag := func(field func(*pb.DNSSpec) *bool) func(*dig, bool, string) error {
		return func(o *dig, on bool, _ string) error {
			*field(o.spec) = on
			return nil
		}
	}
	transport := func(name string) func(*dig, bool, string) error {
		return func(o *dig, on bool, _ string) error {
			o.transports[name] = on
			return nil
		}
	}
	return []digOption{
		{[]string{"dnssec", "do"}, noValue, flag(func(s *pb.DNSSpec) *bool { return &s.Dnssec })},
		{[]string{"cdflag", "cd"}, noValue, flag(func(s *pb.DNSSpec) *bool { return &s.CheckingDisabled })},
		{[]string{"recurse", "rdflag"}, noValue, func(o *dig, on bool, _ string) error { o.spec.NoRecursion = !on; return nil }},
		{[]string{"nsid"}, noValue, flag(func(s *pb.DNSSpec) *bool { return &s.Nsid })},
		{[]string{"subnet"}, needsValue, (*dig).subnet},
		{[]string{"bufsize"}, needsValue, (*dig).bufsize},
		{[]string{"tcp", "vc"}, noValue, transport("tcp")},
		{[]string{"tls"}, noValue, transport("tls")},
		{[]string{"https"}, mayHaveValue, (*dig).https},
		{[]string{"https-get"}, mayHaveValue, (*dig).httpsGet},
		{[]string{"https-post"}, mayHaveValue, (*dig).httpsPost},
		{[]string{"quic"}, noValue, transport("quic")},
		{[]string{"tls-hostname"}, needsValue, (*dig).tlsHostname},
		{[]string{"trace"}, noValue, flag(func(s *pb.DNSSpec) *bool { return &s.Trace })},
		{[]string{"short"}, noValue, func(o *dig, on bool, _ string) error { o.short = on; return nil }},
	}
}

// DigOptions returns the names of the supported +options, with the + and the = of those with a value.
func DigOptions() []string {
	var out []string
	for _, o := range options() {
		name := "+" + o.names[0]
		if o.value == needsValue {
			name += "="
		}
		out = append(out, name)
	}
	return out
}

// otherOptions are dig's options (BIND 9.20) that are not ours: an abbreviation of one of them is not
// one of ours.
func otherOptions() []string {
	return strings.Fields(`aaflag aaonly additional adflag all answer authority badcookie besteffort class cmd
		coflag comments cookie crypto defname dns64prefix domain edns ednsflags ednsnegotiation ednsopt
		expandaaaa expire fail fuzztime header-only http-plain http-plain-get http-plain-post identify
		idn idnin idnout ignore keepalive keepopen mapped multiline ndots nssearch onesoa opcode padding
		proxy proxy-plain qid qr question raflag retry rrcomments search showallmessages showbadcookie
		showbadvers showsearch split stats svcparamkeycompat tcflag time timeout tls-ca tls-certfile
		tls-keyfile topdown tries ttlid ttlunits unexpected unknownformat yaml zflag zoneversion`)
}

// digOptions reads the +options into the spec, the later ones over the earlier, and says whether
// +short is among them.
func digOptions(spec *pb.DNSSpec, words []string) (short bool, err error) {
	o := &dig{spec: spec, transports: map[string]bool{}}
	for _, word := range words {
		if err := o.take(word); err != nil {
			return false, err
		}
	}
	return o.short, o.together()
}

// take takes one +option: +NAME, +noNAME or +NAME=VALUE.
func (o *dig) take(word string) error {
	name, value, valued := strings.Cut(strings.ToLower(word[1:]), "=")
	if valued {
		_, value, _ = strings.Cut(word, "=") // as it was written
	}
	option, err := findOption(name)
	on := true
	if bare, no := strings.CutPrefix(name, "no"); err != nil && no {
		var found error
		if option, found = findOption(bare); found == nil {
			on, err = false, nil
		}
	}
	switch {
	case err != nil:
		return err
	case !on && valued:
		return fmt.Errorf("option %s takes no value; +no%s turns it off", quote(word), option.names[0])
	case on && valued && option.value == noValue:
		return fmt.Errorf("option %s takes no value; write +%s", quote(word), option.names[0])
	case on && value == "" && (valued || option.value == needsValue):
		return fmt.Errorf("option %s needs a value; write +%s=…", quote(word), option.names[0])
	}
	return option.set(o, on, value)
}

// findOption finds an option by its name or by an abbreviation that can mean no other of dig's.
func findOption(name string) (digOption, error) {
	var near []digOption
	for _, o := range options() {
		if slices.Contains(o.names, name) {
			return o, nil
		}
		if name != "" && slices.ContainsFunc(o.names, func(n string) bool { return strings.HasPrefix(n, name) }) {
			near = append(near, o)
		}
	}
	others := slices.DeleteFunc(otherOptions(), func(n string) bool { return !strings.HasPrefix(n, name) })
	switch {
	case len(near) == 1 && len(others) == 0:
		return near[0], nil
	case len(near) > 0:
		meant := []string{"+" + near[0].names[0]}
		for _, o := range near[1:] {
			meant = append(meant, "+"+o.names[0])
		}
		return digOption{}, fmt.Errorf("option %s is short for more than one; write %s in full", quote("+"+name), strings.Join(meant, ", "))
	}
	return digOption{}, fmt.Errorf("option %s is not supported; supported are %s", quote("+"+name), strings.Join(DigOptions(), " "))
}

// subnet takes the forms of dig: a prefix, an address, the first bytes of one, and 0 for everybody.
func (o *dig) subnet(on bool, value string) error {
	if o.spec.ClientSubnet = ""; !on {
		return nil
	}
	bad := fmt.Errorf("+subnet=%s is not a network; write +subnet=192.0.2.0/24, +subnet=2001:db8::/32, or +subnet=0 for none", quote(value))
	address, length, sized := strings.Cut(value, "/")
	if value == "0" {
		length, sized = "0", true
	}
	for !strings.Contains(address, ":") && strings.Count(address, ".") < 3 {
		address += ".0"
	}
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Zone() != "" {
		return bad
	}
	bits := addr.BitLen()
	if sized {
		if bits, err = strconv.Atoi(length); err != nil {
			return bad
		}
	}
	prefix, err := addr.Prefix(bits) // what is beyond the prefix is not sent (RFC 7871, 6)
	if err != nil {
		return bad
	}
	o.spec.ClientSubnet = prefix.String()
	return nil
}

// bufsize takes a size in bytes.
func (o *dig) bufsize(on bool, value string) error {
	if o.spec.BufferSize = 0; !on {
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n < 512 {
		return fmt.Errorf("+bufsize=%s is not a size in bytes from 512 to 65535", quote(value))
	}
	o.spec.BufferSize = uint32(n)
	return nil
}

// https takes the path of +https.
func (o *dig) https(on bool, path string) error {
	o.transports["https"] = on
	if o.spec.HttpsPath = path; !on {
		o.get, o.post = false, false
	}
	if path != "" && path[0] != '/' {
		return fmt.Errorf("+https=%s is not a path; it begins with a slash: +https=/dns-query", quote(path))
	}
	return nil
}

func (o *dig) httpsGet(on bool, path string) error {
	o.get = on
	return o.method(on, path)
}

func (o *dig) httpsPost(on bool, path string) error {
	o.post = on
	return o.method(on, path)
}

// method is +https-get or +https-post, which may stand beside +https=PATH.
func (o *dig) method(on bool, path string) error {
	if path == "" {
		path = o.spec.GetHttpsPath()
	}
	if !on && (o.get || o.post) {
		return nil // the other one stays
	}
	return o.https(on, path)
}

// tlsHostname takes the name that the server's certificate is for.
func (o *dig) tlsHostname(on bool, value string) (err error) {
	if o.spec.TlsHostname = ""; on {
		o.spec.TlsHostname, err = name("+tls-hostname", value)
	}
	return err
}

// together says how the query travels, if that is one way.
func (o *dig) together() error {
	var asked []string
	for _, name := range []string{"tcp", "tls", "https", "quic"} {
		if o.transports[name] {
			asked = append(asked, name)
		}
	}
	switch {
	case len(asked) > 1:
		return fmt.Errorf("+%s and +%s exclude each other; a query travels one way", asked[0], asked[1])
	case o.get && o.post:
		return errors.New("+https-get and +https-post exclude each other; a query travels one way")
	case o.spec.GetTlsHostname() != "" && (len(asked) == 0 || asked[0] == "tcp"):
		return errors.New("+tls-hostname is for +tls, +https and +quic; add one of them, or leave it out")
	case len(asked) == 0:
		return nil
	}
	o.spec.Transport = map[string]pb.Transport{
		"tcp": pb.Transport_TRANSPORT_TCP, "tls": pb.Transport_TRANSPORT_TLS,
		"https": pb.Transport_TRANSPORT_HTTPS, "quic": pb.Transport_TRANSPORT_QUIC,
	}[asked[0]]
	if o.get {
		o.spec.Transport = pb.Transport_TRANSPORT_HTTPS_GET
	}
	return nil
}
