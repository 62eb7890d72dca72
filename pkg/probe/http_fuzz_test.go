package probe

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// spoken is a connection on which everything has been said.
type spoken struct {
	io.Reader
	io.Writer
}

// FuzzResponse reads what a server may say in answer to a request, in both versions. Whatever it is, it
// ends, stays within its bounds and can be shown.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.0 404\nServer: x\n\nno",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 301 Moved\r\nLocation: //[::1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\nContent-Encoding: deflate\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\n folded: before any\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: 1\r\n\t2\r\nB\x00: 3\r\n\r\n",
		"HTTP/1.1 999 \x1b[31m\xff\u202e\r\nX: \x7f\u2028\r\n\r\n\x1b]0;x\x07",
		"HTTP/9.9 200 OK\r\n\r\n", "HTTP/", "SSH-2.0-x\r\n", "\x15\x03\x01\x00\x02\x02\x46", "",
	} {
		f.Add([]byte(s), false, false)
	}
	f.Add(frames(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":status", "200", "content-length", "2"), EndHeaders: true})
		_ = fr.WritePing(false, [8]byte{})
		_ = fr.WriteDataPadded(1, true, []byte("ok"), make([]byte, 3))
	}), true, false)
	f.Add(frames(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":status", "103"), EndHeaders: true})
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":status", "200")})
		_ = fr.WriteContinuation(1, true, fields("x", "y"))
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields("trailer", "z"), EndHeaders: true, EndStream: true})
	}), true, true)
	f.Add(frames(func(fr *http2.Framer) { _ = fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, []byte("x")) }), true, false)
	f.Add(frames(func(fr *http2.Framer) { _ = fr.WriteRSTStream(1, 1<<31) }), true, false)
	f.Fuzz(func(t *testing.T, said []byte, second, head bool) {
		spec, version := &pb.HTTPSpec{Url: "https://www.example/a?b"}, "http/1.1"
		if second {
			version = "h2"
		}
		if head {
			spec.Method = "HEAD"
		}
		req, err := newRequest(spec, "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		r, err := converse(spoken{bytes.NewReader(said), io.Discard}, version, req)
		if err == nil && (r.GetStatus() < 200 || r.GetVersion() == "") {
			t.Errorf("a response without a status: %v", r)
		}
		if r.GetBodySize() > maxBody || len(r.content) > maxBody || len(r.GetHeaders()) > maxFields || head && r.GetBodySize() > 0 {
			t.Errorf("out of bounds: %d bytes of body, %d of content, %d fields", r.GetBodySize(), len(r.content), len(r.GetHeaders()))
		}
		if n := proto.Size(r.HTTPEvidence); n > 2*maxShown {
			t.Errorf("evidence of %d bytes", n)
		}
		if f := exchangeFailure(t.Context(), err); f == pb.Failure_FAILURE_AGENT_INTERNAL || (f == pb.Failure_FAILURE_NONE) != (err == nil) {
			t.Errorf("%v is %s", err, Short(f))
		}
		if r.location != "" {
			if next, err := req.next(r.location); err == nil && strings.ContainsAny(request1(next), "\x00\x1b") {
				t.Errorf("a request that is made of the redirect to %q: %q", r.location, request1(next))
			}
		}
		checkTame(t, &pb.Result{Steps: []*pb.Step{{Evidence: &pb.Evidence{Http: r.HTTPEvidence}}}})
	})
}

// FuzzRedirect follows whatever a Location says, and wants the request to stay one request.
func FuzzRedirect(f *testing.F) {
	for _, s := range []string{
		"/", "//other.example", "http://u:p@h:1/#f", "https:///", "javascript:alert(1)", "?\r\nX: y", "/%0d%0a", "http://[::1%25eth0]/",
		"http://h\x00/", "http://bücher.example/ä b", "http://h:99999", "http:opaque", "?\xff\u202e", "http://\xff/", "http://\u202e.example/", "..//..\\..", "http://0x7f.1/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		req, err := newRequest(&pb.HTTPSpec{Url: "http://www.example/a/b?c", Headers: []*pb.HeaderField{{Name: "X-Secret", Value: "s"}}}, "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		next, err := req.next(location)
		if err != nil {
			return
		}
		sent := request1(next)
		lines := strings.Split(strings.TrimSuffix(sent, "\r\n\r\n"), "\r\n")
		first := strings.Split(lines[0], " ")
		if len(first) != 3 || strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
			t.Errorf("%q makes %q", location, sent)
		}
		if strings.Contains(sent, "X-Secret") && !strings.EqualFold(next.hostname(), "www.example") {
			t.Errorf("%q is told the secret: %q", location, sent)
		}
		shown := &pb.Step{Name: hostOf(next.host), Evidence: &pb.Evidence{Http: newResponse(next).HTTPEvidence}}
		checkTame(t, &pb.Result{Steps: []*pb.Step{shown}})
		if next.port() == 0 || next.url.User != nil || next.url.Scheme != "http" && next.url.Scheme != "https" {
			t.Errorf("%q leads to %s", location, next.url)
		}
	})
}

// frames are the bytes of frames.
func frames(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	write(http2.NewFramer(&b, nil))
	return b.Bytes()
}

// fields are the bytes of a header.
func fields(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}
