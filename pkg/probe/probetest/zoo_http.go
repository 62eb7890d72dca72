package probetest

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// HTTPAnimal is a web server that means harm, how it is to be seen, and a word that says why.
type HTTPAnimal struct {
	Name  string
	Fault HTTPFault
	Want  pb.Failure
	Word  string
}

// Scheme is "https" for the faults of HTTP/2, which needs TLS here, and "http" for the others.
func (a HTTPAnimal) Scheme() string {
	if a.Fault >= GoAway {
		return "https"
	}
	return "http"
}

// HTTPAnimals returns them all.
func HTTPAnimals() []HTTPAnimal {
	return []HTTPAnimal{
		{"a header of one byte every fifth of a second", SlowHeader, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
		{"a body of one byte every fifth of a second", SlowBody, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
		{"fields without end", EndlessHeader, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
		{"a field without end", EndlessLine, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
		{"interim responses without end", EndlessInterim, pb.Failure_FAILURE_HTTP_MALFORMED, "interim"},
		{"a body without end", EndlessBody, pb.Failure_FAILURE_NONE, ""},
		{"chunks of one byte", ByteChunks, pb.Failure_FAILURE_NONE, ""},
		{"a chunk's extension without end", EndlessChunk, pb.Failure_FAILURE_HTTP_MALFORMED, ""},
		{"chunks that are none", NoChunks, pb.Failure_FAILURE_HTTP_MALFORMED, "chunk"},
		{"eight megabytes of zeros in eight kilobytes", GzipBomb, pb.Failure_FAILURE_NONE, ""},
		{"plain text that says it is compressed", NoGzip, pb.Failure_FAILURE_HTTP_MALFORMED, "gzip"},
		{"a length that is too long", TooLong, pb.Failure_FAILURE_HTTP_CLOSED, "995 bytes"},
		{"two lengths", TwoLengths, pb.Failure_FAILURE_HTTP_MALFORMED, "Content-Length"},
		{"an RST amid the body", ResetInBody, pb.Failure_FAILURE_HTTP_RESET, ""},
		{"a page without a header", Bare, pb.Failure_FAILURE_HTTP_MALFORMED, `it begins with "<html>`},
		{"escapes in every place", Ugly, pb.Failure_FAILURE_NONE, ""},
		{"a greeting of another protocol", GreetsFirst, pb.Failure_FAILURE_HTTP_MALFORMED, "SSH-2.0"},
		{"an upgrade that nobody asked for", UpgradesAlone, pb.Failure_FAILURE_HTTP_MALFORMED, "switches"},
		{"GOAWAY at once", GoAway, pb.Failure_FAILURE_HTTP_CLOSED, "ENHANCE_YOUR_CALM"},
		{"RST_STREAM for an answer", ResetStream, pb.Failure_FAILURE_HTTP_RESET, "INTERNAL_ERROR"},
		{"CONTINUATION without end", EndlessHeader2, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
		{"a header that grows when it is unpacked", PackedHeader, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
		{"pings without end", EndlessPings, pb.Failure_FAILURE_HTTP_TOO_LARGE, "control"},
		{"settings without end", EndlessSettings, pb.Failure_FAILURE_HTTP_TOO_LARGE, "control"},
		{"a body over HTTP/2 without end", EndlessBody2, pb.Failure_FAILURE_NONE, ""},
		{"a body that is padding", Padding, pb.Failure_FAILURE_HTTP_TOO_LARGE, "too much"},
		{"data before the header", DataFirst, pb.Failure_FAILURE_HTTP_MALFORMED, "without a header"},
		{"a push that was refused", Push, pb.Failure_FAILURE_HTTP_MALFORMED, ""},
		{"a length over HTTP/2 that is too long", WrongLength, pb.Failure_FAILURE_HTTP_MALFORMED, "Content-Length"},
		{"HTTP/1.1 where HTTP/2 was agreed on", SpeaksHTTP1, pb.Failure_FAILURE_HTTP_MALFORMED, "HTTP/1"},
		{"settings and then silence", MuteAfterSettings, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
	}
}

// animal is the server in the zoo.
func (a HTTPAnimal) animal() Animal {
	return Animal{
		Name: strings.ToUpper(a.Scheme()) + ": " + a.Name, Want: a.Want,
		Spec: func(addr netip.AddrPort) *pb.Spec {
			return &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: a.Scheme() + "://" + addr.String() + "/"}}}
		},
		Listen: func(at netip.AddrPort) (Server, error) {
			if a.Fault < GoAway {
				return ListenHTTPFault(at, nil, a.Fault)
			}
			ca, err := NewCA("Zoo", CAOptions{})
			if err != nil {
				return nil, err
			}
			cert, err := ca.Issue(Leaf{Names: []string{at.Addr().String()}})
			if err != nil {
				return nil, err
			}
			return ListenHTTPFault(at, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}, a.Fault)
		},
	}
}

// maze is an animal whose every page redirects; where to is for a function of the page's number and the
// server's own address to say.
func maze(name string, want pb.Failure, next func(n int64, own string) string) Animal {
	var pages atomic.Int64
	return hostile(name, fetched, want, after(func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", next(pages.Add(1), c.LocalAddr().String()))
		drain(c)
	}))
}

// httpHouse is what meets a request.
func httpHouse() []Animal {
	house := []Animal{
		maze("HTTP: redirects without end", pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, func(n int64, own string) string {
			return fmt.Sprintf("http://%s/%d", own, n)
		}),
		maze("HTTP: a redirect to itself", pb.Failure_FAILURE_HTTP_REDIRECT_LOOP, func(_ int64, own string) string { return "http://" + own + "/" }),
		maze("HTTP: a redirect to a metadata service", pb.Failure_FAILURE_AGENT_POLICY_DENIED, func(int64, string) string {
			return "http://169.254.169.254/latest/meta-data/"
		}),
		maze("HTTP: a redirect of 64 KiB", pb.Failure_FAILURE_HTTP_TOO_LARGE, func(_ int64, own string) string {
			return "http://" + own + "/" + strings.Repeat("x", 64<<10)
		}),
		maze("HTTP: a redirect to a file", pb.Failure_FAILURE_HTTP_MALFORMED, func(int64, string) string { return "file:///etc/passwd" }),
	}
	for _, a := range HTTPAnimals() {
		house = append(house, a.animal())
	}
	return house
}
