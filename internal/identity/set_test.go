package identity

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func opened(t *testing.T, dir string) *Authorities {
	t.Helper()
	a, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func setOf(t *testing.T, a *Authorities) []byte {
	t.Helper()
	set, err := a.Set()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestASetIsAdopted has one coordinator follow another through a rotation, and start again after each step. An agent that is
// told of it trusts what has the same digest.
func TestASetIsAdopted(t *testing.T) {
	one, dir := opened(t, t.TempDir()), t.TempDir()
	list, err := parseSet(setOf(t, one))
	if err != nil {
		t.Fatal(err)
	}
	other := &Authorities{opts: one.opts, dir: dir}
	if err := other.become(list); err != nil {
		t.Fatal(err)
	}
	agent := &Keep{dir: t.TempDir()}
	old, fresh := one.Pin().Hex(), ""
	for _, step := range []struct {
		says string
		do   func() error
	}{
		{"one is added", func() (err error) { fresh, err = one.Add(); return err }},
		{"it signs", func() error { return one.Use(fresh) }},
		{"the old one is dropped", func() error { return one.Drop(old) }},
	} {
		before := one.Digest()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if err := agent.Trust(one.DER()); err != nil || bytes.Equal(before, one.Digest()) || !bytes.Equal(agent.Digest(), one.Digest()) {
			t.Errorf("%s: the digest was %x, is %x, and the agent's is %x (%v)", step.says, before, one.Digest(), agent.Digest(), err)
		}
		for _, want := range []bool{true, false} { // what is there already changes nothing
			if changed, err := other.Adopt(setOf(t, one)); err != nil || changed != want {
				t.Errorf("%s: changed %v, not %v: %v", step.says, changed, want, err)
			}
		}
		if other = opened(t, dir); !bytes.Equal(setOf(t, other), setOf(t, one)) {
			t.Errorf("%s: the other one has another set after a start", step.says)
		}
	}
}

func TestSetsThatAreNotAdopted(t *testing.T) {
	a, stranger := opened(t, t.TempDir()), opened(t, t.TempDir())
	whole := setOf(t, a)
	keys := bytes.Index(whole, []byte("-----BEGIN PRIVATE KEY"))
	certs, key := whole[:keys], whole[keys:]
	theirs := setOf(t, stranger)
	theirKey := theirs[bytes.Index(theirs, []byte("-----BEGIN PRIVATE KEY")):]
	for _, c := range []struct {
		says string
		set  []byte
		want string
	}{
		{"of nothing", nil, "0 certificates"},
		{"that is no PEM", []byte("x"), "something else"},
		{"that is too large", bytes.Repeat([]byte("\n"), maxFile+1), "at most"},
		{"without a key", certs, "has no key"},
		{"without a certificate", key, "0 certificates"},
		{"with one of them twice", bytes.Join([][]byte{certs, certs, key}, nil), "twice"},
		{"with more than there may be", bytes.Join([][]byte{bytes.Repeat(certs, maxAuthorities+1), key}, nil), "more than 16"},
		{"with a key that is nobody's", append(bytes.Clone(whole), theirKey...), "no authority's"},
		{"of another network", theirs, ErrForeign.Error()},
	} {
		changed, err := a.Adopt(c.set)
		if changed || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a set %s: changed %v, %v", c.says, changed, err)
		}
		if !bytes.Equal(setOf(t, opened(t, a.dir)), whole) {
			t.Fatalf("a set %s has changed the files", c.says)
		}
	}
	if _, err := a.Adopt(theirs); !errors.Is(err, ErrForeign) {
		t.Errorf("of another network: %v", err)
	}
}

// TestKeysOfTwoLists opens what a crash leaves while one full list makes way for another: more keys than authorities.
func TestKeysOfTwoLists(t *testing.T) {
	a, other := opened(t, t.TempDir()), opened(t, t.TempDir())
	for range maxAuthorities - 1 {
		for _, one := range []*Authorities{a, other} {
			if _, err := one.Add(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := writeKeys(a.dir+"/"+keyFile, keysOf(append(a.list, other.list...))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(setOf(t, opened(t, a.dir)), setOf(t, a)) {
		t.Error("it is another set")
	}
}
