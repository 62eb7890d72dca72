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
func (v *validator) customOrigin(o object) {
	const at = "$.origin.custom"
	if _, there := o["domainName"]; !there {
		v.breaks("origin-domain", at, `"domainName" is missing`)
	}
	if name, ok := v.stringAt(o, at, "domainName", "origin-domain"); ok {
		_, err := netip.ParseAddr(name)
		switch {
		case name == "":
			v.breaks("origin-domain", at+".domainName", "is empty")
		case err == nil:
			v.breaks("origin-domain", at+".domainName", "must be a name, and %q is an address", cut(name))
		case strings.Contains(name, ":"):
			v.breaks("origin-domain", at+".domainName", "cannot have a colon: %q; the port stands in \"port\"", cut(name))
		case len(name) > maxDomain:
			v.breaks("origin-domain", at+".domainName", "has %d characters, and may have %d", len(name), maxDomain)
		}
	}
	v.originPath(o, at)
	v.number(o, at, "port", "origin-port", func(n int64) bool {
		return n == 80 || n == 443 || n >= 1024 && n <= 65535
	}, "80, 443, or 1024 to 65535")
	v.oneOf(o, at, "protocol", "origin-protocol", "http", "https")
	fits, wants := within(1, 120)
	read := v.number(o, at, "readTimeout", "origin-timeout", fits, wants+" of seconds")
	v.number(o, at, "keepaliveTimeout", "origin-timeout", fits, wants+" of seconds")
	v.completion(o, at, read)
	v.sslProtocols(o, at)
}

// completion checks the time that a whole response may take.
func (v *validator) completion(o object, at string, read int64) {
	x, there := o["responseCompletionTimeout"]
	if n, ok := integer(x); there && (!ok || n < max(1, read)) {
		v.breaks("origin-timeout", at+".responseCompletionTimeout", "must be a whole number of seconds and at least readTimeout (%d), and is %s", read, what(x))
	}
}

// originPath checks the directory at the origin.
func (v *validator) originPath(o object, at string) {
	path, ok := v.stringAt(o, at, "path", "origin-path")
	if !ok || path == "" {
		return
	}
	at += ".path"
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
func (v *validator) sslProtocols(o object, at string) {
	x, there := o["sslProtocols"]
	if !there {
		return
	}
	at += ".sslProtocols"
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
func (v *validator) s3Origin(o object) {
	const at = "$.origin.s3"
	if _, there := o["domainName"]; !there {
		v.breaks("origin-domain", at, `"domainName" is missing`)
	}
	if name, ok := v.stringAt(o, at, "domainName", "origin-domain"); ok {
		switch {
		case name == "":
			v.breaks("origin-domain", at+".domainName", "is empty")
		case len(name) > maxBucket:
			v.breaks("origin-domain", at+".domainName", "has %d characters, and may have %d", len(name), maxBucket)
		case name != strings.ToLower(name):
			v.breaks("origin-domain", at+".domainName", "must be in lower case: %q", cut(name))
		}
	}
	v.originPath(o, at)
	v.oneOf(o, at, "authMethod", "origin-s3-auth", "none", "origin-access-identity")
	region, _ := v.stringAt(o, at, "region", "origin-s3-region")
	if o["authMethod"] == "origin-access-identity" && region == "" {
		v.breaks("origin-s3-region", at, `"region" is missing, which origin-access-identity needs`)
	}
}
