// Package file reads the files that people name: no more of them than is sensible, and with the same words
// for what is wrong with any; and keeps those that hold a secret.
package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read reads a file of at most limit bytes. An error is one line that begins with the path.
func Read(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, because(path, err)
	}
	defer func() { _ = f.Close() }()
	return From(f, path, limit)
}

// From reads what in holds as Read does; name is what errors call it. The byte order mark that some editors
// begin a file with is left out.
func From(in io.Reader, name string, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, because(name, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s: larger than %s", name, size(limit))
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), nil
}

// because says which file, once, and why it cannot be read.
func because(name string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// size is a number of bytes for people.
func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// Private refuses a file that others than its owner may read. One that is not there is no fault.
func Private(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return because(path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: others may read it (mode %04o): replace what is in it if they could have, and chmod 600 it", path, mode)
	}
	return nil
}
