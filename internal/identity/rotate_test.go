package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRotation goes from one authority to another, step by step: nobody who follows is left out at any of them.
func TestRotation(t *testing.T) {
	c := newClock()
	a := open(t, c)
	old := a.Pin().Hex()
	agent := enrol(t, a, "fra-1", c)
	server := a.ServerTLS("main", nil)
	meets := func(what string, client *tls.Config, want bool) {
		t.Helper()
		_, serverErr, clientErr := shake(t, server, client)
		if (serverErr == nil && clientErr == nil) != want {
			t.Errorf("%s: %v, %v", what, serverErr, clientErr)
		}
	}
	api := func() *tls.Config { // a client who has ca.pem as it is now
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.PEM())
		return &tls.Config{RootCAs: roots, ServerName: "localhost"}
	}
	did := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	fresh, err := a.Add()
	did(err)
	if list := a.List(); len(list) != 2 || !list[0].GetInUse() || list[0].GetPin() != old || list[1].GetInUse() || list[1].GetPin() != fresh {
		t.Errorf("after one was added: %v", list)
	}
	meets("an agent that knows the old one alone", agent.ClientTLS(), true)
	did(agent.Trust(a.DER()))
	if agent.NeedsRenewal() {
		t.Error("an agent renews though the authority in use is the one that it has")
	}
	early := api()

	did(a.Use(fresh))
	if a.Pin().Hex() != fresh {
		t.Errorf("tokens have the pin %s", a.Pin().Hex())
	}
	meets("an agent with the old certificate that knows both", agent.ClientTLS(), true)
	meets("an API client that had both", early, true)
	did(agent.Trust(a.DER()))
	if !agent.NeedsRenewal() {
		t.Error("an agent does not renew though another authority is in use")
	}
	left := enrol(t, open(t, c), "ams-1", c) // somebody of another network
	meets("an agent of another network", left.ClientTLS(), false)
	if issued := renew(t, a, agent, "fra-1"); string(issued.Authority) == string(Fingerprint(a.list[1].cert)) {
		t.Error("the old authority signed")
	}
	if agent.NeedsRenewal() {
		t.Error("an agent renews again")
	}

	copied := enrolledBy(t, a, old, "old-1", c)
	meets("an agent with a certificate of the old one", copied.ClientTLS(), true)
	did(a.Drop(old))
	meets("an agent that has renewed", agent.ClientTLS(), true)
	meets("an agent with a certificate of the one that was dropped", copied.ClientTLS(), false)
	meets("an API client", api(), true)

	again, err := Open(a.dir, Options{Now: c.now})
	did(err)
	if again.Pin() != a.Pin() || len(again.List()) != 1 {
		t.Errorf("on disk: %v", again.List())
	}
	keys, err := os.ReadFile(filepath.Join(a.dir, keyFile))
	if err != nil || strings.Count(string(keys), "BEGIN") != 1 {
		t.Errorf("the key of the one that was dropped is still there: %v", err)
	}
}

// enrolledBy makes an identity that one of the authorities signed, whichever is in use.
func enrolledBy(t *testing.T, a *Authorities, pin, name string, c *clock) *Keep {
	t.Helper()
	other := &Authorities{opts: a.opts, dir: t.TempDir(), list: a.list}
	if err := other.Use(pin); err != nil {
		t.Fatal(err)
	}
	return enrol(t, other, name, c)
}

func TestWhatRotationRefuses(t *testing.T) {
	a := open(t, newClock())
	if err := a.Drop(a.Pin().Hex()); !errors.Is(err, ErrInUse) {
		t.Errorf("dropping the one in use: %v", err)
	}
	nobody := strings.Repeat("0", 64)
	if use, drop := a.Use(nobody), a.Drop(nobody); !errors.Is(use, ErrNoAuthority) || !errors.Is(drop, ErrNoAuthority) {
		t.Errorf("one that is not there: %v, %v", use, drop)
	}
	if err := a.Use(a.Pin().Hex()); err != nil {
		t.Errorf("using the one in use: %v", err)
	}
	for len(a.List()) < maxAuthorities {
		if _, err := a.Add(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Add(); !errors.Is(err, ErrAuthorities) {
		t.Errorf("one too many: %v", err)
	}
	if b, err := Open(a.dir, Options{}); err != nil || len(b.List()) != maxAuthorities || b.Pin() != a.Pin() {
		t.Errorf("on disk: %v", err)
	}
}

// TestACrashInRotation: whichever of the writes were done, what is on disk opens, as before or as after.
func TestACrashInRotation(t *testing.T) {
	for _, step := range []struct {
		what string
		do   func(a *Authorities, second string) error
	}{
		{"adding", func(a *Authorities, _ string) error { _, err := a.Add(); return err }},
		{"using", func(a *Authorities, second string) error { return a.Use(second) }},
		{"dropping", func(a *Authorities, second string) error { return a.Drop(second) }},
	} {
		t.Run(step.what, func(t *testing.T) {
			c := newClock()
			a := open(t, c)
			second, err := a.Add()
			if err != nil {
				t.Fatal(err)
			}
			bundleBefore, keysBefore := content(t, a, bundleFile), content(t, a, keyFile)
			if err := step.do(a, second); err != nil {
				t.Fatal(err)
			}
			both := append(keysBefore, content(t, a, keyFile)...) // what stands in the file of keys between the two
			for _, at := range []struct {
				what         string
				bundle, keys []byte
			}{
				{"before the bundle", bundleBefore, both},
				{"after the bundle", content(t, a, bundleFile), both},
			} {
				dir := t.TempDir()
				put(t, dir, bundleFile, at.bundle)
				put(t, dir, keyFile, at.keys)
				b, err := Open(dir, Options{Now: c.now})
				if err != nil {
					t.Errorf("%s: %v", at.what, err)
					continue
				}
				for _, one := range b.list {
					if one.key == nil {
						t.Errorf("%s: an authority without its key", at.what)
					}
				}
			}
		})
	}
}

func content(t *testing.T, a *Authorities, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
