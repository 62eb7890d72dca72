package probe

import (
	"net/url"
	"testing"
)

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ says, url, want string }{
		{"the scheme's own port, which a URL leaves out, is part of a connection's name", "https://dns.example/dns-query", "dns.example:443"},
		{"a port that the URL names", "https://dns.example:8443/dns-query", "dns.example:8443"},
		{"an IPv6 address has its brackets once", "https://[2001:db8::1]/dns-query", "[2001:db8::1]:443"},
	} {
		t.Run(tt.says, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if got := endpointOf(u); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.url, got, tt.want)
			}
		})
	}
}
