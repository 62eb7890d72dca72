package probetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTPFault is a way for a web server to mean harm.
type HTTPFault int

// The faults of HTTP/1.1.
const (
	SlowHeader     HTTPFault = iota // A header of one byte every fifth of a second.
	SlowBody                        // A body of one byte every fifth of a second.
	EndlessHeader                   // Header fields without end.
	EndlessLine                     // One field without end.
	EndlessInterim                  // Interim responses without end.
	EndlessBody                     // A body without end or length.
	ByteChunks                      // A body of 64 KiB, in chunks of one byte.
	EndlessChunk                    // A chunk extension without end.
	NoChunks                        // Chunks that are none.
	GzipBomb                        // 8 MiB of zeros in 8 KiB.
	NoGzip                          // Content that is not compressed, as it says.
	TooLong                         // Content-Length says more than there is.
	TwoLengths                      // Content-Length says two things.
	ResetInBody                     // RST amid the body.
	Bare                            // HTTP/0.9: a page without a header.
	Ugly                            // Terminal escapes and bytes that are no UTF-8 in every place.
	GreetsFirst                     // SSH.
	UpgradesAlone                   // 101, which nobody asked for.
)

// The faults of HTTP/2.
const (
	GoAway            HTTPFault = iota + 100 // GOAWAY at once.
	ResetStream                              // RST_STREAM in place of a response.
	EndlessHeader2                           // CONTINUATION frames without end.
	PackedHeader                             // A header that is small on the wire and large when unpacked.
	EndlessPings                             // PING frames without end.
	EndlessSettings                          // SETTINGS frames without end.
	EndlessBody2                             // A body without end, regardless of the window.
	Padding                                  // A body of padding.
	DataFirst                                // Data without a header.
	Push                                     // PUSH_PROMISE, which was refused.
	WrongLength                              // Content-Length says more than there is.
	SpeaksHTTP1                              // HTTP/1.1 although HTTP/2 was agreed on.
	MuteAfterSettings                        // Its SETTINGS, and then nothing.
)

// ListenHTTPFault starts a server with a fault, over TLS if there is a config; for a fault of HTTP/2 there
// has to be one that offers it.
func ListenHTTPFault(at netip.AddrPort, config *tls.Config, fault HTTPFault) (*Host, error) {
	answer := fault.answer() // Made before anybody waits for it.
	return serve(at, func(c net.Conn) {
		plain := c
		if config != nil {
			conn := tls.Server(c, config)
			if conn.HandshakeContext(context.Background()) != nil {
				return
			}
			c = conn
		}
		if fault >= GoAway {
			fault.serve2(c)
		} else {
			fault.serve1(c, answer)
		}
		if fault == ResetInBody {
			reset(plain)
		}
	})
}

const ok = "HTTP/1.1 200 OK\r\n"

