package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Whole is a file that is there when it is complete, or not at all. It is its owner's alone (0600). Until Keep it
// stands beside its place, under another name.
type Whole struct {
	*os.File
	path string
}

// Create begins a file at path, or one that takes the place of what is there.
func Create(path string) (*Whole, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is there already, and is no file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return nil, because(path, err)
	}
	return &Whole{f, path}, nil
}

// Keep puts the file in its place. When it returns nil, the file outlives a power cut.
func (w *Whole) Keep() error {
	f := w.File
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), w.path)
	}
	if err != nil {
		return because(w.path, err)
	}
	w.File = nil
	return SyncDir(filepath.Dir(w.path))
}

// Discard removes what was not kept.
func (w *Whole) Discard() {
	if w.File != nil {
		_ = w.Close()
		_ = os.Remove(w.Name())
	}
}

// Replace writes a file in one step, durably and for its owner alone: after a crash it is the old one or the new one.
func Replace(path string, data []byte) error {
	w, err := Create(path)
	if err != nil {
		return err
	}
	defer w.Discard()
	if _, err := w.Write(data); err != nil {
		return because(path, err)
	}
	return w.Keep()
}

// SyncDir makes durable which files a directory has.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return because(path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return because(path, err)
	}
	return nil
}
