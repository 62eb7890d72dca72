package question

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxRedirects is how many redirects can be followed.
const maxRedirects = 5

// HTTPFlags are the flags of http. The zero value is none of them.
type HTTPFlags struct {
	// Method is GET or HEAD.
	Method string
	// Host is the Host to send, ServerName the server_name.
	Host, ServerName string
	// Headers are "NAME: VALUE".
	Headers []string
	// HTTP1 and HTTP2 ask for one version alone.
	HTTP1, HTTP2 bool
	// Follow is how many redirects to follow.
	Follow int
	// Expect is one of Reachabilities.
	Expect string
	// ExpectStatus are 200, 2xx or 200-299, also separated by commas.
	ExpectStatus []string
	// ExpectHeader are "NAME: REGEXP".
	ExpectHeader []string
	// ExpectBody is a regular expression.
	ExpectBody string
}

// HTTP reads the words after "http", and its flags.
func HTTP(args []string, f HTTPFlags) (*Question, error) {
	w, err := splitHost("http", "URL, such as https://example.com/", args)
	if err != nil {
		return nil, err
	}
	spec := &pb.HTTPSpec{}
	if spec.Url, err = location(w.plain[0]); err != nil {
		return nil, err
	}
	for _, read := range []func(*pb.HTTPSpec, HTTPFlags) error{method, hosts, headers, httpVersion, follow, expectations} {
		if err := read(spec, f); err != nil {
			return nil, err
		}
	}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Http{Http: spec}}, From: w.from}, nil
}

// location checks a URL and puts its host into A-labels. A URL without a scheme is refused: which of
// two ports is asked is not to be guessed.
func location(s string) (string, error) {
	scheme, rest, found := strings.Cut(s, "://")
	lower := strings.ToLower(scheme)
	switch {
	case s == "":
		return "", errors.New("the URL is empty; give one, such as https://example.com/")
	case !found:
		return "", fmt.Errorf("%s has no scheme; write %s or %s", quote(s), quote("https://"+s), quote("http://"+s))
	case lower != "http" && lower != "https":
		return "", fmt.Errorf("the scheme %s is not supported; it is http or https", quote(scheme))
	case strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || isControl(r) }):
		return "", fmt.Errorf("the URL %s holds a space or a control character; write %%20 for a space", quote(s))
	case strings.Contains(s, "#"):
		return "", fmt.Errorf("the URL %s has a fragment, which is never sent; leave out the # and what follows", quote(s))
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if strings.Contains(rest[:end], "@") {
		return "", fmt.Errorf("the URL %s has a user, which is not sent; leave it out (http takes -H 'Authorization: …')", quote(s))
	}
	authority, err := authority(rest[:end])
	if err != nil {
		return "", err
	}
	whole := lower + "://" + authority + escape(rest[end:])
	if _, err := url.Parse(whole); err != nil {
		return "", fmt.Errorf("the URL %s cannot be read: a %% is followed by two hexadecimal digits", quote(s))
	}
	return whole, nil
}

// authority checks HOST or HOST:PORT of a URL.
func authority(s string) (string, error) {
	if s == "" {
		return "", errors.New("the URL has no host; write one such as https://example.com/")
	}
	h, p, found, err := cut(s)
	if err != nil {
		return "", err
	}
	if strings.Contains(h, ":") && s[0] != '[' {
		return "", fmt.Errorf("the host %s of a URL is written in brackets: [%s]", quote(h), h)
	}
	if h, err = host(h); err != nil {
		return "", err
	}
	if found {
		port, err := portNumber(p)
		return joinPort(h, port), err
	}
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	return h, nil
}

// joinPort writes HOST:PORT.
func joinPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// escape writes what a URL does not allow as percent and digits (RFC 3986, 2.1), and leaves alone
// what is written so already.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// method reads -X.
func method(spec *pb.HTTPSpec, f HTTPFlags) error {
	switch spec.Method = strings.ToUpper(f.Method); spec.GetMethod() {
	case "", "GET", "HEAD":
		return nil
	}
	return fmt.Errorf("-X %s is not supported; a measurement changes nothing: GET or HEAD", quote(f.Method))
}

// hosts reads --host-header and --servername.
func hosts(spec *pb.HTTPSpec, f HTTPFlags) (err error) {
	if f.Host != "" {
		if spec.HostHeader, err = authority(f.Host); err != nil {
			return fmt.Errorf("--host-header: %w", err)
		}
	}
	if f.ServerName != "" && strings.HasPrefix(spec.GetUrl(), "http:") {
		return errors.New("--servername is for https; the URL says http")
	}
	spec.ServerName, err = sni(f.ServerName)
	return err
}

