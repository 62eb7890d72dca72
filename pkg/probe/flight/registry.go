package flight

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The registries are data, with their sources at the top of each file.
var (
	//go:embed suites.txt
	suitesFile string
	//go:embed names.txt
	namesFile string
)

// Versions, as the wire has them.
const (
	SSL30 uint16 = 0x0300 // RFC 6101
	TLS10 uint16 = 0x0301 // RFC 2246
	TLS11 uint16 = 0x0302 // RFC 4346
	TLS12 uint16 = 0x0303 // RFC 5246
	TLS13 uint16 = 0x0304 // RFC 8446
)

// Suites that are signals and never agreed on.
const (
	renegotiationSCSV uint16 = 0x00ff // RFC 5746, 3.3
	fallbackSCSV      uint16 = 0x5600 // RFC 7507
)

// registry holds names by number, and numbers by every name that is understood, in lower case.
type registry struct {
	numbers []uint16 // In the order of the file.
	names   map[uint16]string
	known   map[string]uint16
}

func (r *registry) add(number uint16, names ...string) {
	if r.names == nil {
		r.names, r.known = map[uint16]string{}, map[string]uint16{}
	}
	r.numbers = append(r.numbers, number)
	r.names[number] = names[0]
	for _, n := range names {
		r.known[strings.ToLower(n)] = number
	}
}

// find returns the number of a name, in any case, or of a number such as "0xC028".
func (r *registry) find(name string) (uint16, bool) {
	if hex, ok := strings.CutPrefix(strings.ToLower(name), "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 16)
		return uint16(n), err == nil
	}
	n, ok := r.known[strings.ToLower(name)]
	return n, ok
}

// name returns a number's name, or the number itself, such as "0xC028".
func (r *registry) name(number uint16) string {
	if n, ok := r.names[number]; ok {
		return n
	}
	return fmt.Sprintf("0x%04X", number)
}

// lines calls f with the fields of each line of a data file.
func lines(file string, f func(fields []string)) {
	for line := range strings.Lines(file) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "#" {
			f(fields)
		}
	}
}

// number reads a number of the data files, which a test reads in full.
func number(s string) uint16 {
	n, err := strconv.ParseUint(s, 0, 16)
	if err != nil {
		panic(err)
	}
	return uint16(n)
}

var suites = sync.OnceValue(func() *registry {
	var r registry
	lines(suitesFile, func(f []string) {
		r.add(number(f[0]), f[1])
		if f[2] != "-" {
			r.known[strings.ToLower(f[2])] = number(f[0])
		}
	})
	return &r
})

// named returns the registry of one kind of names.txt.
func named(kind string) *registry {
	var r registry
	lines(namesFile, func(f []string) {
		if f[0] == kind {
			r.add(number(f[1]), f[2:]...)
		}
	})
	return &r
}

var (
	groups   = sync.OnceValue(func() *registry { return named("group") })
	schemes  = sync.OnceValue(func() *registry { return named("scheme") })
	alerts   = sync.OnceValue(func() *registry { return named("alert") })
	versions = sync.OnceValue(func() *registry {
		var r registry
		r.add(SSL30, "SSL 3.0", "SSLv3")
		r.add(TLS10, "TLS 1.0", "TLSv1")
		r.add(TLS11, "TLS 1.1", "TLSv1.1")
		r.add(TLS12, "TLS 1.2", "TLSv1.2")
		r.add(TLS13, "TLS 1.3", "TLSv1.3")
		return &r
	})
)

// Suite returns the number of a cipher suite by IANA's name, by OpenSSL's, or by "0xC028".
func Suite(name string) (uint16, bool) { return suites().find(name) }

// SuiteName returns IANA's name of a cipher suite; one that has none is "0xC028".
func SuiteName(id uint16) string { return suites().name(id) }

// Group returns the number of a group, such as "x25519" or "0x001D".
func Group(name string) (uint16, bool) { return groups().find(name) }

// GroupName returns the name of a group.
func GroupName(id uint16) string { return groups().name(id) }

// Scheme returns the number of a signature scheme, such as "rsa_pkcs1_sha256" or "0x0401".
func Scheme(name string) (uint16, bool) { return schemes().find(name) }

