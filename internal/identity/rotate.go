package identity

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/file"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What Add, Use and Drop may refuse.
var (
	// ErrNoAuthority says that there is none with the pin.
	ErrNoAuthority = errors.New("there is no authority with this pin")
	// ErrInUse says that an authority signs and can't be dropped.
	ErrInUse = errors.New("the authority is in use: put another one to use first")
	// ErrAuthorities says that there are as many as there may be.
	ErrAuthorities = fmt.Errorf("there are %d authorities, the most there may be: drop one first", maxAuthorities)
)

// List tells which authorities there are, the one in use first.
func (a *Authorities) List() []*pb.Authority {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var list []*pb.Authority
	for i, one := range a.list {
		list = append(list, &pb.Authority{
			Pin:         pinOf(one.cert).Hex(),
			Certificate: string(encodeCertificates(certificatesOf(a.list[i : i+1]))),
			InUse:       i == 0,
			ExpireTime:  timestamppb.New(one.cert.NotAfter),
		})
	}
	return list
}

// Add makes a new authority, which is trusted and signs nothing yet.
func (a *Authorities) Add() (pin string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) == maxAuthorities {
		return "", ErrAuthorities
	}
	key, err := newKey()
	if err != nil {
		return "", err
	}
	fresh, err := a.newAuthority(key)
	if err != nil {
		return "", err
	}
	return pinOf(fresh.cert).Hex(), a.become(append(slices.Clone(a.list), fresh))
}

// Use has an authority sign from now on.
func (a *Authorities) Use(pin string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, err := a.find(pin)
	if err != nil || i == 0 {
		return err
	}
	if a.list[i].key == nil {
		return fmt.Errorf("%s has no key for this authority", filepath.Join(a.dir, keyFile))
	}
	rest := slices.Delete(slices.Clone(a.list), i, i+1)
	return a.become(append([]authority{a.list[i]}, rest...))
}

// Drop ends the trust in an authority, and deletes its key.
func (a *Authorities) Drop(pin string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, err := a.find(pin)
	if err != nil {
		return err
	}
	if i == 0 {
		return ErrInUse
	}
	return a.become(slices.Delete(slices.Clone(a.list), i, i+1))
}

// find is the place of an authority; mu is held.
func (a *Authorities) find(pin string) (int, error) {
	i := slices.IndexFunc(a.list, func(one authority) bool { return pinOf(one.cert).Hex() == pin })
	if i < 0 {
		return 0, ErrNoAuthority
	}
	return i, nil
}

// become writes another list, and then goes by it; mu is held. While both files are written, the file of keys has
// those of the old list and of the new one, so that a crash leaves no certificate without its key.
func (a *Authorities) become(list []authority) error {
	if err := writeKeys(filepath.Join(a.dir, keyFile), keysOf(append(slices.Clone(list), a.list...))); err != nil {
		return err
	}
	if err := file.Replace(filepath.Join(a.dir, bundleFile), encodeCertificates(certificatesOf(list))); err != nil {
		return err
	}
	a.list = list
	return writeKeys(filepath.Join(a.dir, keyFile), keysOf(list))
}

func certificatesOf(list []authority) []*x509.Certificate {
	certs := make([]*x509.Certificate, len(list))
	for i, one := range list {
		certs[i] = one.cert
	}
	return certs
}

// keysOf are the keys that are there, each once.
func keysOf(list []authority) (keys []crypto.Signer) {
	for _, one := range list {
		if one.key != nil && keyOf(one.cert, keys) == nil {
			keys = append(keys, one.key)
		}
	}
	return keys
}

// Hold calls f while the files do not change: what it reads of both is of one moment.
func (a *Authorities) Hold(f func() error) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return f()
}
