package profile

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// checker checks what a file holds, so that errors name the line.
type checker struct{}

// Validate implements protoyaml.Validator.
func (checker) Validate(m proto.Message) error {
	if err := protovalidate.Validate(m); err != nil {
		return err
	}
	p, ok := m.(*pb.Profile)
	if !ok {
		return fmt.Errorf("%T is no profile", m)
	}
	return Check(p)
}

// Check says what is wrong with a profile that the rules in the proto cannot see: a name that is in no
// registry, a fact without a source, what contradicts itself. The error is a
// *protovalidate.ValidationError, whose violations name the fields.
func Check(p *pb.Profile) error {
	c := &check{profile: p}
	c.identity()
	c.names("versions", p.GetVersions(), flight.Version, flight.VersionName)
	c.names("default_versions", p.GetDefaultVersions(), flight.Version, flight.VersionName)
	c.names("unverified_versions", p.GetUnverifiedVersions(), flight.Version, flight.VersionName)
	c.names("cipher_suites", p.GetCipherSuites(), flight.Suite, flight.SuiteName)
	c.names("groups", p.GetGroups(), flight.Group, flight.GroupName)
	c.names("curves", p.GetCurves(), flight.Group, flight.GroupName)
	c.names("unverified_curves", p.GetUnverifiedCurves(), flight.Group, flight.GroupName)
	c.names("signature_schemes", p.GetSignatureSchemes(), flight.Scheme, flight.SchemeName)
	c.versions()
	c.ports("http_ports", p.GetHttpPorts())
	c.ports("https_ports", p.GetHttpsPorts())
	c.numbers()
	c.texts()
	c.causes()
	c.sources()
	if len(c.found) == 0 {
		return nil
	}
	return &protovalidate.ValidationError{Violations: c.found}
}

// check gathers what is wrong with a profile.
type check struct {
	profile *pb.Profile
	found   []*protovalidate.Violation
}

// step is a step of the way to a field: a field, an element of its list, or a value of its map.
type step struct {
	field string
	index int
	key   string
}

// at is a field itself.
func at(field string) step { return step{field: field, index: -1} }

// bad notes what is wrong.
func (c *check) bad(message string, way ...step) {
	path := &validate.FieldPath{}
	for _, s := range way {
		e := &validate.FieldPathElement{}
		e.SetFieldName(s.field)
		switch {
		case s.key != "":
			e.SetStringKey(s.key)
		case s.index >= 0:
			e.SetIndex(uint64(s.index))
		}
		path.Elements = append(path.Elements, e)
	}
	c.found = append(c.found, &protovalidate.Violation{Proto: &validate.Violation{
		Field: path, RuleId: proto.String("profile"), Message: proto.String(message),
	}})
}

func (c *check) identity() {
	if c.profile.GetName() == "" {
		c.bad("must not be empty", at("name"))
	}
	if size := proto.Size(c.profile); size > MaxSize {
		c.bad(fmt.Sprintf("the profile has %d bytes, more than %d", size, MaxSize))
	}
}

// names checks that each is the name that a registry gives, which is what agents report, and is there once.
// A name of OpenSSL's or of an older draft would be looked up in vain in what agents report, and a suite that is
// offered would count as one that is not: the origin would be accused of having nothing in common with the client.
func (c *check) names(field string, names []string, find func(string) (uint16, bool), nameOf func(uint16) string) {
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		here := step{field: field, index: i}
		id, ok := find(name)
		switch {
		case !ok:
			c.bad(fmt.Sprintf("%q is in no registry of IANA's, and is no number such as 0xC028", name), here)
		case nameOf(id) != name:
			c.bad(fmt.Sprintf("%q is %s by IANA's names", name, nameOf(id)), here)
		case seen[name]:
			c.bad(fmt.Sprintf("%q is there twice", name), here)
		}
		seen[name] = true
	}
}

// versions checks how the lists of versions, and of curves, go together.
func (c *check) versions() {
	p := c.profile
	for i, v := range p.GetDefaultVersions() {
		if !slices.Contains(p.GetVersions(), v) {
			c.bad(fmt.Sprintf("%q is not among versions", v), step{field: "default_versions", index: i})
		}
	}
	for i, v := range p.GetUnverifiedVersions() {
		if slices.Contains(p.GetVersions(), v) {
			c.bad(fmt.Sprintf("%q is among versions too", v), step{field: "unverified_versions", index: i})
		}
	}
	for i, v := range p.GetUnverifiedCurves() {
		if slices.Contains(p.GetCurves(), v) {
			c.bad(fmt.Sprintf("%q is among curves too", v), step{field: "unverified_curves", index: i})
		}
	}
}

