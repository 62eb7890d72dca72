package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// lives is what the programs told of themselves, as far as it was read.
type lives struct {
	world *world
	mu    sync.Mutex
	read  map[string]*tale
	twins []*agent // clones, which are gone for good when they are
}

// adopt has a clone's life read too.
func (l *lives) adopt(twin *agent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.twins = append(l.twins, twin)
}

// clones are all that there were.
func (l *lives) clones() []*agent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.twins
}

// agents are the names of all that tell of themselves.
func (l *lives) agents() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range slices.Concat(l.world.agents, l.twins) {
		ids = append(ids, a.id)
	}
	return ids
}

// tale is the events of one program.
type tale struct {
	agent      string
	offset     int64
	events     []chaos.Event
	waiting    map[number]time.Time // results that are written and not acknowledged
	gaps       map[number]bool      // numbers that were given up, of which the coordinator does not know yet
	connected  time.Time
	goroutines int
}

// number is a place in a spool.
type number struct{ epoch, seq uint64 }

// in tells whether it is one of those that an event is about.
func (n number) in(e chaos.Event) bool {
	return n.epoch == e.Epoch && n.seq >= e.First && n.seq <= e.Last
}

// programs are those that tell of themselves, with the names of the agents.
func (l *lives) programs() map[string]string {
	names := map[string]string{}
	for _, c := range l.world.coordinators {
		names[c.name] = ""
	}
	for _, a := range slices.Concat(l.world.agents, l.twins) {
		names[a.name] = a.id
	}
	return names
}

// catchUp reads what was told since it was called last.
func (l *lives) catchUp() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read == nil {
		l.read = map[string]*tale{}
	}
	for name, agent := range l.programs() {
		t := l.read[name]
		if t == nil {
			t = &tale{agent: agent, waiting: map[number]time.Time{}, gaps: map[number]bool{}}
			l.read[name] = t
		}
		if err := t.catchUp(l.world.dir + "/" + name + ".events"); err != nil {
			return err
		}
	}
	return nil
}

func (t *tale) catchUp(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(t.offset, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line that is not whole yet is read next time
		}
		if err != nil {
			return err
		}
		t.offset += int64(len(line))
		var e chaos.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%s: %q: %w", file, line, err)
		}
		t.take(e)
	}
}

func (t *tale) take(e chaos.Event) {
	switch e.Op {
	case chaos.Running:
		t.goroutines = e.Goroutines
		return // it is no part of the history
	case chaos.Spooling:
		t.waiting[number{e.Epoch, e.First}] = e.At()
		delete(t.gaps, number{e.Epoch, e.First})
	case chaos.Moved:
		from := number{e.FromEpoch, e.FromSeq}
		if at, ok := t.waiting[from]; ok {
			delete(t.waiting, from)
			t.waiting[number{e.Epoch, e.First}] = at
		}
	case chaos.Connected:
		t.connected = e.At()
	case chaos.Acked:
		maps.DeleteFunc(t.waiting, func(n number, _ time.Time) bool { return n.in(e) })
		maps.DeleteFunc(t.gaps, func(n number, _ bool) bool { return n.in(e) || n.epoch < e.Epoch })
	case chaos.Dropped:
		maps.DeleteFunc(t.waiting, func(n number, _ time.Time) bool { return n.in(e) })
		for seq := e.First; seq <= e.Last; seq++ {
			t.gaps[number{e.Epoch, seq}] = true
		}
	case chaos.Attempted, chaos.Discarded, chaos.Dying:
	}
	t.events = append(t.events, e)
}

// waiting is how many results of a program were written before a time and are not acknowledged. A process that
// died in the middle of a write has nothing to deliver of that: what was written within the last moment
// before its end does not count.
func (l *lives) waiting(p *program, before time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.read[p.name]
	if t == nil {
		return 0
	}
	p.mu.Lock()
	ends, spoiled := p.ends, p.spoiled
	p.mu.Unlock()
	for _, at := range t.waiting {
		lost := history.Within(spoiled, at)
		for _, end := range ends {
			lost = lost || !at.After(end) && end.Sub(at) < time.Second
		}
		if at.Before(before) && !lost {
			n++
		}
	}
	return n
}

// givenUp is how many numbers a program gave up of which the coordinator does not know yet.
func (l *lives) givenUp(p *program) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read[p.name]; t != nil {
		return len(t.gaps)
	}
	return 0
}

// goroutines is how many a program had when it told last.
func (l *lives) goroutines(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read[name]; t != nil {
		return t.goroutines
	}
	return 0
}

// last is the newest event of a kind that a program told of.
func (l *lives) last(name string, op chaos.Op) (e chaos.Event, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read[name]; t != nil {
		for i := range t.events {
			if got := t.events[len(t.events)-1-i]; got.Op == op {
				return got, true
			}
		}
	}
	return chaos.Event{}, false
}

// since is how many events of a kind a program told of since a time.
func (l *lives) since(p *program, op chaos.Op, since time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read[p.name]; t != nil {
		for _, e := range t.events {
			if e.Op == op && !e.At().Before(since) {
				n++
			}
		}
	}
	return n
}

// asked is how many jobs a program did of measurements that were opened since a time.
func (l *lives) asked(p *program, since time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.read[p.name]; t != nil {
		for _, e := range t.events {
			if id, err := ulid.Parse(e.Measurement); e.Op == chaos.Attempted && err == nil && ulid.Time(id.Time()).After(since) {
				n++
			}
		}
	}
	return n
}

// count is how many results programs made, and were acknowledged, so far.
func (l *lives) count() (attempted, acked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.read {
		for _, e := range t.events {
			switch e.Op {
			case chaos.Attempted:
				attempted++
			case chaos.Acked:
				acked += int(e.Last - e.First + 1)
			case chaos.Spooling, chaos.Moved, chaos.Discarded, chaos.Dropped, chaos.Connected, chaos.Dying, chaos.Running:
			}
		}
	}
	return attempted, acked
}

// histories are the agents' lives as the checker wants them.
func (l *lives) histories() map[string]*history.Life {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]*history.Life{}
	for _, a := range slices.Concat(l.world.agents, l.twins) {
		life := &history.Life{Agent: a.id}
		if t := l.read[a.name]; t != nil {
			life.Events = t.events
		}
		a.mu.Lock()
		life.Deaths, life.Captive, life.Spoiled = a.ends, a.captive, a.spoiled
		a.mu.Unlock()
		life.Gone = slices.Contains(l.twins, a)
		all[a.name] = life
	}
	return all
}