// SchemeName returns the name of a signature scheme.
func SchemeName(id uint16) string { return schemes().name(id) }

// Version returns the number of a version, such as "TLS 1.2".
func Version(name string) (uint16, bool) { return versions().find(name) }

// VersionName returns the name of a version.
func VersionName(id uint16) string { return versions().name(id) }

// AlertName returns the name of an alert, such as "handshake_failure"; one that has none is "alert_254".
func AlertName(code uint8) string {
	if n, ok := alerts().names[uint16(code)]; ok {
		return n
	}
	return fmt.Sprintf("alert_%d", code)
}

// Suites returns the suites that can be agreed on with a version, the ones that most servers prefer
// first and those that need a shared secret last.
func Suites(version uint16) []uint16 {
	return slices.Clone(preferred()[version])
}

// preferred holds the suites of every version, sorted.
var preferred = sync.OnceValue(func() map[uint16][]uint16 {
	r, by := suites(), map[uint16][]uint16{}
	for _, id := range r.numbers {
		lowest, highest := span(id, r.names[id])
		for v := lowest; v <= highest; v++ {
			by[v] = append(by[v], id)
		}
	}
	for _, list := range by {
		slices.SortStableFunc(list, func(a, b uint16) int { return cmp.Compare(rank(r.names[a]), rank(r.names[b])) })
	}
	return by
})

// span returns the versions that a suite can be agreed on with, none for a signal. What SSL 3.0 and
// TLS 1.0 share is told from what needs TLS 1.2 by its hash or its AEAD (RFC 5246, 5; RFC 5288, 4).
func span(id uint16, name string) (lowest, highest uint16) {
	switch {
	case id == 0, id == renegotiationSCSV, id == fallbackSCSV:
		return 1, 0
	case id>>8 == 0x13, id == 0x00c6, id == 0x00c7, id == 0xc0b4, id == 0xc0b5, id >= 0xc103 && id <= 0xc106:
		return TLS13, TLS13
	case has(name, "PSK") && has(name, "_CBC_SHA", "_NULL_SHA") && has(name, "_SHA256", "_SHA384"):
		return TLS10, TLS12 // Any version of TLS (RFC 5487, 3; RFC 5489, 3; RFC 6367, 2.3).
	case has(name, "_SHA256", "_SHA384", "_GCM_", "_CCM", "_CTR_OMAC") || name == "TLS_GOSTR341112_256_WITH_28147_CNT_IMIT":
		return TLS12, TLS12
	}
	return SSL30, TLS12
}

// rank orders suites by what servers are likely to have.
func rank(name string) int {
	for i, marks := range [][]string{
		{"PSK", "SRP", "KRB5", "ECCPWD", "FORTEZZA"}, // They need what only the server's users have.
		{"_NULL", "_anon_", "GOST", "CECPQ1", "_OLD", "FIPS"},
		{"EXPORT", "_DES_", "RC2", "RC4_56", "IDEA", "_DH_RSA", "_DH_DSS", "_ECDH_", "_DSS_"},
		{"RC4", "3DES", "SEED", "ARIA", "CAMELLIA", "_CCM"},
	} {
		if has(name, marks...) {
			return 10 - i
		}
	}
	r := 0
	if !strings.Contains(name, "_ECDHE_") && strings.Contains(name, "_WITH_") {
		r += 2
	}
	if strings.Contains(name, "_CBC_") {
		r++
	}
	return r
}

func has(name string, marks ...string) bool {
	return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(name, m) })
}

// Groups returns all groups known that are not post-quantum, x25519 and the curves of NIST first.
func Groups() []uint16 {
	common := []uint16{29, 23, 24, 25, 30}
	for _, id := range groups().numbers {
		if !slices.Contains(common, id) && !postQuantum(id) {
			common = append(common, id)
		}
	}
	return common
}

// postQuantum says whether a group is, which makes its key share large.
func postQuantum(id uint16) bool {
	return has(groups().name(id), "MLKEM", "Kyber")
}

// Schemes returns all signature schemes known.
func Schemes() []uint16 { return slices.Clone(schemes().numbers) }
