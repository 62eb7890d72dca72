package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// This file alone turns errors into failures: types before strings.

// localError is an error of the host itself: nothing was sent.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// icmpError is an error of the network that came as an ICMP message, by the errno that stands for it.
type icmpError struct{ syscall.Errno }

func (e icmpError) Unwrap() error { return e.Errno }

// isLocal says whether err is the host's own.
func isLocal(err error) bool {
	var local localError
	return errors.As(err, &local)
}

// isTimeout says whether err is a deadline that passed.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}

// isUnroutable says whether err is what a host without a route says.
func isUnroutable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// connectFailure classifies the error of a connect. An ICMP error from the error queue decides,
// whatever errno says.
func connectFailure(ctx context.Context, addr netip.AddrPort, ev *pb.Evidence, err error) pb.Failure {
	var icmp icmpError
	decided := errors.As(err, &icmp) && ev.GetIcmp() != nil
	switch {
	case isLocal(err):
		return localFailure(addr.Addr(), err)
	case decided && sentByHost(ev, addr.Addr()):
		return pb.Failure_FAILURE_AGENT_NO_EGRESS
	case decided:
		return icmpFailure(ev.GetIcmp(), addr.Addr().Is6())
	case over(ctx):
		return pb.Failure_FAILURE_AGENT_DEADLINE
	case isTimeout(err):
		return pb.Failure_FAILURE_TCP_TIMEOUT
	}
	return errnoFailure(err)
}

// localFailure classifies an error that connect(2) or socket(2) returned at once.
func localFailure(ip netip.Addr, err error) pb.Failure {
	switch {
	case errors.Is(err, errors.ErrUnsupported): // An option that this system does not have.
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	case ip.Is6() && isUnroutable(err) && !ip.IsLoopback() && !routed(ip):
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING // many hosts have a name with IPv6, and no way there
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
		errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAGAIN):
		return pb.Failure_FAILURE_AGENT_OVERLOADED
	case isUnroutable(err), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EINVAL):
		return pb.Failure_FAILURE_AGENT_NO_EGRESS
	}
	return pb.Failure_FAILURE_AGENT_INTERNAL
}

// sentByHost says whether the agent's own firewall rejected the packet: the ICMP error comes from the
// agent's own address. "Host unreachable" from there is something else: the next hop does not answer.
func sentByHost(ev *pb.Evidence, target netip.Addr) bool {
	local, err := netip.ParseAddrPort(ev.GetLocalAddress())
	if err != nil || local.Addr().Unmap() == target || ev.GetIcmp().GetSender() != local.Addr().Unmap().String() {
		return false
	}
	return icmpFailure(ev.GetIcmp(), target.Is6()) != pb.Failure_FAILURE_TCP_HOST_UNREACHABLE
}

// icmpFailure classifies an ICMP error (RFC 792, RFC 1122 3.2.2, RFC 1812 5.2.7.1, RFC 4443).
func icmpFailure(icmp *pb.ICMP, v6 bool) pb.Failure {
	type message struct {
		v6        bool
		typ, code int32
	}
	switch (message{v6, icmp.GetType(), icmp.GetCode()}) {
	case message{false, 3, 0}, // Net unreachable.
		message{false, 3, 6},  // Net unknown.
		message{false, 3, 11}, // Net unreachable for this type of service.
		message{true, 1, 0}:   // No route.
		return pb.Failure_FAILURE_TCP_NET_UNREACHABLE
	case message{false, 3, 3}, message{true, 1, 4}:
		return pb.Failure_FAILURE_TCP_PORT_UNREACHABLE
	case message{false, 3, 9}, // Net prohibited.
		message{false, 3, 10}, // Host prohibited.
		message{false, 3, 13}, // Communication prohibited.
		message{false, 3, 14}, // The host's precedence is not permitted.
		message{false, 3, 15}, // The network's precedence is not permitted.
		message{true, 1, 1},   // Communication prohibited.
		message{true, 1, 5},   // The source address fails a policy.
		message{true, 1, 6}:   // A route that rejects.
		return pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED
	}
	// Host unreachable (3/1, 3/7, 3/8, 3/12; IPv6 1/3), and all else that stopped the packet on its way: the
	// host knows no TCP (3/2), a source route failed (3/5; IPv6 1/7), the scope of the source (IPv6 1/2), a
	// loop (11; IPv6 3), a header that somebody did not like (12; IPv6 4).
	return pb.Failure_FAILURE_TCP_HOST_UNREACHABLE
}

