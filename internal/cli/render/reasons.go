package render

import (
	"fmt"
	"net/netip"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// reasons are what a step about the target says beside its failures, in brief: why, where the failure's name
// does not say it, and what it takes for granted.
func reasons(s *pb.Step) (lines []string) {
	e := s.GetEvidence()
	t := e.GetTls()
	if t.GetAlert() != nil && !namesAlert(s.GetFailure()) {
		lines = append(lines, alert(t.GetAlert()))
	}
	if t.GetNegotiationOnly() && t.GetVersion() != "" && !needsWords(s) {
		lines = append(lines, fmt.Sprintf("agrees on %s with %s, and was asked no further than its first flight", Clean(t.GetVersion()), Clean(t.GetCipherSuite())))
	}
	if t.GetClientCertificateRequested() && s.GetFailure() != pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED {
		lines = append(lines, "asks for a client certificate")
	}
	if c := t.GetChain(); len(c) > 0 && c[0].GetMustStaple() && t.GetOcsp() == nil {
		lines = append(lines, "the certificate asks for a stapled OCSP response, and none was sent")
	}
	for i, c := range t.GetChain() {
		if c.GetParseError() != "" {
			lines = append(lines, fmt.Sprintf("certificate %d cannot be read: %s", i, Clean(c.GetParseError())))
		}
	}
	if names := t.GetNames(); len(names) > 1 {
		for _, n := range names {
			if n.GetSan() {
				lines = append(lines, "the certificate is for "+Clean(n.GetName()))
			}
		}
	}
	if e.GetText() != "" && needsWords(s) {
		lines = append(lines, Clean(e.GetText()))
	}
	return lines
}

// alert is an alert by number and name.
func alert(a *pb.TLSAlert) string {
	return fmt.Sprintf("alert %d (%s)", a.GetCode(), Clean(a.GetName()))
}

// namesAlert says whether a failure is one alert's own.
func namesAlert(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME || f == pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
}

// needsWords says whether a failure's name leaves open what was wrong. Deadlines and resets say no more in
// words; expectations and certificates say it in evidence of their own.
func needsWords(s *pb.Step) bool {
	switch s.GetFailure() {
	case pb.Failure_FAILURE_TLS_NOT_TLS, pb.Failure_FAILURE_TLS_MALFORMED,
		pb.Failure_FAILURE_HTTP_MALFORMED, pb.Failure_FAILURE_HTTP_TOO_LARGE, pb.Failure_FAILURE_HTTP_REDIRECT_LOOP,
		pb.Failure_FAILURE_DNS_TRANSPORT_HTTP, pb.Failure_FAILURE_DNS_TRANSPORT_QUIC,
		pb.Failure_FAILURE_DNS_MALFORMED, pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP, pb.Failure_FAILURE_DNS_UNREACHABLE, pb.Failure_FAILURE_DNS_BOGON,
		pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, pb.Failure_FAILURE_AGENT_POLICY_DENIED, pb.Failure_FAILURE_AGENT_INTERNAL:
		return true
	case pb.Failure_FAILURE_DNS_TRANSPORT_TLS: // Certificates are shown by themselves.
		return len(s.GetEvidence().GetTls().GetChain()) == 0
	case pb.Failure_FAILURE_HTTP_CLOSED: // How much of it did not come, if any of it did.
		return s.GetEvidence().GetHttp().GetStatus() != 0
	default:
	}
	// What broke on the way of a redirect, of which the exchange shows no more.
	return s.GetKind() == pb.StepKind_STEP_KIND_HTTP_EXCHANGE && len(s.GetEvidence().GetHttp().GetRedirects()) > 0 &&
		stepMark(s) == markFail && s.GetFailure() < pb.Failure_FAILURE_HTTP_TIMEOUT
}

// unprobed says how many addresses of the name an agent did not look at, if it looked at any.
func unprobed(r *pb.Result) string {
	looked := map[string]bool{}
	for _, s := range stepsOf(r, pb.Role_ROLE_TARGET, pb.StepKind_STEP_KIND_TCP_CONNECT) {
		if at, err := netip.ParseAddrPort(s.GetAddress()); err == nil {
			looked[at.Addr().String()] = true
		}
	}
	left := map[string]bool{}
	for _, s := range stepsOf(r, pb.Role_ROLE_TARGET, pb.StepKind_STEP_KIND_DNS_QUERY) {
		for _, ip := range s.GetEvidence().GetAddresses() {
			left[ip] = !looked[ip]
		}
	}
	n := 0
	for _, is := range left {
		if is {
			n++
		}
	}
	switch {
	case n == 0 || len(looked) == 0:
		return ""
	case n == 1:
		return "1 more address of the name was not looked at"
	}
	return fmt.Sprintf("%d more addresses of the name were not looked at", n)
}
