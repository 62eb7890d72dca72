package question

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// CommonTypes returns the record types that people ask for, for completion.
func CommonTypes() []string {
	return []string{
		"A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA",
		"SRV", "SSHFP", "SVCB", "TLSA", "TXT",
	}
}

// recordType reads a TYPE in any case: a mnemonic or TYPEnnn (RFC 3597, 5), and returns it as the contract
// spells it.
func recordType(s string) (string, error) {
	upper := strings.ToUpper(s)
	code, ok := typeCode(upper)
	if !ok {
		return "", fmt.Errorf("%s is not a record type; use one such as A, AAAA, MX, TXT or TYPE65", quote(s))
	}
	if !askable(code) {
		return "", fmt.Errorf("%s cannot be asked as a question; use a type such as A, AAAA, MX or TXT", upper)
	}
	if mnemonic := dns.TypeToString[code]; slices.Contains(namedTypes(), mnemonic) {
		return mnemonic, nil
	}
	return "TYPE" + strconv.Itoa(int(code)), nil
}

// namedTypes are the types that the contract knows by name; it has all others by number.
func namedTypes() []string { return append(CommonTypes(), "NSEC", "NSEC3", "RRSIG") }

// isType says whether a word is a record type.
func isType(s string) bool {
	_, ok := typeCode(strings.ToUpper(s))
	return ok
}

// typeCode returns the number of a type in capitals.
func typeCode(s string) (uint16, bool) {
	if code, ok := dns.StringToType[s]; ok && code != dns.TypeNone && code != dns.TypeReserved {
		return code, true
	}
	digits, ok := strings.CutPrefix(s, "TYPE")
	if !ok {
		return 0, false
	}
	code, err := strconv.ParseUint(digits, 10, 16)
	return uint16(code), err == nil && code > 0
}

// askable says whether a type makes sense in a query of one message: not the pseudo types, nor
// transfers of zones (RFC 6895, 3.1).
func askable(code uint16) bool {
	return !slices.Contains([]uint16{
		dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG, dns.TypeIXFR, dns.TypeAXFR, dns.TypeMAILA, dns.TypeMAILB,
		dns.TypeReserved,
	}, code)
}
