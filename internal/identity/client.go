package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrPin says that a coordinator's authority is not the one of a pin.
var ErrPin = errors.New("the coordinator's authority is not the one that the token names: this is another coordinator than the token is for, or somebody is in between")

// ClientTLS is how an enrolled agent connects, over gRPC and NATS: it shows the certificate that it has at the time,
// and takes only a coordinator of the authorities that it trusts at the time. A coordinator goes by its role, not by
// its host's name.
func (k *Keep) ClientTLS() *tls.Config {
	return agentTLS(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, _ := k.current()
		if cert == nil {
			return nil, errors.New("the agent is not enrolled")
		}
		return cert, nil
	}, func(s tls.ConnectionState) error {
		_, cas := k.current()
		return verifyCoordinator(s.PeerCertificates[0], cas, k.now())
	})
}

// PinnedTLS is how an agent connects to enrol: it shows nothing, and takes only a coordinator whose authority has the
// pin. now is the clock; nil is the system's.
func PinnedTLS(pin Pin, now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return agentTLS(nil, func(s tls.ConnectionState) error {
		for _, ca := range s.PeerCertificates[1:] {
			if pinOf(ca) == pin && ca.IsCA {
				return verifyCoordinator(s.PeerCertificates[0], []*x509.Certificate{ca}, now())
			}
		}
		return ErrPin
	})
}

type getCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

// agentTLS leaves host names unchecked and has verify look at everything else, in place of the usual way.
func agentTLS(show getCertificate, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // verify, which is called for every connection, takes its place
		GetClientCertificate:   show,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the coordinator shows no certificate")
			}
			return verify(s)
		},
	}
}

// verifyCoordinator checks that a certificate is a coordinator's, of one of the authorities, and good now.
func verifyCoordinator(cert *x509.Certificate, cas []*x509.Certificate, now time.Time) error {
	if _, err := nameIn(cert, coordinatorRole); err != nil {
		return err
	}
	err := verify(cert, cas, x509.ExtKeyUsageServerAuth, now)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && verify(cert, cas, x509.ExtKeyUsageServerAuth, cert.NotAfter) == nil {
		return fmt.Errorf("this machine's clock says %s, and the coordinator's certificate is good from %s to %s: set the clock",
			now.UTC().Format(time.RFC3339), cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	return err
}
