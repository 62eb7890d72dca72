package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// ErrForeign says that a set has no authority in common with the one that it would replace: it is another network's, or
// this one was away while all of them were replaced.
var ErrForeign = errors.New("it has none of the authorities that are here")

// Set is all authorities as one value, with their keys, the one that signs first: what several coordinators agree on.
// Equal lists have equal sets.
func (a *Authorities) Set() ([]byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return encodeSet(a.list)
}

func encodeSet(list []authority) ([]byte, error) {
	keys, err := encodeKeys(keysOf(list))
	return append(encodeCertificates(certificatesOf(list)), keys...), err
}

// Adopt goes by another coordinator's Set from now on, in the files too, and says whether it is another one than
// before. One that is damaged, or that is ErrForeign, changes nothing.
func (a *Authorities) Adopt(set []byte) (changed bool, err error) {
	list, err := parseSet(set)
	if err != nil {
		return false, fmt.Errorf("a set of authorities: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	is, err := encodeSet(a.list)
	if err != nil {
		return false, err
	}
	if next, err := encodeSet(list); err != nil || bytes.Equal(is, next) {
		return false, err
	}
	known := func(one authority) bool {
		return slices.ContainsFunc(a.list, func(is authority) bool { return is.cert.Equal(one.cert) })
	}
	if !slices.ContainsFunc(list, known) {
		return false, fmt.Errorf("a set of authorities: %w", ErrForeign)
	}
	return true, a.become(list)
}

// parseSet reads a Set: authorities that differ, the first of which can sign, and no key but theirs.
func parseSet(set []byte) ([]authority, error) {
	if len(set) > maxFile {
		return nil, fmt.Errorf("%d bytes; at most %d", len(set), maxFile)
	}
	blocks, err := blocksIn(set, map[string]int{certificateBlock: maxAuthorities, keyBlock: maxAuthorities})
	if err != nil {
		return nil, err
	}
	certs, err := parseAuthorities(blocks[certificateBlock])
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(blocks[keyBlock])
	if err != nil {
		return nil, err
	}
	var list []authority
	for i, cert := range certs {
		if slices.ContainsFunc(certs[:i], func(c *x509.Certificate) bool { return pinOf(c) == pinOf(cert) }) {
			return nil, errors.New("one of them is there twice")
		}
		list = append(list, authority{cert, keyOf(cert, keys)})
	}
	switch {
	case list[0].key == nil:
		return nil, errors.New("the first one has no key")
	case len(keysOf(list)) != len(keys):
		return nil, errors.New("one of the keys is no authority's")
	}
	return list, nil
}