// headers reads -H.
func headers(spec *pb.HTTPSpec, f HTTPFlags) error {
	// These would contradict the request that is made, or its connection (RFC 9110, 7.2 and 7.6.1).
	own := []string{"connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
	for _, h := range f.Headers {
		field, value, found := strings.Cut(h, ":")
		value = strings.Trim(value, " \t")
		switch {
		case !found || !fieldName.MatchString(field):
			return fmt.Errorf("-H %s is not a header field; write -H 'NAME: VALUE'", quote(h))
		case strings.ContainsFunc(value, func(r rune) bool { return r != '\t' && isControl(r) }):
			return fmt.Errorf("-H %s holds a control character; header fields are one line each", quote(h))
		case strings.EqualFold(field, "host"):
			return errors.New("-H Host is --host-header NAME, which also decides about server_name")
		case slices.Contains(own, strings.ToLower(field)):
			return fmt.Errorf("-H %s is the connection's own and cannot be chosen; leave it out", quote(field))
		}
		spec.Headers = append(spec.Headers, &pb.HeaderField{Name: field, Value: value})
	}
	return nil
}

// fieldName is the name of a header field: a token (RFC 9110, 5.6.2).
var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$")

// httpVersion reads --http1.1 and --http2.
func httpVersion(spec *pb.HTTPSpec, f HTTPFlags) error {
	switch {
	case f.HTTP1 && f.HTTP2:
		return errors.New("--http1.1 and --http2 exclude each other; leave out both for what the server prefers")
	case f.HTTP2 && strings.HasPrefix(spec.GetUrl(), "http:"):
		return errors.New("--http2 is spoken over TLS alone; use an https URL")
	case f.HTTP1:
		spec.Version = pb.HTTPVersion_HTTP_VERSION_1_1
	case f.HTTP2:
		spec.Version = pb.HTTPVersion_HTTP_VERSION_2
	}
	return nil
}

// follow reads --follow.
func follow(spec *pb.HTTPSpec, f HTTPFlags) error {
	if f.Follow < 0 || f.Follow > maxRedirects {
		return fmt.Errorf("--follow=%d is out of bounds; at most %d redirects are followed, 0 is none", f.Follow, maxRedirects)
	}
	spec.MaxRedirects = uint32(f.Follow)
	return nil
}

// expectations reads --expect, --expect-status, --expect-header and --expect-body.
func expectations(spec *pb.HTTPSpec, f HTTPFlags) (err error) {
	if spec.Expect, err = reachability(f.Expect); err != nil {
		return err
	}
	if f.Expect != "" && len(f.ExpectStatus)+len(f.ExpectHeader)+len(f.ExpectBody) > 0 {
		return errors.New("--expect is about the way, --expect-status, --expect-header and --expect-body are about the response; leave out one of them")
	}
	for _, one := range f.ExpectStatus {
		for code := range strings.SplitSeq(one, ",") {
			if code = strings.ToLower(strings.TrimSpace(code)); !statusRange(code) {
				return fmt.Errorf("--expect-status %s is not known; write 200, 2xx or 200-299, with commas between them", quote(code))
			}
			spec.ExpectStatus = append(spec.ExpectStatus, code)
		}
	}
	for _, one := range f.ExpectHeader {
		field, re, found := strings.Cut(one, ":")
		if !found || !fieldName.MatchString(field) {
			return fmt.Errorf("--expect-header %s is not 'NAME: REGEXP'", quote(one))
		}
		if err := expression("--expect-header", re); err != nil {
			return err
		}
		spec.ExpectHeader = append(spec.ExpectHeader, one)
	}
	spec.ExpectBody = f.ExpectBody
	return expression("--expect-body", f.ExpectBody)
}

// statusRange says whether s is a status, a class or a range of them.
func statusRange(s string) bool {
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	return statusCode.MatchString(from) && statusCode.MatchString(to) && from <= to && (!ranged || !strings.Contains(s, "x"))
}

// statusCode is a status or a class of them.
var statusCode = regexp.MustCompile(`^[1-5]([0-9][0-9]|xx)$`)

// expression checks a regular expression.
func expression(flag, re string) error {
	_, err := regexp.Compile(re)
	var bad *syntax.Error
	if errors.As(err, &bad) {
		return fmt.Errorf("%s %s is not a regular expression (RE2): %s", flag, quote(re), bad.Code)
	}
	return err
}