// ports checks ports and ranges of ports; the rules in the proto have seen to their form.
func (c *check) ports(field string, ports []string) {
	for i, one := range ports {
		low, high, isRange := strings.Cut(one, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || from > to {
			c.bad(fmt.Sprintf("%q is no port and no range of ports from 1 to 65535", one), step{field: field, index: i})
		}
	}
}

// maxWait bounds how long a client waits: more is a mistake, and sums of it would overflow.
const maxWait = 24 * time.Hour

func (c *check) numbers() {
	p := c.profile
	c.wait("connect_timeout", p.GetConnectTimeout())
	c.wait("response_timeout", p.GetResponseTimeout())
	if p.GetConnectAttempts() < 0 {
		c.bad("must not be negative", at("connect_attempts"))
	}
	if p.GetMaxHeaderBytes() < 0 {
		c.bad("must not be negative", at("max_header_bytes"))
	}
}

// To wait for a day is no fact about a client; it is milliseconds that were taken for seconds.
func (c *check) wait(field string, d *durationpb.Duration) {
	if d != nil && (!d.IsValid() || d.AsDuration() < 0 || d.AsDuration() > maxWait) {
		c.bad("must be 0 s to 24 h", at(field))
	}
}

// texts checks what is sent, compared or parsed.
func (c *check) texts() {
	p := c.profile
	if strings.ContainsFunc(p.GetUserAgent(), func(r rune) bool { return r < ' ' || r > '~' }) {
		c.bad("must be printable ASCII", at("user_agent"))
	}
	c.shown(at("title"), p.GetTitle())
	c.shown(at("ranges"), p.GetRanges())
	c.shown(at("http_version"), p.GetHttpVersion())
	for i, s := range p.GetLoadBalancerSuffixes() {
		if !strings.HasPrefix(s, ".") || s != strings.ToLower(s) || !printable(s) {
			c.bad("must begin with a dot and be in lower case", step{field: "load_balancer_suffixes", index: i})
		}
	}
	if err := certificates(p.GetRoots()); err != nil {
		c.bad(err.Error(), at("roots"))
	}
}

// shown checks texts that people see.
func (c *check) shown(where step, texts ...string) {
	if !printable(strings.Join(texts, "")) {
		c.bad("must be without control characters", where)
	}
}

// printable says whether nothing in a text steers a terminal.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) })
}

// certificates says what is wrong with certificates in PEM.
// Anything else than certificates is most likely a private key that was pasted along, and a profile is kept in the
// log with every measurement.
func certificates(text string) error {
	rest := []byte(text)
	for len(strings.TrimSpace(string(rest))) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return errors.New("must be certificates in PEM, and nothing else")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("must be certificates in PEM: %w", err)
		}
	}
	return nil
}

// causes checks that each is there once, and has a source.
func (c *check) causes() {
	seen := map[pb.OriginCause]bool{}
	for i, cause := range c.profile.GetCauses() {
		here := step{field: "causes", index: i}
		if seen[cause.GetCause()] {
			c.bad(cause.GetCause().String()+" is there twice", here, at("cause"))
		}
		seen[cause.GetCause()] = true
		source := cause.GetSource()
		c.shown(here, cause.GetText(), cause.GetFix(), source.GetDocument(), source.GetNote())
		if cause.GetSource().GetDocument() == "" {
			c.bad("has no source: say which document says so", here)
		}
	}
}

// sources checks that what is set has a source, and that sources are of fields that there are.
func (c *check) sources() {
	fields, sources := c.profile.ProtoReflect().Descriptor().Fields(), c.profile.GetSources()
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if isFact(name) && c.profile.ProtoReflect().Has(fields.Get(i)) && sources[name].GetDocument() == "" {
			c.bad("has no source: say which document says so, under sources", at(name))
		}
	}
	for name, source := range sources {
		c.shown(step{field: "sources", index: -1, key: name}, source.GetDocument(), source.GetNote())
		if fields.ByName(protoreflect.Name(name)) == nil || !isFact(name) {
			c.bad(fmt.Sprintf("%q is no field that has a source", name), step{field: "sources", index: -1, key: name})
		}
	}
}

// isFact says whether a field is a fact about the client: its name is none, and causes have their own source.
func isFact(field string) bool {
	return !slices.Contains([]string{"name", "title", "causes", "sources"}, field)
}
