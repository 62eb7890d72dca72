package flight

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Bounds of what a server may send.
const (
	maxFlight       = 256 << 10 // Bytes in all.
	maxRecords      = 4096
	maxPlaintext    = 1 << 14 // Bytes of a record (RFC 8446, 5.1).
	maxCertificates = 500
	maxAlerts       = 16  // Warnings that are kept.
	maxFirst        = 64  // Bytes that are kept of what is not TLS.
	maxAuthorities  = 100 // Names of authorities that are kept.
)

// Errors that a flight ends with. Those of the reader, such as io.EOF, are returned as they are.
var (
	// ErrMalformed: the server's messages cannot be parsed.
	ErrMalformed = errors.New("the server's flight is malformed")
	// ErrTooMuch: the server sends more than a flight may have.
	ErrTooMuch = errors.New("the server sends too much")
)

// NotTLSError is what a server says that does not speak TLS.
type NotTLSError struct {
	// First holds the first bytes, at most 64.
	First []byte
}

func (e *NotTLSError) Error() string {
	return fmt.Sprintf("the server does not speak TLS: it begins with %q", e.First)
}

// AlertError is an alert (RFC 8446, 6). As an error it ended the flight.
type AlertError struct {
	// Fatal is the alert's level.
	Fatal bool
	// Code is the alert's description.
	Code uint8
}

func (e *AlertError) Error() string {
	return fmt.Sprintf("alert %s (%d)", AlertName(e.Code), e.Code)
}

// closeNotify is the alert of a server that ends a connection in order.
const closeNotify = 0

// Flight is what a server says before anything is encrypted.
type Flight struct {
	// Hello says whether there is a ServerHello, which the next fields are from.
	Hello bool
	// Version, Suite and Compression are what the server chose.
	Version     uint16
	Suite       uint16
	Compression uint8
	// SessionID is the session's; empty if the server keeps none.
	SessionID []byte
	// Retry says that it is a HelloRetryRequest (RFC 8446, 4.1.4): Group is the one that it wants.
	Retry bool
	// ALPN is the protocol agreed on.
	ALPN string
	// ServerName says whether the server used the server_name.
	ServerName bool
	// MasterSecret and Renegotiation say whether the server has the extended master secret (RFC 7627) and
	// secure renegotiation (RFC 5746).
	MasterSecret, Renegotiation bool
	// Certificates are as they were served, DER, at most 500.
	Certificates [][]byte
	// Staple is the stapled OCSP response, DER (RFC 6066, 8).
	Staple []byte
	// Group is the group of the key exchange. 0: it has none, or is not known.
	Group uint16
	// Bits is the size of the prime of DHE or SRP, or of the modulus of an RSA export key.
	Bits int
	// Scheme is what the server signed the key exchange with. 0: not known; only TLS 1.2 says it here.
	Scheme uint16
	// Request is what the server wants of the client's certificate. Nil: it asks for none.
	Request *Request
	// Done says whether the flight was complete: ServerHelloDone, or in TLS 1.3 the ServerHello, after
	// which all is encrypted.
	Done bool
	// Alerts are those that came, warnings among them, at most 16.
	Alerts []AlertError
	// Bytes and Records were read.
	Bytes, Records int
}

// Request is a CertificateRequest (RFC 5246, 7.4.4).
type Request struct {
	// Types are the kinds of certificate.
	Types []byte
	// Schemes are the signature schemes; TLS 1.2 alone says them.
	Schemes []uint16
	// Authorities are distinguished names, DER, at most 100 of Count.
	Authorities [][]byte
	Count       int
}

// Read reads a server's flight to its end, as it comes: messages may lie across records, and records
// may hold many. The flight is never nil; with an error it holds what was read until then.
func Read(r io.Reader) (*Flight, error) {
	d := &reader{in: bufio.NewReaderSize(r, 4096), flight: &Flight{}}
	err := d.read()
	return d.flight, err
}

// reader is a flight that is being read.
type reader struct {
	in      *bufio.Reader
	flight  *Flight
	pending []byte // What is not yet a whole message.
}

