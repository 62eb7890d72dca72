package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

// key is one of 32 bytes n.
func key(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 32) }

func inBase64(n int) string { return base64.StdEncoding.EncodeToString(key(n)) }

// readKeys is what a file of keys says now.
func readKeys(path string) ([][]byte, error) {
	w, err := OpenKeys(path)
	if err != nil {
		return nil, err
	}
	keys, _ := w.Current()
	return keys, nil
}

func TestOpenKeys(t *testing.T) {
	var nine []string
	for n := range 9 {
		nine = append(nine, inBase64(n))
	}
	for _, tc := range []struct {
		sentence, text string
		want           [][]byte
		err            string
	}{
		{"one", inBase64(1), [][]byte{key(1)}, ""},
		{"one as base64 writes it", inBase64(1) + "\n", [][]byte{key(1)}, ""},
		{"hexadecimal", hex.EncodeToString(key(0xab)), [][]byte{key(0xab)}, ""},
		{"hexadecimal in capitals", strings.Repeat("AB", 32), [][]byte{key(0xab)}, ""},
		{"two, and what they are for", "# of 2026\r\n" + inBase64(2) + " # the new one\r\n\r\n" + inBase64(1) + "\r\n", [][]byte{key(2), key(1)}, ""},
		{"as many as may be", strings.Join(nine[:8], "\n"), [][]byte{key(0), key(1), key(2), key(3), key(4), key(5), key(6), key(7)}, ""},
		{"one too many", strings.Join(nine, "\n"), nil, "line 9: more than 8 keys"},
		{"an empty file", "", nil, "no key in it: make one with head -c 32 /dev/urandom | base64"},
		{"nothing but comments", "# none\n", nil, "no key in it"},
		{"a key that was cut", "#\n" + inBase64(1)[:40], nil, "line 2: a key of 30 bytes, not 32"},
		{"a key without its last character", inBase64(1)[:43], nil, "line 1: no key: it must be base64"},
		{"a key of AES-128", base64.StdEncoding.EncodeToString(key(1)[:16]), nil, "line 1: a key of 16 bytes, not 32"},
		{"63 digits", strings.Repeat("AB", 32)[:63], nil, "line 1: no key"},
		{"a word", "secret!", nil, "line 1: no key"},
		{"base64 for URLs", strings.Repeat("_", 43) + "=", nil, "line 1: no key"},
		{"one twice", inBase64(1) + "\n\n" + hex.EncodeToString(key(1)), nil, "line 3: the same key as in line 1"},
		{"two in a line", inBase64(1) + " " + inBase64(2), nil, "line 1: no key"},
		{"a file of something else", strings.Repeat("x", maxKeyFile+1), nil, "larger than 16 KiB"},
	} {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readKeys(path)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.sentence, diff)
		}
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), path+": "+tc.err)) {
			t.Errorf("%s: %v, not %q", tc.sentence, err, tc.err)
		}
	}
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := readKeys(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte(inBase64(1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add(inBase64(1) + " # first\n" + hex.EncodeToString(key(2)))
	f.Add("#\r\n\xff")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys(text)
		if err != nil {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); len(line) > 30 && strings.Contains(err.Error(), line) {
					t.Errorf("%q says what stands there", err)
				}
			}
			return
		}
		if err := checkKeys(keys); err != nil {
			t.Error(err)
		}
		var again []string
		for _, key := range keys {
			again = append(again, base64.StdEncoding.EncodeToString(key))
		}
		if back, err := parseKeys(strings.Join(again, "\n")); err != nil || !slices.EqualFunc(keys, back, bytes.Equal) {
			t.Errorf("%x comes back as %x, %v", keys, back, err)
		}
	})
}

// TestRekey: a key is changed as the manual says, and all hear each other after every step; who has only the old one is
// let in as long as it is there.
func TestRekey(t *testing.T) {
	t.Parallel()
	former, next := keyOf(t), key(2)
	a, b, c := three(t, func(*Options) {})
	watched := watch(t, a, b, c)
	for n, step := range [][][]byte{{former, next}, {next, former}, {next}} {
		for _, each := range []*coordinator{a, b, c} {
			if err := each.Rekey(step); err != nil {
				t.Fatal(err)
			}
			news := fmt.Sprint("step ", n)
			if err := each.Tell([]byte(news)); err != nil { // between two of which one has taken the step
				t.Fatal(err)
			}
			for _, other := range []*coordinator{a, b, c} {
				other.hears(t, news, each.members.own)
			}
		}
	}
	for _, each := range []*coordinator{a, b, c} {
		for _, wrong := range []string{"it has other keys", "decrypt the message from=" + a.Addr().String(), "decrypt the message from=" + b.Addr().String(), "decrypt the message from=" + c.Addr().String()} {
			if strings.Contains(each.log.String(), wrong) {
				t.Errorf("something could not be read:\n%s", each.log)
			}
		}
	}
	late := start(t, options(t, "late", a))
	late.log.has(t, "it has other keys")
	opts := options(t, "new", a)
	opts.Keys = [][]byte{next}
	start(t, opts).sees(t, "a alive step 2", "b alive step 2", "c alive step 2", "new alive meta of new")
	late.sees(t, "late alive meta of late")
	if gone := watched(); gone != "" {
		t.Errorf("seen as not alive: %s", gone)
	}
}

