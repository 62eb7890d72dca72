package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP/2 (RFC 9113): one stream on one connection, read frame by frame without a goroutine. The library
// parses the frames and bounds the header.

const (
	theStream     = 1
	window        = 128 << 10 // More than is read of a body.
	maxFrame      = 16 << 10  // Both ends' bound (RFC 9113, 6.5.2).
	maxControls   = 1000      // Frames that are neither header nor data.
	fieldOverhead = 32        // Counted for each field (RFC 9113, 6.5.2).
)

// The frames by which a server ends the connection or the stream.
const (
	frameGoAway = "GOAWAY"
	frameReset  = "RST_STREAM"
)

// goneError is a server's end of the connection or of the stream, with its reason.
type goneError struct {
	frame string
	code  http2.ErrCode
}

func (e goneError) Error() string { return fmt.Sprintf("the server sent %s: %s", e.frame, e.code) }

// stream2 is an exchange of HTTP/2 while it is made; it reads as its body.
type stream2 struct {
	w        *bufio.Writer
	fr       *http2.Framer
	head     *head
	data     []byte // Of the current DATA frame.
	size     int64  // What was read of the body.
	ended    bool
	controls int
	interim  int
}

// speak2 sends a request and reads the response up to its body. Nil body: there is none.
func speak2(conn io.ReadWriter, req *request) (*head, io.Reader, error) {
	w := bufio.NewWriter(conn)
	s := &stream2{w: w, fr: http2.NewFramer(w, conn)}
	s.fr.SetMaxReadFrameSize(maxFrame)
	s.fr.MaxHeaderListSize = maxHead + maxFields*fieldOverhead
	s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := s.send(req); err != nil {
		return nil, nil, err
	}
	for s.head == nil {
		if err := s.next(); err != nil {
			return nil, nil, err
		}
	}
	if s.ended || s.head.bodiless(req.method) {
		return s.head, nil, nil
	}
	return s.head, s, nil
}

// send sends the connection's preface and the request.
func (s *stream2) send(req *request) error {
	_, _ = s.w.WriteString(http2.ClientPreface) // The writer keeps its error for Flush.
	_ = s.fr.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: s.fr.MaxHeaderListSize},
	)
	_ = s.fr.WriteWindowUpdate(0, window)
	block := header2(req)
	first := block[:min(len(block), maxFrame)]
	block = block[len(first):]
	_ = s.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: theStream, BlockFragment: first, EndStream: true, EndHeaders: len(block) == 0,
	})
	for len(block) > 0 {
		part := block[:min(len(block), maxFrame)]
		block = block[len(part):]
		_ = s.fr.WriteContinuation(theStream, len(block) == 0, part)
	}
	return s.w.Flush()
}

// header2 is a request's header, compressed (RFC 9113, 8.3.1).
func header2(req *request) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	put := func(name, value string) { _ = e.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	put(":method", req.method)
	put(":scheme", req.url.Scheme)
	put(":authority", req.host)
	put(":path", req.path())
	for _, f := range req.all() {
		put(strings.ToLower(f.GetName()), f.GetValue())
	}
	return b.Bytes()
}

// next reads a frame and does what it says.
func (s *stream2) next() error {
	f, err := s.fr.ReadFrame()
	if h, isHeader := f.(*http2.MetaHeadersFrame); isHeader && h.Truncated {
		return errHeadTooLarge // Whatever the library makes of it.
	}
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return s.header(f)
	case *http2.DataFrame:
		return s.body(f)
	}
	if s.controls++; s.controls > maxControls {
		return fmt.Errorf("%w: more than %d control frames", errTooMuch, maxControls)
	}
	return s.control(f)
}

// header takes the response's header, an interim one, or trailers, which nobody needs.
func (s *stream2) header(f *http2.MetaHeadersFrame) error {
	began := time.Now()
	status, err := strconv.ParseUint(f.PseudoValue("status"), 10, 16)
	switch {
	case len(f.RegularFields()) > maxFields:
		return errHeadTooLarge
	case f.StreamID != theStream:
		return notHTTP("a header for stream %d, which nobody opened", f.StreamID)
	case s.head != nil:
		s.ended = s.ended || f.StreamEnded()
		return nil
	case err != nil || status < 100 || status > 999:
		return notHTTP("the status is %q", f.PseudoValue("status"))
	case status == 101:
		return notHTTP("the server switches protocols, which HTTP/2 does not have")
	case status < 200:
		if s.interim++; s.interim > maxInterim {
			return errInterim
		}
		return nil
	}
	s.head = &head{version: "HTTP/2.0", status: int(status), began: began}
	for _, h := range f.RegularFields() {
		s.head.fields = append(s.head.fields, field{h.Name, h.Value})
	}
	s.ended = f.StreamEnded()
	return nil
}

// body takes a piece of the body. It stays valid until the next frame is read.
func (s *stream2) body(f *http2.DataFrame) error {
	if f.StreamID != theStream || s.head == nil {
		return notHTTP("data without a header")
	}
	s.data, s.ended = f.Data(), f.StreamEnded()
	return nil
}

// control answers what is about the connection.
// A GOAWAY that names this stream and no error lets it end in peace: servers that are about to close
// say so with their last response.
func (s *stream2) control(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = s.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = s.fr.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		if f.ErrCode != http2.ErrCodeNo || f.LastStreamID < theStream {
			return goneError{frameGoAway, f.ErrCode}
		}
	case *http2.RSTStreamFrame:
		if f.StreamID == theStream {
			return goneError{frameReset, f.ErrCode}
		}
	case *http2.PushPromiseFrame:
		return notHTTP("the server pushes, which it was asked not to")
	}
	// Nothing waits for these: what cannot be sent shows in what is read.
	_ = s.w.Flush()
	return nil
}

// Read reads the body.
func (s *stream2) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		if s.ended {
			return 0, s.whole()
		}
		if err := s.next(); errors.Is(err, io.EOF) {
			return 0, io.ErrUnexpectedEOF
		} else if err != nil {
			return 0, err
		}
	}
	n := copy(p, s.data)
	s.data, s.size = s.data[n:], s.size+int64(n)
	return n, nil
}

// whole says whether the body is as long as it was said to be (RFC 9113, 8.1.1).
func (s *stream2) whole() error {
	length := s.head.get("Content-Length")
	if length != "" && length != strconv.FormatInt(s.size, 10) {
		return notHTTP("Content-Length is %q, and the body has %d bytes", escape(length, 32), s.size)
	}
	return io.EOF
}
