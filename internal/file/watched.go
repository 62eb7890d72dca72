package file

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// look is the time between two looks at a file that is watched.
	look = 500 * time.Millisecond
	// complain is the time after which a file that is still wrong is spoken of again.
	complain = time.Minute
)

// Watched is a file of settings that nobody but its owner can write, and what it said when it could be read last. It is
// safe for concurrent use.
type Watched[T any] struct {
	path  string
	limit int
	parse func(data []byte, before T) (T, error)

	mu      sync.Mutex
	data    []byte
	value   T
	changed chan struct{} // Closed when the value is replaced.
}

// Watch reads a file of at most limit bytes for the first time. parse makes of what it holds what it says; before is what
// it said until now, the zero value the first time.
func Watch[T any](path string, limit int, parse func(data []byte, before T) (T, error)) (*Watched[T], error) {
	w := &Watched[T]{path: path, limit: limit, parse: parse}
	if _, err := w.reload(); err != nil {
		return nil, err
	}
	return w, nil
}

// Path is the file's.
func (w *Watched[T]) Path() string { return w.path }

// Current is what the file says at this moment, and a channel that is closed when that is replaced.
func (w *Watched[T]) Current() (T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.changed
}

// Follow reads the file again whenever it changes, until ctx ends. A version that cannot be read changes nothing: the one
// before holds. told hears of that at once and then every minute, until the file is right again, and of every change,
// without an error.
func (w *Watched[T]) Follow(ctx context.Context, told func(changed bool, err error)) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	wrong, said := "", time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := w.reload()
		switch {
		case err != nil && (err.Error() != wrong || time.Since(said) >= complain):
			wrong, said = err.Error(), time.Now()
			told(false, err)
		case err == nil && (changed || wrong != ""):
			wrong = ""
			told(changed, nil)
		}
	}
}

// reload reads the file, and puts what it says in force if it says anything new.
func (w *Watched[T]) reload() (changed bool, err error) {
	data, err := w.read()
	if err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil && bytes.Equal(data, w.data) {
		return false, nil
	}
	value, err := w.parse(data, w.value)
	if err != nil {
		return false, err
	}
	if w.changed != nil {
		close(w.changed)
	}
	w.data, w.value, w.changed = data, value, make(chan struct{})
	return true, nil
}

// read reads a file that nobody but its owner can write.
func (w *Watched[T]) read() ([]byte, error) {
	in, err := os.Open(w.path)
	if err != nil {
		return nil, because(w.path, err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return nil, because(w.path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is not a regular file", w.path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: others than its owner can write it (%v): chmod go-w %s", w.path, mode, w.path)
	}
	if stranger(info) {
		return nil, fmt.Errorf("%s: it belongs to neither root nor the user that this runs as: chown it", w.path)
	}
	return From(in, w.path, w.limit)
}
