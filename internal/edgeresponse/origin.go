package edgeresponse

import (
	"net/netip"
	"strings"
)

// The longest names and paths of origins, in characters.
const (
	maxDomain = 253
	maxBucket = 128
	maxPath   = 255
)

// customOrigin checks an origin that is a web server.
func (v *validator) customOrigin(n node) {
	if _, there := n.object["domainName"]; !there {
		v.breaks("origin-domain", n.at, `"domainName" is missing`)
	}
	if name, ok := v.stringAt(n, "domainName", "origin-domain"); ok {
		at := n.path("domainName")
		_, err := netip.ParseAddr(name)
		switch {
		case name == "":
			v.breaks("origin-domain", at, "is empty")
		case err == nil:
			v.breaks("origin-domain", at, "must be a name, and %q is an address", cut(name))
		case strings.Contains(name, ":"):
			v.breaks("origin-domain", at, "cannot have a colon: %q; the port stands in \"port\"", cut(name))
		case len(name) > maxDomain:
			v.breaks("origin-domain", at, "has %d characters, and may have %d", len(name), maxDomain)
		}
	}
	v.originPath(n)
	v.number(n, "port", numbers{"origin-port", func(port int64) bool {
		return port == 80 || port == 443 || port >= 1024 && port <= 65535
	}, "80, 443, or 1024 to 65535"})
	v.oneOf(n, "protocol", "origin-protocol", "http", "https")
	timeout := numbers{"origin-timeout", func(s int64) bool { return s >= 1 && s <= 120 }, "a whole number from 1 to 120 of seconds"}
	read := v.number(n, "readTimeout", timeout)
	v.number(n, "keepaliveTimeout", timeout)
	v.completion(n, read)
	v.sslProtocols(n)
}

// completion checks the time that a whole response may take.
// Documents have no upper bound for it, only that it is no shorter than the wait for a single packet.
func (v *validator) completion(n node, read int64) {
	x, there := n.object["responseCompletionTimeout"]
	if s, ok := integer(x); there && (!ok || s < max(1, read)) {
		v.breaks("origin-timeout", n.path("responseCompletionTimeout"), "must be a whole number of seconds and at least readTimeout (%d), and is %s", read, what(x))
	}
}

// originPath checks the directory at the origin.
func (v *validator) originPath(n node) {
	path, ok := v.stringAt(n, "path", "origin-path")
	if !ok || path == "" {
		return
	}
	at := n.path("path")
	switch {
	case !strings.HasPrefix(path, "/"):
		v.breaks("origin-path", at, "must begin with a slash, and is %q", cut(path))
	case strings.HasSuffix(path, "/"):
		v.breaks("origin-path", at, "cannot end with a slash: %q", cut(path))
	case len(path) > maxPath:
		v.breaks("origin-path", at, "has %d characters, and may have %d", len(path), maxPath)
	}
}

// sslProtocols checks the list of protocols.
func (v *validator) sslProtocols(n node) {
	x, there := n.object["sslProtocols"]
	if !there {
		return
	}
	at := n.path("sslProtocols")
	list, ok := x.([]any)
	if !ok || len(list) == 0 {
		v.breaks("origin-ssl", at, "must be an array of protocols, and is %s", what(x))
		return
	}
	for i, item := range list {
		switch item {
		case "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2":
		default:
			v.breaks("origin-ssl", element(at, i), "must be one of SSLv3, TLSv1, TLSv1.1, TLSv1.2, and is %s", what(item))
		}
	}
}

// s3Origin checks an origin that is a bucket.
func (v *validator) s3Origin(n node) {
	if _, there := n.object["domainName"]; !there {
		v.breaks("origin-domain", n.at, `"domainName" is missing`)
	}
	if name, ok := v.stringAt(n, "domainName", "origin-domain"); ok {
		at := n.path("domainName")
		switch {
		case name == "":
			v.breaks("origin-domain", at, "is empty")
		case len(name) > maxBucket:
			v.breaks("origin-domain", at, "has %d characters, and may have %d", len(name), maxBucket)
		case name != strings.ToLower(name):
			v.breaks("origin-domain", at, "must be in lower case: %q", cut(name))
		}
	}
	v.originPath(n)
	v.oneOf(n, "authMethod", "origin-s3-auth", "none", "origin-access-identity")
	region, _ := v.stringAt(n, "region", "origin-s3-region")
	if n.object["authMethod"] == "origin-access-identity" && region == "" {
		v.breaks("origin-s3-region", n.at, `"region" is missing, which origin-access-identity needs`)
	}
}
