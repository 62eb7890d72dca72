package flight

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
)

// TestSuitesOfCloudFront reads the suites of a CDN as its documentation spells them (CloudFront Developer Guide,
// Supported protocols and ciphers between CloudFront and the origin).
func TestSuitesOfCloudFront(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		openssl, iana string
		id            uint16
		oldest        uint16
	}{
		{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xC02C, TLS12},
		{"ECDHE-ECDSA-AES256-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", 0xC024, TLS12},
		{"ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", 0xC00A, SSL30},
		{"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02B, TLS12},
		{"ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xC023, TLS12},
		{"ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xC009, SSL30},
		{"ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xC030, TLS12},
		{"ECDHE-RSA-AES256-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", 0xC028, TLS12},
		{"ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", 0xC014, SSL30},
		{"ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xC02F, TLS12},
		{"ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xC027, TLS12},
		{"ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xC013, SSL30},
		{"AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", 0x0035, SSL30},
		{"AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", 0x002F, SSL30},
		{"DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", 0x000A, SSL30},
		{"RC4-MD5", "TLS_RSA_WITH_RC4_128_MD5", 0x0004, SSL30},
	} {
		for _, name := range []string{tt.openssl, tt.iana, strings.ToLower(tt.iana)} {
			if id, ok := Suite(name); !ok || id != tt.id {
				t.Errorf("Suite(%q) = %04X, %v, want %04X", name, id, ok, tt.id)
			}
		}
		if got := SuiteName(tt.id); got != tt.iana {
			t.Errorf("SuiteName(%04X) = %q, want %q", tt.id, got, tt.iana)
		}
		for v := SSL30; v <= TLS13; v++ {
			if got, want := slices.Contains(Suites(v), tt.id), v >= tt.oldest && v != TLS13; got != want {
				t.Errorf("%s with %s: %v, want %v", tt.iana, VersionName(v), got, want)
			}
		}
	}
}

// TestVersionsOfPSK: those with CBC go with every version of TLS, as OpenSSL has it, although their hash is
// that of TLS 1.2 (RFC 5487, 3); those with an AEAD do not.
func TestVersionsOfPSK(t *testing.T) {
	t.Parallel()
	for id, oldest := range map[uint16]uint16{0x00ae: TLS10, 0x00b1: TLS10, 0xc037: TLS10, 0xc09b: TLS10, 0x00a8: TLS12, 0xccab: TLS12, 0x003c: TLS12, 0x008c: SSL30} {
		for v := SSL30; v <= TLS13; v++ {
			if got, want := slices.Contains(Suites(v), id), v >= oldest && v <= TLS12; got != want {
				t.Errorf("%s with %s: %v, want %v", SuiteName(id), VersionName(v), got, want)
			}
		}
	}
}

// TestSuitesOfTheLibrary compares with an independent table: the names of crypto/tls.
func TestSuitesOfTheLibrary(t *testing.T) {
	t.Parallel()
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if got := SuiteName(s.ID); got != s.Name {
			t.Errorf("SuiteName(%04X) = %q, crypto/tls says %q", s.ID, got, s.Name)
		}
		for _, v := range s.SupportedVersions {
			if !slices.Contains(Suites(v), s.ID) {
				t.Errorf("%s is missing for %s", s.Name, VersionName(v))
			}
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		find func(string) (uint16, bool)
		ask  string
		want uint16
		ok   bool
	}{
		{"a number stands for itself", Suite, "0xC028", 0xC028, true},
		{"also one that nobody registered", Suite, "0xfafb", 0xFAFB, true},
		{"a number that is too large is none", Suite, "0x10000", 0, false},
		{"a name that does not exist", Suite, "TLS_NOTHING", 0, false},
		{"an export suite", Suite, "EXP-RC4-MD5", 0x0003, true},
		{"a group by its name", Group, "x25519", 29, true},
		{"a group by OpenSSL's name", Group, "prime256v1", 23, true},
		{"a post-quantum group", Group, "X25519MLKEM768", 4588, true},
		{"a scheme", Scheme, "rsa_pkcs1_sha256", 0x0401, true},
		{"a version", Version, "TLS 1.2", TLS12, true},
		{"SSL 3.0 in OpenSSL's words", Version, "SSLv3", SSL30, true},
	} {
		if got, ok := tt.find(tt.ask); got != tt.want && tt.ok || ok != tt.ok {
			t.Errorf("%s: %04X, %v, want %04X, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
	for code, want := range map[uint8]string{0: "close_notify", 40: "handshake_failure", 70: "protocol_version", 112: "unrecognized_name", 254: "alert_254"} {
		if got := AlertName(code); got != want {
			t.Errorf("AlertName(%d) = %q, want %q", code, got, want)
		}
	}
	if got := SuiteName(0xFAFB); got != "0xFAFB" {
		t.Errorf("a suite without a name is %q", got)
	}
}

// TestRegistriesAreWhole reads all of the data: a wrong line panics.
func TestRegistriesAreWhole(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		r     *registry
		least int
	}{
		"suites": {suites(), 380}, "groups": {groups(), 50}, "schemes": {schemes(), 40}, "alerts": {alerts(), 36},
	} {
		if len(want.r.numbers) < want.least || len(want.r.names) != len(want.r.numbers) {
			t.Errorf("%s: %d numbers with %d names, want %d and each once", name, len(want.r.numbers), len(want.r.names), want.least)
		}
		for _, id := range want.r.numbers {
			if got, ok := want.r.find(want.r.names[id]); !ok || got != id {
				t.Errorf("%s: the name of %04X finds %04X", name, id, got)
			}
		}
	}
	offered := map[uint16]bool{}
	for v := SSL30; v <= TLS13; v++ {
		for _, id := range Suites(v) {
			offered[id] = true
		}
	}
	for _, id := range suites().numbers {
		signal := id == 0 || id == renegotiationSCSV || id == fallbackSCSV
		if offered[id] == signal {
			t.Errorf("%s is offered: %v", SuiteName(id), offered[id])
		}
	}
	for _, id := range Groups() {
		if postQuantum(id) {
			t.Errorf("%s is post-quantum", GroupName(id))
		}
	}
}