func (d *reader) read() error {
	for !d.flight.Done {
		kind, payload, err := d.record()
		if err != nil {
			return err
		}
		switch kind {
		case recordHandshake:
			err = d.handshake(payload)
		case recordAlert:
			err = d.alert(payload)
		default: // ChangeCipherSpec and data have no place in a first flight.
			err = fmt.Errorf("%w: a record of type %d", ErrMalformed, kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record reads one record. Its version may be any of TLS's: servers differ in what they write there.
func (d *reader) record() (kind byte, payload []byte, err error) {
	header, err := d.in.Peek(5)
	if len(header) > 0 && (header[0] < 20 || header[0] > 24) || len(header) > 1 && header[1] != 3 {
		if d.flight.Records > 0 {
			return 0, nil, fmt.Errorf("%w: a record that begins with %q", ErrMalformed, header)
		}
		first, _ := d.in.Peek(min(d.in.Buffered(), maxFirst))
		return 0, nil, &NotTLSError{First: append([]byte(nil), first...)}
	}
	if err != nil {
		return 0, nil, unexpected(err, len(header) > 0 || len(d.pending) > 0)
	}
	kind = header[0]
	length := int(header[3])<<8 | int(header[4])
	d.flight.Records++
	d.flight.Bytes += 5 + length
	switch {
	case length > maxPlaintext:
		return 0, nil, fmt.Errorf("%w: a record of %d bytes", ErrMalformed, length)
	case d.flight.Records > maxRecords || d.flight.Bytes > maxFlight:
		return 0, nil, ErrTooMuch
	}
	_, _ = d.in.Discard(5)
	payload = make([]byte, length)
	_, err = io.ReadFull(d.in, payload)
	return kind, payload, unexpected(err, true)
}

// unexpected turns an end amid something into io.ErrUnexpectedEOF.
func unexpected(err error, amid bool) error {
	if err == io.EOF && amid { //nolint:errorlint // Readers return io.EOF as it is.
		return io.ErrUnexpectedEOF
	}
	return err
}

// alert reads the alerts of a record. A warning is kept, and the flight goes on.
func (d *reader) alert(payload []byte) error {
	for ; len(payload) >= 2; payload = payload[2:] {
		a := AlertError{Fatal: payload[0] == 2, Code: payload[1]}
		if len(d.flight.Alerts) < maxAlerts {
			d.flight.Alerts = append(d.flight.Alerts, a)
		}
		if a.Fatal || a.Code == closeNotify {
			return &a
		}
	}
	if len(payload) != 0 || len(d.pending) > 0 {
		return fmt.Errorf("%w: an alert that is cut, or amid a message", ErrMalformed)
	}
	return nil
}

// handshake reads the messages that are complete.
func (d *reader) handshake(payload []byte) error {
	d.pending = append(d.pending, payload...)
	for len(d.pending) >= 4 && !d.flight.Done {
		length := int(d.pending[1])<<16 | int(d.pending[2])<<8 | int(d.pending[3])
		if length > maxFlight {
			return fmt.Errorf("%w: a message of %d bytes", ErrTooMuch, length)
		}
		if len(d.pending) < 4+length {
			return nil
		}
		if err := d.message(d.pending[0], d.pending[4:4+length]); err != nil {
			return err
		}
		d.pending = d.pending[4+length:]
	}
	return nil
}

// message reads one message.
func (d *reader) message(kind byte, body []byte) error {
	f, p := d.flight, &parser{in: body}
	if kind != 0 && kind != 2 && !f.Hello || kind == 2 && f.Hello {
		return fmt.Errorf("%w: a message of type %d out of place", ErrMalformed, kind)
	}
	switch kind {
	case 0: // HelloRequest: the client has just said hello (RFC 5246, 7.4.1.1).
	case 2:
		f.hello(p)
	case 11:
		f.certificate(p)
	case 22:
		f.status(p)
	case 12:
		f.keyExchange(p)
	case 13:
		f.request(p)
	case 14:
		f.Done = true
	case 4, 23: // NewSessionTicket, SupplementalData: nothing that anybody asks.
	default:
		return fmt.Errorf("%w: a message of type %d", ErrMalformed, kind)
	}
	if p.short {
		return fmt.Errorf("%w: a message of type %d that is cut", ErrMalformed, kind)
	}
	return nil
}
