package probe

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		names   string
		ip      string
		common  string
		name    string
		san, cn bool
	}{
		{"the same name", "www.example", "", "", "www.example", true, false},
		{"case does not matter", "WWW.example", "", "", "www.EXAMPLE", true, false},
		{"a trailing dot does not matter", "www.example", "", "", "www.example.", true, false},
		{"nor does one in the certificate", "www.example.", "", "", "www.example", true, false},
		{"a U-label is compared as an A-label", "xn--exmple-cua.example", "", "", "exämple.example", true, false},
		{"also one in the certificate", "exämple.example", "", "", "xn--exmple-cua.example", true, false},
		{"a wildcard for one label", "*.example", "", "", "a.example", true, false},
		{"not for two", "*.example", "", "", "a.b.example", false, false},
		{"not for none", "*.example", "", "", "example", false, false},
		{"not for an empty one", "*.example", "", "", ".example", false, false},
		{"not for part of one", "a*.example", "", "", "ab.example", false, false},
		{"not in the middle", "a.*.example", "", "", "a.b.example", false, false},
		{"not for everything", "*", "", "", "localhost", false, false},
		{"an underscore is a letter like any other", "a_b.example", "", "", "a_b.example", true, false},
		{"a URL is not a name", "https://www.example", "", "", "www.example", false, false},
		{"the common name, if there is no dNSName", "", "", "www.example", "www.example", false, true},
		{"a wildcard in the common name", "", "", "*.example", "www.example", false, true},
		{"the common name does not count beside a dNSName", "other.example", "", "www.example", "www.example", false, false},
		{"an address", "", "192.0.2.1", "", "192.0.2.1", true, false},
		{"another address", "", "192.0.2.1", "", "192.0.2.2", false, false},
		{"an IPv6 address, however it is written", "", "2001:db8::1", "", "2001:DB8:0::1", true, false},
		{"an address is not compared with names", "192.0.2.1", "", "192.0.2.1", "192.0.2.1", false, false},
		{"a certificate without any name", "", "", "", "www.example", false, false},
	} {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: tt.common}}
		if tt.names != "" {
			c.DNSNames = []string{tt.names}
		}
		if tt.ip != "" {
			c.IPAddresses = []net.IP{net.ParseIP(tt.ip)}
		}
		if m := matchName(c, tt.name); m.GetSan() != tt.san || m.GetCommonName() != tt.cn || m.GetName() != tt.name {
			t.Errorf("%s: %v, want %v %v", tt.why, m, tt.san, tt.cn)
		}
	}
}

func TestTheFirstNameDecides(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	c := chainOf(entities{p.leaf(nil), p.intermediate})
	c.names = []string{"origin.example", "www.example"}
	j := judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
	x := j.judge()
	if len(x.failures) > 0 || len(x.names) != 3 || !x.names[0].GetSan() || x.names[1].GetSan() || !x.names[2].GetSan() {
		t.Errorf("%v, %v", x.failures, x.names)
	}
	c.name = "origin.example"
	j = judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
	if x := j.judge(); len(x.failures) != 1 || !strings.Contains(x.text, "for www.example and not for origin.example") {
		t.Errorf("%v: %s", x.failures, x.text)
	}
}
