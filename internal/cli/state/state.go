// Package state keeps what the command line remembers between runs, as small JSON files of the
// user's own: where `elsewhere up` listens, and the last measurement of each coordinator.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const (
	upFile   = "up.json"
	lastFile = "last.json"
	// maxFile bounds what is read of a file, in bytes.
	maxFile = 1 << 20
	// maxLast bounds how many coordinators are remembered.
	maxLast = 100
)

// Up says where `elsewhere up` listens and how to be let in.
type Up struct {
	// Coordinator is its address, HOST:PORT.
	Coordinator string `json:"coordinator"`
	// Insecure says that it speaks in clear and wants no token.
	Insecure bool `json:"insecure"`
	// Token is the bearer token. Default: none.
	Token string `json:"token"`
	// CA is the path of the PEM file that its certificate is checked by. Default: the system's roots.
	CA string `json:"ca"`
	// PID is the process that listens; a file whose process is gone counts for nothing.
	PID int `json:"pid"`
}

// Dir returns the directory: $XDG_STATE_HOME/elsewhere, or else ~/.local/state/elsewhere. It is ""
// where neither is known, and nothing is remembered then.
func Dir(getenv func(string) string) string {
	// The XDG base directory specification has relative paths ignored.
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "elsewhere")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "elsewhere")
	}
	return ""
}

// WriteUp leaves word of a network that is up, readable by the user alone.
func WriteUp(dir string, up Up) error {
	return write(dir, upFile, up)
}

// ReadUp returns what WriteUp left; ok is false if there is nothing, or its process is gone.
func ReadUp(dir string) (up Up, ok bool, err error) {
	if err := read(dir, upFile, &up); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return Up{}, false, nil
		}
		return Up{}, false, err
	}
	return up, up.Coordinator != "" && alive(up.PID), nil
}

// RemoveUp removes what the process pid left, and nothing that another one left since.
func RemoveUp(dir string, pid int) error {
	var up Up
	err := read(dir, upFile, &up)
	if errors.Is(err, os.ErrNotExist) || (err == nil && up.PID != pid) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, upFile))
}

// Last returns the id of the last measurement asked of a coordinator; "" if there is none.
func Last(dir, coordinator string) string {
	last := map[string]string{}
	if err := read(dir, lastFile, &last); err != nil {
		return "" // damaged or absent: nothing is remembered
	}
	return last[coordinator]
}

// Remember keeps the id of the last measurement asked of a coordinator.
func Remember(dir, coordinator, id string) error {
	last := map[string]string{}
	if err := read(dir, lastFile, &last); err != nil || len(last) >= maxLast {
		last = map[string]string{}
	}
	last[coordinator] = id
	return write(dir, lastFile, last)
}

// alive says whether the process runs; 0 means that nobody said.
func alive(pid int) bool {
	if pid <= 0 {
		return true
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	return !errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// read decodes a file.
func read(dir, name string, into any) error {
	if dir == "" {
		return os.ErrNotExist
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := json.NewDecoder(io.LimitReader(f, maxFile)).Decode(into); err != nil {
		return fmt.Errorf("%s is damaged, remove it: %w", f.Name(), err)
	}
	return nil
}

// write replaces a file in one step, so that a reader sees the old one or the new one.
func write(dir, name string, v any) error {
	if dir == "" {
		return errors.New("no directory for state: set XDG_STATE_HOME or HOME")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, name+".*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