// serve1 reads a request and answers it badly, by default with these words.
func (f HTTPFault) serve1(c net.Conn, answer string) {
	if f == GreetsFirst {
		_, _ = io.WriteString(c, "SSH-2.0-elsewhere\r\n")
	} else {
		_, _ = c.Read(make([]byte, 8192))
	}
	switch f {
	case SlowHeader:
		trickle(c, ok+strings.Repeat("X-Slow: yes\r\n", 1000))
	case SlowBody:
		_, _ = io.WriteString(c, ok+"\r\n")
		trickle(c, strings.Repeat("slow", 1000))
	case EndlessHeader:
		endless(c, ok, "X-More: and more\r\n")
	case EndlessLine:
		endless(c, ok+"X-More: ", "more ")
	case EndlessInterim:
		endless(c, "", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
	case EndlessBody:
		endless(c, ok+"\r\n", "and so on ")
	case EndlessChunk:
		endless(c, ok+"Transfer-Encoding: chunked\r\n\r\n1;", "more=")
	case ResetInBody:
		_, _ = io.WriteString(c, ok+"Content-Length: 1000\r\n\r\nhalf of it")
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // It is to be read before the RST.
		drain(c)
		return
	default:
		_, _ = io.WriteString(c, answer)
	}
	if f == GreetsFirst {
		drain(c)
	}
}

// answer is what a server says, whole, before it closes.
func (f HTTPFault) answer() string {
	switch f {
	case ByteChunks:
		return ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 64<<10) + "0\r\n\r\n"
	case NoChunks:
		return ok + "Transfer-Encoding: chunked\r\n\r\nthis is no number\r\n"
	case GzipBomb:
		return ok + "Content-Encoding: gzip\r\n\r\n" + string(bomb(8<<20))
	case NoGzip:
		return ok + "Content-Encoding: gzip\r\nContent-Length: 10\r\n\r\nplain text"
	case TooLong:
		return ok + "Content-Length: 1000\r\n\r\nshort"
	case TwoLengths:
		return ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nwhich?"
	case Bare:
		return "<html>It works!</html>"
	case Ugly:
		const ugly = "\x1b]0;owned\x07\xff\xfe\u202e<script>"
		return "HTTP/1.1 200 " + ugly + "\r\nX-Ugly: " + ugly + "\r\nServer: " + strings.Repeat("\xff", 8000) + "\r\n\r\n" + ugly
	case UpgradesAlone:
		return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n"
	default:
		return ""
	}
}

// serve2 answers the first stream badly.
func (f HTTPFault) serve2(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	if f == SpeaksHTTP1 {
		_, _ = io.WriteString(c, ok+"Content-Length: 0\r\n\r\n")
		drain(c)
		return
	}
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	for { // What the client says goes unanswered, but for the request.
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if _, isRequest := frame.(*http2.HeadersFrame); isRequest {
			break
		}
	}
	f.answer2(fr)
	drain(c)
}

// answer2 writes frames until it has done its worst, or the client is gone.
func (f HTTPFault) answer2(fr *http2.Framer) {
	respond := func(end bool, fields ...string) error {
		return fr.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: block(append([]string{":status", "200"}, fields...)...), EndHeaders: true, EndStream: end,
		})
	}
	var err error
	switch f {
	case GoAway:
		_ = fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("\x1b[31mgo"))
	case ResetStream:
		_ = fr.WriteRSTStream(1, http2.ErrCodeInternal)
	case EndlessHeader2:
		err = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
		for err == nil {
			err = fr.WriteContinuation(1, false, block("x-more", strings.Repeat("more", 100)))
		}
	case PackedHeader:
		fields := []string{}
		for range 100 {
			fields = append(fields, "x-packed", strings.Repeat("p", 3000))
		}
		_ = respond(true, fields...)
	case EndlessPings:
		for err == nil {
			err = fr.WritePing(false, [8]byte{1})
		}
	case EndlessSettings:
		for err == nil {
			err = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
		}
	case EndlessBody2:
		for err = respond(false); err == nil; {
			err = fr.WriteData(1, false, make([]byte, 1<<14))
		}
	case Padding:
		for err = respond(false); err == nil; {
			err = fr.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
		}
	case DataFirst:
		_ = fr.WriteData(1, true, []byte("first"))
	case Push:
		_ = fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: block(":method", "GET"), EndHeaders: true})
	case WrongLength:
		if respond(false, "content-length", "1000") == nil {
			_ = fr.WriteData(1, true, []byte("short"))
		}
	default:
	}
}

// block compresses a header.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

// endless writes again and again until the other end is gone.
func endless(w io.Writer, first, again string) {
	_, err := io.WriteString(w, first)
	for again = strings.Repeat(again, 100); err == nil; {
		_, err = io.WriteString(w, again)
	}
}

// trickle writes one byte after the other, slowly.
func trickle(w io.Writer, s string) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range len(s) {
		if _, err := fmt.Fprintf(w, "%c", s[i]); err != nil {
			return
		}
		<-tick.C
	}
}

// bomb compresses zeros.
func bomb(size int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for n := 0; n < size; n += len(zeros) {
		_, _ = w.Write(zeros)
	}
	_ = w.Close()
	return b.Bytes()
}
