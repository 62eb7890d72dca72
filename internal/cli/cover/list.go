package cover

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// MaxSize bounds a file, in bytes. AWS's ip-ranges.json has less than 3 MiB.
const MaxSize = 16 << 20

// isJSON says whether a file is JSON rather than a list.
func isJSON(data []byte) bool {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

// badJSON says where JSON breaks off, or what is of the wrong type.
func badJSON(path string, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: this is not JSON, at byte %d: %w", path, syntax.Offset, err)
	case errors.As(err, &kind):
		return fmt.Errorf("%s: %s is of the wrong type, at byte %d: %s", path, cmp.Or(kind.Field, "the document"), kind.Offset, kind.Value)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// readList reads CIDR blocks and addresses, one on a line; what follows a # is a comment.
func readList(path string, data []byte) (list []netip.Prefix, warnings []string, err error) {
	if !utf8.Valid(data) {
		return nil, nil, fmt.Errorf("%s: it is not UTF-8", path)
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		text, _, _ := strings.Cut(line, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := block(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		if p != p.Masked() {
			warnings = append(warnings, fmt.Sprintf("%s:%d: %s is read as %s.", path, number, p, p.Masked()))
		}
		list = append(list, p.Masked())
	}
	if len(list) == 0 {
		return nil, nil, fmt.Errorf("%s: there is no CIDR block in it; write one on a line, such as 192.0.2.0/24", path)
	}
	return list, warnings[:min(len(warnings), maxWarnings)], nil
}

// maxWarnings is how many lines of one file are warned of.
const maxWarnings = 10

// block reads a CIDR block or an address.
func block(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if addr, bad := netip.ParseAddr(text); err != nil && bad == nil && addr.Zone() == "" {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	switch {
	case err != nil:
		return p, fmt.Errorf("%.60q is not a CIDR block or an address; write one on a line, such as 192.0.2.0/24 or 2001:db8::/32", text)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%s is an IPv4 address in IPv6 form; write it as IPv4", p)
	}
	return p, nil
}
