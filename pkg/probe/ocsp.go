package probe

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxStaple bounds a stapled response in bytes: it may bring a key of its own, whose size is what
// checking it costs. Ordinary ones have 500 to 2,000.
const maxStaple = 8 << 10

// revokedStatus is the status of a certificate that was revoked.
const revokedStatus = "revoked"

// stapled is a stapled OCSP response (RFC 6066, 8; RFC 6960) and what it is about.
type stapled struct {
	der          []byte
	leaf, issuer *x509.Certificate // The issuer is nil if nobody knows it.
	now          time.Time
	turns        []time.Time // When the judgement may change.
}

// judge reads the response and says whether it can be relied on, at the coordinator's time.
func (s *stapled) judge() *pb.OCSP {
	if len(s.der) > maxStaple {
		return &pb.OCSP{Problem: fmt.Sprintf("a response of %d bytes is not looked at", len(s.der))}
	}
	// Without the issuer the status can be read, whoever signed it.
	r, err := ocsp.ParseResponseForCert(s.der, s.leaf, nil)
	if err != nil {
		out := &pb.OCSP{Problem: clean(err.Error(), maxNameBytes)}
		var own ocsp.ResponseError
		if errors.As(err, &own) {
			out.Status = own.Status.String()
		}
		return out
	}
	out := &pb.OCSP{ThisUpdate: timestamppb.New(r.ThisUpdate)}
	switch r.Status {
	case ocsp.Good:
		out.Status = "good"
	case ocsp.Revoked:
		out.Status, out.RevokedAt = revokedStatus, timestamppb.New(r.RevokedAt)
	default:
		out.Status = "unknown"
	}
	if !r.NextUpdate.IsZero() {
		out.NextUpdate = timestamppb.New(r.NextUpdate)
	}
	out.Problem = clean(s.problem(r), maxNameBytes)
	return out
}

// problem says why a response cannot be relied on, or "".
func (s *stapled) problem(r *ocsp.Response) string {
	s.turns = append(s.turns, r.ThisUpdate, r.NextUpdate)
	if s.issuer == nil {
		return "the issuer's certificate is not known, so nobody can say who signed it"
	}
	if err := s.signed(r); err != nil {
		return err.Error()
	}
	switch {
	case s.now.Before(r.ThisUpdate):
		return "it is not valid before " + r.ThisUpdate.UTC().Format(time.RFC3339)
	case !r.NextUpdate.IsZero() && s.now.After(r.NextUpdate):
		return "it was valid until " + r.NextUpdate.UTC().Format(time.RFC3339)
	}
	return ""
}

// signed checks that the issuer signed a response, or a responder that it delegated that to
// (RFC 6960, 4.2.2.2).
func (s *stapled) signed(r *ocsp.Response) error {
	responder := r.Certificate
	if responder == nil || bytes.Equal(responder.Raw, s.issuer.Raw) {
		if err := r.CheckSignatureFrom(s.issuer); err != nil {
			return fmt.Errorf("it is not signed by the issuer: %w", err)
		}
		return nil
	}
	s.turns = append(s.turns, responder.NotBefore, responder.NotAfter)
	switch {
	case !bytes.Equal(responder.RawIssuer, s.issuer.RawSubject) || checkSignature(s.issuer, responder) != proven:
		return fmt.Errorf("%q, which signed it, is not the issuer's responder", responder.Subject)
	case !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return fmt.Errorf("%q, which signed it, is no responder (extended key usage)", responder.Subject)
	case outside(responder, s.now):
		return fmt.Errorf("the responder's certificate %q is valid from %s to %s only",
			responder.Subject, responder.NotBefore.UTC().Format(time.DateOnly), responder.NotAfter.UTC().Format(time.DateOnly))
	}
	return nil // The library has checked the responder's signature.
}
