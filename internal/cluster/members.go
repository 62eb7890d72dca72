package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

const (
	// remembered is how long those that died or left are still known, and tried.
	remembered = time.Hour
	// spared is how long they are known when others want their place: longer than memberlist itself knows them, so that
	// it never has more of them than there are here.
	spared = time.Minute
)

// State is what is believed of a coordinator. Whom memberlist only suspects, it tells nobody: until it is sure, that one is
// Alive.
type State int

// The states. The zero value is none.
const (
	// Alive: it answers.
	Alive State = iota + 1
	// Dead: it does not answer any more, and did not say that it would not.
	Dead
	// Left: it said goodbye.
	Left
)

// String is the state in a word.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Member is what is known of one coordinator.
type Member struct {
	Name string
	// Addr is where its gossip is, or was.
	Addr netip.AddrPort
	// Meta is what it told of itself last.
	Meta  []byte
	State State
	// Since is when this coordinator noticed that it is in that state.
	Since time.Time
}

// known is a Member, and whether it has said that it is about to leave.
type known struct {
	Member
	leaving bool
}

// members are all that are known. memberlist tells them what happens, and asks them whom to believe (they are its
// EventDelegate, AliveDelegate and ConflictDelegate); it holds a lock of its own meanwhile, so nothing here calls it.
type members struct {
	own       string
	log       *slog.Logger
	often     *rate.Limiter // of lines about who comes and goes
	conflicts *rate.Limiter

	mu      sync.Mutex
	byName  map[string]*known
	changed chan struct{} // Closed when anything changes.
	ended   bool
}

func newMembers(own string, log *slog.Logger) *members {
	return &members{
		own: own, log: log, often: rate.NewLimiter(1, 2*maxMembers), conflicts: rate.NewLimiter(rate.Every(complain), 1),
		byName: map[string]*known{}, changed: make(chan struct{}),
	}
}

// all are copies, by name, and the channel that is closed at the next change.
func (m *members) all() ([]Member, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Member
	for _, k := range m.byName {
		one := k.Member
		one.Meta = bytes.Clone(one.Meta)
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return all, m.changed
}

// lost are the addresses of those that are not alive.
func (m *members) lost() (addrs []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.byName {
		if k.State != Alive {
			addrs = append(addrs, k.Addr)
		}
	}
	return addrs
}

// forget forgets those that have not been alive for so long.
func (m *members) forget(after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.byName)
	maps.DeleteFunc(m.byName, func(_ string, k *known) bool { return k.State != Alive && time.Since(k.Since) >= after })
	if len(m.byName) < before {
		m.change()
	}
}

// end makes them deaf to what a memberlist that is being stopped still has to say.
func (m *members) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
}

// change says that something changed; the lock is held.
func (m *members) change() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// names are what coordinators may be called.
var names = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// NotifyAlive refuses who cannot be a coordinator. An error is for the log: nobody else hears of it.
func (m *members) NotifyAlive(node *memberlist.Node) error {
	if !names.MatchString(node.Name) {
		return errors.New("its name is none of a coordinator")
	}
	if len(node.Meta) > MaxMeta {
		return fmt.Errorf("it tells %d bytes of itself, more than %d", len(node.Meta), MaxMeta)
	}
	if addr := addrOf(node); !addr.IsValid() || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast() {
		return fmt.Errorf("nobody can be at its address, %v", addr)
	}
	if !m.room(node.Name) {
		return fmt.Errorf("there are %d coordinators already", maxMembers)
	}
	return nil
}

// room says whether there is a place for a name, and makes one if somebody has not been alive for long.
func (m *members) room(name string) bool {
	full := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.byName[name] == nil && len(m.byName) >= maxMembers
	}
	if full() {
		m.forget(spared)
	}
	return !full()
}

// NotifyJoin notes one that is new, or alive again.
func (m *members) NotifyJoin(node *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	k := &known{Member: Member{Name: node.Name, Addr: addrOf(node), State: Alive, Since: time.Now()}}
	m.byName[node.Name] = k
	k.tells(node.Meta)
	m.change()
	m.say(slog.LevelInfo, "a coordinator is alive", k)
}

// NotifyUpdate notes what one tells of itself.
func (m *members) NotifyUpdate(node *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.byName[node.Name]; k != nil && !m.ended && k.tells(node.Meta) {
		m.change()
	}
}

// NotifyLeave notes one that died, or left.
func (m *members) NotifyLeave(node *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.byName[node.Name]
	if k == nil || m.ended {
		return
	}
	k.State, k.Since = Dead, time.Now()
	if k.leaving {
		k.State = Left
	}
	m.change()
	if k.State == Left {
		m.say(slog.LevelInfo, "a coordinator has left", k)
	} else {
		m.say(slog.LevelWarn, "a coordinator does not answer any more", k)
	}
}

// NotifyConflict complains of two that have the same name: memberlist goes on believing the first.
func (m *members) NotifyConflict(existing, other *memberlist.Node) {
	if !m.conflicts.Allow() {
		return
	}
	m.log.Error("two coordinators have the same name: give each its own (if one has just been started again at another address, this passes)",
		"coordinator", existing.Name, "address", addrOf(existing), "other_address", addrOf(other))
}

// say writes a line about another coordinator.
func (m *members) say(level slog.Level, line string, k *known) {
	if k.Name != m.own && m.often.Allow() {
		m.log.Log(context.Background(), level, line, "coordinator", k.Name, "address", k.Addr)
	}
}

// tells takes what one tells of itself, and says whether it is news. The farewell is none: what was told before stays.
func (k *known) tells(meta []byte) bool {
	if k.leaving = string(meta) == farewell; k.leaving {
		return false
	}
	k.Meta = bytes.Clone(meta)
	return true
}

// addrOf is a node's address; it is not valid if there can be no such.
func addrOf(node *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(node.Addr)
	return netip.AddrPortFrom(addr.Unmap(), node.Port)
}

// checkMeta says what is wrong with what others shall be told.
func checkMeta(meta []byte) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("gossip: %d bytes to tell, more than %d", len(meta), MaxMeta)
	}
	if string(meta) == farewell {
		return fmt.Errorf("gossip: %q is what a coordinator says that leaves; tell something else", farewell)
	}
	return nil
}
