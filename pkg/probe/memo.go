package probe

import (
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// Bounds of what Chains remembers: some megabytes at most.
const (
	maxVerdicts   = 256
	maxRemembered = 8 << 10 // Bytes of a chain and its stapled response.
)

// Chains remembers how chains were judged, so that the same one served again, for the same name and by
// the same roots, costs no signature check. A verdict is remembered for the time in which it holds: until
// a validity or a stapled response begins or ends. One that took a fetch is not remembered, for what is
// fetched may change. The zero value is ready, nil remembers nothing, and the roots should not differ
// between the Envs that share one.
type Chains struct {
	mu       sync.Mutex
	roots    []*x509.Certificate // The operator's, that the verdicts were made by.
	verdicts map[[sha256.Size]byte]*list.Element
	recent   list.List // Of *verdict; the least recently used is the last.
}

// verdict is what was said of a chain, and the time in which it holds, both ends excluded.
type verdict struct {
	key         [sha256.Size]byte
	from, until time.Time
	examined    examined
}

// size is what there is to remember of a chain, in bytes.
func (c *servedChain) size() int {
	n := len(c.staple)
	for _, der := range c.raw {
		n += len(der)
	}
	return n
}

// key identifies a chain, what it is compared with, and what was stapled to it.
func (c *servedChain) key() (sum [sha256.Size]byte) {
	h := sha256.New()
	part := func(b []byte) { // Its length before each part, so that no two chains are written alike.
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		_, _ = h.Write(b)
	}
	part([]byte(c.name))
	part(binary.BigEndian.AppendUint32(nil, uint32(len(c.names))))
	for _, name := range c.names {
		part([]byte(name))
	}
	for _, der := range c.raw {
		part(der)
	}
	if c.staple != nil {
		part([]byte("staple")) // No certificate.
		part(c.staple)
	}
	h.Sum(sum[:0])
	return sum
}

// recall returns what was said of a chain, if that still holds.
func (m *Chains) recall(c *servedChain, roots []*x509.Certificate, now time.Time) (examined, bool) {
	if m == nil || c.size() > maxRemembered {
		return examined{}, false
	}
	key := c.key()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judgeBy(roots)
	e := m.verdicts[key]
	if e == nil {
		return examined{}, false
	}
	v := e.Value.(*verdict)
	if !now.After(v.from) || !now.Before(v.until) {
		return examined{}, false
	}
	m.recent.MoveToFront(e)
	return v.examined.clone(), true
}

// remember keeps what was said of a chain.
func (m *Chains) remember(c *servedChain, roots []*x509.Certificate, v verdict) {
	if m == nil || c.size() > maxRemembered || !v.from.Before(v.until) {
		return
	}
	v.key, v.examined = c.key(), v.examined.clone()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judgeBy(roots)
	if old := m.verdicts[v.key]; old != nil {
		m.recent.Remove(old)
	} else if m.recent.Len() >= maxVerdicts {
		delete(m.verdicts, m.recent.Remove(m.recent.Back()).(*verdict).key)
	}
	m.verdicts[v.key] = m.recent.PushFront(&v)
}

// judgeBy forgets everything if the roots are others than before.
func (m *Chains) judgeBy(roots []*x509.Certificate) {
	if m.verdicts == nil || !slices.Equal(m.roots, roots) {
		m.roots, m.verdicts = slices.Clone(roots), map[[sha256.Size]byte]*list.Element{}
		m.recent.Init()
	}
}

// clone copies what was said, since a Result is cut to fit its bound after it was made.
func (x examined) clone() examined {
	x.chain = slices.Clone(x.chain)
	for i, c := range x.chain {
		x.chain[i] = proto.CloneOf(c)
	}
	x.names = slices.Clone(x.names)
	for i, n := range x.names {
		x.names[i] = proto.CloneOf(n)
	}
	x.analysis, x.ocsp, x.failures = proto.CloneOf(x.analysis), proto.CloneOf(x.ocsp), slices.Clone(x.failures)
	return x
}
