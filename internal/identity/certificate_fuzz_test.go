package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
)

func FuzzCheckRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := NewRequest(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		public, fingerprint, err := CheckRequest(der)
		if (err == nil) != (public != nil) || (err == nil) != (len(fingerprint) == 32) {
			t.Errorf("%v, %x, %v", public, fingerprint, err)
		}
	})
}
