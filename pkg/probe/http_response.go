package probe

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a response, in bytes and in number.
const (
	maxHead    = 64 << 10 // Of a header that is read; CDNs bear 20 KiB, and curl 100.
	maxShown   = 16 << 10 // Of a header that is kept.
	maxFields  = 200
	maxInterim = 8
	maxBody    = 64 << 10
	maxExcerpt = 1024
)

// notHTTPError is what a server said that is not HTTP.
type notHTTPError string

func (e notHTTPError) Error() string { return string(e) }

func notHTTP(format string, args ...any) error {
	return notHTTPError(fmt.Sprintf(format, args...))
}

// errInterim ends a response that never comes to the point.
var errInterim = notHTTP("more than %d interim responses", maxInterim)

// errHeadTooLarge ends a response whose header has no end.
var errHeadTooLarge = fmt.Errorf("%w: a header of more than %d bytes or %d fields", errTooMuch, maxHead, maxFields)

// field is a header field as it was received.
type field struct{ name, value string }

// head is the beginning of a response.
type head struct {
	version string
	status  int
	reason  string
	fields  []field
	size    int       // In bytes; 0: not known.
	began   time.Time // When its first byte came.
}

// get returns the value of the only field, or first one, of a name.
func (h *head) get(name string) string {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// values returns the values of all fields of a name, split at commas (RFC 9110, 5.6.1).
func (h *head) values(name string) []string {
	var out []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			for v := range strings.SplitSeq(f.value, ",") {
				out = append(out, strings.TrimSpace(v))
			}
		}
	}
	return out
}

// bodiless says whether the response has no body whatever it says of its length (RFC 9112, 6.3).
func (h *head) bodiless(method string) bool {
	return method == "HEAD" || h.status == 204 || h.status == 304
}

// response is what an exchange brought, as far as it went.
type response struct {
	*pb.HTTPEvidence
	fields   []*pb.HeaderField // All that were received; the evidence has the first ones.
	content  []byte            // The body, decoded, as far as it was read.
	location string            // Where it redirects to. Empty: it does not.
}

func newResponse(req *request) *response {
	return &response{HTTPEvidence: &pb.HTTPEvidence{Url: escape(req.url.String(), maxURL), Method: req.method, Host: req.host}}
}

// converse sends a request and reads the response. There always is a response, with what came before an
// error. The connection's own deadline ends it.
func converse(conn io.ReadWriter, protocol string, req *request) (*response, error) {
	r := newResponse(req)
	speak := speak1
	if protocol == "h2" {
		speak = speak2
	} else if !slices.Contains(req.alpn, "http/1.1") {
		return r, notHTTP("the server did not agree to HTTP/2")
	}
	began := time.Now()
	h, body, err := speak(conn, req)
	if h != nil {
		r.take(h)
		r.FirstByte = duration(h.began.Sub(began))
	}
	if err == nil && body != nil {
		err = r.read(body, h.get("Content-Encoding"))
	}
	if h != nil {
		r.Edge = edge(r.HTTPEvidence, r.content)
	}
	r.Done = duration(time.Since(began))
	return r, err
}

// take notes the beginning of a response.
func (r *response) take(h *head) {
	r.Version, r.Status, r.Reason = h.version, uint32(h.status), escape(h.reason, maxText)
	r.HeaderSize = int32(h.size)
	left := maxShown // What is escaped grows.
	for _, f := range h.fields {
		r.fields = append(r.fields, &pb.HeaderField{Name: f.name, Value: escape(f.value, maxHead)})
		if left -= len(f.name); left <= 0 {
			continue
		}
		value := escape(f.value, left)
		left -= len(value)
		r.Headers = append(r.Headers, &pb.HeaderField{Name: f.name, Value: value})
	}
	switch h.status {
	case 301, 302, 303, 307, 308:
		r.location = h.get("Location")
	}
}

// read reads the body, as far as it is kept, and decodes it.
func (r *response) read(body io.Reader, coding string) error {
	wire, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if len(wire) > maxBody {
		wire, err, r.BodyCut = wire[:maxBody], nil, true
	}
	r.BodySize = int64(len(wire))
	known, more, derr := r.decode(wire, coding)
	r.BodyCut = r.BodyCut || more
	if len(wire) > 0 {
		sum := sha256.Sum256(r.content)
		r.BodySha256 = hex.EncodeToString(sum[:])
	}
	if known {
		r.BodyExcerpt = clean(string(r.content[:min(len(r.content), maxExcerpt)]), maxExcerpt)
	}
	if err == nil && derr != nil && !r.BodyCut { // What was cut cannot be decoded to its end.
		err = notHTTP("Content-Encoding says %q, and the content does not: %v", escape(coding, 32), derr)
	}
	return err
}

// decode undoes one content coding (RFC 9110, 8.4.1). More: the content goes on beyond what is kept.
func (r *response) decode(wire []byte, coding string) (known, more bool, err error) {
	var decoder io.Reader
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "", "identity":
		r.content = wire
		return true, false, nil
	case "gzip", "x-gzip":
		decoder, err = gzip.NewReader(bytes.NewReader(wire))
	case "deflate":
		decoder, err = zlib.NewReader(bytes.NewReader(wire))
	default:
		r.content = wire // Nothing asked for it; its hash is as good as another.
		return false, false, nil
	}
	if err != nil {
		r.content = wire
		return false, false, err
	}
	r.content, err = io.ReadAll(io.LimitReader(decoder, maxBody+1))
	if len(r.content) > maxBody {
		r.content = r.content[:maxBody]
		return true, true, nil
	}
	return true, false, err
}