// errnoFailure classifies what the network answered by errno alone.
func errnoFailure(err error) pb.Failure {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return pb.Failure_FAILURE_TCP_REFUSED
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return pb.Failure_FAILURE_TCP_RESET
	case errors.Is(err, syscall.ENETUNREACH):
		return pb.Failure_FAILURE_TCP_NET_UNREACHABLE
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return pb.Failure_FAILURE_TCP_HOST_UNREACHABLE
	case errors.Is(err, syscall.EACCES): // What Linux makes of ICMPv6 1/1, 1/5 and 1/6.
		return pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED
	case errors.Is(err, syscall.ETIMEDOUT):
		return pb.Failure_FAILURE_TCP_TIMEOUT
	}
	return pb.Failure_FAILURE_AGENT_INTERNAL
}

// closedFailure tells a reset from a close of an accepted connection.
func closedFailure(err error, reset, closed pb.Failure) pb.Failure {
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closed
	}
	return pb.Failure_FAILURE_AGENT_INTERNAL
}

// transportError is an error of what carries a query, by the failure that it is.
type transportError struct {
	failure pb.Failure
	error
}

func (e transportError) Unwrap() error { return e.error }

// queryFailure classifies the error of a query to a server that brought no usable reply.
func queryFailure(ctx context.Context, server netip.Addr, err error) pb.Failure {
	var carrier transportError
	var icmp icmpError
	switch {
	case errors.Is(err, syscall.EPERM):
		return pb.Failure_FAILURE_AGENT_NO_EGRESS
	case isLocal(err):
		return localFailure(server, err)
	case over(ctx):
		return pb.Failure_FAILURE_AGENT_DEADLINE
	case errors.As(err, &carrier):
		return carrier.failure
	case errors.Is(err, errMismatch):
		return pb.Failure_FAILURE_DNS_ID_MISMATCH
	case errors.Is(err, errMalformed):
		return pb.Failure_FAILURE_DNS_MALFORMED
	case errors.Is(err, syscall.ECONNREFUSED), isUnroutable(err), errors.Is(err, syscall.EACCES), errors.As(err, &icmp):
		return pb.Failure_FAILURE_DNS_UNREACHABLE
	}
	return pb.Failure_FAILURE_DNS_TIMEOUT
}

// rcodeFailure classifies a response code.
func rcodeFailure(rcode int) pb.Failure {
	switch rcode {
	case dns.RcodeSuccess:
		return pb.Failure_FAILURE_NONE
	case dns.RcodeNameError:
		return pb.Failure_FAILURE_DNS_NXDOMAIN
	case dns.RcodeRefused:
		return pb.Failure_FAILURE_DNS_REFUSED
	case dns.RcodeFormatError, dns.RcodeBadVers:
		return pb.Failure_FAILURE_DNS_FORMERR
	case dns.RcodeNotImplemented:
		return pb.Failure_FAILURE_DNS_NOTIMP
	case dns.RcodeNotAuth:
		return pb.Failure_FAILURE_DNS_NOTAUTH
	}
	return pb.Failure_FAILURE_DNS_SERVFAIL // The others say in their own way that the server failed.
}

// ednsTrouble says whether a reply is what servers that do not know EDNS answer to a query with it (RFC 6891,
// 7), or that they know no version of it.
func ednsTrouble(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeBadVers
}

// authorityFailure classifies the reply of a server that a zone was delegated to, and that does not refer
// on. One that does not serve the zone is lame, in whichever way it says so.
func authorityFailure(m *dns.Msg, qtype uint16) pb.Failure {
	switch f := rcodeFailure(m.Rcode); {
	case f == pb.Failure_FAILURE_DNS_FORMERR, f == pb.Failure_FAILURE_DNS_NOTIMP:
		return f
	case f == pb.Failure_FAILURE_DNS_SERVFAIL && m.Authoritative: // It serves the zone, and fails at the name.
		if len(m.Question) == 1 && loops(links(m, canonical(m.Question[0].Name))) {
			return pb.Failure_FAILURE_DNS_CNAME_LOOP
		}
		return f
	case f != pb.Failure_FAILURE_NONE && f != pb.Failure_FAILURE_DNS_NXDOMAIN, !m.Authoritative:
		return pb.Failure_FAILURE_DNS_LAME
	case f == pb.Failure_FAILURE_NONE && !holds(m, qtype) && !holds(m, dns.TypeCNAME):
		return pb.Failure_FAILURE_DNS_NODATA
	default:
		return f
	}
}

// said is what a server said in a handshake that failed.
type said struct {
	first     []byte // Its first bytes.
	certAsked bool   // It asked for a certificate, of which the probe has none.
}

