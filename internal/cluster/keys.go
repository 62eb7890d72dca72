package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

const (
	// keySize is AES-256's, in bytes, and maxKeys as many as a file may have.
	keySize, maxKeys = 32, 8
	// maxKeyFile bounds a file of keys, in bytes.
	maxKeyFile = 16 << 10
)

// OpenKeys reads a file of 1 to 8 keys: one a line, 32 bytes each, in base64 as `head -c 32 /dev/urandom | base64` writes
// it, or as 64 hexadecimal digits. What follows a # is a comment. Nobody but the file's owner may read it. An error says
// which line is wrong, never what stands there.
func OpenKeys(path string) (*file.Watched[[][]byte], error) {
	return file.Watch(path, maxKeyFile, func(data []byte, _ [][]byte) ([][]byte, error) {
		if err := file.Private(path); err != nil {
			return nil, err
		}
		keys, err := parseKeys(string(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return keys, nil
	})
}

// parseKeys reads what a file of keys holds.
func parseKeys(text string) (keys [][]byte, err error) {
	at := map[string]int{} // the line that each key is in
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if first, again := at[string(key)]; again {
			return nil, fmt.Errorf("line %d: the same key as in line %d: remove one of them", number, first)
		}
		if len(keys) == maxKeys {
			return nil, fmt.Errorf("line %d: more than %d keys: remove those that nobody uses any more", number, maxKeys)
		}
		at[string(key)], keys = number, append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it: make one with head -c 32 /dev/urandom | base64")
	}
	return keys, nil
}

func parseKey(text string) ([]byte, error) {
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != keySize { // 64 hexadecimal digits are base64 too, of 48 bytes.
		key, err = base64.StdEncoding.Strict().DecodeString(text)
	}
	if err != nil {
		return nil, errors.New("no key: it must be base64, as head -c 32 /dev/urandom | base64 writes it, or 64 hexadecimal digits; is it whole?")
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("a key of %d bytes, not %d: make one with head -c 32 /dev/urandom | base64", len(key), keySize)
	}
	return key, nil
}

// checkKeys says what is wrong with keys, by their places.
func checkKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("gossip: %d keys, not 1 to %d", len(keys), maxKeys)
	}
	for i, key := range keys {
		if len(key) != keySize {
			return fmt.Errorf("gossip: key %d has %d bytes, not %d", i+1, len(key), keySize)
		}
	}
	return nil
}

// Rekey replaces the keys while gossip goes on: the first encrypts, the others decrypt too. To change the key of a whole
// network nobody may encrypt with what another cannot decrypt: first add the new one as the second everywhere, then make
// it the first everywhere, then drop the old one.
func (c *Cluster) Rekey(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errStopped
	}
	if c.keys == nil {
		return errors.New("gossip was started without keys: start it again with them")
	}
	keys = cloneKeys(keys)
	wanted := func(key []byte) bool {
		return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
	}
	if err := c.add(keys); err != nil {
		return err
	}
	if err := c.keys.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	// RemoveKey moves what is behind a key in a slice that others are reading, so only the last may be removed. Keys that
	// are wanted and stand behind one that is not are gone for a moment.
	for have := slices.Clone(c.keys.GetKeys()); !all(have, wanted); have = have[:len(have)-1] {
		if err := c.keys.RemoveKey(have[len(have)-1]); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	return c.add(keys)
}

// add adds those that are not there.
func (c *Cluster) add(keys [][]byte) error {
	for _, key := range keys {
		if err := c.keys.AddKey(key); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	return nil
}

func all(keys [][]byte, are func([]byte) bool) bool {
	return !slices.ContainsFunc(keys, func(key []byte) bool { return !are(key) })
}

func cloneKeys(keys [][]byte) (cloned [][]byte) {
	for _, key := range keys {
		cloned = append(cloned, bytes.Clone(key))
	}
	return cloned
}
