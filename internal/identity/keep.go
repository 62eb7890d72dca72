package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/file"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const agentKeyFile, agentCertFile, pendingFile = "agent.key", "agent.pem", "pending.key"

// Keep is an agent's identity on disk: its key, its certificate, and the authorities that it trusts, in a directory
// of their own. It is safe for concurrent use.
type Keep struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	cert   *tls.Certificate // nil: not enrolled
	stored time.Time        // when cert came; zero: before this process
	name   string
	cas    []*x509.Certificate
}

// OpenKeep reads an identity, or makes the directory for one. now is the clock; nil is the system's.
func OpenKeep(dir string, now func() time.Time) (*Keep, error) {
	if now == nil {
		now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	k := &Keep{dir: dir, now: now}
	certs, err := readCertificates(k.path(agentCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := k.loadKey(certs[0])
	if err != nil {
		return nil, err
	}
	cas, err := readCertificates(k.path(bundleFile))
	if err != nil {
		return nil, err
	}
	return k, k.use(certs[0], key, cas)
}

func (k *Keep) path(name string) string { return filepath.Join(k.dir, name) }

// loadKey is the key of the certificate. A crash while a new one was stored has left its key under the other name.
func (k *Keep) loadKey(cert *x509.Certificate) (crypto.Signer, error) {
	for _, name := range []string{agentKeyFile, pendingFile} {
		keys, err := readKeys(k.path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		key := keyOf(cert, keys)
		if key == nil {
			continue
		}
		if name == pendingFile {
			return key, k.settle()
		}
		return key, nil
	}
	return nil, fmt.Errorf("%s: there is no key for %s", k.dir, agentCertFile)
}

// settle makes the pending key the agent's.
func (k *Keep) settle() error {
	if err := os.Rename(k.path(pendingFile), k.path(agentKeyFile)); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return file.SyncDir(k.dir)
}

// use has connections show a certificate from now on.
func (k *Keep) use(cert *x509.Certificate, key crypto.Signer, cas []*x509.Certificate) error {
	name, err := nameIn(cert, agentRole)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cert = &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	k.name, k.cas = name, cas
	return nil
}

func (k *Keep) current() (*tls.Certificate, []*x509.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cert, k.cas
}

// Name is the agent's name; "" before it is enrolled.
func (k *Keep) Name() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.name
}

// Expires is when the certificate ends; zero before it is enrolled.
func (k *Keep) Expires() time.Time {
	if cert, _ := k.current(); cert != nil {
		return cert.Leaf.NotAfter
	}
	return time.Time{}
}

// RenewAt is when the certificate is to be renewed: two thirds of its life, but not before a quarter of it has passed
// here, however wrong this machine's clock is. Zero before it is enrolled.
func (k *Keep) RenewAt() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cert == nil {
		return time.Time{}
	}
	at := renewAt(k.cert.Leaf)
	if soonest := k.soonest(); soonest.After(at) {
		return soonest
	}
	return at
}

// soonest is when a certificate that came to this process may be renewed at all.
func (k *Keep) soonest() time.Time {
	if k.stored.IsZero() {
		return k.stored
	}
	return k.stored.Add(k.cert.Leaf.NotAfter.Sub(k.cert.Leaf.NotBefore) / 4)
}

// MayRenew says whether the certificate may be renewed, where a coordinator does not take it any more: by this machine's
// clock, which may be behind, it has not ended.
func (k *Keep) MayRenew() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cert != nil && !k.now().Before(k.soonest())
}

// NeedsRenewal says whether there is a certificate and its time to be renewed has come: two thirds of its life, or
// another authority signs now, and the one that signed it may soon be dropped.
func (k *Keep) NeedsRenewal() bool {
	cert, _ := k.current()
	return cert != nil && (!k.now().Before(renewAt(cert.Leaf)) || k.Replaced())
}

// Replaced says whether another authority signs now than the one that signed the certificate.
func (k *Keep) Replaced() bool {
	cert, cas := k.current()
	return cert != nil && cert.Leaf.CheckSignatureFrom(cas[0]) != nil
}

// Request is a certificate request for the next key. The key is on disk before it is sent, and the same one is asked
// for until Store has its certificate: an answer that is lost is no identity that is lost.
func (k *Keep) Request() ([]byte, error) {
	keys, err := readKeys(k.path(pendingFile))
	if errors.Is(err, fs.ErrNotExist) {
		var key crypto.Signer
		if key, err = newKey(); err != nil {
			return nil, err
		}
		keys = []crypto.Signer{key}
		err = writeKeys(k.path(pendingFile), keys)
	}
	if err != nil {
		return nil, err
	}
	return NewRequest(keys[0])
}

// Store keeps the answer to a Request and uses it from now on. It must be for the key that was asked for, of the
// authorities that come with it, and of the name that the agent has, if it has one.
func (k *Keep) Store(c *pb.AgentCertificate) error {
	chain, err := parseCertificates(c.GetChain())
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	cas, err := parseAuthorities(c.GetAuthorities())
	if err != nil {
		return err
	}
	keys, err := readKeys(k.path(pendingFile))
	if err != nil {
		return err
	}
	cert, key := chain[0], keyOf(chain[0], keys)
	if key == nil {
		return errors.New("identity: the certificate is not for the key that was asked for")
	}
	// Its times are the coordinator's business: this machine's clock may be wrong.
	if err := verify(cert, cas, x509.ExtKeyUsageClientAuth, cert.NotAfter); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if name, err := nameIn(cert, agentRole); err != nil {
		return fmt.Errorf("identity: %w", err)
	} else if known := k.Name(); known != "" && name != known {
		return fmt.Errorf("identity: a certificate of agent %q for agent %q", name, known)
	}
	if err := k.write(cert, cas); err != nil {
		return err
	}
	if err := k.use(cert, key, cas); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stored = k.now()
	return nil
}

// write makes a certificate durable; loadKey ends what a crash in between leaves undone.
func (k *Keep) write(cert *x509.Certificate, cas []*x509.Certificate) error {
	if err := file.Replace(k.path(bundleFile), encodeCertificates(cas)); err != nil {
		return err
	}
	if err := file.Replace(k.path(agentCertFile), encodeCertificates([]*x509.Certificate{cert})); err != nil {
		return err
	}
	return k.settle()
}

// Digest tells one list of authorities that are trusted from another: a Beat's authorities.
func (k *Keep) Digest() []byte {
	_, cas := k.current()
	return digest(cas)
}

// Trust replaces the authorities that are trusted, if they are others than now.
func (k *Keep) Trust(authorities [][]byte) error {
	cas, err := parseAuthorities(authorities)
	if err != nil {
		return err
	}
	_, known := k.current()
	if bytes.Equal(encodeCertificates(cas), encodeCertificates(known)) {
		return nil
	}
	if err := file.Replace(k.path(bundleFile), encodeCertificates(cas)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cas = cas
	return nil
}

func parseAuthorities(list [][]byte) ([]*x509.Certificate, error) {
	cas, err := parseCertificates(list)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	for _, ca := range cas {
		if !ca.IsCA {
			return nil, errors.New("authorities: one of them is none")
		}
	}
	return cas, nil
}