// handshakeFailure classifies the error of a TLS handshake, by the library or by hand.
func handshakeFailure(ctx context.Context, err error, s said) (pb.Failure, *pb.TLSAlert) {
	switch alert, isAlert := remoteAlert(err); {
	case isAlert:
		return alertFailure(alert, s.certAsked), tlsAlert(alert)
	case len(s.first) > 0 && (s.first[0] < 20 || s.first[0] > 24) || len(s.first) > 1 && s.first[1] != 3:
		return pb.Failure_FAILURE_TLS_NOT_TLS, nil
	case over(ctx):
		return pb.Failure_FAILURE_AGENT_DEADLINE, nil
	case isTimeout(err):
		return pb.Failure_FAILURE_TLS_TIMEOUT, nil
	case errors.Is(err, errNotOffered):
		return pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, nil
	}
	f := closedFailure(err, pb.Failure_FAILURE_TLS_RESET, pb.Failure_FAILURE_TLS_CLOSED)
	switch warning := firstWarning(s.first); {
	case f == pb.Failure_FAILURE_AGENT_INTERNAL:
		return handshakeText(err.Error()), nil
	case warning != nil && alertFailure(warning.Code, false) == pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME:
		return pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME, nil // It warned, and went.
	}
	return f, nil
}

// firstWarning returns the warning that a server began with, which crypto/tls passes over. Nil: none.
func firstWarning(first []byte) *flight.AlertError {
	if len(first) < 7 || first[0] != 21 || first[5] != 1 {
		return nil
	}
	return &flight.AlertError{Code: first[6]}
}

// tlsAlert is an alert as evidence.
func tlsAlert(code uint8) *pb.TLSAlert {
	return &pb.TLSAlert{Code: uint32(code), Name: flight.AlertName(code)}
}

// isCertificate says whether a failure is about certificates alone.
func isCertificate(f pb.Failure) bool {
	return f >= pb.Failure_FAILURE_CERT_EXPIRED && f <= pb.Failure_FAILURE_CERT_MALFORMED
}

// handshakeText classifies the errors that crypto/tls has only words for.
func handshakeText(text string) pb.Failure {
	for _, known := range []struct {
		words   string
		failure pb.Failure
	}{
		{"failed to parse certificate", pb.Failure_FAILURE_CERT_MALFORMED},
		{"RSA key larger than", pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED},
		{"unsupported type of public key", pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED},
		{"keys are insecure", pb.Failure_FAILURE_CERT_WEAK_KEY},
		{"unsupported protocol version", pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED},
	} {
		if strings.Contains(text, known.words) {
			return known.failure
		}
	}
	return pb.Failure_FAILURE_TLS_MALFORMED
}

// remoteAlert returns the alert that the server sent. crypto/tls gives it as a net.OpError around a
// type that it does not export, a uint8.
func remoteAlert(err error) (uint8, bool) {
	var byHand *flight.AlertError
	if errors.As(err, &byHand) {
		return byHand.Code, true
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// certificateAlerts are what servers say to a client without a certificate, since there was no alert for it
// before TLS 1.3: handshake_failure, no_certificate, bad_certificate, certificate_unknown, access_denied,
// and decode_error, which is GnuTLS's.
var certificateAlerts = []uint8{40, 41, 42, 46, 49, 50}

// alertFailure classifies an alert (RFC 8446, 6).
func alertFailure(alert uint8, certAsked bool) pb.Failure {
	switch {
	case alert == 0: // close_notify.
		return pb.Failure_FAILURE_TLS_CLOSED
	case alert == 116, certAsked && slices.Contains(certificateAlerts, alert):
		return pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
	case alert == 40, alert == 71: // handshake_failure, insufficient_security.
		return pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER
	case alert == 70: // protocol_version.
		return pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
	case alert == 112: // unrecognized_name.
		return pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME
	}
	return pb.Failure_FAILURE_TLS_ALERT
}

// exchangeFailure classifies the error of an HTTP exchange. What no type tells is a parser's.
func exchangeFailure(ctx context.Context, err error) pb.Failure {
	var gone goneError
	var errno syscall.Errno
	switch alert, isAlert := remoteAlert(err); {
	case err == nil:
		return pb.Failure_FAILURE_NONE
	case over(ctx):
		return pb.Failure_FAILURE_AGENT_DEADLINE
	case isTimeout(err):
		return pb.Failure_FAILURE_HTTP_TIMEOUT
	case errors.Is(err, errTooMuch):
		return pb.Failure_FAILURE_HTTP_TOO_LARGE
	case errors.As(err, &gone) && gone.frame == frameReset:
		return pb.Failure_FAILURE_HTTP_RESET
	case isAlert && alert == 116: // Of TLS 1.3, and later than it was waited for.
		return pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
	case errors.As(err, &gone), isAlert:
		return pb.Failure_FAILURE_HTTP_CLOSED
	}
	f := closedFailure(err, pb.Failure_FAILURE_HTTP_RESET, pb.Failure_FAILURE_HTTP_CLOSED)
	switch {
	case f != pb.Failure_FAILURE_AGENT_INTERNAL:
		return f
	case errors.As(err, &errno):
		return errnoFailure(err)
	}
	return pb.Failure_FAILURE_HTTP_MALFORMED
}
