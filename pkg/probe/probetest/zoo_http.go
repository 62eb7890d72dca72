package probetest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// bomb is what 32 MiB of nothing are by gzip.
func bomb() string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	nothing := make([]byte, 1<<20)
	for range 32 {
		_, _ = w.Write(nothing)
	}
	_ = w.Close()
	return out.String()
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
	none, malformed, timeout := pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_HTTP_MALFORMED, pb.Failure_FAILURE_HTTP_TIMEOUT
	ok := "HTTP/1.1 200 OK\r\n"
	return []Animal{
		hostile("HTTP: header fields without end", fetched, pb.Failure_FAILURE_HTTP_TOO_LARGE, after(repeating(ok, "X-Field: value\r\n"))),
		hostile("HTTP: one header field without end", fetched, pb.Failure_FAILURE_HTTP_TOO_LARGE, after(repeating(ok+"X: ", "v"))),
		hostile("HTTP: a status line without end", fetched, pb.Failure_FAILURE_HTTP_TOO_LARGE, after(repeating("HTTP/1.1 200 ", "K"))),
		hostile("HTTP: a header a byte at a time", fetched, timeout, after(dripping(ok, "X-Field: v\r\n"))),
		hostile("HTTP: interim responses without end", fetched, pb.Failure_FAILURE_HTTP_TOO_LARGE, after(repeating("", "HTTP/1.1 103 Early Hints\r\n\r\n"))),
		hostile("HTTP: a body without end", fetched, none, after(repeating(ok+"\r\n", "body "))),
		hostile("HTTP: chunks without end", fetched, none, after(repeating(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"))),
		hostile("HTTP: a chunk of 16 exabytes", fetched, malformed, after(repeating(ok+"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "x"))),
		hostile("HTTP: a gzip bomb", fetched, none, after(saying(ok+"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"+bomb()))),
		hostile("HTTP: a shorter body than announced", fetched, pb.Failure_FAILURE_HTTP_CLOSED, after(func(c net.Conn) {
			_, _ = io.WriteString(c, ok+"Content-Length: 1000\r\n\r\nthis is all")
		})),
		hostile("HTTP: a reset in the body", fetched, pb.Failure_FAILURE_HTTP_RESET, after(resetting(ok+"Content-Length: 1000\r\n\r\nthis is"))),
		hostile("HTTP: two lengths", fetched, malformed, after(saying(ok+"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"))),
		hostile("HTTP: no HTTP", fetched, malformed, after(saying("220 zoo ESMTP\r\n"))),
		hostile("HTTP: HTTP/2 where it was not asked for", fetched, malformed, after(repeating("", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))),
		hostile("HTTP: escapes in every field", fetched, none,
			after(saying("HTTP/1.1 200 \x1b]0;owned\x07\r\nServer: \x1b[31m\xff\xfe\r\nContent-Length: 8\r\n\r\n\x1b[2J\xff\xfe\u202e"))),
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
}
