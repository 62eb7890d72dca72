package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// HTTP/1.1 (RFC 9112). The header is read here, since the library keeps neither the order nor the case of
// its fields; the chunks of a body are the library's.

// speak1 sends a request and reads the response up to its body. Nil body: there is none.
func speak1(conn io.ReadWriter, req *request) (*head, io.Reader, error) {
	_, written := io.WriteString(conn, request1(req))
	// A server may answer, and close, before it has read all: its answer counts.
	br := bufio.NewReaderSize(conn, maxHead)
	h, err := finalHead(br)
	if err != nil {
		return nil, nil, errors.Join(err, written)
	}
	body, err := body1(br, h, req.method)
	return h, body, err
}

// request1 is a request as it is sent. A connection serves one exchange alone.
func request1(req *request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.method, req.path(), req.host)
	for _, f := range req.all() {
		fmt.Fprintf(&b, "%s: %s\r\n", f.GetName(), f.GetValue())
	}
	b.WriteString("Connection: close\r\n\r\n")
	return b.String()
}

// finalHead reads the beginning of the response and skips the interim ones before it (RFC 9110, 15.2).
func finalHead(br *bufio.Reader) (*head, error) {
	for range maxInterim + 1 {
		h, err := readHead(br)
		switch {
		case err != nil:
			return nil, err
		case h.status == 101:
			return nil, notHTTP("the server switches protocols, which nobody asked for")
		case h.status >= 200:
			return h, nil
		}
	}
	return nil, errInterim
}

// readHead reads a status line and header fields.
func readHead(br *bufio.Reader) (*head, error) {
	// What is not HTTP is told by its first bytes and at once: a TLS alert or the banner of SSH has no line end that
	// would be worth waiting for, and "timeout" would send people to look at the network.
	start, err := br.Peek(5)
	h := &head{began: time.Now()}
	if !strings.HasPrefix("HTTP/", string(start)) {
		more, _ := br.Peek(min(br.Buffered(), 32))
		return nil, notHTTP("the answer is not HTTP/1: it begins with %q", more)
	}
	if err != nil {
		return nil, err
	}
	left := maxHead
	line, err := readLine(br, &left)
	if err != nil {
		return nil, err
	}
	if err := h.statusLine(line); err != nil {
		return nil, err
	}
	for {
		line, err := readLine(br, &left)
		if err != nil {
			return nil, err
		}
		if line == "" {
			h.size = maxHead - left
			return h, nil
		}
		if len(h.fields) == maxFields {
			return nil, errHeadTooLarge
		}
		if err := h.fieldLine(line); err != nil {
			return nil, err
		}
	}
}

// readLine reads a line without its end, which may be a lone LF (RFC 9112, 2.2), and counts its bytes.
func readLine(br *bufio.Reader, left *int) (string, error) {
	line, err := br.ReadSlice('\n')
	*left -= len(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull), *left < 0:
		return "", errHeadTooLarge
	case err != nil:
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
}

// statusLine reads "HTTP/1.1 200 OK"; the reason may be missing, and the space before it.
func (h *head) statusLine(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	status, err := strconv.ParseUint(code, 10, 16)
	if version != "HTTP/1.1" && version != "HTTP/1.0" || err != nil || len(code) != 3 || status < 100 {
		return notHTTP("the status line is %q", line[:min(len(line), 64)])
	}
	h.version, h.status, h.reason = version, int(status), reason
	return nil
}

// fieldLine reads a header field, or goes on with the one before (RFC 9112, 5.2).
func (h *head) fieldLine(line string) error {
	if line[0] == ' ' || line[0] == '\t' {
		if len(h.fields) == 0 {
			return notHTTP("the header begins with a space")
		}
		last := &h.fields[len(h.fields)-1]
		last.value += " " + trimOWS(line)
		return nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !httpguts.ValidHeaderFieldName(name) {
		return notHTTP("%q is no header field", line[:min(len(line), 64)])
	}
	h.fields = append(h.fields, field{name, trimOWS(value)})
	return nil
}

func trimOWS(s string) string { return strings.Trim(s, " \t") }

// body1 is the body of a response (RFC 9112, 6.3).
func body1(br *bufio.Reader, h *head, method string) (io.Reader, error) {
	if h.bodiless(method) {
		return nil, nil //nolint:nilnil // no body is what there is
	}
	// Where both are there, the coding decides and the length is noise (RFC 9112, 6.3, 3).
	if codings := h.values("Transfer-Encoding"); len(codings) > 0 {
		if strings.EqualFold(codings[len(codings)-1], "chunked") {
			return httputil.NewChunkedReader(br), nil
		}
		return br, nil
	}
	lengths := h.values("Content-Length")
	if len(lengths) == 0 { // Then the end of the connection is the end of the body, and no failure.
		return br, nil
	}
	// Proxies repeat the field; the same number twice is one (6.3, 5). Two numbers are how messages are smuggled.
	for _, l := range lengths {
		if l != lengths[0] || strings.HasPrefix(l, "+") {
			return nil, notHTTP("Content-Length is %q", lengths)
		}
	}
	n, err := strconv.ParseInt(lengths[0], 10, 64)
	if err != nil || n < 0 {
		return nil, notHTTP("Content-Length is %q", lengths[0])
	}
	return &exactly{br, n}, nil
}

// exactly reads a number of bytes; fewer are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = fmt.Errorf("%w: %d bytes of the body did not come", io.ErrUnexpectedEOF, e.left)
	}
	return n, err
}
