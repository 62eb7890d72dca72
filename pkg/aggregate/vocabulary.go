package aggregate

import (
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// ShortFailure is the form of f that people are shown, such as "tcp_timeout".
func ShortFailure(f pb.Failure) string { return short(f.String(), "FAILURE_") }

// ShortCode is the form of c that people are shown, such as "regional_block".
func ShortCode(c pb.FindingCode) string { return short(c.String(), "FINDING_CODE_") }

// ShortBlock is the form of b that people are shown, such as "reject_rst".
func ShortBlock(b pb.BlockKind) string { return short(b.String(), "BLOCK_KIND_") }

// ShortBlame is the form of b that people are shown, such as "path".
func ShortBlame(b pb.Blame) string { return short(b.String(), "BLAME_") }

// ShortConfidence is the form of c that people are shown, such as "high".
func ShortConfidence(c pb.Confidence) string { return short(c.String(), "CONFIDENCE_") }

// ShortOutcome is the form of o that people are shown, such as "inconclusive".
func ShortOutcome(o pb.Outcome) string { return short(o.String(), "OUTCOME_") }

// ShortReachability is the form of r that people are shown, such as "blocked".
func ShortReachability(r pb.Reachability) string { return short(r.String(), "REACHABILITY_") }

func short(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

// severityOf is the severity that a code has unless its rule says otherwise.
func severityOf(c pb.FindingCode) pb.Severity {
	switch c {
	case pb.FindingCode_FINDING_CODE_UNSPECIFIED:
		return pb.Severity_SEVERITY_UNSPECIFIED
	case pb.FindingCode_FINDING_CODE_ANSWERS_GEO,
		pb.FindingCode_FINDING_CODE_PROPAGATION,
		pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER:
		return pb.Severity_SEVERITY_INFO
	case pb.FindingCode_FINDING_CODE_ANSWERS_STALE,
		pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED,
		pb.FindingCode_FINDING_CODE_FAMILY_BROKEN,
		pb.FindingCode_FINDING_CODE_AGENTS_DIFFER,
		pb.FindingCode_FINDING_CODE_VANTAGE_FAULT,
		pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE:
		return pb.Severity_SEVERITY_WARN
	case pb.FindingCode_FINDING_CODE_UNRESOLVABLE,
		pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE,
		pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED,
		pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT,
		pb.FindingCode_FINDING_CODE_LAME_DELEGATION,
		pb.FindingCode_FINDING_CODE_CNAME_BROKEN,
		pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS,
		pb.FindingCode_FINDING_CODE_BOGON_ANSWER,
		pb.FindingCode_FINDING_CODE_NO_IPV4,
		pb.FindingCode_FINDING_CODE_TARGET_DOWN,
		pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK,
		pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE,
		pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE,
		pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM,
		pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH,
		pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH,
		pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE,
		pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR,
		pb.FindingCode_FINDING_CODE_EDGE_ERROR,
		pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED:
		return pb.Severity_SEVERITY_ERROR
	}
	return pb.Severity_SEVERITY_UNSPECIFIED
}

// stageOf is the stage that a failure belongs to; the contract numbers failures by stage.
func stageOf(f pb.Failure) pb.Stage {
	switch {
	case f < pb.Failure_FAILURE_AGENT_POLICY_DENIED:
		return pb.Stage_STAGE_UNSPECIFIED
	case f <= pb.Failure_FAILURE_AGENT_INTERNAL:
		return pb.Stage_STAGE_AGENT
	case f <= pb.Failure_FAILURE_DNS_TRANSPORT_QUIC:
		return pb.Stage_STAGE_DNS
	case f <= pb.Failure_FAILURE_TCP_CLOSED_EARLY:
		return pb.Stage_STAGE_TCP
	case f <= pb.Failure_FAILURE_TLS_MALFORMED:
		return pb.Stage_STAGE_TLS
	case f <= pb.Failure_FAILURE_CERT_MALFORMED:
		return pb.Stage_STAGE_CERTIFICATE
	case f <= pb.Failure_FAILURE_HTTP_BODY_MISMATCH:
		return pb.Stage_STAGE_HTTP
	}
	return pb.Stage_STAGE_UNSPECIFIED
}

// blockOf says how the way is shut, as far as the step alone shows it.
func blockOf(s *pb.Step) pb.BlockKind {
	switch s.GetFailure() {
	case pb.Failure_FAILURE_TCP_TIMEOUT:
		return pb.BlockKind_BLOCK_KIND_DROP
	case pb.Failure_FAILURE_TCP_REFUSED:
		return pb.BlockKind_BLOCK_KIND_REJECT_RST
	case pb.Failure_FAILURE_TCP_HOST_UNREACHABLE,
		pb.Failure_FAILURE_TCP_NET_UNREACHABLE,
		pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED,
		pb.Failure_FAILURE_TCP_PORT_UNREACHABLE:
		return pb.BlockKind_BLOCK_KIND_REJECT_ICMP
	case pb.Failure_FAILURE_TCP_RESET, pb.Failure_FAILURE_TCP_CLOSED_EARLY:
		return pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT
	case pb.Failure_FAILURE_TLS_RESET, pb.Failure_FAILURE_TLS_CLOSED:
		if s.GetEvidence().GetBytesRead() > 0 {
			return pb.BlockKind_BLOCK_KIND_UNSPECIFIED
		}
		return pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT
	case pb.Failure_FAILURE_HTTP_STATUS:
		if denied(s) {
			return pb.BlockKind_BLOCK_KIND_HTTP_DENY
		}
		return pb.BlockKind_BLOCK_KIND_UNSPECIFIED
	default:
		return pb.BlockKind_BLOCK_KIND_UNSPECIFIED
	}
}

// silent says whether one lost packet could explain the failure, so that it takes several attempts
// to mean something (rule 1). A DNS timeout has tried UDP and TCP by its definition.
func silent(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_TCP_TIMEOUT || f == pb.Failure_FAILURE_TLS_TIMEOUT
}

// answered says whether bytes of the target explain the failure, so that no control is needed.
func answered(f pb.Failure) bool {
	switch f {
	case pb.Failure_FAILURE_TLS_NOT_TLS,
		pb.Failure_FAILURE_TLS_ALERT,
		pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED,
		pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER,
		pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME,
		pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED,
		pb.Failure_FAILURE_TLS_MALFORMED,
		pb.Failure_FAILURE_HTTP_MALFORMED,
		pb.Failure_FAILURE_HTTP_TOO_LARGE,
		pb.Failure_FAILURE_HTTP_REDIRECT_LOOP,
		pb.Failure_FAILURE_HTTP_STATUS,
		pb.Failure_FAILURE_HTTP_BODY_MISMATCH:
		return true
	default:
		return stageOf(f) == pb.Stage_STAGE_CERTIFICATE || wrongData(f)
	}
}

// aboutName says whether a DNS failure is an answer about the name: it does not exist, or has nothing
// of that type.
func aboutName(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_DNS_NXDOMAIN || f == pb.Failure_FAILURE_DNS_NODATA
}

// carrier says whether a DNS failure is about what carries the query: TLS, HTTP or QUIC.
func carrier(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_DNS_TRANSPORT_TLS || f == pb.Failure_FAILURE_DNS_TRANSPORT_HTTP || f == pb.Failure_FAILURE_DNS_TRANSPORT_QUIC
}

// wrongData says whether a DNS failure is about the data that came: it is there, and it is wrong.
func wrongData(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_DNS_BOGON || f == pb.Failure_FAILURE_DNS_DNSSEC_BOGUS ||
		f == pb.Failure_FAILURE_DNS_CNAME_LOOP || f == pb.Failure_FAILURE_DNS_CNAME_BROKEN
}

// resolutionCode is the finding that a name's failure is, or otherwise where there is none for it.
func resolutionCode(f pb.Failure, otherwise pb.FindingCode) pb.FindingCode {
	switch f {
	case pb.Failure_FAILURE_DNS_BOGON:
		return pb.FindingCode_FINDING_CODE_BOGON_ANSWER
	case pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS
	case pb.Failure_FAILURE_DNS_CNAME_LOOP, pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return pb.FindingCode_FINDING_CODE_CNAME_BROKEN
	default:
		return otherwise
	}
}

// minorCert says whether a certificate failure is a warning (rule 19, without a profile).
func minorCert(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_CERT_CHAIN_ORDER ||
		f == pb.Failure_FAILURE_CERT_WEAK_KEY ||
		f == pb.Failure_FAILURE_CERT_WEAK_SIGNATURE
}