// hears waits until a coordinator hears something of another.
func (c *coordinator) hears(t *testing.T, news, from string) {
	t.Helper()
	for deadline := time.After(patience); ; {
		all, changed := c.Members()
		if slices.ContainsFunc(all, func(m Member) bool { return m.Name == from && string(m.Meta) == news }) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q of %s is not heard:\n%s", news, from, c.log)
		}
	}
}

// watch notes who is ever seen as not alive, until it is asked.
func watch(t *testing.T, all ...*coordinator) func() string {
	var group sync.WaitGroup
	var mu sync.Mutex
	var gone []string
	done := make(chan struct{})
	end := sync.OnceFunc(func() { close(done); group.Wait() })
	t.Cleanup(end)
	for _, c := range all {
		group.Go(func() {
			for {
				members, changed := c.Members()
				for _, m := range members {
					if m.State != Alive {
						mu.Lock()
						gone = append(gone, fmt.Sprintf("%s %s", m.Name, m.State))
						mu.Unlock()
					}
				}
				select {
				case <-changed:
				case <-done:
					return
				}
			}
		})
	}
	return func() string {
		end()
		return strings.Join(gone, ", ")
	}
}

func TestRekeyReplacesAll(t *testing.T) {
	t.Parallel()
	a := start(t, options(t, "a"))
	opts := options(t, "b", a)
	opts.tune = soon // It sends much.
	start(t, opts).sees(t, aliveA, aliveB)
	own := keyOf(t)
	for _, tc := range []struct {
		sentence string
		keys     [][]byte
	}{
		{"more", [][]byte{own, key(1), key(2), key(3)}},
		{"one of the middle goes", [][]byte{own, key(1), key(3)}},
		{"another is the first", [][]byte{key(3), own, key(1)}},
		{"those behind go", [][]byte{key(3)}},
		{"all others", [][]byte{key(4), key(5), own}},
		{"one twice", [][]byte{own, own, key(6)}},
		{"back", [][]byte{own}},
	} {
		if err := a.Rekey(tc.keys); err != nil {
			t.Fatal(err)
		}
		got := a.keys.GetKeys()
		if !bytes.Equal(got[0], tc.keys[0]) {
			t.Errorf("%s: %x encrypts", tc.sentence, got[0])
		}
		want := slices.CompactFunc(slices.SortedFunc(slices.Values(tc.keys), bytes.Compare), bytes.Equal)
		if diff := cmp.Diff(want, slices.SortedFunc(slices.Values(got), bytes.Compare)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.sentence, diff)
		}
	}
	for _, bad := range [][][]byte{nil, {key(1)[:16]}, make([][]byte, 9)} {
		if err := a.Rekey(bad); err == nil {
			t.Errorf("%x are taken", bad)
		}
	}
	open := options(t, "open")
	open.Keys = nil
	if err := start(t, open).Rekey([][]byte{key(1)}); err == nil || !strings.Contains(err.Error(), "start it again with them") {
		t.Errorf("keys where there were none: %v", err)
	}
}

// TestRekeyUnderLoad is for the race detector: keys go while messages are decrypted with those that stand behind them.
func TestRekeyUnderLoad(t *testing.T) {
	t.Parallel()
	a, b, c := three(t, func(*Options) {})
	watched := watch(t, a, b, c)
	own := keyOf(t)
	done := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for to := (memberlist.Address{Addr: a.Addr().String()}); ; {
			select {
			case <-done:
				return
			default:
				_ = b.list.SendToAddress(to, []byte("load"))
			}
		}
	})
	rekey := func(c *coordinator, keys ...[]byte) {
		t.Helper()
		if err := c.Rekey(keys); err != nil {
			t.Error(err)
		}
	}
	rekey(a, own, key(9))
	rekey(c, own, key(9))
	rekey(b, key(9), own)
	for range 500 {
		rekey(a, own, key(1))
		rekey(a, own, key(1), key(9))
		rekey(a, own, key(9)) // 9 stands behind 1, which goes.
	}
	close(done)
	load.Wait()
	if err := b.Tell([]byte("news")); err != nil {
		t.Fatal(err)
	}
	for _, each := range []*coordinator{a, c} {
		each.hears(t, "news", "b")
	}
	if gone := watched(); gone != "" {
		t.Errorf("seen as not alive: %s", gone)
	}
}
