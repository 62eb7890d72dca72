package spool

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// memory is a disk that fails when it is told to, and knows what a power cut would leave of it.
type memory struct {
	mu      sync.Mutex
	names   map[string]*inode
	durable map[string]*inode // what a power cut leaves of names
	calls   int
	// fails says whether a call fails, by its number from 1. Default: none does.
	fails func(call int, op string) error
	// space is the bytes that all files may have together. Default: 0, no bound.
	space int
}

type inode struct {
	data    []byte
	durable []byte // what a power cut leaves of data
	// failed: an fsync has failed. What was dirty then is clean now and was not written, so that no later fsync
	// writes it either (fsync(2), "errors"), but for what is written again since.
	failed bool
	since  []written
}

type written struct {
	data []byte
	at   int64
}

// put returns data with more of it at an offset; data itself keeps its bytes.
func put(data, more []byte, at int64) []byte {
	data = append(slices.Clone(data), make([]byte, max(0, int(at)+len(more)-len(data)))...)
	copy(data[at:], more)
	return data
}

func newMemoryDisk() *memory {
	return &memory{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// call counts a call and says whether it fails.
func (m *memory) call(op string) error {
	m.calls++
	if m.fails == nil {
		return nil
	}
	return m.fails(m.calls, op)
}

func (m *memory) used() (n int) {
	for _, node := range m.names {
		n += len(node.data)
	}
	return n
}

func (m *memory) create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("create"); err != nil {
		return nil, err
	}
	m.names[name] = &inode{}
	return &memoryFile{m, m.names[name]}, nil
}

func (m *memory) open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("open"); err != nil {
		return nil, err
	}
	if m.names[name] == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return &memoryFile{m, m.names[name]}, nil
}

func (m *memory) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("rename"); err != nil {
		return err
	}
	m.names[to] = m.names[from]
	delete(m.names, from)
	return nil
}

func (m *memory) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("remove"); err != nil {
		return err
	}
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(m.names, name)
	return nil
}

func (m *memory) list() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("list"); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(m.names)), nil
}

func (m *memory) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("dirsync"); err != nil {
		return err
	}
	m.durable = maps.Clone(m.names)
	return nil
}

// crash returns the disk as it is after the process, or the machine, has ended here. torn: of what was not
// synced something reached the disk, as it happened to.
func (m *memory) crash(power, torn bool) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	after, moved := newMemoryDisk(), map[*inode]*inode{}
	move := func(node *inode) *inode {
		if moved[node] == nil {
			moved[node] = &inode{data: slices.Clone(node.data), durable: node.durable, failed: node.failed, since: node.since}
		}
		return moved[node]
	}
	for name, node := range m.durable {
		after.durable[name] = move(node)
	}
	if !power {
		for name, node := range m.names {
			after.names[name] = move(node)
		}
		return after
	}
	for _, node := range moved {
		extra := len(node.data) - len(node.durable)
		whole := node.data
		node.data, node.failed = slices.Clone(node.durable), false
		if torn && extra > 0 {
			node.data = slices.Concat(node.data, whole[len(node.data):][:extra*2/3], make([]byte, extra/7))
		}
		node.durable = slices.Clone(node.data)
	}
	after.names = maps.Clone(after.durable)
	return after
}

type memoryFile struct {
	m *memory
	*inode
}

func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes half when it fails.
func (f *memoryFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n = len(p)
	err = f.m.call("write")
	grow := max(0, int(off)+n-len(f.data))
	if err == nil && f.m.space > 0 && f.m.used()+grow > f.m.space {
		err = syscall.ENOSPC
	}
	if err != nil {
		n /= 2
		if f.m.space > 0 {
			n = min(n, max(0, f.m.space-f.m.used()))
		}
	}
	f.data = put(f.data, p[:n], off)
	if f.failed {
		f.since = append(f.since, written{slices.Clone(p[:n]), off})
	}
	return n, err
}

func (f *memoryFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.call("truncate"); err != nil {
		return err
	}
	f.data = slices.Clone(f.data[:size])
	return nil
}

func (f *memoryFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.call("sync"); err != nil {
		f.failed, f.since = true, nil
		return err
	}
	if !f.failed {
		f.durable = f.data
	}
	for _, w := range f.since {
		f.durable = put(f.durable, w.data, w.at)
	}
	f.since = nil
	return nil
}

func (f *memoryFile) size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.data)), f.m.call("stat")
}

func (f *memoryFile) Close() error { return nil }
